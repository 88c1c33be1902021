//! FLOOR 6. The wiring of the proxy process: builds every part and hands each what it needs. The one place that names all rooms.
//!
//! 1. Sockets are bound first, or were passed, so that a busy port is an error message and nothing else; then privileges
//!    go that nobody needs any more, before there is a second thread.
//! 2. The control runtime starts the embedded registry if there is one, the catalog, the reflectors, the resolver, the
//!    admin endpoint, the presence and who orders certificates; the workers of the proxy and the prober have threads and runtimes of their own.
//! 3. The file's declarations and its certificates go down the same channel as the registry's.
//! 4. The workers accept once routing is known, at the latest after `STARTUP_WAIT`: until then connections wait in the
//!    kernel's queue instead of being refused.
//! 5. A signal ends it in this order: readiness, grace, listeners, requests, presence, registry.
//! 6. Or another process takes over (`upgrade`, `predecessor`): that one has come as far as step 4 before the first gives up
//!    its sockets, and goes on from there; the first ends as in step 5 once its clients have gone.

mod drains;
mod events;
mod failure;
mod file;
mod follow;
mod inside;
mod leaving;
mod opening;
mod predecessor;
mod presence;
mod reading;
mod signals;
mod supervised;
mod upgrade;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::catalog::{self, Catalog, History, Live};
use crate::config::{AccessLogConfig, AddressGuard, Config, EtcdConfig, ProcessConfig};
use crate::proxy::access_log::{AccessLog, Writer};
use crate::registry::Prefix;
use crate::system::notify::ServiceManager;
use crate::system::passed;
use crate::system::privileges::{self, Account};
use crate::{acme, admin, certs, prober, proxy, resolver};
use drains::Drains;
use events::InForce;
pub use failure::StartError;
use follow::Following;
use inside::Inside;
use leaving::{Stop, Work, hand_over, leave, told_to_stop};
use opening::{Opened, Passed};
pub use predecessor::Predecessor;
use signals::{Ask, Signals};
pub use upgrade::Program;
use upgrade::{Kept, Upgrades, Upgrading};

/// Where a started process can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    pub listeners: Vec<SocketAddr>,
    pub admin: SocketAddr,
    /// As etcd clients reach it; the embedded registry's own address when that is in use.
    pub registry: EtcdConfig,
}

/// Reads the configuration again; `Err` says what is wrong with it, a line each.
pub type Reload = Box<dyn Fn() -> Result<Config, String> + Send>;

/// How this process came to be, and could come to be again.
pub struct Start {
    pub reload: Reload,
    /// What is started in an upgrade; `None`: this process is not replaced by another.
    pub program: Option<Program>,
    /// Who serves until this process does.
    pub predecessor: Option<Predecessor>,
}

/// Runs the proxy until a signal ends it, or another process has taken over. `on_ready` is called once, on this thread, when
/// requests are served.
pub fn run(config: Config, start: Start, on_ready: impl FnOnce(&Bound)) -> Result<(), StartError> {
    // Two libraries bring a provider each; whoever comes first would decide.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let manager = ServiceManager::of_environment().map_err(StartError::Notify)?;
    let passed = match &start.predecessor {
        Some(predecessor) => Passed::ByPredecessor(predecessor.sockets()?),
        None => Passed::ByServiceManager(passed::take().map_err(StartError::PassedSocket)?),
    };
    let opened = opening::open(&config, passed)?;
    give_up_privileges(&config.process, &start.reload)?;
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    let ended = control.block_on(serve(config, opened, manager, start, on_ready));
    // What still runs has had its time: a look-up in DNS, a connection to the admin endpoint.
    control.shutdown_timeout(LEFTOVERS);
    ended
}

/// From here on this process has no more rights than it needs; then nothing can be opened that needs more, so that is tried.
fn give_up_privileges(process: &ProcessConfig, reload: &Reload) -> Result<(), StartError> {
    let find = |user: &String| Account::find(user, process.group.as_deref());
    let account = process.user.as_ref().map(find).transpose().map_err(StartError::Privileges)?;
    let standing = privileges::give_up(account.as_ref(), process.core_dumps).map_err(StartError::Privileges)?;
    info!(uid = %standing.uid, gid = %standing.gid, "Privileges given up");
    match &process.user {
        Some(user) => {
            reload().map_err(|problems| StartError::Unreadable { user: user.clone(), problems })?;
        }
        None if standing.uid.is_root() => warn!("This process stays root; --user says who to be once the sockets are bound"),
        None => {}
    }
    Ok(())
}

