//! `pointsman register`: keeps one instance registered, alone or around the command that is the instance.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::failure::Failure;
use super::global::{Global, Registry, block_on};
use super::print;
use crate::model::{Address, InstanceId, InstanceSpec, Protocol, ServiceName};
use crate::registrar::{Check, GatePolicy, Registration, hostname, source_address};

#[derive(Debug, Args)]
#[command(after_help = "\
When the command ends, so does the registration, at once. SIGTERM drains first: the record says so, requests get the \
time of --drain, the record goes, then the command gets its SIGTERM. Other signals are handed on.

Examples:
  pointsman register --service orders --address 10.0.0.5:8080
  pointsman register --service orders --address auto:8080 --probe /healthz -- ./orders --port 8080
  pointsman register --service db --address 10.0.0.7:5432 --probe tcp --ttl 10s")]
pub struct RegisterArgs {
    /// What the instance belongs to
    #[arg(long, env = "POINTSMAN_SERVICE", value_parser = |s: &str| ServiceName::parse(s))]
    service: ServiceName,
    /// HOST:PORT; auto:PORT is the address this machine has on its way to the registry
    #[arg(long, value_name = "HOST:PORT", env = "POINTSMAN_ADDRESS")]
    address: String,
    /// Name within the service [default: HOSTNAME-PORT]
    #[arg(long, env = "POINTSMAN_INSTANCE")]
    id: Option<String>,
    /// How long the record stays when this process dies without a word; 2s at least
    #[arg(long, env = "POINTSMAN_TTL", default_value = "15s", value_parser = ttl)]
    ttl: Duration,
    /// Share of the traffic beside its siblings; 0 is no new traffic
    #[arg(long, default_value_t = InstanceSpec::WEIGHT_DEFAULT)]
    weight: u16,
    /// Where it runs, as proxies name zones
    #[arg(long)]
    zone: Option<String>,
    /// http, https, h2 or h2c
    #[arg(long, default_value = "http", value_parser = protocol)]
    protocol: Protocol,
    /// Register once this path answers 200–399, or with "tcp" once a connection is accepted; drain while it does not
    #[arg(long, value_name = "PATH|tcp", value_parser = probe)]
    probe: Option<Check>,
    /// Between probes; half a second at most while something is about to change
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = humantime::parse_duration)]
    probe_interval: Duration,
    /// How long an answer may take
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    probe_timeout: Duration,
    /// Good probes in a row that bring a drained instance back
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    rise: u32,
    /// Bad probes in a row that drain it
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    fall: u32,
    /// What running requests get between SIGTERM and the end of the registration
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    drain: Duration,
    /// What the command gets to stop before it is killed
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    kill_after: Duration,
    /// Take the id from another instance that holds it
    #[arg(long)]
    force: bool,
    /// The instance itself, started and watched
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl RegisterArgs {
    pub fn execute(self, global: &Global) -> Result<ExitCode, Failure> {
        global.init_log()?;
        let registration = self.registration(global.registry()?)?;
        block_on(async { registration.run().await.map(ExitCode::from).map_err(Failure::Register) })
    }

    fn registration(self, registry: Registry) -> Result<Registration, Failure> {
        let address = self.resolve_address(&registry)?;
        let id = match &self.id {
            Some(id) => id.clone(),
            None => {
                let name =
                    hostname().map_err(|e| Failure::Usage(format!("this machine does not tell its name ({e}); give --id")))?;
                format!("{name}-{}", address.port)
            }
        };
        let id = InstanceId::parse(&id).map_err(|e| Failure::Usage(format!("--id {id:?}: {e}")))?;
        if matches!(self.probe, Some(Check::Http { .. })) && self.protocol != Protocol::Http {
            let message = format!(
                "--probe asks in plain HTTP/1.1, which an instance of --protocol {} does not speak; use --probe tcp",
                self.protocol
            );
            return Err(Failure::Usage(message));
        }
        let mut spec = InstanceSpec {
            weight: self.weight,
            zone: self.zone.as_deref().map(Arc::from),
            protocol: self.protocol,
            ..InstanceSpec::at(address)
        };
        if let Some(Check::Http { path }) = &self.probe {
            spec.probe.path = Some(path.clone());
        }
        let gate = self.probe.map(|check| GatePolicy {
            check,
            interval: self.probe_interval,
            timeout: self.probe_timeout,
            rise: self.rise,
            fall: self.fall,
        });
        Ok(Registration {
            etcd: registry.etcd,
            prefix: registry.prefix,
            service: self.service,
            id,
            spec,
            ttl: self.ttl,
            force: self.force,
            gate,
            drain: self.drain,
            kill_after: self.kill_after,
            command: self.command,
        })
    }

    fn resolve_address(&self, registry: &Registry) -> Result<Address, Failure> {
        let ways: Vec<_> = registry.etcd.endpoints.iter().map(|endpoint| source_address(endpoint)).collect();
        let said = match self.address.strip_prefix("auto:") {
            None => self.address.clone(),
            Some(port) => {
                let way = ways.iter().flatten().next();
                let way =
                    way.ok_or_else(|| Failure::Usage("--address auto: there is no way to the registry from here".to_owned()))?;
                match way {
                    IpAddr::V4(ip) => format!("{ip}:{port}"),
                    IpAddr::V6(ip) => format!("[{ip}]:{port}"),
                }
            }
        };
        let address = Address::parse(&said).map_err(|e| Failure::Usage(format!("--address: {e}")))?;
        let registry_is_local = ways.iter().flatten().all(IpAddr::is_loopback);
        match address.socket_addr().map(|at| SocketAddr::ip(&at)) {
            Some(ip) if ip.is_unspecified() => Err(Failure::Usage(format!(
                "--address {said}: nobody can connect to {ip}; auto:{} finds this machine's address",
                address.port
            ))),
            Some(ip) if ip.is_loopback() && !registry_is_local => {
                print::note(&format!("warning: --address {said}: other machines read this registry, and cannot connect to {ip}"));
                Ok(address)
            }
            _ => Ok(address),
        }
    }
}

fn ttl(said: &str) -> Result<Duration, String> {
    match humantime::parse_duration(said) {
        Ok(ttl) if ttl < TTL_MIN => Err(format!("{TTL_MIN:?} is the shortest that etcd keeps")),
        Ok(ttl) => Ok(ttl),
        Err(error) => Err(error.to_string()),
    }
}

fn protocol(said: &str) -> Result<Protocol, String> {
    Protocol::ALL.into_iter().find(|p| p.as_str() == said).ok_or_else(|| "it is one of http, https, h2, h2c".to_owned())
}

fn probe(said: &str) -> Result<Check, String> {
    match said {
        "tcp" => Ok(Check::Tcp),
        path if path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic()) => Ok(Check::Http { path: path.to_owned() }),
        _ => Err("it is a path such as /healthz, or tcp".to_owned()),
    }
}

const TTL_MIN: Duration = Duration::from_secs(2);
