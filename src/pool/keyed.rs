//! Picking by a key: the same key goes to the same instance, on every proxy, for as long as that instance can be used.
//!
//! Who it is hangs on the names of the service's instances and on their weights alone. So neither slow start nor zones
//! count here, which proxies see differently.

use std::sync::Arc;

use super::maglev::Table;
use super::pick::{Candidate, Draw, Weights};
use super::rendezvous::Groups;
use super::{Key, Service, key};
use crate::model::Balance;

/// What picking by a key needs to know of the candidates; made with the view, for services that pick so.
#[derive(Debug)]
pub enum Keyed {
    Rendezvous(Groups),
    Maglev(Table),
}

impl Keyed {
    pub fn of(service: &Service, candidates: &[u32], weights: &Weights) -> Option<Arc<Self>> {
        let make = match service.policy.balance {
            Balance::Hash => |seeds, weights| Self::Rendezvous(Groups::new(seeds, weights)),
            Balance::Maglev => |seeds: &[u64], weights: &[u32]| Self::Maglev(Table::new(seeds, weights)),
            _ => return None,
        };
        let id = |place: &u32| service.pool.all()[*place as usize].id.as_str();
        let seeds: Vec<u64> = candidates.iter().map(|place| key::seed(service.name.as_str(), id(place))).collect();
        let weights: Vec<u32> = (0..candidates.len()).map(|n| weights.of(n)).collect();
        Some(Arc::new(make(&seeds, &weights)))
    }

    pub fn is_for(balance: Balance) -> bool {
        matches!(balance, Balance::Hash | Balance::Maglev)
    }
}

/// The key's own instance; if that has been tried, is full or has more than its part, the next one of the key.
pub fn pick<'a>(draw: &Draw<'a, '_>, key: Key) -> Option<Candidate<'a>> {
    let keyed = draw.keyed()?;
    let bound = draw.bound();
    let is_free = |n: usize| {
        let candidate = draw.candidate(n);
        draw.is_usable(&candidate) && bound.as_ref().is_none_or(|bound| bound.allows(&candidate))
    };
    let find = |takes: &dyn Fn(usize) -> bool| match keyed {
        Keyed::Rendezvous(groups) => groups.first(key, takes),
        Keyed::Maglev(table) => table.first(key, draw.n_candidates(), takes),
    };
    // Most of the time the first choice will do, and nobody else has to be looked at.
    let first = find(&|_| true).filter(|n| is_free(*n));
    let found = first.or_else(|| find(&is_free)).or_else(|| find(&|n| draw.is_usable(&draw.candidate(n))));
    found.map(|n| draw.candidate(n))
}

/// Bounded load: nobody has more in flight than its part of all, times a factor, rounded up.
pub struct Bound {
    per_weight: f64,
}

impl Bound {
    /// `in_flight` and `weight` of all candidates.
    pub fn new(percent: u16, in_flight: u64, weight: u64) -> Self {
        Self { per_weight: f64::from(percent) / 100.0 * (in_flight + 1) as f64 / weight.max(1) as f64 }
    }