async fn serve(
    config: Config,
    opened: Opened,
    manager: ServiceManager,
    start: Start,
    on_ready: impl FnOnce(&Bound),
) -> Result<(), StartError> {
    let Start { reload, program, predecessor } = start;
    let kept = Kept::of(&opened, &config).map_err(StartError::Runtime)?;
    let Opened { proxy: sockets, admin: admin_listener, registry: registry_listener } = opened;
    let mut signals = Signals::listen().map_err(StartError::Runtime)?;
    let access = admin::Access::new(&config.admin).map_err(StartError::Access)?;
    let admin_listener = TcpListener::from_std(admin_listener).map_err(StartError::Runtime)?;
    let (access_log, log_writer) = access_log(config.log.access.as_ref())?;
    // The control work ends last: the proxy's last requests still need it.
    let (stop, stops) = Stop::new();
    let (etcd, inside) = inside::registry_of(&config, registry_listener)?;
    let bound = Bound {
        listeners: sockets.addresses().to_vec(),
        admin: admin_listener.local_addr().map_err(StartError::Runtime)?,
        registry: etcd.clone(),
    };

    let started_at = SystemTime::now();
    let (live, history) = (Arc::new(Live::default()), Arc::new(History::default()));
    let mut guard = AddressGuard::new(config.registry.allow_addresses.clone());
    guard.own(&etcd, bound.admin, bound.listeners.iter().copied());
    let guard = Arc::new(guard);
    let kind = if inside.is_some() { "embedded" } else { "etcd" };
    let following = Arc::new(Following::new(&config.registry, kind, guard.clone()));
    let (drains, upgrades) = (Arc::new(Mutex::new(Drains::default())), Arc::new(Upgrades::default()));
    let trusts = Arc::default();
    let proxy = proxy::Proxy::new(live.clone(), &trusts, &config.proxy, access_log.clone(), &config.listeners);
    let prober = prober::Prober::start(live.clone(), trusts, stops.control.clone()).map_err(StartError::Runtime)?;
    let acme_status = Arc::new(acme::Status::default());
    let (cert_files, from_files) = certs::Files::first(&config.listeners, started_at);
    let sources = Arc::new(reading::sources(reading::Parts {
        live: &live,
        history: &history,
        following: &following,
        proxy: &proxy,
        prober: &prober,
        access,
        listeners: &bound.listeners,
        drains: &drains,
        upgrades: &upgrades,
        leaving: &stops.readiness,
        terminating: &terminating(&config, &bound),
        rejected_files: cert_files.rejected(),
        acme: config.acme.as_ref().map(|_| acme_status.clone()),
        started_at,
    }));

    let (send_events, events) = mpsc::channel(EVENTS_WAITING_MAX);
    let (send_resolutions, resolutions) = mpsc::channel(EVENTS_WAITING_MAX);
    let (send_names, names) = watch::channel(Default::default());
    let (send_in_force, in_force) = watch::channel(InForce::default());
    let after_swap = events::AfterSwap {
        live: live.clone(),
        proxy: proxy.clone(),
        prober: prober.clone(),
        drains: drains.clone(),
        timings: sources.timings.clone(),
        names: send_names,
        in_force: send_in_force,
    };
    let (mut file, from_file) = file::FileDeclarations::first(&config);
    for first in [from_files, from_file] {
        if send_events.send(first).await.is_err() {
            unreachable!("the catalog's end of the channel is still ours");
        }
    }
    let catalog = Catalog::new(live.clone(), history)
        .with_sources(config.registry.sources.len())
        .with_secret(config.proxy.sticky_secret.clone())
        .guarded_by(guard)
        .in_zone(config.proxy.zone.clone());
    tokio::spawn(catalog::run(catalog, events, resolutions, move |a, took| after_swap.tell(a, took), stops.control.clone()));
    tokio::spawn(resolver::run(names, send_resolutions, stops.control.clone()));
    let (send_listeners, listeners) = watch::channel(config.listeners.clone());
    tokio::spawn(certs::run(cert_files, listeners, send_events.clone(), stops.control.clone()));
    let open = |inside: Option<Inside>| inside.map(|inside| inside.open(stops.registry.clone())).transpose();
    let answer = |listener, sources| {
        tokio::spawn(admin::serve(listener, sources, stops.outside.clone()));
        info!(address = %bound.admin, "Admin endpoint listens");
    };
    let (reflectors, mut embedded);
    match &predecessor {
        None => {
            embedded = open(inside)?;
            reflectors = following.start(&etcd, &send_events, &stops.control);
            answer(admin_listener, sources);
            manager.status("Waiting for the registry: routing is not known");
            if tokio::time::timeout(STARTUP_WAIT, known(in_force.clone())).await.is_err() {
                warn!(waited = ?STARTUP_WAIT, "The registry has not answered yet; serving what the file declares");
            }
        }
        Some(predecessor) => {
            reflectors = following.start(&etcd, &send_events, &stops.control);
            let limit = config.process.upgrade_timeout;
            let ready = tokio::time::timeout(limit, async { tokio::join!(known(in_force.clone()), prober.first_round()) });
            ready.await.map_err(|_| StartError::NotReady(limit))?;
            predecessor.take_over().await?;
            upgrades.count_taken_over();
            info!("Took over: the sockets of the process before this one are served from here");
            embedded = open(inside)?;
            answer(admin_listener, sources);
        }
    }
    let serving = proxy.serve(sockets, stops.proxy).map_err(StartError::Runtime)?;
    let (readiness, leaving) = (in_force.clone(), stops.readiness.clone());
    supervised::follow(manager.clone(), proxy.clone(), live.clone(), readiness.clone(), leaving, stops.outside.clone());
    let announce = |id, stop: &watch::Receiver<bool>| {
        presence::announce(&config, &bound, id, started_at, in_force.clone(), drains.clone(), stop.clone())
    };
    let mut presence = announce(presence::id_of(&bound), &stops.outside);
    let orders = config.acme.clone().map(|wanted| {
        let registry = (etcd, Prefix::new(&config.registry.prefix));
        acme::start(wanted, registry, presence::id_of(&bound), acme_status, stops.outside.clone())
    });
    for address in &bound.listeners {
        info!(%address, "Proxy listens");
    }
    on_ready(&bound);

    let mut upgrading = Upgrading::new(program, upgrades, manager.clone(), config.process.upgrade_timeout);
    let ask = loop {
        let ask = tokio::select! {
            ask = signals.next() => ask,
            successor = upgrading.settled() => {
                match hand_over(successor, &stop, &mut embedded, &manager).await {
                    Ok(()) => break None,
                    Err(why) => upgrading.refused(&why),
                }
                continue;
            }
        };
        match ask {
            Ask::Upgrade => upgrading.begin(&kept),
            Ask::Reload => {
                // Who has not been ready yet cannot become it by reading a file.
                let was_ready = readiness.borrow().registry_known;
                if was_ready {
                    supervised::reloading(&manager);
                }
                if let Some(log) = &access_log {
                    log.reopen();
                }
                let taken_over = match reload() {
                    Ok(next) => {
                        file::warn_of_restart(&config, &next);
                        // The catalog only ends after this loop.
                        let _ = send_events.send(file.changed(&next)).await;
                        send_listeners.send_replace(next.listeners);
                        true
                    }
                    Err(problems) => {
                        warn!(problems, "The configuration was not taken over; the one in force stays");
                        false
                    }
                };
                if was_ready {
                    supervised::reloaded(&manager, taken_over);
                }
            }
            Ask::Stop | Ask::StopNow => break Some(ask),
        }
    };
    drop(upgrading);
    // Or it would be connected to after the workers have closed theirs.
    drop(kept);
    if ask.is_some() {
        manager.say(&["STOPPING=1", "STATUS=Stopping: running requests finish"]);
    } else {
        proxy.part();
        let before = std::mem::replace(&mut presence, announce(presence::id_while_parting(&bound), &stops.control));
        info!(pid = std::process::id(), "Handed over; what is open here goes on, and nothing new is accepted");
        let most = config.proxy.limits.keep_alive;
        tokio::select! {
            () = proxy.deserted() => {}
            () = tokio::time::sleep(most) => info!(waited = ?most, "Some clients had nothing more to ask; draining"),
            () = told_to_stop(&mut signals) => {}
        }
        leaving::ends("presence", before).await;
    }
    // The access log ends with the last who may write to it.
    drop(proxy);
    let grace = if ask == Some(Ask::Stop) { config.proxy.shutdown.grace } else { Duration::ZERO };
    let work = Work { serving, orders, presence, reflectors, embedded, log_writer, access_log };
    tokio::select! {
        () = leave(stop, grace, work) => info!("Stopped; every request that ran has ended or had its time"),
        () = told_to_stop(&mut signals) => warn!("Told twice, so it stops at once"),
    }
    Ok(())
}

