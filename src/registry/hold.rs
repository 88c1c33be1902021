//! One key of ours under one lease, over one connection: what the registrar and `lock` stand on.
//!
//! A `Hold` renews its lease every third of the TTL, watches its key, and says when it is time to look at the key again.
//! It decides nothing: what to write, and what to do about a foreign writer, is its owner's.
//! Every await on etcd has a limit, because a stopped process at the other end answers nothing and closes nothing.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, Error, EventType, GetResponse, KeyValue, LeaseKeepAliveStream, LeaseKeeper, PutOptions,
    ResponseHeader, Txn, TxnOp, TxnOpResponse, WatchOptions, WatchStream,
};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

use super::explain::{explain, hinted, is_denied};
use super::{ConnectError, LeaseId, connect};
use crate::config::EtcdConfig;

pub struct Hold {
    client: Client,
    key: Vec<u8>,
    lease: LeaseId,
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
    watch: WatchStream,
    renew: tokio::time::Interval,
    look: tokio::time::Interval,
    /// When a renewal that was asked for must have been answered.
    answer_due: Option<Instant>,
    patience: Duration,
    /// The revision of the first read: a registry that is behind it has lost what it knew.
    known: i64,
}

/// What stands under the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub value: Vec<u8>,
    /// `None`: it stays until somebody deletes it.
    pub lease: Option<LeaseId>,
    /// When it was last written.
    pub revision: i64,
}

/// The key as it was at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    pub revision: i64,
    pub held: Option<Held>,
}

/// A hold, whether it goes on with the lease it was given, and what stood under the key when it began.
pub struct Opened {
    pub hold: Hold,
    pub lease_kept: bool,
    pub sight: Sight,
}

#[derive(Debug)]
pub enum Notice {
    /// Somebody, perhaps us, wrote or deleted the key.
    Changed(Sight),
    /// The lease is gone, and with it whatever stood under it.
    LeaseLost,
    /// Time for `read`: events can get lost inside etcd.
    LookAgain,
    /// This connection is of no more use.
    Broken(HoldError),
}

#[derive(Debug)]
pub enum Written {
    At {
        revision: i64,
    },
    /// The key is not what the writer thought; this is what it is.
    Beaten(Sight),
    LeaseLost,
}

#[derive(Debug)]
pub enum HoldError {
    Connect(ConnectError),
    Etcd(Error),
    Silent {
        call: &'static str,
    },
    Ended {
        stream: &'static str,
        reason: String,
    },
    /// It answers from before what we have seen: wiped, or restored from a backup.
    WentBack {
        known: i64,
        now: i64,
    },
}

impl Hold {
    /// Connects to `endpoint`, goes on with `lease` if that still lives, else takes a new one.
    pub async fn open(
        config: &EtcdConfig,
        endpoint: &str,
        key: &str,
        ttl: Duration,
        lease: Option<LeaseId>,
    ) -> Result<Opened, HoldError> {
        let mut client = connect(config, endpoint).await.map_err(HoldError::Connect)?;
        let renewed = match lease {
            Some(lease) => renewal(&mut client, lease).await?,
            None => None,
        };
        let lease_kept = renewed.is_some();
        let (lease, (keeper, answers)) = match (lease, renewed) {
            (Some(lease), Some(streams)) => (lease, streams),
            _ => grant(&mut client, ttl).await?,
        };
        let key = key.as_bytes().to_vec();
        let sight = sight(within("read", client.get(key.clone(), None)).await?);
        let known = sight.revision;
        let options = WatchOptions::new().with_start_revision(known + 1);
        let watch = within("watch", client.watch(key.clone(), Some(options))).await?;
        let third = ttl / 3;
        let hold = Self {
            client,
            key,
            lease,
            keeper,
            answers,
            watch,
            renew: every(third),
            look: every(LOOK_INTERVAL),
            answer_due: None,
            patience: third,
            known,
        };
        Ok(Opened { hold, lease_kept, sight })
    }

    pub fn lease(&self) -> LeaseId {
        self.lease
    }

    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Waits for the next thing to know. May be dropped while it waits.
    pub async fn notice(&mut self) -> Notice {
        loop {
            let due = self.answer_due;
            tokio::select! {
                _ = self.renew.tick() => {
                    // An answer still open keeps its own, earlier limit.
                    self.answer_due.get_or_insert(Instant::now() + self.patience);
                    if let Err(error) = within("renewal", self.keeper.keep_alive()).await {
                        return Notice::Broken(error);
                    }
                }
                answer = self.answers.message() => match answer {
                    Ok(Some(answer)) if answer.ttl() <= 0 => return Notice::LeaseLost,
                    Ok(Some(_)) => self.answer_due = None,
                    Ok(None) => return Notice::Broken(HoldError::ended("renewal", "")),
                    Err(error) => return Notice::Broken(HoldError::Etcd(error)),
                },
                message = self.watch.message() => match self.read_watch(message) {
                    Ok(None) => {}
                    Ok(Some(changed)) => return changed,
                    Err(error) => return Notice::Broken(error),
                },
                _ = self.look.tick() => return Notice::LookAgain,
                () = until(due) => return Notice::Broken(HoldError::Silent { call: "renewal" }),
            }
        }
    }

    pub async fn read(&mut self) -> Result<Sight, HoldError> {
        within("read", self.client.get(self.key.clone(), None)).await.map(sight)
    }

