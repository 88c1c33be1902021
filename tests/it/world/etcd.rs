//! A real etcd of one member or several, in directories and on ports of their own, gone when dropped.

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
    name: String,
    /// Who belongs to it, as it is told at its start.
    cluster: String,
    /// The other members, if there are any.
    others: Vec<Self>,
    /// Removed after the process has gone.
    dir: TempDir,
}

impl Etcd {
    /// Starts `etcd` and waits until it answers.
    pub fn start() -> Self {
        Self::cluster(1)
    }

    /// So many members, of which this is the first.
    pub fn cluster(n: usize) -> Self {
        let mut all: Vec<Self> = (0..n).map(Self::member).collect();
        let cluster: Vec<String> = all.iter().map(|etcd| format!("{}=http://{}", etcd.name, etcd.members)).collect();
        all.iter_mut().for_each(|etcd| etcd.cluster = cluster.join(","));
        let mut first = all.remove(0);
        first.others = all;
        first.start_again();
        first
    }

    fn member(n: usize) -> Self {
        let dir = tempfile::tempdir().expect("a directory for etcd");
        let (client, members) = (free_address(), free_address());
        let (name, cluster, others) = (format!("story-{n}"), String::new(), Vec::new());
        Self { program: None, client, members, name, cluster, others, dir }
    }

    /// On the same ports, with the data it had.
    pub fn start_again(&mut self) {
        self.begin();
        self.others.iter_mut().for_each(Self::begin);
        self.is_well();
        self.others.iter_mut().for_each(Self::is_well);
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.client)
    }

    /// Of every member.
    pub fn urls(&self) -> Vec<String> {
        [self].into_iter().chain(&self.others).map(Self::url).collect()
    }

    pub fn address(&self) -> SocketAddr {
        self.client
    }

    /// As a crash would.
    pub fn kill(&mut self) {
        self.program = None;
        self.others.iter_mut().for_each(Self::kill);
    }

    /// Stops answering without closing anything; the kernel still accepts connections for it.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Another registry takes this one's place: nothing is left, revisions begin again, and only what `fill` writes
    /// (to the address it is given) is there when it answers under the old address.
    pub fn replace(&mut self, fill: impl FnOnce(&str)) {
        self.kill();
        self.dir = tempfile::tempdir().expect("a directory for etcd");
        let usual = std::mem::replace(&mut self.client, free_address());
        self.start_again();
        fill(&self.url());
        let mut program = self.program.take().expect("it was started just now");
        program.signal(Signal::SIGTERM);
        program.exits_within(STARTS_WITHIN);
        self.client = usual;
        self.start_again();
    }

    fn begin(&mut self) {
        let (url, members) = (self.url(), format!("http://{}", self.members));
        let mut command = Command::new("etcd");
        command
            .arg("--data-dir")
            .arg(self.dir.path().join("data"))
            .args(["--name", &self.name, "--log-level", "error", "--unsafe-no-fsync"])
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &members, "--initial-advertise-peer-urls", &members])
            .args(["--initial-cluster", &self.cluster]);
        self.program = Some(Program::start(&mut command, self.dir.path(), "etcd"));
    }

    /// Waits until it answers, which a member of several only does once most are there.
    fn is_well(&mut self) {
        let program = self.program.as_mut().expect("etcd runs");
        let deadline = Instant::now() + STARTS_WITHIN;
        while !is_healthy(self.client).unwrap_or(false) {
            let ended = program.exited();
            assert!(ended.is_none() && Instant::now() < deadline, "etcd did not come up ({ended:?}):\n{}", program.log_tail());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, signal: Signal) {
        self.program.as_ref().expect("etcd runs").signal(signal);
        self.others.iter().for_each(|etcd| etcd.signal(signal));
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
