//! Power of two choices: the less loaded of two distinct weighted draws.
//!
//! Load is (in flight + 1) / weight. Two idle instances are a tie whatever they weigh, because the draw has weighed
//! them already; counting the weight twice would starve the light one on a quiet service. A tie between equal
//! weights goes to the one picked less recently, any other to the first draw. Up to three candidates are all looked at.

use std::sync::Arc;

use super::Instance;
use super::pick::Draw;

pub fn pick<'a>(draw: &Draw<'a, '_>, rng: &mut fastrand::Rng) -> Option<&'a Arc<Instance>> {
    let first = draw.one(rng)?;
    if draw.candidates.len() <= SCANNED_MAX {
        return Some(draw.untried().fold(first, |best, other| if is_better(other, best) { other } else { best }));
    }
    for _ in 0..REDRAWS_MAX {
        let second = draw.one(rng)?;
        if !Arc::ptr_eq(first, second) {
            return Some(if is_better(second, first) { second } else { first });
        }
    }
    Some(first)
}

/// Strictly: a tie keeps the one that was drawn first.
pub(super) fn is_better(other: &Instance, best: &Instance) -> bool {
    let (other_load, best_load) = (other.state.in_flight(), best.state.in_flight());
    let (other_weight, best_weight) = (other.standing.weight, best.standing.weight);
    let older = other_weight == best_weight && other.state.last_turn() < best.state.last_turn();
    if other_load == 0 && best_load == 0 {
        return older;
    }
    let cross = |load: u32, weight: u16| (u64::from(load) + 1) * u64::from(weight);
    match cross(other_load, best_weight).cmp(&cross(best_load, other_weight)) {
        std::cmp::Ordering::Less => true,
        std::cmp::Ordering::Equal => older,
        std::cmp::Ordering::Greater => false,
    }
}

const SCANNED_MAX: usize = 3;
/// One instance may hold nearly all of the weight; then drawing it again and again is right.
const REDRAWS_MAX: usize = 4;
