//! A real etcd of one member or several, in directories and on ports of their own, gone when dropped; with TLS, if its
//! flags say so.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
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
    /// Where it says without TLS how it is.
    metrics: SocketAddr,
    /// What else it is started with, and the folder of the files that it names.
    flags: (Vec<String>, PathBuf),
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
        let [client, members, metrics] = [(); 3].map(|()| free_address());
        let (name, cluster, others) = (format!("story-{n}"), String::new(), Vec::new());
        let flags = (Vec::new(), PathBuf::from("."));
        Self { program: None, client, members, name, cluster, others, metrics, flags, dir }
    }

    /// With these flags; the files that they name are in `folder`.
    pub fn with(folder: &Path, flags: &[&str]) -> Self {
        let mut etcd = Self::member(0);
        etcd.cluster = format!("{}=http://{}", etcd.name, etcd.members);
        etcd.flags = (flags.iter().map(|flag| (*flag).to_owned()).collect(), folder.to_owned());
        etcd.start_again();
        etcd
    }

    /// On the same ports, with the data it had.
    pub fn start_again(&mut self) {
        self.begin();
        self.others.iter_mut().for_each(Self::begin);
        self.is_well();
        self.others.iter_mut().for_each(Self::is_well);
    }

    pub fn url(&self) -> String {
        let over_tls = self.flags.0.iter().any(|flag| flag == "--cert-file");
        format!("{}://{}", if over_tls { "https" } else { "http" }, self.client)
    }

    /// How often somebody was given a token.
    pub fn n_logins(&self) -> u64 {
        let metrics = ask(self.metrics, "/metrics").expect("etcd shows its metrics");
        let mut lines = metrics.lines().filter(|line| line.starts_with("grpc_server_handled_total{"));
        let line = lines.find(|line| line.contains(r#"grpc_code="OK""#) && line.contains(r#"grpc_method="Authenticate""#));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
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
            .args(["--initial-cluster", &self.cluster])
            .args(["--listen-metrics-urls", &format!("http://{}", self.metrics)])
            .args(&self.flags.0)
            .current_dir(&self.flags.1);
        self.program = Some(Program::start(&mut command, self.dir.path(), "etcd"));
    }

    /// Waits until it answers, which a member of several only does once most are there.
    fn is_well(&mut self) {
        let program = self.program.as_mut().expect("etcd runs");
        let deadline = Instant::now() + STARTS_WITHIN;
        while !ask(self.metrics, "/health").is_ok_and(|answer| answer.contains(r#""health":"true""#)) {
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

fn ask(metrics: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&metrics, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: etcd\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}

const ANSWER_MAX: u64 = 1024 * 1024;
const STARTS_WITHIN: Duration = Duration::from_secs(20);
