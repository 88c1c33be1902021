//! What real requests say about an instance: when it is ejected, for how long, and how it comes back.
//!
//! 1. Every attempt's end is observed: counts in a row, counts over ten seconds, and the load that a failure stands for.
//! 2. Too many in a row, or far more than its peers, ejects it: for `base` times the number of its ejections.
//! 3. When that is over, one real request is its trial. Well answered, it is back and warms up; failed, it is ejected anew.
//!
//! Never the last one, and at most `max_percent` of those that take requests, but one of two.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::gate::{Out, in_turn};
use super::{Instance, Moment, Service, Subject, Turn};
use crate::model::{EjectionPolicy, Outcome};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EjectionCause {
    Consecutive,
    Connect,
    Ratio,
    /// Its trial failed.
    Trial,
}

impl EjectionCause {
    pub const ALL: [Self; 4] = [Self::Consecutive, Self::Connect, Self::Ratio, Self::Trial];

    /// As the metric's label says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Consecutive => "consecutive",
            Self::Connect => "connect",
            Self::Ratio => "ratio",
            Self::Trial => "trial",
        }
    }

    /// As an operator reads it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Consecutive => "too many failures in a row",
            Self::Connect => "too many failed connects in a row",
            Self::Ratio => "failed far more often than its peers",
            Self::Trial => "failed again on its trial",
        }
    }
}

/// What an attempt that has ended was to its instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Usual,
    /// Its trial, and nothing has come of it before.
    Trial,
    /// Its trial, whose answer had begun well.
    PassedTrial,
}

impl Service {
    /// Observes how an attempt ended.
    pub(super) fn observe(&self, instance: &Instance, outcome: Outcome, part: Part, now: Moment) {
        if outcome == Outcome::ClientGone {
            return;
        }
        let (policy, health) = (&self.policy.ejection, &instance.state.health);
        self.stats.recent.add(now, 1, u64::from(outcome.is_failure()));
        health.observe(outcome, policy.connect_failures, now);
        if part == Part::Trial {
            if outcome.is_gateway_failure() {
                self.eject(instance, EjectionCause::Trial, now);
            } else {
                self.readmit(instance, now);
            }
            return;
        }
        if !policy.enabled || !outcome.is_failure() {
            return;
        }
        // Or one that breaks off every answer would have to do so a few times more, each time that it is back.
        let broke_off = part == Part::PassedTrial && outcome.is_gateway_failure() && is_just_back(instance, now);
        let cause = if broke_off { Some(EjectionCause::Trial) } else { self.cause(instance, outcome, now) };
        let Some(cause) = cause else { return };
        in_turn(&self.stats.ejecting, || {
            if self.admits(instance, now).is_err() {
                // Out already; what still ran there goes on failing.
            } else if self.may_eject(now) {
                self.eject(instance, cause, now);
            } else {
                self.stats.ejections_skipped.fetch_add(1, Relaxed);
            }
        });
    }

    /// The trial is answered well: it is back before its answer has been passed on.
    pub(super) fn readmit(&self, instance: &Instance, now: Moment) {
        let health = &instance.state.health;
        health.ledger().forgiven_until = now;
        health.readmit(now);
        self.stats.changed();
        self.stats.teller.tell(Subject::Instance(instance), Turn::Readmitted);
    }

    fn cause(&self, instance: &Instance, outcome: Outcome, now: Moment) -> Option<EjectionCause> {
        let (policy, health) = (&self.policy.ejection, &instance.state.health);
        if outcome.is_connect_failure() && health.connect_failures.load(Relaxed) >= policy.connect_failures {
            return Some(EjectionCause::Connect);
        }
        if outcome.is_gateway_failure() && health.failures.load(Relaxed) >= policy.consecutive {
            return Some(EjectionCause::Consecutive);
        }
        let (own, all) = (health.recent()?.read(now), self.stats.recent.read(now));
        let is_high = own.all >= RATIO_REQUESTS_MIN && own.marked * 100 >= own.all * u64::from(policy.ratio_percent);
        // failed / all is at least twice the service's own.
        let stands_out = own.marked * all.all >= 2 * all.marked * own.all;
        (is_high && stands_out).then_some(EjectionCause::Ratio)
    }

