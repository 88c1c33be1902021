//! Where a drill takes place: etcd, a proxy or several, and processes of the sample service that register themselves.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;
use tempfile::TempDir;

use super::admin::ask;
use crate::Outcome;
use crate::load::{End, Plan, Request};
use crate::process::Process;
use crate::proxies::{POINTSMAN, Program, Proxy};
use crate::registry::Etcd;

pub struct Scene {
    pub etcd: Etcd,
    pub proxies: Vec<Proxy>,
    program: PathBuf,
    /// What the instances say goes here.
    logs: TempDir,
}

/// A process of the sample service; killed when dropped.
pub struct Instance {
    pub id: String,
    pub address: SocketAddr,
    /// As it is registered.
    pub seen_at: SocketAddr,
    pub process: Process,
}

/// How an instance is started.
#[derive(Clone, Copy, Default)]
pub struct Cast<'a> {
    /// What it does to every request from its start.
    pub behave: Option<&'a str>,
    /// How long each of its answers takes.
    pub latency: &'a str,
    /// `pointsman register` around it instead of its own registration.
    pub registrar: bool,
    /// Where it listens; an address of its own if nothing is said.
    pub at: Option<SocketAddr>,
    /// Where proxies find it, if that is not where it listens.
    pub seen_at: Option<SocketAddr>,
}

impl Scene {
    /// One proxy. A route `/NAME` to each service, with its policy where there is one.
    pub async fn start(program: &Program, services: &[(&str, Option<Json>)]) -> Outcome<Self> {
        let etcd = Etcd::start().await?;
        let way = etcd.url.clone();
        Self::set(etcd, program, services, &[way], "").await
    }

    /// A proxy for each way to etcd, whose configuration has these lines, too.
    pub async fn set(
        mut etcd: Etcd,
        program: &Program,
        services: &[(&str, Option<Json>)],
        ways: &[String],
        more: &str,
    ) -> Outcome<Self> {
        let route = |name: &str| serde_json::json!({ "path_prefix": format!("/{name}"), "service": name }).to_string();
        let routes = services.iter().map(|(name, _)| (format!("/pointsman/routes/{name}"), route(name)));
        let policy =
            |(name, policy): &(&str, Option<Json>)| Some((format!("/pointsman/services/{name}"), policy.as_ref()?.to_string()));
        let revision = etcd.fill(routes.chain(services.iter().filter_map(policy))).await?;
        let mut proxies = Vec::new();
        for way in ways {
            let mut proxy = Proxy::pointsman_with(&program.pointsman, way, more)?;
            proxy.has_applied(revision).await?;
            proxies.push(proxy);
        }
        let program = program.pointsman.canonicalize()?;
        Ok(Self { etcd, proxies, program, logs: tempfile::tempdir()? })
    }

    /// Starts `n` instances and waits until every proxy knows them all.
    pub async fn instances(&self, service: &str, n: u32, cast: Cast<'_>) -> Outcome<Vec<Instance>> {
        let started = (0..n).map(|n| self.instance(service, &format!("{service}-{n}"), cast)).collect::<Outcome<Vec<_>>>()?;
        self.know(service, &started).await?;
        Ok(started)
    }

    pub fn instance(&self, service: &str, id: &str, cast: Cast<'_>) -> Outcome<Instance> {
        let address = cast.at.map_or_else(address_of_its_own, Ok)?;
        let seen_at = cast.seen_at.unwrap_or(address);
        let (listen, registered) = (address.to_string(), seen_at.to_string());
        // The instances are the same whichever build of the proxy is tried.
        let mut command = Command::new(if cast.registrar { self.program.as_path() } else { Path::new(POINTSMAN) });
        let registration = ["--etcd", &self.etcd.url, "--service", service, "--id", id, "--ttl", TTL];
        if cast.registrar {
            command.arg("register").args(registration).args([
                "--address",
                &registered,
                "--probe",
                "/healthz",
                "--drain",
                DRAIN,
                "--",
            ]);
            command.arg(POINTSMAN).arg("sample");
        } else {
            command.arg("sample").arg("--register").args(registration).args(["--drain", DRAIN, "--address", &registered]);
        }
        command.args(["--listen", &listen, "--name", id]);
        if !cast.latency.is_empty() {
            command.args(["--latency", cast.latency]);
        }
        if let Some(behave) = cast.behave {
            command.args(["--behave", behave]);
        }
        let process = Process::start(&mut command, &self.logs.path().join(format!("{id}-{}.log", address.port())))?;
        Ok(Instance { id: id.to_owned(), address, seen_at, process })
    }

    /// Waits until every proxy sends requests to them.
    pub async fn know(&self, service: &str, instances: &[Instance]) -> Outcome<()> {
        let addresses: Vec<SocketAddr> = instances.iter().map(|instance| instance.seen_at).collect();
        for proxy in &self.proxies {
            proxy.knows(service, &addresses).await?;
        }
        Ok(())
    }

    /// The sum of the series of every proxy of this name with all of these labels.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Outcome<u64> {
        let mut sum = 0;
        for proxy in &self.proxies {
            sum += proxy.metric(name, labels).await?;
        }
        Ok(sum)
    }

    /// Requests to `/SERVICE` through the first proxy.
    pub fn plan(&self, service: &str, connections: u32, rate: Option<f64>, end: End) -> Plan {
        let request = Request::get("localhost", &format!("/{service}"));
        Plan { address: self.proxies[0].address, request, connections, rate, end, fresh: false }
    }
}

impl Instance {
    /// Requests that reached it, by its own count.
    pub async fn n_requests(&self) -> Outcome<u64> {
        let body = ask(self.address, "GET", "/behave").await?.ok_or("the instance does not count")?;
        serde_json::from_slice::<Json>(&body)?["requests"].as_u64().ok_or_else(|| "the instance has no count".into())
    }

    /// What it does to every request from now on.
    pub async fn behaves(&self, behaviour: &str) -> Outcome<()> {
        ask(self.address, "POST", &format!("/behave?as={behaviour}")).await?.ok_or("the instance does not do as it is told")?;
        Ok(())
    }
}

impl Drop for Instance {
    /// The drill is over: nobody has to be told.
    fn drop(&mut self) {
        self.process.kill();
    }
}

/// Where nobody listens, and where nobody else will: connections begin at 127.0.0.1, so none ever takes a port here
/// from an instance that is away for a while.
pub fn address_of_its_own() -> std::io::Result<SocketAddr> {
    TcpListener::bind(SocketAddr::from(([127, 2, fastrand::u8(..), fastrand::u8(1..255)], 0)))?.local_addr()
}

/// Of each instance's lease: a killed one stays in the registry for as long.
const TTL: &str = "5s";
/// An instance that leaves serves on for this long after it said so.
const DRAIN: &str = "1s";
