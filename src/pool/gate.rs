//! The one gate that decides who gets requests: what was declared, what probes settled, what requests showed.
//!
//! Its answer for a whole pool is a `View`, made when something changed or its time is over, and read by every pick in
//! between. Health never makes a snapshot, and a pick never looks at more instances than its algorithm does.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::health::Passive;
use super::keyed::Keyed;
use super::pick::Weights;
use super::spread::{self, Spread, Tiers};
use super::warmth::{self, Warmth};
use super::{Instance, Moment, Service, Subject, Turn};
use crate::model::{Lifecycle, Panic, Verdict};

/// Who may be picked now, and with which weight.
#[derive(Debug)]
pub struct View {
    /// The service's count of changes when this was made.
    changes: u64,
    /// When time alone changes it.
    until: Moment,
    /// As places in the pool, in its order.
    pub(super) candidates: Vec<u32>,
    pub(super) weights: Weights,
    /// Well, but of a tier or zone that is not needed now; only for requests that none of the candidates can take.
    pub(super) spare: Vec<u32>,
    /// For services that pick by a key.
    pub(super) keyed: Option<Arc<Keyed>>,
    /// Ejected ones whose time is over: the next request to each is its trial.
    pub(super) trials: Vec<u32>,
    /// So few are well that all are used but those that nobody can reach.
    pub panic: bool,
    /// How many get less than their weight because they are new, or back.
    pub n_warming: usize,
    /// How many get less than their weight because they are slow.
    pub n_slow: usize,
}

/// Why an instance gets no new requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Out {
    Draining,
    Maintenance,
    Weightless,
    Unresolved,
    /// The address its name has may not be named by the registry.
    Refused(&'static str),
    /// It says to probes that it drains.
    SaysDraining,
    /// Probes found it down.
    Down,
    /// New in a service that is known to work, and not yet probed.
    Unproven,
    /// The registry lost it before a probe found it up.
    Limbo,
    Ejected(Moment),
    HalfOpen,
}

/// The place of the view of one service at one snapshot.
#[derive(Debug, Default)]
pub(super) struct Gate {
    view: ArcSwapOption<View>,
    making: Mutex<()>,
}

impl Service {
    /// Whether an instance of this service may get new requests, were it alone in the world.
    pub fn admits(&self, instance: &Instance, now: Moment) -> Result<(), Out> {
        let standing = &instance.standing;
        match standing.lifecycle {
            Lifecycle::Draining => return Err(Out::Draining),
            Lifecycle::Maintenance => return Err(Out::Maintenance),
            Lifecycle::Ready => {}
        }
        if standing.weight == 0 {
            return Err(Out::Weightless);
        }
        if standing.addr.is_none() {
            return Err(standing.refused.map_or(Out::Unresolved, Out::Refused));
        }
        if instance.says_draining(&self.policy) {
            return Err(Out::SaysDraining);
        }
        self.finds_well(instance, now)
    }

    /// By what was learned of it, whatever is declared.
    fn finds_well(&self, instance: &Instance, now: Moment) -> Result<(), Out> {
        let health = &instance.state.health;
        if self.policy.probe.is_on() {
            match health.verdict() {
                Verdict::Up => {}
                Verdict::Down => return Err(Out::Down),
                // Neither the registry nor a probe speaks for it.
                Verdict::Unknown if instance.standing.limbo.is_some() => return Err(Out::Limbo),
                // Who was there before anything was proven serves until it is judged itself: a start of the proxy must
                // not send everything to the instance that happens to be probed first.
                Verdict::Unknown if self.stats.proven_before(health.born) => return Err(Out::Unproven),
                Verdict::Unknown => {}
            }
        }
        if !self.policy.ejection.enabled {
            return Ok(());
        }
        match health.passive() {
            Passive::Ok => Ok(()),
            Passive::HalfOpen => Err(Out::HalfOpen),
            Passive::Ejected(until) if until <= now => Err(Out::HalfOpen),
            Passive::Ejected(until) => Err(Out::Ejected(until)),
        }
    }

    /// Where a session may go on: at a candidate, at one that is well but not needed for others, and at one that drains
    /// until its connections begin to be closed.
    pub(super) fn keeps_session(&self, view: &View, place: u32, now: Moment) -> bool {
        if view.candidates.binary_search(&place).is_ok() || view.spare.binary_search(&place).is_ok() {
            return true;
        }
        let instance = &self.pool.all()[place as usize];
        let may_go_on = instance.standing.addr.is_some() && self.lets_sessions_end(instance, now);
        may_go_on && self.finds_well(instance, now).is_ok()
    }

