//! What the admin address promises, asked over TCP of a world made by hand.

mod api;
mod bounds;
mod metrics;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::Value as Json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Access, AcmeReading, ProxyReading, RegistryReading, RejectedRecord, SourceReading, Sources, serve};
use crate::catalog::{Catalog, History, Live};
use crate::model::{
    AcmeOrder, AcmeOrderState, Address, CertificateName, Change, Departure, Event, HostPattern, InstanceId, InstanceSpec,
    Lifecycle, Origin, Outcome, PathMatch, ProbeResult, RateKey, RateLimit, RouteName, RouteSpec, ServiceName,
};
use crate::pool::{InFlight, Instance};
use crate::tls::samples::Sample;

struct World {
    catalog: Catalog,
    live: Arc<Live>,
    registry: Arc<Mutex<RegistryReading>>,
    leaving: watch::Sender<bool>,
    shutdown: watch::Sender<bool>,
    address: SocketAddr,
    serving: tokio::task::JoinHandle<()>,
    revision: u64,
}

struct Answer {
    status: u16,
    fields: http::HeaderMap,
    text: String,
}

impl World {
    async fn new() -> Self {
        let (live, history) = (Arc::new(Live::default()), Arc::new(History::default()));
        let registry = Arc::new(Mutex::new(RegistryReading { kind: "etcd", ..RegistryReading::default() }));
        let (leaving, shutdown) = (watch::Sender::new(false), watch::Sender::new(false));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let reading = registry.clone();
        let sources = Sources {
            live: live.clone(),
            history: history.clone(),
            timings: Arc::default(),
            probe_lateness: Arc::default(),
            access: Access::open(),
            registry: Box::new(move || reading.lock().unwrap().clone()),
            terminating: vec![(1, "0.0.0.0:8443".parse().unwrap())],
            acme: Box::new(|| Some(AcmeReading { is_renewer: true, orders: [("issued", 2), ("failed", 1)] })),
            certificate_files: Box::new(|| vec![("b.pem".to_owned(), "b.pem holds no certificate".to_owned())]),
            proxy: Box::new(|| ProxyReading {
                challenges: vec![("http-01", 3)],
                handshakes: vec![("1.3", "full", 7)],
                proxy_headers: vec![("proxied", 2)],
                connections: vec![("0.0.0.0:8080".parse().unwrap(), 3)],
                received_bytes: 100,
                sent_bytes: 2000,
                unrouted: [0, 0, 0, 0, 5, 0],
                drains_active: 1,
                http1_own: 41,
                http1_general: 3,
                http2_cuts: vec![("resets", 4)],
                rate_displaced: 4,
                drain_forced_closes: 2,
                limits: vec![("head_timeout", 5), ("connections", 6)],
                upgrades: vec![("taken_over", 1), ("refused", 3)],
            }),
            leaving: leaving.subscribe(),
            version: "0.1.0",
            revision: "abc",
            started_at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000),
        };
        let serving = tokio::spawn(serve(listener, Arc::new(sources), shutdown.subscribe()));
        let catalog = Catalog::new(live.clone(), history);
        Self { catalog, live, registry, leaving, shutdown, address, serving, revision: 0 }
    }

    /// Two services, one of them used; three routes.
    async fn used() -> Self {
        let mut world = Self::new().await;
        let mut draining = spec("10.0.0.3:80");
        draining.lifecycle = Lifecycle::Draining;
        world.apply(vec![
            put("orders", "a", spec("10.0.0.1:80")),
            put("orders", "b", spec("orders.internal:80")),
            put("orders", "c", draining),
            put("idle", "a", spec("10.0.1.1:80")),
            route("shop", &["shop.example"], PathMatch::Prefix("/api".into()), "orders"),
            limited(route("any", &[], PathMatch::Any, "idle")),
            route("lost", &["*.lost.example"], PathMatch::Any, "nowhere"),
        ]);
        let a = world.instance("orders", "a");
        a.state.count(Outcome::Success, Some(Duration::from_millis(3)));
        a.state.count(Outcome::ConnectFailed, None);
        let service = world.live.load().services.get("orders").unwrap().clone();
        service.stats.requests.record(Duration::from_millis(4));
        service.stats.attempts.record(Duration::from_millis(3));
        service.stats.count_retry(0);
        service.count_probe(ProbeResult::Status, Duration::from_millis(2));
        world.live.load().routes.routes().iter().find(|r| r.spec.name.as_str() == "shop").unwrap().stats.count(200);
        world
    }

    fn apply(&mut self, changes: Vec<Change>) {
        self.revision += 1;
        let event = Event { origin: Origin::Registry, revision: self.revision, changes };
        self.catalog.apply(vec![event], vec![], Instant::now(), SystemTime::now());
    }

    fn instance(&self, service: &str, id: &str) -> Arc<Instance> {
        let id = InstanceId::parse(id).unwrap();
        self.live.load().services.get(service).unwrap().pool.get(&id).unwrap().clone()
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[]).await
    }

    async fn json(&self, path: &str) -> Json {
        let answer = self.get(path).await;
        assert_eq!((answer.status, &answer.fields["content-type"]), (200, &"application/json".parse().unwrap()), "{path}");
        serde_json::from_str(&answer.text).unwrap_or_else(|e| panic!("{path}: {e} in {}", answer.text))
    }

    async fn ask(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
        let reply = self.open(method, path, fields).await;
        let (status, fields) = (reply.status().as_u16(), reply.headers().clone());
        let text = String::from_utf8(reply.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Answer { status, fields, text }
    }

    /// With its body still to come.
    async fn open(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> http::Response<hyper::body::Incoming> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = http::Request::builder().method(method).uri(path);
        if !fields.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", self.address.to_string());
        }
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap()
    }
}

