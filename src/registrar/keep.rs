//! Keeps one key in the registry for as long as its owner lives, whatever etcd goes through.
//!
//! 1. Connect to an endpoint, go on with the lease we had or take a new one.
//! 2. Write what is wanted; `Claim` says whether and over what.
//! 3. Renew, watch, look again every minute. What somebody deleted or overwrote is written again.
//! 4. A connection that fails: the next endpoint, after a wait. It never gives up.
//! 5. The owner drops the sender of `wanted`: the lease is given back, and the key goes with it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::backoff::{Backoff, Pace};
use super::claim::{Claim, Clash, Reason, Step};
use crate::config::EtcdConfig;
use crate::registry::{Hold, HoldError, LeaseId, Notice, Opened, Written, revoke};

pub struct Keep {
    pub etcd: EtcdConfig,
    pub key: String,
    pub ttl: Duration,
}

/// What should stand under the key; `None` is nothing yet, which keeps the lease but writes nothing.
pub type Wanted = watch::Receiver<Option<Vec<u8>>>;

/// How one connection's worth of keeping ended.
enum End {
    /// The owner is gone, and so is the key.
    Left,
    Clash(Clash),
    LeaseLost,
    Broken(HoldError),
}

impl Keep {
    /// Returns when the sender of `wanted` is dropped, or when the key turns out to be another's.
    pub async fn run(self, mut claim: Claim, mut wanted: Wanted) -> Result<(), Clash> {
        let mut lease = None;
        let mut backoff = Backoff::default();
        // Many registrars with one configuration spread over the endpoints.
        let mut turn = fastrand::usize(..self.etcd.endpoints.len());
        let mut is_denied = false;
        loop {
            let endpoint = &self.etcd.endpoints[turn % self.etcd.endpoints.len()];
            let began = Instant::now();
            match self.session(endpoint, &mut lease, &mut claim, &mut wanted).await {
                End::Left => return Ok(()),
                End::Clash(clash) => return Err(clash),
                End::LeaseLost => {
                    (lease, is_denied) = (None, false);
                    warn!(key = %self.key, "Lease lost; registering anew");
                }
                End::Broken(error) if error.is_denied() => {
                    // A proxy that may only read goes on for ever without a record of its own: said once is enough.
                    if !std::mem::replace(&mut is_denied, true) {
                        warn!(key = %self.key, %error, "Not registered: the key may not be read and written; trying now and then");
                    }
                }
                End::Broken(error) => {
                    is_denied = false;
                    turn = turn.wrapping_add(1);
                    warn!(key = %self.key, %endpoint, %error, "Registry unreachable; trying again");
                }
            }
            if began.elapsed() > SHORT {
                backoff.reset();
            }
            let wait = if is_denied { DENIED_WAIT.mul_f64(0.5 + fastrand::f64() / 2.0) } else { backoff.next() };
            tokio::select! {
                () = sleep(wait) => {}
                () = dropped(wanted.clone()) => {
                    self.leave_unconnected(lease).await;
                    return Ok(());
                }
            }
        }
    }

    async fn session(&self, endpoint: &str, lease: &mut Option<LeaseId>, claim: &mut Claim, wanted: &mut Wanted) -> End {
        claim.want(wanted.borrow_and_update().clone());
        let opened = tokio::select! {
            opened = Hold::open(&self.etcd, endpoint, &self.key, self.ttl, *lease) => opened,
            () = dropped(wanted.clone()) => {
                self.leave_unconnected(*lease).await;
                return End::Left;
            }
        };
        let Opened { mut hold, lease_kept, sight } = match opened {
            Ok(opened) => opened,
            Err(error) => return End::Broken(error),
        };
        if lease.is_some() {
            info!(key = %self.key, %endpoint, lease_kept, "Registry reachable again");
        }
        *lease = Some(hold.lease());
        claim.opened(hold.lease(), sight);
        let end = self.hold_on(&mut hold, claim, wanted).await;
        if matches!(end, End::Left | End::Clash(_)) {
            match hold.revoke().await {
                Ok(()) => info!(key = %self.key, "Lease given back"),
                Err(error) => warn!(key = %self.key, %error, "Lease not given back; it ends by itself"),
            }
        }
        end
    }

