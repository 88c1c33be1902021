//! The least loaded of all candidates: (in flight + 1) / weight, looked at from a weighted draw on. Costs the size of the pool.

use super::p2c::is_better;
use super::pick::{Candidate, Draw};

pub fn pick<'a>(draw: &Draw<'a, '_>, rng: &mut fastrand::Rng) -> Option<Candidate<'a>> {
    let first = draw.one(rng)?;
    Some(draw.usable().fold(first, |best, other| if is_better(other, best, draw.ask.now) { other } else { best }))
}
