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
use http::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::json;
use tokio::net::TcpListener;
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
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
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
        let listener = handle.block_on(TcpListener::bind(address)).expect("a free address");
        let address = listener.local_addr().expect("the address of our own listener");
        let service = Service { name: name.into(), counts: counts.clone(), released, status: told };
        Self { name: name.to_owned(), address, counts, release, status, serving: handle.spawn(service.accept(listener)) }
    }

    pub fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
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
            service.counts.accepted.fetch_add(1, Ordering::SeqCst);
            let open = Counted::new(&service.counts, |counts| &counts.connections);
            let _ = stream.set_nodelay(true);
            connections.spawn(async move {
                let _open = open;
                let answer = service_fn(move |request| service.clone().answer(request));
                // A client that goes away is no fault.
                let _ =
                    auto::Builder::new(TokioExecutor::new()).serve_connection_with_upgrades(TokioIo::new(stream), answer).await;
            });
            while connections.try_join_next().is_some() {}
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        self.counts.requests.fetch_add(1, Ordering::SeqCst);
        let running = Counted::new(&self.counts, |counts| &counts.running);
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
            return grpc(request).await;
        }
        match request.uri().path().rsplit('/').next().unwrap_or_default() {
            "ws" if request.headers().contains_key(UPGRADE) => websocket(request),
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

    async fn wait_for_release(&self) {
        // An error means that the story is over.
        let _ = self.released.clone().wait_for(|released| *released).await;
    }
}

/// A body whose end, or whose being dropped, ends the request.
struct Ended {
    body: Body,
    _running: Counted,
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

/// The message comes back as it is, then the trailers.
async fn grpc(request: Request<Incoming>) -> Response<Body> {
    let message = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
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

static CHUNK: [u8; 64 * 1024] = [b'x'; 64 * 1024];
