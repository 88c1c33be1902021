//! A service at one snapshot.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::gate::Gate;
use super::{InFlight, Instance, Key, Moment, PickError, Pool, ServiceStats, Subject, Turn};
use crate::model::{Balance, Outcome, ProbeResult, ServiceName, ServicePolicy, Verdict};

/// Immutable but for what was learned; untouched by a change elsewhere, which the pointer shows.
#[derive(Debug)]
pub struct Service {
    pub name: ServiceName,
    pub policy: Arc<ServicePolicy>,
    pub pool: Pool,
    pub stats: Arc<ServiceStats>,
    pub(super) gate: Gate,
}

/// What a pick has to go by.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ask<'a> {
    /// The generations of the instances this request has been at.
    pub tried: &'a [u64],
    /// What `hash` and `maglev` go by; `None`: the request does not carry it.
    pub key: Option<Key>,
    pub now: Moment,
}

impl Service {
    pub fn new(name: ServiceName, policy: Arc<ServicePolicy>, pool: Pool, stats: Arc<ServiceStats>) -> Self {
        Self { name, policy, pool, stats, gate: Gate::default() }
    }

    /// Chooses an instance for one attempt.
    pub fn pick(&self, ask: Ask<'_>, rng: &mut fastrand::Rng) -> Result<InFlight, PickError> {
        let view = self.view(ask.now);
        if ask.tried.is_empty() {
            let mut trials = view.trials.iter().map(|place| &self.pool.all()[*place as usize]);
            if let Some(instance) = trials.find(|i| i.state.health.take_trial(ask.now)) {
                return Ok(InFlight::begin_trial(instance.clone()));
            }
        }
        let instance = self.choose(&view, ask, rng)?.clone();
        Ok(if view.panic { InFlight::begin_in_panic(instance) } else { InFlight::begin(instance) })
    }

    /// How a request would be refused now, if it would: for those who ask without sending one.
    pub fn would_refuse(&self, now: Moment) -> Option<PickError> {
        let view = self.view(now);
        (view.candidates.is_empty() && view.trials.is_empty()).then(|| self.pool.why_none())
    }

    /// The head of an attempt's response is here: enough to end a trial well, however long the rest takes. `took`: since
    /// the instance was chosen.
    pub fn answered(&self, held: &mut InFlight, outcome: Outcome, took: Duration, now: Moment) {
        if self.policy.balance == Balance::PeakEwma && !outcome.is_failure() {
            held.instance().state.latency_now.peak(took, now);
            self.stats.latency.follow(took, now);
        }
        if !outcome.is_gateway_failure() && held.conclude_trial() {
            self.readmit(held.instance(), now);
        }
    }

    /// Ends one attempt in the counts. `took`: from choosing the instance to the head of its response.
    pub fn end_attempt(&self, held: &mut InFlight, outcome: Outcome, took: Option<Duration>, now: Moment) {
        held.instance().state.count(outcome, took);
        if let Some(took) = took {
            self.stats.attempts.record(took);
        }
        if self.policy.balance == Balance::PeakEwma && outcome.is_failure() {
            held.instance().state.latency_now.peak(took.unwrap_or_default().max(FAILURE_TAKES), now);
        }
        let trial = outcome != Outcome::ClientGone && held.conclude_trial();
        self.observe(held.instance(), outcome, trial, now);
        self.made_room(held.instance());
    }

    /// Counts one probe of one of this service's instances.
    pub fn count_probe(&self, result: ProbeResult, took: Duration) {
        self.stats.probes[result as usize].fetch_add(1, Ordering::Relaxed);
        self.stats.probe_times.record(took);
    }

    /// Whether an instance told its last probe that it drains.
    pub fn says_draining(&self, instance: &Instance, says: bool) {
        if instance.state.health.set_says_draining(says) {
            self.stats.changed();
            self.stats.teller.tell(Subject::Instance(instance), Turn::SaysDraining(says));
        }
    }

    /// What a probe settled about one of this service's instances; `true` if that is news. `reachable`: it could be
    /// connected to, whatever it answered.
    pub fn settle(&self, instance: &Instance, verdict: Verdict, reachable: bool, said: &str, now: Moment) -> bool {
        let health = &instance.state.health;
        health.set_reachable(reachable);
        let was = health.verdict();
        let news = health.settle(verdict, said, now);
        if news {
            if verdict == Verdict::Up {
                self.stats.proven(now);
            }
            self.stats.changed();
            // That a new one works is what everybody expected; a start would tell it of all there are.
            if (was, verdict) != (Verdict::Unknown, Verdict::Up) {
                self.stats.teller.tell(Subject::Instance(instance), Turn::Verdict(verdict));
            }
        }
        news
    }

    /// One probe of an instance failed, which need not settle anything yet: who is in limbo has no further chance.
    pub fn probe_failed(&self, instance: &Instance, said: &str) {
        instance.state.health.note_probe(said);
        self.stats.teller.tell(Subject::Instance(instance), Turn::ProbeFailed);
    }

    /// By a probe, or where nobody probes, by the last who tried to connect.
    pub fn is_known_dead(&self, instance: &Instance) -> bool {
        let health = &instance.state.health;
        if self.policy.probe.is_on() { health.verdict() == Verdict::Down } else { health.is_unreachable() }
    }

    /// Whether a further attempt has somewhere to go: another one than those tried and the one just left.
    pub fn has_another(&self, tried: &[u64], left: u64, now: Moment) -> bool {
        let view = self.view(now);
        let mut generations = view.reachable(self).map(|instance| instance.state.generation);
        generations.any(|generation| generation != left && !tried.contains(&generation))
    }
}

/// A failure is as bad as an answer that took this long, however soon it came.
const FAILURE_TAKES: Duration = Duration::from_secs(5);
