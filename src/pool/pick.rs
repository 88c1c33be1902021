//! The pool of a service, and the one gate every pick goes through.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Instance, least_conn, p2c, round_robin};
use crate::model::{Balance, InstanceId};

/// Why no instance could be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PickError {
    /// Nothing is registered, or nothing of it is meant to take traffic.
    NoInstances,
    /// There are instances that should take traffic, but none can.
    NoneHealthy,
    /// Each of them has been tried by this request.
    AllTried,
}

impl fmt::Display for PickError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoInstances => "no instance of the service takes traffic",
            Self::NoneHealthy => "no instance of the service can be used",
            Self::AllTried => "every instance has been tried",
        })
    }
}

/// The instances of one service. Immutable.
#[derive(Debug, Default)]
pub struct Pool {
    /// All that are known, by id: the same order on every proxy.
    all: Vec<Arc<Instance>>,
    /// Those that take traffic by what was declared, as places in `all`.
    candidates: Vec<u32>,
    weights: Weights,
}

impl Pool {
    /// `all` is sorted by id.
    pub fn new(all: Vec<Arc<Instance>>) -> Self {
        debug_assert!(all.is_sorted_by(|a, b| a.id < b.id));
        let places = (0..).zip(&all).filter(|(_, i)| i.takes_traffic());
        let (candidates, weights): (Vec<u32>, Vec<u16>) = places.map(|(place, i)| (place, i.standing.weight)).unzip();
        Self { all, candidates, weights: Weights::new(&weights) }
    }

    /// The pool with some instances replaced, added or gone. `edits` is sorted by id. Costs a search for each edit and
    /// one reference for each instance that stays.
    pub fn succeed(&self, edits: Vec<(InstanceId, Option<Arc<Instance>>)>) -> Self {
        let mut all = Vec::with_capacity(self.all.len() + edits.len());
        let mut rest = &self.all[..];
        for (id, instance) in edits {
            let at = rest.partition_point(|i| i.id < id);
            all.extend_from_slice(&rest[..at]);
            rest = &rest[at..];
            if rest.first().is_some_and(|i| i.id == id) {
                rest = &rest[1..];
            }
            all.extend(instance);
        }
        all.extend_from_slice(rest);
        Self::new(all)
    }

    pub fn all(&self) -> &[Arc<Instance>] {
        &self.all
    }

    pub fn candidates(&self) -> impl ExactSizeIterator<Item = &Arc<Instance>> + Clone {
        self.candidates.iter().map(|place| &self.all[*place as usize])
    }

    pub fn get(&self, id: &InstanceId) -> Option<&Arc<Instance>> {
        self.all.binary_search_by(|i| i.id.cmp(id)).ok().map(|at| &self.all[at])
    }

    pub fn pick(
        &self,
        balance: Balance,
        tried: &[u64],
        turn: &AtomicU64,
        rng: &mut fastrand::Rng,
    ) -> Result<&Arc<Instance>, PickError> {
        if self.candidates.is_empty() {
            let unresolved = self.all.iter().any(|i| i.standing.addr.is_none() && i.standing.weight > 0);
            return Err(if unresolved { PickError::NoneHealthy } else { PickError::NoInstances });
        }
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        let draw = Draw { all: &self.all, candidates: &self.candidates, weights: &self.weights, tried };
        let picked = match balance {
            Balance::RoundRobin => round_robin::pick(&draw, turn),
            Balance::Random => draw.one(rng),
            Balance::LeastConn => least_conn::pick(&draw, rng),
            // The remaining ones come with the health of instances; until then a policy that names them is served by the default.
            _ => p2c::pick(&draw, rng),
        };
        let picked = picked.ok_or(PickError::AllTried)?;
        picked.state.picked(turn + 1);
        Ok(picked)
    }
}

/// What a way to pick chooses from.
pub(super) struct Draw<'a, 't> {
    all: &'a [Arc<Instance>],
    pub candidates: &'a [u32],
    pub weights: &'a Weights,
    pub tried: &'t [u64],
}

