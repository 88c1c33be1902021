//! A service at one snapshot.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::gate::{Gate, View};
use super::outlier::Part;
use super::{InFlight, Instance, Key, Moment, PickError, Pool, ServiceStats, Subject, Turn};
use crate::model::{Balance, InstanceId, Lifecycle, Outcome, ProbeResult, ServiceName, ServicePolicy, Verdict};

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
    /// Where its session is: it goes there first.
    pub session: Option<&'a InstanceId>,
    pub now: Moment,
}

impl Service {
    pub fn new(name: ServiceName, policy: Arc<ServicePolicy>, pool: Pool, stats: Arc<ServiceStats>) -> Self {
        let service = Self { name, policy, pool, stats, gate: Gate::default() };
        service.watch_latency();
        service
    }

    /// Chooses an instance for one attempt.
    pub fn pick(&self, ask: Ask<'_>, rng: &mut fastrand::Rng) -> Result<InFlight, PickError> {
        let view = self.view(ask.now);
        if ask.tried.is_empty() {
            if let Some(instance) = self.session(&view, ask) {
                return Ok(InFlight::begin(instance.clone()));
            }
            let mut trials = view.trials.iter().map(|place| &self.pool.all()[*place as usize]);
            if let Some(instance) = trials.find(|i| i.has_room() && i.state.health.take_trial(ask.now)) {
                return Ok(InFlight::begin_trial(instance.clone()));
            }
        }
        let instance = self.choose(&view, ask, rng)?.clone();
        Ok(if view.panic { InFlight::begin_in_panic(instance) } else { InFlight::begin(instance) })
    }

    fn session(&self, view: &View, ask: Ask<'_>) -> Option<&Arc<Instance>> {
        let place = self.pool.place(ask.session?)?;
        let instance = &self.pool.all()[place as usize];
        (self.keeps_session(view, place, ask.now) && instance.has_room()).then_some(instance)
    }

    /// How a request would be refused now, if it would: for those who ask without sending one.
    pub fn would_refuse(&self, now: Moment) -> Option<PickError> {
        let view = self.view(now);
        (view.candidates.is_empty() && view.trials.is_empty()).then(|| self.pool.why_none())
    }

    /// The head of an attempt's response is here: enough to end a trial well, however long the rest takes. `took`: since
    /// the instance was chosen.
    pub fn answered(&self, held: &mut InFlight, outcome: Outcome, took: Duration, now: Moment) {
        held.instance().state.health.connects();
        if self.policy.balance == Balance::PeakEwma && !outcome.is_failure() {
            let us = held.instance().state.latency_now.peak(took, now);
            self.stats.latency.follow(us, now);
        }
        self.count_latency(held.instance(), outcome, took, now);
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
        // Of a client that has gone nobody learns anything: the trial is given back.
        let part = if outcome == Outcome::ClientGone { Part::Usual } else { held.end() };
        self.observe(held.instance(), outcome, part, now);
        self.made_room(held.instance());
    }

    /// Counts one probe of one of this service's instances.
    pub fn count_probe(&self, result: ProbeResult, took: Duration) {
        self.stats.probes[result as usize].fetch_add(1, Ordering::Relaxed);
        self.stats.probe_times.record(took);
    }

    /// Whether an instance told its last probe that it drains.
    pub fn says_draining(&self, instance: &Instance, says: bool, now: Moment) {
        if instance.state.health.set_says_draining(says) {
            instance.state.drains(says || instance.standing.lifecycle == Lifecycle::Draining, now);
            self.stats.changed();
            self.stats.teller.tell(Subject::Instance(instance), Turn::SaysDraining(says));
        }
    }

