//! The registry as the commands use it: one question, one answer, then the process ends.
//!
//! Values go in and out as they are written; `Record` reads them the way a proxy would.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use etcd_client::{Client, Error, GetOptions, KeyValue, KvClient};
use tokio::time::timeout;

use super::certificate;
use super::explain::{explain, is_denied};
use super::layout::{Kind, Layout};
use super::{ConnectError, Key, KeyError, Prefix, connect};
use crate::config::EtcdConfig;
use crate::model::{AcmeOrder, Certificate, ChallengeSpec, InstanceSpec, Override, RouteSpec, ServicePolicy};
use crate::wire::{self, ParseResult, Parsed, Presence, Problem};

pub struct Store {
    kv: KvClient,
    prefix: Prefix,
}

/// One key as it stands in the registry.
#[derive(Debug, Clone)]
pub struct Entry {
    /// With the prefix; bytes that are not UTF-8 are replaced.
    pub raw_key: String,
    pub key: Result<Key, KeyError>,
    pub value: Vec<u8>,
    /// When it was last written.
    pub revision: u64,
    /// It goes with somebody's lease.
    pub leased: bool,
}

/// All keys of one folder as they were at one revision, sorted.
#[derive(Debug)]
pub struct Listing {
    pub revision: u64,
    pub entries: Vec<Entry>,
}

/// A value, read as what its key says it is.
#[derive(Debug)]
pub enum Record {
    Meta,
    Instance(InstanceSpec),
    Override(Override),
    Policy(Box<ServicePolicy>),
    Route(Box<RouteSpec>),
    Certificate(Box<Certificate>),
    Proxy(Presence),
    AcmeOrder(Box<AcmeOrder>),
    AcmeChallenge(ChallengeSpec),
    /// What proxies keep for themselves.
    Acme,
}

#[derive(Debug)]
pub enum StoreError {
    /// What each endpoint said.
    Unreachable(Vec<ConnectError>),
    Etcd(Error),
    /// No role of the etcd user allows it.
    Denied {
        permission: &'static str,
        key: String,
    },
    Silent,
}

impl Store {
    /// The first endpoint that answers.
    pub async fn connect(config: &EtcdConfig, prefix: Prefix) -> Result<Self, StoreError> {
        let mut failures = Vec::new();
        for endpoint in &config.endpoints {
            match connect(config, endpoint).await {
                Ok(client) => return Ok(Self { kv: kv_of(&client), prefix }),
                Err(failure) => failures.push(failure),
            }
        }
        Err(StoreError::Unreachable(failures))
    }

    pub async fn get(&mut self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let key = self.prefix.key(key);
        let answer = within(self.kv.get(key.as_str(), None)).await.map_err(|error| error.of("read", &key))?;
        Ok(answer.kvs().first().map(|record| entry(self.prefix.parse(record.key()), record)))
    }

    /// `folder` stands below the prefix, as in `/instances/orders/`; `/` is everything.
    pub async fn list(&mut self, folder: &str) -> Result<Listing, StoreError> {
        let prefix = self.prefix.clone();
        let folder = Prefix::new(&format!("{}{folder}", prefix.as_str()));
        self.range(folder.range(), |raw| Some(prefix.parse(raw))).await
    }

    /// Instances of another program. What does not fit its pattern is left out.
    pub async fn list_source(&mut self, source: &Layout) -> Result<Listing, StoreError> {
        let key = |raw: &[u8]| match source.kind(raw) {
            Kind::Record(key) => Some(Ok(key)),
            Kind::Malformed(error) => Some(Err(error)),
            Kind::Meta | Kind::Foreign | Kind::Stray => None,
        };
        self.range(source.range(), key).await
    }

