//! FLOOR 1. One bounded HTTP GET: the registrar asks its instance how it is, the commands ask the admin endpoint.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How TLS is spoken with who is asked.
#[derive(Debug)]
pub struct Secure {
    pub config: Arc<ClientConfig>,
    pub name: ServerName<'static>,
}

pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

#[derive(Debug)]
pub enum FetchError {
    Connect(std::io::Error),
    Tls(std::io::Error),
    /// It answered, but not with HTTP, or not with all of it.
    Http(String),
    Silent(Duration),
    /// `path` cannot stand in a request.
    Path(http::Error),
}

/// `address` is `HOST:PORT`. `token`: shown to who asks for one. The whole exchange takes `limit` at most.
pub async fn get(
    address: &str,
    path: &str,
    token: Option<&str>,
    secure: Option<&Secure>,
    limit: Duration,
) -> Result<Answer, FetchError> {
    timeout(limit, exchange(address, path, token, secure)).await.unwrap_or(Err(FetchError::Silent(limit)))
}

async fn exchange(address: &str, path: &str, token: Option<&str>, secure: Option<&Secure>) -> Result<Answer, FetchError> {
    let mut request = Request::get(path)
        .header(header::HOST, address)
        .header(header::USER_AGENT, concat!("pointsman/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(FetchError::Path)?;
    let stream = TcpStream::connect(address).await.map_err(FetchError::Connect)?;
    match secure {
        None => ask(stream, request).await,
        Some(Secure { config, name }) => {
            let secured = TlsConnector::from(config.clone()).connect(name.clone(), stream).await;
            ask(secured.map_err(FetchError::Tls)?, request).await
        }
    }
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<Answer, FetchError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(FetchError::http)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(FetchError::http)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_MAX).collect().await;
        body.map(|body| Answer { status, body: body.to_bytes() }).map_err(|e| FetchError::Http(e.to_string()))
    };
    tokio::pin!(answer);
    // The connection must be driven while we wait; it may end before the last of the body was looked at.
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(FetchError::http(error)),
        },
    }
}

impl FetchError {
    fn http(error: hyper::Error) -> Self {
        Self::Http(error.to_string())
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Tls(error) => write!(f, "no TLS with it: {error}"),
            Self::Http(reason) => write!(f, "no whole HTTP answer: {reason}"),
            Self::Silent(limit) => write!(f, "no answer within {limit:?}"),
            Self::Path(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FetchError {}

/// The biggest honest answer is the admin endpoint's list of all services; 100,000 instances take about 30 MiB.
const BODY_MAX: usize = 128 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// What `get` says when the other side answers with these bytes and hangs up.
    async fn check(answer: &'static str) -> Result<(u16, String), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let n_read = stream.read(&mut head).await.unwrap();
            assert!(head[..n_read].starts_with(b"GET /x HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let answer = get(&address, "/x", None, None, Duration::from_secs(5)).await.map_err(|e| e.to_string())?;
        Ok((answer.status.as_u16(), String::from_utf8(answer.body.to_vec()).unwrap()))
    }

    #[tokio::test]
    async fn answers_of_every_framing_arrive_whole() {
        assert_eq!(check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await, Ok((200, "ok".into())));
        assert_eq!(
            check("HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n").await,
            Ok((503, "no".into()))
        );
        assert_eq!(check("HTTP/1.0 200 OK\r\n\r\nto the end").await, Ok((200, "to the end".into())));
    }

    #[tokio::test]
    async fn half_answers_are_errors() {
        assert!(check("HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nok").await.is_err());
        assert!(check("SSH-2.0-x\r\n").await.is_err());
        assert!(check("").await.is_err());
    }

    #[tokio::test]
    async fn silence_has_an_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let limit = Duration::from_millis(50);
        assert!(matches!(get(&address, "/", None, None, limit).await, Err(FetchError::Silent(_))));
    }
}
