//! One etcd, asked and listened to: the calls of a session, in our words. Every call has a time limit.

use std::collections::BTreeSet;
use std::future::{Future, ready};
use std::sync::Arc;
use std::time::Duration;

use etcd_client::proto::PbKeyValue;
use etcd_client::{
    Client, Compare, CompareOp, Error, GetOptions, KvClient, PutOptions, ResponseHeader, Txn, TxnOp, WatchOptions,
    WatchRequestSender, WatchResponse, WatchResponseStream,
};
use futures_util::{StreamExt, stream};
use tokio::time::timeout;

use super::connect::connect;
use super::departures::LeaseId;
use super::explain::{is_denied, is_login_old};
use super::fault::Fault;
use super::layout::Layout;
use super::lineage::{self, Sighting};
use super::reflector::{Bytes, Edit, Record};
use crate::config::EtcdConfig;

/// A connection to one endpoint; clones share it.
#[derive(Clone)]
pub struct Etcd {
    endpoint: Arc<str>,
    client: Client,
    kv: KvClient,
    meta: String,
    from: Vec<u8>,
    to: Vec<u8>,
}

/// Who answers.
pub struct Identity {
    pub sighting: Sighting,
    /// `None` when `/meta` cannot be read or written by us.
    pub epoch: Option<String>,
}

