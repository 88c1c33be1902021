//! Keeps one instance registered in etcd, for as long as it lives. This file is all a service needs for it.
//!
//! 1. A lease is granted, the key put under it, the lease renewed three times per TTL.
//! 2. Our own key is watched: somebody who deletes it by mistake gets it back at once.
//! 3. Whatever goes wrong (etcd away, lease lost, connection silent) leads to a new lease and a new put, on the
//!    next endpoint, for ever: a service that gave up would be gone until someone restarts it.
//! 4. Draining puts the key again with its new state; leaving gives the lease back, and the key goes with it.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, EventType, PutOptions, WatchOptions, WatchResponse};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::instance::Stage;

pub struct Registration {
    /// `http://HOST:PORT` of one or more members.
    pub etcd: Vec<String>,
    pub prefix: String,
    pub service: String,
    /// The instance's name when it is not said.
    pub id: Option<String>,
    /// How long the registry believes in us without hearing from us; whole seconds, at least one.
    pub ttl: Duration,
    /// 0 asks for no new traffic.
    pub weight: u16,
    pub zone: Option<String>,
    /// What others connect to; the listening address when it is not said.
    pub address: Option<String>,
}

impl Registration {
    /// What will stand in the registry, now that the listening address is known.
    pub fn announced(self, name: &str, bound: SocketAddr) -> io::Result<Announced> {
        let invalid = |said: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, said));
        if self.etcd.is_empty() {
            return invalid("registering needs the address of etcd");
        }
        if self.address.is_none() && bound.ip().is_unspecified() {
            return invalid("nobody can connect to the address listened on: say which one to register");
        }
        let id = self.id.as_deref().unwrap_or(name);
        Ok(Announced {
            key: format!("{}/instances/{}/{id}", self.prefix, self.service),
            address: self.address.unwrap_or_else(|| bound.to_string()),
            weight: self.weight,
            zone: self.zone,
            ttl: Duration::from_secs(self.ttl.as_secs_f64().ceil().max(1.0) as u64),
            etcd: self.etcd,
        })
    }
}

pub struct Announced {
    etcd: Vec<String>,
    key: String,
    address: String,
    weight: u16,
    zone: Option<String>,
    ttl: Duration,
}

/// Returns once the instance left and its lease is given back.
pub async fn stay(announced: Announced, mut stage: watch::Receiver<Stage>) {
    let mut pause = PAUSE_MIN;
    for endpoint in announced.etcd.iter().cycle() {
        let began = Instant::now();
        let Err(lost) = hold(&announced, endpoint, &mut stage).await else { return };
        if began.elapsed() > announced.ttl {
            pause = PAUSE_MIN;
        }
        warn!(key = announced.key, endpoint, %lost, again_in = ?pause, "The registration was lost");
        tokio::select! {
            () = sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)) => {}
            _ = stage.wait_for(|stage| *stage >= Stage::Leaving) => return,
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// One lease, from its grant to its loss (`Err`) or to our leaving (`Ok`).
async fn hold(announced: &Announced, endpoint: &str, stage: &mut watch::Receiver<Stage>) -> Result<(), Lost> {
    let options = ConnectOptions::new().with_connect_timeout(CALL_MAX);
    let mut client = call(Client::connect([endpoint], Some(options))).await?;
    let lease = call(client.lease_grant(announced.ttl.as_secs() as i64, None)).await?.id();
    let (mut keeper, mut renewals) = call(client.lease_keep_alive(lease)).await?;
    let current = *stage.borrow_and_update();
    let revision = put(&mut client, announced, lease, current).await?;
    info!(key = announced.key, endpoint, revision, "Registered");
    let watched = WatchOptions::new().with_start_revision(revision + 1);
    let mut events = call(client.watch(announced.key.as_str(), Some(watched))).await?;

    let mut renew = interval(announced.ttl / 3);
    let mut lease_ends = Instant::now() + announced.ttl;
    loop {
        tokio::select! {
            _ = renew.tick() => call(keeper.keep_alive()).await?,
            renewal = renewals.message() => match renewal?.map(|renewal| renewal.ttl()) {
                Some(seconds @ 1..) => lease_ends = Instant::now() + Duration::from_secs(seconds as u64),
                Some(_) => return Err(Lost::LeaseEnded),
                None => return Err(Lost::StreamEnded),
            },
            () = sleep_until(lease_ends) => return Err(Lost::Silence),
            message = events.message() => {
                if vanished(&message?.ok_or(Lost::StreamEnded)?)? {
                    let current = *stage.borrow();
                    put(&mut client, announced, lease, current).await?;
                    warn!(key = announced.key, "Someone deleted our key; it is back");
                }
            }
            changed = stage.changed() => {
                let current = *stage.borrow_and_update();
                if changed.is_err() || current >= Stage::Leaving {
                    call(client.lease_revoke(lease)).await?;
                    info!(key = announced.key, "Left the registry");
                    return Ok(());
                }
                put(&mut client, announced, lease, current).await?;
            }
        }
    }
}

async fn put(client: &mut Client, announced: &Announced, lease: i64, stage: Stage) -> Result<i64, Lost> {
    let mut value = json!({
        "v": 1,
        "address": announced.address,
        "weight": announced.weight,
        "state": if stage == Stage::Ready { "ready" } else { "draining" },
    });
    if let Some(zone) = &announced.zone {
        value["zone"] = json!(zone);
    }
    let options = PutOptions::new().with_lease(lease);
    let put = call(client.put(announced.key.as_str(), value.to_string(), Some(options))).await?;
    Ok(put.header().map_or(0, |header| header.revision()))
}

/// Whether the last thing that happened to our key is its deletion.
fn vanished(message: &WatchResponse) -> Result<bool, Lost> {
    if message.canceled() {
        return Err(Lost::WatchCanceled(message.cancel_reason().to_owned()));
    }
    Ok(message.events().last().is_some_and(|event| event.event_type() == EventType::Delete))
}

/// etcd-client waits for ever on a connection that is silent, so every call is given its time.
async fn call<T>(asked: impl Future<Output = Result<T, etcd_client::Error>>) -> Result<T, Lost> {
    Ok(timeout(CALL_MAX, asked).await.map_err(|_| Lost::Silence)??)
}

enum Lost {
    Refused(etcd_client::Error),
    Silence,
    LeaseEnded,
    StreamEnded,
    WatchCanceled(String),
}

impl From<etcd_client::Error> for Lost {
    fn from(error: etcd_client::Error) -> Self {
        Self::Refused(error)
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(f, "{error}"),
            Self::Silence => f.write_str("etcd does not answer"),
            Self::LeaseEnded => f.write_str("the lease has ended"),
            Self::StreamEnded => f.write_str("etcd closed the stream"),
            Self::WatchCanceled(reason) => write!(f, "etcd ended the watch: {reason}"),
        }
    }
}

const CALL_MAX: Duration = Duration::from_secs(2);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
