//! A running proxy's own record, `/proxies/ID`: there while it lives, gone at once when it ends cleanly.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

use super::claim::Claim;
use super::keep::{Keep, dropped};
use crate::config::EtcdConfig;
use crate::model::InstanceId;
use crate::registry::{Key, Prefix};
use crate::wire::{Presence, presence_json};

/// Writes what `presence` holds now and whenever it changes, at most once a second. Ends, and takes the record away,
/// when the sender of `presence` is dropped.
pub async fn announce(etcd: EtcdConfig, prefix: Prefix, id: InstanceId, mut presence: watch::Receiver<Presence>) {
    let key = prefix.key(&Key::Proxy(id));
    // The id is the proxy's own, so whatever stands there is an earlier life of it.
    let claim = Claim::new(false, Box::new(|_| true));
    let keep = Keep { etcd, key, ttl: TTL };
    let record = |presence: &Presence| Some(presence_json(presence).to_string().into_bytes());
    let (say, wanted) = watch::channel(record(&presence.borrow_and_update()));
    let say_on_change = async move {
        while presence.changed().await.is_ok() {
            say.send_replace(record(&presence.borrow_and_update()));
            tokio::select! {
                () = sleep(WRITE_INTERVAL) => {}
                // The record goes at once, not after the pause.
                () = dropped(presence.clone()) => return,
            }
        }
    };
    if let (Err(clash), ()) = tokio::join!(keep.run(claim, wanted), say_on_change) {
        warn!(?clash, "Presence not announced");
    }
}

/// A dead proxy must not hold up `pointsman drain --wait` for long, nor a slow etcd take a living one away.
const TTL: Duration = Duration::from_secs(15);
/// What the registry has to take from each proxy at most: one write in it.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);