    pub fn allows(&self, candidate: &Candidate<'_>) -> bool {
        f64::from(candidate.instance.state.in_flight()) < (self.per_weight * f64::from(candidate.weight)).ceil()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{InstanceId, Lifecycle, ServicePolicy};
    use crate::pool::pick::tests::{NOW, instance, service};
    use crate::pool::{Ask, InFlight, Instance, Pool};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const OURS: [Balance; 2] = [Balance::Hash, Balance::Maglev];

    /// Of instances by number and weight, each in a life of its own.
    fn service_of(balance: Balance, weights: &BTreeMap<usize, u16>, hash_bound: Option<u16>) -> Service {
        let all = weights.iter().map(|(n, weight)| instance(*n, *weight, Lifecycle::Ready)).collect();
        let policy = ServicePolicy { balance, hash_bound, ..ServicePolicy::default() };
        let name = crate::model::ServiceName::parse("s").unwrap();
        Service::new(name, Arc::new(policy), Pool::new(all), Arc::default())
    }

    fn alike(n: usize) -> BTreeMap<usize, u16> {
        (0..n).map(|n| (n, 100)).collect()
    }

    fn pick(service: &Service, key: usize, tried: &[u64]) -> Option<InFlight> {
        let ask = Ask { tried, key: Some(Key::of(key.to_string().as_bytes())), now: NOW, ..Ask::default() };
        service.pick(ask, &mut fastrand::Rng::with_seed(key as u64)).ok()
    }

    fn owners(service: &Service, n_keys: usize) -> Vec<InstanceId> {
        (0..n_keys).map(|key| pick(service, key, &[]).unwrap().instance().id.clone()).collect()
    }

    fn count(owners: &[InstanceId], n: usize) -> usize {
        let id = instance(n, 100, Lifecycle::Ready).id.clone();
        owners.iter().filter(|owner| **owner == id).count()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn when_one_goes_its_keys_move_and_of_the_others_few(
            weights in prop::collection::btree_map(0usize..200, 1u16..400, 2..30), gone in any::<prop::sample::Index>(),
        ) {
            let mut fewer = weights.clone();
            let gone = *gone.get(&weights.keys().copied().collect::<Vec<_>>());
            fewer.remove(&gone);
            let gone = instance(gone, 1, Lifecycle::Ready).id.clone();
            for (balance, most) in [(Balance::Hash, 0), (Balance::Maglev, N_KEYS / 8)] {
                let before = owners(&service_of(balance, &weights, None), N_KEYS);
                let after = owners(&service_of(balance, &fewer, None), N_KEYS);
                let moved = before.iter().zip(&after).filter(|(b, a)| **b != gone && b != a).count();
                prop_assert!(moved <= most, "{balance:?}: {moved} of {N_KEYS} keys moved between those that stayed");
            }
        }

        #[test]
        fn a_weight_that_grows_only_attracts(
            weights in prop::collection::btree_map(0usize..200, 1u16..400, 2..30), grown in any::<prop::sample::Index>(),
        ) {
            let mut more = weights.clone();
            let grown = *grown.get(&weights.keys().copied().collect::<Vec<_>>());
            *more.get_mut(&grown).unwrap() *= 2;
            let grown = instance(grown, 1, Lifecycle::Ready).id.clone();
            let before = owners(&service_of(Balance::Hash, &weights, None), N_KEYS);
            let after = owners(&service_of(Balance::Hash, &more, None), N_KEYS);
            prop_assert!(before.iter().zip(&after).all(|(before, after)| before == after || *after == grown));
        }

        #[test]
        fn each_gets_the_keys_it_weighs(weights in prop::collection::btree_map(0usize..200, 20u16..400, 2..12)) {
            let total: u32 = weights.values().map(|w| u32::from(*w)).sum();
            for balance in OURS {
                let owners = owners(&service_of(balance, &weights, None), 4 * N_KEYS);
                for (n, weight) in &weights {
                    let expected = 4.0 * N_KEYS as f64 * f64::from(*weight) / f64::from(total);
                    // Five times what chance alone would do to a fair share.
                    let tolerance = 5.0 * expected.sqrt() + 2.0;
                    let found = count(&owners, *n) as f64;
                    prop_assert!((found - expected).abs() <= tolerance, "{balance:?}: {found} of i{n}, expected {expected}");
                }
            }
        }
    }

    const N_KEYS: usize = 400;

    #[test]
    fn every_proxy_chooses_alike_whatever_it_went_through() {
        for balance in OURS {
            let first = service_of(balance, &alike(20), None);
            // Another process: other generations, learned one by one, one that came and went, another time of birth.
            let reborn = |n: usize| {
                let before = Arc::unwrap_or_clone(instance(n, 100, Lifecycle::Ready));
                let state = crate::pool::InstanceState::new(900 - n as u64, std::time::SystemTime::UNIX_EPOCH, NOW);
                Arc::new(Instance { state: Arc::new(state), ..before })
            };
            let mut pool = Pool::default();
            for n in [19, 3, 7, 0, 50, 12, 1, 2, 4, 5, 6, 8, 9, 10, 11, 18, 17, 16, 15, 14, 13] {
                pool = pool.succeed(vec![(reborn(n).id.clone(), Some(reborn(n)))]);
            }
            pool = pool.succeed(vec![(reborn(50).id.clone(), None)]);
            let second = Service::new(first.name.clone(), first.policy.clone(), pool, Arc::default());
            assert_eq!(owners(&first, 500), owners(&second, 500), "{balance:?}");
        }
    }

    #[test]
    fn retries_follow_the_keys_own_order_to_the_last() {
        for balance in OURS {
            let service = service_of(balance, &alike(5), None);
            for key in 0..50 {
                let (mut tried, mut ids) = (Vec::new(), Vec::new());
                while let Some(held) = pick(&service, key, &tried) {
                    assert!(!tried.contains(&held.instance().state.generation), "{balance:?}");
                    tried.push(held.instance().state.generation);
                    ids.push(held.instance().id.clone());
                }
                assert_eq!(ids.len(), 5);
                // Without the first, the second is where the key would go.
                let mut fewer = alike(5);
                fewer.retain(|n, _| instance(*n, 1, Lifecycle::Ready).id != ids[0]);
                let next = pick(&service_of(balance, &fewer, None), key, &[]).unwrap().instance().id.clone();
                if balance == Balance::Hash {
                    assert_eq!(next, ids[1]);
                }
            }
        }
    }

    #[test]
    fn with_a_bound_nobody_has_more_than_its_part_and_a_quarter() {
        for balance in OURS {
            let service = service_of(balance, &alike(10), Some(125));
            // One key that everybody asks for, and no answer yet.
            let held: Vec<_> = (0..100).map(|_| pick(&service, 7, &[]).unwrap()).collect();
            let most = service.pool.all().iter().map(|i| i.state.in_flight()).max();
            assert_eq!(most, Some(13), "{balance:?}");
            drop(held);
            let without = service_of(balance, &alike(10), None);
            let held: Vec<_> = (0..100).map(|_| pick(&without, 7, &[]).unwrap()).collect();
            let most = without.pool.all().iter().map(|i| i.state.in_flight()).max();
            assert_eq!((most, held.len()), (Some(100), 100), "{balance:?}");
        }
    }

    #[test]
    fn a_request_without_the_key_goes_where_there_is_least_to_do() {
        for balance in OURS {
            let service = service(&[100; 4], balance);
            let busy: Vec<_> = (0..20).map(|_| InFlight::begin(service.pool.all()[1].clone())).collect();
            let mut rng = fastrand::Rng::with_seed(1);
            let held: Vec<_> = (0..20).map(|_| service.pick(Ask { now: NOW, ..Ask::default() }, &mut rng).unwrap()).collect();
            assert_eq!(service.pool.all()[1].state.in_flight() as usize, busy.len(), "{balance:?}");
            drop(held);
        }
    }

    #[test]
    fn a_view_made_anew_keeps_the_table_unless_the_candidates_changed() {
        let service = service_of(Balance::Maglev, &alike(3), None);
        let table = |service: &Service| service.view(NOW).keyed.clone().unwrap();
        let first = table(&service);
        service.stats.changed();
        assert!(Arc::ptr_eq(&first, &table(&service)));
        let id = &service.pool.all()[0];
        service.settle(id, crate::model::Verdict::Down, true, "status 500", NOW);
        assert!(!Arc::ptr_eq(&first, &table(&service)));
    }
}
