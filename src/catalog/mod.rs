//! FLOOR 3. The one writer, and what everyone reads.
//!
//! 1. `run` takes the events that are waiting (how many at once is for `Pace` to say).
//! 2. `Catalog::apply` compares them with the ground state and makes successors of the services that are named.
//! 3. It stores one new `Snapshot` in `Live`, and says what changed: who must be probed, whose idle connections must close.
//!
//! Invariants: only this folder stores in `Live`; a service that no event names stays the same `Arc`; the revision never
//! goes back while the registry stays the same one; nothing is ever cleared to be filled again. No sockets, no clock: `now` is handed in.

mod ground;
mod history;
mod live;
mod names;
mod pace;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};

use ground::{Ground, Remembered};
pub use history::{Happening, History};
pub use live::Live;
use names::Names;
use pace::Pace;
pub use snapshot::Snapshot;

use crate::model::{Change, Event, InstanceId, Origin, ServiceName};
use crate::pool::{Instance, Pool, Service, ServiceStats, Teller};
use crate::routing::RouteBook;

/// What one `apply` did.
#[derive(Debug, Default)]
pub struct Applied {
    pub revision: u64,
    pub services: BTreeSet<ServiceName>,
    /// Generations that take no new requests any more: their idle connections must close.
    pub retired: Vec<u64>,
    /// Set when the names to look up are other ones than before.
    pub names: Option<BTreeSet<Arc<str>>>,
}

/// How long one swap took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// From comparing with the ground state to the new snapshot in force.
    pub apply: Duration,
    /// From receiving the first of its events, so with what `Pace` made it wait.
    pub since_first: Duration,
}

/// An address found for a DNS name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    pub name: Arc<str>,
    pub addresses: Vec<IpAddr>,
}

pub struct Catalog {
    live: Arc<Live>,
    history: Arc<History>,
    /// Given to every service: what becomes of its instances' health is history too.
    teller: Teller,
    ground: HashMap<ServiceName, Ground>,
    /// Who of those that are followed has said nothing yet.
    unheard: BTreeSet<Origin>,
    routes: RouteBook,
    names: Names,
    remembered: Remembered,
    /// When overrides end, and of which service. An entry may have become pointless; then nothing comes of it.
    expiries: BTreeSet<(SystemTime, ServiceName)>,
    next_generation: u64,
}

impl Catalog {
    pub fn new(live: Arc<Live>, history: Arc<History>) -> Self {
        let told = history.clone();
        Self {
            live,
            history,
            teller: Teller::new(move |subject, turn| told.turn(subject, turn)),
            ground: HashMap::new(),
            unheard: BTreeSet::from([Origin::Registry]),
            routes: RouteBook::default(),
            names: Names::default(),
            remembered: Remembered::default(),
            expiries: BTreeSet::new(),
            next_generation: 1,
        }
    }

    /// The registry counts as known only once so many sources have been heard of, too.
    pub fn with_sources(mut self, n_sources: usize) -> Self {
        self.unheard.extend((0..=u8::MAX).take(n_sources).map(Origin::Source));
        self
    }

    /// Takes in what happened as one new snapshot. `now` and `wall` are the same moment on two clocks.
    pub fn apply(&mut self, events: Vec<Event>, resolutions: Vec<Resolution>, now: Instant, wall: SystemTime) -> Applied {
        let previous = self.live.load_full();
        let mut applied = Applied { revision: previous.revision, ..Applied::default() };
        let (mut touched, mut routes) = (Touched::new(), Vec::new());
        for event in events {
            self.unheard.remove(&event.origin);
            // A source is read over a connection of its own, and may be ahead of our own prefix, or behind.
            if event.origin == Origin::Registry {
                applied.revision = event.revision;
            }
            for change in event.changes {
                self.absorb(event.origin, event.revision, change, &mut touched, &mut routes);
            }
        }
        for resolution in resolutions {
            for service in self.names.resolved(resolution) {
                let named = self.ground.get(&service).map(|g| g.named().clone()).unwrap_or_default();
                touched.entry(service).or_default().extend(named);
            }
        }
        while let Some((at, _)) = self.expiries.first()
            && *at <= wall
        {
            let Some((_, service)) = self.expiries.pop_first() else { break };
            let expired = self.ground.get_mut(&service).map(|g| g.expire(wall)).unwrap_or_default();
            touched.entry(service).or_default().extend(expired);
        }

        let registry_known = self.unheard.is_empty();
        let mut next = Snapshot { registry_known, ..Snapshot::succeed(&previous, applied.revision) };
        if !routes.is_empty() {
            self.history.routes(&routes, applied.revision, wall);
            next.routes = Arc::new(self.routes.apply(&previous.routes, routes));
        }
        let mut tell = history::TOLD_AT_ONCE_MAX;
        for (name, ids) in touched {
            self.rebuild(&name, ids, &mut next, &mut applied, &mut tell, (now, wall));
            applied.services.insert(name);
        }
        self.remembered.forget(now);
        applied.names = self.names.changed();
        self.live.store(next);
        applied
    }

    /// When `apply` must be called even if nothing happens: an override ends.
    pub fn next_expiry(&self) -> Option<SystemTime> {
        self.expiries.first().map(|(at, _)| *at)
    }

