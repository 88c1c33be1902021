//! An instance that answers far more slowly than the others of its service gets a part of its weight, where the policy
//! says so (`latency_outliers`).
//!
//! 1. How long each good answer took is counted with its instance (`Slowness`).
//! 2. Once a second, while a view is made, the median of each is compared with the median of the others' medians.
//! 3. Who stands out weighs less for ten seconds at least, and for as long as it stands out.
//!
//! Invariants: it is no ejection, for the requests that a slow one goes on getting are what shows that it is fast again; by
//! one comparison no more than half can be slow, so there is no cap; without the policy nothing is counted or allocated.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::keyed::Keyed;
use super::slowness::Recent;
use super::{Instance, Moment, Service, Subject, Turn};
use crate::model::{LatencyOutlierPolicy, Outcome};

impl Service {
    /// The policy, where it holds: a key's instance must be the same on every proxy, however fast each finds it.
    fn latency_outliers(&self) -> Option<&LatencyOutlierPolicy> {
        self.policy.latency_outliers.as_ref().filter(|_| !Keyed::is_for(self.policy.balance))
    }

    /// Makes room for what will be counted, so that no request has to.
    pub(super) fn watch_latency(&self) {
        if self.latency_outliers().is_some() {
            self.pool.all().iter().for_each(|instance| instance.state.watch_latency());
        }
    }

    /// An answer came so long after its instance was chosen.
    pub(super) fn count_latency(&self, instance: &Instance, outcome: Outcome, took: Duration, now: Moment) {
        if self.policy.latency_outliers.is_some()
            && outcome == Outcome::Success
            && let Some(slowness) = instance.state.slowness()
        {
            slowness.record(took, now);
        }
    }

    /// Lowers the factors of those that are slow. How many there are, and when that has to be looked at again.
    pub(super) fn hold_back_slow(&self, candidates: &[u32], factors: &mut [u32], now: Moment) -> (usize, Option<Moment>) {
        let Some(policy) = self.latency_outliers() else { return (0, None) };
        if self.stats.latency_is_due(now, JUDGED_EVERY) {
            self.judge_latency(policy, candidates, factors, now);
        }
        let mut n_slow = 0;
        for (place, factor) in candidates.iter().zip(factors) {
            if self.pool.all()[*place as usize].state.slowness().is_some_and(|slowness| slowness.since().is_some()) {
                *factor = (*factor * u32::from(policy.weight_percent) / 100).max(1);
                n_slow += 1;
            }
        }
        (n_slow, Some(now + JUDGED_EVERY))
    }

    fn judge_latency(&self, policy: &LatencyOutlierPolicy, candidates: &[u32], factors: &[u32], now: Moment) {
        let instances: Vec<&Instance> = candidates.iter().map(|place| &*self.pool.all()[*place as usize]).collect();
        let measure = |(instance, factor): (&&Instance, &u32)| match instance.state.slowness() {
            // Who warms up is expected to be slow, and gets less already.
            Some(slowness) if *factor == 100 => Measured { recent: slowness.recent(now), slow_since: slowness.since() },
            slowness => Measured { recent: Recent::default(), slow_since: slowness.and_then(|slowness| slowness.since()) },
        };
        let measured: Vec<Measured> = instances.iter().zip(factors).map(measure).collect();
        let findings = judge(policy, &measured, now);
        for ((instance, measured), finding) in instances.into_iter().zip(measured).zip(findings) {
            let Some(slowness) = instance.state.slowness() else { continue };
            if let Some(others) = finding.others.filter(|_| finding.is_slow && measured.recent.n > 0) {
                slowness.compare(measured.recent.median, others);
            }
            if slowness.settle(finding.is_slow, now) {
                self.stats.latency_outliers.fetch_add(u64::from(finding.is_slow), Relaxed);
                self.stats.teller.tell(Subject::Instance(instance), Turn::Slow(finding.is_slow));
            }
        }
    }

    /// Why a slow instance gets less than its weight, in words.
    pub(super) fn why_held_back(&self, instance: &Instance) -> Option<String> {
        let policy = self.latency_outliers()?;
        let slowness = instance.state.slowness().filter(|slowness| slowness.since().is_some())?;
        Some(format!("{}; it gets {} % of its weight", slowness.words(), policy.weight_percent))
    }
}

