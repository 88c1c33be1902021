//! What the stories are told in: a real etcd of one or three members, a line to it that can be cut, and a follower whose
//! events become a plain map.

use std::collections::BTreeMap;
use std::net::TcpListener as StdListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_client::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use crate::config::EtcdConfig;
use crate::model::{Change, Event};
use crate::registry::{Layout, Prefix, RegistryStatus, connect, run};

pub const PREFIX: &str = "/pointsman";

pub struct Cluster {
    members: Vec<Member>,
    directory: tempfile::TempDir,
    flags: Vec<String>,
}

struct Member {
    process: Child,
    client: u16,
    raft: u16,
}

impl Cluster {
    /// Starts and waits until every member answers.
    pub async fn start(n_members: usize) -> Self {
        Self::start_with(n_members, Vec::new()).await
    }

    pub async fn start_with(n_members: usize, flags: Vec<String>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ports: Vec<(u16, u16)> = (0..n_members).map(|_| (free_port(), free_port())).collect();
        let raft: Vec<u16> = ports.iter().map(|(_, raft)| *raft).collect();
        let members = ports.iter().enumerate().map(|(n, (client, port))| Member {
            process: spawn(directory.path(), n, *client, &raft, &flags),
            client: *client,
            raft: *port,
        });
        let cluster = Self { members: members.collect(), directory, flags: flags.clone() };
        for n in 0..n_members {
            cluster.answers(n).await;
        }
        cluster
    }

    pub fn url(&self, n: usize) -> String {
        format!("http://127.0.0.1:{}", self.members[n].client)
    }

    pub fn urls(&self) -> Vec<String> {
        (0..self.members.len()).map(|n| self.url(n)).collect()
    }

    pub async fn client(&self) -> Client {
        connect(&config(&self.urls()), &self.url(0)).await.unwrap()
    }

    pub fn pause(&self, n: usize) {
        kill(self.pid(n), Signal::SIGSTOP).unwrap();
    }

    pub fn resume(&self, n: usize) {
        kill(self.pid(n), Signal::SIGCONT).unwrap();
    }

    pub fn stop(&mut self, n: usize) {
        self.members[n].process.kill().unwrap();
        self.members[n].process.wait().unwrap();
    }

    pub async fn start_again(&mut self, n: usize) {
        let raft: Vec<u16> = self.members.iter().map(|member| member.raft).collect();
        self.members[n].process = spawn(self.directory.path(), n, self.members[n].client, &raft, &self.flags);
        self.answers(n).await;
    }

    /// Where a member keeps its data.
    pub fn data(&self, n: usize) -> PathBuf {
        self.directory.path().join(format!("m{n}"))
    }

    async fn answers(&self, n: usize) {
        let (url, deadline) = (self.url(n), Instant::now() + Duration::from_secs(20));
        let is_ready = async || {
            let Ok(mut client) = connect(&config(std::slice::from_ref(&url)), &url).await else { return false };
            client.get("/none", None).await.is_ok()
        };
        while !is_ready().await {
            assert!(Instant::now() < deadline, "etcd does not answer at {url}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn pid(&self, n: usize) -> Pid {
        Pid::from_raw(self.members[n].process.id() as i32)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.process.kill();
            let _ = member.process.wait();
        }
    }
}

fn spawn(directory: &Path, n: usize, client: u16, raft: &[u16], flags: &[String]) -> Child {
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let cluster: Vec<String> = raft.iter().enumerate().map(|(n, port)| format!("m{n}={}", url(*port))).collect();
    Command::new("etcd")
        .arg("--data-dir")
        .arg(directory.join(format!("m{n}")))
        .args(["--name", &format!("m{n}"), "--log-level", "error", "--initial-cluster", &cluster.join(",")])
        .args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)])
        .args(flags)
        .args(["--listen-peer-urls", &url(raft[n]), "--initial-advertise-peer-urls", &url(raft[n])])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd is installed (Debian: etcd-server)")
}

fn free_port() -> u16 {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn config(endpoints: &[String]) -> EtcdConfig {
    EtcdConfig::plain(endpoints.to_vec())
}

/// A TCP line to one etcd.
pub struct Line {
    pub url: String,
    state: watch::Sender<LineState>,
    carrying: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineState {
    Whole,
    /// Connections are reset, and new ones too.
    Cut,
    /// Connections stay open; nothing passes any more.
    Silent,
}

impl Line {
    pub async fn to(url: &str) -> Self {
        let to = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = watch::Sender::new(LineState::Whole);
        let watched = state.subscribe();
        let carrying = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((inward, _)) = listener.accept().await {
                connections.spawn(carry(inward, to.clone(), watched.clone()));
            }
        });
        Self { url, state, carrying }
    }

    pub fn cut(&self) {
        self.state.send_replace(LineState::Cut);
    }

    pub fn silence(&self) {
        self.state.send_replace(LineState::Silent);
    }

    pub fn mend(&self) {
        self.state.send_replace(LineState::Whole);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

async fn carry(mut inward: TcpStream, to: String, mut state: watch::Receiver<LineState>) {
    let now = *state.borrow();
    if now == LineState::Whole {
        let Ok(mut outward) = TcpStream::connect(&to).await else { return };
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut inward, &mut outward) => return,
            _ = state.wait_for(|now| *now != LineState::Whole) => {}
        }
        // What is silent keeps both sides open, for as long as it lasts.
        let _ = state.wait_for(|now| *now != LineState::Silent).await;
    } else {
        let _ = state.wait_for(|now| *now != LineState::Silent).await;
    }
}