    fn absorb(
        &mut self,
        origin: Origin,
        revision: u64,
        change: Change,
        touched: &mut Touched,
        routes: &mut Vec<history::RouteChange>,
    ) {
        let (service, ground_change) = match change {
            Change::Instance { service, id, spec } => (service, ground::GroundChange::Instance(id, Some(Arc::new(spec)))),
            Change::InstanceGone { service, id, departure: _ } => (service, ground::GroundChange::Instance(id, None)),
            Change::Override { service, id, value } => {
                self.expiries.extend(value.as_ref().and_then(|o| o.until).map(|until| (until, service.clone())));
                (service, ground::GroundChange::Override(id, value))
            }
            Change::Policy { service, policy } => (service, ground::GroundChange::Policy(policy.map(|p| Arc::new(*p)))),
            Change::Route { name, route } => {
                routes.push((origin, name, route.map(|r| *r)));
                return;
            }
            // Certificates are kept by the registry for the proxies that terminate TLS; this one does not yet.
            Change::Certificate { .. } => return,
        };
        let id = self.ground.entry(service.clone()).or_default().absorb(origin, revision, ground_change);
        touched.entry(service).or_default().extend(id);
    }

    /// Makes the successor of one service and notes what became of the instances that were touched.
    fn rebuild(
        &mut self,
        name: &ServiceName,
        ids: BTreeSet<InstanceId>,
        next: &mut Snapshot,
        applied: &mut Applied,
        tell: &mut usize,
        (now, wall): (Instant, SystemTime),
    ) {
        let old = next.services.get(name.as_str()).cloned();
        let Some(ground) = self.ground.get(name) else { return };
        self.names.uses(name, ground.host_names());
        let mut learned =
            ground::Learned { remembered: &mut self.remembered, next_generation: &mut self.next_generation, now, wall };
        let mut edits = Vec::new();
        for id in ids {
            let before = old.as_deref().and_then(|old| old.pool.get(&id));
            let after = ground.instance(name, &id, before, &self.names, &mut learned);
            if before.map(Arc::as_ptr) == after.as_ref().map(Arc::as_ptr) {
                continue;
            }
            if let Some(before) = before {
                let stays = |after: &Arc<Instance>| after.state.generation == before.state.generation;
                if !after.as_ref().is_some_and(stays) {
                    learned.remembered.departed(before, now);
                }
                if before.may_be_connected() && !after.as_ref().is_some_and(|a| stays(a) && a.may_be_connected()) {
                    applied.retired.push(before.state.generation);
                }
            }
            if *tell > 0 {
                *tell -= 1;
                self.history.instance(before.map(|b| &**b), after.as_deref(), applied.revision, wall);
            }
            edits.push((id, after));
        }
        if !ground.exists() {
            if ground.is_empty() {
                self.ground.remove(name);
            }
            next.services.remove(name.as_str());
            return;
        }
        let policy = ground.policy(old.as_deref());
        let pool = old.as_deref().map_or(&Pool::default(), |old| &old.pool).succeed(edits);
        let stats = old.map_or_else(|| Arc::new(ServiceStats::new(self.teller.clone())), |s| s.stats.clone());
        next.services.insert(name.clone(), Arc::new(Service::new(name.clone(), policy, pool, stats)));
    }
}

/// Which services a swap is about, and which of their instances; none when only the policy is.
type Touched = BTreeMap<ServiceName, BTreeSet<InstanceId>>;

/// The loop around the catalog. `on_applied` is told after each swap; it must not wait.
pub async fn run(
    mut catalog: Catalog,
    mut events: mpsc::Receiver<Event>,
    mut resolutions: mpsc::Receiver<Resolution>,
    mut on_applied: impl FnMut(Applied, Took),
    mut shutdown: watch::Receiver<bool>,
) {
    let mut pace = Pace::default();
    loop {
        let expiry = catalog.next_expiry().map(|at| at.duration_since(SystemTime::now()).unwrap_or_default());
        let mut waiting = (Vec::new(), Vec::new());
        tokio::select! {
            n = events.recv_many(&mut waiting.0, TAKEN_AT_ONCE) => if n == 0 { return },
            n = resolutions.recv_many(&mut waiting.1, TAKEN_AT_ONCE) => if n == 0 { return },
            () = tokio::time::sleep(expiry.unwrap_or(FAR)) => {}
            _ = shutdown.wait_for(|stop| *stop) => return,
        }
        let first = Instant::now();
        while let Some(quiet) = pace.waits(Instant::now(), first, waiting.0.len()) {
            let more = tokio::time::timeout(quiet, events.recv_many(&mut waiting.0, TAKEN_AT_ONCE)).await;
            if !matches!(more, Ok(n) if n > 0) {
                break;
            }
        }
        let begun = Instant::now();
        let applied = catalog.apply(waiting.0, waiting.1, begun, SystemTime::now());
        on_applied(applied, Took { apply: begun.elapsed(), since_first: first.elapsed() });
    }
}

/// More than this in one swap would only make the wait for it longer.
const TAKEN_AT_ONCE: usize = 1024;
const FAR: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests;
