//! A lock that one process holds at a time: a key under its lease. What is written under it is written in one transaction
//! that checks that the lock is still ours, so whoever lost it without knowing writes nothing.
//!
//! It is lost with its lease: when the holder ends, hangs, or cannot reach the registry for so long.

use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp};

use super::hold::{self, Hold, HoldError, Notice, Opened, Sight, Written};
use super::{Key, LeaseId, Prefix};
use crate::config::EtcdConfig;

/// Waits for its turn, or has it.
pub struct Lock {
    hold: Hold,
    key: Key,
    prefix: Prefix,
    owner: String,
    sight: Sight,
}

/// What its holder can do. Clones are of the same turn.
#[derive(Clone)]
pub struct Locked {
    client: Client,
    prefix: Prefix,
    key: String,
    lease: LeaseId,
    /// When the lock was written: somebody else's turn has another one.
    revision: i64,
}

pub enum Edit {
    Put(Key, Vec<u8>),
    /// Goes with our turn.
    PutForNow(Key, Vec<u8>),
    Delete(Key),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    At {
        revision: i64,
    },
    /// The lock is another's, or nobody's; nothing was written.
    NotOurs,
}

impl Lock {
    /// Connects to `endpoint` and takes a lease; whose turn it is, `taken` finds out. `owner` is what others see.
    pub async fn open(
        config: &EtcdConfig,
        endpoint: &str,
        (prefix, key): (Prefix, Key),
        owner: &str,
        ttl: Duration,
    ) -> Result<Self, HoldError> {
        let Opened { hold, sight, .. } = Hold::open(config, endpoint, &prefix.key(&key), ttl, None).await?;
        Ok(Self { hold, key, prefix, owner: owner.to_owned(), sight })
    }

    /// Waits until the lock is ours. Who is dropped while it waits can only leave.
    pub async fn taken(&mut self) -> Result<Locked, HoldError> {
        loop {
            if self.sight.held.is_none() {
                match self.hold.write(self.owner.as_bytes(), 0).await? {
                    Written::At { revision } => return Ok(self.locked(revision)),
                    Written::Beaten(sight) => self.sight = sight,
                    Written::LeaseLost => return Err(lost()),
                }
                continue;
            }
            self.look_again().await?;
        }
    }

    /// Waits until the turn is over, and says why.
    pub async fn lost(&mut self, locked: &Locked) -> HoldError {
        loop {
            if let Err(error) = self.look_again().await {
                return error;
            }
            if self.sight.held.as_ref().is_none_or(|held| held.revision != locked.revision)
                && self.sight.revision > locked.revision
            {
                return HoldError::Ended { stream: "lock", reason: "it was deleted or overwritten".to_owned() };
            }
        }
    }

    /// Gives it back, or the place in the queue. The next one has its turn at once.
    pub async fn leave(self) -> Result<(), HoldError> {
        self.hold.revoke().await
    }

    async fn look_again(&mut self) -> Result<(), HoldError> {
        self.sight = match self.hold.notice().await {
            Notice::Changed(sight) => sight,
            Notice::LookAgain => self.hold.read().await?,
            Notice::LeaseLost => return Err(lost()),
            Notice::Broken(error) => return Err(error),
        };
        Ok(())
    }

    fn locked(&self, revision: i64) -> Locked {
        let key = self.prefix.key(&self.key);
        Locked { client: self.hold.client(), prefix: self.prefix.clone(), key, lease: self.hold.lease(), revision }
    }
}

impl Locked {
    /// What stands there, as a majority of the cluster has it.
    pub async fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, HoldError> {
        let mut client = self.client.clone();
        let answer = hold::within("read", client.get(self.prefix.key(key), None)).await?;
        Ok(answer.kvs().first().map(|record| record.value().to_vec()))
    }

    /// Every record below `folder`, which stands below the prefix, as in `/proxies/`. For folders with few records.
    pub async fn list(&self, folder: &str) -> Result<Vec<(Key, Vec<u8>)>, HoldError> {
        let mut client = self.client.clone();
        let (from, to) = Prefix::new(&format!("{}{folder}", self.prefix.as_str())).range();
        let options = GetOptions::new().with_range(to).with_limit(LISTED_MAX);
        let answer = hold::within("list", client.get(from, Some(options))).await?;
        let known =
            answer.kvs().iter().filter_map(|record| Some((self.prefix.parse(record.key()).ok()?, record.value().to_vec())));
        Ok(known.collect())
    }

    /// All of it or nothing, and only while the lock is ours.
    pub async fn commit(&self, edits: Vec<Edit>) -> Result<Committed, HoldError> {
        let op = |edit| match edit {
            Edit::Put(key, value) => TxnOp::put(self.prefix.key(&key), value, None),
            Edit::PutForNow(key, value) => {
                TxnOp::put(self.prefix.key(&key), value, Some(PutOptions::new().with_lease(self.lease.0)))
            }
            Edit::Delete(key) => TxnOp::delete(self.prefix.key(&key), None),
        };
        let txn = Txn::new()
            .when([Compare::mod_revision(self.key.as_str(), CompareOp::Equal, self.revision)])
            .and_then(edits.into_iter().map(op).collect::<Vec<_>>());
        let mut client = self.client.clone();
        match hold::within("write", client.txn(txn)).await {
            Ok(answer) if answer.succeeded() => Ok(Committed::At { revision: hold::revision(answer.header()) }),
            Ok(_) => Ok(Committed::NotOurs),
            Err(HoldError::Etcd(error)) if hold::is_lease_lost(&error) => Ok(Committed::NotOurs),
            Err(error) => Err(error),
        }
    }
}

fn lost() -> HoldError {
    HoldError::Ended { stream: "lease", reason: "it was not renewed in time".to_owned() }
}

/// Proxies, or certificates that are ordered: their values are small, and etcd answers with 4 MiB at most.
const LISTED_MAX: i64 = 1000;
