//! The pool of a service, and the one gate every pick goes through.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::gate::View;
use super::keyed::{self, Bound, Keyed};
use super::service::Ask;
use super::{Instance, Service, least_conn, p2c, peak_ewma, round_robin, warmth};
use crate::model::{Balance, InstanceId, Lifecycle, Protocol};

/// Why no instance could be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PickError {
    /// Nothing is registered, or nothing of it is meant to take traffic.
    NoInstances,
    /// There are instances that should take traffic, but none can.
    NoneHealthy,
    /// Each of them has been tried by this request.
    AllTried,
    /// Those that are left have as many requests as they may.
    Full,
}

impl fmt::Display for PickError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoInstances => "no instance of the service takes traffic",
            Self::NoneHealthy => "no instance of the service can be used",
            Self::AllTried => "every instance has been tried",
            Self::Full => "every instance has as many requests as it may",
        })
    }
}

/// The instances of one service. Immutable.
#[derive(Debug, Default)]
pub struct Pool {
    /// All that are known, by id: the same order on every proxy.
    all: Vec<Arc<Instance>>,
    /// Of each instance, whatever its state.
    speaks_http1: bool,
}

impl Pool {
    /// `all` is sorted by id.
    pub fn new(all: Vec<Arc<Instance>>) -> Self {
        debug_assert!(all.is_sorted_by(|a, b| a.id < b.id));
        let speaks_http1 = all.iter().all(|i| matches!(i.spec.protocol, Protocol::Http | Protocol::Https));
        Self { all, speaks_http1 }
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

    /// All of them are spoken to in HTTP/1.1, in the clear or over TLS.
    pub fn speaks_http1(&self) -> bool {
        self.speaks_http1
    }

    pub fn get(&self, id: &InstanceId) -> Option<&Arc<Instance>> {
        self.place(id).map(|at| &self.all[at as usize])
    }

    pub(super) fn place(&self, id: &InstanceId) -> Option<u32> {
        self.all.binary_search_by(|i| i.id.cmp(id)).ok().map(|at| at as u32)
    }

    /// Nobody may be picked: is there nobody, or nobody well?
    pub(super) fn why_none(&self) -> PickError {
        let is_wanted = |i: &Arc<Instance>| i.standing.lifecycle == Lifecycle::Ready && i.standing.weight > 0;
        if self.all.iter().any(is_wanted) { PickError::NoneHealthy } else { PickError::NoInstances }
    }
}

impl Service {
    /// By the service's way to pick, among those that the view lets through.
    pub(super) fn choose<'a>(
        &'a self,
        view: &'a View,
        ask: Ask<'_>,
        rng: &mut fastrand::Rng,
    ) -> Result<&'a Arc<Instance>, PickError> {
        if view.candidates.is_empty() {
            return Err(self.pool.why_none());
        }
        let turn = self.stats.turn.fetch_add(1, Ordering::Relaxed);
        let draw = Draw { service: self, view, ask };
        let picked = match (self.policy.balance, ask.key) {
            (Balance::RoundRobin, _) => round_robin::pick(&draw, turn),
            (Balance::Random, _) => draw.one(rng),
            (Balance::LeastConn, _) => least_conn::pick(&draw, rng),
            (Balance::PeakEwma, _) => peak_ewma::pick(&draw, rng),
            (Balance::Hash | Balance::Maglev, Some(key)) => keyed::pick(&draw, key),
            // A request that does not carry what is hashed belongs nowhere, so it goes where there is least to do.
            (Balance::P2c | Balance::Hash | Balance::Maglev, _) => p2c::pick(&draw, rng),
        };
        let picked = picked.map(|picked| draw.second_thought(picked));
        let Candidate { instance, .. } = picked.or_else(|| draw.one_to_spare()).ok_or_else(|| draw.why_none())?;
        instance.state.picked(turn + 1);
        Ok(instance)
    }
}

/// What a way to pick chooses from.
pub(super) struct Draw<'a, 't> {
    service: &'a Service,
    view: &'a View,
    pub ask: Ask<'t>,
}

/// An instance that may be picked, with the weight that counts now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub instance: &'a Arc<Instance>,
    pub weight: u32,
}

