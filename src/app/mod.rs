//! FLOOR 6. The wiring of the proxy process: builds every part and hands each what it needs. The one place that names all rooms.
//!
//! 1. Sockets are bound first, so that a busy port is an error message and nothing else.
//! 2. The control runtime starts the embedded registry if there is one, the catalog, the reflector, the resolver, the
//!    admin endpoint and the presence; the workers of the proxy have threads and runtimes of their own.
//! 3. The file's declarations go down the same channel as the registry's.
//! 4. The workers accept once routing is known, at the latest after `STARTUP_WAIT`: until then connections wait in the
//!    kernel's queue instead of being refused.
//! 5. A signal ends it in this order: readiness, grace, listeners, requests, presence, registry.

mod drains;
mod events;
mod file;
mod presence;
mod reading;
mod signals;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::catalog::{self, Catalog, History, Live};
use crate::config::{Config, EmbeddedConfig, EtcdConfig, RegistryKind};
use crate::registry::RegistryStatus;
use crate::{admin, embedded, proxy, registry, resolver};
use signals::{Ask, Signals};

/// Where a started process can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    pub listeners: Vec<SocketAddr>,
    pub admin: SocketAddr,
    /// As etcd clients write it; the embedded registry's own when it is in use.
    pub registry: EtcdConfig,
}

/// Reads the configuration again; `Err` says what is wrong with it, a line each.
pub type Reload = Box<dyn Fn() -> Result<Config, String> + Send>;

/// Runs the proxy until a signal ends it. `on_ready` is called once, when requests are served.
pub fn run(config: Config, reload: Reload, on_ready: impl FnOnce(&Bound) + Send) -> Result<(), StartError> {
    let sockets = proxy::bind(&config.listeners, config.proxy.workers).map_err(StartError::Bind)?;
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    let ended = control.block_on(serve(config, sockets, reload, on_ready));
    // What still runs now has had its time: look-ups in DNS, a connection to the admin endpoint.
    control.shutdown_timeout(LEFTOVERS);
    ended
}

async fn serve(
    config: Config,
    sockets: proxy::Sockets,
    reload: Reload,
    on_ready: impl FnOnce(&Bound) + Send,
) -> Result<(), StartError> {
    let mut signals = Signals::listen().map_err(StartError::Runtime)?;
    let admin_listener = listen(config.admin.address).await.map_err(|e| StartError::Listen("admin", config.admin.address, e))?;
    // Turned true last: the control work serves until the proxy has finished.
    let (stop_control, control_stops) = watch::channel(false);
    let (stop_proxy, proxy_stops) = watch::channel(false);

    let (etcd, embedded) = registry_of(&config, control_stops.clone()).await?;
    let bound = Bound {
        listeners: sockets.addresses().to_vec(),
        admin: admin_listener.local_addr().map_err(StartError::Runtime)?,
        registry: etcd.clone(),
    };

    let (live, history) = (Arc::new(Live::default()), Arc::new(History::default()));
    let status = Arc::new(RegistryStatus::new(if embedded.is_some() { "embedded" } else { "etcd" }));
    let proxy = Arc::new(proxy::Proxy::new(live.clone(), &config, sockets.addresses()).map_err(StartError::Proxy)?);
    let (send_events, events) = mpsc::channel(EVENTS_WAITING_MAX);
    let (send_resolutions, resolutions) = mpsc::channel(EVENTS_WAITING_MAX);
    let (send_names, names) = watch::channel(Default::default());

    let sources = Arc::new(reading::sources(&config, &live, &history, &status, &proxy, &proxy_stops));
    let (send_presence, drains) = presence::announce(&config, &bound, live.clone(), etcd.clone(), control_stops.clone());
    let after_swap = events::AfterSwap {
        proxy: proxy.clone(),
        drains,
        timings: sources.timings.clone(),
        names: send_names,
        presence: send_presence,
    };
    let catalog = Catalog::new(live.clone(), history.clone());
    let (mut file, from_file) = file::FileDeclarations::first(&config);
    send_events.send(from_file).await.map_err(|_| StartError::Runtime(io::ErrorKind::BrokenPipe.into()))?;

    tokio::spawn(catalog::run(catalog, events, resolutions, move |a, took| after_swap.tell(a, took), control_stops.clone()));
    tokio::spawn(resolver::run(names, send_resolutions, control_stops.clone()));
    tokio::spawn(reflect(config.clone(), etcd, send_events.clone(), status.clone(), control_stops.clone()));
    tokio::spawn(admin::serve(admin_listener, sources.clone(), control_stops.clone()));

    if tokio::time::timeout(STARTUP_WAIT, known(&live)).await.is_err() {
        warn!(waited = ?STARTUP_WAIT, "The registry has not answered yet; serving what the file declares");
    }
    let serving = proxy.clone().serve(sockets, proxy_stops);
    for address in &bound.listeners {
        info!(%address, "Proxy listens");
    }
    info!(address = %bound.admin, "Admin endpoint listens");
    on_ready(&bound);

    let ask = loop {
        match signals.next().await {
            Ask::Reload => {
                proxy.reopen_logs();
                match reload() {
                    Ok(next) => {
                        file::warn_of_restart(&config, &next);
                        let _ = send_events.send(file.changed(&next)).await;
                    }
                    Err(problems) => warn!(%problems, "The configuration was not read again; the one in force stays"),
                }
            }
            ask => break ask,
        }
    };
    let grace = if ask == Ask::Stop { config.proxy.shutdown.grace } else { Duration::ZERO };
    let leave = leave(&sources, grace, stop_proxy, serving, stop_control, embedded);
    tokio::select! {
        () = leave => info!("Stopped; every request that ran has ended or had its time"),
        () = again(&mut signals) => warn!("Told twice, so it stops at once"),
    }
    Ok(())
}

