//! Leases: who holds which keys until when. Has no clock: `now` is always handed in.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::fault::Fault;

#[derive(Default)]
pub struct Leases {
    by_id: HashMap<i64, Lease>,
    by_deadline: BTreeSet<(Instant, i64)>,
}

struct Lease {
    ttl: Duration,
    deadline: Instant,
    keys: BTreeSet<Bytes>,
}

/// What `LeaseTimeToLive` tells.
#[derive(Debug, PartialEq, Eq)]
pub struct Remaining {
    pub granted: Duration,
    pub left: Duration,
    pub keys: Vec<Bytes>,
}

impl Leases {
    /// Grants a lease with this id, or one that is free for id 0. The lease lives for at least [`TTL_MIN`].
    pub fn grant(&mut self, now: Instant, id: i64, ttl_s: i64) -> Result<(i64, Duration), Fault> {
        if ttl_s > TTL_MAX_S {
            return Err(Fault::LeaseTtlTooLarge);
        }
        if self.by_id.contains_key(&id) {
            return Err(Fault::LeaseExists);
        }
        if self.by_id.len() >= LEASES_MAX {
            return Err(Fault::TooManyRequests);
        }
        let id = if id == 0 { self.free_id() } else { id };
        let ttl = Duration::from_secs(ttl_s.max(0).unsigned_abs()).max(TTL_MIN);
        self.insert(now, id, ttl);
        Ok((id, ttl))
    }

    /// Takes back a lease granted by an earlier process: it starts anew, as its owner could not renew it meanwhile.
    pub fn restore(&mut self, now: Instant, id: i64, ttl: Duration) {
        self.insert(now, id, ttl);
    }

    /// Ends a lease and says which keys it held, in order.
    pub fn remove(&mut self, id: i64) -> Result<Vec<Bytes>, Fault> {
        let lease = self.by_id.remove(&id).ok_or(Fault::LeaseNotFound)?;
        self.by_deadline.remove(&(lease.deadline, id));
        Ok(lease.keys.into_iter().collect())
    }

    pub fn renew(&mut self, now: Instant, id: i64) -> Result<Duration, Fault> {
        let lease = self.by_id.get_mut(&id).ok_or(Fault::LeaseNotFound)?;
        self.by_deadline.remove(&(lease.deadline, id));
        lease.deadline = now + lease.ttl;
        self.by_deadline.insert((lease.deadline, id));
        Ok(lease.ttl)
    }

    pub fn remaining(&self, now: Instant, id: i64) -> Result<Remaining, Fault> {
        let lease = self.by_id.get(&id).ok_or(Fault::LeaseNotFound)?;
        Ok(Remaining {
            granted: lease.ttl,
            left: lease.deadline.saturating_duration_since(now),
            keys: lease.keys.iter().cloned().collect(),
        })
    }

    /// All leases, the one that ends first first.
    pub fn ids(&self) -> impl Iterator<Item = i64> {
        self.by_deadline.iter().map(|&(_, id)| id)
    }

    pub fn expired(&self, now: Instant) -> Vec<i64> {
        self.by_deadline.iter().take_while(|&&(deadline, _)| deadline <= now).map(|&(_, id)| id).collect()
    }

    /// Gives every lease `late` more: for that long nobody could have renewed one, as nobody was listening.
    pub fn extend_all(&mut self, late: Duration) {
        self.by_deadline.clear();
        for (&id, lease) in &mut self.by_id {
            lease.deadline += late;
            self.by_deadline.insert((lease.deadline, id));
        }
    }

    pub fn check(&self, id: i64) -> Result<(), Fault> {
        if id == 0 || self.by_id.contains_key(&id) { Ok(()) } else { Err(Fault::LeaseNotFound) }
    }

    /// Moves a key from the lease it had (0: none) to the one it has now.
    pub fn attach(&mut self, key: &Bytes, before: i64, now: i64) {
        if let Some(lease) = self.by_id.get_mut(&before) {
            lease.keys.remove(key);
        }
        if let Some(lease) = self.by_id.get_mut(&now) {
            lease.keys.insert(key.clone());
        }
    }

    fn insert(&mut self, now: Instant, id: i64, ttl: Duration) {
        let deadline = now + ttl;
        self.by_id.insert(id, Lease { ttl, deadline, keys: BTreeSet::new() });
        self.by_deadline.insert((deadline, id));
    }

    fn free_id(&self) -> i64 {
        loop {
            let id = fastrand::i64(1..=i64::MAX);
            if !self.by_id.contains_key(&id) {
                return id;
            }
        }
    }
}

/// etcd's minimum with its default election timeout.
const TTL_MIN: Duration = Duration::from_secs(2);
/// etcd's maximum.
const TTL_MAX_S: i64 = 9_000_000_000;
/// Ten for each of the 100,000 instances we are built for; a client that grants in a loop stops here.
const LEASES_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_ends_when_nobody_renews_it() {
        let (mut leases, start) = (Leases::default(), Instant::now());
        assert_eq!(leases.grant(start, 7, 10), Ok((7, s(10))));
        assert_eq!(leases.grant(start, 8, 20), Ok((8, s(20))));
        assert!(leases.expired(start + s(9)).is_empty());
        assert_eq!(leases.renew(start + s(9), 7), Ok(s(10)));
        assert!(leases.expired(start + s(18)).is_empty());
        assert_eq!(leases.expired(start + s(20)), [7, 8]);
        assert_eq!(leases.remove(7), Ok(vec![]));
        assert_eq!(leases.renew(start, 7), Err(Fault::LeaseNotFound));
        assert_eq!(leases.ids().collect::<Vec<_>>(), [8]);
    }

    #[test]
    fn a_key_belongs_to_the_lease_of_its_last_put() {
        let (mut leases, start) = (Leases::default(), Instant::now());
        let (a, b) = (Bytes::from("a"), Bytes::from("b"));
        leases.grant(start, 1, 10).unwrap();
        leases.grant(start, 2, 10).unwrap();
        leases.attach(&b, 0, 1);
        leases.attach(&a, 0, 1);
        assert_eq!(leases.remaining(start, 1).unwrap().keys, [a.clone(), b.clone()]);
        leases.attach(&a, 1, 2);
        leases.attach(&b, 1, 0);
        assert_eq!(leases.remove(1), Ok(vec![]));
        assert_eq!(leases.remove(2), Ok(vec![a]));
    }

    #[test]
    fn what_etcd_refuses_is_refused() {
        let (mut leases, start) = (Leases::default(), Instant::now());
        assert_eq!(leases.grant(start, 1, TTL_MAX_S + 1), Err(Fault::LeaseTtlTooLarge));
        assert_eq!(leases.grant(start, 1, -5), Ok((1, TTL_MIN)));
        assert_eq!(leases.grant(start, 1, 10), Err(Fault::LeaseExists));
        assert_eq!(leases.check(2), Err(Fault::LeaseNotFound));
        let (id, _) = leases.grant(start, 0, 10).unwrap();
        assert!(id > 0 && leases.check(id).is_ok());
    }

    #[test]
    fn time_in_which_nobody_could_renew_does_not_count() {
        let (mut leases, start) = (Leases::default(), Instant::now());
        leases.grant(start, 1, 10).unwrap();
        leases.extend_all(s(15));
        assert!(leases.expired(start + s(24)).is_empty());
        assert_eq!(leases.remaining(start + s(20), 1).unwrap().left, s(5));
        assert_eq!(leases.expired(start + s(25)), [1]);
    }
}