/// `run`, with its events made into a map of `service/id` to address.
pub struct Following {
    pub status: Arc<RegistryStatus>,
    seen: Arc<Mutex<Seen>>,
    shutdown: watch::Sender<bool>,
    running: JoinHandle<()>,
}

#[derive(Default)]
pub struct Seen {
    pub map: BTreeMap<String, String>,
    /// Per event: its revision and how many changes it had.
    pub events: Vec<(u64, usize)>,
    /// Departures, as `service/id Deleted`.
    pub gone: Vec<String>,
    /// How often the registry's identity was said.
    pub n_epochs: usize,
}

impl Following {
    pub fn start(config: EtcdConfig, snapshot: Option<PathBuf>) -> Self {
        Self::of(Layout::Own(Prefix::new(PREFIX)), config, snapshot)
    }

    pub fn of(layout: Layout, config: EtcdConfig, snapshot: Option<PathBuf>) -> Self {
        let status = Arc::new(RegistryStatus::new("etcd"));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (shutdown, is_over) = watch::channel(false);
        let (sender, mut receiver) = mpsc::channel(4);
        let (noting, handed) = (seen.clone(), status.clone());
        tokio::spawn(async move {
            while let Some(event) = receiver.recv().await {
                noting.lock().unwrap().note(event);
            }
        });
        let running = tokio::spawn(async move {
            run(&config, (layout, Arc::default()), snapshot.as_deref(), sender, handed, is_over).await;
        });
        Self { status, seen, shutdown, running }
    }

    pub async fn stop(self) {
        self.shutdown.send_replace(true);
        self.running.await.unwrap();
    }

    pub fn look<T>(&self, at: impl FnOnce(&Seen) -> T) -> T {
        at(&self.seen.lock().unwrap())
    }

    /// Waits for it, and says how long it took.
    pub async fn eventually(&self, what: &str, mut is_so: impl FnMut(&Seen, &RegistryStatus) -> bool) -> Duration {
        let began = Instant::now();
        while !self.look(|seen| is_so(seen, &self.status)) {
            if began.elapsed() > Duration::from_secs(20) {
                let events = self.look(|seen| seen.events.clone());
                panic!("never: {what}\nevents {events:?}\n{:#?}", self.status.report());
            }
            sleep(Duration::from_millis(5)).await;
        }
        began.elapsed()
    }

    pub fn relists(&self) -> BTreeMap<&'static str, u64> {
        let counted = self.status.report().n_relists;
        counted.into_iter().filter(|(_, n)| *n > 0).map(|(reason, n)| (reason.as_str(), n)).collect()
    }
}

impl Seen {
    fn note(&mut self, mut event: Event) {
        let n_changes = event.changes.len();
        event.changes.retain(|change| !matches!(change, Change::Epoch(_)));
        self.n_epochs += n_changes - event.changes.len();
        self.events.push((event.revision, event.changes.len()));
        for change in event.changes {
            match change {
                Change::Instance { service, id, spec } => {
                    self.map.insert(format!("{service}/{id}"), spec.address.to_string());
                }
                Change::InstanceGone { service, id, departure } => {
                    self.map.remove(&format!("{service}/{id}"));
                    self.gone.push(format!("{service}/{id} {departure:?}"));
                }
                other => panic!("no story puts {other:?}"),
            }
        }
    }

    pub fn has(&self, name: &str, address: &str) -> bool {
        self.map.get(name).is_some_and(|found| found == address)
    }
}

pub fn key(name: &str) -> String {
    format!("{PREFIX}/instances/{name}")
}

/// What etcd holds under the prefix, as `Seen` has it.
pub async fn listed(client: &mut Client) -> BTreeMap<String, String> {
    let options = etcd_client::GetOptions::new().with_prefix();
    let answer = client.get(key(""), Some(options)).await.unwrap();
    let pairs = answer.kvs().iter().map(|kv| {
        let name = kv.key_str().unwrap().trim_start_matches(&key("")).to_owned();
        (name, kv.value_str().unwrap().to_owned())
    });
    pairs.collect()
}
