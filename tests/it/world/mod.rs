//! The language the stories are told in: it starts the built binary, a real etcd and small upstreams on loopback
//! addresses, and stops them by process id when the story ends.
//!
//! It knows no Rust name of ours, only what `docs/` promises, so any refactoring leaves it as it is.

mod admin;
pub mod client;
pub mod etcd;
pub mod forwarder;
pub mod frames;
pub mod load;
mod nginx;
pub mod pebble;
pub mod ports;
pub mod program;
pub mod prometheus;
pub mod raw;
mod registry;
pub mod sample;
mod seen;
mod setup;
pub mod sidecar;
mod talk;
pub mod tls;
pub mod upstream;
pub mod vault;
pub mod websocket;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::runtime::{Handle, Runtime};

pub use client::{Answer, Ask};
use etcd::Etcd;
use ports::free_address;
use program::Program;
pub use registry::transact;
pub use seen::Seen;
pub use setup::Setup;
pub use talk::Tally;
use upstream::Upstream;

/// One proxy, its registry, and a runtime for clients and upstreams.
pub struct World {
    pub proxy: Program,
    etcd: Option<Box<Etcd>>,
    /// Where the proxy looks for the registry.
    endpoints: Vec<String>,
    embedded: Option<SocketAddr>,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    runtime: Runtime,
    dir: TempDir,
}

enum Registry {
    Etcd { etcd: Box<Etcd>, endpoints: Vec<String> },
    Embedded { address: SocketAddr },
}

impl World {
    /// A proxy that has read an empty etcd.
    pub fn new() -> Self {
        Self::setup().start()
    }

    pub fn setup() -> Setup {
        Setup::default()
    }

    /// A proxy that sends every request to the service `app`, which has these instances.
    pub fn serving<const N: usize>(names: [&str; N]) -> (Self, [Upstream; N]) {
        let world = Self::new();
        let upstreams = world.serve("app", names);
        (world, upstreams)
    }

    /// `pointsman demo`, with its registry inside.
    pub fn demo() -> Self {
        let world = setup::start_demo();
        world.is_ready();
        world
    }

    fn around(dir: TempDir, proxy: Program, listen: SocketAddr, admin: SocketAddr, registry: Registry) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let (etcd, endpoints, embedded) = match registry {
            Registry::Etcd { etcd, endpoints } => (Some(etcd), endpoints, None),
            Registry::Embedded { address } => (None, vec![format!("http://{address}")], Some(address)),
        };
        Self { proxy, etcd, endpoints, embedded, listen, admin, runtime, dir }
    }

    pub fn handle(&self) -> &Handle {
        self.runtime.handle()
    }

    pub fn folder(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    pub fn proxy_mut(&mut self) -> &mut Program {
        &mut self.proxy
    }

    pub fn write_config(&self, config: &str) {
        std::fs::write(self.config_file(), config).expect("the configuration file");
    }

    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("pointsman.toml")
    }

    pub fn etcd(&self) -> &Etcd {
        self.etcd.as_deref().expect("this world's registry is an etcd")
    }

    pub fn etcd_mut(&mut self) -> &mut Etcd {
        self.etcd.as_deref_mut().expect("this world's registry is an etcd")
    }

    /// An upstream that is registered nowhere.
    pub fn upstream(&self, name: &str) -> Upstream {
        self.upstream_at(name, free_address())
    }

    pub fn upstream_at(&self, name: &str, address: SocketAddr) -> Upstream {
        Upstream::start(self.handle(), name, address)
    }

    /// Upstreams of these names, registered in one transaction together with a route to them for every request.
    pub fn serve<const N: usize>(&self, service: &str, names: [&str; N]) -> [Upstream; N] {
        let upstreams = names.map(|name| self.upstream(name));
        let mut records: Vec<(String, Option<String>)> =
            upstreams.iter().map(|u| (format!("/instances/{service}/{}", u.name), Some(u.address.to_string()))).collect();
        records.push((format!("/routes/{service}"), Some(format!(r#"{{"service":"{service}"}}"#))));
        self.transact(&records);
        upstreams
    }

    /// A new process on the same addresses, with the same file and registry, in place of the one that has ended.
    pub fn start_proxy_again(&mut self) {
        self.proxy.kill();
        let registry = match (self.etcd.take(), self.embedded) {
            (Some(etcd), _) => Registry::Etcd { etcd, endpoints: self.endpoints.clone() },
            (None, Some(address)) => Registry::Embedded { address },
            (None, None) => panic!("this world has no registry"),
        };
        self.proxy = setup::start_proxy(&self.config_file(), self.listen, self.admin, &registry, &[]);
        if let Registry::Etcd { etcd, .. } = registry {
            self.etcd = Some(etcd);
        }
    }

    /// Another proxy of the same registry, where it listens, and its admin endpoint.
    pub fn another_proxy(&self) -> (Program, SocketAddr, SocketAddr) {
        let (listen, admin) = (free_address(), free_address());
        let args = ["run", "--listen", &listen.to_string(), "--admin", &admin.to_string()];
        let program = Program::start(&mut self.command(&args), self.dir.path(), &format!("pointsman-{}", listen.port()));
        (program, listen, admin)
    }

    pub fn is_ready(&self) {
        self.eventually("the proxy is ready", || {
            assert!(self.proxy.is_running(), "the proxy has ended");
            self.admin_status("/readyz") == Some(200)
        });
    }

    pub fn terminate(&self) {
        self.proxy.signal(Signal::SIGTERM);
    }

    /// A command of the built binary, told by the environment where this world's registry and admin endpoint are.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
        command
            .args(args)
            .env("POINTSMAN_REGISTRY_ENDPOINTS", self.endpoints.join(","))
            .env("POINTSMAN_ADMIN_ADDRESS", self.admin.to_string())
            .current_dir(self.dir.path());
        command
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdin(std::process::Stdio::null()).output().expect("the built binary can be run")
    }

    /// Waits until it holds, and says what did not if it never does.
    pub fn eventually(&self, what: &str, mut holds: impl FnMut() -> bool) {
        self.settles(what, true, &mut holds);
    }

    /// Waits until the value is as expected, and says what it was last if it never is.
    pub fn settles<T: PartialEq + std::fmt::Debug>(&self, what: &str, expected: T, mut now: impl FnMut() -> T) {
        let deadline = Instant::now() + EVENTUALLY;
        loop {
            let found = now();
            if found == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: still {found:?} after {EVENTUALLY:?}, not {expected:?}");
            std::thread::sleep(LOOKS_AGAIN);
        }
    }
}

// What takes long is a busy machine.
const EVENTUALLY: Duration = Duration::from_secs(30);
const LOOKS_AGAIN: Duration = Duration::from_millis(5);