/// Where a page begins and what it holds.
#[derive(Debug, Clone, Default)]
pub struct PageRequest {
    /// The key before; `None` for the first page.
    pub after: Option<Bytes>,
    /// The revision of the first page; `None` for the newest.
    pub revision: Option<u64>,
    pub n_keys: usize,
    pub content: Content,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Content {
    /// Keys and values; a first page is what a majority of the cluster agrees on.
    #[default]
    Records,
    /// Keys and revisions, as this member sees them.
    Keys,
}

pub struct Page {
    pub sighting: Sighting,
    pub records: Vec<Record>,
    pub n_bytes: usize,
    pub is_last: bool,
}

pub struct Watch {
    requests: WatchRequestSender,
    responses: WatchResponseStream,
    /// Given by the first response.
    id: Option<i64>,
}

/// One response of a watch.
pub struct Response {
    /// Who answers; in the first response only. Later ones may be overtaken by events on their way to us, and then carry a
    /// lower revision than what we have applied, though nothing was lost.
    pub created: Option<Sighting>,
    pub edits: Vec<Edit>,
    /// etcd has sent everything up to here. Never taken from an answer to a progress request: those may run ahead of
    /// events still on their way (etcd before 3.4.25 and 3.5.8).
    pub complete_to: Option<u64>,
}

impl Etcd {
    pub async fn connect(config: &EtcdConfig, endpoint: &str, layout: &Layout) -> Result<Self, Fault> {
        let client = connect(config, endpoint).await.map_err(Fault::Connect)?;
        let kv = client.kv_client().max_decoding_message_size(LIST_MESSAGE_MAX);
        let (from, to) = layout.range();
        Ok(Self { endpoint: endpoint.into(), client, kv, meta: layout.meta(), from, to })
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Reads the registry's epoch, with a majority behind it, and gives it one if it has none.
    pub async fn identity(&self) -> Result<Identity, Fault> {
        let read = || async { self.kv.clone().get(self.meta.as_str(), None).await };
        let found = self.asked("its identity", IDENTITY_TIMEOUT, read).await?;
        let sighting = sighted(found.header());
        if let Some(meta) = found.kvs().first() {
            return Ok(Identity { sighting, epoch: lineage::epoch_of(meta.value()) });
        }
        let meta = lineage::new_meta(&mut fastrand::Rng::new());
        let create = Txn::new()
            .when([Compare::create_revision(self.meta.as_str(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(self.meta.as_str(), meta.as_str(), None::<PutOptions>)])
            .or_else([TxnOp::get(self.meta.as_str(), None)]);
        match limited("a new identity", IDENTITY_TIMEOUT, self.kv.clone().txn(create)).await {
            Ok(answer) if answer.succeeded() => Ok(Identity { sighting, epoch: lineage::epoch_of(meta.as_bytes()) }),
            // Another proxy was faster: whoever asks next sees what it wrote.
            Ok(_) => Ok(Identity { sighting, epoch: None }),
            // A user who may only read: then the other signs must do.
            Err(Fault::Call(error)) if is_denied(&error) => Ok(Identity { sighting, epoch: None }),
            Err(fault) => Err(fault),
        }
    }

    pub async fn page(&self, request: &PageRequest) -> Result<Page, Fault> {
        let from = match &request.after {
            // The smallest key behind it.
            Some(last) => [last, &b"\0"[..]].concat(),
            None => self.from.clone(),
        };
        let mut options = GetOptions::new().with_range(self.to.clone()).with_limit(request.n_keys as i64);
        if let Some(revision) = request.revision {
            options = options.with_revision(revision as i64).with_serializable();
        }
        if request.content == Content::Keys {
            options = options.with_keys_only().with_serializable();
        }
        let read = || async { self.kv.clone().get(from.clone(), Some(options.clone())).await };
        let mut answer = self.asked("a list", PAGE_TIMEOUT, read).await?;
        let records: Vec<Record> = answer.take_kvs().into_iter().map(|kv| record(kv.0)).collect();
        Ok(Page {
            sighting: sighted(answer.header()),
            n_bytes: records.iter().map(|record| record.key.len() + record.value.len()).sum(),
            records,
            is_last: !answer.more(),
        })
    }

    /// Whether it is there at all: answered by this member alone.
    pub async fn ping(&self) -> Result<(), Fault> {
        let options = GetOptions::new().with_count_only().with_serializable();
        let read = || async { self.kv.clone().get(self.meta.as_str(), Some(options.clone())).await };
        self.asked("a ping", PING_TIMEOUT, read).await.map(drop)
    }

    /// Once more after a new login, if ours is from before a change of users or roles.
    async fn asked<T, F>(&self, asked: &'static str, within: Duration, call: impl Fn() -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Error>>,
    {
        match limited(asked, within, call()).await {
            Err(Fault::Call(error)) if is_login_old(&error) => {
                limited("a login", LOGIN_TIMEOUT, self.client.refresh_token()).await?;
                limited(asked, within, call()).await
            }
            answer => answer,
        }
    }

    /// Those of these leases of which etcd says, in time, that they live. Of one that ended just now it knows nothing
    /// any more: it forgets the lease before it tells of the keys.
    pub async fn living(&self, leases: BTreeSet<LeaseId>) -> BTreeSet<LeaseId> {
        let ask = |lease: LeaseId| {
            let mut client = self.client.lease_client();
            async move {
                let answer = client.time_to_live(lease.0, None).await.ok()?;
                (answer.ttl() > 0).then_some(lease)
            }
        };
        let answers = stream::iter(leases.into_iter().take(LEASES_ASKED_MAX)).map(ask).buffer_unordered(LEASES_AT_ONCE);
        let mut living = BTreeSet::new();
        let all = answers.for_each(|lease| {
            living.extend(lease);
            ready(())
        });
        // Who is not heard of in time counts as dead, which removes less.
        let _ = timeout(LEASES_TIMEOUT, all).await;
        living
    }

    /// Everything that is followed, from this revision on.
    pub async fn watch(&self, revision: u64) -> Result<Watch, Fault> {
        // No fragments: etcd cuts them in quadratic time, and one revision must stay one response.
        let options = WatchOptions::new().with_range(self.to.clone()).with_start_revision(revision as i64).with_progress_notify();
        let mut client = self.client.watch_client().max_decoding_message_size(WATCH_MESSAGE_MAX);
        let stream = limited("a watch", WATCH_TIMEOUT, client.watch(self.from.clone(), Some(options))).await?;
        let (requests, responses) = stream.split();
        Ok(Watch { requests, responses, id: None })
    }
}

impl Watch {
    /// Waits for the next response; no time limit, the session's pulse is that. Safe to drop and ask again.
    pub async fn next(&mut self) -> Result<Response, Fault> {
        match self.responses.message().await {
            Ok(Some(response)) => self.read(response),
            Ok(None) => Err(Fault::Ended),
            Err(error) => Err(Fault::of(error)),
        }
    }

    /// A sign of life, please. If it cannot be sent, the answer will be missed.
    pub async fn request_progress(&mut self) {
        let _ = timeout(SEND_TIMEOUT, self.requests.request_progress()).await;
    }

    fn read(&mut self, response: WatchResponse) -> Result<Response, Fault> {
        // A watch that is refused is created and canceled in one response, so this comes first.
        if response.canceled() {
            return Err(Fault::canceled(response.compact_revision(), response.cancel_reason()));
        }
        let sighting = response.header().map(|header| sighted(Some(header)));
        let created = sighting.filter(|_| response.created());
        if created.is_some() {
            self.id = Some(response.watch_id());
        }
        let is_notice = created.is_none() && response.events().is_empty() && self.id == Some(response.watch_id());
        Ok(Response {
            created,
            complete_to: sighting.filter(|_| is_notice).map(|sighting| sighting.revision),
            edits: response.0.events.into_iter().filter_map(|event| edit(event.r#type, event.kv?)).collect(),
        })
    }
}

/// Kinds of events that no etcd sends today are passed over.
fn edit(kind: i32, kv: PbKeyValue) -> Option<Edit> {
    match kind {
        0 => Some(Edit::Put(record(kv))),
        1 => Some(Edit::Delete { key: kv.key.into(), revision: unsigned(kv.mod_revision) }),
        _ => None,
    }
}

fn record(kv: PbKeyValue) -> Record {
    let lease = LeaseId::of_key(kv.lease);
    Record { key: kv.key.into(), value: kv.value.into(), revision: unsigned(kv.mod_revision), lease }
}

fn sighted(header: Option<&ResponseHeader>) -> Sighting {
    let Some(header) = header else {
        return Sighting { cluster: 0, term: 0, revision: 0 };
    };
    Sighting { cluster: header.cluster_id(), term: header.raft_term(), revision: unsigned(header.revision()) }
}

/// etcd's revisions begin at 1.
fn unsigned(revision: i64) -> u64 {
    revision.try_into().unwrap_or(0)
}

async fn limited<T>(asked: &'static str, within: Duration, call: impl Future<Output = Result<T, Error>>) -> Result<T, Fault> {
    match timeout(within, call).await {
        Ok(answer) => answer.map_err(Fault::of),
        Err(_) => Err(Fault::Silent { asked, within }),
    }
}

/// A page aims at 2 MiB; single values may have 1.5 MiB, if somebody puts such under our prefix.
const LIST_MESSAGE_MAX: usize = 64 * 1024 * 1024;
/// After an absence etcd sends up to a thousand revisions in one message, each of up to 128 operations.
const WATCH_MESSAGE_MAX: usize = 256 * 1024 * 1024;
/// Longer than a round through the majority takes, shorter than an election.
const IDENTITY_TIMEOUT: Duration = Duration::from_secs(2);
const PAGE_TIMEOUT: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_millis(700);
const WATCH_TIMEOUT: Duration = Duration::from_secs(2);
/// etcd makes passwords slow to try.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Of one response, in one round: the events behind it wait for the answers.
const LEASES_TIMEOUT: Duration = Duration::from_millis(500);
const LEASES_ASKED_MAX: usize = 1024;
const LEASES_AT_ONCE: usize = 64;
const SEND_TIMEOUT: Duration = Duration::from_millis(500);