fn spec(address: &str) -> InstanceSpec {
    InstanceSpec::at(Address::parse(address).unwrap())
}

fn put(service: &str, id: &str, spec: InstanceSpec) -> Change {
    Change::Instance { service: ServiceName::parse(service).unwrap(), id: InstanceId::parse(id).unwrap(), spec }
}

fn gone(service: &str, id: &str) -> Change {
    let (service, id) = (ServiceName::parse(service).unwrap(), InstanceId::parse(id).unwrap());
    Change::InstanceGone { service, id, departure: Departure::Deleted }
}

fn certificate(name: &str, names: &[&str]) -> Change {
    let certificate = Some(Sample::of(names).in_registry(name));
    Change::Certificate { name: CertificateName::parse(name).unwrap(), certificate }
}

fn acme_order(name: &str) -> Change {
    let order = AcmeOrder {
        state: AcmeOrderState::Failed,
        domains: vec!["shop.example".into()],
        directory: "https://ca.example/".to_owned(),
        proxy: "edge-1".to_owned(),
        at: SystemTime::now(),
        next: Some(SystemTime::now()),
        n_failed: 2,
        error: Some("shop.example: no answer".to_owned()),
    };
    Change::AcmeOrder { name: CertificateName::parse(name).unwrap(), order: Some(Arc::new(order)) }
}

fn route(name: &str, hosts: &[&str], path: PathMatch, service: &str) -> Change {
    let name = RouteName::parse(name).unwrap();
    let hosts = hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect();
    let spec = RouteSpec { hosts, path, ..RouteSpec::to(name.clone(), ServiceName::parse(service).unwrap()) };
    Change::Route { name, route: Some(Box::new(spec)) }
}

/// The same with a rate limit that is only counted.
fn limited(mut change: Change) -> Change {
    if let Change::Route { route: Some(spec), .. } = &mut change {
        let (requests, per, by) = (10, Duration::from_secs(1), RateKey::Route);
        spec.rate_limit = Some(RateLimit { requests, per, burst: 20, by, dry_run: true });
    }
    change
}

fn rejected() -> RejectedRecord {
    let (key, reason) = ("/pointsman/instances/orders/x".to_owned(), "weight: 70000 is not in 0..=65535".to_owned());
    RejectedRecord { key, revision: 812, reason, keeping: Some(790) }
}

fn in_flight(instance: &Arc<Instance>) -> InFlight {
    InFlight::begin(instance.clone())
}
