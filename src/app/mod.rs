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

mod drains;
mod events;
mod failure;
mod file;
mod follow;
mod opening;
mod presence;
mod reading;
mod signals;
mod supervised;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::catalog::{self, Catalog, History, Live};
use crate::config::{AccessLogConfig, AddressGuard, Config, EmbeddedConfig, EtcdConfig, ProcessConfig, RegistryKind};
use crate::proxy::access_log::{AccessLog, Writer};
use crate::registry::Prefix;
use crate::system::notify::ServiceManager;
use crate::system::passed;
use crate::system::privileges::{self, Account};
use crate::{acme, admin, certs, embedded, prober, proxy, resolver};
use drains::Drains;
use events::InForce;
pub use failure::StartError;
use follow::Following;
use opening::Opened;
use signals::{Ask, Signals};

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

/// Runs the proxy until a signal ends it. `on_ready` is called once, on this thread, when requests are served.
pub fn run(config: Config, reload: Reload, on_ready: impl FnOnce(&Bound)) -> Result<(), StartError> {
    // Two libraries bring a provider each; whoever comes first would decide.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let manager = ServiceManager::of_environment().map_err(StartError::Notify)?;
    let opened = opening::open(&config, passed::take().map_err(StartError::PassedSocket)?)?;
    give_up_privileges(&config.process, &reload)?;
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    let ended = control.block_on(serve(config, opened, manager, reload, on_ready));
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
    reload: Reload,
    on_ready: impl FnOnce(&Bound),
) -> Result<(), StartError> {
    let Opened { proxy: sockets, admin: admin_listener, registry: registry_listener } = opened;
    let mut signals = Signals::listen().map_err(StartError::Runtime)?;
    let access = admin::Access::new(&config.admin).map_err(StartError::Access)?;
    let admin_listener = TcpListener::from_std(admin_listener).map_err(StartError::Runtime)?;
    let (access_log, log_writer) = access_log(config.log.access.as_ref())?;
    // The control work ends last: the proxy's last requests still need it.
    let (stop, stops) = Stop::new();
    let (etcd, embedded) = registry_of(&config, registry_listener, stops.registry.clone())?;
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
    let kind = if embedded.is_some() { "embedded" } else { "etcd" };
    let following = Arc::new(Following::new(&config.registry, kind, guard.clone()));
    let drains = Arc::new(Mutex::new(Drains::default()));
    let proxy = proxy::Proxy::new(live.clone(), &config.proxy, access_log.clone(), &config.listeners);
    let prober = prober::Prober::start(live.clone(), stops.control.clone()).map_err(StartError::Runtime)?;
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
        prober,
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
    let reflectors = following.start(&etcd, &send_events, &stops.control);
    tokio::spawn(admin::serve(admin_listener, sources, stops.control.clone()));
    info!(address = %bound.admin, "Admin endpoint listens");

    manager.status("Waiting for the registry: routing is not known");
    if tokio::time::timeout(STARTUP_WAIT, known(in_force.clone())).await.is_err() {
        warn!(waited = ?STARTUP_WAIT, "The registry has not answered yet; serving what the file declares");
    }
    let serving = proxy.serve(sockets, stops.proxy).map_err(StartError::Runtime)?;
    let (readiness, leaving) = (in_force.clone(), stops.readiness.clone());
    supervised::follow(manager.clone(), proxy.clone(), live.clone(), readiness.clone(), leaving, stops.control.clone());
    // The access log ends with the last who may write to it.
    drop(proxy);
    let orders = config.acme.clone().map(|wanted| {
        let registry = (etcd, Prefix::new(&config.registry.prefix));
        acme::start(wanted, registry, presence::id_of(&bound), acme_status, stops.control.clone())
    });
    let presence = presence::announce(&config, &bound, started_at, in_force, drains, stops.control);
    for address in &bound.listeners {
        info!(%address, "Proxy listens");
    }
    on_ready(&bound);

    let ask = loop {
        match signals.next().await {
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
            ask => break ask,
        }
    };
    manager.say(&["STOPPING=1", "STATUS=Stopping: running requests finish"]);
    let grace = if ask == Ask::Stop { config.proxy.shutdown.grace } else { Duration::ZERO };
    let work = Work { serving, orders, presence, reflectors, embedded, log_writer, access_log };
    tokio::select! {
        () = leave(stop, grace, work) => info!("Stopped; every request that ran has ended or had its time"),
        () = again(&mut signals) => warn!("Told twice, so it stops at once"),
    }
    Ok(())
}