    fn may_eject(&self, now: Moment) -> bool {
        let (mut n_admitted, mut n_ejected) = (0u64, 0u64);
        for instance in self.pool.all() {
            match self.admits(instance, now) {
                Ok(()) => n_admitted += 1,
                Err(Out::Ejected(_) | Out::HalfOpen) => n_ejected += 1,
                Err(_) => {}
            }
        }
        let all = n_admitted + n_ejected;
        let most = (all * u64::from(self.policy.ejection.max_percent) / 100).max(1);
        n_admitted > 1 && n_ejected < most
    }

    fn eject(&self, instance: &Instance, cause: EjectionCause, now: Moment) {
        let (policy, health) = (&self.policy.ejection, &instance.state.health);
        let lasts = {
            let mut ledger = health.ledger();
            let clean = now.since(ledger.forgiven_until);
            ledger.n_ejections = forgiven(ledger.n_ejections, clean).saturating_add(1);
            ledger.cause = cause.words();
            let lasts = length(policy, ledger.n_ejections, fastrand::f64());
            ledger.forgiven_until = now + lasts;
            lasts
        };
        health.eject(now + lasts);
        self.stats.ejections[cause as usize].fetch_add(1, Relaxed);
        self.stats.changed();
        self.stats.teller.tell(Subject::Instance(instance), Turn::Ejected { cause, lasts });
    }
}

/// Not after an answer that took long: others have shown since that it is well.
fn is_just_back(instance: &Instance, now: Moment) -> bool {
    now.since(instance.state.health.ledger().forgiven_until) < FORGIVEN_EVERY
}

/// One ejection is forgotten for every ten clean seconds.
fn forgiven(n_ejections: u32, clean: Duration) -> u32 {
    let n = u32::try_from(clean.as_secs() / FORGIVEN_EVERY.as_secs()).unwrap_or(u32::MAX);
    n_ejections.saturating_sub(n)
}

/// `chance` in 0..1 spreads it by a fifth, so that what fell out together does not come back together.
fn length(policy: &EjectionPolicy, n_ejections: u32, chance: f64) -> Duration {
    policy.base.saturating_mul(n_ejections).min(policy.max).mul_f64(1.0 - JITTER / 2.0 + JITTER * chance)
}

