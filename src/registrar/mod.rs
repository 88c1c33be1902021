//! FLOOR 5. Keeps one instance registered for as long as it lives, and takes it out of traffic before it ends.
//!
//! 1. `Child` starts the command, if there is one; `GateWatch` waits until the instance answers its probes.
//! 2. `Keep` holds the key under a lease, whatever etcd goes through; `Claim` decides what to write.
//! 3. `Life` decides what a signal, a probe or the child's end leads to; the loop here only does it.
//! 4. On the way out: draining is written, requests get their time, the lease is given back, then the child is asked to stop.
//!
//! `presence` uses the same `Keep` for a proxy's record of itself. Nothing here knows pools or requests.

mod backoff;
mod child;
mod claim;
mod gate;
mod keep;
mod life;
mod presence;
mod probe;
mod signals;
mod source;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

pub use child::Child;
pub use claim::Clash;
pub use presence::announce;
pub use probe::{Check, GatePolicy};
pub use source::{hostname, source_address};

use crate::config::EtcdConfig;
use crate::model::{InstanceId, InstanceSpec, Lifecycle, ServiceName};
use crate::registry::{Key, Prefix};
use crate::wire::{instance_json, parse_instance};
use claim::Claim;
use gate::Turn;
use keep::Keep;
use life::{Act, Life, Occurrence};
use probe::GateWatch;
use signals::Signals;

/// One instance to keep registered.
pub struct Registration {
    pub etcd: EtcdConfig,
    pub prefix: Prefix,
    pub service: ServiceName,
    pub id: InstanceId,
    pub spec: InstanceSpec,
    /// etcd takes no less than 2 s.
    pub ttl: Duration,
    /// Takes the id from another that holds it.
    pub force: bool,
    pub gate: Option<GatePolicy>,
    /// Between saying that it drains and leaving.
    pub drain: Duration,
    /// What the child has to stop before it is killed.
    pub kill_after: Duration,
    /// Empty: there is no child.
    pub command: Vec<OsString>,
}

#[derive(Debug)]
pub enum RegisterError {
    Signals(io::Error),
    Command { program: OsString, source: io::Error },
}

impl Registration {
    /// Until it is told to end or its child ends. The answer is the exit code. Run it on the main thread: the child
    /// dies with the thread that starts it.
    pub async fn run(self) -> Result<u8, RegisterError> {
        let signals = Signals::listen().map_err(RegisterError::Signals)?;
        let child = match self.command.first() {
            Some(program) => {
                let start = Child::start(&self.command);
                Some(start.map_err(|source| RegisterError::Command { program: program.clone(), source })?)
            }
            None => None,
        };
        if let Some(child) = &child {
            info!(pid = child.pid().as_raw(), "Child started");
        }
        let gate = self.gate.clone().map(|policy| GateWatch::new(policy, &self.spec.address));
        let (life, acts) = Life::begin(child.is_some(), gate.is_some());
        let watch = Watch { signals, child, gate, keeping: Keeping::start(&self), deadline: None };
        Ok(self.live(life, acts, watch).await)
    }

    async fn live(&self, mut life: Life, mut acts: Vec<Act>, mut watch: Watch) -> u8 {
        loop {
            for act in acts {
                match act {
                    Act::Say(lifecycle) => {
                        info!(service = %self.service, instance = %self.id, %lifecycle, "Instance state");
                        watch.keeping.say(self.record(lifecycle));
                    }
                    Act::AwaitDrain => watch.deadline = Some((Instant::now() + self.drain, Occurrence::DrainOver)),
                    Act::Deregister => watch.keeping.end().await,
                    Act::StopChild => {
                        watch.deadline = Some((Instant::now() + self.kill_after, Occurrence::PatienceOver));
                        watch.signal_child(Signal::SIGTERM);
                    }
                    Act::KillChild => watch.kill_child(),
                    Act::Exit { code } => return code,
                }
            }
            acts = life.on(watch.next().await);
        }
    }

    fn record(&self, lifecycle: Lifecycle) -> Vec<u8> {
        instance_json(&InstanceSpec { lifecycle, ..self.spec.clone() }).to_string().into_bytes()
    }
}

