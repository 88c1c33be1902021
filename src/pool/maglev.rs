//! `maglev`: a table of 65,537 places, in which every instance has as many as it weighs, and a key one.
//!
//! Every instance walks the table in an order of its own and takes the next free place whenever it is its turn; heavy
//! ones have more turns. A pick is one look-up, whatever the size of the pool; making the table takes milliseconds, when
//! the candidates or their weights have changed. A change moves the keys of who goes or comes, and a few more.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Key;
use super::key::mix;

#[derive(Debug)]
pub struct Table(Vec<u32>);

impl Table {
    /// A seed and a weight above 0 for each candidate.
    pub fn new(seeds: &[u64], weights: &[u32]) -> Self {
        let mut places = vec![FREE; if seeds.is_empty() { 0 } else { SIZE }];
        let mut walks: Vec<Walk> = seeds.iter().map(|seed| Walk::of(*seed)).collect();
        let heaviest = weights.iter().copied().max().unwrap_or_default();
        // Whose turn is next: half as heavy is half as often. With equal weights they simply go round.
        let pauses: Vec<u64> = weights.iter().map(|w| (u64::from(heaviest) << PAUSE_BITS) / u64::from((*w).max(1))).collect();
        let mut turns: BinaryHeap<Reverse<(u64, u32)>> = pauses.iter().copied().zip(0..).map(Reverse).collect();
        for _ in 0..places.len() {
            let Some(mut turn) = turns.peek_mut() else { break };
            let Reverse((when, n)) = &mut *turn;
            *when += pauses[*n as usize];
            let walk = &mut walks[*n as usize];
            while places[walk.at] != FREE {
                walk.go();
            }
            places[walk.at] = *n;
        }
        Self(places)
    }

    /// Whose place the key's is, of those that `takes` says may be it; if it is nobody's of them, the next one's.
    pub fn first(&self, key: Key, n_candidates: usize, takes: impl Fn(usize) -> bool) -> Option<usize> {
        let start = (key.number() % SIZE as u64) as usize;
        let mut following = self.0[start.min(self.0.len())..].iter().chain(&self.0).map(|n| *n as usize).take(WALKED_MAX);
        let first = *self.0.get(start)? as usize;
        following.find(|n| takes(*n)).or_else(|| (first..n_candidates).chain(0..first).find(|n| takes(*n)))
    }
}

/// The order in which a candidate looks for free places. `SIZE` is prime, so every step visits them all.
struct Walk {
    at: usize,
    step: usize,
}

impl Walk {
    fn of(seed: u64) -> Self {
        let size = SIZE as u64;
        Self { at: (seed % size) as usize, step: (mix(seed) % (size - 1) + 1) as usize }
    }

    fn go(&mut self) {
        self.at += self.step;
        if self.at >= SIZE {
            self.at -= SIZE;
        }
    }
}

const SIZE: usize = 65_537;
/// So fine are the pauses between turns.
const PAUSE_BITS: u32 = 16;
const FREE: u32 = u32::MAX;
/// When none of so many places does, hardly anybody is left, and looking at the candidates one by one is shorter.
const WALKED_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::key::seed;

    fn seeds(ids: impl Iterator<Item = u32>) -> Vec<u64> {
        ids.map(|id| seed("s", &format!("i{id}"))).collect()
    }

    fn places(table: &Table, n: usize) -> Vec<usize> {
        let mut counts = vec![0; n];
        table.0.iter().for_each(|n| counts[*n as usize] += 1);
        counts
    }

    #[test]
    fn each_has_the_places_it_weighs() {
        for weights in [vec![100; 7], vec![1, 2, 3, 4], vec![6_553_500, 100, 100], vec![10_000]] {
            let table = Table::new(&seeds(0..weights.len() as u32), &weights);
            let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
            for (found, weight) in places(&table, weights.len()).into_iter().zip(&weights) {
                let expected = SIZE as u64 * u64::from(*weight) / total;
                assert!((found as u64).abs_diff(expected) <= 2, "{weights:?}: {found} places, expected {expected}");
            }
        }
    }

    #[test]
    fn a_change_moves_little_besides() {
        let (all, without_last) = (Table::new(&seeds(0..100), &[100; 100]), Table::new(&seeds(0..99), &[100; 99]));
        let moved = all.0.iter().zip(&without_last.0).filter(|(before, after)| **before != 99 && before != after).count();
        assert!(moved * 100 < SIZE * 3, "{moved} of {SIZE} places moved between those that stayed");
    }

    #[test]
    fn nobody_and_more_than_there_are_places_are_no_trouble() {
        let key = Key::of(b"x");
        assert_eq!(Table::new(&[], &[]).first(key, 0, |_| true), None);
        let crowd = Table::new(&seeds(0..70_000), &[100; 70_000]);
        assert!(crowd.first(key, 70_000, |_| true).is_some());
        assert_eq!(crowd.first(key, 70_000, |n| n == 69_999), Some(69_999));
        assert_eq!(crowd.first(key, 70_000, |_| false), None);
    }
}