    async fn range(
        &mut self,
        (mut next, end): (Vec<u8>, Vec<u8>),
        key: impl Fn(&[u8]) -> Option<Result<Key, KeyError>>,
    ) -> Result<Listing, StoreError> {
        let mut listing = Listing { revision: 0, entries: Vec::new() };
        let folder = format!("--prefix {}", String::from_utf8_lossy(&next));
        loop {
            let at = i64::try_from(listing.revision).unwrap_or(0);
            let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE).with_revision(at);
            let page = within(self.kv.get(next, Some(options))).await.map_err(|error| error.of("read", &folder))?;
            if listing.revision == 0 {
                listing.revision = page.header().map_or(0, |header| header.revision().unsigned_abs());
            }
            listing.entries.extend(page.kvs().iter().filter_map(|record| Some(entry(key(record.key())?, record))));
            match page.kvs().last() {
                Some(last) if page.more() => next = [last.key(), b"\0"].concat(),
                _ => return Ok(listing),
            }
        }
    }

    /// The revision that it made.
    pub async fn put(&mut self, key: &Key, value: &[u8]) -> Result<u64, StoreError> {
        let key = self.prefix.key(key);
        let answer = within(self.kv.put(key.as_str(), value, None)).await.map_err(|error| error.of("write", &key))?;
        Ok(answer.header().map_or(0, |header| header.revision().unsigned_abs()))
    }

    /// The revision that it made; `None`: there was nothing.
    pub async fn delete(&mut self, key: &Key) -> Result<Option<u64>, StoreError> {
        let key = self.prefix.key(key);
        let answer = within(self.kv.delete(key.as_str(), None)).await.map_err(|error| error.of("write", &key))?;
        let revision = answer.header().map_or(0, |header| header.revision().unsigned_abs());
        Ok((answer.deleted() > 0).then_some(revision))
    }

    /// The key as etcd has it.
    pub fn full(&self, key: &Key) -> String {
        self.prefix.key(key)
    }
}

fn entry(key: Result<Key, KeyError>, record: &KeyValue) -> Entry {
    Entry {
        raw_key: String::from_utf8_lossy(record.key()).into_owned(),
        key,
        value: record.value().to_vec(),
        revision: record.mod_revision().unsigned_abs(),
        leased: record.lease() != 0,
    }
}

impl Record {
    /// What another program wrote for itself is an instance.
    pub fn read_foreign(value: &[u8]) -> ParseResult<Self> {
        wire::parse_foreign_instance(value).map(|Parsed { value, warnings }| Parsed { value: Self::Instance(value), warnings })
    }

    /// With everything that is wrong, or what is odd about it.
    pub fn read(key: &Key, value: &[u8]) -> ParseResult<Self> {
        fn of<T>(parsed: ParseResult<T>, record: impl FnOnce(T) -> Record) -> ParseResult<Record> {
            parsed.map(|Parsed { value, warnings }| Parsed { value: record(value), warnings })
        }
        match key {
            Key::Meta => Ok(Parsed { value: Self::Meta, warnings: Vec::<Problem>::new() }),
            Key::Instance { .. } => of(wire::parse_instance(value), Self::Instance),
            Key::Override { .. } => of(wire::parse_override(value), Self::Override),
            Key::Policy(_) => of(wire::parse_policy(value), |policy| Self::Policy(Box::new(policy))),
            Key::Route(name) => of(wire::parse_route(name, value), |route| Self::Route(Box::new(route))),
            Key::Certificate(name) => of(certificate::read(name, value), |certificate| Self::Certificate(Box::new(certificate))),
            Key::Proxy(_) => of(wire::parse_presence(value), Self::Proxy),
            Key::AcmeOrder(_) => of(wire::parse_acme_order(value), |order| Self::AcmeOrder(Box::new(order))),
            Key::AcmeChallenge(token) => of(wire::parse_challenge(token, value), Self::AcmeChallenge),
            Key::AcmeAccount | Key::AcmeRenewer => Ok(Parsed { value: Self::Acme, warnings: Vec::new() }),
        }
    }
}

impl StoreError {
    /// With what was asked for, if it was denied.
    fn of(self, permission: &'static str, key: &str) -> Self {
        match self {
            Self::Etcd(error) if is_denied(&error) => Self::Denied { permission, key: key.to_owned() },
            other => other,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(failures) => {
                f.write_str("the registry cannot be reached")?;
                failures.iter().try_for_each(|failure| write!(f, "\n  {failure}"))
            }
            Self::Etcd(error) => f.write_str(&explain(error)),
            Self::Denied { permission, key } => write!(
                f,
                "no role of the etcd user allows this; one would with: etcdctl role grant-permission ROLE {permission} {key}"
            ),
            Self::Silent => write!(f, "the registry did not answer within {CALL_TIMEOUT:?}"),
        }
    }
}

impl std::error::Error for StoreError {}

fn kv_of(client: &Client) -> KvClient {
    client.kv_client().max_decoding_message_size(PAGE_BYTES_MAX)
}

async fn within<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, StoreError> {
    match timeout(CALL_TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(StoreError::Etcd),
        Err(_) => Err(StoreError::Silent),
    }
}

/// Longer than an election takes: somebody waits at a terminal, and a second try would cost more.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Keys of one page: certificates, the longest records, come to 50 MiB, an instance list of 100,000 to 500 pages.
const PAGE: i64 = 200;
const PAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
