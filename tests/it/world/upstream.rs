//! A small upstream: says who it is, counts, and does what the last segment of the path asks of it.
//!
//! HTTP/1.1, HTTP/2 with prior knowledge, WebSocket and gRPC on one port. Anything unknown is answered with its name.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, UPGRADE, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::client::{Body, INSTANCE_FIELD, whole};

pub struct Upstream {
    pub name: String,
    pub address: SocketAddr,
    counts: Arc<Counts>,
    release: watch::Sender<bool>,
    /// The status of every answer; 0 for those that the paths ask for.
    status: watch::Sender<u16>,
    health: watch::Sender<Health>,
    serving: JoinHandle<()>,
}

/// What `/healthz` answers, and gRPC's health service by it.
#[derive(Debug, Clone, Copy)]
pub struct Health {
    pub status: u16,
    pub body: &'static str,
    pub says_draining: bool,
    pub hangs: bool,
    /// Who does not say this as `Authorization` is answered 401.
    pub wants: Option<&'static str>,
}

impl Health {
    pub const GOOD: Self = Self { status: 200, body: "all is well", says_draining: false, hangs: false, wants: None };

    fn knows(&self, request: &Request<Incoming>) -> bool {
        self.wants.is_none_or(|wants| request.headers().get(AUTHORIZATION).is_some_and(|said| said == wants))
    }
}

/// Of the proxy's probes only `probes` knows, so that a story about requests is about requests alone.
#[derive(Default)]
struct Counts {
    probes: AtomicUsize,
    requests: AtomicUsize,
    /// Requests whose response has not been written whole.
    running: AtomicUsize,
    connections: AtomicUsize,
    accepted: AtomicUsize,
}

impl Upstream {
    /// On the runtime of `handle`, at an address of its own.
    pub fn start(handle: &Handle, name: &str, address: SocketAddr) -> Self {
        let counts = Arc::new(Counts::default());
        let ((release, released), (status, told)) = (watch::channel(false), watch::channel(0));
        let (health, healthy) = watch::channel(Health::GOOD);
        let listener = handle.block_on(TcpListener::bind(address)).expect("a free address");
        let address = listener.local_addr().expect("the address of our own listener");
        let service = Service { name: name.into(), counts: counts.clone(), released, status: told, health: healthy };
        let serving = handle.spawn(service.accept(listener));
        Self { name: name.to_owned(), address, counts, release, status, health, serving }
    }

    pub fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
    }

    /// Requests that say they are probes, and connections that were closed without a word.
    pub fn probes(&self) -> usize {
        self.counts.probes.load(Ordering::SeqCst)
    }

    pub fn is_now(&self, health: Health) {
        self.health.send_replace(health);
    }

    pub fn running(&self) -> usize {
        self.counts.running.load(Ordering::SeqCst)
    }

    /// Open now.
    pub fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// Ever accepted.
    pub fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    /// Answers everything with this status from now on; 0 ends that.
    pub fn answers_with(&self, status: u16) {
        self.status.send_replace(status);
    }

    /// Lets every request to `/held` and every second half of `/half` go.
    pub fn release(&self) {
        self.release.send_replace(true);
    }
}

impl Drop for Upstream {
    /// Its connections end with it, and its address refuses from then on.
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[derive(Clone)]
struct Service {
    name: Arc<str>,
    counts: Arc<Counts>,
    released: watch::Receiver<bool>,
    status: watch::Receiver<u16>,
    health: watch::Receiver<Health>,
}

/// Counts one for as long as it lives.
struct Counted(Arc<Counts>, fn(&Counts) -> &AtomicUsize);

impl Counted {
    fn new(counts: &Arc<Counts>, which: fn(&Counts) -> &AtomicUsize) -> Self {
        which(counts).fetch_add(1, Ordering::SeqCst);
        Self(counts.clone(), which)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::SeqCst);
    }
}