    /// It drains, and sessions that are there may bring it requests for a while.
    pub fn lets_sessions_end(&self, instance: &Instance, now: Moment) -> bool {
        let ends = self.policy.timeouts.drain.mul_f64(SESSIONS_STAY);
        let lifecycle = instance.standing.lifecycle;
        let says = lifecycle == Lifecycle::Ready && instance.says_draining(&self.policy);
        (lifecycle == Lifecycle::Draining || says) && instance.state.drained_for(now) < ends
    }

    pub fn n_admitted(&self, now: Moment) -> usize {
        self.pool.all().iter().filter(|instance| self.admits(instance, now).is_ok()).count()
    }

    /// Why an instance gets no new requests, in words for an operator; `None` when it does.
    pub fn reason(&self, instance: &Instance, now: Moment) -> Option<String> {
        let health = &instance.state.health;
        let Err(out) = self.admits(instance, now) else { return self.why_spared(instance, now) };
        Some(match out {
            Out::Down => format!("probes found it down {} ago: {}", ago(now.since(health.verdict_at())), health.verdict_said()),
            Out::Unproven => match health.probe_said() {
                said if said.is_empty() => "new, and not yet probed".to_owned(),
                said => format!("new, and no probe has passed yet: {said}"),
            },
            Out::Ejected(until) => format!("ejected for another {}: {}", ago(until.since(now)), health.ejection_cause()),
            Out::HalfOpen => format!("ejected: {}; its time is over, one request is its trial", health.ejection_cause()),
            refused @ Out::Refused(_) => refused.to_string(),
            declared => instance.reason().map_or_else(|| declared.to_string(), str::to_owned),
        })
    }

    fn why_spared(&self, instance: &Instance, now: Moment) -> Option<String> {
        let view = self.view(now);
        let is_spared = view.spare.binary_search(&self.pool.place(&instance.id)?).is_ok();
        is_spared.then(|| spread::why_spared(self, instance, &view.candidates))
    }

    /// Why an instance that gets requests gets fewer than by its weight, in words; `None` when it does not.
    pub fn why_less(&self, instance: &Instance, now: Moment) -> Option<String> {
        let view = self.view(now);
        if view.n_warming > 0 && warmth::is_warming(self, instance, now) {
            return Some(format!("warming up: it gets {} % of its weight", warmth::factor(self, instance, now)));
        }
        if view.n_slow > 0 { self.why_held_back(instance) } else { None }
    }

    /// The view that holds now.
    pub fn view(&self, now: Moment) -> Arc<View> {
        let changes = self.stats.changes();
        let last = self.gate.view.load();
        if let Some(view) = last.as_ref().filter(|v| v.changes == changes && now < v.until) {
            return view.clone();
        }
        let making = match (self.gate.making.try_lock(), last.as_ref()) {
            (Ok(making), _) => Some(making),
            (Err(TryLockError::Poisoned(poisoned)), _) => Some(poisoned.into_inner()),
            // Somebody makes it already: one request more by the old one does no harm.
            (Err(TryLockError::WouldBlock), Some(last)) => return last.clone(),
            (Err(TryLockError::WouldBlock), None) => None,
        };
        let view = Arc::new(self.make_view(last.as_deref(), changes, now));
        if making.is_some() {
            if self.stats.panics(view.panic) != view.panic {
                self.stats.teller.tell(Subject::Service(self), Turn::Panic(view.panic));
            }
            self.gate.view.store(Some(view.clone()));
        }
        view
    }

    fn make_view(&self, last: Option<&View>, changes: u64, now: Moment) -> View {
        let (mut trials, mut until) = (Vec::new(), now + VIEW_LASTS_MAX);
        // Admitted ones; and those that panic would use as well.
        let (mut admitted, mut reserve, mut unproven, mut n_judged) = (Vec::new(), Vec::new(), Vec::new(), 0usize);
        let mut tiers = Tiers::default();
        for (place, instance) in (0..).zip(self.pool.all()) {
            let verdict = self.admits(instance, now);
            match verdict {
                Ok(()) => admitted.push(place),
                Err(Out::HalfOpen) => trials.push(place),
                Err(Out::Ejected(end)) => until = until.min(end),
                Err(Out::Unproven) => unproven.push(place),
                Err(_) => {}
            }
            if matches!(verdict, Ok(()) | Err(Out::HalfOpen | Out::Ejected(_) | Out::Down)) {
                n_judged += 1;
                tiers.count(instance, verdict.is_ok());
                if verdict.is_ok() || !instance.state.health.is_unreachable() {
                    reserve.push(place);
                }
            }
        }
        let panic = match self.policy.panic {
            Panic::Below(percent) => {
                let are_few = admitted.len() * 100 < usize::from(percent) * n_judged;
                are_few && reserve.len() > admitted.len() && !tiers.are_enough()
            }
            Panic::Fail => false,
        };
        let mut candidates = if panic { reserve } else { admitted };
        let is_spread = !panic && !candidates.is_empty();
        if candidates.is_empty() {
            // Nothing speaks against them, and nobody else is there.
            candidates = unproven;
        }
        let Warmth { mut factors, n_warming } = warmth::of(self, &candidates, now);
        if n_warming > 0 {
            until = until.min(now + WARMING_STEP);
        }
        let (n_slow, look_again) = self.hold_back_slow(&candidates, &mut factors, now);
        until = until.min(look_again.unwrap_or(until));
        let weight = |(place, factor): (&u32, u32)| u32::from(self.pool.all()[*place as usize].standing.weight) * factor;
        let weights: Vec<u32> = candidates.iter().zip(factors).map(weight).collect();
        let Spread { candidates, weights, spare } = match is_spread {
            true => spread::spread(self, candidates, weights, &tiers),
            false => Spread { candidates, weights, spare: Vec::new() },
        };
        let weights = Weights::new(&weights);
        // Making it may take milliseconds, and most of the time nothing has become of the candidates.
        let same = last.filter(|last| last.candidates == candidates && last.weights == weights);
        let keyed = match same {
            Some(last) => last.keyed.clone(),
            None => Keyed::of(self, &candidates, &weights),
        };
        View { changes, until, weights, candidates, spare, keyed, trials, panic, n_warming, n_slow }
    }
}

