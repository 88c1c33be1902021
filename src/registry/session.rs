//! Following one etcd over one connection: list if it must be, watch from there on, until something fails.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::info;

use super::applied::Applied;
use super::audit::{Audit, Turn};
use super::etcd::{Etcd, Identity, PageRequest, Response, Watch};
use super::fault::Fault;
use super::keeper::Keeper;
use super::lineage::{Lineage, Sighting, epoch_of};
use super::merge::Listing;
use super::paging::PageSize;
use super::pulse::{Beat, Pulse};
use super::reflector::Reflector;
use super::snapshot::Snapshot;
use super::status::{RegistryStatus, RelistReason, Source};
use crate::model::{Change, Event, Origin, Secret};

/// What outlives a connection.
pub struct Follower {
    pub reflector: Reflector,
    pub keeper: Keeper,
    events: mpsc::Sender<Event>,
    status: Arc<RegistryStatus>,
    /// `None` until an etcd was listed: what came from the disk belongs to no etcd yet.
    lineage: Option<Lineage>,
    size: PageSize,
    not_listed_before: Instant,
}

enum Step {
    Response(Result<Response, Fault>),
    Beat(Beat),
    Audit(Turn),
    Save,
}

impl Follower {
    pub fn new(reflector: Reflector, keeper: Keeper, events: mpsc::Sender<Event>, status: Arc<RegistryStatus>) -> Self {
        let (lineage, size) = (None, PageSize::default());
        Self { reflector, keeper, events, status, lineage, size, not_listed_before: Instant::now() }
    }

    /// Hands out what the disk remembered; etcd's first list will be a difference to it.
    pub async fn start_from(&mut self, snapshot: Snapshot) {
        let mut listing = Listing::default();
        listing.page(&self.reflector, snapshot.records);
        let applied = self.reflector.conclude(listing, snapshot.revision);
        self.hand_out(applied, Source::Snapshot).await;
    }

    /// Ends only by a fault. The map is whole at any moment this is dropped.
    pub async fn follow(&mut self, etcd: &Etcd) -> Result<Infallible, Fault> {
        let mut relist = None;
        loop {
            let identity = etcd.identity().await?;
            self.status.answered();
            if let Some(reason) = relist.or_else(|| self.judge_identity(&identity)) {
                self.list(etcd, reason, identity).await?;
            }
            relist = Some(self.watch(etcd).await?);
        }
    }

    fn judge_identity(&mut self, identity: &Identity) -> Option<RelistReason> {
        let Some(lineage) = &mut self.lineage else {
            return Some(RelistReason::Start);
        };
        lineage.judge_epoch(identity.epoch.as_deref()).or_else(|| lineage.judge(identity.sighting, self.reflector.revision()))
    }

    async fn list(&mut self, etcd: &Etcd, reason: RelistReason, identity: Identity) -> Result<(), Fault> {
        sleep_until(self.not_listed_before).await;
        if reason != RelistReason::Start {
            // Other proxies lost the same etcd: not all at once.
            let spread = SPREAD_PER_KEY.saturating_mul(self.reflector.len() as u32).min(SPREAD_MAX);
            sleep(spread.mul_f64(fastrand::f64())).await;
        }
        let began = Instant::now();
        let (listing, sighting) = self.read(etcd).await?;
        self.connected(etcd);
        self.not_listed_before = Instant::now() + RELIST_EVERY;

        let mut applied = self.reflector.conclude(listing, sighting.revision);
        let epoch = applied.meta.as_deref().and_then(epoch_of).or(identity.epoch);
        let is_news = self.lineage.as_ref().is_none_or(|was| was.judge_epoch(epoch.as_deref()).is_some());
        if is_news && self.reflector.layout().origin() == Origin::Registry {
            applied.changes.extend(epoch.as_deref().map(|epoch| Change::Epoch(Secret::new(epoch))));
        }
        self.lineage = Some(Lineage::new(sighting, epoch));
        self.status.relisted(reason);
        self.status.answered();
        info!(
            keys = %self.reflector.layout(),
            %reason,
            revision = sighting.revision,
            n_keys = self.reflector.len(),
            n_changes = applied.changes.len(),
            elapsed = ?began.elapsed(),
            "Registry listed"
        );
        self.hand_out(applied, Source::Registry).await;
        Ok(())
    }

