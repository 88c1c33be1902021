//! `[[listener]]`, `[admin]`, `[proxy]`, `[log]` and `[process]`: how this process works, whatever is declared.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::model::Secret;
use crate::wire::fields::{Fields, Read};
use crate::wire::node::{Node, quoted};
use crate::wire::scalar::{boolean, duration, duration_above_zero, named, number, one_of, size, text, word};

use super::address::listen_address;
use super::file::open_to_all;
use super::registry::path_in;
use super::tls;
use super::token::read_tokens;
use super::{
    AccessLogConfig, AccessLogFormat, AdminConfig, ClientLimits, Layers, Listener, LogConfig, LogFormat, Network, ProcessConfig,
    ProxyConfig, ShutdownConfig,
};

pub(super) fn listener(fields: &mut Fields<'_>, layers: &Layers) -> Option<Listener> {
    let socket = fields.optional("socket", word);
    let address = match socket {
        Some(_) => Some(fields.or("address", WHEREVER, listen_address)),
        None => fields.required("address", listen_address),
    };
    let proxy_protocol = fields.or("proxy_protocol", false, boolean);
    let tls = fields.section("tls").map(|section| tls::tls(section, layers));
    let redirect_to_https = fields.optional("redirect_to_https", number(1..=u16::MAX));
    if tls.is_some() && redirect_to_https.is_some() {
        fields.wrong("redirect_to_https", "is for listeners without tls: this one speaks it already");
    }
    Some(Listener { address: address?, socket, tls, redirect_to_https, proxy_protocol })
}

pub(super) fn admin(fields: &mut Fields<'_>, layers: &Layers) -> AdminConfig {
    let default = AdminConfig::default();
    let admin = AdminConfig {
        address: fields.or("address", default.address, listen_address),
        socket: fields.optional("socket", word),
        insecure: fields.or("insecure", default.insecure, boolean),
        token_file: fields.optional("token_file", token_file(layers)),
        open_metrics: fields.or("open_metrics", default.open_metrics, boolean),
        tls: fields.section("tls").and_then(|section| tls::admin(section, layers)),
    };
    if let Some(odd) = admin.token_file.as_deref().and_then(open_to_all) {
        fields.odd("token_file", odd);
    }
    let is_far = !admin.address.ip().is_loopback();
    if is_far && admin.token_file.is_some() && !fields.has("tls") {
        fields.odd("token_file", format!("is shown by clients on the way to {} without TLS, for whoever listens", admin.address));
    }
    let asks = fields.has("token_file") || admin.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    if is_far && !asks && !admin.insecure {
        let message = format!(
            "{} can be reached from other machines, and nobody would have to show who they are; write \"127.0.0.1:{}\", \
             or name a token_file or tls.client_ca, or say insecure = true if the network keeps others out",
            admin.address,
            admin.address.port()
        );
        fields.wrong("address", message);
    }
    admin
}

/// It is read again whenever it changes; but a bad one is better known before the start.
fn token_file(layers: &Layers) -> impl Fn(&Node) -> Read<PathBuf> {
    let path_in = path_in(layers);
    move |node| {
        let path = path_in(node)?;
        read_tokens(&path).map(|_| path)
    }
}

pub(super) fn proxy(fields: &mut Fields<'_>) -> ProxyConfig {
    let workers = fields.or("workers", 0, number(0..=WORKERS_MAX));
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    ProxyConfig {
        trusted_proxies: fields.list("trusted_proxies", named(Network::parse)).unwrap_or_default(),
        forwarded: fields.or("forwarded", false, boolean),
        zone: fields.optional("zone", word).map(Into::into),
        sticky_secret: fields.optional("sticky_secret", secret),
        workers: if workers == 0 { cores() } else { workers },
        limits: limits(&mut fields.section_or_empty("limits")),
        shutdown: shutdown(&mut fields.section_or_empty("shutdown")),
    }
}

fn secret(node: &Node) -> Read<Secret> {
    match text(node)? {
        said if said.len() >= SECRET_LENGTH_MIN => Ok(Secret::new(said)),
        _ => Err(format!("is shorter than {SECRET_LENGTH_MIN} characters, so it could be guessed")),
    }
}

pub(super) fn log(fields: &mut Fields<'_>, layers: &Layers) -> LogConfig {
    let default = LogConfig::default();
    LogConfig {
        format: fields.or("format", default.format, one_of(&[LogFormat::Text, LogFormat::Json], log_format)),
        filter: fields.or("filter", default.filter, filter),
        access: access(&mut fields.section_or_empty("access"), layers),
    }
}

