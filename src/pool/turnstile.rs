//! How many requests of a service run at once, and how many wait for their turn: the wall between one service's trouble
//! and every other's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use tokio::sync::Notify;

use super::{Instance, Service};

/// Part of a service's stats, so that limits hold over snapshots.
#[derive(Debug, Default)]
pub struct Turnstile {
    running: AtomicU32,
    waiting: AtomicU32,
    pub overflowed: AtomicU64,
    /// A place is free.
    pub freed: Notify,
    /// An instance has room for another request.
    pub room: Notify,
}

/// A request's place among those that run; dropping it lets the next one in.
#[derive(Debug)]
pub struct Place {
    service: Arc<Service>,
}

/// A request's place among those that wait.
#[derive(Debug)]
pub struct Waiting {
    service: Arc<Service>,
}

impl Turnstile {
    pub fn running(&self) -> u32 {
        self.running.load(Relaxed)
    }

    pub fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }
}

impl Service {
    /// A place for one more request, unless as many run as may, or others wait for one already.
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        if self.stats.turnstile.waiting() > 0 { None } else { self.enter_in_turn() }
    }

    /// The same for who has waited.
    pub fn enter_in_turn(self: &Arc<Self>) -> Option<Place> {
        take(&self.stats.turnstile.running, self.policy.limits.in_flight).then(|| Place { service: self.clone() })
    }

    /// A place in the queue; `None` when it is full.
    pub fn queue(self: &Arc<Self>) -> Option<Waiting> {
        take(&self.stats.turnstile.waiting, self.policy.limits.queue).then(|| Waiting { service: self.clone() })
    }

    /// An attempt has left its instance.
    pub(super) fn made_room(&self, instance: &Instance) {
        if instance.spec.max_requests > 0 && self.stats.turnstile.waiting() > 0 {
            self.stats.turnstile.room.notify_one();
        }
    }
}

fn take(count: &AtomicU32, most: u32) -> bool {
    count.fetch_update(Relaxed, Relaxed, |n| (n < most).then_some(n + 1)).is_ok()
}

impl Drop for Place {
    fn drop(&mut self) {
        let turnstile = &self.service.stats.turnstile;
        turnstile.running.fetch_sub(1, Relaxed);
        if turnstile.waiting() > 0 {
            turnstile.freed.notify_one();
            turnstile.room.notify_one();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.service.stats.turnstile.waiting.fetch_sub(1, Relaxed);
    }
}
