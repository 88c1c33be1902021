//! Which part of a service's requests each tier and zone gets; who is picked inside is the balancing's affair.
//!
//! Tiers: a tier takes 1.4 times the share of its weight that is well, at most all; what is left goes to the next. So a
//! tier of which 70 % is well still carries everything alone, and one of which nothing is left is passed over.
//!
//! Zones, inside of a tier: proxies of each zone are taken to get equal parts of the traffic. A zone with at least that
//! part of the weight keeps its proxies' requests to itself; one with less passes on what its instances cannot carry,
//! to the zones that have more than their part, by how much more. No zone gets more than its weight then.

use std::collections::BTreeMap;

use super::keyed::Keyed;
use super::{Instance, Service};

/// The candidates by their tiers' and zones' parts.
pub struct Spread {
    pub candidates: Vec<u32>,
    pub weights: Vec<u32>,
    /// Those whose tier or zone has no part.
    pub spare: Vec<u32>,
}

/// What each tier's weight could be, and what of it is well.
#[derive(Debug, Default)]
pub struct Tiers(BTreeMap<u8, Tier>);

#[derive(Debug, Default, Clone, Copy)]
struct Tier {
    need: u64,
    able: u64,
}

impl Tiers {
    /// An instance that has been judged: new ones are no loss to their tier before they are admitted.
    pub fn count(&mut self, instance: &Instance, is_well: bool) {
        let (tier, weight) = (self.0.entry(instance.spec.tier).or_default(), u64::from(instance.standing.weight));
        tier.need += weight;
        tier.able += if is_well { weight } else { 0 };
    }

    /// There are other tiers, and together they are enough: nothing to panic about.
    pub fn are_enough(&self) -> bool {
        self.0.len() > 1 && self.0.values().map(|tier| tier.capacity()).sum::<f64>() >= 1.0
    }

    fn shares(&self) -> BTreeMap<u8, f64> {
        let mut left = 1.0;
        let mut shares: BTreeMap<u8, f64> = BTreeMap::new();
        for (number, tier) in &self.0 {
            let share = tier.capacity().min(left);
            left -= share;
            shares.insert(*number, share);
        }
        // Together they cannot carry all, and have to.
        let sum = 1.0 - left;
        shares.values_mut().filter(|_| sum > 0.0).for_each(|share| *share /= sum);
        shares
    }
}

impl Tier {
    fn capacity(&self) -> f64 {
        if self.need == 0 { 0.0 } else { (OVERPROVISIONED * self.able as f64 / self.need as f64).min(1.0) }
    }
}

/// The instances of one tier in one zone, or in none.
#[derive(Debug, Default)]
struct Group {
    n: usize,
    declared: u64,
    /// With slow start.
    now: u64,
    part: f64,
}

type Groups<'a> = BTreeMap<(u8, Option<&'a str>), Group>;

/// `weights`: of the candidates as they are now.
pub fn spread(service: &Service, candidates: Vec<u32>, weights: Vec<u32>, tiers: &Tiers) -> Spread {
    // A key's instance must be the same for the proxies of every zone.
    let is_zoned = service.policy.zone_aware && !Keyed::is_for(service.policy.balance);
    let own_zone = service.stats.zone.as_deref().filter(|_| is_zoned);
    if tiers.0.len() < 2 && own_zone.is_none() {
        return Spread { candidates, weights, spare: Vec::new() };
    }
    let group_of = |place: u32| {
        let spec = &service.pool.all()[place as usize].spec;
        (spec.tier, spec.zone.as_deref().filter(|_| own_zone.is_some()))
    };
    let mut groups = Groups::new();
    for (place, weight) in candidates.iter().zip(&weights) {
        let group = groups.entry(group_of(*place)).or_default();
        group.n += 1;
        group.declared += u64::from(service.pool.all()[*place as usize].standing.weight);
        group.now += u64::from(*weight);
    }
    for (tier, share) in tiers.shares() {
        divide(&mut groups, tier, share, own_zone);
    }
    let factor = |place: u32| groups.get(&group_of(place)).map_or(0.0, |group| group.part / group.now.max(1) as f64);
    let drawn: Vec<f64> = candidates.iter().zip(&weights).map(|(place, weight)| factor(*place) * f64::from(*weight)).collect();
    let heaviest = drawn.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    // One group alone shares by what its instances weigh, to the last digit.
    let is_divided = groups.values().filter(|group| group.part > 0.0).count() > 1;
    let mut spread = Spread { candidates: Vec::new(), weights: Vec::new(), spare: Vec::new() };
    for ((place, weight), drawn) in candidates.into_iter().zip(weights).zip(drawn) {
        if drawn > 0.0 {
            spread.candidates.push(place);
            spread.weights.push(if is_divided { (drawn / heaviest * SCALE).round().max(1.0) as u32 } else { weight });
        } else {
            spread.spare.push(place);
        }
    }
    spread
}

