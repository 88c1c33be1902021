//! Which probe is next: at most so many at once, each when it is due, those known to hang behind a door of their own.
//!
//! One heap for everything that waits, so 10,000 checks cost one timer and not 10,000. An entry is known by its subject
//! alone, and a subject has one at a time: it is put back when its probe has ended. Of a subject that is gone the entry
//! stays until it is due and is dropped then.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::subjects::SubjectId;
use crate::pool::Moment;

#[derive(Debug, Default)]
pub struct Schedule {
    waiting: BinaryHeap<Reverse<Entry>>,
    /// Due, and not begun for want of room, by lane, oldest first.
    due: [VecDeque<Entry>; 2],
    n_running: [usize; 2],
}

/// A probe and when it is due; ordered by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub due: Moment,
    pub subject: SubjectId,
}

/// Who took the whole of its time lately is likely to do so again, and may take no more than its share of the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    Prompt,
    Hanging,
}

impl Schedule {
    pub fn add(&mut self, due: Moment, subject: SubjectId) {
        self.waiting.push(Reverse(Entry { due, subject }));
    }

    /// When something more is due. What is due and has no room waits for a probe to end.
    pub fn next_due(&self) -> Option<Moment> {
        self.waiting.peek().map(|Reverse(entry)| entry.due)
    }

    /// Begins the next probe that is due, if there is room. `lane_of`: `None` for a subject that is gone.
    pub fn begin(&mut self, now: Moment, lane_of: impl Fn(SubjectId) -> Option<Lane>) -> Option<(Entry, Lane)> {
        while self.next_due().is_some_and(|due| due <= now)
            && let Some(Reverse(entry)) = self.waiting.pop()
        {
            if let Some(lane) = lane_of(entry.subject) {
                self.due[lane as usize].push_back(entry);
            }
        }
        for lane in [Lane::Prompt, Lane::Hanging] {
            while self.has_room(lane)
                && let Some(entry) = self.due[lane as usize].pop_front()
            {
                if lane_of(entry.subject).is_some() {
                    self.n_running[lane as usize] += 1;
                    return Some((entry, lane));
                }
            }
        }
        None
    }

    /// A probe that was begun has ended, whichever way.
    pub fn ended(&mut self, lane: Lane) {
        self.n_running[lane as usize] -= 1;
    }

    fn has_room(&self, lane: Lane) -> bool {
        let all: usize = self.n_running.iter().sum();
        all < RUNNING_MAX && (lane == Lane::Prompt || self.n_running[Lane::Hanging as usize] < HANGING_MAX)
    }
}

/// Probes in flight. Enough for 10,000 checks every 5 s if each takes 150 ms, and few for a machine to hold.
pub const RUNNING_MAX: usize = 64;
/// Of those, how many may be spent on what took all of its time before.
const HANGING_MAX: usize = RUNNING_MAX / 2;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::time::Duration;

    /// Virtual time in steps of a millisecond: every check takes as long as `takes_ms` says and is due again 5 s after its
    /// beginning. The lateness of every probe, by subject.
    fn run(n: u64, takes_ms: impl Fn(u64) -> u64, seconds: u64) -> Vec<(SubjectId, Duration)> {
        let mut schedule = Schedule::default();
        let mut rng = fastrand::Rng::with_seed(7);
        (0..n).for_each(|subject| schedule.add(Moment::from_millis(1 + rng.u64(0..5000)), subject));
        let (mut running, mut hung) = (Vec::<(u64, Entry, Lane)>::new(), HashSet::new());
        let mut late = Vec::new();
        for now_ms in 1..seconds * 1000 {
            let (now, mut rest) = (Moment::from_millis(now_ms), Vec::new());
            for (ends, entry, lane) in running.drain(..) {
                if ends > now_ms {
                    rest.push((ends, entry, lane));
                    continue;
                }
                schedule.ended(lane);
                let took = takes_ms(entry.subject);
                if took >= HANG_MS {
                    hung.insert(entry.subject);
                }
                schedule.add(Moment::from_millis((ends - took + 5000).max(now_ms)), entry.subject);
            }
            running = rest;
            let lane_of = |subject| Some(if hung.contains(&subject) { Lane::Hanging } else { Lane::Prompt });
            while let Some((entry, lane)) = schedule.begin(now, lane_of) {
                late.push((entry.subject, now.since(entry.due)));
                assert!(running.iter().all(|(_, r, _)| r.subject != entry.subject), "two at once of one subject");
                running.push((now_ms + takes_ms(entry.subject), entry, lane));
                assert!(running.len() <= RUNNING_MAX, "{} in flight", running.len());
            }
        }
        late
    }

    fn worst(late: &[(SubjectId, Duration)], whose: impl Fn(SubjectId) -> bool) -> Duration {
        late.iter().filter(|(subject, _)| whose(*subject)).map(|(_, late)| *late).max().unwrap()
    }

    #[test]
    fn ten_thousand_are_probed_in_time() {
        let late = run(10_000, |_| 10, 30);
        assert!((55_000..=60_000).contains(&late.len()), "{} probes in 30 s", late.len());
        assert!(worst(&late, |_| true) < Duration::from_millis(20), "{:?}", worst(&late, |_| true));
    }

    #[test]
    fn a_black_hole_delays_nobody() {
        let late = run(1_000, |subject| if subject == 0 { HANG_MS } else { 10 }, 60);
        assert_eq!(worst(&late, |_| true), Duration::ZERO);
    }

    #[test]
    fn more_black_holes_than_there_is_room_delay_only_each_other_once_they_are_known() {
        let late = run(1_000, |subject| if subject < 300 { HANG_MS } else { 10 }, 60);
        let prompt: Vec<_> = late.iter().filter(|(subject, _)| *subject >= 300).copied().collect();
        let known_by_now = &prompt[prompt.len() / 2..];
        assert_eq!(worst(known_by_now, |_| true), Duration::ZERO);
        let n_hung = late.iter().filter(|(subject, _)| *subject < 300).map(|(subject, _)| subject).collect::<HashSet<_>>().len();
        assert_eq!(n_hung, 300, "each of them has its turn");
    }

    #[test]
    fn the_oldest_goes_first_and_who_is_gone_is_dropped() {
        let mut schedule = Schedule::default();
        for (due, subject) in [(30, 3), (10, 1), (20, 2), (90, 4)] {
            schedule.add(Moment::from_millis(due), subject);
        }
        let lane_of = |subject| (subject != 2).then_some(Lane::Prompt);
        let mut begun = Vec::new();
        while let Some((entry, _)) = schedule.begin(Moment::from_millis(50), lane_of) {
            begun.push(entry.subject);
        }
        assert_eq!((begun, schedule.next_due()), (vec![1, 3], Some(Moment::from_millis(90))));
    }

    const HANG_MS: u64 = 2000;
}