/// Readiness fails, listeners close, requests finish, and only then the rest goes.
async fn leave(
    sources: &admin::Sources,
    grace: Duration,
    stop_proxy: watch::Sender<bool>,
    serving: proxy::Serving,
    stop_control: watch::Sender<bool>,
    embedded: Option<JoinHandle<()>>,
) {
    sources.stopping.send_replace(true);
    info!(?grace, "Stopping: readiness fails, running requests finish");
    tokio::time::sleep(grace).await;
    stop_proxy.send_replace(true);
    serving.ended().await;
    stop_control.send_replace(true);
    if let Some(embedded) = embedded
        && tokio::time::timeout(EMBEDDED_CLOSE_MAX, embedded).await.is_err()
    {
        warn!("The embedded registry did not close in time");
    }
}

async fn again(signals: &mut Signals) {
    while signals.next().await == Ask::Reload {}
}

/// Ready once the catalog has applied something the registry said.
async fn known(live: &Live) {
    while !live.load().registry_known {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn reflect(
    config: Config,
    etcd: EtcdConfig,
    events: mpsc::Sender<crate::model::Event>,
    status: Arc<RegistryStatus>,
    shutdown: watch::Receiver<bool>,
) {
    let snapshot = config.registry.snapshot.as_deref();
    registry::run(&etcd, &config.registry.prefix, snapshot, events, status, shutdown).await;
}

/// How to reach the registry, and the embedded one's task.
async fn registry_of(
    config: &Config,
    shutdown: watch::Receiver<bool>,
) -> Result<(EtcdConfig, Option<JoinHandle<()>>), StartError> {
    let EmbeddedConfig { listen: address, data } = match &config.registry.kind {
        RegistryKind::Etcd(etcd) => return Ok((etcd.clone(), None)),
        RegistryKind::Embedded(embedded) => embedded,
    };
    let listener = listen(*address).await.map_err(|e| StartError::Listen("embedded registry", *address, e))?;
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
    Ok((EtcdConfig { endpoints, credentials: None, ca: None, certificate: None, key: None }, Some(task)))
}

async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Why the process did not start.
#[derive(Debug)]
pub enum StartError {
    Bind(proxy::BindError),
    Listen(&'static str, SocketAddr, io::Error),
    Embedded(embedded::OpenError),
    Proxy(proxy::ProxyError),
    Runtime(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => error.fmt(f),
            Self::Listen(what @ "embedded registry", address, error) if error.kind() == io::ErrorKind::AddrInUse => write!(
                f,
                "the {what} cannot listen on {address}: something answers there already; if it is an etcd, use it with \
                 --etcd http://{address}, else set registry.listen"
            ),
            Self::Listen(what, address, error) => write!(f, "the {what} cannot listen on {address}: {error}"),
            Self::Embedded(error) => error.fmt(f),
            Self::Proxy(error) => error.fmt(f),
            Self::Runtime(error) => write!(f, "the process cannot be set up: {error}"),
        }
    }
}

impl std::error::Error for StartError {}


/// Control work is small; two threads, so that a long list cannot hold up an admin's question.
const CONTROL_THREADS: usize = 2;
/// Events waiting for the catalog. When full we stop reading etcd, which keeps them for us.
const EVENTS_WAITING_MAX: usize = 64;
const STARTUP_WAIT: Duration = Duration::from_secs(3);
const EMBEDDED_CLOSE_MAX: Duration = Duration::from_secs(5);
const LEFTOVERS: Duration = Duration::from_millis(200);
