//! FLOOR 3. The one writer, and what everyone reads.
//!
//! 1. `run` takes the events that are waiting (how many at once is for `Pace` to say).
//! 2. `Catalog::apply` compares them with the ground state and makes successors of the services that are named.
//! 3. Whom the registry lost without anybody deleting it is held in limbo (`protection`), until it is declared again, a probe
//!    of it fails (`failures`) or its time is over.
//! 4. It stores one new `Snapshot` in `Live`, and says what changed: who must be probed, whose idle connections must close.
//!
//! Invariants: only this folder stores in `Live`; a service that no event names stays the same `Arc`; the revision never
//! goes back while the registry stays the same one; nothing is ever cleared to be filled again. No sockets, no clock: `now` is handed in.

mod acme;
mod failures;
mod ground;
mod history;
mod live;
mod names;
mod pace;
mod protection;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};
use tracing::warn;

pub use acme::Acme;
use acme::AcmeBook;
use failures::{Failed, Failures};
use ground::{Ground, Remembered};
pub use history::{Happening, History};
pub use live::Live;
use names::Names;
use pace::Pace;
pub use snapshot::Snapshot;

use crate::config::{AddressGuard, Said};
use crate::model::{CertificateSource, Change, Event, InstanceId, Origin, Secret, ServiceName, Verdict};
use crate::pool::{Instance, Pool, Service, ServiceStats, Subject, Teller, Turn};
use crate::routing::RouteBook;
use crate::seal::Seal;
use crate::tls::CertBook;

/// What one `apply` did.
#[derive(Debug, Default)]
pub struct Applied {
    pub revision: u64,
    pub services: BTreeSet<ServiceName>,
    /// Generations that take no new requests any more: their idle connections must close.
    pub retired: Vec<u64>,
    /// Instances that are in their pools no more, or not under this address. Requests at them may still run.
    pub left: Vec<Arc<Instance>>,
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
    certificates: CertBook,
    acme: AcmeBook,
    names: Names,
    remembered: Remembered,
    /// When overrides end, and of which service. An entry may have become pointless; then nothing comes of it.
    expiries: BTreeSet<(SystemTime, ServiceName)>,
    /// When the next one's time in limbo ends, of each service.
    limbo_ends: BTreeSet<(Instant, ServiceName)>,
    failures: Arc<Failures>,
    guard: Arc<AddressGuard>,
    next_generation: u64,
    /// Where this process runs.
    zone: Option<Arc<str>>,
    /// Of the secret that is configured, or of the registry's epoch.
    seal: Option<Arc<Seal>>,
    is_secret_configured: bool,
}

impl Catalog {
    pub fn new(live: Arc<Live>, history: Arc<History>) -> Self {
        let (failures, told) = (Arc::new(Failures::default()), history.clone());
        let noted = failures.clone();
        let teller = Teller::new(move |subject, turn| {
            if let (Subject::Instance(instance), Turn::ProbeFailed | Turn::Verdict(Verdict::Down)) = (subject, turn) {
                noted.note(instance);
            }
            told.turn(subject, turn);
        });
        Self {
            live,
            history,
            teller,
            ground: HashMap::new(),
            unheard: BTreeSet::from([Origin::Registry]),
            routes: RouteBook::default(),
            certificates: CertBook::default(),
            acme: AcmeBook::default(),
            names: Names::default(),
            remembered: Remembered::default(),
            expiries: BTreeSet::new(),
            limbo_ends: BTreeSet::new(),
            failures,
            guard: Arc::default(),
            next_generation: 1,
            zone: None,
            seal: None,
            is_secret_configured: false,
        }
    }

    /// The registry counts as known only once so many sources have been heard of, too.
    pub fn with_sources(mut self, n_sources: usize) -> Self {
        self.unheard.extend((0..=u8::MAX).take(n_sources).map(Origin::Source));
        self
    }

    /// Has a word in what names may resolve to.
    pub fn guarded_by(mut self, guard: Arc<AddressGuard>) -> Self {
        self.guard = guard;
        self
    }

    pub fn in_zone(mut self, zone: Option<Arc<str>>) -> Self {
        self.zone = zone;
        self
    }

