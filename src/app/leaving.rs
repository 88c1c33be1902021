//! The end of a process in its stages, and the way to it when another one takes over.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::signals::{Ask, Signals};
use super::upgrade::Successor;
use crate::proxy;
use crate::proxy::access_log::{AccessLog, Writer};
use crate::system::notify::ServiceManager;

/// The stages of the end, in their order.
pub struct Stop {
    pub readiness: watch::Sender<bool>,
    pub proxy: watch::Sender<bool>,
    /// What others see of this process, and what it tells them: the admin endpoint, its record, the watchdog, the
    /// certificates it orders.
    pub outside: watch::Sender<bool>,
    pub control: watch::Sender<bool>,
    pub registry: watch::Sender<bool>,
}

pub struct Stops {
    pub readiness: watch::Receiver<bool>,
    pub proxy: watch::Receiver<bool>,
    pub outside: watch::Receiver<bool>,
    pub control: watch::Receiver<bool>,
    pub registry: watch::Receiver<bool>,
}

impl Stop {
    pub fn new() -> (Self, Stops) {
        let [(readiness, a), (proxy, b), (outside, c), (control, d), (registry, e)] =
            std::array::from_fn(|_| watch::channel(false));
        let stops = Stops { readiness: a, proxy: b, outside: c, control: d, registry: e };
        (Self { readiness, proxy, outside, control, registry }, stops)
    }
}

/// What has to be waited for at the end.
pub struct Work {
    pub serving: proxy::Serving,
    pub orders: Option<JoinHandle<()>>,
    pub presence: JoinHandle<()>,
    pub reflectors: JoinHandle<()>,
    pub embedded: Option<JoinHandle<()>>,
    pub access_log: Option<AccessLog>,
    pub log_writer: Option<Writer>,
}

/// Readiness fails, listeners close, requests finish, and only then the rest goes.
pub async fn leave(stop: Stop, grace: Duration, work: Work) {
    stop.readiness.send_replace(true);
    info!(?grace, "Stopping: readiness fails now, listeners close after the grace, running requests finish");
    tokio::time::sleep(grace).await;
    stop.proxy.send_replace(true);
    work.serving.finished().await;
    drop(work.access_log);
    stop.outside.send_replace(true);
    stop.control.send_replace(true);
    if let Some(orders) = work.orders {
        ends("ACME", orders).await;
    }
    ends("presence", work.presence).await;
    ends("registry watch", work.reflectors).await;
    stop.registry.send_replace(true);
    if let Some(embedded) = work.embedded {
        ends("embedded registry", embedded).await;
    }
    if let Some(writer) = work.log_writer {
        ends("access log", tokio::task::spawn_blocking(|| writer.join())).await;
    }
}

pub async fn ends(part: &str, task: JoinHandle<()>) {
    if tokio::time::timeout(PART_ENDS_MAX, task).await.is_err() {
        warn!(part, "Did not end in time");
    }
}

/// Makes room for the process that is ready to take over. `Err`: it is gone, and this one goes on.
pub async fn hand_over(
    successor: Successor,
    stop: &Stop,
    embedded: &mut Option<JoinHandle<()>>,
    manager: &ServiceManager,
) -> Result<(), String> {
    let embedded = embedded.take();
    let closes_registry = embedded.is_some();
    if let Some(embedded) = embedded {
        // One process at a time may have its file; clients of it wait in the queue of its socket.
        stop.registry.send_replace(true);
        ends("embedded registry", embedded).await;
    }
    // It is believed from then on, and this process no more.
    manager.say(&[&format!("MAINPID={}", successor.pid)]);
    if let Err(why) = successor.take_it_all().await {
        manager.say(&[&format!("MAINPID={}", std::process::id())]);
        let lost = if closes_registry { "; the embedded registry is closed, so start this process again" } else { "" };
        return Err(format!("{why}{lost}"));
    }
    stop.readiness.send_replace(true);
    stop.outside.send_replace(true);
    Ok(())
}

/// Ready once a signal asks for the end.
pub async fn told_to_stop(signals: &mut Signals) {
    while matches!(signals.next().await, Ask::Reload | Ask::Upgrade) {}
}

const PART_ENDS_MAX: Duration = Duration::from_secs(5);
