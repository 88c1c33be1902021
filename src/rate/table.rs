//! What is left to each client, in a table of a fixed size without locks.
//!
//! A client's key says which row it is in, and in the row it may have any place. A new client takes the place whose bucket is
//! full the soonest: an empty one, else that of who has been quiet for longest, else of who has used the least of what it
//! may. Only the last loses anything by that, namely its debt: it begins anew with a full bucket.
//!
//! A place is two words, the client's key and when its bucket is full. Whoever takes a place over first closes it
//! ([`CLOSED`] in the second word), so that nobody is charged, or judged, by what another client has used:
//! - who charges a client does so by comparing and exchanging the second word, which fails if the place went to another;
//! - who refuses one looks at the second word once more, after the first; nothing is written for that.
//!
//! Two threads that see the same new client at the same moment may each give it a place. Later requests find the first of
//! the two, and what the other one has noted is lost: one request for each such thread.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use super::Rule;

#[derive(Debug)]
pub struct Table {
    rows: Box<[Row]>,
    displaced: AtomicU64,
}

/// Two cache lines: one is read by everybody who looks for a client, the other by who has found it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Row {
    keys: [AtomicU64; WAYS],
    /// Nanoseconds of the asker's time; 0 of a place that was never taken.
    full: [AtomicU64; WAYS],
}

/// The moment that was looked at is over: somebody else was faster.
struct Raced;

impl Table {
    /// For so many clients, rounded up to whole rows; at 16 bytes each.
    pub fn new(clients: usize) -> Self {
        let rows = (0..clients.div_ceil(WAYS).max(1)).map(|_| Row::default()).collect();
        Self { rows, displaced: AtomicU64::new(0) }
    }

    /// Takes one request out of the client's bucket; `Err` is how long to wait for one. `now`: since a moment that is the same
    /// for all who ask; it need not go forward.
    pub fn take(&self, key: u64, rule: Rule, now: Duration) -> Result<(), Duration> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(NOW_MAX).min(NOW_MAX);
        // Any number of rows, each as likely.
        let row = &self.rows[((u128::from(key) * self.rows.len() as u128) >> 64) as usize];
        for _ in 0..TRIES_MAX {
            let asked = match row.find(key) {
                Some((place, full)) => row.charge(place, full, rule, now),
                None => self.admit(row, key, rule, now).map(Ok),
            };
            if let Ok(answer) = asked {
                return answer;
            }
        }
        // Others got through each time, so the rate is kept all but for this one.
        Ok(())
    }

    /// Clients that were forgotten while their buckets were not full: the table is too small, or flooded.
    pub fn displaced(&self) -> u64 {
        self.displaced.load(Relaxed)
    }

    /// Gives a client that is not known a place. Its first request is within any rate.
    fn admit(&self, row: &Row, key: u64, rule: Rule, now: u64) -> Result<(), Raced> {
        let places = row.full.iter().map(|full| full.load(Relaxed)).enumerate().filter(|(_, full)| *full != CLOSED);
        let (place, full) = places.min_by_key(|(_, full)| *full).ok_or(Raced)?;
        row.full[place].compare_exchange(full, CLOSED, Acquire, Relaxed).map_err(|_| Raced)?;
        // Whoever sees the key sees that the place was closed.
        row.keys[place].store(key, Release);
        row.full[place].store(rule.take(0, now).unwrap_or(now), Release);
        if full > now {
            self.displaced.fetch_add(1, Relaxed);
        }
        Ok(())
    }
}

impl Row {
    /// The client's place, and when its bucket is full.
    fn find(&self, key: u64) -> Option<(usize, u64)> {
        let mut places = self.keys.iter().enumerate().filter(|(_, held)| held.load(Relaxed) == key);
        places.find_map(|(place, held)| match self.full[place].load(Acquire) {
            0 | CLOSED => None,
            full => (held.load(Acquire) == key).then_some((place, full)),
        })
    }

    fn charge(&self, place: usize, full: u64, rule: Rule, now: u64) -> Result<Result<(), Duration>, Raced> {
        match rule.take(full, now) {
            Ok(after) => match self.full[place].compare_exchange(full, after, Relaxed, Relaxed) {
                Ok(_) => Ok(Ok(())),
                Err(_) => Err(Raced),
            },
            Err(wait) if self.full[place].load(Relaxed) == full => Ok(Err(wait)),
            Err(_) => Err(Raced),
        }
    }
}

/// Places of a row. With eight, a table that is half full of busy clients displaces fewer than one in a hundred.
pub(super) const WAYS: usize = 8;
/// Somebody is about to put another client there.
const CLOSED: u64 = u64::MAX;
/// Three hundred years; with the deepest bucket on top it is still before `CLOSED`.
const NOW_MAX: u64 = u64::MAX / 2;
/// A bound, not a number that is met: each further try means that another thread has got through meanwhile.
const TRIES_MAX: usize = 64;