impl View {
    /// Those that may be picked, with the weight that each has now beside the others.
    pub fn candidates<'a>(&'a self, service: &'a Service) -> impl ExactSizeIterator<Item = (&'a Arc<Instance>, u32)> + Clone {
        self.candidates.iter().enumerate().map(|(n, place)| (&service.pool.all()[*place as usize], self.weights.of(n)))
    }

    pub fn n_candidates(&self) -> usize {
        self.candidates.len()
    }

    /// The candidates, and those that are kept for when none of them will do.
    pub fn reachable<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = &'a Arc<Instance>> {
        self.candidates.iter().chain(&self.spare).map(|place| &service.pool.all()[*place as usize])
    }
}

impl fmt::Display for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
            Self::Weightless => "weight 0: no new traffic",
            Self::Unresolved => "its name has not been resolved",
            Self::Refused(why) => return write!(f, "refused: the address its name resolves to {why}"),
            Self::SaysDraining => "draining: it says so to probes",
            Self::Down => "probes found it down",
            Self::Unproven => "new, and not yet probed",
            Self::Limbo => "in limbo, and no probe has passed",
            Self::Ejected(_) => "ejected",
            Self::HalfOpen => "half-open",
        })
    }
}

/// Serialises what must not be decided twice at once, such as two ejections under one cap.
pub(super) fn in_turn<T>(gate: &Mutex<()>, what: impl FnOnce() -> T) -> T {
    let _turn = gate.lock().unwrap_or_else(PoisonError::into_inner);
    what()
}

fn ago(span: Duration) -> String {
    humantime::format_duration(Duration::from_secs(span.as_secs().max(u64::from(span.subsec_millis() > 0)))).to_string()
}