impl<'a> Draw<'a, '_> {
    pub fn n_candidates(&self) -> usize {
        self.view.candidates.len()
    }

    pub fn weights(&self) -> &'a Weights {
        &self.view.weights
    }

    pub fn keyed(&self) -> Option<&'a Keyed> {
        self.view.keyed.as_deref()
    }

    /// What an instance takes of which nothing is known yet.
    pub fn mean_latency_us(&self) -> f32 {
        self.service.stats.latency.read().map_or(0.0, |(us, _)| us)
    }

    /// It gets a growing part of its weight now.
    pub fn is_warming(&self, candidate: &Candidate<'_>) -> bool {
        self.view.n_warming > 0 && warmth::is_warming(self.service, candidate.instance, self.ask.now)
    }

    /// What each may have in flight, if the service says so. Costs a look at all candidates.
    pub fn bound(&self) -> Option<Bound> {
        let percent = self.service.policy.hash_bound?;
        let in_flight = (0..self.n_candidates()).map(|n| u64::from(self.candidate(n).instance.state.in_flight())).sum();
        let weight = (0..self.n_candidates()).map(|n| u64::from(self.view.weights.of(n))).sum();
        Some(Bound::new(percent, in_flight, weight))
    }

    /// Those this request has not been at, and that have room.
    pub fn usable(&self) -> impl Iterator<Item = Candidate<'a>> + Clone {
        (0..self.n_candidates()).map(|n| self.candidate(n)).filter(|c| self.is_usable(c))
    }

    /// A further attempt keeps away from instances that take no connections at present: two that died together must not
    /// cost a request all of its attempts. A first one does not, or nobody would find out that they are back.
    fn second_thought(&self, picked: Candidate<'a>) -> Candidate<'a> {
        let refuses = |c: &Candidate<'a>| c.instance.state.health.is_unreachable();
        if self.ask.tried.is_empty() || !refuses(&picked) {
            return picked;
        }
        let others = self.usable().filter(|c| !refuses(c));
        others.reduce(|best, other| if p2c::is_better(other, best, self.ask.now) { other } else { best }).unwrap_or(picked)
    }

    /// The least busy of those that other tiers and zones have to spare, for when none of the candidates can be used.
    fn one_to_spare(&self) -> Option<Candidate<'a>> {
        let all = self.service.pool.all();
        let spare = self.view.spare.iter().map(|place| &all[*place as usize]);
        let spare = spare.map(|instance| Candidate { instance, weight: u32::from(instance.standing.weight) });
        let usable = spare.filter(|c| self.is_usable(c));
        usable.reduce(|best, other| if p2c::is_better(other, best, self.ask.now) { other } else { best })
    }

    pub fn candidate(&self, n: usize) -> Candidate<'a> {
        let place = self.view.candidates[n] as usize;
        Candidate { instance: &self.service.pool.all()[place], weight: self.view.weights.of(n) }
    }

    pub fn is_usable(&self, Candidate { instance, .. }: &Candidate<'a>) -> bool {
        !self.ask.tried.contains(&instance.state.generation) && instance.has_room()
    }

    /// The candidate at a place in `0..weights.total()`, or the next one that is usable.
    pub fn at(&self, place: u64) -> Option<Candidate<'a>> {
        let first = self.view.weights.index_of(place);
        (first..self.n_candidates()).chain(0..first).map(|n| self.candidate(n)).find(|c| self.is_usable(c))
    }

    /// A weighted draw.
    pub fn one(&self, rng: &mut fastrand::Rng) -> Option<Candidate<'a>> {
        let drawn = self.candidate(self.view.weights.index_of(rng.u64(0..self.view.weights.total())));
        if self.is_usable(&drawn) {
            return Some(drawn);
        }
        // What cannot be used must not pass its share on to its neighbour alone.
        let total: u64 = self.usable().map(|c| u64::from(c.weight)).sum();
        let mut place = rng.u64(0..total.max(1));
        self.usable().find(|c| {
            let weight = u64::from(c.weight);
            let here = place < weight;
            place = place.saturating_sub(weight);
            here
        })
    }

    /// There are candidates, but none of them can be used.
    fn why_none(&self) -> PickError {
        let mut known =
            self.view.candidates.iter().chain(&self.view.spare).map(|place| &self.service.pool.all()[*place as usize]);
        let untried = known.any(|instance| !self.ask.tried.contains(&instance.state.generation));
        if untried { PickError::Full } else { PickError::AllTried }
    }
}

impl Candidate<'_> {
    /// Neither is busy, both weigh the same, and this one's last turn was before the other's.
    pub fn waited_longer(&self, than: &Self) -> bool {
        self.weight == than.weight && self.instance.state.last_turn() < than.instance.state.last_turn()
    }
}

/// Where each candidate's share begins and ends.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Weights {
    /// The running sums divided by the weights' greatest common divisor; empty when all are equal.
    sums: Vec<u64>,
    divisor: u32,
    n: u64,
    /// In which `round_robin` walks over them; finding it costs more than a pick.
    step: u64,
}

