//! When probes have proven something: rise and fall, the hurry in between, and the hold after flapping.

use std::time::Duration;

use crate::model::Verdict;
use crate::pool::Moment;

/// How often to ask, and how many answers in a row settle something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pace {
    pub interval: Duration,
    pub rise: u32,
    pub fall: u32,
}

/// What one probe says to the judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Pass,
    Fail,
    /// Alive, and asking to be left alone: speaks neither for it nor against it.
    Draining,
}

/// What the probes of one check add up to.
#[derive(Debug, Default)]
pub struct Judge {
    verdict: Verdict,
    /// In a row; one of the two is 0.
    n_passes: u32,
    n_failures: u32,
    /// The last times it turned from up to down or back, oldest first.
    edges: [Moment; FLAPPING_EDGES],
    /// Holds since it last turned without flapping.
    n_holds: u32,
    held_until: Moment,
}

impl Judge {
    /// Goes on from what was settled before; one probe less is needed of nobody.
    pub fn resuming(verdict: Verdict) -> Self {
        Self { verdict, ..Self::default() }
    }

    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Takes in one probe that ended now.
    pub fn observe(&mut self, seen: Seen, pace: Pace, now: Moment) -> Verdict {
        (self.n_passes, self.n_failures) = match seen {
            Seen::Pass => (self.n_passes.saturating_add(1), 0),
            Seen::Fail => (0, self.n_failures.saturating_add(1)),
            Seen::Draining => (0, 0),
        };
        match self.verdict {
            // One pass admits a newcomer; that it fails has to be seen as often as of anybody.
            Verdict::Unknown if self.n_passes > 0 => self.turn(Verdict::Up, now),
            Verdict::Down if self.n_passes >= pace.rise && now >= self.held_until => self.turn(Verdict::Up, now),
            Verdict::Unknown | Verdict::Up if self.n_failures >= pace.fall => self.turn(Verdict::Down, now),
            _ => {}
        }
        self.verdict
    }

    /// How much longer it stays down, whatever probes say, because it turned too often; nothing if it does not.
    pub fn held_for(&self, now: Moment) -> Duration {
        if self.verdict == Verdict::Down { self.held_until.since(now) } else { Duration::ZERO }
    }

    /// How long after this probe's beginning the next one is due, jitter aside.
    pub fn pause(&self, pace: Pace, now: Moment) -> Duration {
        let turning = match self.verdict {
            Verdict::Unknown | Verdict::Up => self.n_failures > 0,
            Verdict::Down => self.n_passes > 0,
        };
        let held_for = self.held_for(now);
        match turning {
            _ if !held_for.is_zero() => pace.interval.min(held_for),
            true => pace.interval.min(TURNING_INTERVAL),
            false => pace.interval,
        }
    }

    /// Nothing is about to change, so real requests may stand in for probes.
    pub fn is_well(&self) -> bool {
        self.verdict == Verdict::Up && self.n_failures == 0
    }

    fn turn(&mut self, verdict: Verdict, now: Moment) {
        if self.verdict != Verdict::Unknown {
            self.edges.rotate_left(1);
            self.edges[FLAPPING_EDGES - 1] = now;
        }
        if verdict == Verdict::Down {
            let oldest = self.edges[0];
            if oldest != Moment::NEVER && now.since(oldest) < FLAPPING_WINDOW {
                self.held_until = now + HOLD_MIN.saturating_mul(1 << self.n_holds.min(HOLD_DOUBLINGS_MAX)).min(HOLD_MAX);
                self.n_holds += 1;
            } else {
                self.n_holds = 0;
            }
        }
        self.verdict = verdict;
    }
}