    async fn hold_on(&self, hold: &mut Hold, claim: &mut Claim, wanted: &mut Wanted) -> End {
        let mut pace = Pace::default();
        loop {
            let pause = match claim.step() {
                Step::Rest => None,
                Step::Refuse(clash) => return End::Clash(clash),
                Step::Write { value, over, reason } => {
                    let pause = pace.not_before(Instant::now()).filter(|_| reason.is_repair());
                    if pause.is_none() {
                        if reason.is_repair() {
                            pace.repaired(Instant::now());
                        }
                        match self.write(hold, claim, value, over, reason).await {
                            Ok(()) => continue,
                            Err(end) => return end,
                        }
                    }
                    pause
                }
            };
            tokio::select! {
                notice = hold.notice() => match notice {
                    Notice::Changed(sight) => claim.saw(sight),
                    Notice::LookAgain => match hold.read().await {
                        Ok(sight) => claim.saw(sight),
                        Err(error) => return End::Broken(error),
                    },
                    Notice::LeaseLost => return End::LeaseLost,
                    Notice::Broken(error) => return End::Broken(error),
                },
                changed = wanted.changed() => match changed {
                    Ok(()) => claim.want(wanted.borrow_and_update().clone()),
                    Err(_) => return End::Left,
                },
                () = until(pause) => {}
            }
        }
    }

    async fn write(&self, hold: &mut Hold, claim: &mut Claim, value: Vec<u8>, over: i64, reason: Reason) -> Result<(), End> {
        let revision = match hold.write(&value, over).await {
            Ok(Written::At { revision }) => revision,
            Ok(Written::Beaten(sight)) => {
                claim.saw(sight);
                return Ok(());
            }
            Ok(Written::LeaseLost) => return Err(End::LeaseLost),
            Err(error) => return Err(End::Broken(error)),
        };
        let (key, lease) = (&self.key, hold.lease());
        match reason {
            Reason::Claim => info!(%key, %lease, revision, "Registered"),
            Reason::News => debug!(%key, revision, "Registration updated"),
            Reason::Vanished => warn!(%key, %lease, revision, "Registration was gone; registered again"),
            Reason::Overwritten => warn!(%key, %lease, revision, "Registration was overwritten; registered again"),
        }
        claim.wrote(value, revision);
        Ok(())
    }

    /// Without a connection: one try with every endpoint, then the lease ends by itself.
    async fn leave_unconnected(&self, lease: Option<LeaseId>) {
        let Some(lease) = lease else { return };
        let tries = async {
            for endpoint in &self.etcd.endpoints {
                match revoke(&self.etcd, endpoint, lease).await {
                    Ok(()) => return true,
                    Err(error) => debug!(%endpoint, %error, "Lease not given back"),
                }
            }
            false
        };
        match timeout(LEAVE_TIMEOUT, tries).await {
            Ok(true) => info!(key = %self.key, "Lease given back"),
            _ => warn!(key = %self.key, %lease, "Registry unreachable; the lease ends by itself"),
        }
    }
}

/// Waits until the owner of a channel is gone. On a copy, because what is said meanwhile has not been heard yet.
pub async fn dropped<T>(mut copy: watch::Receiver<T>) {
    while copy.changed().await.is_ok() {}
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A session that lived longer was a good one: the next failure starts with short waits.
const SHORT: Duration = Duration::from_secs(5);
/// Each try is a login, which costs etcd a tenth of a second, and only an administrator can change the answer.
const DENIED_WAIT: Duration = Duration::from_secs(30);
/// Nobody waits long for a registry that is away: leases end without us.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
