//! What a client says and what it is answered, over HTTP/1.1 or HTTP/2.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A request in words: `Ask::get("/x").host("shop.example")`. A path alone is a GET.
#[derive(Debug, Clone)]
pub struct Ask {
    method: Method,
    path: String,
    host: String,
    fields: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl Ask {
    pub fn new(method: &str, path: &str) -> Self {
        let method = method.parse().expect("a method");
        Self { method, path: path.to_owned(), host: HOST_DEFAULT.to_owned(), fields: Vec::new(), body: Bytes::new() }
    }

    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    pub fn post(path: &str, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..Self::new("POST", path) }
    }

    pub fn host(self, host: &str) -> Self {
        Self { host: host.to_owned(), ..self }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.parse().expect("a field name"), value.parse().expect("a field value")));
        self
    }

    /// HTTP/2 names the host in the target, HTTP/1.1 in a field.
    pub fn request(&self, version: Version, body: Body) -> Request<Body> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        request.headers_mut().extend(self.fields.iter().map(|(name, value)| (name.clone(), value.clone())));
        let target = if version == Version::HTTP_2 {
            format!("http://{}{}", self.host, self.path)
        } else {
            request.headers_mut().insert(HOST, self.host.parse().expect("a host"));
            self.path.clone()
        };
        *request.uri_mut() = target.parse().expect("a target");
        request
    }
}

impl From<&str> for Ask {
    fn from(path: &str) -> Self {
        Self::get(path)
    }
}

/// A whole response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub version: Version,
    pub fields: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl Answer {
    pub async fn read(response: Response<Incoming>) -> Result<Self, String> {
        let (head, body) = response.into_parts();
        let whole = body.collect().await.map_err(|error| format!("the body broke off: {error:?}"))?;
        let trailers = whole.trailers().cloned().unwrap_or_default();
        let body = whole.to_bytes();
        Ok(Self { status: head.status.as_u16(), version: head.version, fields: head.headers, body, trailers })
    }

    /// Which instance answered; empty if none did.
    pub fn from(&self) -> &str {
        self.field(INSTANCE_FIELD)
    }

    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |value| value.to_str().expect("a field of text"))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }
}

/// A connection that stays open for as long as the other side lets it.
pub struct Connection {
    sender: Sender,
}

enum Sender {
    H1(http1::SendRequest<Body>),
    H2(http2::SendRequest<Body>),
}

impl Connection {
    pub async fn open(to: SocketAddr, version: Version) -> Result<Self, String> {
        let stream = timeout(PATIENCE, TcpStream::connect(to)).await.map_err(|_| "no connection in time".to_owned())?;
        Self::over(stream.map_err(|error| format!("connecting to {to}: {error}"))?, version).await
    }

    /// From another address of this machine.
    pub async fn open_from(from: IpAddr, to: SocketAddr, version: Version) -> Result<Self, String> {
        let socket = TcpSocket::new_v4().map_err(|error| error.to_string())?;
        socket.bind(SocketAddr::new(from, 0)).map_err(|error| format!("{from}: {error}"))?;
        Self::over(socket.connect(to).await.map_err(|error| format!("connecting to {to}: {error}"))?, version).await
    }

    async fn over(stream: TcpStream, version: Version) -> Result<Self, String> {
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let io = TokioIo::new(stream);
        let sender = if version == Version::HTTP_2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.map_err(|e| format!("{e:?}"))?;
            tokio::spawn(connection);
            Sender::H2(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await.map_err(|error| format!("{error:?}"))?;
            tokio::spawn(connection);
            Sender::H1(sender)
        };
        Ok(Self { sender })
    }

    /// The head of the response; its body is read by whoever asked.
    pub async fn begin(&mut self, ask: &Ask, body: Body) -> Result<Response<Incoming>, String> {
        let sent = async {
            match &mut self.sender {
                Sender::H1(sender) => {
                    sender.ready().await?;
                    sender.send_request(ask.request(Version::HTTP_11, body)).await
                }
                Sender::H2(sender) => {
                    sender.ready().await?;
                    sender.send_request(ask.request(Version::HTTP_2, body)).await
                }
            }
        };
        let sent = timeout(PATIENCE, sent).await.map_err(|_| format!("no answer to {ask:?} in {PATIENCE:?}"))?;
        sent.map_err(|error| format!("{} {}: {error:?}", ask.method, ask.path))
    }

    pub async fn ask(&mut self, ask: impl Into<Ask>) -> Result<Answer, String> {
        let ask = ask.into();
        let response = self.begin(&ask, whole(ask.body.clone())).await?;
        timeout(PATIENCE, Answer::read(response)).await.map_err(|_| "the body did not end in time".to_owned())?
    }

    /// The same one, for a stream beside the others; HTTP/2 only.
    pub fn beside(&self) -> Self {
        match &self.sender {
            Sender::H1(_) => panic!("HTTP/1.1 has one request at a time"),
            Sender::H2(sender) => Self { sender: Sender::H2(sender.clone()) },
        }
    }

    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::H1(sender) => sender.is_closed(),
            Sender::H2(sender) => sender.is_closed(),
        }
    }
}

pub fn whole(body: Bytes) -> Body {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

/// In it every upstream says who it is.
pub const INSTANCE_FIELD: &str = "x-instance";
const HOST_DEFAULT: &str = "app.example";
/// Longer than anything takes on a busy machine; a story that hangs ends with a word.
pub const PATIENCE: Duration = Duration::from_secs(15);