/// While something is about to change, an answer is wanted soon.
const TURNING_INTERVAL: Duration = Duration::from_secs(1);
/// So many turns within the window are flapping.
const FLAPPING_EDGES: usize = 4;
const FLAPPING_WINDOW: Duration = Duration::from_secs(600);
/// How long one that flaps stays down at least; doubled each time.
const HOLD_MIN: Duration = Duration::from_secs(10);
const HOLD_MAX: Duration = Duration::from_secs(120);
/// 10 s doubled four times is beyond the most already.
const HOLD_DOUBLINGS_MAX: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PACE: Pace = Pace { interval: Duration::from_secs(5), rise: 2, fall: 3 };

    fn at(seconds: u64) -> Moment {
        Moment::from_millis(1 + seconds * 1000)
    }

    /// Probes as they come, each when the judge wants it: `+` passes, `-` fails, `d` drains. The verdict after each, and
    /// how many seconds later the next one is due.
    fn check(judge: &mut Judge, from: u64, probes: &str) -> (String, Vec<u64>) {
        let (mut verdicts, mut pauses, mut now) = (String::new(), Vec::new(), from);
        for sign in probes.chars() {
            let seen = match sign {
                '+' => Seen::Pass,
                '-' => Seen::Fail,
                'd' => Seen::Draining,
                other => panic!("{other:?}"),
            };
            verdicts.push(match judge.observe(seen, PACE, at(now)) {
                Verdict::Unknown => '.',
                Verdict::Up => 'U',
                Verdict::Down => 'D',
            });
            pauses.push(judge.pause(PACE, at(now)).as_secs());
            now += pauses.last().unwrap();
        }
        (verdicts, pauses)
    }

    fn settles(from: Verdict, probes: &str, expected: &str) {
        assert_eq!(check(&mut Judge::resuming(from), 0, probes).0, expected, "{from} {probes}");
    }

    #[test]
    fn rise_and_fall() {
        settles(Verdict::Unknown, "+--+---", "UUUUUUD");
        settles(Verdict::Unknown, "--+", "..U");
        settles(Verdict::Unknown, "---+-++", "..DDDDU");
        settles(Verdict::Up, "---", "UUD");
        settles(Verdict::Down, "+-++", "DDDU");
    }

    #[test]
    fn draining_is_neither_for_nor_against_it() {
        settles(Verdict::Up, "--d--d", "UUUUUU");
        settles(Verdict::Down, "+d+d", "DDDD");
        settles(Verdict::Unknown, "ddd+", "...U");
    }

    #[test]
    fn what_is_about_to_change_is_asked_every_second() {
        let judge = &mut Judge::resuming(Verdict::Up);
        assert_eq!(check(judge, 0, "+---++"), ("UUUDDU".to_owned(), vec![5, 1, 1, 5, 1, 5]));
        let often = Pace { interval: Duration::from_millis(300), ..PACE };
        judge.observe(Seen::Fail, often, at(60));
        assert_eq!(judge.pause(often, at(60)), Duration::from_millis(300), "never less often than usual");
    }

    #[test]
    fn one_that_flaps_is_held_down_longer_each_time() {
        let (mut judge, mut now, mut down_for) = (Judge::resuming(Verdict::Up), 0, Vec::new());
        for _ in 0..8 {
            while judge.observe(Seen::Fail, PACE, at(now)) != Verdict::Down {
                now += 1;
            }
            let went_down = now;
            while judge.observe(Seen::Pass, PACE, at(now)) != Verdict::Up {
                now += judge.pause(PACE, at(now)).as_secs();
            }
            down_for.push(now - went_down);
        }
        assert_eq!(down_for, [1, 1, 10, 20, 40, 80, 120, 120]);
        now += 700;
        check(&mut judge, now, "---");
        assert_eq!(check(&mut judge, now + 30, "++").0, "DU", "what was long ago is forgotten");
    }

    #[test]
    fn four_turns_over_a_long_time_are_no_flapping() {
        let mut judge = Judge::resuming(Verdict::Up);
        for hour in 0..10 {
            let (verdicts, _) = check(&mut judge, hour * 3600, "---++");
            assert_eq!(verdicts, "UUDDU");
        }
    }

    proptest! {
        /// Whatever comes: it turns only as often as was seen in a row, and is always asked again within the interval.
        #[test]
        fn no_verdict_without_its_probes(probes in proptest::collection::vec(0..3u8, 1..200), rise in 1..4u32, fall in 1..4u32) {
            let pace = Pace { rise, fall, ..PACE };
            let (mut judge, mut now, mut row) = (Judge::default(), at(0), (Seen::Draining, 0));
            for probe in probes {
                let seen = [Seen::Pass, Seen::Fail, Seen::Draining][usize::from(probe)];
                row = (seen, if row.0 == seen { row.1 + 1 } else { 1 });
                let (was, is) = (judge.verdict(), judge.observe(seen, pace, now));
                match (was, is) {
                    _ if was == is => {}
                    (Verdict::Unknown, Verdict::Up) => prop_assert_eq!(row, (Seen::Pass, 1)),
                    (_, Verdict::Up) => prop_assert!(row.0 == Seen::Pass && row.1 >= rise),
                    (_, Verdict::Down) => prop_assert_eq!(row, (Seen::Fail, fall)),
                    (_, Verdict::Unknown) => prop_assert!(false, "what was proven is not forgotten"),
                }
                let pause = judge.pause(pace, now);
                prop_assert!(!pause.is_zero() && pause <= pace.interval);
                now = now + pause;
            }
        }
    }
}
