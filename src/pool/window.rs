//! Two counts over the last ten seconds, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Moment;

/// How many there were, and how many of them were marked (failed, or were retries), second by second.
#[derive(Debug, Default)]
pub struct Window {
    /// Each: the second (24 bits), the marked ones (20 bits), all (20 bits).
    seconds: [AtomicU64; SECONDS as usize],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    pub all: u64,
    pub marked: u64,
}

impl Window {
    pub const SPAN_SECONDS: u64 = SECONDS;

    pub fn add(&self, now: Moment, all: u64, marked: u64) {
        let second = now.as_secs();
        let slot = &self.seconds[(second % SECONDS) as usize];
        let more = (marked << COUNT_BITS) | all;
        // A slot whose second is long past starts over; a count that is full stays full.
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |was| {
            let is_current = was >> (2 * COUNT_BITS) == second & SECOND_MASK;
            let base = if is_current { was } else { (second & SECOND_MASK) << (2 * COUNT_BITS) };
            let fits = (base & COUNT_MASK) + all <= COUNT_MASK;
            fits.then_some(base + more)
        });
    }

    pub fn read(&self, now: Moment) -> Counted {
        let second = now.as_secs();
        let mut sum = Counted::default();
        for slot in &self.seconds {
            let slot = slot.load(Ordering::Relaxed);
            let age = (second & SECOND_MASK).wrapping_sub(slot >> (2 * COUNT_BITS)) & SECOND_MASK;
            if age < SECONDS {
                sum.all += slot & COUNT_MASK;
                sum.marked += (slot >> COUNT_BITS) & COUNT_MASK;
            }
        }
        sum
    }
}

const SECONDS: u64 = 10;
const COUNT_BITS: u32 = 20;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const SECOND_MASK: u64 = (1 << 24) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_ten_seconds_no_longer_counts() {
        let window = Window::default();
        let at = |s: u64| Moment::from_millis(s * 1000 + 500);
        window.add(at(100), 3, 1);
        window.add(at(105), 5, 5);
        assert_eq!(window.read(at(105)), Counted { all: 8, marked: 6 });
        assert_eq!(window.read(at(109)), Counted { all: 8, marked: 6 });
        assert_eq!(window.read(at(110)), Counted { all: 5, marked: 5 });
        window.add(at(110), 1, 0);
        assert_eq!(window.read(at(110)), Counted { all: 6, marked: 5 });
        assert_eq!(window.read(at(500)), Counted::default());
    }

    #[test]
    fn a_full_second_stays_full_instead_of_spilling_into_its_neighbour() {
        let window = Window::default();
        let now = Moment::from_millis(7_000);
        window.add(now, COUNT_MASK, 7);
        window.add(now, 1, 1);
        assert_eq!(window.read(now), Counted { all: COUNT_MASK, marked: 7 });
    }
}