/// Of a drain: in its last fifth connections are closed, one after the other.
const SESSIONS_STAY: f64 = 0.8;
/// A view is made anew now and then even if nobody said that anything changed.
const VIEW_LASTS_MAX: Duration = Duration::from_secs(5);
/// How often the weights of those that warm up are raised.
const WARMING_STEP: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Balance, Outcome, ProbeKind, ServicePolicy};
    use crate::pool::pick::tests::{NOW, instance, service_of};
    use crate::pool::{InFlight, InstanceState, Limbo, PickError, Pool, Standing};
    use std::time::SystemTime;

    fn service(n: usize) -> Service {
        service_of((0..n).map(|n| instance(n, 100, Lifecycle::Ready)).collect(), Balance::P2c)
    }

    fn later(seconds: u64) -> Moment {
        NOW + Duration::from_secs(seconds)
    }

    /// Verdicts in the pool's order (`u`p, `d`own, `.` unknown; `D` down because nobody listens) and who may be picked then.
    fn check(verdicts: &str, candidates: &[u32], is_panic: bool) {
        let service = service(verdicts.len());
        settle(&service, verdicts, NOW);
        let view = service.view(NOW);
        assert_eq!((&view.candidates[..], view.panic), (candidates, is_panic), "{verdicts}");
    }

    fn settle(service: &Service, verdicts: &str, now: Moment) {
        for (instance, sign) in service.pool.all().iter().zip(verdicts.chars()) {
            match sign {
                'u' => service.settle(instance, Verdict::Up, true, "status 200", now),
                'd' => service.settle(instance, Verdict::Down, true, "status 500", now),
                'D' => service.settle(instance, Verdict::Down, false, "connection refused", now),
                _ => false,
            };
        }
    }

    #[test]
    fn those_that_probes_found_up_are_picked_and_panic_takes_all_that_can_be_reached() {
        check("....", &[0, 1, 2, 3], false);
        check("uuuu", &[0, 1, 2, 3], false);
        check("uudd", &[0, 1], false);
        check("uddd", &[0, 1, 2, 3], true);
        check("uDdd", &[0, 2, 3], true);
        check("uDDD", &[0], false);
        check("dddd", &[0, 1, 2, 3], true);
        check("DDDD", &[], false);
        check("u...", &[0, 1, 2, 3], false);
        check("D...", &[1, 2, 3], false);
    }

    #[test]
    fn a_newcomer_waits_for_its_first_probe_where_the_service_is_proven() {
        let old = service(2);
        settle(&old, "uu", Moment::from_millis(2));
        let state = Arc::new(InstanceState::new(99, SystemTime::UNIX_EPOCH, later(1)));
        let mut newcomer = Arc::unwrap_or_clone(instance(2, 100, Lifecycle::Ready));
        newcomer.state = state;
        let newcomer = Arc::new(newcomer);
        let pool = Pool::new([old.pool.all(), std::slice::from_ref(&newcomer)].concat());
        let service = Service::new(old.name.clone(), old.policy.clone(), pool, old.stats.clone());
        assert_eq!(service.view(later(1)).candidates, [0, 1]);
        assert_eq!(service.admits(&newcomer, later(1)), Err(Out::Unproven));
        settle(&service, "..u", later(2));
        assert_eq!(service.view(later(2)).candidates, [0, 1, 2]);
        assert_eq!(service.view(later(2)).n_warming, 1);
        // Better it than nobody.
        let alone = Service::new(
            old.name.clone(),
            old.policy.clone(),
            Pool::new(vec![Arc::new(Instance {
                state: Arc::new(InstanceState::new(100, SystemTime::UNIX_EPOCH, later(3))),
                ..Instance::clone(&newcomer)
            })]),
            old.stats.clone(),
        );
        assert_eq!(alone.view(later(3)).candidates, [0]);
    }

    #[test]
    fn whom_the_registry_lost_is_used_while_its_probes_pass() {
        let (before, mut lost) = (service(3), Vec::new());
        settle(&before, "ud.", NOW);
        for instance in before.pool.all() {
            let standing = Standing { limbo: Some(Limbo::Alone), ..instance.standing };
            lost.push(Arc::new(Instance { standing, ..Instance::clone(instance) }));
        }
        let mut after = Service::new(before.name.clone(), before.policy.clone(), Pool::new(lost), before.stats.clone());
        let says = |service: &Service| service.pool.all().iter().map(|i| service.admits(i, NOW)).collect::<Vec<_>>();
        assert_eq!(says(&after), [Ok(()), Err(Out::Down), Err(Out::Limbo)]);
        assert_eq!(after.view(NOW).candidates, [0]);
        let mut policy = ServicePolicy::clone(&after.policy);
        policy.probe.kind = Some(ProbeKind::None);
        after.policy = Arc::new(policy);
        assert_eq!(says(&after), [Ok(()); 3], "nobody probes them");
    }

    #[test]
    fn nobody_registered_and_nobody_well_are_told_apart() {
        let (mut rng, ask) = (fastrand::Rng::with_seed(1), crate::pool::Ask { now: NOW, ..Default::default() });
        let down = service(2);
        settle(&down, "DD", NOW);
        assert_eq!(down.pick(ask, &mut rng).unwrap_err(), PickError::NoneHealthy);
        assert_eq!(down.would_refuse(NOW), Some(PickError::NoneHealthy));
        assert_eq!(service(0).pick(ask, &mut rng).unwrap_err(), PickError::NoInstances);
    }

    #[test]
    fn every_reason_is_given_in_words() {
        let service = service(3);
        settle(&service, "duu", NOW);
        let mut held = InFlight::begin(service.pool.all()[1].clone());
        (0..5).for_each(|_| service.end_attempt(&mut held, Outcome::Reset, None, NOW));
        let reason = |n: usize| service.reason(&service.pool.all()[n], later(3)).unwrap_or_default();
        assert_eq!(reason(0), "probes found it down 3s ago: status 500");
        assert!(
            reason(1).starts_with("ejected for another ") && reason(1).ends_with(": too many failures in a row"),
            "{}",
            reason(1)
        );
        assert_eq!(reason(2), "");
    }

    #[test]
    fn a_view_is_kept_until_something_changes() {
        let service = service(3);
        let first = service.view(NOW);
        assert!(Arc::ptr_eq(&first, &service.view(later(1))));
        settle(&service, "uud", NOW);
        assert_eq!(service.view(NOW).candidates, [0, 1]);
    }
}
