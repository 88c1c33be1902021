//! The least loaded of all candidates: (in flight + 1) / weight, looked at from a weighted draw on. Costs the size of the pool.

use std::sync::Arc;

use super::Instance;
use super::p2c::is_better;
use super::pick::Draw;

pub fn pick<'a>(draw: &Draw<'a, '_>, rng: &mut fastrand::Rng) -> Option<&'a Arc<Instance>> {
    let first = draw.one(rng)?;
    Some(draw.untried().fold(first, |best, other| if is_better(other, best) { other } else { best }))
}