impl<'a> Draw<'a, '_> {
    pub fn untried(&self) -> impl Iterator<Item = &'a Arc<Instance>> + Clone {
        self.in_order(self.candidates).filter(|i| !self.is_tried(i))
    }

    fn is_tried(&self, instance: &Instance) -> bool {
        self.tried.contains(&instance.state.generation)
    }

    /// The candidate at a place in `0..weights.total()`, or the next one that was not tried.
    pub fn at(&self, place: u64) -> Option<&'a Arc<Instance>> {
        let first = self.weights.index_of(place);
        let (before, from) = self.candidates.split_at(first);
        self.in_order(from).chain(self.in_order(before)).find(|i| !self.is_tried(i))
    }

    fn in_order(&self, places: &'a [u32]) -> impl Iterator<Item = &'a Arc<Instance>> + Clone + use<'a> {
        let all = self.all;
        places.iter().map(move |place| &all[*place as usize])
    }

    /// A weighted draw.
    pub fn one(&self, rng: &mut fastrand::Rng) -> Option<&'a Arc<Instance>> {
        if self.tried.is_empty() {
            return self.at(rng.u64(0..self.weights.total()));
        }
        // What was tried must not pass its share on to its neighbour alone.
        let total: u64 = self.untried().map(|i| u64::from(i.standing.weight)).sum();
        let mut place = rng.u64(0..total.max(1));
        self.untried().find(|i| {
            let weight = u64::from(i.standing.weight);
            let here = place < weight;
            place = place.saturating_sub(weight);
            here
        })
    }
}

/// Where each candidate's share begins and ends.
#[derive(Debug, Default)]
pub(super) struct Weights {
    /// The running sums divided by the weights' greatest common divisor; empty when all are equal.
    sums: Vec<u64>,
    n: u64,
}

impl Weights {
    fn new(weights: &[u16]) -> Self {
        let n = weights.len() as u64;
        let first = weights.first().copied().unwrap_or_default();
        if weights.iter().all(|w| *w == first) {
            return Self { sums: Vec::new(), n };
        }
        let divisor = weights.iter().fold(0, |divisor, w| gcd(divisor, u64::from(*w)));
        let running = weights.iter().scan(0, |sum, w| {
            *sum += u64::from(*w) / divisor;
            Some(*sum)
        });
        Self { sums: running.collect(), n }
    }

    pub fn are_equal(&self) -> bool {
        self.sums.is_empty()
    }

    /// Never 0 while there is a candidate.
    pub fn total(&self) -> u64 {
        self.sums.last().copied().unwrap_or(self.n)
    }

    fn index_of(&self, place: u64) -> usize {
        if self.sums.is_empty() { place as usize } else { self.sums.partition_point(|sum| *sum <= place) }
    }
}