/// The stages of the end, in their order.
struct Stop {
    readiness: watch::Sender<bool>,
    proxy: watch::Sender<bool>,
    control: watch::Sender<bool>,
    registry: watch::Sender<bool>,
}

struct Stops {
    readiness: watch::Receiver<bool>,
    proxy: watch::Receiver<bool>,
    control: watch::Receiver<bool>,
    registry: watch::Receiver<bool>,
}

impl Stop {
    fn new() -> (Self, Stops) {
        let [(readiness, a), (proxy, b), (control, c), (registry, d)] = std::array::from_fn(|_| watch::channel(false));
        (Self { readiness, proxy, control, registry }, Stops { readiness: a, proxy: b, control: c, registry: d })
    }
}

/// What has to be waited for at the end.
struct Work {
    serving: proxy::Serving,
    orders: Option<JoinHandle<()>>,
    presence: JoinHandle<()>,
    reflectors: JoinHandle<()>,
    embedded: Option<JoinHandle<()>>,
    access_log: Option<AccessLog>,
    log_writer: Option<Writer>,
}

/// Readiness fails, listeners close, requests finish, and only then the rest goes.
async fn leave(stop: Stop, grace: Duration, work: Work) {
    stop.readiness.send_replace(true);
    info!(?grace, "Stopping: readiness fails now, listeners close after the grace, running requests finish");
    tokio::time::sleep(grace).await;
    stop.proxy.send_replace(true);
    work.serving.finished().await;
    drop(work.access_log);
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

async fn ends(part: &str, task: JoinHandle<()>) {
    if tokio::time::timeout(PART_ENDS_MAX, task).await.is_err() {
        warn!(part, "Did not end in time");
    }
}

/// Ready once another signal asks for the end.
async fn again(signals: &mut Signals) {
    while signals.next().await == Ask::Reload {}
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

/// How to reach the registry, and the embedded one's task.
fn registry_of(
    config: &Config,
    listener: Option<std::net::TcpListener>,
    shutdown: watch::Receiver<bool>,
) -> Result<(EtcdConfig, Option<JoinHandle<()>>), StartError> {
    let (data, listener) = match (&config.registry.kind, listener) {
        (RegistryKind::Etcd(etcd), _) => return Ok((etcd.clone(), None)),
        (RegistryKind::Embedded(EmbeddedConfig { data, .. }), Some(listener)) => (data, listener),
        (RegistryKind::Embedded(_), None) => unreachable!("its socket is opened with the others"),
    };
    let listener = TcpListener::from_std(listener).map_err(StartError::Runtime)?;
    let address = listener.local_addr().map_err(StartError::Runtime)?;
    let options = embedded::Options { data: data.clone(), ..embedded::Options::default() };
    let registry = embedded::Registry::open(options).map_err(StartError::Embedded)?;
    info!(%address, "Embedded registry listens: for one machine; a cluster uses etcd");
    let task = tokio::spawn(async move {
        if let Err(error) = registry.serve(listener, shutdown).await {
            warn!(%error, "The embedded registry ended");
        }
    });
    let endpoints = vec![format!("http://{address}")];
    Ok((EtcdConfig::plain(endpoints), Some(task)))
}

const EMBEDDED: &str = "embedded registry";
/// Control work is small; two threads, so that a long list cannot hold up an admin's question.
const CONTROL_THREADS: usize = 2;
/// Events waiting for the catalog. When full we stop reading etcd, which keeps them for us.
const EVENTS_WAITING_MAX: usize = 64;
const STARTUP_WAIT: Duration = Duration::from_secs(3);
const PART_ENDS_MAX: Duration = Duration::from_secs(5);
const LEFTOVERS: Duration = Duration::from_millis(200);
