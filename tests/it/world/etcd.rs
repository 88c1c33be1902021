//! A real etcd of one member, in a directory and on ports of its own, gone when dropped.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub struct Etcd {
    process: Child,
    client: SocketAddr,
    /// Removed after the process has gone.
    _dir: TempDir,
}

impl Etcd {
    /// Starts `etcd` and waits until it answers.
    pub fn start() -> Self {
        // Somebody may take a free port before etcd does; then it ends at once and we choose others.
        for _ in 0..STARTS_MAX {
            let dir = tempfile::tempdir().expect("a directory for etcd");
            let (client, members) = (free_address(), free_address());
            let url = format!("http://{client}");
            let members = format!("http://{members}");
            let process = Command::new("etcd")
                .arg("--data-dir")
                .arg(dir.path())
                .args(["--name", "story"])
                .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
                .args(["--listen-peer-urls", &members, "--initial-advertise-peer-urls", &members])
                .args(["--initial-cluster", &format!("story={members}")])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("etcd is not installed: on Debian it is the package etcd-server");
            let mut etcd = Self { process, client, _dir: dir };
            if etcd.comes_up() {
                return etcd;
            }
        }
        panic!("etcd did not come up in {STARTS_MAX} attempts");
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.client)
    }

    fn comes_up(&mut self) -> bool {
        let deadline = Instant::now() + STARTS_WITHIN;
        while Instant::now() < deadline {
            if self.process.try_wait().expect("the state of our own child").is_some() {
                return false;
            }
            if is_healthy(self.client).unwrap_or(false) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // Errors mean that it has ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn is_healthy(client: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&client, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer.contains(r#""health":"true""#))
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
    listener.local_addr().expect("the address of our own listener")
}

const STARTS_MAX: usize = 3;
const STARTS_WITHIN: Duration = Duration::from_secs(20);