    /// What sessions are sealed with, in place of the registry's epoch.
    pub fn with_secret(mut self, secret: Option<Secret>) -> Self {
        self.is_secret_configured = secret.is_some();
        self.seal = secret.as_ref().and_then(Seal::new).map(Arc::new);
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
                self.absorb(&previous, (event.origin, event.revision, now), change, &mut touched, &mut routes);
            }
        }
        for resolution in resolutions {
            for service in self.names.resolved(resolution, &self.guard) {
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
        let mut telling = Telling { left: history::TOLD_AT_ONCE_MAX, why: self.failures.take() };
        self.judge_losses(&previous, &mut touched, &mut telling, (now, wall));

        let registry_known = self.unheard.is_empty();
        let seal = self.seal.clone();
        let mut next = Snapshot { registry_known, seal, ..Snapshot::succeed(&previous, applied.revision) };
        if !routes.is_empty() {
            self.history.routes(&routes, applied.revision, wall);
            next.routes = Arc::new(self.routes.apply(&previous.routes, routes));
        }
        if let Some(certificates) = self.certificates.changed() {
            next.certificates = Arc::new(certificates);
        }
        if let Some(acme) = self.acme.changed() {
            next.acme = Arc::new(acme);
        }
        for (name, ids) in touched {
            self.rebuild(&name, ids, &mut next, &mut applied, &mut telling, (now, wall));
            applied.services.insert(name);
        }
        self.remembered.forget(now);
        applied.names = self.names.changed();
        self.live.store(next);
        applied
    }

    /// After what time `apply` must be called even if nothing happens: an override ends, or somebody's time in limbo.
    pub fn next_expiry(&self, now: Instant, wall: SystemTime) -> Option<Duration> {
        let expiry = self.expiries.first().map(|(at, _)| at.duration_since(wall).unwrap_or_default());
        let limbo_end = self.limbo_ends.first().map(|(at, _)| at.saturating_duration_since(now));
        expiry.into_iter().chain(limbo_end).min()
    }

    fn absorb(
        &mut self,
        previous: &Snapshot,
        (origin, revision, now): (Origin, u64, Instant),
        change: Change,
        touched: &mut Touched,
        routes: &mut Vec<history::RouteChange>,
    ) {
        let (service, ground_change) = match change {
            Change::Instance { service, id, spec } => (service, ground::GroundChange::Instance(id, Some(Arc::new(spec)))),
            Change::InstanceGone { service, id, departure } if departure.is_clean() => {
                (service, ground::GroundChange::Instance(id, None))
            }
            Change::InstanceGone { service, id, .. } => {
                let Some(ground) = self.ground.get_mut(&service) else { return };
                let old = previous.services.get(service.as_str()).map(|old| &**old);
                let is_alive = old.is_some_and(|old| old.pool.get(&id).is_some_and(|i| old.may_be_held(i)));
                let id = ground.lose(origin, id, is_alive, old, now);
                touched.entry(service).or_default().insert(id);
                return;
            }
            Change::Override { service, id, value } => {
                self.expiries.extend(value.as_ref().and_then(|o| o.until).map(|until| (until, service.clone())));
                (service, ground::GroundChange::Override(id, value))
            }
            Change::Policy { service, policy } => (service, ground::GroundChange::Policy(policy.map(|p| Arc::new(*p)))),
            Change::Route { name, route } => {
                routes.push((origin, name, route.map(|r| *r)));
                return;
            }
            Change::Certificate { name, certificate } => {
                let was = self.certificates.set_registry(name.clone(), certificate.clone());
                self.history.certificate(&CertificateSource::Registry(name), was, certificate.as_deref(), revision);
                return;
            }
            Change::ListenerCertificates { listener, certificates } => {
                for new in self.certificates.set_listener(listener, &certificates) {
                    self.history.certificate(&new.source, true, Some(&new), revision);
                }
                return;
            }
            Change::Challenge { token, challenge } => {
                self.acme.set_challenge(token, challenge);
                return;
            }
            Change::AcmeOrder { name, order } => {
                if let Some(order) = &order {
                    self.history.acme_order(&name, order, revision);
                }
                self.acme.set_order(name, order);
                return;
            }
            Change::Epoch(epoch) => {
                if !self.is_secret_configured {
                    self.seal = Seal::new(&epoch).map(Arc::new);
                }
                return;
            }
        };
        let id = self.ground.entry(service.clone()).or_default().absorb(origin, revision, ground_change);
        touched.entry(service).or_default().extend(id);
    }

    /// Lets go of those that were found dead and those whose time is over, and says when protection begins and ends.
    fn judge_losses(
        &mut self,
        previous: &Snapshot,
        touched: &mut Touched,
        telling: &mut Telling,
        (now, wall): (Instant, SystemTime),
    ) {
        telling.why.retain(|(service, id), said| {
            *said = format!("a probe of it failed: {said}");
            self.ground.get_mut(service).is_some_and(|ground| ground.let_go(id))
        });
        for (service, id) in telling.why.keys() {
            touched.entry(service.clone()).or_default().insert(id.clone());
        }
        for (_, service) in self.limbo_ends.iter().take_while(|(at, _)| *at <= now) {
            touched.entry(service.clone()).or_default();
        }
        for (service, ids) in touched {
            let Some(ground) = self.ground.get_mut(service) else { continue };
            let old = previous.services.get(service.as_str());
            let judged = ground.judge_losses(old.map(|old| &**old), now);
            if judged.next_end != judged.last_end {
                if let Some(end) = judged.last_end {
                    self.limbo_ends.remove(&(end, service.clone()));
                }
                self.limbo_ends.extend(judged.next_end.map(|end| (end, service.clone())));
            }
            for (id, limbo) in judged.changes {
                if limbo.is_none() {
                    telling.why.insert((service.clone(), id.clone()), "its time in limbo is over".to_owned());
                }
                ids.insert(id);
            }
            if let Some(n_held) = judged.turn {
                self.history.protection(service, n_held, previous.revision, wall);
            }
        }
    }

    /// Makes the successor of one service and notes what became of the instances that were touched.
    fn rebuild(
        &mut self,
        name: &ServiceName,
        ids: BTreeSet<InstanceId>,
        next: &mut Snapshot,
        applied: &mut Applied,
        telling: &mut Telling,
        (now, wall): (Instant, SystemTime),
    ) {
        let old = next.services.get(name.as_str()).cloned();
        let Some(ground) = self.ground.get(name) else { return };
        self.names.uses(name, ground.host_names());
        let mut learned = ground::Learned {
            remembered: &mut self.remembered,
            next_generation: &mut self.next_generation,
            guard: &self.guard,
            now,
            wall,
        };
        let mut edits = Vec::new();
        for id in ids {
            let before = old.as_deref().and_then(|old| old.pool.get(&id));
            let after = ground.instance(name, &id, before, &self.names, &mut learned);
            if before.map(Arc::as_ptr) == after.as_ref().map(Arc::as_ptr) {
                continue;
            }
            if let Some(refused) = after.as_ref().and_then(|after| after.standing.refused)
                && before.and_then(|before| before.standing.refused) != Some(refused)
            {
                self.guard.count(Said::Name);
                warn!(service = %name, instance = %id, "Instance not used: the address its name has {refused}");
            }
            if let Some(before) = before {
                let stays = |after: &Arc<Instance>| after.state.generation == before.state.generation;
                if !after.as_ref().is_some_and(stays) {
                    learned.remembered.departed(before, now);
                    applied.left.push(before.clone());
                }
                if before.may_be_connected() && !after.as_ref().is_some_and(|a| stays(a) && a.may_be_connected()) {
                    applied.retired.push(before.state.generation);
                }
            }
            let in_limbo = |i: &Instance| i.standing.limbo.is_some();
            let is_in_limbo = after.as_deref().is_some_and(in_limbo);
            if let Some(known) = before.or(after.as_ref())
                && before.is_some_and(|b| in_limbo(b)) != is_in_limbo
            {
                self.failures.concern(known.state.generation, is_in_limbo);
            }
            if telling.left > 0 {
                telling.left -= 1;
                let why = telling.why.get(&(name.clone(), id.clone())).map(String::as_str);
                self.history.instance(before.map(|b| &**b), after.as_deref(), why, applied.revision, wall);
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
        let new_stats = || Arc::new(ServiceStats::new(self.teller.clone()).in_zone(self.zone.clone()));
        let stats = old.map_or_else(new_stats, |s| s.stats.clone());
        next.services.insert(name.clone(), Arc::new(Service::new(name.clone(), policy, pool, stats)));
    }
}

/// Which services a swap is about, and which of their instances; none when only the policy is.
type Touched = BTreeMap<ServiceName, BTreeSet<InstanceId>>;

/// What the history is told of one swap.
struct Telling {
    /// How many more instances.
    left: usize,
    /// Of those that leave limbo, in words.
    why: Failed,
}

/// The loop around the catalog. `on_applied` is told after each swap; it must not wait.
pub async fn run(
    mut catalog: Catalog,
    mut events: mpsc::Receiver<Event>,
    mut resolutions: mpsc::Receiver<Resolution>,
    mut on_applied: impl FnMut(Applied, Took),
    mut shutdown: watch::Receiver<bool>,
) {
    let (mut pace, failures) = (Pace::default(), catalog.failures.clone());
    loop {
        let expiry = catalog.next_expiry(Instant::now(), SystemTime::now());
        let mut waiting = (Vec::new(), Vec::new());
        tokio::select! {
            n = events.recv_many(&mut waiting.0, TAKEN_AT_ONCE) => if n == 0 { return },
            n = resolutions.recv_many(&mut waiting.1, TAKEN_AT_ONCE) => if n == 0 { return },
            () = failures.noted() => {}
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