/// Everything that can happen to a registrar.
struct Watch {
    signals: Signals,
    child: Option<Child>,
    gate: Option<GateWatch>,
    keeping: Keeping,
    deadline: Option<(Instant, Occurrence)>,
}

impl Watch {
    async fn next(&mut self) -> Occurrence {
        loop {
            let deadline = self.deadline;
            tokio::select! {
                signal = self.signals.next() => match &self.child {
                    Some(child) if signal != Signal::SIGTERM => child.signal(signal),
                    None if matches!(signal, Signal::SIGUSR1 | Signal::SIGUSR2) => {}
                    _ => return Occurrence::Stop,
                },
                code = gone(&mut self.child) => {
                    self.child = None;
                    info!(code, "Child ended");
                    return Occurrence::ChildGone { code };
                }
                turn = turned(&mut self.gate) => return Occurrence::Gate(turn),
                () = self.keeping.clashed() => return Occurrence::Clash,
                occurrence = over(deadline) => {
                    self.deadline = None;
                    return occurrence;
                }
            }
        }
    }

    fn signal_child(&self, signal: Signal) {
        if let Some(child) = &self.child {
            child.signal(signal);
        }
    }

    fn kill_child(&self) {
        if let Some(child) = &self.child {
            warn!("Child did not stop in time; killed");
            child.kill();
        }
    }
}

/// The task that keeps our key, from our side.
struct Keeping {
    key: String,
    /// `None`: it was told to end.
    say: Option<watch::Sender<Option<Vec<u8>>>>,
    /// `None`: it has ended.
    task: Option<JoinHandle<Result<(), Clash>>>,
}

impl Keeping {
    fn start(of: &Registration) -> Self {
        let key = of.prefix.key(&Key::Instance { service: of.service.clone(), id: of.id.clone() });
        let address = of.spec.address.clone();
        // Two instances cannot listen on one address, so who has ours was us, before a crash.
        let is_ours = move |value: &[u8]| parse_instance(value).is_ok_and(|found| found.value.address == address);
        let claim = Claim::new(of.force, Box::new(is_ours));
        let keep = Keep { etcd: of.etcd.clone(), key: key.clone(), ttl: of.ttl };
        let (say, wanted) = watch::channel(None);
        Self { key, say: Some(say), task: Some(tokio::spawn(keep.run(claim, wanted))) }
    }

    fn say(&self, record: Vec<u8>) {
        if let Some(say) = &self.say {
            say.send_replace(Some(record));
        }
    }

    /// Only a clash ends the task before it is told to.
    async fn clashed(&mut self) {
        let Some(task) = &mut self.task else { return std::future::pending().await };
        let ended = task.await;
        self.task = None;
        if let Ok(Err(clash)) = ended {
            let held = String::from_utf8_lossy(&clash.value).into_owned();
            match clash.lease {
                Some(lease) => {
                    error!(key = %self.key, %lease, held, "The id is taken; choose another with --id, or take it with --force")
                }
                None => {
                    error!(key = %self.key, held, "The id is taken by a record without a lease; delete that, or take it with --force")
                }
            }
        }
    }

    async fn end(&mut self) {
        self.say = None;
        if let Some(task) = self.task.take() {
            // A clash at this moment has nothing left to prevent.
            let _ = task.await;
        }
    }
}

async fn gone(child: &mut Option<Child>) -> u8 {
    match child {
        Some(child) => child.gone().await,
        None => std::future::pending().await,
    }
}

async fn turned(gate: &mut Option<GateWatch>) -> Turn {
    match gate {
        Some(gate) => gate.turned().await,
        None => std::future::pending().await,
    }
}

async fn over(deadline: Option<(Instant, Occurrence)>) -> Occurrence {
    match deadline {
        Some((at, occurrence)) => {
            sleep_until(at).await;
            occurrence
        }
        None => std::future::pending().await,
    }
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signals(source) => write!(f, "cannot listen to signals: {source}"),
            Self::Command { program, source } => write!(f, "cannot start {}: {source}", program.display()),
        }
    }
}

impl std::error::Error for RegisterError {}
