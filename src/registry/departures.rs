//! Why keys went. A DELETE does not say whether somebody deleted the key or its lease ended, and only etcd knows whether
//! that lease still lives; but some deletions need no question.
//!
//! What one lease held goes in one revision, and nothing else does. So a revision that puts something, or deletes keys of
//! two leases, or one without any, was somebody's hand.

use std::fmt;

/// A lease as etcd numbers it; shown as its tools show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseId(pub i64);

impl LeaseId {
    /// As etcd writes it beside a key: 0 is none.
    pub fn of_key(id: i64) -> Option<Self> {
        (id != 0).then_some(Self(id))
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A change that is a deletion, unless this lease has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    pub lease: LeaseId,
    /// Its place among the changes.
    pub change: usize,
}

/// Sees the edits of one watch response go by, in order.
#[derive(Debug, Default)]
pub struct Departures {
    doubts: Vec<Doubt>,
    /// Of the revision under way.
    revision: u64,
    /// How many doubts there were before it.
    before: usize,
    lease: Option<LeaseId>,
    by_hand: bool,
}

impl Departures {
    pub fn put(&mut self, revision: u64) {
        self.reach(revision);
        self.by_hand = true;
    }

    /// `lease` is what the key stood under; `change` is the place of what its loss changes, if it changes anything.
    pub fn deleted(&mut self, revision: u64, lease: Option<LeaseId>, change: Option<usize>) {
        self.reach(revision);
        let Some(lease) = lease else {
            self.by_hand = true;
            return;
        };
        self.by_hand |= self.lease.is_some_and(|other| other != lease);
        self.lease = Some(lease);
        self.doubts.extend(change.map(|change| Doubt { lease, change }));
    }

    /// What etcd must be asked about.
    pub fn doubts(mut self) -> Vec<Doubt> {
        self.reach(u64::MAX);
        self.doubts
    }

    fn reach(&mut self, revision: u64) {
        if revision == self.revision {
            return;
        }
        if self.by_hand {
            self.doubts.truncate(self.before);
        }
        (self.revision, self.before, self.lease, self.by_hand) = (revision, self.doubts.len(), None, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words: `+` a put, `-` a deletion without a lease, a digit a deletion under that lease; a space begins a revision.
    /// Answers with the leases in doubt.
    fn check(edits: &str, expected: &[i64]) {
        let mut departures = Departures::default();
        for (revision, edits) in (2..).zip(edits.split(' ')) {
            for (change, edit) in edits.chars().enumerate() {
                match edit {
                    '+' => departures.put(revision),
                    '-' => departures.deleted(revision, None, Some(change)),
                    lease => departures.deleted(revision, LeaseId::of_key(i64::from(lease as u8 - b'0')), Some(change)),
                }
            }
        }
        let leases: Vec<_> = departures.doubts().iter().map(|doubt| doubt.lease.0).collect();
        assert_eq!(leases, expected, "{edits}");
    }

    #[test]
    fn only_what_a_lease_may_have_taken_with_it_is_in_doubt() {
        check("1", &[1]);
        check("111 2", &[1, 1, 1, 2]);
        check("-", &[]);
        check("12", &[]);
        check("1+ 2", &[2]);
        check("1 2- 3", &[1, 3]);
        check("+1 + 1", &[1]);
    }

    #[test]
    fn a_key_that_meant_nothing_to_us_says_whose_hand_it_was_all_the_same() {
        let mut departures = Departures::default();
        departures.deleted(5, LeaseId::of_key(1), Some(0));
        departures.deleted(5, LeaseId::of_key(2), None);
        assert_eq!(departures.doubts(), []);
    }
}
