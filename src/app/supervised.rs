//! What the service manager hears while the process lives: that it is ready, as `/readyz` means it, how it is in words, and
//! that it works, for as long as it does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, interval_at};
use tracing::{info, warn};

use super::events::InForce;
use crate::catalog::Live;
use crate::pool::Moment;
use crate::proxy::{Proxy, Pulse};
use crate::system::notify::{ServiceManager, monotonic, status};

/// Tells it until `leaving`; the watchdog is fed until `shutdown`.
pub fn follow(
    manager: ServiceManager,
    proxy: Proxy,
    live: Arc<Live>,
    in_force: watch::Receiver<InForce>,
    leaving: watch::Receiver<bool>,
    shutdown: watch::Receiver<bool>,
) -> Option<JoinHandle<()>> {
    manager.is_there().then(|| {
        let watchdog = Watchdog { pulses: proxy.pulses(), proxy, stuck: false };
        tokio::spawn(async move {
            let every = manager.watchdog();
            tokio::join!(tell(manager.clone(), live, in_force, leaving), feed(manager, every, watchdog, shutdown));
        })
    })
}

async fn tell(
    manager: ServiceManager,
    live: Arc<Live>,
    mut in_force: watch::Receiver<InForce>,
    mut leaving: watch::Receiver<bool>,
) {
    let is_known = tokio::select! {
        known = in_force.wait_for(|in_force| in_force.registry_known) => known.is_ok(),
        _ = leaving.wait_for(|leaving| *leaving) => false,
    };
    if !is_known {
        return;
    }
    let mut last = words(&live);
    manager.say(&["READY=1", &status(&last)]);
    info!("Told the service manager that this process is ready");
    let mut looks = interval(STATUS_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            _ = leaving.wait_for(|leaving| *leaving) => return,
        }
        let now = words(&live);
        if now != last {
            manager.status(&now);
            last = now;
        }
    }
}

fn words(live: &Live) -> String {
    let (snapshot, now) = (live.load(), Moment::of(Instant::now()));
    let (mut instances, mut eligible) = (0, 0);
    for (_, service) in snapshot.services.iter() {
        instances += service.pool.all().len();
        eligible += service.n_admitted(now);
    }
    let services = snapshot.services.len();
    format!("Serving: {services} services, {eligible} of {instances} instances eligible, revision {}", snapshot.revision)
}

/// The file is read again. Only for who has been ready: the end of it is told in the same words.
pub fn reloading(manager: &ServiceManager) {
    manager.say(&["RELOADING=1", &monotonic()]);
}

pub fn reloaded(manager: &ServiceManager, is_taken_over: bool) {
    let words =
        if is_taken_over { "The configuration was read again" } else { "The configuration was not taken over: see the log" };
    manager.say(&["READY=1", &status(words)]);
}

/// A thread that is stuck cannot say so; whoever listens for all of them can be silent.
struct Watchdog {
    proxy: Proxy,
    pulses: Vec<Pulse>,
    /// It was told already.
    stuck: bool,
}

impl Watchdog {
    /// Whether every worker has done something since the last look.
    fn all_work(&mut self) -> bool {
        let now = self.proxy.pulses();
        let stuck = stuck(&self.pulses, &now);
        if let (Some(worker), false) = (stuck, self.stuck) {
            warn!(worker, "A worker does nothing any more; the service manager is not told that all is well");
        }
        self.stuck = stuck.is_some();
        if !self.stuck {
            self.pulses = now;
        }
        !self.stuck
    }
}

fn stuck(before: &[Pulse], now: &[Pulse]) -> Option<usize> {
    before.iter().zip(now).position(|(before, now)| !before.has_gone_on(*now))
}

async fn feed(manager: ServiceManager, every: Option<Duration>, mut watchdog: Watchdog, mut shutdown: watch::Receiver<bool>) {
    let Some(every) = every else { return };
    // Who has taken over is believed from now on, with what is left of the time since the one before it spoke last. Nor has a
    // worker that has only begun done anything yet.
    manager.say(&["WATCHDOG=1"]);
    // As sd_watchdog_enabled(3) advises; not so often that no worker could have come by.
    let every = (every / 2).max(FED_EVERY_MIN);
    let mut ticks = interval_at(tokio::time::Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = shutdown.wait_for(|stop| *stop) => return,
        }
        if watchdog.all_work() {
            manager.say(&["WATCHDOG=1"]);
        }
    }
}

const STATUS_EVERY: Duration = Duration::from_secs(5);
/// Twice as long as a worker takes between two beats.
const FED_EVERY_MIN: Duration = Duration::from_millis(200);