pub(super) fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{Address, InstanceSpec, Lifecycle, Origin, ServiceName};
    use crate::pool::{InFlight, InstanceState, Standing};
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    pub fn pool(weights: &[u16]) -> Pool {
        Pool::new(weights.iter().enumerate().map(|(n, w)| instance(n, *w, Lifecycle::Ready)).collect())
    }

    fn instance(n: usize, weight: u16, lifecycle: Lifecycle) -> Arc<Instance> {
        let address = Address::parse(&format!("127.0.0.1:{}", 9000 + n)).unwrap();
        let standing = Standing { addr: address.socket_addr(), weight, lifecycle, overridden: false, revision: 1 };
        Arc::new(Instance {
            service: ServiceName::parse("s").unwrap(),
            id: InstanceId::parse(&format!("i{n:05}")).unwrap(),
            origin: Origin::Registry,
            spec: Arc::new(InstanceSpec::at(address)),
            standing,
            state: Arc::new(InstanceState::new(n as u64 + 1, SystemTime::UNIX_EPOCH)),
        })
    }

    /// How often each of the pool's instances was picked in `n` picks, each given back at once.
    pub fn counts(pool: &Pool, balance: Balance, n: u64) -> Vec<u64> {
        let (turn, mut rng) = (AtomicU64::new(0), fastrand::Rng::with_seed(7));
        let mut counts: BTreeMap<_, u64> = pool.all().iter().map(|i| (i.id.clone(), 0)).collect();
        for _ in 0..n {
            let picked = pool.pick(balance, &[], &turn, &mut rng).unwrap();
            *counts.get_mut(&picked.id).unwrap() += 1;
        }
        counts.into_values().collect()
    }

    const OURS: [Balance; 4] = [Balance::P2c, Balance::LeastConn, Balance::Random, Balance::RoundRobin];

    #[test]
    fn every_algorithm_honours_weights_on_idle_instances() {
        for balance in OURS {
            for weights in [vec![100, 100], vec![300, 100], vec![5, 1, 1, 0], vec![10, 20, 30, 40, 100]] {
                let (n, total) = (20_000, weights.iter().map(|w| u64::from(*w)).sum::<u64>());
                for (count, weight) in counts(&pool(&weights), balance, n).into_iter().zip(&weights) {
                    let expected = n * u64::from(*weight) / total;
                    assert!(count.abs_diff(expected) <= n / 50, "{balance:?} {weights:?}: {count}, expected {expected}");
                }
            }
        }
    }

    #[test]
    fn what_was_tried_is_not_picked_again() {
        let pool = pool(&[1, 2, 3, 4, 5]);
        for balance in OURS {
            let (turn, mut rng) = (AtomicU64::new(0), fastrand::Rng::with_seed(1));
            let mut tried = Vec::new();
            for _ in 0..5 {
                let picked = pool.pick(balance, &tried, &turn, &mut rng).unwrap().state.generation;
                assert!(!tried.contains(&picked), "{balance:?} picked {picked} again");
                tried.push(picked);
            }
            assert_eq!(pool.pick(balance, &tried, &turn, &mut rng).unwrap_err(), PickError::AllTried);
        }
    }

    #[test]
    fn an_instance_that_drains_or_weighs_nothing_gets_no_requests() {
        let all =
            vec![instance(0, 100, Lifecycle::Draining), instance(1, 100, Lifecycle::Ready), instance(2, 0, Lifecycle::Ready)];
        for balance in OURS {
            assert_eq!(counts(&Pool::new(all.clone()), balance, 100), [0, 100, 0]);
        }
        let (turn, mut rng) = (AtomicU64::new(0), fastrand::Rng::with_seed(1));
        let drained = Pool::new(all[..1].to_vec());
        assert_eq!(drained.pick(Balance::P2c, &[], &turn, &mut rng).unwrap_err(), PickError::NoInstances);
        assert_eq!(Pool::default().pick(Balance::P2c, &[], &turn, &mut rng).unwrap_err(), PickError::NoInstances);
    }

    #[test]
    fn load_aware_algorithms_avoid_the_busy_instance() {
        for balance in [Balance::P2c, Balance::LeastConn] {
            let pool = pool(&[100; 10]);
            let busy: Vec<_> = (0..50).map(|_| InFlight::begin(pool.all()[3].clone())).collect();
            let mut held = Vec::new();
            let (turn, mut rng) = (AtomicU64::new(0), fastrand::Rng::with_seed(3));
            for _ in 0..90 {
                held.push(InFlight::begin(pool.pick(balance, &[], &turn, &mut rng).unwrap().clone()));
            }
            assert_eq!(pool.all()[3].state.in_flight(), 50, "{balance:?}");
            drop((busy, held));
            assert!(pool.all().iter().all(|i| i.state.in_flight() == 0));
        }
    }

    #[test]
    fn at_low_concurrency_a_light_instance_still_gets_its_share_and_no_more() {
        // Two requests at a time over weights 100 and 10: neither all to the heavy one nor half and half.
        for balance in [Balance::P2c, Balance::LeastConn] {
            let pool = pool(&[100, 10]);
            let (turn, mut rng) = (AtomicU64::new(0), fastrand::Rng::with_seed(3));
            let mut light = 0;
            let mut previous = None;
            for _ in 0..10_000 {
                let picked = pool.pick(balance, &[], &turn, &mut rng).unwrap().clone();
                light += usize::from(picked.standing.weight == 10);
                let current = InFlight::begin(picked);
                // Half of the time the one before is still running.
                previous = rng.bool().then_some(current);
            }
            drop(previous);
            assert!((200..2000).contains(&light), "{balance:?}: {light} of 10000");
        }
    }
}