/// One instance, as far as it can be compared.
#[derive(Debug, Clone, Copy)]
struct Measured {
    recent: Recent,
    slow_since: Option<Moment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Finding {
    is_slow: bool,
    /// `None`: there are no others to compare it with.
    others: Option<Duration>,
}

/// Pure: of each, whether it is slow now.
fn judge(policy: &LatencyOutlierPolicy, all: &[Measured], now: Moment) -> Vec<Finding> {
    let requests = u64::from(policy.requests);
    let counts = |measured: &Measured| measured.recent.n >= requests;
    let mut medians: Vec<Duration> = all.iter().filter(|m| counts(m)).map(|m| m.recent.median).collect();
    medians.sort_unstable();
    let find = |measured: &Measured| {
        let own = measured.recent.median;
        let others = median_without(&medians, counts(measured).then_some(own));
        let stands_out = others.is_some_and(|others| own > policy.above && own > others * policy.times);
        let is_slow = match measured.slow_since {
            None => counts(measured) && stands_out,
            Some(since) if now.since(since) < STAYS_SLOW => true,
            // With a part of its weight it gets no more than that part of the requests.
            Some(_) => measured.recent.n >= requests * u64::from(policy.weight_percent) / 100 && stands_out,
        };
        Finding { is_slow, others }
    };
    all.iter().map(find).collect()
}

/// Of two in the middle the greater, so that one of two that are unlike is slow, and never more than half of any.
fn median_without(sorted: &[Duration], own: Option<Duration>) -> Option<Duration> {
    let left_out = own.and_then(|own| sorted.binary_search(&own).ok());
    let n = sorted.len() - usize::from(left_out.is_some());
    let middle = n / 2;
    (n > 0).then(|| sorted[middle + usize::from(left_out.is_some_and(|left_out| left_out <= middle))])
}

const JUDGED_EVERY: Duration = Duration::from_secs(1);
/// By then all that is looked at was answered with the lower weight.
const STAYS_SLOW: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Balance, Lifecycle, ServicePolicy};
    use crate::pool::pick::tests::{NOW, instance};
    use crate::pool::{Ask, InFlight, Pool, ServiceStats};
    use proptest::prelude::*;
    use std::sync::Arc;

    /// Each as `MS` or `MSxN`, with `!` before those that were slow long ago: 50 requests unless it says otherwise.
    fn check(instances: &str, slow: &[usize]) {
        let read = |said: &str| {
            let (ms, n) = said.trim_start_matches('!').split_once('x').unwrap_or((said.trim_start_matches('!'), "50"));
            let recent = Recent { n: n.parse().unwrap(), median: Duration::from_millis(ms.parse().unwrap()) };
            Measured { recent, slow_since: said.starts_with('!').then_some(NOW) }
        };
        let all: Vec<Measured> = instances.split(' ').map(read).collect();
        let findings = judge(&LatencyOutlierPolicy::default(), &all, NOW + Duration::from_secs(20));
        let found: Vec<usize> = findings.iter().enumerate().filter(|(_, f)| f.is_slow).map(|(n, _)| n).collect();
        assert_eq!(found, slow, "{instances}");
    }

    #[test]
    fn slow_is_who_takes_three_times_as_long_as_the_others() {
        check("50 50 50 160", &[3]);
        check("50 50 50 150", &[]);
        check("5 5 5 99", &[]);
        check("5 5 5 101", &[3]);
        check("50 400", &[1]);
        check("400", &[]);
        check("400 400 400", &[]);
        check("50 50 50 400 400", &[3, 4]);
        check("50 50 400 400", &[2, 3]);
        check("50 400 400", &[]);
        check("50 50 50 400x49", &[]);
        check("50x49 50x49 400", &[]);
    }

    #[test]
    fn who_was_slow_is_judged_by_what_its_part_of_the_weight_brings_it() {
        check("50 50 !400x12", &[2]);
        check("50 50 !400x11", &[]);
        check("50 50 !60x30", &[]);
        check("50x10 50x10 !400x30", &[]);
    }

    fn service(n: usize, opts_in: bool) -> Service {
        let latency_outliers = opts_in.then(LatencyOutlierPolicy::default);
        let policy = ServicePolicy { latency_outliers, balance: Balance::Random, ..ServicePolicy::default() };
        let pool = Pool::new((0..n).map(|n| instance(n, 100, Lifecycle::Ready)).collect());
        let name = crate::model::ServiceName::parse("s").unwrap();
        Service::new(name, Arc::new(policy), pool, Arc::new(ServiceStats::default()))
    }

    /// A second of a hundred requests, each answered as fast as its instance is. How many the first one got.
    fn second(service: &Service, n: u64, first_ms: u64) -> usize {
        let mut rng = fastrand::Rng::with_seed(n);
        let ask = |request: u64| Ask { now: NOW + Duration::from_millis(n * 1000 + request * 10), ..Ask::default() };
        let mut answer = |request: u64| {
            let ask = ask(request);
            let mut held: InFlight = service.pick(ask, &mut rng).unwrap();
            let is_first = held.instance().id == service.pool.all()[0].id;
            let took = Duration::from_millis(if is_first { first_ms } else { 40 });
            service.answered(&mut held, Outcome::Success, took, ask.now);
            is_first
        };
        (0..100).filter(|request| answer(*request)).count()
    }

    #[test]
    fn a_slow_instance_gets_a_quarter_of_its_share_and_all_of_it_when_it_is_fast_again() {
        let service = service(4, true);
        let per_second = |seconds: std::ops::Range<u64>, first_ms| {
            let n = seconds.end - seconds.start;
            seconds.map(|second| self::second(&service, second, first_ms)).sum::<usize>() as u64 / n
        };
        assert!((18..32).contains(&per_second(0..4, 40)));
        per_second(4..12, 800);
        let now = NOW + Duration::from_secs(12);
        let reason = service.why_less(&service.pool.all()[0], now).unwrap();
        assert!(reason.starts_with("slow: half of its answers take ") && reason.ends_with("; it gets 25 % of its weight"));
        assert_eq!(service.why_less(&service.pool.all()[1], now), None);
        assert_eq!((service.view(now).n_slow, service.stats.latency_outliers.load(Relaxed)), (1, 1));
        let held_back = per_second(12..30, 800);
        assert!((4..12).contains(&held_back), "{held_back} of 100, 1 in 13 by weight");
        per_second(30..42, 40);
        let back = per_second(42..50, 40);
        assert!((18..32).contains(&back), "{back} of 100");
        let later = NOW + Duration::from_secs(50);
        assert_eq!((service.view(later).n_slow, service.stats.latency_outliers.load(Relaxed)), (0, 1));
    }

    #[test]
    fn without_the_policy_nothing_is_kept_and_with_a_key_nothing_is_weighed() {
        let service = self::service(4, false);
        for n in 0..10 {
            second(&service, n, 800);
        }
        assert!(service.pool.all().iter().all(|instance| instance.state.slowness().is_none()));
        let mut by_key = self::service(4, true);
        Arc::make_mut(&mut by_key.policy).balance = Balance::Hash;
        for n in 0..10 {
            second(&by_key, n, 800);
        }
        assert_eq!(by_key.view(NOW + Duration::from_secs(10)).n_slow, 0);
    }

    fn measured() -> impl Strategy<Value = Vec<Measured>> {
        let one = (0..200u64, 0..5_000u64, proptest::option::of(0..30_000u64)).prop_map(|(n, ms, since)| Measured {
            recent: Recent { n, median: Duration::from_millis(ms) },
            slow_since: since.map(|ms| NOW + Duration::from_millis(ms)),
        });
        proptest::collection::vec(one, 0..30)
    }

    proptest! {
        #[test]
        fn never_are_more_than_half_found_slow_and_always_the_slowest(all in measured()) {
            let (policy, now) = (LatencyOutlierPolicy::default(), NOW + Duration::from_secs(60));
            let fresh: Vec<Measured> = all.iter().map(|m| Measured { slow_since: None, ..*m }).collect();
            let findings = judge(&policy, &fresh, now);
            let compared = fresh.iter().zip(&findings).filter(|(m, _)| m.recent.n >= 50);
            let (slow, others): (Vec<_>, Vec<_>) = compared.partition(|(_, finding)| finding.is_slow);
            prop_assert!(slow.len() <= others.len());
            for (slow, _) in &slow {
                prop_assert!(slow.recent.median > policy.above);
                prop_assert!(others.iter().all(|(other, _)| other.recent.median < slow.recent.median));
            }
            prop_assert!(fresh.iter().zip(&findings).all(|(m, finding)| m.recent.n >= 50 || !finding.is_slow));
        }

        #[test]
        fn whoever_was_found_slow_stays_so_for_ten_seconds(all in measured()) {
            let now = NOW + Duration::from_secs(30);
            for (measured, finding) in all.iter().zip(judge(&LatencyOutlierPolicy::default(), &all, now)) {
                let is_recent = measured.slow_since.is_some_and(|since| now.since(since) < STAYS_SLOW);
                prop_assert!(finding.is_slow || !is_recent);
            }
        }

        #[test]
        fn the_order_of_instances_decides_nothing(all in measured()) {
            let now = NOW + Duration::from_secs(30);
            let mut findings = judge(&LatencyOutlierPolicy::default(), &all, now);
            findings.reverse();
            let reversed: Vec<Measured> = all.into_iter().rev().collect();
            prop_assert_eq!(judge(&LatencyOutlierPolicy::default(), &reversed, now), findings);
        }
    }
}
