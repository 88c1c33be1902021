//! The language of these stories: a proxy, instances that behave as told, and clients.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::catalog::{Catalog, Live};
use crate::config::{ClientLimits, Listener, Network, ProxyConfig, ShutdownConfig};
use crate::model::{
    Address, Change, Departure, Event, InstanceId, InstanceSpec, Lifecycle, Origin, Protocol, RouteName, RouteSpec, ServiceName,
    ServicePolicy,
};
use crate::pool::Service;
use crate::proxy::{Proxy, Serving, open};

pub struct World {
    pub proxy: Proxy,
    pub addr: SocketAddr,
    catalog: Catalog,
    live: Arc<Live>,
    revision: u64,
    ending: watch::Sender<bool>,
    serving: Option<Serving>,
}

pub struct Setup {
    config: ProxyConfig,
    policy: ServicePolicy,
    protocol: Protocol,
    listener: Listener,
}

/// A world with the service `api` for every path. One worker, so that a story's connections meet.
pub fn world() -> Setup {
    let shutdown = ShutdownConfig { grace: Duration::ZERO, drain: Duration::from_secs(5) };
    let config = ProxyConfig {
        forwarded: false,
        trusted_proxies: vec![],
        zone: None,
        sticky_secret: None,
        workers: 1,
        limits: ClientLimits::default(),
        shutdown,
    };
    let mut policy = ServicePolicy::default();
    // What takes long here is a busy machine, which is no story's subject.
    policy.timeouts.connect = SOON;
    Setup { config, policy, protocol: Protocol::Http, listener: Listener::plain(([127, 0, 0, 1], 0).into()) }
}

impl Setup {
    pub fn limits(mut self, change: impl FnOnce(&mut ClientLimits)) -> Self {
        change(&mut self.config.limits);
        self
    }

    pub fn policy(mut self, change: impl FnOnce(&mut ServicePolicy)) -> Self {
        change(&mut self.policy);
        self
    }

    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    pub fn trusting_everyone(mut self) -> Self {
        self.config.trusted_proxies = vec![Network { address: [127, 0, 0, 0].into(), prefix: 8 }];
        self
    }

    pub fn drain(mut self, drain: Duration) -> Self {
        self.config.shutdown.drain = drain;
        self
    }

    /// Instances are called `i0`, `i1`, …
    pub fn start(self, instances: &[SocketAddr]) -> World {
        let live = Arc::new(Live::default());
        let proxy = Proxy::new(live.clone(), &Arc::default(), &self.config, None, std::slice::from_ref(&self.listener));
        let sockets = open(std::slice::from_ref(&self.listener), Vec::new(), 1).unwrap();
        let addr = sockets.addresses()[0];
        let (ending, ended) = watch::channel(false);
        let serving = Some(proxy.serve(sockets, ended).unwrap());
        let catalog = Catalog::new(live.clone(), Arc::default());
        let mut world = World { proxy, addr, catalog, live, revision: 0, ending, serving };
        let service = ServiceName::parse("api").unwrap();
        let route = RouteSpec::to(RouteName::parse("all").unwrap(), service.clone());
        let name = route.name.clone();
        world.apply(vec![
            Change::Route { name, route: Some(Box::new(route)) },
            Change::Policy { service, policy: Some(Box::new(self.policy)) },
        ]);
        for (n, addr) in instances.iter().enumerate() {
            world.put_as(&format!("i{n}"), *addr, Lifecycle::Ready, self.protocol);
        }
        world
    }
}

impl World {
    pub fn put(&mut self, id: &str, addr: SocketAddr, lifecycle: Lifecycle) {
        self.put_as(id, addr, lifecycle, Protocol::Http);
    }

    fn put_as(&mut self, id: &str, addr: SocketAddr, lifecycle: Lifecycle, protocol: Protocol) {
        let spec = InstanceSpec { lifecycle, protocol, ..InstanceSpec::at(Address::parse(&addr.to_string()).unwrap()) };
        self.apply(vec![Change::Instance {
            service: ServiceName::parse("api").unwrap(),
            id: InstanceId::parse(id).unwrap(),
            spec,
        }]);
    }

    pub fn remove(&mut self, id: &str) {
        let (service, id) = (ServiceName::parse("api").unwrap(), InstanceId::parse(id).unwrap());
        self.apply(vec![Change::InstanceGone { service, id, departure: Departure::Deleted }]);
    }

    fn apply(&mut self, changes: Vec<Change>) {
        self.revision += 1;
        let event = Event { origin: Origin::Registry, revision: self.revision, changes };
        let applied = self.catalog.apply(vec![event], vec![], Instant::now(), SystemTime::now());
        self.proxy.evict(&applied.retired);
    }

    pub fn service(&self) -> Arc<Service> {
        self.live.load().services.get("api").unwrap().clone()
    }

    pub fn in_flight(&self) -> u32 {
        self.service().pool.all().iter().map(|i| i.state.in_flight()).sum()
    }

