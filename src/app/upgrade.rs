//! The old process's side of an upgrade (SIGQUIT): it starts the program anew, hands it every listening socket, and waits until
//! that one could serve. Until then nothing has changed here, so whatever goes wrong there is a line in the log.

use std::env;
use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{info, warn};

use super::opening::Opened;
use super::predecessor::{STDIN, VARIABLE};
use crate::config::{Config, RegistryKind};
use crate::system::handover::{AsyncChannel, Channel, Word};
use crate::system::notify::ServiceManager;
use crate::system::orphan::Orphan;
use crate::system::passed::PassedSocket;

/// How this process was started, and so how the next one is.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// By the name it was called by, so that a link leads to what it leads to by then. Called before anybody changes directory.
    pub fn of_this_process() -> io::Result<Self> {
        let mut arguments = env::args_os();
        let name = PathBuf::from(arguments.next().unwrap_or_default());
        let path = if name.components().count() > 1 { std::path::absolute(&name)? } else { found_in_path(&name)? };
        Ok(Self { path, arguments: arguments.collect() })
    }
}

fn found_in_path(name: &Path) -> io::Result<PathBuf> {
    let folders = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.map_or_else(env::current_exe, Ok)
}

/// Every listening socket, once more: whoever serves uses up its own.
#[derive(Debug)]
pub struct Kept {
    sockets: Vec<PassedSocket>,
    /// Why nobody could go on from here.
    obstacle: Option<String>,
}

impl Kept {
    /// As the next process looks for them: by the name or address in the configuration, not where they are.
    pub fn of(opened: &Opened, config: &Config) -> io::Result<Self> {
        let mut sockets = Vec::new();
        let mut keep = |name: &Option<String>, address: SocketAddr, socket: &TcpListener| {
            sockets.push(PassedSocket { name: name.clone().unwrap_or_default(), address, socket: socket.try_clone()? });
            io::Result::Ok(())
        };
        for (listener, of_listener) in config.listeners.iter().zip(opened.proxy.listeners()) {
            of_listener.iter().try_for_each(|socket| keep(&listener.socket, listener.address, socket))?;
        }
        keep(&config.admin.socket, config.admin.address, &opened.admin)?;
        if let (RegistryKind::Embedded(embedded), Some(socket)) = (&config.registry.kind, &opened.registry) {
            keep(&None, embedded.listen, socket)?;
        }
        Ok(Self { sockets, obstacle: obstacle(config) })
    }
}

fn obstacle(config: &Config) -> Option<String> {
    if std::process::id() == 1 {
        return Some("this is process 1 of a container, which ends with it; start another container instead".to_owned());
    }
    if let RegistryKind::Embedded(embedded) = &config.registry.kind
        && embedded.data.is_none()
    {
        return Some("the embedded registry is in this process's memory (registry.data), and would be lost".to_owned());
    }
    let any = config.listeners.iter().filter(|l| l.socket.is_none() && l.address.port() == 0).map(|l| l.address);
    let any: Vec<SocketAddr> = any.collect();
    let is_twice = any.iter().enumerate().any(|(at, address)| any[..at].contains(address));
    is_twice.then(|| "two listeners have the same address with port 0, so nobody could tell their sockets apart".to_owned())
}

/// A new process that has not taken over. Dropped, it ends.
#[derive(Debug)]
pub struct Attempt {
    /// `None`: it is not ours any more.
    process: Option<Orphan>,
    channel: AsyncChannel,
}

/// The new process could serve at once.
#[derive(Debug)]
pub struct Successor {
    attempt: Attempt,
    pub pid: u32,
}

