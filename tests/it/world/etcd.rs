//! A real etcd of one member, in a directory and on ports of its own, gone when dropped.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::ports::free_address;
use super::program::Program;

pub struct Etcd {
    /// `None` while it is stopped.
    program: Option<Program>,
    client: SocketAddr,
    members: SocketAddr,
    /// Removed after the process has gone.
    dir: TempDir,
}

impl Etcd {
    /// Starts `etcd` and waits until it answers.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory for etcd");
        let mut etcd = Self { program: None, client: free_address(), members: free_address(), dir };
        etcd.start_again();
        etcd
    }

    /// On the same ports, with the data it had.
    pub fn start_again(&mut self) {
        self.start_at(self.client);
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.client)
    }

    pub fn address(&self) -> SocketAddr {
        self.client
    }

    /// As a crash would.
    pub fn kill(&mut self) {
        self.program = None;
    }

    /// Stops answering without closing anything; the kernel still accepts connections for it.
    pub fn pause(&self) {
        self.running().signal(Signal::SIGSTOP);
    }

    pub fn resume(&self) {
        self.running().signal(Signal::SIGCONT);
    }

    /// Another registry takes this one's place: nothing is left, revisions begin again, and only what `fill` writes
    /// (to the address it is given) is there when it answers under the old address.
    pub fn replace(&mut self, fill: impl FnOnce(&str)) {
        self.kill();
        self.dir = tempfile::tempdir().expect("a directory for etcd");
        let elsewhere = free_address();
        self.start_at(elsewhere);
        fill(&format!("http://{elsewhere}"));
        let mut program = self.program.take().expect("it was started just now");
        program.signal(Signal::SIGTERM);
        program.exits_within(STARTS_WITHIN);
        self.start_again();
    }

    fn start_at(&mut self, client: SocketAddr) {
        let (url, members) = (format!("http://{client}"), format!("http://{}", self.members));
        let mut command = Command::new("etcd");
        command
            .arg("--data-dir")
            .arg(self.dir.path().join("data"))
            .args(["--name", "story", "--log-level", "error", "--unsafe-no-fsync"])
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &members, "--initial-advertise-peer-urls", &members])
            .args(["--initial-cluster", &format!("story={members}")]);
        let mut program = Program::start(&mut command, self.dir.path(), "etcd");
        let deadline = Instant::now() + STARTS_WITHIN;
        while !is_healthy(client).unwrap_or(false) {
            let ended = program.exited();
            assert!(ended.is_none() && Instant::now() < deadline, "etcd did not come up ({ended:?}):\n{}", program.log_tail());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.program = Some(program);
    }

    fn running(&self) -> &Program {
        self.program.as_ref().expect("etcd runs")
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

const STARTS_WITHIN: Duration = Duration::from_secs(20);
