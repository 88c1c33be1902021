//! FLOOR 2. What the process was told: file, `POINTSMAN_…` variables and flags, resolved into one checked value.
//!
//! 1. `layers` reads the file and lays variables and flags over it, as one tree.
//! 2. One reader a section (`registry`, `process`, `declared`) takes its settings from the tree through `wire::fields`,
//!    which notes every problem with its line, variable or flag. Services and routes are read by `wire`'s converters:
//!    they look the same here and in the registry.
//! 3. `load` refuses if anything was noted, and names all of it.
//!
//! Every default stands in a `Default` of this page; `docs/configuration.md` lists the same, and a test compares them.
//! Files that are named here are looked for, but not kept; certificates, keys and passwords are read and checked, so that a
//! wrong one is told with its line, and read again by who uses them.

mod acme;
mod address;
mod declared;
#[cfg(test)]
mod documented;
mod etcd;
mod file;
mod guard;
#[cfg(any(test, fuzzing))]
pub mod laws;
mod layers;
mod lines;
mod load;
mod network;
mod pattern;
mod pem_files;
mod problems;
mod process;
mod registry;
#[cfg(test)]
mod tests;
mod tls;
mod token;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{InstanceId, InstanceSpec, RouteSpec, Secret, ServiceName, ServicePolicy};

pub use acme::{AcmeCertificate, AcmeConfig, ExternalAccount};
pub use etcd::{Credentials, EtcdConfig, Password};
pub use file::FileStamp;
pub use guard::{AddressGuard, Refused, Said};
pub use layers::{Flags, Layers};
pub use load::{load, load_registry};
pub use network::Network;
pub use pattern::KeyPattern;
pub use problems::Problems;
pub use tls::{AdminTls, CertificateFiles, ClientAuth, Hsts, TlsConfig, TlsVersion, read_authorities};
pub use token::read_tokens;

/// Everything `pointsman run` needs to know. Nobody behind this checks again.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// At least one.
    pub listeners: Vec<Listener>,
    pub registry: RegistryConfig,
    pub admin: AdminConfig,
    pub proxy: ProxyConfig,
    pub log: LogConfig,
    pub process: ProcessConfig,
    /// `None`: no certificates are ordered here.
    pub acme: Option<AcmeConfig>,
    /// The file's own declarations; they are applied before the registry's and win where both say the same.
    pub routes: Vec<RouteSpec>,
    pub services: BTreeMap<ServiceName, FileService>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Unspecified, with port 0, if only `socket` says where.
    pub address: SocketAddr,
    /// Takes the socket that the service manager has passed under this name, and does not listen otherwise.
    pub socket: Option<String>,
    /// `None`: what comes in is not encrypted.
    pub tls: Option<TlsConfig>,
    /// Every request is sent to this port of the same host, to be made there over TLS.
    pub redirect_to_https: Option<u16>,
    /// Every connection begins with a PROXY header, and comes from a trusted proxy.
    pub proxy_protocol: bool,
}

impl Listener {
    /// Without TLS.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, socket: None, tls: None, redirect_to_https: None, proxy_protocol: false }
    }
}

impl Default for Listener {
    fn default() -> Self {
        Self::plain(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 8080))
    }
}

/// One `[[service]]` of the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FileService {
    /// `None`: the section only lists instances.
    pub policy: Option<ServicePolicy>,
    /// The id of a fixed instance is its address.
    pub instances: BTreeMap<InstanceId, InstanceSpec>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryConfig {
    pub kind: RegistryKind,
    /// Starts with a slash, does not end with one.
    pub prefix: String,
    /// Where the last applied state is kept for a start without the registry.
    pub snapshot: Option<PathBuf>,
    /// Where instances of other programs are read from; the earlier wins where two name the same. No two share a key, nor
    /// does any with the prefix.
    pub sources: Vec<KeyPattern>,
    /// Where instances of the registry may be; `None`: anywhere that is not dangerous.
    pub allow_addresses: Option<Vec<Network>>,
}

impl RegistryConfig {
    pub const PREFIX_DEFAULT: &str = "/pointsman";

    /// How a client on this machine reaches the registry, whichever it is.
    pub fn client(&self) -> EtcdConfig {
        match &self.kind {
            RegistryKind::Etcd(etcd) => etcd.clone(),
            RegistryKind::Embedded(embedded) => EtcdConfig::plain(vec![format!("http://{}", reachable(embedded.listen))]),
        }
    }
}