impl Weights {
    pub fn new(weights: &[u32]) -> Self {
        let n = weights.len() as u64;
        let first = weights.first().copied().unwrap_or_default();
        if weights.iter().all(|w| *w == first) {
            return Self { sums: Vec::new(), divisor: first, n, step: 1 };
        }
        let divisor = weights.iter().fold(0, |divisor, w| gcd(divisor, u64::from(*w)));
        let running = weights.iter().scan(0, |sum, w| {
            *sum += u64::from(*w) / divisor;
            Some(*sum)
        });
        let sums: Vec<u64> = running.collect();
        let step = round_robin::step(sums.last().copied().unwrap_or(1));
        Self { sums, divisor: divisor as u32, n, step }
    }

    pub fn are_equal(&self) -> bool {
        self.sums.is_empty()
    }

    pub fn step(&self) -> u64 {
        self.step
    }

    /// Never 0 while there is a candidate.
    pub fn total(&self) -> u64 {
        self.sums.last().copied().unwrap_or(self.n)
    }

    /// Of the n-th candidate.
    pub fn of(&self, n: usize) -> u32 {
        let Some(sum) = self.sums.get(n) else { return self.divisor };
        let before = if n == 0 { 0 } else { self.sums[n - 1] };
        (sum - before) as u32 * self.divisor
    }

    pub fn index_of(&self, place: u64) -> usize {
        if self.sums.is_empty() { place as usize } else { self.sums.partition_point(|sum| *sum <= place) }
    }
}

