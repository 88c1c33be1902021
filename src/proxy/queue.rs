//! A request waits for its turn: bounded in number and in time, and answered at once when there is no place to wait.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::Notify;
use tokio::time::timeout_at;

use super::reply::Refusal;
use crate::pool::{Place, Service};

/// Waits until the service has a place for the request.
pub async fn enter(service: &Arc<Service>) -> Result<Place, Refusal> {
    if let Some(place) = service.enter() {
        return Ok(place);
    }
    wait(service, &service.stats.turnstile.freed, || service.enter_in_turn()).await
}

/// Waits until an instance may have room, or the request's time in the queue is over.
pub async fn wait<T>(service: &Arc<Service>, bell: &Notify, mut turn: impl FnMut() -> Option<T>) -> Result<T, Refusal> {
    let overflow = || {
        service.stats.turnstile.overflowed.fetch_add(1, Ordering::Relaxed);
        Refusal::Overflow
    };
    let _waiting = service.queue().ok_or_else(overflow)?;
    let until = Instant::now() + service.policy.limits.queue_wait;
    loop {
        // Listens before it looks, so that nothing is missed in between.
        let rung = bell.notified();
        if let Some(turn) = turn() {
            return Ok(turn);
        }
        timeout_at(until.into(), rung).await.map_err(|_| overflow())?;
    }
}