/// An address that listens everywhere is connected to on loopback.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryKind {
    Etcd(EtcdConfig),
    Embedded(EmbeddedConfig),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedConfig {
    /// Where the embedded registry answers etcd clients; the default is 127.0.0.1:2379.
    pub listen: SocketAddr,
    /// `None` keeps everything in memory.
    pub data: Option<PathBuf>,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 2379), data: None }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// The default is 127.0.0.1:9900.
    pub address: SocketAddr,
    /// Takes the socket that the service manager has passed under this name. It has to be at `address`.
    pub socket: Option<String>,
    /// Allows an address that is not loopback without a token or client certificates.
    pub insecure: bool,
    /// Whoever asks has to show one of the tokens in it.
    pub token_file: Option<PathBuf>,
    /// But not for `/metrics`.
    pub open_metrics: bool,
    /// `None`: it speaks plain HTTP.
    pub tls: Option<AdminTls>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 9900),
            socket: None,
            insecure: false,
            token_file: None,
            open_metrics: false,
            tls: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Networks whose X-Forwarded-* fields are believed.
    pub trusted_proxies: Vec<Network>,
    /// Instances are told of the client in `Forwarded` (RFC 7239) too.
    pub forwarded: bool,
    /// Where this process runs, for services that prefer what is near.
    pub zone: Option<Arc<str>>,
    /// What the cookies of sticky sessions are sealed with; `None`: the registry's epoch.
    pub sticky_secret: Option<Secret>,
    /// Worker threads; the file's 0 has become the number of cores.
    pub workers: usize,
    pub limits: ClientLimits,
    pub shutdown: ShutdownConfig,
}

/// What clients may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientLimits {
    pub head_timeout: Duration,
    pub body_progress: Duration,
    pub answer_progress: Duration,
    pub keep_alive: Duration,
    pub handshake: Duration,
    /// Bytes.
    pub head_size: usize,
    /// Bytes.
    pub body_size: Option<u64>,
    pub fields: usize,
    /// Connections over all listeners.
    pub connections: usize,
    /// Of one client address: an IPv4 address, or an IPv6 network of 64 bits.
    pub connections_per_address: usize,
    /// How many clients the rate limits of all routes remember.
    pub rate_clients: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(10),
            body_progress: Duration::from_secs(30),
            answer_progress: Duration::from_secs(60),
            keep_alive: Duration::from_secs(75),
            handshake: Duration::from_secs(10),
            head_size: 32 * 1024,
            body_size: None,
            fields: 100,
            connections: 50_000,
            connections_per_address: 25_000,
            rate_clients: 128 * 1024,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShutdownConfig {
    /// Between a failing readiness and closed listeners.
    pub grace: Duration,
    /// How long requests may take to finish.
    pub drain: Duration,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { grace: Duration::from_secs(5), drain: Duration::from_secs(30) }
    }
}

/// Whom the operating system takes the process for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessConfig {
    /// Who to be once the sockets are there; name or number. `None`: whoever started it.
    pub user: Option<String>,
    /// `None`: the user's own.
    pub group: Option<String>,
    /// Lets the kernel write core files, and debuggers of the same user look.
    pub core_dumps: bool,
    /// How long the next process may take to be ready, in an upgrade.
    pub upgrade_timeout: Duration,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self { user: None, group: None, core_dumps: false, upgrade_timeout: Duration::from_secs(60) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    pub format: LogFormat,
    /// In the syntax of `RUST_LOG`.
    pub filter: String,
    pub access: Option<AccessLogConfig>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::default(), filter: "info".to_owned(), access: Some(AccessLogConfig::default()) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLogConfig {
    pub format: AccessLogFormat,
    /// `None` is stdout.
    pub file: Option<PathBuf>,
    /// Query parameters whose values never appear.
    pub deny_query: Vec<String>,
}

impl Default for AccessLogConfig {
    fn default() -> Self {
        let secrets = [
            "access_token",
            "api_key",
            "apikey",
            "client_secret",
            "code",
            "id_token",
            "password",
            "refresh_token",
            "secret",
            "signature",
            "token",
        ];
        Self { format: AccessLogFormat::default(), file: None, deny_query: secrets.map(str::to_owned).to_vec() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessLogFormat {
    #[default]
    Json,
    Combined,
}
