//! The sample service answers on every surface, and its key in a real etcd lives exactly as long as it does.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use etcd_client::Client;
use futures_util::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

#[path = "../../examples/sample/sample/mod.rs"]
#[expect(unused, reason = "its command line is for the programs that include it")]
mod service;

use service::{Options, Registration, Sample};

#[tokio::test]
async fn http_1_requests_are_described_and_summed() {
    let running = Running::start(None).await;
    let (status, said) = running.http_1("/users?x=1", "").await;
    let said: Value = serde_json::from_slice(&said).unwrap();
    assert_eq!((status, &said["path"], &said["query"]), (StatusCode::OK, &"/users".into(), &"x=1".into()));
    assert_eq!(said["version"], "HTTP/1.1");

    let (_, summed) = running.http_1("/sum", "Wikipedia").await;
    let summed: Value = serde_json::from_slice(&summed).unwrap();
    assert_eq!((&summed["bytes"], &summed["adler32"]), (&9.into(), &"11e60398".into()));
}

#[tokio::test]
async fn http_2_is_spoken_on_the_same_port() {
    let running = Running::start(None).await;
    let stream = TokioIo::new(TcpStream::connect(running.address).await.unwrap());
    let (mut send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let upload = Bytes::from(vec![7; 300_000]);
    let echoed = Request::post(format!("http://{}/echo", running.address)).body(Full::new(upload.clone())).unwrap();
    let answer = send.send_request(echoed).await.unwrap();
    assert_eq!(answer.version(), http::Version::HTTP_2);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), upload);
}

#[tokio::test]
async fn a_websocket_echoes_and_is_told_when_the_service_stops() {
    let running = Running::start(None).await;
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{}/ws", running.address)).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    running.stop().await;
    let Some(Ok(Message::Close(Some(closed)))) = socket.next().await else { panic!("no close frame") };
    assert_eq!(u16::from(closed.code), 1001);
}