    pub async fn connect(&self) -> Client {
        Client::connect(self.addr).await
    }

    /// One request on a connection of its own.
    pub async fn send(&self, request: &str) -> Answer {
        let mut client = self.connect().await;
        client.write(request).await;
        client.answer().await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n\r\n")).await
    }

    /// Begins the end of the process and waits for it.
    pub async fn end(&mut self) {
        self.ending.send_replace(true);
        self.serving.take().unwrap().finished().await;
    }

    pub fn begin_end(&self) {
        self.ending.send_replace(true);
    }
}

/// A connection that speaks in raw bytes.
pub struct Client {
    pub stream: TcpStream,
    rest: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

impl Client {
    pub async fn connect(addr: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(addr).await.unwrap(), rest: Vec::new() }
    }

    pub async fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// The next answer, its body read by length, by chunks, or to the end of the connection.
    pub async fn answer(&mut self) -> Answer {
        let head = self.until(b"\r\n\r\n").await;
        let (line, fields) = head.split_once("\r\n").unwrap();
        let fields: String = fields
            .lines()
            .map(|l| l.split_once(": ").map_or(l.to_owned(), |(n, v)| format!("{}: {v}\n", n.to_ascii_lowercase())))
            .collect();
        let mut answer = Answer { status: line.split(' ').nth(1).unwrap().parse().unwrap(), head: fields, body: String::new() };
        if answer.status < 200 || answer.status == 204 || answer.status == 304 {
            return answer;
        }
        answer.body = if let Some(length) = answer.field("content-length") {
            self.exactly(length.parse().unwrap()).await
        } else if answer.field("transfer-encoding") == Some("chunked") {
            let mut body = String::new();
            loop {
                let length = usize::from_str_radix(self.until(b"\r\n").await.trim(), 16).unwrap();
                body += &self.exactly(length).await;
                self.until(b"\r\n").await;
                if length == 0 {
                    break body;
                }
            }
        } else {
            self.rest_of_it().await
        };
        answer
    }

    /// The head of the next answer, without its body.
    pub async fn head(&mut self) -> String {
        self.until(b"\r\n\r\n").await
    }

    pub async fn until(&mut self, mark: &[u8]) -> String {
        loop {
            if let Some(at) = self.rest.windows(mark.len()).position(|w| w == mark) {
                let taken = self.rest.drain(..at + mark.len()).collect();
                return String::from_utf8(taken).unwrap();
            }
            assert!(self.more().await, "the connection ended after {:?}", String::from_utf8_lossy(&self.rest));
        }
    }

    pub async fn exactly(&mut self, length: usize) -> String {
        while self.rest.len() < length {
            assert!(self.more().await, "the connection ended early");
        }
        String::from_utf8(self.rest.drain(..length).collect()).unwrap()
    }

    pub async fn rest_of_it(&mut self) -> String {
        while self.more().await {}
        String::from_utf8(std::mem::take(&mut self.rest)).unwrap()
    }

    /// Closed by the proxy, without another byte.
    pub async fn is_closed(&mut self) -> bool {
        self.rest_of_it().await.is_empty()
    }

    async fn more(&mut self) -> bool {
        let read = soon(self.stream.read_buf(&mut self.rest)).await;
        // A reset is an end, too.
        read.unwrap_or(0) > 0
    }
}

/// Every wait of a story has an end.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("it takes too long")
}

/// Only a story that would never end gets there.
const SOON: Duration = Duration::from_secs(60);

pub async fn eventually(mut what: impl FnMut() -> bool) {
    soon(async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// An instance: runs `talk` for each connection, with its number.
pub async fn instance<F, T>(talk: F) -> SocketAddr
where
    F: Fn(Client, usize) -> T + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            tokio::spawn(talk(Client { stream, rest: Vec::new() }, number));
        }
    });
    addr
}

/// Answers every request with its own head, by name in the body.
pub async fn echo() -> SocketAddr {
    instance(|mut client, _| async move {
        while let Some(request) = client.request().await {
            let body = request.to_ascii_lowercase();
            client.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
        }
    })
    .await
}

/// Answers every request with the same bytes.
pub async fn always(response: &'static str) -> SocketAddr {
    instance(move |mut client, _| async move {
        while client.request().await.is_some() {
            client.write(response).await;
        }
    })
    .await
}

/// An address where nobody listens.
pub async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

impl Client {
    /// The next request head; `None` at the end of the connection. Bodies with a length are read and dropped.
    pub async fn request(&mut self) -> Option<String> {
        while !self.rest.windows(4).any(|w| w == b"\r\n\r\n") {
            if self.stream.read_buf(&mut self.rest).await.unwrap_or(0) == 0 {
                return None;
            }
        }
        let head = self.until(b"\r\n\r\n").await;
        let length = head.to_ascii_lowercase().lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok());
        self.exactly(length.unwrap_or(0)).await;
        Some(head)
    }
}
