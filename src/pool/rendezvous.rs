//! `hash`: weighted rendezvous. Every instance draws a number for the key, and the best one has it.
//!
//! When an instance goes, its keys alone move, to the second best of each; when one comes, it takes its share from all
//! and nothing else moves; a weight that grows only attracts. That is exact, and costs a look at every candidate: a
//! few nanoseconds each. With thousands of instances `maglev` is the cheaper choice.

use super::Key;

/// The candidates by weight: among equals the number alone decides, so the logarithm is taken once for each weight.
#[derive(Debug)]
pub struct Groups(Vec<Group>);

#[derive(Debug)]
struct Group {
    weight: u32,
    /// Seed and place among the candidates.
    members: Vec<(u64, u32)>,
}

impl Groups {
    pub fn new(seeds: &[u64], weights: &[u32]) -> Self {
        let mut members: Vec<(u32, u64, u32)> = weights.iter().zip(seeds).zip(0..).map(|((w, seed), n)| (*w, *seed, n)).collect();
        members.sort_unstable();
        let group =
            |of: &[(u32, u64, u32)]| Group { weight: of[0].0, members: of.iter().map(|(_, seed, n)| (*seed, *n)).collect() };
        Self(members.chunk_by(|a, b| a.0 == b.0).map(group).collect())
    }

    /// The best for this key of those that `takes` says may be it.
    pub fn first(&self, key: Key, takes: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best: Option<(f64, u32)> = None;
        for Group { weight, members } in &self.0 {
            let drawn = members.iter().filter(|(_, n)| takes(*n as usize)).map(|(seed, n)| (key.with(*seed), *n));
            let Some((number, n)) = drawn.max() else { continue };
            let waits = waits(number) / f64::from(*weight);
            if best.is_none_or(|(shortest, _)| waits < shortest) {
                best = Some((waits, n));
            }
        }
        best.map(|(_, n)| n as usize)
    }
}

/// A number as an exponential draw: the shortest of many such, each over its weight, falls to each by its weight.
fn waits(number: u64) -> f64 {
    let within_0_and_1 = ((number >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -within_0_and_1.ln()
}
