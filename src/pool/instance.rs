//! One instance: what was declared, what was learned, and who is using it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use super::latency::Latency;
use super::outlier::Part;
use super::slowness::Slowness;
use super::{Health, Histogram, Moment};
use crate::model::{InstanceId, InstanceSpec, Lifecycle, Origin, Outcome, ServiceName, ServicePolicy};

/// Immutable: a new weight makes a new `Instance` around the same `state`, a new address earns fresh state.
#[derive(Debug, Clone)]
pub struct Instance {
    pub service: ServiceName,
    pub id: InstanceId,
    pub origin: Origin,
    pub spec: Arc<InstanceSpec>,
    pub standing: Standing,
    pub state: Arc<InstanceState>,
}

/// What holds of an instance once the operators' overrides and the resolver have had their say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// `None`: its name was never resolved, or only to addresses that are refused.
    pub addr: Option<SocketAddr>,
    /// Why the address its name has is refused, as the end of a sentence about it.
    pub refused: Option<&'static str>,
    pub weight: u16,
    pub lifecycle: Lifecycle,
    /// The registry lost it, and nobody deleted it.
    pub limbo: Option<Limbo>,
    /// An operator's record rules over the instance's own.
    pub overridden: bool,
    /// The registry's revision at which it came to be so.
    pub revision: u64,
}

/// Why an instance is kept that the registry has no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limbo {
    Alone,
    /// So many went at once that the registry is to blame, more likely than they.
    Together,
}

impl Limbo {
    pub fn words(self) -> &'static str {
        match self {
            Self::Alone => "in limbo: the registry lost it",
            Self::Together => "in limbo: the registry lost it together with many of this service",
        }
    }
}

impl Standing {
    /// In the words of the admin endpoint.
    pub fn word(&self) -> &'static str {
        match self.limbo {
            Some(_) if self.lifecycle == Lifecycle::Ready => "limbo",
            _ => self.lifecycle.as_str(),
        }
    }
}

impl Instance {
    /// By what was declared; what was learned is judged at each pick.
    pub fn takes_traffic(&self) -> bool {
        self.standing.lifecycle == Lifecycle::Ready && self.standing.weight > 0 && self.standing.addr.is_some()
    }

    /// It asks for no new requests by its answers to probes.
    pub fn says_draining(&self, policy: &ServicePolicy) -> bool {
        policy.probe.is_on() && self.state.health.says_draining()
    }

    /// It takes another request beside those it has.
    pub fn has_room(&self) -> bool {
        self.spec.max_requests == 0 || self.state.in_flight() < self.spec.max_requests
    }

    /// Idle connections to it are worth keeping.
    pub fn may_be_connected(&self) -> bool {
        self.standing.lifecycle == Lifecycle::Ready && self.standing.addr.is_some()
    }

    /// Why it gets no new requests, in words for an operator; `None` when it does.
    pub fn reason(&self) -> Option<&'static str> {
        match self.standing {
            Standing { lifecycle: Lifecycle::Draining, overridden: true, .. } => Some("draining: an operator's override"),
            Standing { lifecycle: Lifecycle::Draining, .. } => Some("draining: declared by the instance"),
            Standing { lifecycle: Lifecycle::Maintenance, overridden: true, .. } => Some("maintenance: an operator's override"),
            Standing { lifecycle: Lifecycle::Maintenance, .. } => Some("maintenance: declared by the instance"),
            Standing { weight: 0, .. } => Some("weight 0: no new traffic"),
            Standing { addr: None, refused: Some(_), .. } => Some("refused: the address that its name has may not be used"),
            Standing { addr: None, .. } => Some("its name has not been resolved"),
            _ => None,
        }
    }
}

/// What was learned of one (service, instance id, address): atomics only, shared by every snapshot.
#[derive(Debug)]
pub struct InstanceState {
    /// Unique in this process: no two lives of an instance share it, so connections are never mixed up.
    pub generation: u64,
    pub since: SystemTime,
    pub health: Health,
    in_flight: AtomicU32,
    outcomes: [AtomicU64; Outcome::ALL.len()],
    /// The service's turn at which it was picked last.
    last_turn: AtomicU64,
    /// Since when it drains; 0 while it does not.
    draining_since: AtomicU64,
    /// How long its answers take of late.
    pub(super) latency_now: Latency,
    /// Allocated by the first attempt: most of a large registry is idle on any one proxy.
    latency: OnceLock<Box<Histogram>>,
    slowness: OnceLock<Box<Slowness>>,
}

