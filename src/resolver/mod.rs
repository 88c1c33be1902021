//! FLOOR 4. Looks up the DNS names that stand in instances' addresses, in the background.
//!
//! 1. The catalog says which names are in use; each has its own task.
//! 2. A task asks the system's resolver (so `/etc/hosts` and search domains hold) at once and then every `INTERVAL`.
//! 3. What it finds goes to the catalog. A failed look-up is logged when it begins and when it ends, and changes
//!    nothing: the last good address stays in use.
//!
//! Invariants: a name that cannot be looked up never delays another; nobody waits for DNS on the request path.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use tracing::{info, warn};

use crate::catalog::Resolution;

/// Keeps one task per name in use, until shutdown.
pub async fn run(
    mut names: watch::Receiver<BTreeSet<Arc<str>>>,
    resolutions: mpsc::Sender<Resolution>,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut tasks: BTreeMap<Arc<str>, AbortOnDrop> = BTreeMap::new();
    let asking = Arc::new(Semaphore::new(ASKING_MAX));
    loop {
        let wanted = names.borrow_and_update().clone();
        tasks.retain(|name, _| wanted.contains(name));
        for name in wanted {
            tasks.entry(name.clone()).or_insert_with(|| {
                let task = follow(name, resolutions.clone(), asking.clone());
                AbortOnDrop(tokio::spawn(task).abort_handle())
            });
        }
        tokio::select! {
            changed = names.changed() => if changed.is_err() { return },
            _ = shutdown.wait_for(|stop| *stop) => return,
        }
    }
}

async fn follow(name: Arc<str>, resolutions: mpsc::Sender<Resolution>, asking: Arc<Semaphore>) {
    let mut failing = false;
    let mut last = Vec::new();
    loop {
        let found = {
            let Ok(_permit) = asking.acquire().await else { return };
            look_up(&name).await
        };
        match found {
            Ok(addresses) => {
                if std::mem::take(&mut failing) {
                    info!(%name, "Name resolves again");
                }
                if addresses != last {
                    last.clone_from(&addresses);
                    if resolutions.send(Resolution { name: name.clone(), addresses }).await.is_err() {
                        return;
                    }
                }
            }
            Err(reason) if !failing => {
                failing = true;
                warn!(%name, reason, last_known = ?last, "Name cannot be resolved; its last address stays in use");
            }
            Err(_) => {}
        }
        tokio::time::sleep(INTERVAL.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
    }
}

/// Sorted and without doubles, so that the order of the answer makes no difference.
async fn look_up(name: &str) -> Result<Vec<IpAddr>, String> {
    let answer = tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((name, 0))).await;
    let found = answer.map_err(|_| format!("no answer within {TIMEOUT:?}"))?.map_err(|e| e.to_string())?;
    let addresses: BTreeSet<IpAddr> = found.map(|a| a.ip()).collect();
    if addresses.is_empty() { Err("the name has no address".into()) } else { Ok(addresses.into_iter().collect()) }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

const INTERVAL: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(5);
/// The system's resolver blocks a thread for each question.
const ASKING_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_in_use_is_looked_up_even_beside_one_that_cannot_be() {
        let names = BTreeSet::from([Arc::from("localhost"), Arc::from("no-such-name.invalid")]);
        let (_names, wanted) = watch::channel(names);
        let (resolutions, mut found) = mpsc::channel(4);
        let (_stop, shutdown) = watch::channel(false);
        let task = tokio::spawn(run(wanted, resolutions, shutdown));
        let first = tokio::time::timeout(Duration::from_secs(10), found.recv()).await.unwrap().unwrap();
        assert_eq!(&*first.name, "localhost");
        assert!(first.addresses.iter().all(IpAddr::is_loopback));
        task.abort();
    }
}
