//! `pointsman demo`: the whole thing on one machine. Embedded registry in memory, five sample processes of three
//! services that register themselves, routes, proxy, page. Ctrl-C leaves nothing behind.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser};
use nix::sys::signal::Signal;

use super::failure::Failure;
use super::global::{Global, block_on};
use crate::app::{self, Bound, Start};
use crate::config::{
    AdminConfig, Config, EmbeddedConfig, EtcdConfig, Listener, LogConfig, ProxyConfig, RegistryConfig, RegistryKind,
    ShutdownConfig,
};
use crate::model::RouteName;
use crate::registrar::Child;
use crate::registry::{Key, Prefix, Store};
use crate::telemetry::init_tracing;

#[path = "../../examples/sample/sample/mod.rs"]
pub mod sample;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pointsman demo
  pointsman demo --listen 127.0.0.1:9000")]
pub struct DemoArgs {
    /// Where the proxy listens [default: 127.0.0.1:8080, or a free port if that is taken]
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Where the embedded registry listens [default: 127.0.0.1:2379, or a free port if that is taken]
    #[arg(long)]
    registry: Option<SocketAddr>,
}

impl DemoArgs {
    pub fn execute(self, global: &Global) -> Result<ExitCode, Failure> {
        let config = self.config(global)?;
        init_tracing(&config.log).map_err(|error| Failure::Usage(error.to_string()))?;
        let unchanged = config.clone();
        let mut cast = Cast::default();
        let start = Start { reload: Box::new(move || Ok(unchanged.clone())), program: None, predecessor: None };
        let ended = app::run(config, start, |bound| cast.enter(bound.clone()));
        cast.leave();
        ended.map(|()| ExitCode::SUCCESS).map_err(|error| Failure::Start(Box::new(error)))
    }

    /// The flags, the variables and no file; what they do not say is as local and as short-lived as can be.
    fn config(&self, global: &Global) -> Result<Config, Failure> {
        let local = Global { etcd: Vec::new(), config: None, ..global.clone() };
        let config = local.config(&[])?;
        let listen = self.listen.unwrap_or_else(|| free(8080));
        let registry = EmbeddedConfig { listen: self.registry.unwrap_or_else(|| free(2379)), data: None };
        Ok(Config {
            listeners: vec![Listener::plain(listen)],
            registry: RegistryConfig { kind: RegistryKind::Embedded(registry), snapshot: None, ..config.registry },
            admin: if global.admin.is_some() { config.admin } else { AdminConfig { address: free(9900), ..config.admin } },
            proxy: ProxyConfig { shutdown: ShutdownConfig { grace: Duration::ZERO, drain: DRAIN }, ..config.proxy },
            log: LogConfig { access: None, ..config.log },
            ..config
        })
    }
}

/// One of the demo's services, as a process of its own.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pointsman sample -- --listen 127.0.0.1:3000")]
pub struct SampleArgs {
    /// The sample's own flags, some of which have the names of ours.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    flags: Vec<OsString>,
}

