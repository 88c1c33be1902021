//! FLOOR 4. Active probes of every instance: who is asked, when, for what, and what the answers add up to.
//!
//! 1. The catalog says which services changed; `subjects` compares each with how it was followed before. An (address,
//!    check) is one subject however many instances of however many services want to hear of it.
//! 2. `schedule` says which subject is next: the first probe at once, then every interval at a random phase, at most 64 at a
//!    time. One heap and one timer for all of them, on a thread of its own, so that neither discovery nor a scrape waits
//!    for probes, nor probes for them.
//! 3. `probe` asks over a fresh connection (`http`, `grpc`, `tls`) and answers with a `Reading`.
//! 4. `judge` says what it adds up to, and that is settled with every instance that follows the subject.
//!
//! Invariants: health is state, so nothing here makes a snapshot; a subject has one probe at a time, and who is gone has none; a
//! probe takes no longer than its timeout, so nobody waits longer than that for one that hangs; what was proven before
//! (`InstanceState`) is where a new subject goes on. Deliberately absent: picking, ejection, and any say about what is declared.

mod check;
mod grpc;
mod http;
mod judge;
mod probe;
mod run;
mod schedule;
mod subjects;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};

use crate::catalog::Live;
use crate::model::ServiceName;
use crate::pool::Histogram;
use crate::trust::Trusts;
use subjects::Subjects;

/// Where the prober is told of changes, and asked how far it is. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Prober {
    changes: Arc<Changes>,
    lateness: Arc<Histogram>,
    first_round: watch::Receiver<bool>,
}

/// Services that changed and have not been looked at. At most all there are, so it needs no other bound.
#[derive(Debug, Default)]
struct Changes {
    services: Mutex<BTreeSet<ServiceName>>,
    rung: Notify,
}

impl Prober {
    /// Probes what `live` holds, from the first `changed` until `shutdown`, on a thread of its own.
    pub fn start(live: Arc<Live>, trusts: Arc<Trusts>, shutdown: watch::Receiver<bool>) -> io::Result<Self> {
        let (first_round_over, first_round) = watch::channel(false);
        let prober = Self { changes: Arc::default(), lateness: Arc::default(), first_round };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (changes, lateness) = (prober.changes.clone(), prober.lateness.clone());
        let run = run::Run::new(live, Subjects::new(trusts), changes, lateness, first_round_over);
        std::thread::Builder::new().name("prober".to_owned()).spawn(move || runtime.block_on(run.until(shutdown)))?;
        Ok(prober)
    }

    /// These services are other ones than before, or gone. Never waits.
    pub fn changed(&self, services: &BTreeSet<ServiceName>) {
        self.changes.lock().extend(services.iter().cloned());
        self.changes.rung.notify_one();
    }

    /// Returns when the registry is known and every instance that was there then has been probed once.
    pub async fn first_round(&self) {
        // An error means that the prober has ended, and so has the process.
        let _ = self.first_round.clone().wait_for(|over| *over).await;
    }

    /// How long after they were due probes began.
    pub fn lateness(&self) -> Arc<Histogram> {
        self.lateness.clone()
    }
}

impl Changes {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<ServiceName>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> BTreeSet<ServiceName> {
        std::mem::take(&mut self.lock())
    }
}
