//! Slow start: an instance that is new, or back, gets a growing part of its weight.

use std::time::Duration;

use super::keyed::Keyed;
use super::{Instance, Moment, Service};

/// In hundredths of the declared weight, one for each candidate.
pub struct Warmth {
    pub factors: Vec<u32>,
    pub n_warming: usize,
}

pub fn of(service: &Service, candidates: &[u32], now: Moment) -> Warmth {
    let none = |n| Warmth { factors: vec![FULL; n], n_warming: 0 };
    let n = candidates.len();
    // Where there is nobody to carry what the newcomer does not take yet, holding back helps no one.
    // And a key's instance must be the same on every proxy, however long each has known it.
    if n < POOL_MIN || service.policy.slow_start.is_zero() || Keyed::is_for(service.policy.balance) {
        return none(n);
    }
    let factor = |place: &u32| factor(service, &service.pool.all()[*place as usize], now);
    let factors: Vec<u32> = candidates.iter().map(factor).collect();
    let n_warming = factors.iter().filter(|f| **f < FULL).count();
    if n_warming * 2 > n { none(n) } else { Warmth { factors, n_warming } }
}

/// Whether it would get less than its weight by itself; whether others let it is for the view to say.
pub fn is_warming(service: &Service, instance: &Instance, now: Moment) -> bool {
    factor(service, instance, now) < FULL
}

/// In percent of its weight, by itself.
pub fn factor(service: &Service, instance: &Instance, now: Moment) -> u32 {
    let (since, after_ejection) = instance.state.health.warming();
    let (first, lasts) = if after_ejection { AFTER_EJECTION } else { (FIRST_PERCENT, service.policy.slow_start) };
    let warmed = now.since(since).as_millis();
    if warmed >= lasts.as_millis() {
        return FULL;
    }
    first + ((FULL - first) as u128 * warmed / lasts.as_millis()) as u32
}

const FULL: u32 = 100;
const FIRST_PERCENT: u32 = 10;
const AFTER_EJECTION: (u32, Duration) = (25, Duration::from_secs(10));
const POOL_MIN: usize = 3;