pub(super) fn process(fields: &mut Fields<'_>) -> ProcessConfig {
    let default = ProcessConfig::default();
    let process = ProcessConfig {
        user: fields.optional("user", word),
        group: fields.optional("group", word),
        core_dumps: fields.or("core_dumps", default.core_dumps, boolean),
        upgrade_timeout: fields.or("upgrade_timeout", default.upgrade_timeout, duration_above_zero),
    };
    if process.group.is_some() && process.user.is_none() {
        fields.wrong("group", "is whose group? Say process.user too");
    }
    process
}

fn limits(fields: &mut Fields<'_>) -> ClientLimits {
    let default = ClientLimits::default();
    let head_size = fields.optional("head_size", size(HEAD_SIZE_MIN..=HEAD_SIZE_MAX));
    let connections = fields.or("connections", default.connections, number(1..=CONNECTIONS_MAX));
    let per_address = fields.optional("connections_per_address", number(1..=CONNECTIONS_MAX));
    ClientLimits {
        head_timeout: fields.or("head_timeout", default.head_timeout, duration_above_zero),
        body_progress: fields.or("body_progress", default.body_progress, duration_above_zero),
        answer_progress: fields.or("answer_progress", default.answer_progress, duration_above_zero),
        keep_alive: fields.or("keep_alive", default.keep_alive, duration_above_zero),
        handshake: fields.or("handshake", default.handshake, duration_above_zero),
        head_size: head_size.and_then(|size| size.try_into().ok()).unwrap_or(default.head_size),
        body_size: fields.optional("body_size", size(1..=u64::MAX)),
        fields: fields.or("fields", default.fields, number(1..=FIELDS_MAX)),
        connections,
        connections_per_address: per_address.unwrap_or(connections.div_ceil(2)),
        rate_clients: fields.or("rate_clients", default.rate_clients, number(RATE_CLIENTS_MIN..=RATE_CLIENTS_MAX)),
    }
}

fn shutdown(fields: &mut Fields<'_>) -> ShutdownConfig {
    let default = ShutdownConfig::default();
    ShutdownConfig {
        grace: fields.or("grace", default.grace, shutdown_time),
        drain: fields.or("drain", default.drain, shutdown_time),
    }
}

fn shutdown_time(node: &Node) -> Read<Duration> {
    match duration(node)? {
        time if time <= SHUTDOWN_MAX => Ok(time),
        _ => Err(format!("{} is longer than an hour", node.shown())),
    }
}

fn access(fields: &mut Fields<'_>, layers: &Layers) -> Option<AccessLogConfig> {
    let default = AccessLogConfig::default();
    let enabled = fields.or("enabled", true, boolean);
    let formats = [AccessLogFormat::Json, AccessLogFormat::Combined];
    let access = AccessLogConfig {
        format: fields.or("format", default.format, one_of(&formats, access_format)),
        file: fields.optional("file", path_in(layers)),
        deny_query: fields.list("deny_query", word).unwrap_or(default.deny_query),
    };
    enabled.then_some(access)
}

fn log_format(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    }
}

fn access_format(format: AccessLogFormat) -> &'static str {
    match format {
        AccessLogFormat::Json => "json",
        AccessLogFormat::Combined => "combined",
    }
}

fn filter(node: &Node) -> Read<String> {
    let said = text(node)?;
    match tracing_subscriber::EnvFilter::try_new(said) {
        Ok(_) => Ok(said.to_owned()),
        Err(e) => Err(format!("{} is not a filter such as \"info\" or \"warn,pointsman::registry=debug\": {e}", quoted(said))),
    }
}

/// Where a socket that is only named is.
const WHEREVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
/// What a client holds shows whether a guess is right, so guessing must be hopeless.
const SECRET_LENGTH_MIN: usize = 16;
/// More threads than any machine we know has cores.
const WORKERS_MAX: usize = 1024;
/// A head smaller than this would refuse ordinary browsers.
const HEAD_SIZE_MIN: u64 = 1024;
/// The engine's own limits, above which ours could not be kept.
const HEAD_SIZE_MAX: u64 = 1024 * 1024;
const FIELDS_MAX: usize = 256;
/// Beyond what file descriptors allow anywhere.
const CONNECTIONS_MAX: usize = 10_000_000;
/// In a smaller one clients would meet by chance; a larger one takes 256 MiB.
const RATE_CLIENTS_MIN: usize = 1024;
const RATE_CLIENTS_MAX: usize = 16 * 1024 * 1024;
/// Whoever stops a process waits for it; beyond an hour it looks stuck.
const SHUTDOWN_MAX: Duration = Duration::from_secs(60 * 60);
