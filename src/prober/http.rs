//! A GET: status, and body if the policy asks for one.

use std::net::SocketAddr;

use ::http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use ::http::request::Builder;
use ::http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use super::check::HttpAsk;
use super::probe::{self, Reading};
use crate::model::ProbeResult;

/// The whole exchange on a fresh connection. Whoever calls bounds its time.
pub async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: SocketAddr,
    ask: &HttpAsk,
    is_tls: bool,
) -> Reading {
    let host = ask.host.clone().unwrap_or_else(|| address.to_string());
    let request = Request::get(target(ask, &host, is_tls)).header(USER_AGENT, probe::USER_AGENT).header(ACCEPT, "*/*");
    let request = saying(&ask.headers, request);
    let request = if ask.over_http2 { request } else { request.header(HOST, host).header(CONNECTION, "close") };
    let request = match request.body(Empty::<Bytes>::new()) {
        Ok(request) => request,
        Err(error) => return Reading::broken(error),
    };
    let io = TokioIo::new(stream);
    let read = if ask.over_http2 {
        match http2::handshake(TokioExecutor::new(), io).await {
            Ok((mut sender, connection)) => {
                beside(connection, async { read(sender.send_request(request).await?, ask).await }).await
            }
            Err(error) => Err(error),
        }
    } else {
        match http1::handshake(io).await {
            Ok((mut sender, connection)) => {
                beside(connection, async { read(sender.send_request(request).await?, ask).await }).await
            }
            Err(error) => Err(error),
        }
    };
    read.unwrap_or_else(Reading::broken)
}

/// The fields of the policy go before ours.
pub fn saying(headers: &[(HeaderName, HeaderValue)], mut request: Builder) -> Builder {
    if let Some(fields) = request.headers_mut() {
        headers.iter().for_each(|(name, value)| drop(fields.insert(name, value.clone())));
    }
    request
}

/// HTTP/2 names the host in the target, HTTP/1.1 in a field.
fn target(ask: &HttpAsk, host: &str, is_tls: bool) -> String {
    match (ask.over_http2, is_tls) {
        (false, _) => ask.path.clone(),
        (true, true) => format!("https://{host}{}", ask.path),
        (true, false) => format!("http://{host}{}", ask.path),
    }
}

/// Drives the connection while the answer is waited for. It may end before the last of the answer was looked at.
pub async fn beside<T>(
    connection: impl Future<Output = hyper::Result<()>>,
    answer: impl Future<Output = hyper::Result<T>>,
) -> hyper::Result<T> {
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error),
        },
    }
}

async fn read(response: Response<Incoming>, ask: &HttpAsk) -> hyper::Result<Reading> {
    let status = response.status();
    let drains = status == StatusCode::SERVICE_UNAVAILABLE && response.headers().get(DRAIN).is_some_and(|said| said == "1");
    let body = start_of(response.into_body()).await?;
    let answered = format!("GET {} was answered {}", ask.path, status.as_u16());
    Ok(if drains {
        Reading::new(ProbeResult::Draining, format!("{answered} with {DRAIN}: 1"))
    } else if !ask.expect.contains(status.as_u16()) {
        Reading::new(ProbeResult::Status, format!("{answered}; {} would pass", ask.expect))
    } else if ask.body.as_ref().is_some_and(|wanted| !contains(&body, wanted.as_bytes())) {
        Reading::new(
            ProbeResult::Body,
            format!("{answered}, but its body does not contain {:?}", ask.body.as_deref().unwrap_or_default()),
        )
    } else {
        Reading::new(ProbeResult::Pass, answered)
    })
}

/// All of the body, or as much as is looked at; the rest goes with the connection.
async fn start_of(mut body: Incoming) -> hyper::Result<Vec<u8>> {
    let mut start = Vec::new();
    while start.len() < BODY_MAX
        && let Some(frame) = body.frame().await
    {
        if let Some(data) = frame?.data_ref() {
            start.extend_from_slice(&data[..data.len().min(BODY_MAX - start.len())]);
        }
    }
    Ok(start)
}

fn contains(body: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || body.windows(wanted.len()).any(|part| part == wanted)
}

/// With a 503: the instance drains, and does not fail.
const DRAIN: HeaderName = HeaderName::from_static("x-pointsman-drain");
/// Whoever answers a probe with more is looked at no further.
const BODY_MAX: usize = 64 * 1024;