    /// Writes under our lease if the key was last written at `over`, 0 meaning that it is not there.
    pub async fn write(&mut self, value: &[u8], over: i64) -> Result<Written, HoldError> {
        let put = TxnOp::put(self.key.clone(), value, Some(PutOptions::new().with_lease(self.lease.0)));
        let txn = Txn::new()
            .when([Compare::mod_revision(self.key.clone(), CompareOp::Equal, over)])
            .and_then([put])
            .or_else([TxnOp::get(self.key.clone(), None)]);
        let answer = match within("write", self.client.txn(txn)).await {
            Ok(answer) => answer,
            Err(HoldError::Etcd(error)) if is_lease_lost(&error) => return Ok(Written::LeaseLost),
            Err(error) => return Err(error),
        };
        let revision = revision(answer.header());
        if answer.succeeded() {
            return Ok(Written::At { revision });
        }
        let held = answer.op_responses().into_iter().find_map(|op| match op {
            TxnOpResponse::Get(answer) => sight(answer).held,
            _ => None,
        });
        Ok(Written::Beaten(Sight { revision, held }))
    }

    /// Gives the lease back; the key goes with it, at once.
    pub async fn revoke(mut self) -> Result<(), HoldError> {
        give_back(&mut self.client, self.lease).await
    }

    /// The last event of a message is what stands under the key now.
    fn read_watch(&self, message: Result<Option<etcd_client::WatchResponse>, Error>) -> Result<Option<Notice>, HoldError> {
        let Some(message) = message.map_err(HoldError::Etcd)? else {
            return Err(HoldError::ended("watch", ""));
        };
        if message.canceled() {
            return Err(HoldError::ended("watch", message.cancel_reason()));
        }
        let now = revision(message.header());
        if now < self.known {
            return Err(HoldError::WentBack { known: self.known, now });
        }
        Ok(message.events().last().and_then(|event| {
            let record = event.kv()?;
            let held = (event.event_type() == EventType::Put).then(|| held(record));
            Some(Notice::Changed(Sight { revision: record.mod_revision(), held }))
        }))
    }
}

impl HoldError {
    /// No role of the etcd user allows it: to ask again soon would be of no use.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Etcd(error) if is_denied(error))
    }

    fn ended(stream: &'static str, reason: &str) -> Self {
        Self::Ended { stream, reason: reason.to_owned() }
    }
}

impl fmt::Display for HoldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => error.fmt(f),
            Self::Etcd(error) => f.write_str(&explain(error)),
            Self::Silent { call } => write!(f, "etcd did not answer the {call} in time"),
            Self::Ended { stream, reason } if reason.is_empty() => write!(f, "etcd ended the {stream}"),
            Self::Ended { stream, reason } => write!(f, "etcd ended the {stream}: {}", hinted(reason)),
            Self::WentBack { known, now } => write!(f, "etcd went back from revision {known} to {now}"),
        }
    }
}

impl std::error::Error for HoldError {}

/// Gives a lease back over a connection of its own, for whoever lost the one it had.
pub async fn revoke(config: &EtcdConfig, endpoint: &str, lease: LeaseId) -> Result<(), HoldError> {
    let mut client = connect(config, endpoint).await.map_err(HoldError::Connect)?;
    give_back(&mut client, lease).await
}

async fn give_back(client: &mut Client, lease: LeaseId) -> Result<(), HoldError> {
    match within("revocation", client.lease_revoke(lease.0)).await {
        Err(HoldError::Etcd(error)) if is_lease_lost(&error) => Ok(()),
        other => other.map(|_| ()),
    }
}

type RenewalStreams = (LeaseKeeper, LeaseKeepAliveStream);

/// `None`: that lease is gone.
async fn renewal(client: &mut Client, lease: LeaseId) -> Result<Option<RenewalStreams>, HoldError> {
    match within("renewal", client.lease_keep_alive(lease.0)).await {
        Ok(streams) => Ok(Some(streams)),
        Err(HoldError::Etcd(Error::LeaseKeepAliveError(_))) => Ok(None),
        Err(HoldError::Etcd(error)) if is_lease_lost(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn grant(client: &mut Client, ttl: Duration) -> Result<(LeaseId, RenewalStreams), HoldError> {
    let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
    let lease = LeaseId(within("lease", client.lease_grant(seconds, None)).await?.id());
    match renewal(client, lease).await? {
        Some(streams) => Ok((lease, streams)),
        None => Err(HoldError::ended("renewal", "a lease just granted is gone")),
    }
}

pub(super) async fn within<T>(call: &'static str, answer: impl Future<Output = Result<T, Error>>) -> Result<T, HoldError> {
    match timeout(CALL_TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(HoldError::Etcd(error)),
        Err(_) => Err(HoldError::Silent { call }),
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

fn sight(answer: GetResponse) -> Sight {
    Sight { revision: revision(answer.header()), held: answer.kvs().first().map(held) }
}

fn held(record: &KeyValue) -> Held {
    Held { value: record.value().to_vec(), lease: LeaseId::of_key(record.lease()), revision: record.mod_revision() }
}

pub(super) fn revision(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, ResponseHeader::revision)
}

/// etcd says it in words only; the code (`NotFound`) is also that of other things.
pub(super) fn is_lease_lost(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains("requested lease not found"))
}

/// For one question. A registry that needs longer is as good as gone for whom it should keep alive.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Between looks at the key beside the watch: rare enough to cost nothing, often enough to repair what nobody reported.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