/// Ready once the catalog has applied something that the registry and each source said.
async fn known(mut in_force: watch::Receiver<InForce>) {
    // An error means that the catalog has ended, and so has the process.
    let _ = in_force.wait_for(|in_force| in_force.registry_known).await;
}

fn access_log(config: Option<&AccessLogConfig>) -> Result<(Option<AccessLog>, Option<Writer>), StartError> {
    let Some(config) = config else { return Ok((None, None)) };
    let (log, writer) = AccessLog::open(config).map_err(|error| {
        let file = config.file.as_ref().map(|f| f.display().to_string()).unwrap_or_default();
        StartError::AccessLog(file, error)
    })?;
    Ok((Some(log), Some(writer)))
}

/// Listeners with TLS, by their place in the configuration.
fn terminating(config: &Config, bound: &Bound) -> Vec<(usize, SocketAddr)> {
    let all = config.listeners.iter().zip(&bound.listeners).enumerate();
    all.filter(|(_, (listener, _))| listener.tls.is_some()).map(|(n, (_, address))| (n, *address)).collect()
}

const EMBEDDED: &str = "embedded registry";
/// Control work is small; two threads, so that a long list cannot hold up an admin's question.
const CONTROL_THREADS: usize = 2;
/// Events waiting for the catalog. When full we stop reading etcd, which keeps them for us.
const EVENTS_WAITING_MAX: usize = 64;
const STARTUP_WAIT: Duration = Duration::from_secs(3);
const LEFTOVERS: Duration = Duration::from_millis(200);