impl InstanceState {
    pub fn new(generation: u64, since: SystemTime, born: Moment) -> Self {
        Self {
            generation,
            since,
            health: Health::new(born),
            in_flight: AtomicU32::new(0),
            outcomes: Default::default(),
            last_turn: AtomicU64::new(0),
            draining_since: AtomicU64::new(0),
            latency_now: Latency::default(),
            latency: OnceLock::new(),
            slowness: OnceLock::new(),
        }
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Ends one attempt in the counts. `took`: from choosing the instance to the head of its response.
    pub fn count(&self, outcome: Outcome, took: Option<Duration>) {
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
        if let Some(took) = took {
            self.latency.get_or_init(Box::default).record(took);
        }
    }

    pub fn outcomes(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::ALL.into_iter().map(|o| (o, self.outcomes[o as usize].load(Ordering::Relaxed)))
    }

    pub fn latency(&self) -> Option<&Histogram> {
        self.latency.get().map(|h| &**h)
    }

    /// From now on there is room to count how long answers take of late.
    pub(super) fn watch_latency(&self) {
        self.slowness.get_or_init(Box::default);
    }

    /// `None`: nobody asked for it.
    pub(super) fn slowness(&self) -> Option<&Slowness> {
        self.slowness.get().map(|slowness| &**slowness)
    }

    /// It was declared to drain, or not to. Only the first word of a drain sets when it began.
    pub fn drains(&self, is_draining: bool, now: Moment) {
        if !is_draining {
            self.draining_since.store(0, Ordering::Relaxed);
        } else {
            let _ = self.draining_since.compare_exchange(0, now.as_millis(), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// How long it has been draining; nothing if it is not.
    pub fn drained_for(&self, now: Moment) -> Duration {
        match self.draining_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => now.since(Moment::from_millis(since)),
        }
    }

    pub(super) fn last_turn(&self) -> u64 {
        self.last_turn.load(Ordering::Relaxed)
    }

    pub(super) fn picked(&self, turn: u64) {
        self.last_turn.store(turn, Ordering::Relaxed);
    }
}

/// One request at one instance. Holding it counts one; dropping it gives one back, on cancellation too, and with it the
/// trial if it was one and nothing came of it.
#[derive(Debug)]
pub struct InFlight {
    instance: Arc<Instance>,
    is_trial: bool,
    pub why: Why,
}

/// What was special about a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    Usual,
    /// It was ejected, and this request shows whether it is well again.
    Trial,
    /// Too few are well, so it was chosen among all that can be reached.
    Panic,
}

impl Why {
    /// One word for an operator; `None`: nothing was special.
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Usual => None,
            Self::Trial => Some("trial"),
            Self::Panic => Some("panic"),
        }
    }
}

impl InFlight {
    pub fn begin(instance: Arc<Instance>) -> Self {
        Self::hold(instance, Why::Usual)
    }

    pub(super) fn begin_in_panic(instance: Arc<Instance>) -> Self {
        Self::hold(instance, Why::Panic)
    }

    /// The trial of an instance that was ejected; it has been taken.
    pub(super) fn begin_trial(instance: Arc<Instance>) -> Self {
        Self::hold(instance, Why::Trial)
    }

    fn hold(instance: Arc<Instance>, why: Why) -> Self {
        instance.state.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { instance, is_trial: why == Why::Trial, why }
    }

    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// What it was, and a trial is concluded.
    pub(super) fn end(&mut self) -> Part {
        if self.conclude_trial() {
            Part::Trial
        } else if self.why == Why::Trial {
            Part::PassedTrial
        } else {
            Part::Usual
        }
    }

    /// Whether there is a trial to conclude; from here on there is none.
    pub(super) fn conclude_trial(&mut self) -> bool {
        std::mem::take(&mut self.is_trial)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.is_trial {
            self.instance.state.health.give_trial_back();
        }
        self.instance.state.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
