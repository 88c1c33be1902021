//! Whose turn it is: one proxy of all that share a registry orders certificates, until it ends or loses its lease.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::directory::Directory;
use super::renewer::Renewer;
use super::trouble::Trouble;
use crate::config::{AcmeConfig, EtcdConfig, read_authorities};
use crate::model::InstanceId;
use crate::registry::{Key, Lock, Prefix};
use crate::tls::system_authorities;

/// What this proxy has done.
#[derive(Debug, Default)]
pub struct Status {
    is_renewer: AtomicBool,
    n_issued: AtomicU64,
    n_failed: AtomicU64,
}

impl Status {
    pub fn is_renewer(&self) -> bool {
        self.is_renewer.load(Relaxed)
    }

    /// Orders by result.
    pub fn orders(&self) -> [(&'static str, u64); 2] {
        [("issued", self.n_issued.load(Relaxed)), ("failed", self.n_failed.load(Relaxed))]
    }

    pub(super) fn issued(&self) {
        self.n_issued.fetch_add(1, Relaxed);
    }

    pub(super) fn failed(&self) {
        self.n_failed.fetch_add(1, Relaxed);
    }
}

/// Takes part until `shutdown`; the task ends once the lock is given back. `me`: as which this proxy announces itself.
pub fn start(
    config: AcmeConfig,
    registry: (EtcdConfig, Prefix),
    me: InstanceId,
    status: Arc<Status>,
    shutdown: watch::Receiver<bool>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let read = {
            let ca_file = config.ca_file.clone();
            move || ca_file.map_or_else(system_authorities, |path| read_authorities(&path))
        };
        let authorities = tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(error.to_string()));
        let directory = authorities.and_then(|authorities| Directory::new(authorities).map_err(|error| error.to_string()));
        match directory {
            Ok(directory) => run(Renewer { config, directory, me, status }, registry, shutdown).await,
            Err(reason) => warn!(reason, "No certificates are ordered: nobody could vouch for the ACME directory"),
        }
    })
}

async fn run(renewer: Renewer, (etcd, prefix): (EtcdConfig, Prefix), mut shutdown: watch::Receiver<bool>) {
    // Many proxies with one configuration spread over the endpoints.
    let endpoints = etcd.endpoints.iter().cycle().skip(fastrand::usize(..etcd.endpoints.len().max(1)));
    for endpoint in endpoints {
        let place = (prefix.clone(), Key::AcmeRenewer);
        let opened = Lock::open(&etcd, endpoint, place, renewer.me.as_str(), TTL);
        let over = match unless_ending(&mut shutdown, opened).await {
            None => return,
            Some(Err(error)) => error.into(),
            Some(Ok(mut lock)) => {
                let over = unless_ending(&mut shutdown, turn(&mut lock, &renewer)).await;
                renewer.status.is_renewer.store(false, Relaxed);
                if let Err(error) = lock.leave().await {
                    debug!(%error, "The lock of ACME is not given back; it ends by itself");
                }
                let Some(over) = over else { return };
                over
            }
        };
        // What no role of the etcd user allows is not allowed a second later.
        let is_denied = matches!(&over, Trouble::Registry(error) if error.is_denied());
        let pause = if is_denied { DENIED_PAUSE } else { PAUSE };
        warn!(%endpoint, reason = %over, "Not in line to order certificates; trying again");
        if unless_ending(&mut shutdown, sleep(pause.mul_f64(0.5 + fastrand::f64()))).await.is_none() {
            return;
        }
    }
}

/// Waits for the turn and makes use of it; says why it is over.
async fn turn(lock: &mut Lock, renewer: &Renewer) -> Trouble {
    let locked = match lock.taken().await {
        Ok(locked) => locked,
        Err(error) => return error.into(),
    };
    renewer.status.is_renewer.store(true, Relaxed);
    info!(certificates = renewer.config.certificates.len(), "This proxy orders certificates now");
    tokio::select! {
        error = lock.lost(&locked) => error.into(),
        trouble = renewer.work(&locked) => trouble,
    }
}

/// `None`: the process is about to end.
async fn unless_ending<T>(shutdown: &mut watch::Receiver<bool>, what: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = what => Some(done),
        _ = shutdown.wait_for(|stop| *stop) => None,
    }
}

/// How long after the end of a renewer the next one begins, at most. Nothing about certificates is in a hurry.
const TTL: Duration = Duration::from_secs(10);
/// Before the next try with a registry that is away, more or less.
const PAUSE: Duration = Duration::from_secs(2);
const DENIED_PAUSE: Duration = Duration::from_secs(60);