    /// What a probe settled about one of this service's instances; `true` if that is news. `reachable`: it could be
    /// connected to, whatever it answered.
    pub fn settle(&self, instance: &Instance, verdict: Verdict, reachable: bool, said: &str, now: Moment) -> bool {
        let health = &instance.state.health;
        let is_back = reachable && health.is_unreachable();
        health.set_reachable(reachable);
        // It was out because nobody could connect; a process that was started again need not wait for the rest of its time.
        if is_back && health.cut_short(now) {
            self.stats.changed();
        }
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

    /// One probe of an instance failed, which need not settle anything yet: who is in limbo has no further chance. What
    /// the probe said has been told to `settle`.
    pub fn probe_failed(&self, instance: &Instance) {
        self.stats.teller.tell(Subject::Instance(instance), Turn::ProbeFailed);
    }

    /// Whether nothing speaks against keeping it if the registry loses it: it did not say that it drains, and neither a
    /// probe nor, where nobody probes, the last who tried to connect found it dead.
    pub fn may_be_held(&self, instance: &Instance) -> bool {
        let health = &instance.state.health;
        let is_dead = if self.policy.probe.is_on() { health.verdict() == Verdict::Down } else { health.is_unreachable() };
        !is_dead && !health.says_draining()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::pick::tests::{NOW, instance, service_of};

    /// Whether all of ten requests of a session at the third instance go there, so many seconds from now.
    fn stays(service: &Service, seconds: u64) -> bool {
        let (id, mut rng) = (service.pool.all()[2].id.clone(), fastrand::Rng::with_seed(1));
        let ask = Ask { session: Some(&id), now: NOW + Duration::from_secs(seconds), ..Ask::default() };
        let held: Vec<_> = (0..10).map(|_| service.pick(ask, &mut rng).unwrap()).collect();
        held.iter().all(|held| held.instance().id == id)
    }

    fn service(lifecycle: Lifecycle, weight: u16) -> Service {
        let all = (0..4).map(|n| if n == 2 { instance(n, weight, lifecycle) } else { instance(n, 100, Lifecycle::Ready) });
        let service = service_of(all.collect(), Balance::P2c);
        service.pool.all()[2].state.drains(lifecycle == Lifecycle::Draining, NOW);
        service
    }

    #[test]
    fn a_session_stays_at_its_instance_however_busy_that_is() {
        assert!(stays(&service(Lifecycle::Ready, 100), 0));
    }

    #[test]
    fn a_session_stays_while_its_instance_drains_until_connections_are_closed() {
        let draining = service(Lifecycle::Draining, 100);
        assert!(stays(&draining, 0) && stays(&draining, 23));
        assert!(!stays(&draining, 24), "in the last fifth of 30 s");
        draining.pool.all()[2].state.drains(true, NOW + Duration::from_secs(20));
        assert!(!stays(&draining, 24), "saying it again does not begin it again");
        let said = service(Lifecycle::Ready, 100);
        said.says_draining(&said.pool.all()[2], true, NOW);
        assert!(stays(&said, 23) && !stays(&said, 24), "to a probe is as good");
    }

    #[test]
    fn a_session_leaves_an_instance_that_must_not_be_asked() {
        assert!(!stays(&service(Lifecycle::Maintenance, 100), 0));
        assert!(!stays(&service(Lifecycle::Ready, 0), 0));
        for lifecycle in [Lifecycle::Ready, Lifecycle::Draining] {
            let down = service(lifecycle, 100);
            down.settle(&down.pool.all()[2], Verdict::Down, true, "status 500", NOW);
            assert!(!stays(&down, 0), "{lifecycle}");
            let ejected = service(lifecycle, 100);
            ejected.pool.all()[2].state.health.eject(NOW + Duration::from_secs(10));
            ejected.stats.changed();
            assert!(!stays(&ejected, 0), "{lifecycle}");
        }
    }

    #[test]
    fn a_session_of_an_instance_that_is_gone_or_full_or_was_tried_goes_elsewhere() {
        let service = service(Lifecycle::Ready, 100);
        let mut rng = fastrand::Rng::with_seed(1);
        let gone = InstanceId::parse("gone").unwrap();
        assert!(service.pick(Ask { session: Some(&gone), now: NOW, ..Ask::default() }, &mut rng).is_ok());
        let (id, tried) = (service.pool.all()[2].id.clone(), [service.pool.all()[2].state.generation]);
        let retry = service.pick(Ask { session: Some(&id), tried: &tried, now: NOW, ..Ask::default() }, &mut rng).unwrap();
        assert_ne!(retry.instance().id, id);
        let mut limited = Arc::unwrap_or_clone(instance(0, 100, Lifecycle::Ready));
        Arc::make_mut(&mut limited.spec).max_requests = 1;
        let id = limited.id.clone();
        let service = service_of(vec![Arc::new(limited), instance(1, 100, Lifecycle::Ready)], Balance::P2c);
        let ask = Ask { session: Some(&id), now: NOW, ..Ask::default() };
        let held = [service.pick(ask, &mut rng).unwrap(), service.pick(ask, &mut rng).unwrap()];
        assert_eq!((held[0].instance().id == id, held[1].instance().id == id), (true, false));
    }
}