impl SampleArgs {
    pub fn execute(self) -> Result<ExitCode, Failure> {
        let flags = sample::Flags::parse_from(std::iter::once("sample".into()).chain(self.flags));
        block_on(async { sample::run(flags.options(), |_| Ok(())).await.map_err(Failure::Runtime) })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The sample processes.
#[derive(Default)]
struct Cast {
    children: Vec<Child>,
}

impl Cast {
    /// Called on the main thread, with whose end the children end, whatever happens to us.
    fn enter(&mut self, bound: Bound) {
        let mut pids = Vec::new();
        for (service, instance) in INSTANCES {
            match start(&bound.registry, service, instance) {
                Ok(child) => {
                    pids.push((format!("{service}/{instance}"), child.pid().as_raw()));
                    self.children.push(child);
                }
                Err(error) => eprintln!("the sample service {instance} cannot be started: {error}"),
            }
        }
        tokio::spawn(async move {
            let shown = match set_the_scene(&bound).await {
                Ok(()) => show(&bound, &pids),
                Err(error) => writeln!(io::stderr(), "the demo's routes cannot be written: {error}"),
            };
            // Whoever closed our output does not want to read it.
            let _ = shown;
        });
    }

    fn leave(self) {
        // Their registry was in memory and is gone: there is nothing for them to tidy up.
        self.children.iter().for_each(|child| child.signal(Signal::SIGKILL));
        for child in &self.children {
            let _ = nix::sys::wait::waitpid(child.pid(), None);
        }
    }
}

fn start(registry: &EtcdConfig, service: &str, instance: &str) -> io::Result<Child> {
    let program = std::env::current_exe()?.into_os_string();
    let flags =
        ["sample", "--", "--register", "--service", service, "--id", instance, "--name", instance, "--ttl", "3s", "--etcd"];
    let mut command = vec![program];
    command.extend(flags.map(OsString::from));
    command.push(registry.endpoints.join(",").into());
    Child::start(&command)
}

/// Writes the routes and waits until the proxy knows every instance.
async fn set_the_scene(bound: &Bound) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let prefix = Prefix::new(PREFIX);
    let mut store = Store::connect(&bound.registry, prefix).await.map_err(|e| e.to_string())?;
    for (name, route) in ROUTES {
        store.put(&Key::Route(RouteName::parse(name)?), route.as_bytes()).await.map_err(|e| e.to_string())?;
    }
    let begun = Instant::now();
    while store.list("/instances/").await.map_err(|e| e.to_string())?.entries.len() < INSTANCES.len()
        && begun.elapsed() < ENTER_MAX
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn show(bound: &Bound, pids: &[(String, i32)]) -> io::Result<()> {
    let Bound { listeners, admin, registry } = bound;
    let proxy = listeners.first().map(ToString::to_string).unwrap_or_default();
    let port = proxy.rsplit(':').next().unwrap_or_default();
    let etcd = registry.endpoints.first().map(|e| e.trim_start_matches("http://")).unwrap_or_default();
    let etcdctl = format!("ETCDCTL_API=3 etcdctl --endpoints={etcd}");
    let victim = pids.first().map(|(_, pid)| pid.to_string()).unwrap_or_default();
    let mut out = io::stdout().lock();
    writeln!(out, "\nPointsman is running, and every instance has registered itself.\n")?;
    writeln!(out, "  proxy     http://{proxy}/                 shop, three instances")?;
    writeln!(out, "            http://users.localhost:{port}/       users, one instance")?;
    writeln!(out, "            http://orders.localhost:{port}/      orders, one instance")?;
    writeln!(out, "  page      http://{admin}/")?;
    writeln!(out, "  registry  http://{etcd}                  etcd v3, embedded, in memory\n")?;
    for (name, pid) in pids {
        writeln!(out, "  {name:<16} process {pid}")?;
    }
    writeln!(out, "\nFive things to try in another terminal:\n")?;
    writeln!(out, "  1. curl http://{proxy}/                          again and again: who answers?")?;
    writeln!(out, "  2. {etcdctl} put /pointsman/instances/shop/by-hand \\")?;
    writeln!(out, "       $(curl -s http://{admin}/api/v1/services/users | grep -o '127.0.0.1:[0-9]*' | head -n 1)")?;
    writeln!(out, "     adds users' instance to shop, in force with the next request; `del` instead of `put` takes it away")?;
    writeln!(out, "  3. kill -9 {victim}                                 shop-1 dies: no request fails, 3 s later it is gone")?;
    writeln!(out, "  4. {} drain shop/shop-2 --wait --etcd http://{etcd}", own_name())?;
    writeln!(out, "  5. {} explain GET http://{proxy}/ --admin {admin}", own_name())?;
    writeln!(out, "\nCtrl-C ends it and leaves nothing behind.\n")?;
    out.flush()
}

fn own_name() -> String {
    std::env::args().next().unwrap_or_else(|| "pointsman".to_owned())
}

/// The port everybody expects, or any free one.
fn free(port: u16) -> SocketAddr {
    let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    if TcpListener::bind(local(port)).is_ok() { local(port) } else { local(0) }
}

const PREFIX: &str = "/pointsman";
const INSTANCES: [(&str, &str); 5] =
    [("shop", "shop-1"), ("shop", "shop-2"), ("shop", "shop-3"), ("users", "users-1"), ("orders", "orders-1")];
const ROUTES: [(&str, &str); 3] = [
    ("shop", r#"{"service":"shop"}"#),
    ("users", r#"{"hosts":["users.localhost"],"service":"users"}"#),
    ("orders", r#"{"hosts":["orders.localhost"],"service":"orders"}"#),
];
/// A person waits.
const DRAIN: Duration = Duration::from_secs(3);
const ENTER_MAX: Duration = Duration::from_secs(10);