    /// All pages at the revision of the first.
    async fn read(&mut self, etcd: &Etcd) -> Result<(Listing, Sighting), Fault> {
        let (mut listing, mut request, mut sighting) = (Listing::default(), PageRequest::default(), None);
        let mut patience = SETBACKS_MAX;
        loop {
            request.n_keys = self.size.keys();
            let fault = match etcd.page(&request).await {
                Ok(page) => {
                    let first: Sighting = *sighting.get_or_insert(page.sighting);
                    request.revision = Some(first.revision);
                    request.after = page.records.last().map(|record| record.key.clone()).or(request.after);
                    self.size.learn(page.records.len(), page.n_bytes);
                    listing.page(&self.reflector, page.records);
                    if page.is_last {
                        return Ok((listing, first));
                    }
                    continue;
                }
                Err(fault) => fault,
            };
            patience -= 1;
            match fault {
                _ if patience == 0 => return Err(fault),
                Fault::TooLarge if self.size.shrink() => {}
                // Slow or dead? If it is alive, a smaller page may do.
                Fault::Silent { .. } if etcd.ping().await.is_ok() && self.size.shrink() => {}
                // Compaction overtook us: a fresh list at a fresh revision.
                Fault::Compacted => (listing, request, sighting) = (Listing::default(), PageRequest::default(), None),
                fault => return Err(fault),
            }
        }
    }

    /// Ends with the reason to list anew, or with the fault that ended the connection.
    async fn watch(&mut self, etcd: &Etcd) -> Result<RelistReason, Fault> {
        let mut watch: Watch = etcd.watch(self.reflector.revision() + 1).await?;
        let mut pulse = Pulse::new(Instant::now());
        let mut audit = Audit::new(Instant::now());
        loop {
            let step = tokio::select! {
                response = watch.next() => Step::Response(response),
                beat = pulse.next() => Step::Beat(beat),
                turn = audit.next() => Step::Audit(turn),
                () = self.keeper.due() => Step::Save,
            };
            let relist = match step {
                Step::Response(Ok(response)) => {
                    pulse.heard(Instant::now());
                    self.connected(etcd);
                    self.take(etcd, response).await
                }
                Step::Response(Err(Fault::Compacted)) => Some(RelistReason::Compacted),
                Step::Response(Err(Fault::TooLarge)) => Some(RelistReason::Decode),
                Step::Response(Err(fault)) => return Err(fault),
                Step::Beat(Beat::Ask) => {
                    watch.request_progress().await;
                    None
                }
                Step::Beat(Beat::Silence) => {
                    pulse.ask_directly(etcd);
                    None
                }
                Step::Beat(Beat::Answer(answer)) => {
                    answer?;
                    pulse.heard(Instant::now());
                    self.status.answered();
                    None
                }
                Step::Audit(Turn::Due) => {
                    audit.begin(etcd, &mut self.reflector);
                    None
                }
                Step::Audit(Turn::Page(page)) => {
                    let n_drifted = audit.take(page, Instant::now(), etcd, &mut self.reflector);
                    self.status.drifted(n_drifted);
                    (n_drifted > 0).then_some(RelistReason::Drift)
                }
                Step::Save => {
                    self.keeper.save(&self.reflector);
                    None
                }
            };
            if let Some(reason) = relist {
                return Ok(reason);
            }
        }
    }

    /// A whole list or an open watch: not only a login.
    fn connected(&self, etcd: &Etcd) {
        if !self.status.is_connected() {
            self.status.connected_to(etcd.endpoint());
            info!(keys = %self.reflector.layout(), endpoint = etcd.endpoint(), "Registry connected");
        }
    }

    async fn take(&mut self, etcd: &Etcd, response: Response) -> Option<RelistReason> {
        self.status.answered();
        if let Some(sighting) = response.created {
            return self.lineage.as_mut()?.judge(sighting, self.reflector.revision());
        }
        if !response.edits.is_empty() {
            let mut applied = self.reflector.apply(response.edits);
            let doubted = applied.leases_in_doubt();
            if !doubted.is_empty() {
                applied.settle_doubts(&etcd.living(doubted).await);
            }
            let epoch = applied.meta.as_deref().and_then(epoch_of);
            self.hand_out(applied, Source::Registry).await;
            return self.lineage.as_ref()?.judge_epoch(epoch.as_deref());
        }
        if let Some(revision) = response.complete_to {
            self.reflector.progressed(revision);
        }
        None
    }

    /// Waits while the channel is full: what we do not read, etcd keeps for us.
    async fn hand_out(&mut self, mut applied: Applied, source: Source) {
        self.status.applied(&applied, self.reflector.len());
        applied.log();
        let Some(event) = applied.take_event(self.reflector.layout().origin()) else { return };
        if !event.changes.is_empty() {
            self.keeper.changed();
        }
        let revision = event.revision;
        // Nobody receives any more: `run` is about to end.
        if self.events.send(event).await.is_ok() {
            self.status.handed_out(revision, source);
        }
    }
}

/// Between two lists, whatever asks for them.
const RELIST_EVERY: Duration = Duration::from_secs(1);
const SPREAD_PER_KEY: Duration = Duration::from_micros(50);
const SPREAD_MAX: Duration = Duration::from_secs(5);
/// Shrunken pages and overtaken lists before the connection is given up.
const SETBACKS_MAX: u32 = 8;
