//! What to do about our key, decided from what we want there and what is there. No clock, no socket.
//!
//! Invariants: nothing of a stranger is overwritten before the claim is made, unless forced; once it is made, the key is ours to
//! repair, whoever wrote or deleted it; a record that says exactly what we want to say is left alone while its lease lives.

use crate::registry::{Held, LeaseId, Sight};

pub struct Claim {
    /// None before the first connection.
    lease: Option<LeaseId>,
    wanted: Option<Vec<u8>>,
    found: Sight,
    /// We wrote it once, so whatever differs now was done to us.
    made: bool,
    force: bool,
    is_ours: IsOurs,
}

/// Whether a record under another lease is an earlier life of ours: the same instance at the same address.
pub type IsOurs = Box<dyn Fn(&[u8]) -> bool + Send>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Rest,
    /// Write what is wanted, if the key was last written at `over`; 0: if it is absent.
    Write {
        value: Vec<u8>,
        over: i64,
        reason: Reason,
    },
    /// Somebody else uses our id.
    Refuse(Clash),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The first time.
    Claim,
    /// We want to say something else now.
    News,
    /// Somebody deleted it, or its lease ended.
    Vanished,
    /// Somebody wrote over it.
    Overwritten,
}

impl Reason {
    /// It answers what somebody did to our key, who may do it again.
    pub fn is_repair(self) -> bool {
        matches!(self, Self::Vanished | Self::Overwritten)
    }
}

/// The id is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    pub lease: Option<LeaseId>,
    pub value: Vec<u8>,
}

impl Claim {
    pub fn new(force: bool, is_ours: IsOurs) -> Self {
        Self { lease: None, wanted: None, found: Sight { revision: 0, held: None }, made: false, force, is_ours }
    }

    pub fn want(&mut self, value: Option<Vec<u8>>) {
        self.wanted = value;
    }

    /// A connection stands: under this lease we write, and this is what stands under the key.
    pub fn opened(&mut self, lease: LeaseId, found: Sight) {
        self.lease = Some(lease);
        self.found = found;
    }

    /// The key has changed, or was looked at. News that is older than what we know is not news.
    pub fn saw(&mut self, found: Sight) {
        if found.revision >= self.found.revision {
            self.found = found;
        }
    }

    pub fn wrote(&mut self, value: Vec<u8>, revision: i64) {
        self.found = Sight { revision, held: Some(Held { value, lease: self.lease, revision }) };
        self.made = true;
    }

    pub fn step(&self) -> Step {
        let Some(wanted) = &self.wanted else { return Step::Rest };
        let write = |over, reason| Step::Write { value: wanted.clone(), over, reason };
        let Some(held) = &self.found.held else {
            return write(0, if self.made { Reason::Vanished } else { Reason::Claim });
        };
        let over = held.revision;
        let same = held.value == *wanted;
        let by_us = held.lease.is_some() && held.lease == self.lease;
        match (by_us, self.made) {
            (true, true) if same => Step::Rest,
            (true, _) => write(over, Reason::News),
            // Two processes that register the same thing must not take the key from each other for ever.
            (false, true) if same && held.lease.is_some() => Step::Rest,
            (false, true) => write(over, Reason::Overwritten),
            (false, false) if self.force || (self.is_ours)(&held.value) => write(over, Reason::Claim),
            (false, false) => Step::Refuse(Clash { lease: held.lease, value: held.value.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: LeaseId = LeaseId(7);
    const THEIRS: LeaseId = LeaseId(9);

    fn claim(force: bool) -> Claim {
        let mut claim = Claim::new(force, Box::new(|value| value.starts_with(b"us")));
        claim.opened(OURS, absent(1));
        claim.want(Some(b"us ready".to_vec()));
        claim
    }

    fn made() -> Claim {
        let mut claim = claim(false);
        claim.wrote(b"us ready".to_vec(), 10);
        claim
    }

    fn write(over: i64, reason: Reason) -> Step {
        Step::Write { value: b"us ready".to_vec(), over, reason }
    }

    fn held(value: &str, lease: Option<LeaseId>, revision: i64) -> Sight {
        Sight { revision, held: Some(Held { value: value.into(), lease, revision }) }
    }

    fn absent(revision: i64) -> Sight {
        Sight { revision, held: None }
    }

    #[test]
    fn nothing_is_written_before_something_is_wanted() {
        let mut claim = claim(false);
        claim.want(None);
        assert_eq!(claim.step(), Step::Rest);
        claim.want(Some(b"us ready".to_vec()));
        assert_eq!(claim.step(), write(0, Reason::Claim));
    }

    #[test]
    fn what_we_wrote_is_left_alone_until_we_want_something_else() {
        let mut claim = made();
        assert_eq!(claim.step(), Step::Rest);
        claim.want(Some(b"us draining".to_vec()));
        assert_eq!(claim.step(), Step::Write { value: b"us draining".to_vec(), over: 10, reason: Reason::News });
    }

    #[test]
    fn a_key_that_vanished_or_was_overwritten_is_written_again() {
        let mut claim = made();
        claim.saw(absent(11));
        assert_eq!(claim.step(), write(0, Reason::Vanished));
        let mut claim = made();
        claim.saw(held("somebody", None, 11));
        assert_eq!(claim.step(), write(11, Reason::Overwritten));
    }

    #[test]
    fn a_lost_lease_means_a_new_write_under_the_new_one() {
        let mut claim = made();
        claim.opened(LeaseId(8), absent(1));
        assert_eq!(claim.step(), write(0, Reason::Vanished));
        // A registry that was wiped counts from 1 again.
        claim.wrote(b"us ready".to_vec(), 2);
        assert_eq!(claim.step(), Step::Rest);
    }

    #[test]
    fn a_stranger_under_our_id_is_refused_unless_forced() {
        let mut stranger = claim(false);
        stranger.opened(OURS, held("them", Some(THEIRS), 5));
        assert_eq!(stranger.step(), Step::Refuse(Clash { lease: Some(THEIRS), value: b"them".to_vec() }));
        let mut forced = claim(true);
        forced.opened(OURS, held("them", Some(THEIRS), 5));
        assert_eq!(forced.step(), write(5, Reason::Claim));
    }

    #[test]
    fn an_earlier_life_of_ours_is_taken_over_even_when_it_says_the_same() {
        let mut claim = claim(false);
        claim.opened(OURS, held("us ready", Some(THEIRS), 5));
        assert_eq!(claim.step(), write(5, Reason::Claim));
    }

    #[test]
    fn twins_do_not_take_the_key_from_each_other_for_ever() {
        let mut claim = made();
        claim.saw(held("us ready", Some(THEIRS), 11));
        assert_eq!(claim.step(), Step::Rest);
        // A copy that no lease holds would outlive us.
        claim.saw(held("us ready", None, 12));
        assert_eq!(claim.step(), write(12, Reason::Overwritten));
        claim.saw(absent(13));
        assert_eq!(claim.step(), write(0, Reason::Vanished));
    }

    #[test]
    fn an_old_echo_of_the_watch_changes_nothing() {
        let mut claim = made();
        claim.saw(held("somebody", None, 8));
        claim.saw(absent(9));
        assert_eq!(claim.step(), Step::Rest);
    }
}
