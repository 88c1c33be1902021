//! A real etcd in a directory of its own, and what the measurements put into it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use etcd_client::{Client, Txn, TxnOp};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::Outcome;
use crate::process::{Process, free_address};

pub struct Etcd {
    pub url: String,
    pub client: Client,
    pub process: Process,
    members_url: String,
    directory: TempDir,
}

impl Etcd {
    pub async fn start() -> Outcome<Self> {
        let directory = tempfile::tempdir()?;
        let (url, members_url) = (format!("http://{}", free_address()?), format!("http://{}", free_address()?));
        let process = process(&url, &members_url, directory.path())?;
        let client = Client::connect([&url], None).await?;
        let mut etcd = Self { url, client, process, members_url, directory };
        etcd.answers().await?;
        Ok(etcd)
    }

    /// A new process with what the old one had on disk.
    pub async fn start_again(&mut self) -> Outcome<()> {
        self.process = process(&self.url, &self.members_url, self.directory.path())?;
        self.answers().await
    }

    /// What it has on disk at one moment, as after a crash.
    pub fn backup(&self) -> Outcome<TempDir> {
        let backup = tempfile::tempdir()?;
        self.process.signal(Signal::SIGSTOP)?;
        let copied = Command::new("cp").arg("-a").arg(self.directory.path().join("etcd")).arg(backup.path()).status();
        self.process.signal(Signal::SIGCONT)?;
        if copied?.success() { Ok(backup) } else { Err("etcd's data cannot be copied".into()) }
    }

    /// It is killed, and goes on from a backup.
    pub async fn restore(&mut self, backup: TempDir) -> Outcome<()> {
        self.process.kill();
        self.directory = backup;
        self.start_again().await
    }

    /// It is killed, and another etcd answers at its address, with nothing but these records.
    pub async fn replace(&mut self, records: Vec<(String, String)>) -> Outcome<()> {
        let mut other = Self::start().await?;
        other.fill(records.into_iter()).await?;
        other.process.kill();
        self.members_url = other.members_url;
        self.restore(other.directory).await
    }

    async fn answers(&mut self) -> Outcome<()> {
        let deadline = Instant::now() + START_MAX;
        while let Err(error) = self.client.status().await {
            if Instant::now() > deadline {
                return Err(format!("etcd did not start: {error}").into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Puts many keys, as many to a transaction as etcd takes; the last revision.
    pub async fn fill(&mut self, records: impl Iterator<Item = (String, String)>) -> Outcome<i64> {
        let mut revision = 0;
        let mut records = records.peekable();
        while records.peek().is_some() {
            let puts: Vec<_> = records.by_ref().take(TXN_MAX).map(|(key, value)| TxnOp::put(key, value, None)).collect();
            let done = self.client.txn(Txn::new().and_then(puts)).await?;
            revision = done.header().map_or(revision, |header| header.revision());
        }
        Ok(revision)
    }
}

fn process(url: &str, members_url: &str, directory: &Path) -> Outcome<Process> {
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(directory.join("etcd"));
    command.args(["--listen-client-urls", url, "--advertise-client-urls", url]);
    command.args(["--listen-peer-urls", members_url, "--initial-advertise-peer-urls", members_url]);
    command.args(["--initial-cluster", &format!("default={members_url}")]);
    Process::start(&mut command, &directory.join("log"))
}

/// The key and the value of an instance.
pub fn instance(service: &str, id: impl std::fmt::Display, address: &str, weight: u16) -> (String, String) {
    (instance_key(service, id), serde_json::json!({ "v": 1, "address": address, "weight": weight }).to_string())
}

pub fn instance_key(service: &str, id: impl std::fmt::Display) -> String {
    format!("/pointsman/instances/{service}/{id}")
}

/// A service that uses its instances as soon as they are known: what is measured is the registry's way, not probes.
pub fn policy(service: &str) -> (String, String) {
    let policy = serde_json::json!({ "v": 1, "probe": { "kind": "none" }, "slow_start": "0s" });
    (format!("/pointsman/services/{service}"), policy.to_string())
}

pub fn route(service: &str) -> (String, String) {
    let route = serde_json::json!({ "path_prefix": "/", "service": service });
    (format!("/pointsman/routes/{service}"), route.to_string())
}

/// One of 127.0.0.0/8's addresses, all of which lead here; 127.0.*.* is left to others.
pub fn loopback(n: u32) -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::from((127 << 24) + (1 << 16) + n)
}

/// etcd's own limit of operations in a transaction.
const TXN_MAX: usize = 128;
const START_MAX: Duration = Duration::from_secs(20);
