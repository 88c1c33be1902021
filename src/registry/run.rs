//! The watch's whole life: one endpoint after the other, for ever.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, warn};

use super::etcd::Etcd;
use super::fault::Fault;
use super::keeper::Keeper;
use super::layout::Layout;
use super::reflector::Reflector;
use super::rotation::Rotation;
use super::session::Follower;
use super::status::RegistryStatus;
use crate::config::{AddressGuard, EtcdConfig};
use crate::model::Event;

/// Follows the registry until `shutdown` says true (or is dropped), or nobody receives the events any more.
/// The first event carries the whole list. `guard` has a word in which instances are taken. `snapshot` is where the last applied state is kept; that of a source, beside it.
pub async fn run(
    config: &EtcdConfig,
    (layout, guard): (Layout, Arc<AddressGuard>),
    snapshot: Option<&Path>,
    events: mpsc::Sender<Event>,
    status: Arc<RegistryStatus>,
    mut shutdown: watch::Receiver<bool>,
) {
    let keeper = Keeper::new(snapshot.map(|own| layout.snapshot(own)));
    let follower = Follower::new(Reflector::new(layout, guard), keeper, events.clone(), status.clone());
    let rotation = Rotation::new(&config.endpoints, fastrand::Rng::new());
    let memory_due = snapshot.map(|_| Instant::now() + STARTUP_WAIT);
    let mut registry = Registry { config, follower, rotation, status, memory_due, troubles: BTreeSet::new() };
    tokio::select! {
        _ = shutdown.wait_for(|is_over| *is_over) => {}
        () = events.closed() => {}
        () = registry.follow_for_ever() => {}
    }
    registry.follower.keeper.finish(&registry.follower.reflector).await;
}

struct Registry<'a> {
    config: &'a EtcdConfig,
    follower: Follower,
    rotation: Rotation,
    status: Arc<RegistryStatus>,
    /// When the disk is asked, unless etcd has answered; `None` once that is settled.
    memory_due: Option<Instant>,
    /// What was logged since the last connection, so that an outage is not logged with every attempt.
    troubles: BTreeSet<String>,
}

impl Registry<'_> {
    async fn follow_for_ever(&mut self) {
        loop {
            let mut began = Instant::now();
            let fault = match self.connect().await {
                Ok(etcd) => {
                    began = Instant::now();
                    match self.follower.follow(&etcd).await {
                        Err(fault) => fault,
                    }
                }
                Err(fault) => fault,
            };
            self.lost(&fault);
            // Nothing will change now; the disk may as well know all.
            self.follower.keeper.save(&self.follower.reflector);
            sleep(self.rotation.failed(began.elapsed())).await;
        }
    }

    /// While it takes long and nothing was ever known, what the disk remembers is handed out.
    async fn connect(&mut self) -> Result<Etcd, Fault> {
        let endpoint = self.rotation.current().to_owned();
        let layout = self.follower.reflector.layout().clone();
        let mut attempt = Box::pin(Etcd::connect(self.config, &endpoint, &layout));
        let Some(due) = self.memory_due else {
            return attempt.await;
        };
        if let Ok(answer) = timeout_at(due, &mut attempt).await {
            return answer;
        }
        self.memory_due = None;
        if !self.status.is_synced()
            && let Some(snapshot) = self.follower.keeper.load(&layout.to_string()).await
        {
            self.follower.start_from(snapshot).await;
        }
        attempt.await
    }

    fn lost(&mut self, fault: &Fault) {
        let (endpoint, reason, n_keys) = (self.rotation.current(), fault.to_string(), self.follower.reflector.len());
        let keys = self.follower.reflector.layout();
        if self.status.disconnected(reason.clone()) {
            self.troubles.clear();
        }
        if self.troubles.len() < TROUBLES_MAX && self.troubles.insert(reason.clone()) {
            warn!(%keys, endpoint, reason, n_keys, "Registry not reached; what is in force stays in force");
        } else {
            debug!(%keys, endpoint, reason, n_keys, "Registry still not reached");
        }
    }
}

/// How long a start waits for etcd before it asks the disk.
const STARTUP_WAIT: Duration = Duration::from_secs(2);
/// A few endpoints with a few faults each.
const TROUBLES_MAX: usize = 32;