#[tokio::test]
async fn grpc_health_follows_healthz() {
    let running = Running::start(None).await;
    let channel = tonic::transport::Endpoint::try_from(format!("http://{}", running.address)).unwrap();
    let mut client = HealthClient::new(channel.connect().await.unwrap());
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, SERVING);
    running.http_1("/healthz?status=503", "").await;
    assert_eq!(watch.message().await.unwrap().unwrap().status, NOT_SERVING);
    let checked = client.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(checked.status, NOT_SERVING);
    let unknown = client.check(HealthCheckRequest { service: "none".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn close_ends_in_a_reset() {
    let running = Running::start(None).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"GET /close HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let error = stream.read(&mut [0; 16]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn break_sends_half_an_answer_and_a_reset() {
    let running = Running::start(None).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"GET /break HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let error = stream.read_to_end(&mut answer).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("first half"), "{answer}");
}

#[tokio::test]
async fn an_instance_misbehaves_as_long_as_it_is_told_to_and_spares_its_health() {
    let running = Running::start(None).await;
    assert_eq!(running.http_1("/behave?as=fail&status=502", "").await.0, StatusCode::OK);
    assert_eq!(running.http_1("/anything", "").await.0, StatusCode::BAD_GATEWAY);
    assert_eq!(running.http_1("/healthz?status=200", "").await.0, StatusCode::OK);
    assert_eq!(running.http_1("/behave?as=dance", "").await.0, StatusCode::BAD_REQUEST);

    running.http_1("/behave?as=hang&for=300", "").await;
    let asked = tokio::time::Instant::now();
    assert_eq!(running.http_1("/anything", "").await.0, StatusCode::OK);
    assert!(asked.elapsed() > Duration::from_millis(200), "it answered while it hung");

    running.http_1("/behave?as=flap&ms=50", "").await;
    let mut seen = std::collections::BTreeSet::new();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while seen.len() < 2 && tokio::time::Instant::now() < deadline {
        seen.insert(running.http_1("/anything", "").await.0);
    }
    assert_eq!(seen, [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE].into());
}

#[tokio::test]
async fn an_instance_that_refuses_has_no_listener_and_keeps_no_connection() {
    let running = Running::start(None).await;
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    idle.readable().await.unwrap();
    running.http_1("/behave?as=refuse&for=500", "").await;
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, idle.read_to_end(&mut rest)).await.expect("the idle connection is closed").unwrap();
    assert!(TcpStream::connect(running.address).await.is_err(), "it listens");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while TcpStream::connect(running.address).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "it never listened again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(running.http_1("/", "").await.0, StatusCode::OK);
}

#[tokio::test]
async fn the_key_in_etcd_lives_as_long_as_the_service() {
    let etcd = Etcd::start();
    let mut registry = etcd.client().await;
    let key = "/pointsman/instances/users/one";
    let running = Running::start(Some(etcd.registration())).await;
    let registered = eventually(&mut registry, key, |value| value.is_some()).await.unwrap();
    let registered: Value = serde_json::from_str(&registered).unwrap();
    assert_eq!((&registered["address"], &registered["state"]), (&running.address.to_string().into(), &"ready".into()));

    registry.delete(key, None).await.unwrap();
    eventually(&mut registry, key, |value| value.is_some()).await;

    running.http_1("/drain", "").await;
    eventually(&mut registry, key, |value| value.is_some_and(|value| value.contains("draining"))).await;

    running.stop().await;
    eventually(&mut registry, key, |value| value.is_none()).await;
    assert!(registry.leases().await.unwrap().leases().is_empty(), "the lease is revoked, not left to run out");
}

const SERVING: i32 = tonic_health::ServingStatus::Serving as i32;
const NOT_SERVING: i32 = tonic_health::ServingStatus::NotServing as i32;

/// A sample service on a port of its own.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Running {
    async fn start(registration: Option<Registration>) -> Self {
        let options = Options {
            name: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            latency: Duration::ZERO,
            fail_percent: 0,
            behaviour: None,
            drain: Duration::ZERO,
            registration,
        };
        let sample = Sample::bind(options).await.unwrap();
        let address = sample.address();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(sample.run(async { stopped.await.unwrap_or_default() }));
        Self { address, stop, served }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.served).await.expect("the service ends").unwrap();
    }

    /// A POST where there is something to say or to change.
    async fn http_1(&self, path: &str, body: &str) -> (StatusCode, Bytes) {
        let stream = TokioIo::new(TcpStream::connect(self.address).await.unwrap());
        let (mut send, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post(path).header("host", "sample").body(Full::new(Bytes::from(body.to_owned())));
        let answer = send.send_request(request.unwrap()).await.unwrap();
        (answer.status(), answer.into_body().collect().await.unwrap().to_bytes())
    }
}

/// Waits until the value of `key` is as wanted.
async fn eventually(registry: &mut Client, key: &str, wanted: impl Fn(Option<&str>) -> bool) -> Option<String> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let found = registry.get(key, None).await.unwrap();
        let value = found.kvs().first().map(|kv| kv.value_str().unwrap().to_owned());
        if wanted(value.as_deref()) {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "{key} is still {value:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A real etcd with a directory of its own.
struct Etcd {
    process: Child,
    url: String,
    _directory: tempfile::TempDir,
}

impl Etcd {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [url, to_members] = [(); 2].map(|()| {
            let free = StdListener::bind("127.0.0.1:0").unwrap();
            format!("http://{}", free.local_addr().unwrap())
        });
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(directory.path())
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &to_members, "--initial-advertise-peer-urls", &to_members])
            .args(["--initial-cluster", &format!("default={to_members}"), "--unsafe-no-fsync"])
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed");
        Self { process, url, _directory: directory }
    }

    async fn client(&self) -> Client {
        let mut client = Client::connect([&self.url], None).await.unwrap();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while client.status().await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "etcd did not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        client
    }

    fn registration(&self) -> Registration {
        Registration {
            etcd: vec![self.url.clone()],
            prefix: "/pointsman".into(),
            service: "users".into(),
            id: Some("one".into()),
            ttl: Duration::from_secs(5),
            weight: 100,
            zone: None,
            address: None,
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const PATIENCE: Duration = Duration::from_secs(10);
