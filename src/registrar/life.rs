//! What a registrar does from start to end, decided from what happens to it. No clock, no process, no socket.
//!
//! Serving → draining (say so, give requests time) → ending (deregistered; the child was asked to stop) → exit.
//! Invariants: the child is not asked to stop before the key is gone, and the key never outlives the child knowingly.

use super::gate::Turn;
use crate::model::Lifecycle;

#[derive(Debug)]
pub struct Life {
    phase: Phase,
    has_child: bool,
    /// Something stands in the registry, or will.
    announced: bool,
    /// With what to exit if not with the child's own code.
    failed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    Draining,
    Ending,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occurrence {
    Gate(Turn),
    /// Somebody wants us to end.
    Stop,
    DrainOver,
    /// The child had its time to stop.
    PatienceOver,
    ChildGone {
        code: u8,
    },
    /// The key is another's.
    Clash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Say(Lifecycle),
    /// `DrainOver` after the drain time.
    AwaitDrain,
    /// Gives the lease back, and waits for that.
    Deregister,
    /// `PatienceOver` after the time the child has.
    StopChild,
    KillChild,
    Exit {
        code: u8,
    },
}

impl Life {
    /// Without a gate there is nothing to wait for: it is announced at once.
    pub fn begin(has_child: bool, gated: bool) -> (Self, Vec<Act>) {
        let life = Self { phase: Phase::Serving, has_child, announced: !gated, failed: false };
        (life, if gated { Vec::new() } else { vec![Act::Say(Lifecycle::Ready)] })
    }

    pub fn on(&mut self, occurrence: Occurrence) -> Vec<Act> {
        match (occurrence, self.phase) {
            (Occurrence::ChildGone { code }, Phase::Ending) => self.exit(code),
            // Who leaves without having drained looks like one that the registry lost, and might be kept.
            (Occurrence::ChildGone { code }, Phase::Serving) if self.announced => {
                [vec![Act::Say(Lifecycle::Draining), Act::Deregister], self.exit(code)].concat()
            }
            (Occurrence::ChildGone { code }, _) => [vec![Act::Deregister], self.exit(code)].concat(),
            (Occurrence::Gate(Turn::Opened), Phase::Serving) => {
                self.announced = true;
                vec![Act::Say(Lifecycle::Ready)]
            }
            (Occurrence::Gate(Turn::Closed), Phase::Serving) => vec![Act::Say(Lifecycle::Draining)],
            (Occurrence::Gate(_), _) => Vec::new(),
            (Occurrence::Stop, Phase::Serving) if self.announced => {
                self.phase = Phase::Draining;
                vec![Act::Say(Lifecycle::Draining), Act::AwaitDrain]
            }
            (Occurrence::Stop | Occurrence::DrainOver, Phase::Serving | Phase::Draining) => self.end(),
            (Occurrence::Clash, Phase::Serving | Phase::Draining) => {
                self.failed = true;
                self.end()
            }
            (Occurrence::Stop | Occurrence::PatienceOver, Phase::Ending) => vec![Act::KillChild],
            (Occurrence::Clash | Occurrence::DrainOver, Phase::Ending) => Vec::new(),
            (Occurrence::PatienceOver, _) => Vec::new(),
        }
    }

    fn end(&mut self) -> Vec<Act> {
        self.phase = Phase::Ending;
        let last = if self.has_child { vec![Act::StopChild] } else { self.exit(0) };
        [vec![Act::Deregister], last].concat()
    }

    fn exit(&self, code: u8) -> Vec<Act> {
        vec![Act::Exit { code: if self.failed { FAILED } else { code } }]
    }
}

/// What happened before matters more than how the child took it.
const FAILED: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use Act::*;
    use Occurrence::*;

    /// All that is done when these things happen one after another.
    fn check(has_child: bool, gated: bool, occurrences: &[Occurrence], expected: &[Act]) {
        let (mut life, mut acts) = Life::begin(has_child, gated);
        acts.extend(occurrences.iter().flat_map(|o| life.on(*o)));
        assert_eq!(acts, expected, "{occurrences:?}");
    }

    const READY: Act = Say(Lifecycle::Ready);
    const DRAINING: Act = Say(Lifecycle::Draining);

    #[test]
    fn a_stop_drains_then_deregisters_then_stops_the_child() {
        let exit = Exit { code: 3 };
        check(
            true,
            false,
            &[Stop, DrainOver, ChildGone { code: 3 }],
            &[READY, DRAINING, AwaitDrain, Deregister, StopChild, exit],
        );
        check(false, false, &[Stop, DrainOver], &[READY, DRAINING, AwaitDrain, Deregister, Exit { code: 0 }]);
    }

    #[test]
    fn a_child_that_does_not_stop_is_killed() {
        let gone = ChildGone { code: 137 };
        let acts = [READY, DRAINING, AwaitDrain, Deregister, StopChild, KillChild, Exit { code: 137 }];
        check(true, false, &[Stop, DrainOver, PatienceOver, gone], &acts);
    }

    #[test]
    fn each_further_stop_skips_a_wait() {
        let gone = ChildGone { code: 137 };
        let acts = [READY, DRAINING, AwaitDrain, Deregister, StopChild, KillChild, Exit { code: 137 }];
        check(true, false, &[Stop, Stop, Stop, gone], &acts);
    }

    #[test]
    fn a_child_that_dies_is_deregistered_at_once() {
        check(true, false, &[ChildGone { code: 9 }], &[READY, DRAINING, Deregister, Exit { code: 9 }]);
        check(true, false, &[Stop, ChildGone { code: 0 }], &[READY, DRAINING, AwaitDrain, Deregister, Exit { code: 0 }]);
    }

    #[test]
    fn the_gate_speaks_for_the_instance_until_it_ends() {
        let (opened, closed) = (Gate(Turn::Opened), Gate(Turn::Closed));
        let acts = [READY, DRAINING, READY, DRAINING, AwaitDrain, Deregister, Exit { code: 0 }];
        check(false, true, &[opened, closed, opened, Stop, opened, DrainOver], &acts);
    }

    #[test]
    fn what_was_never_announced_needs_no_drain() {
        check(true, true, &[Stop, ChildGone { code: 0 }], &[Deregister, StopChild, Exit { code: 0 }]);
    }

    #[test]
    fn a_clash_ends_it_with_failure_whatever_the_child_says() {
        check(true, false, &[Clash, ChildGone { code: 0 }], &[READY, Deregister, StopChild, Exit { code: 1 }]);
        check(false, false, &[Clash], &[READY, Deregister, Exit { code: 1 }]);
    }
}