pub(super) fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{Address, InstanceSpec, Origin, Outcome, ServiceName, ServicePolicy};
    use crate::pool::{InFlight, InstanceState, Moment, Service, Standing};
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    pub const NOW: Moment = Moment::from_millis(1_000_000);

    /// A service of instances that have been there for long.
    pub fn service(weights: &[u16], balance: Balance) -> Service {
        service_of(weights.iter().enumerate().map(|(n, w)| instance(n, *w, Lifecycle::Ready)).collect(), balance)
    }

    pub fn service_of(all: Vec<Arc<Instance>>, balance: Balance) -> Service {
        let policy = ServicePolicy { balance, ..ServicePolicy::default() };
        Service::new(ServiceName::parse("s").unwrap(), Arc::new(policy), Pool::new(all), Arc::default())
    }

    pub fn ask(tried: &[u64]) -> Ask<'_> {
        Ask { tried, now: NOW, ..Ask::default() }
    }

    pub fn instance(n: usize, weight: u16, lifecycle: Lifecycle) -> Arc<Instance> {
        let address = Address::parse(&format!("127.0.0.1:{}", 9000 + n)).unwrap();
        let standing = Standing {
            addr: address.socket_addr(),
            refused: None,
            weight,
            lifecycle,
            limbo: None,
            overridden: false,
            revision: 1,
        };
        Arc::new(Instance {
            service: ServiceName::parse("s").unwrap(),
            id: InstanceId::parse(&format!("i{n:05}")).unwrap(),
            origin: Origin::Registry,
            spec: Arc::new(InstanceSpec::at(address)),
            standing,
            state: Arc::new(InstanceState::new(n as u64 + 1, SystemTime::UNIX_EPOCH, Moment::from_millis(1))),
        })
    }

    /// How often each of the service's instances was picked in `n` picks, each given back at once.
    pub fn counts(service: &Service, n: u64) -> Vec<u64> {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut counts: BTreeMap<_, u64> = service.pool.all().iter().map(|i| (i.id.clone(), 0)).collect();
        for _ in 0..n {
            let picked = service.pick(ask(&[]), &mut rng).unwrap();
            *counts.get_mut(&picked.instance().id).unwrap() += 1;
        }
        counts.into_values().collect()
    }

    #[test]
    fn a_further_attempt_keeps_away_from_who_takes_no_connections() {
        for balance in OURS {
            let service = service(&[100; 5], balance);
            for dead in [1, 2, 3] {
                let mut held = InFlight::begin(service.pool.all()[dead].clone());
                service.end_attempt(&mut held, Outcome::ConnectFailed, None, NOW);
            }
            let mut rng = fastrand::Rng::with_seed(7);
            for _ in 0..200 {
                let again = service.pick(ask(&[1]), &mut rng).unwrap();
                assert_eq!(again.instance().id.as_str(), "i00004", "{balance:?}");
                let last = service.pick(ask(&[1, 5]), &mut rng);
                assert!(last.is_ok(), "{balance:?}: one that may be back is better than none");
            }
        }
    }

    const OURS: [Balance; 5] = [Balance::P2c, Balance::PeakEwma, Balance::LeastConn, Balance::Random, Balance::RoundRobin];

    #[test]
    fn every_algorithm_honours_weights_on_idle_instances() {
        for balance in OURS {
            for weights in [vec![100, 100], vec![300, 100], vec![5, 1, 1, 0], vec![10, 20, 30, 40, 100]] {
                let (n, total) = (20_000, weights.iter().map(|w| u64::from(*w)).sum::<u64>());
                for (count, weight) in counts(&service(&weights, balance), n).into_iter().zip(&weights) {
                    let expected = n * u64::from(*weight) / total;
                    assert!(count.abs_diff(expected) <= n / 50, "{balance:?} {weights:?}: {count}, expected {expected}");
                }
            }
        }
    }

    #[test]
    fn what_was_tried_is_not_picked_again() {
        for balance in OURS {
            let service = service(&[1, 2, 3, 4, 5], balance);
            let (mut rng, mut tried) = (fastrand::Rng::with_seed(1), Vec::new());
            for _ in 0..5 {
                let picked = service.pick(ask(&tried), &mut rng).unwrap().instance().state.generation;
                assert!(!tried.contains(&picked), "{balance:?} picked {picked} again");
                tried.push(picked);
            }
            assert_eq!(service.pick(ask(&tried), &mut rng).unwrap_err(), PickError::AllTried);
        }
    }

    #[test]
    fn an_instance_that_drains_or_weighs_nothing_gets_no_requests() {
        let all =
            vec![instance(0, 100, Lifecycle::Draining), instance(1, 100, Lifecycle::Ready), instance(2, 0, Lifecycle::Ready)];
        for balance in OURS {
            assert_eq!(counts(&service_of(all.clone(), balance), 100), [0, 100, 0]);
        }
        let mut rng = fastrand::Rng::with_seed(1);
        for nobody in [all[..1].to_vec(), vec![]] {
            let service = service_of(nobody, Balance::P2c);
            assert_eq!(service.pick(ask(&[]), &mut rng).unwrap_err(), PickError::NoInstances);
        }
    }

    #[test]
    fn load_aware_algorithms_avoid_the_busy_instance() {
        for balance in [Balance::P2c, Balance::PeakEwma, Balance::LeastConn] {
            let service = service(&[100; 10], balance);
            let all = service.pool.all();
            let busy: Vec<_> = (0..50).map(|_| InFlight::begin(all[3].clone())).collect();
            let mut rng = fastrand::Rng::with_seed(3);
            let held: Vec<_> = (0..90).map(|_| service.pick(ask(&[]), &mut rng).unwrap()).collect();
            assert_eq!(all[3].state.in_flight(), 50, "{balance:?}");
            drop((busy, held));
            assert!(all.iter().all(|i| i.state.in_flight() == 0));
        }
    }

    #[test]
    fn at_low_concurrency_a_light_instance_still_gets_its_share_and_no_more() {
        // Two requests at a time over weights 100 and 10: neither all to the heavy one nor half and half.
        for balance in [Balance::P2c, Balance::PeakEwma, Balance::LeastConn] {
            let service = service(&[100, 10], balance);
            let (mut rng, mut light, mut previous) = (fastrand::Rng::with_seed(3), 0, None);
            for _ in 0..10_000 {
                let current = service.pick(ask(&[]), &mut rng).unwrap();
                light += usize::from(current.instance().standing.weight == 10);
                // Half of the time the one before is still running.
                previous = rng.bool().then_some(current);
            }
            drop(previous);
            assert!((200..2000).contains(&light), "{balance:?}: {light} of 10000");
        }
    }

    #[test]
    fn an_instance_gets_no_more_requests_at_once_than_it_asked_for() {
        let limited = |n| {
            let mut instance = Arc::unwrap_or_clone(instance(n, 100, Lifecycle::Ready));
            Arc::make_mut(&mut instance.spec).max_requests = 2;
            Arc::new(instance)
        };
        for balance in OURS {
            let service = service_of(vec![limited(0), limited(1)], balance);
            let mut rng = fastrand::Rng::with_seed(3);
            let held: Vec<_> = (0..4).map(|_| service.pick(ask(&[]), &mut rng).unwrap()).collect();
            assert!(service.pool.all().iter().all(|i| i.state.in_flight() == 2), "{balance:?}");
            assert_eq!(service.pick(ask(&[]), &mut rng).unwrap_err(), PickError::Full);
            drop(held);
            assert!(service.pick(ask(&[]), &mut rng).is_ok());
        }
    }
}
