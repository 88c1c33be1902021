//! Tells the registry that this proxy lives, which revision it routes by and who has finished draining here.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::Bound;
use super::drains::{Drains, Looked};
use super::events::InForce;
use crate::config::Config;
use crate::model::InstanceId;
use crate::pool::Moment;
use crate::registrar;
use crate::registry::Prefix;
use crate::wire::Presence;

/// Announces until `shutdown`; the task ends once the record is gone again.
pub fn announce(
    config: &Config,
    bound: &Bound,
    id: InstanceId,
    started_at: SystemTime,
    in_force: watch::Receiver<InForce>,
    drains: Arc<Mutex<Drains>>,
    shutdown: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let first = Presence {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at,
        addresses: bound.listeners.iter().map(ToString::to_string).collect(),
        admin: Some(bound.admin.to_string()),
        applied_revision: 0,
        drained: Vec::new(),
        busy: Vec::new(),
    };
    let (say, said) = watch::channel(first);
    let prefix = Prefix::new(&config.registry.prefix);
    let announced = registrar::announce(bound.registry.clone(), prefix, id, said);
    tokio::spawn(async move {
        tokio::join!(announced, follow(say, in_force, drains, shutdown));
    })
}

/// Ends, and drops `say`, on shutdown.
async fn follow(
    say: watch::Sender<Presence>,
    mut in_force: watch::Receiver<InForce>,
    drains: Arc<Mutex<Drains>>,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut look = interval(LOOK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = in_force.changed() => if changed.is_err() { return },
            _ = look.tick() => {}
            _ = shutdown.wait_for(|stop| *stop) => return,
        }
        let applied_revision = in_force.borrow_and_update().revision;
        let looked = drains.lock().unwrap_or_else(PoisonError::into_inner).look(Moment::of(Instant::now()));
        let Looked { drained, busy } = looked;
        say.send_if_modified(|presence| {
            let is_new = presence.applied_revision != applied_revision || presence.drained != drained || presence.busy != busy;
            if is_new {
                *presence = Presence { applied_revision, drained, busy, ..presence.clone() };
            }
            is_new
        });
    }
}

/// Of this host and listener, so that a restart takes its own record over.
pub fn id_of(bound: &Bound) -> InstanceId {
    let host = registrar::hostname().unwrap_or_default();
    let port = bound.listeners.first().map_or(0, |address| address.port());
    let named = InstanceId::parse(&format!("{host}-{port}"));
    named.or_else(|_| InstanceId::parse(&format!("proxy-{port}"))).unwrap_or_else(|_| unreachable!("digits make a name"))
}

/// Of a process that has handed over and drains: its successor has the other id.
pub fn id_while_parting(bound: &Bound) -> InstanceId {
    let named = InstanceId::parse(&format!("{}.{}", id_of(bound), std::process::id()));
    named.unwrap_or_else(|_| id_of(bound))
}

/// How often draining instances are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
