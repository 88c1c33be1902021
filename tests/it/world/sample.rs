//! Instances that are processes of their own: the sample service, which can be killed, and told to misbehave.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use http::Version;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::World;
use super::client::{Ask, Connection};
use super::ports::free_address;
use super::program::Program;

pub struct Sample {
    pub id: String,
    pub address: SocketAddr,
    pub process: Program,
}

impl World {
    /// Registers itself, and is in use when this returns.
    pub fn sample(&self, service: &str, id: &str) -> Sample {
        self.sample_at(service, id, free_address())
    }

    pub fn sample_at(&self, service: &str, id: &str, address: SocketAddr) -> Sample {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
        command.args(["sample", "--register", "--etcd", &self.registry_url(), "--service", service, "--id", id, "--name", id]);
        command.args(["--listen", &address.to_string(), "--ttl", &format!("{}s", LEASE.as_secs()), "--latency", "2ms"]);
        self.in_use(service, id, address, &mut command)
    }

    /// The same, kept registered by `pointsman register`.
    pub fn registered(&self, service: &str, id: &str) -> Sample {
        let address = free_address();
        let (listen, ttl) = (address.to_string(), format!("{}s", LEASE.as_secs()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
        command
            .args(["register", "--etcd", &self.registry_url(), "--service", service, "--id", id, "--address", &listen])
            .args(["--ttl", &ttl, "--probe", "/healthz", "--drain", "1s", "--"])
            .args([env!("CARGO_BIN_EXE_pointsman"), "sample", "--listen", &listen, "--name", id, "--latency", "2ms"]);
        self.in_use(service, id, address, &mut command)
    }

    fn in_use(&self, service: &str, id: &str, address: SocketAddr, command: &mut Command) -> Sample {
        let process = Program::start(command, &self.folder(), &format!("{service}-{id}"));
        self.eventually(&format!("{id} of {service} is in use"), || {
            let seen = self.seen(service, id);
            seen["address"] == address.to_string() && seen["eligible"] == true
        });
        Sample { id: id.to_owned(), address, process }
    }

    /// What the proxy says of an instance; null as long as it knows none.
    pub fn seen(&self, service: &str, id: &str) -> Value {
        let said = self.try_admin(format!("/api/v1/services/{service}").as_str());
        let mut said = said.ok().filter(|answer| answer.status == 200).map(|answer| answer.json()).unwrap_or_default();
        let instances = said["instances"].as_array_mut().map(std::mem::take).unwrap_or_default();
        instances.into_iter().find(|instance| instance["id"] == id).unwrap_or_default()
    }

    /// Waits until so many instances of the service have been found up.
    pub fn proven(&self, service: &str, n: usize) {
        self.settles(&format!("{service} is probed"), n, || {
            let shown = self.admin(format!("/api/v1/services/{service}").as_str()).json();
            shown["instances"].as_array().map_or(0, |all| all.iter().filter(|i| i["probe"] == "up").count())
        });
    }

    /// How often an instance of the service was taken out because of what requests met.
    pub fn ejections(&self, service: &str) -> f64 {
        self.metric("pointsman_ejections_total", &[("service", service)]).unwrap_or_default()
    }

    /// What it does to every request from now on, as in `fail&status=502`.
    pub fn behaves(&self, sample: &Sample, behaviour: &str) {
        let ask = Ask::post(&format!("/behave?as={behaviour}"), "");
        assert_eq!(self.ask_sample(sample, ask)["as"].as_str(), Some(behaviour));
    }

    /// Requests that reached it, by its own count.
    pub fn requests_at(&self, sample: &Sample) -> u64 {
        self.ask_sample(sample, Ask::get("/behave"))["requests"].as_u64().expect("a count")
    }

    fn ask_sample(&self, sample: &Sample, ask: Ask) -> Value {
        let asked = async { Connection::open(sample.address, Version::HTTP_11).await?.ask(ask).await };
        self.handle().block_on(asked).unwrap_or_else(|error| panic!("{}: {error}", sample.id)).json()
    }
}

impl Sample {
    /// SIGKILL: nobody is told, the registration outlives it.
    pub fn dies(mut self) -> SocketAddr {
        self.process.kill();
        self.address
    }

    /// SIGTERM: it drains, leaves the registry, and ends.
    pub fn leaves(mut self) {
        self.process.signal(Signal::SIGTERM);
        self.process.exits_within(LEAVES_MAX);
    }
}

/// How long a killed one stays in the registry.
pub const LEASE: Duration = Duration::from_secs(5);
const LEAVES_MAX: Duration = Duration::from_secs(10);
