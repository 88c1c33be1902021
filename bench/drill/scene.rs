//! Where a drill takes place: etcd, the proxy, and processes of the sample service that register themselves.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::Outcome;
use crate::load::{Connection, End, Plan, Request};
use crate::process::Process;
use crate::proxies::{POINTSMAN, Program, Proxy};
use crate::registry::Etcd;

pub struct Scene {
    pub etcd: Etcd,
    pub proxy: Proxy,
    program: PathBuf,
    /// What the instances say goes here.
    logs: TempDir,
}

/// A process of the sample service; killed when dropped.
pub struct Instance {
    pub id: String,
    pub address: SocketAddr,
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
}

impl Scene {
    /// A route `/NAME` to each service, with its policy where there is one.
    pub async fn start(program: &Program, services: &[(&str, Option<Json>)]) -> Outcome<Self> {
        let mut etcd = Etcd::start().await?;
        let route = |name: &str| serde_json::json!({ "path_prefix": format!("/{name}"), "service": name }).to_string();
        let routes = services.iter().map(|(name, _)| (format!("/pointsman/routes/{name}"), route(name)));
        let policy =
            |(name, policy): &(&str, Option<Json>)| Some((format!("/pointsman/services/{name}"), policy.as_ref()?.to_string()));
        let revision = etcd.fill(routes.chain(services.iter().filter_map(policy))).await?;
        let mut proxy = Proxy::pointsman_with(&program.pointsman, &etcd.url)?;
        proxy.has_applied(revision).await?;
        let program = program.pointsman.canonicalize()?;
        Ok(Self { etcd, proxy, program, logs: tempfile::tempdir()? })
    }

    /// Starts `n` instances and waits until the proxy knows them all.
    pub async fn instances(&mut self, service: &str, n: u32, cast: Cast<'_>) -> Outcome<Vec<Instance>> {
        let started = (0..n).map(|n| self.instance(service, &format!("{service}-{n}"), cast)).collect::<Outcome<Vec<_>>>()?;
        self.knows(service, started.iter().map(|instance| instance.address)).await?;
        Ok(started)
    }

    pub fn instance(&self, service: &str, id: &str, cast: Cast<'_>) -> Outcome<Instance> {
        let address = cast.at.map_or_else(address_of_its_own, Ok)?;
        let listen = address.to_string();
        // The instances are the same whichever build of the proxy is tried.
        let mut command = Command::new(if cast.registrar { self.program.as_path() } else { Path::new(POINTSMAN) });
        let registration = ["--etcd", &self.etcd.url, "--service", service, "--id", id, "--ttl", TTL];
        if cast.registrar {
            command.arg("register").args(registration).args([
                "--address",
                &listen,
                "--probe",
                "/healthz",
                "--drain",
                DRAIN,
                "--",
            ]);
            command.arg(POINTSMAN).arg("sample");
        } else {
            command.arg("sample").arg("--register").args(registration).args(["--drain", DRAIN]);
        }
        command.args(["--listen", &listen, "--name", id]);
        if !cast.latency.is_empty() {
            command.args(["--latency", cast.latency]);
        }
        if let Some(behave) = cast.behave {
            command.args(["--behave", behave]);
        }
        let process = Process::start(&mut command, &self.logs.path().join(format!("{id}-{}.log", address.port())))?;
        Ok(Instance { id: id.to_owned(), address, process })
    }

    /// Waits until the proxy sends requests to these addresses.
    pub async fn knows(&mut self, service: &str, addresses: impl Iterator<Item = SocketAddr>) -> Outcome<()> {
        let mut unknown: Vec<String> = addresses.map(|address| address.to_string()).collect();
        let deadline = Instant::now() + KNOWN_MAX;
        while !unknown.is_empty() {
            let known = self.eligible(service).await?;
            unknown.retain(|address| !known.contains(address));
            if Instant::now() > deadline {
                return Err(format!("the proxy never used {unknown:?} of {service}, only {known:?}").into());
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Addresses of the instances that may get requests.
    async fn eligible(&self, service: &str) -> Outcome<Vec<String>> {
        let seen = self.seen(service).await?;
        let eligible = seen.iter().filter(|instance| instance["eligible"] == true);
        Ok(eligible.filter_map(|instance| instance["address"].as_str().map(str::to_owned)).collect())
    }

    /// What the proxy says of each instance.
    pub async fn seen(&self, service: &str) -> Outcome<Vec<Json>> {
        let admin = self.proxy.admin.ok_or("ours has an admin address")?;
        // Not found as long as no instance is known.
        let Some(body) = ask(admin, "GET", &format!("/api/v1/services/{service}")).await? else { return Ok(Vec::new()) };
        let mut said: Json = serde_json::from_slice(&body)?;
        Ok(said["instances"].as_array_mut().map(std::mem::take).unwrap_or_default())
    }

    /// The sum of the proxy's series of this name with all of these labels.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Outcome<u64> {
        let admin = self.proxy.admin.ok_or("ours has an admin address")?;
        let text = ask(admin, "GET", "/metrics").await?.ok_or("no metrics")?;
        let text = String::from_utf8(text)?;
        let series = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, rest) = series.split_once('{').unwrap_or((series, ""));
            let carries = |(label, said): &(&str, &str)| rest.contains(&format!("{label}=\"{said}\""));
            (found == name && labels.iter().all(carries)).then(|| value.parse::<f64>().ok())?
        });
        Ok(series.sum::<f64>() as u64)
    }

    /// Requests to `/SERVICE` through the proxy.
    pub fn plan(&self, service: &str, connections: u32, rate: Option<f64>, end: End) -> Plan {
        let request = Request::get("localhost", &format!("/{service}"));
        Plan { address: self.proxy.address, request, connections, rate, end, fresh: false }
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

/// The body of a 200; none with any other status.
async fn ask(address: SocketAddr, method: &str, path: &str) -> Outcome<Option<Vec<u8>>> {
    let mut connection = Connection::open(address).await?;
    let mut body = Vec::new();
    let request = Request::new(method, &address.to_string(), path, 0, true);
    let answer = connection.exchange_into(&request, |piece| body.extend_from_slice(piece)).await?;
    Ok((answer.status == 200).then_some(body))
}

/// Of each instance's lease: a killed one stays in the registry for as long.
const TTL: &str = "5s";
/// An instance that leaves serves on for this long after it said so.
const DRAIN: &str = "1s";
/// Processes start, register and are probed; on two cores, twenty at once take a while.
const KNOWN_MAX: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