/// Why a well instance is spared, in words for an operator.
pub fn why_spared(service: &Service, instance: &Instance, candidates: &[u32]) -> String {
    let tier = instance.spec.tier;
    if candidates.iter().any(|place| service.pool.all()[*place as usize].spec.tier == tier) {
        let zone = instance.spec.zone.as_deref().unwrap_or("none");
        return format!("in reserve: of zone {zone}, and nearer ones have room");
    }
    format!("in reserve: of tier {tier}, and the tiers before it carry all")
}

/// Divides a tier's share among its zones.
fn divide(groups: &mut Groups<'_>, tier: u8, share: f64, own_zone: Option<&str>) {
    let mut of_tier: Vec<(Option<&str>, &mut Group)> =
        groups.iter_mut().filter(|((t, _), _)| *t == tier).map(|((_, zone), group)| (*zone, group)).collect();
    let declared: u64 = of_tier.iter().map(|(_, group)| group.declared).sum();
    let (n, n_zones) =
        (of_tier.iter().map(|(_, g)| g.n).sum::<usize>(), of_tier.iter().filter(|(zone, _)| zone.is_some()).count());
    let n_local = of_tier.iter().find(|(zone, _)| own_zone.is_some() && *zone == own_zone).map_or(0, |(_, group)| group.n);
    let holds = |group: &Group| group.declared as f64 / declared.max(1) as f64;
    if n < ZONED_MIN || n_local < LOCAL_MIN {
        of_tier.iter_mut().for_each(|(_, group)| group.part = share * holds(group));
        return;
    }
    let even = 1.0 / n_zones as f64;
    // Nobody's traffic begins outside of every zone, so all that is there is to spare.
    let spares = |zone: Option<&str>, group: &Group| (holds(group) - if zone.is_some() { even } else { 0.0 }).max(0.0);
    let all_spare: f64 = of_tier.iter().map(|(zone, group)| spares(*zone, group)).sum();
    let local = of_tier.iter().find(|(zone, _)| *zone == own_zone).map_or(0.0, |(_, group)| (holds(group) / even).min(1.0));
    for (zone, group) in of_tier {
        group.part = share
            * if zone == own_zone {
                local
            } else if all_spare > 0.0 {
                (1.0 - local) * spares(zone, group) / all_spare
            } else {
                0.0
            };
    }
}

