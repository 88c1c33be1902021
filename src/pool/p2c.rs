//! Power of two choices: the less loaded of two distinct weighted draws.
//!
//! Load is (in flight + 1) / weight. Two idle instances are a tie whatever they weigh, because the draw has weighed
//! them already; counting the weight twice would starve the light one on a quiet service. A tie between equal
//! weights goes to the one picked less recently, any other to the first draw. Up to three candidates are all looked at.
//! An instance that failed in the last seconds is never taken for less busy than its rival: who fails fast must not look idle.

use std::cmp::Ordering;
use std::sync::Arc;

use super::pick::{Candidate, Draw};
use super::{Moment, Strain};

pub fn pick<'a>(draw: &Draw<'a, '_>, rng: &mut fastrand::Rng) -> Option<Candidate<'a>> {
    better_of_two(draw, rng, |other, best| is_better(other, best, draw.ask.now))
}

/// Of two distinct weighted draws. `is_better` is strict: a tie keeps the one that was drawn first.
pub(super) fn better_of_two<'a>(
    draw: &Draw<'a, '_>,
    rng: &mut fastrand::Rng,
    is_better: impl Fn(Candidate<'a>, Candidate<'a>) -> bool,
) -> Option<Candidate<'a>> {
    let first = draw.one(rng)?;
    if draw.n_candidates() <= SCANNED_MAX {
        return Some(draw.usable().fold(first, |best, other| if is_better(other, best) { other } else { best }));
    }
    for _ in 0..REDRAWS_MAX {
        let second = draw.one(rng)?;
        if !Arc::ptr_eq(first.instance, second.instance) {
            return Some(if is_better(second, first) { second } else { first });
        }
    }
    Some(first)
}

/// By (in flight + 1) / weight.
pub(super) fn is_better(other: Candidate<'_>, best: Candidate<'_>, now: Moment) -> bool {
    let (other_load, best_load) = (load(other, best, now), load(best, other, now));
    if other_load == 0 && best_load == 0 {
        return other.waited_longer(&best);
    }
    let cross = |load: u32, weight: u32| (u64::from(load) + 1) * u64::from(weight);
    match cross(other_load, best.weight).cmp(&cross(best_load, other.weight)) {
        Ordering::Less => true,
        Ordering::Equal => other.waited_longer(&best),
        Ordering::Greater => false,
    }
}

/// In flight, or as if so many were, for who failed lately.
pub(super) fn load(of: Candidate<'_>, rival: Candidate<'_>, now: Moment) -> u32 {
    let own = of.instance.state.in_flight();
    match of.instance.state.health.strain(now) {
        Strain::None => own,
        Strain::Busy(more) => own.saturating_add(more),
        Strain::Failing => own.max(rival.instance.state.in_flight()),
        Strain::OutOfFavour => own.saturating_add(OUT_OF_FAVOUR_LOAD),
    }
}

/// More than anybody has in flight.
const OUT_OF_FAVOUR_LOAD: u32 = 1 << 20;
const SCANNED_MAX: usize = 3;
/// One instance may hold nearly all of the weight; then drawing it again and again is right.
const REDRAWS_MAX: usize = 4;