impl Service {
    async fn accept(self, listener: TcpListener) {
        // Dropped with this task, and every connection with it.
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let service = self.clone();
            let _ = stream.set_nodelay(true);
            connections.spawn(async move {
                let Some(first) = first_bytes(&stream).await else {
                    service.counts.probes.fetch_add(1, Ordering::SeqCst);
                    return;
                };
                let is_probe = first.windows(PROBE_MARK.len()).any(|part| part == PROBE_MARK);
                let _open = (!is_probe).then(|| {
                    service.counts.accepted.fetch_add(1, Ordering::SeqCst);
                    Counted::new(&service.counts, |counts| &counts.connections)
                });
                let answer = service_fn(move |request| service.clone().answer(request));
                // A client that goes away is no fault.
                let _ =
                    auto::Builder::new(TokioExecutor::new()).serve_connection_with_upgrades(TokioIo::new(stream), answer).await;
            });
            while connections.try_join_next().is_some() {}
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let is_probe = request.headers().get(USER_AGENT).is_some_and(|agent| agent.as_bytes().ends_with(PROBE_MARK));
        let counter = if is_probe { &self.counts.probes } else { &self.counts.requests };
        counter.fetch_add(1, Ordering::SeqCst);
        let running = (!is_probe).then(|| Counted::new(&self.counts, |counts| &counts.running));
        let forced = *self.status.borrow();
        let mut response = match forced {
            0 => self.respond(request).await,
            _ => text(String::new()),
        };
        if let Ok(status) = StatusCode::from_u16(forced) {
            *response.status_mut() = status;
        }
        response.headers_mut().insert(INSTANCE_FIELD, self.name.parse().expect("a name that a field can hold"));
        Ok(response.map(|body| Ended { body, _running: running }.boxed_unsync()))
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Body> {
        let number = |name: &str| parameter(request.uri().query().unwrap_or_default(), name);
        if request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/grpc") {
            let health = *self.health.borrow();
            let serving = if health.status == 200 && health.knows(&request) { 1 } else { 2 };
            return match request.uri().path() {
                "/grpc.health.v1.Health/Check" => grpc(Bytes::from(vec![0, 0, 0, 0, 2, 8, serving])),
                // The message comes back as it is.
                _ => grpc(request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default()),
            };
        }
        match request.uri().path().rsplit('/').next().unwrap_or_default() {
            "ws" if request.headers().contains_key(UPGRADE) => websocket(request),
            "healthz" => self.healthz(&request).await,
            "seen" => seen(request).await,
            "echo" => Response::new(request.into_body().map_err(std::io::Error::other).boxed_unsync()),
            "count" => text(count(request.into_body()).await.to_string()),
            "status" => {
                let mut response = text(String::new());
                *response.status_mut() = StatusCode::from_u16(number("code") as u16).expect("a status");
                response
            }
            "slow" => {
                tokio::time::sleep(Duration::from_millis(number("ms"))).await;
                text(self.name.to_string())
            }
            "held" => {
                self.wait_for_release().await;
                text(self.name.to_string())
            }
            "half" => {
                let service = self.clone();
                let second = stream::once(async move {
                    service.wait_for_release().await;
                    Ok(Frame::data(Bytes::from_static(b"second half")))
                });
                streamed(stream::iter([Ok(Frame::data(Bytes::from_static(b"first half, ")))]).chain(second))
            }
            "bytes" => {
                let (whole_chunks, rest) = (number("n") / CHUNK.len() as u64, (number("n") % CHUNK.len() as u64) as usize);
                let sizes = (0..whole_chunks).map(|_| CHUNK.len()).chain([rest]);
                streamed(stream::iter(sizes.map(|size| Ok(Frame::data(Bytes::from_static(&CHUNK[..size]))))))
            }
            "events" => self.events(number("n"), Duration::from_millis(number("ms"))),
            "own-fields" => {
                let mut response = text(self.name.to_string());
                for (name, value) in [("connection", "x-secret"), ("x-secret", "1"), ("keep-alive", "timeout=9"), ("x-kept", "1")]
                {
                    response.headers_mut().insert(name, HeaderValue::from_static(value));
                }
                response
            }
            _ => text(self.name.to_string()),
        }
    }

    /// Server-sent events, each on its own, `pause` apart.
    fn events(&self, n: u64, pause: Duration) -> Response<Body> {
        let events = stream::unfold(0, move |at| async move {
            if at == n {
                return None;
            }
            if at > 0 {
                tokio::time::sleep(pause).await;
            }
            Some((Ok(Frame::data(format!("data: {at}\n\n").into())), at + 1))
        });
        let mut response = streamed(events);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        response
    }

    async fn healthz(&self, request: &Request<Incoming>) -> Response<Body> {
        let health = *self.health.borrow();
        if health.hangs {
            std::future::pending::<()>().await;
        }
        let mut response = text(health.body.to_owned());
        let status = if health.knows(request) { health.status } else { 401 };
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        if health.says_draining {
            response.headers_mut().insert("x-pointsman-drain", HeaderValue::from_static("1"));
        }
        response
    }

    async fn wait_for_release(&self) {
        // An error means that the story is over.
        let _ = self.released.clone().wait_for(|released| *released).await;
    }
}

/// A body whose end, or whose being dropped, ends the request.
struct Ended {
    body: Body,
    _running: Option<Counted>,
}

impl hyper::body::Body for Ended {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

fn text(said: String) -> Response<Body> {
    Response::new(whole(said.into()))
}

fn streamed(frames: impl futures_util::Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send + 'static) -> Response<Body> {
    Response::new(StreamBody::new(frames).boxed_unsync())
}

fn parameter(query: &str, name: &str) -> u64 {
    let value = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
    value.map_or(0, |(_, value)| value.parse().expect("a number"))
}

async fn count(mut body: Incoming) -> usize {
    let mut n = 0;
    while let Some(Ok(frame)) = body.frame().await {
        n += frame.data_ref().map_or(0, Bytes::len);
    }
    n
}

/// What arrived, as JSON; the fields in their order, as often as they came.
async fn seen(request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let fields: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let said = json!({
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query().unwrap_or_default(),
        "authority": head.uri.authority().map(ToString::to_string),
        "version": format!("{:?}", head.version),
        "fields": fields,
        "body": count(body).await,
    });
    text(said.to_string())
}

/// A message, then the trailers.
fn grpc(message: Bytes) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.insert("grpc-message", HeaderValue::from_static("well done"));
    let mut response = streamed(stream::iter([Ok(Frame::data(message)), Ok(Frame::trailers(trailers))]));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// Echoes messages until either side closes.
fn websocket(mut request: Request<Incoming>) -> Response<Body> {
    assert_eq!(request.method(), Method::GET);
    let key = request.headers().get("sec-websocket-key").map(|key| derive_accept_key(key.as_bytes())).unwrap_or_default();
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() || socket.send(message).await.is_err() {
                return;
            }
        }
    });
    let mut response = text(String::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response.headers_mut().insert("sec-websocket-accept", key.parse().expect("a key in base64"));
    response
}

/// What a connection begins with, left in place; `None`: it is closed without a word.
async fn first_bytes(stream: &TcpStream) -> Option<Vec<u8>> {
    let mut first = vec![0; 1024];
    let n = stream.peek(&mut first).await.ok().filter(|n| *n > 0)?;
    first.truncate(n);
    Some(first)
}

/// How the user agent of a probe ends.
const PROBE_MARK: &[u8] = b"(probe)";
static CHUNK: [u8; 64 * 1024] = [b'x'; 64 * 1024];