impl Attempt {
    /// `Err` says why there is none.
    pub fn begin(program: &Program, kept: &Kept) -> Result<Self, String> {
        if let Some(obstacle) = &kept.obstacle {
            return Err(obstacle.clone());
        }
        let (channel, theirs) = Channel::pair().map_err(|error| format!("no socket to hand over by: {error}"))?;
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).stdin(Stdio::from(theirs)).env(VARIABLE, STDIN);
        // Those were for this process.
        for variable in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
            command.env_remove(variable);
        }
        let process = Orphan::start(command).map_err(|error| format!("{} cannot be started: {error}", program.path.display()))?;
        info!(pid = process.pid(), program = %program.path.display(), "Upgrade: a new process was started");
        let sent = match channel.send_sockets(&kept.sockets) {
            // It has ended already; why, is to be heard.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            sent => sent,
        };
        match sent.and_then(|()| channel.into_async()) {
            Ok(channel) => Ok(Self { process: Some(process), channel }),
            Err(error) => {
                process.kill();
                Err(format!("the sockets could not be handed over: {error}"))
            }
        }
    }

    /// Waits until it is ready, for so long. `Err` says why it will not take over.
    pub async fn settled(self, limit: Duration) -> Result<Successor, String> {
        let pid = self.process.as_ref().map_or(0, Orphan::pid);
        match timeout(limit, self.channel.hear()).await {
            Ok(Ok(Some(Word::Ready))) => Ok(Successor { attempt: self, pid }),
            Ok(Ok(Some(Word::Refused(why)))) => Err(why),
            Ok(Ok(Some(word))) => Err(format!("it said \"{word}\", which means nothing here")),
            Ok(Ok(None)) => Err("it ended before it was ready; what it said stands above".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("it was not ready after {}", humantime::format_duration(limit))),
        }
    }
}

impl Successor {
    /// It accepts from now on. `Err`: it is gone, and everything is ours still.
    pub async fn take_it_all(mut self) -> Result<(), String> {
        let told = self.attempt.channel.say(&Word::Yours).await;
        told.map_err(|error| format!("it ended when it was ready: {error}"))?;
        self.attempt.process = None;
        Ok(())
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            self.channel.try_say(&Word::Never);
            // It has done nothing that anybody could miss.
            process.kill();
        }
    }
}

/// The upgrade that is under way, if one is.
pub struct Upgrading {
    program: Option<Program>,
    upgrades: Arc<Upgrades>,
    manager: ServiceManager,
    limit: Duration,
    attempt: Option<JoinHandle<Result<Successor, String>>>,
}

impl Upgrading {
    pub fn new(program: Option<Program>, upgrades: Arc<Upgrades>, manager: ServiceManager, limit: Duration) -> Self {
        Self { program, upgrades, manager, limit: limit + MARGIN, attempt: None }
    }

    pub fn begin(&mut self, kept: &Kept) {
        let begun = match (&self.attempt, &self.program) {
            (Some(_), _) => Err("another upgrade is under way".to_owned()),
            (None, None) => Err("this command is not made to be replaced while it runs".to_owned()),
            (None, Some(program)) => Attempt::begin(program, kept),
        };
        match begun {
            Ok(attempt) => self.attempt = Some(tokio::spawn(attempt.settled(self.limit))),
            Err(why) => self.refused(&why),
        }
    }

    /// Returns when a new process is ready; never, while none is on its way. Being dropped, it has lost nothing.
    pub async fn settled(&mut self) -> Successor {
        loop {
            let Some(attempt) = &mut self.attempt else { return std::future::pending().await };
            let settled = attempt.await;
            self.attempt = None;
            match settled {
                Ok(Ok(successor)) => return successor,
                Ok(Err(why)) => self.refused(&why),
                Err(error) => self.refused(&error.to_string()),
            }
        }
    }

    pub fn refused(&self, why: &str) {
        self.upgrades.count_refused();
        warn!(why, "Upgrade refused: this process goes on");
        self.manager.status(&format!("{REFUSED}: {why}"));
    }
}

impl Drop for Upgrading {
    fn drop(&mut self) {
        if let Some(attempt) = &self.attempt {
            attempt.abort();
        }
    }
}

/// What came of upgrades in this process.
#[derive(Debug, Default)]
pub struct Upgrades {
    taken_over: AtomicU64,
    refused: AtomicU64,
}

impl Upgrades {
    pub fn count_taken_over(&self) {
        self.taken_over.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub fn counts(&self) -> [(&'static str, u64); 2] {
        [("taken_over", self.taken_over.load(Ordering::Relaxed)), ("refused", self.refused.load(Ordering::Relaxed))]
    }
}

/// How the status begins then; the Debian package looks for it.
const REFUSED: &str = "Upgrade refused";
/// The new process says by itself that its time is over; this is for one that says nothing.
const MARGIN: Duration = Duration::from_secs(5);
