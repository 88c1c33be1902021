//! FLOOR 4. The certificate files of the listeners → events, again whenever a file changes. Never sees a handshake.
//!
//! 1. `Files::first` reads what the configuration names; the event it makes is applied before anybody can connect.
//! 2. Every `LOOK_EVERY` each file's stamp is compared with the one it was read at. A chain and its key are written one
//!    after the other, so a change counts once nothing has changed for one more look.
//! 3. A pair that is good becomes a `Change`. One that is not is told by the name of its file, and what was there before
//!    serves on.
//! 4. SIGHUP brings the listeners of the configuration anew and is not waited with.
//!
//! Certificates of the registry come with its other records; `registry/certificate` checks them in the same words.

mod shelf;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::config::Listener;
use crate::model::{Change, Event, Origin};
use shelf::Shelf;

/// The files of all listeners, with what was last found in them.
pub struct Files {
    shelves: Vec<Shelf>,
    rejected: Arc<RejectedFiles>,
}

/// What could not be taken over, for whoever is asked about it.
#[derive(Debug, Default)]
pub struct RejectedFiles(Mutex<Vec<RejectedFile>>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedFile {
    /// As the configuration names it: that of the chain, or that of the authorities.
    pub file: String,
    pub reason: String,
}

impl Files {
    pub fn first(listeners: &[Listener], now: SystemTime) -> (Self, Event) {
        let shelves = listeners.iter().enumerate().filter_map(|(n, listener)| Shelf::new(n, listener)).collect();
        let mut files = Self { shelves, rejected: Arc::default() };
        let event = event(files.look(true, now));
        (files, event)
    }

    pub fn rejected(&self) -> Arc<RejectedFiles> {
        self.rejected.clone()
    }

    /// What the configuration says now. Which listeners terminate TLS, and how, needs a restart.
    fn take_over(&mut self, listeners: &[Listener]) {
        self.shelves.iter_mut().for_each(|shelf| shelf.take_over(listeners));
    }

    /// `at_once`: whatever is different is read, however fresh.
    fn look(&mut self, at_once: bool, now: SystemTime) -> Vec<Change> {
        let changes = self.shelves.iter_mut().filter_map(|shelf| shelf.look(at_once, now)).collect();
        self.rejected.set(self.shelves.iter().flat_map(Shelf::rejected).collect());
        changes
    }
}

impl RejectedFiles {
    pub fn list(&self) -> Vec<RejectedFile> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, rejected: Vec<RejectedFile>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = rejected;
    }
}

/// Watches until `shutdown`. `listeners` changes with each configuration that was taken over.
pub async fn run(
    mut files: Files,
    mut listeners: watch::Receiver<Vec<Listener>>,
    events: mpsc::Sender<Event>,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let told = tokio::select! {
            _ = ticks.tick() => None,
            changed = listeners.changed() => match changed {
                Ok(()) => Some(listeners.borrow_and_update().clone()),
                Err(_) => return,
            },
            _ = shutdown.wait_for(|stop| *stop) => return,
        };
        // A disk may take its time, and an RSA key takes a millisecond.
        let looked = tokio::task::spawn_blocking(move || {
            if let Some(told) = &told {
                files.take_over(told);
            }
            let changes = files.look(told.is_some(), SystemTime::now());
            (files, changes)
        });
        // It only fails when the process ends.
        let Ok((back, changes)) = looked.await else { return };
        files = back;
        if !changes.is_empty() && events.send(event(changes)).await.is_err() {
            return;
        }
    }
}

fn event(changes: Vec<Change>) -> Event {
    Event { origin: Origin::File, revision: 0, changes }
}

/// Two calls of stat(2) a pair; a change is served after twice this time.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
