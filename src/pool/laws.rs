//! What holds of a service whatever happens to it, asked of random lives of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::collection::vec;
use proptest::prelude::*;

use super::pick::tests::{NOW, instance, service_of};
use super::{Ask, InFlight, Instance, InstanceState, Key, Moment, Passive, PickError, Service, Why, warmth};
use crate::model::{Balance, Lifecycle, Outcome};

fn service(n: usize, balance: Balance) -> Service {
    service_of((0..n).map(|n| instance(n, 100, Lifecycle::Ready)).collect(), balance)
}

/// What happens next, so many milliseconds later.
#[derive(Debug, Clone)]
enum Step {
    Begins,
    /// One of those that run ends so.
    Ends(prop::sample::Index, Outcome),
    /// The client of one of those that run leaves; nobody says how it ended.
    Vanishes(prop::sample::Index),
}

fn step() -> impl Strategy<Value = (u64, Step)> {
    let outcome = prop_oneof![3 => Just(Outcome::Success), 5 => prop::sample::select(Outcome::ALL.to_vec())];
    let step = prop_oneof![
        5 => Just(Step::Begins),
        4 => (any::<prop::sample::Index>(), outcome).prop_map(|(which, outcome)| Step::Ends(which, outcome)),
        1 => any::<prop::sample::Index>().prop_map(Step::Vanishes),
    ];
    (0..400u64, step)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However they fail: at most the policy's share is out, never the last, who is out gets trials alone, and no trial
    /// is ever lost.
    #[test]
    fn ejection_leaves_enough_and_every_trial_ends(n in 1..12usize, steps in vec(step(), 1..500)) {
        let (service, mut now, mut held) = (service(n, Balance::Random), NOW, Vec::<InFlight>::new());
        let mut rng = fastrand::Rng::with_seed(n as u64);
        for (ms, step) in steps {
            now = now + Duration::from_millis(ms);
            match step {
                Step::Begins => {
                    let begun = service.pick(Ask { now, ..Ask::default() }, &mut rng);
                    let begun = begun.expect("somebody is always in");
                    let is_in = begun.instance().state.health.passive() == Passive::Ok;
                    prop_assert!(is_in || begun.why == Why::Trial, "{:?}", begun.why);
                    held.push(begun);
                }
                Step::Ends(which, outcome) if !held.is_empty() => {
                    let mut ended = held.swap_remove(which.index(held.len()));
                    service.end_attempt(&mut ended, outcome, None, now);
                }
                Step::Vanishes(which) if !held.is_empty() => drop(held.swap_remove(which.index(held.len()))),
                Step::Ends(..) | Step::Vanishes(_) => {}
            }
            let passive = || service.pool.all().iter().map(|instance| instance.state.health.passive());
            let n_out = passive().filter(|passive| *passive != Passive::Ok).count();
            prop_assert!(n_out <= (n * 30 / 100).max(1) && n_out < n, "{n_out} of {n} are out");
            let n_trials = held.iter().filter(|held| held.why == Why::Trial).count();
            prop_assert!(passive().filter(|passive| *passive == Passive::HalfOpen).count() <= n_trials);
        }
        drop(held);
        for instance in service.pool.all() {
            prop_assert_eq!(instance.state.in_flight(), 0);
            prop_assert_ne!(instance.state.health.passive(), Passive::HalfOpen);
        }
    }

    /// None is granted beyond a share of the requests of ten seconds, and so many more.
    #[test]
    fn retries_stay_within_the_budget(requests in vec((0..300u64, 0..4u8), 1..600)) {
        let (service, mut now) = (service(2, Balance::P2c), NOW);
        let (mut received, mut retried) = (Vec::new(), Vec::new());
        for (ms, n_failures) in requests {
            now = now + Duration::from_millis(ms);
            service.count_request(now);
            received.push(now);
            let granted = (0..n_failures).filter(|_| service.take_retry(now)).count();
            retried.extend(std::iter::repeat_n(now, granted));
            let of_late = |all: &[Moment]| all.iter().filter(|then| now.as_secs() - then.as_secs() < 10).count();
            let (n_received, n_retried) = (of_late(&received), of_late(&retried));
            // Requests leave the window as retries do, but what was granted is not taken back.
            let is_within = granted == 0 || n_retried <= n_received * 20 / 100 + 30;
            prop_assert!(is_within, "{n_retried} retries of {n_received} requests");
        }
    }

    /// It only grows, from a tenth to the whole, in its time; and most of a pool never waits for itself.
    #[test]
    fn warmth_only_grows(ages_ms in vec(0..60_000u64, 1..12), later in vec(0..10_000u64, 1..10)) {
        let aged = |(n, age_ms): (usize, &u64)| {
            let born = Moment::from_millis(NOW.as_millis() - age_ms);
            let state = Arc::new(InstanceState::new(n as u64 + 1, SystemTime::UNIX_EPOCH, born));
            Arc::new(Instance { state, ..Instance::clone(&instance(n, 100, Lifecycle::Ready)) })
        };
        let service = service_of(ages_ms.iter().enumerate().map(aged).collect(), Balance::P2c);
        let (places, mut now): (Vec<u32>, _) = ((0..ages_ms.len() as u32).collect(), NOW);
        let factors = |now| service.pool.all().iter().map(|i| warmth::factor(&service, i, now)).collect::<Vec<_>>();
        for ms in later {
            let before = factors(now);
            now = now + Duration::from_millis(ms);
            let after = factors(now);
            prop_assert!(before.iter().zip(&after).all(|(before, after)| 10 <= *before && before <= after && *after <= 100));
            let warmth = warmth::of(&service, &places, now);
            prop_assert!(warmth.n_warming * 2 <= places.len() && warmth.factors.len() == places.len());
        }
        prop_assert!(factors(now + Duration::from_secs(30)).iter().all(|factor| *factor == 100));
    }

    /// Whoever is picked may be picked, and if anybody may, somebody is.
    #[test]
    fn every_way_to_pick_picks_whom_it_may(
        all in vec((0..4u16, 0..3u32, 0..3u32, any::<bool>()), 0..12), key in any::<u64>(), balance in prop::sample::select(Balance::ALL.to_vec()),
    ) {
        let one = |(n, (weight, max_requests, _, _)): (usize, &(u16, u32, u32, bool))| {
            let mut instance = Arc::unwrap_or_clone(instance(n, *weight, Lifecycle::Ready));
            Arc::make_mut(&mut instance.spec).max_requests = *max_requests;
            Arc::new(instance)
        };
        let service = service_of(all.iter().enumerate().map(one).collect(), balance);
        let with = || service.pool.all().iter().zip(&all);
        let busy = |(instance, said): (&Arc<Instance>, &(u16, u32, u32, bool))| vec![instance.clone(); said.2 as usize];
        let _busy: Vec<InFlight> = with().flat_map(busy).map(InFlight::begin).collect();
        let tried: Vec<u64> = with().filter(|(_, said)| said.3).map(|(instance, _)| instance.state.generation).collect();
        let may = |i: &Arc<Instance>| i.standing.weight > 0 && i.has_room() && !tried.contains(&i.state.generation);
        let ask = Ask { tried: &tried, key: Some(Key::of(&key.to_le_bytes())), now: NOW, ..Ask::default() };
        let anybody = service.pool.all().iter().any(may);
        match service.pick(ask, &mut fastrand::Rng::with_seed(key)) {
            Ok(picked) => {
                let instance = picked.instance().clone();
                drop(picked);
                prop_assert!(may(&instance), "{balance:?} picked {}", instance.id);
            }
            Err(PickError::NoInstances) => prop_assert!(all.iter().all(|(weight, ..)| *weight == 0)),
            Err(error) => prop_assert!(!anybody, "{balance:?}: {error} though somebody may"),
        }
    }
}