/// So much more than its part an instance is taken to bear.
const OVERPROVISIONED: f64 = 1.4;
/// With fewer instances in a tier, a zone would be one or two.
const ZONED_MIN: usize = 6;
/// One alone would leave a retry nowhere near to go.
const LOCAL_MIN: usize = 2;
/// The heaviest of divided weights: fine enough for any share, and small enough for a sum of all.
const SCALE: f64 = (1 << 24) as f64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Balance, Lifecycle, ServiceName, ServicePolicy, Verdict};
    use crate::pool::pick::tests::{NOW, ask, instance};
    use crate::pool::{Pool, ServiceStats};
    use std::sync::Arc;

    /// Instances as `TIER[ZONE]`, with a `!` behind those that probes found down: the service as a proxy in zone `a` sees it.
    fn service(instances: &str, balance: Balance) -> Service {
        let all = instances.split(' ').enumerate().map(|(n, said)| {
            let mut instance = Arc::unwrap_or_clone(instance(n, 100, Lifecycle::Ready));
            let spec = Arc::make_mut(&mut instance.spec);
            spec.tier = said[..1].parse().unwrap();
            spec.zone = Some(said[1..].trim_end_matches('!')).filter(|zone| !zone.is_empty()).map(Into::into);
            Arc::new(instance)
        });
        let policy = ServicePolicy { balance, zone_aware: true, ..ServicePolicy::default() };
        let stats = ServiceStats::default().in_zone(Some("a".into()));
        let service = Service::new(ServiceName::parse("s").unwrap(), Arc::new(policy), Pool::new(all.collect()), Arc::new(stats));
        for (instance, said) in service.pool.all().iter().zip(instances.split(' ')) {
            let verdict = if said.ends_with('!') { Verdict::Down } else { Verdict::Up };
            service.settle(instance, verdict, true, "", NOW);
        }
        service
    }

    /// The percentage of requests that each instance gets.
    fn check(instances: &str, expected: &[f64]) {
        let service = service(instances, Balance::P2c);
        let view = service.view(NOW);
        let total: f64 = view.candidates(&service).map(|(_, weight)| f64::from(weight)).sum();
        let mut shares = vec![0.0; expected.len()];
        for (place, (_, weight)) in view.candidates.iter().zip(view.candidates(&service)) {
            shares[*place as usize] = (f64::from(weight) * 1000.0 / total).round() / 10.0;
        }
        assert_eq!(shares, expected, "{instances}");
    }

    #[test]
    fn the_next_tier_takes_what_the_first_cannot() {
        check("0 0 1 1", &[50.0, 50.0, 0.0, 0.0]);
        check("0 0 0 0! 1 1", &[33.3, 33.3, 33.3, 0.0, 0.0, 0.0]);
        check("0 0! 1 1", &[70.0, 0.0, 15.0, 15.0]);
        check("0! 0! 1 1", &[0.0, 0.0, 50.0, 50.0]);
        check("0! 0! 0! 0! 1 2", &[0.0, 0.0, 0.0, 0.0, 100.0, 0.0]);
        check("0 0! 1 1! 1! 1! 1! 2", &[70.0, 0.0, 28.0, 0.0, 0.0, 0.0, 0.0, 2.0]);
    }

    #[test]
    fn tiers_that_are_enough_together_are_no_reason_to_panic() {
        let view = |instances| service(instances, Balance::P2c).view(NOW);
        assert!(!view("0! 0! 0! 1").panic);
        assert!(view("0! 0! 0! 0").panic);
        let both = view("0! 0! 0! 0 1! 1! 1! 1");
        assert!(both.panic && both.n_candidates() == 8, "a panic uses all tiers");
    }

    #[test]
    fn a_zone_that_can_keeps_its_requests() {
        check("0a 0a 0a 0b 0b 0b", &[33.3, 33.3, 33.3, 0.0, 0.0, 0.0]);
        check("0a 0a 0a 0a 0b 0b", &[25.0, 25.0, 25.0, 25.0, 0.0, 0.0]);
    }

    #[test]
    fn a_zone_that_cannot_passes_on_what_is_too_much() {
        // A third of the weight for half of the traffic: two thirds stay.
        check("0a 0a 0b 0b 0b 0b", &[33.3, 33.3, 8.3, 8.3, 8.3, 8.3]);
        // To those who have more than their part, and to those of no zone.
        check("0a 0a 0b 0b 0b 0b 0c 0c 0c", &[33.3, 33.3, 8.3, 8.3, 8.3, 8.3, 0.0, 0.0, 0.0]);
        check("0a 0a 0b 0b 0 0", &[33.3, 33.3, 0.0, 0.0, 16.7, 16.7]);
    }

    #[test]
    fn few_instances_and_lone_ones_are_not_split_by_zone() {
        check("0a 0a 0b 0b 0b", &[20.0; 5]);
        check("0a 0b 0b 0b 0b 0b 0b 0b 0b 0b", &[10.0; 10]);
        check("0b 0b 0b 0c 0c 0c 0c 0c 0c 0c", &[10.0; 10]);
        let by_key = service("0a 0a 0a 0b 0b 0b", Balance::Hash);
        assert_eq!(by_key.view(NOW).n_candidates(), 6, "a key's instance is the same for every zone");
    }

    #[test]
    fn no_zone_gets_more_than_it_weighs_when_all_proxies_do_the_same() {
        // Two instances in a, three in b, five in c: what each zone gets from the proxies of all three.
        let mut got = BTreeMap::from([("a", 0.0), ("b", 0.0), ("c", 0.0)]);
        for own in ["a", "b", "c"] {
            let mut groups: Groups<'_> = [("a", 2), ("b", 3), ("c", 5)]
                .map(|(zone, n)| ((0, Some(zone)), Group { n, declared: n as u64 * 100, now: 1, part: 0.0 }))
                .into();
            divide(&mut groups, 0, 1.0, Some(own));
            groups.iter().for_each(|((_, zone), group)| *got.get_mut(zone.unwrap()).unwrap() += group.part / 3.0);
        }
        for (zone, weighs) in [("a", 0.2), ("b", 0.3), ("c", 0.5)] {
            assert!((got[zone] - weighs).abs() < 1e-9, "{zone}: {got:?}");
        }
    }

    #[test]
    fn the_spared_are_there_when_no_candidate_can_be_used() {
        let service = service("0a 0a 1b", Balance::P2c);
        let (mut rng, mut tried) = (fastrand::Rng::with_seed(1), Vec::new());
        for _ in 0..3 {
            tried.push(service.pick(ask(&tried), &mut rng).unwrap().instance().state.generation);
        }
        assert_eq!(tried[2], service.pool.all()[2].state.generation);
        assert!(service.pick(ask(&tried), &mut rng).is_err());
        let reason = service.reason(&service.pool.all()[2], NOW);
        assert_eq!(reason.as_deref(), Some("in reserve: of tier 1, and the tiers before it carry all"));
        assert_eq!(service.reason(&service.pool.all()[0], NOW), None);
    }
}