const RATIO_REQUESTS_MIN: u64 = 20;
const FORGIVEN_EVERY: Duration = Duration::from_secs(10);
const JITTER: f64 = 0.2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Balance, Lifecycle, Verdict};
    use crate::pool::pick::tests::{NOW, instance, service_of};
    use crate::pool::{Ask, InFlight, Passive};
    use std::sync::Arc;

    fn service(n: usize) -> Service {
        service_of((0..n).map(|n| instance(n, 100, Lifecycle::Ready)).collect(), Balance::P2c)
    }

    fn at(ms: u64) -> Moment {
        NOW + Duration::from_millis(ms)
    }

    /// Attempts at the n-th instance, one a millisecond from `from` on: `+` well, `x` a gateway's error, `c` no
    /// connection, `5` a plain 500, `o` overloaded, `-` left by the client. What of it is out then.
    fn check(service: &Service, n: usize, attempts: &str, from: u64) -> Vec<&'static str> {
        for (ms, sign) in (from..).zip(attempts.chars()) {
            let outcome = match sign {
                '+' => Outcome::Success,
                'x' => Outcome::GatewayError,
                'c' => Outcome::ConnectFailed,
                '5' => Outcome::ServerError,
                'o' => Outcome::Overloaded,
                '-' => Outcome::ClientGone,
                other => panic!("{other:?}"),
            };
            let mut held = InFlight::begin(service.pool.all()[n].clone());
            service.end_attempt(&mut held, outcome, None, at(ms));
        }
        service.pool.all().iter().map(|i| i.state.health.passive().as_str()).collect()
    }

    #[test]
    fn failures_in_a_row_eject_and_nothing_less_does() {
        for (attempts, is_ejected) in [
            ("xxxx+xxxx+", false),
            ("xxxxx", true),
            ("xxxx-x", true),
            ("ccxx", false),
            ("ccc", true),
            ("cc+cc", false),
            ("5555555555", false),
            ("oooooooooooooooooooooooooooooo", false),
        ] {
            let passive = if is_ejected { "ejected" } else { "ok" };
            assert_eq!(check(&service(3), 0, attempts, 0)[0], passive, "{attempts}");
        }
    }

    #[test]
    fn plain_500s_eject_where_the_peers_have_none() {
        let among_well = service(3);
        check(&among_well, 1, &"+".repeat(100), 0);
        assert_eq!(check(&among_well, 0, &"5".repeat(20), 100)[0], "ejected");
        let all_alike = service(3);
        for n in 0..3 {
            assert_eq!(check(&all_alike, n, &"5".repeat(30), 0), ["ok"; 3], "a fault of all is no fault of one");
        }
    }

    #[test]
    fn one_of_two_goes_and_never_the_last() {
        let service = service(2);
        assert_eq!(check(&service, 0, "xxxxx", 0), ["ejected", "ok"]);
        assert_eq!(check(&service, 1, "xxxxxxxxxx", 10), ["ejected", "ok"]);
        assert!(service.stats.ejections_skipped.load(Relaxed) > 0);
    }

    #[test]
    fn no_more_than_the_cap_are_out_at_once() {
        let service = service(10);
        (0..10).for_each(|n| {
            check(&service, n, "xxxxxxx", 0);
        });
        let n_ejected = service.pool.all().iter().filter(|i| i.state.health.passive() != Passive::Ok).count();
        assert_eq!(n_ejected, 3);
    }

    /// The picks of a service at that moment: whether one of them is of the n-th instance.
    fn gets(service: &Service, n: usize, now: Moment) -> bool {
        let mut rng = fastrand::Rng::with_seed(1);
        let wanted = &service.pool.all()[n];
        let held: Vec<_> = (0..50).map(|_| service.pick(Ask { now, ..Ask::default() }, &mut rng).unwrap()).collect();
        held.iter().any(|held| Arc::ptr_eq(held.instance(), wanted))
    }

    #[test]
    fn it_comes_back_through_one_real_request() {
        let service = service(4);
        check(&service, 0, "ccc", 0);
        assert!(!gets(&service, 0, at(8_900)), "out for ten seconds, give or take one");
        let mut rng = fastrand::Rng::with_seed(1);
        let late = at(11_100);
        let mut trial = service.pick(Ask { now: late, ..Ask::default() }, &mut rng).unwrap();
        assert!(Arc::ptr_eq(trial.instance(), &service.pool.all()[0]), "the next request is the trial");
        assert!(!gets(&service, 0, late), "and the only one");
        service.answered(&mut trial, Outcome::Success, Duration::ZERO, late);
        assert_eq!(service.pool.all()[0].state.health.passive(), Passive::Ok);
        assert_eq!(service.view(late).n_warming, 1, "it comes back slowly");
        assert!(gets(&service, 0, at(22_000)));
        assert_eq!(service.view(at(22_000)).n_warming, 0);
    }

    #[test]
    fn who_can_be_connected_to_again_is_tried_at_once() {
        let service = service(4);
        let instance = service.pool.all()[0].clone();
        check(&service, 0, "ccc", 0);
        service.settle(&instance, Verdict::Up, true, "connected", at(2_000));
        assert!(gets(&service, 0, at(2_100)), "a process that was started again");
        let failing = self::service(4);
        check(&failing, 0, "xxxxx", 0);
        failing.settle(&failing.pool.all()[0], Verdict::Up, true, "connected", at(2_000));
        assert!(!gets(&failing, 0, at(2_100)), "that it can be connected to was never the question");
    }

    #[test]
    fn a_trial_that_breaks_off_soon_after_a_good_beginning_has_failed() {
        for (after, passive) in [(100, "ejected"), (20_000, "ok")] {
            let service = service(4);
            check(&service, 0, "ccc", 0);
            let (mut rng, late) = (fastrand::Rng::with_seed(1), at(11_100));
            let mut trial = service.pick(Ask { now: late, ..Ask::default() }, &mut rng).unwrap();
            service.answered(&mut trial, Outcome::Success, Duration::ZERO, late);
            assert_eq!(trial.instance().state.health.passive(), Passive::Ok);
            service.end_attempt(&mut trial, Outcome::Reset, None, late + Duration::from_millis(after));
            assert_eq!(trial.instance().state.health.passive().as_str(), passive, "after {after} ms");
            let n_by_trial = service.stats.ejections[EjectionCause::Trial as usize].load(Relaxed);
            assert_eq!(n_by_trial, u64::from(passive == "ejected"));
        }
    }

    #[test]
    fn a_trial_that_its_client_left_is_given_to_the_next_request() {
        let service = service(4);
        check(&service, 0, "ccc", 0);
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..3 {
            let trial = service.pick(Ask { now: at(12_000), ..Ask::default() }, &mut rng).unwrap();
            assert!(Arc::ptr_eq(trial.instance(), &service.pool.all()[0]));
            assert_eq!(trial.instance().state.health.passive(), Passive::HalfOpen);
        }
    }

    #[test]
    fn a_trial_waits_until_its_instance_has_room() {
        let mut limited = Arc::unwrap_or_clone(instance(0, 100, Lifecycle::Ready));
        Arc::make_mut(&mut limited.spec).max_requests = 1;
        let service = service_of(vec![Arc::new(limited), instance(1, 100, Lifecycle::Ready)], Balance::P2c);
        let busy = InFlight::begin(service.pool.all()[0].clone());
        check(&service, 0, "ccc", 0);
        assert!(!gets(&service, 0, at(12_000)), "it has as many requests as it may");
        drop(busy);
        assert!(gets(&service, 0, at(12_000)));
    }

    #[test]
    fn each_further_ejection_is_longer_and_clean_time_is_forgiven() {
        let service = service(4);
        let health = &service.pool.all()[0].state.health;
        let (mut rng, mut now) = (fastrand::Rng::with_seed(1), NOW);
        check(&service, 0, "ccc", 0);
        for n in 1..=40u32 {
            let Passive::Ejected(until) = health.passive() else { panic!("not out: {:?}", health.passive()) };
            let expected = Duration::from_secs(10).saturating_mul(n).min(Duration::from_secs(300));
            let lasts = until.since(now);
            assert!(lasts >= expected.mul_f64(0.89) && lasts <= expected.mul_f64(1.11), "{n}: {lasts:?}, expected {expected:?}");
            now = until;
            let mut trial = service.pick(Ask { now, ..Ask::default() }, &mut rng).unwrap();
            service.end_attempt(&mut trial, Outcome::ConnectFailed, None, now);
        }
        assert_eq!(forgiven(5, Duration::from_secs(29)), 3);
        assert_eq!(forgiven(5, Duration::from_secs(1000)), 0);
    }

    /// Of 1,000 picks while each of the others has three requests in flight, how many go to the third of four.
    fn n_picks(service: &Service, now: Moment) -> usize {
        let others = [0, 1, 3].map(|n| service.pool.all()[n].clone());
        let _busy: Vec<_> = others.iter().flat_map(|i| (0..3).map(|_| InFlight::begin(i.clone()))).collect();
        let mut rng = fastrand::Rng::with_seed(1);
        let picks = (0..1000).map(|_| service.pick(Ask { now, ..Ask::default() }, &mut rng).unwrap());
        picks.filter(|held| Arc::ptr_eq(held.instance(), &service.pool.all()[2])).count()
    }

    #[test]
    fn who_fails_fast_does_not_look_idle() {
        let service = service(4);
        assert!(n_picks(&service, NOW) > 400, "the idle one of two draws");
        check(&service, 2, "x", 0);
        let share = n_picks(&service, at(100));
        assert!((150..350).contains(&share), "a failure makes it as busy as the rest: {share} of 1000");
        assert!(n_picks(&service, at(5_200)) > 400, "for five seconds");
    }

    #[test]
    fn who_should_be_out_and_may_not_be_ejected_is_picked_last() {
        let mut service = service(4);
        Arc::make_mut(&mut service.policy).ejection.enabled = false;
        check(&service, 2, "xxxxx", 0);
        assert!(n_picks(&service, at(100)) < 10);
        check(&service, 2, "+", 200);
        assert!(n_picks(&service, at(300)) > 150, "one good answer is enough");
    }

    #[test]
    fn who_asks_for_less_gets_less() {
        let service = service(4);
        check(&service, 2, "oooo", 0);
        let share = n_picks(&service, at(100));
        assert!(share < 10, "four more than the three of the others: {share} of 1000");
        assert!(n_picks(&service, at(5_200)) > 400);
    }

    #[test]
    fn retries_are_bounded_by_a_share_of_the_requests() {
        let service = service(2);
        let n_retries = (0..10_000u64)
            .filter(|n| {
                let now = at(n / 10);
                service.count_request(now);
                service.take_retry(now)
            })
            .count();
        assert!((2_000..=2_031).contains(&n_retries), "{n_retries} of 10000");
        assert!(service.take_retry(at(60_000)), "a quiet service may always try a few");
    }
}
