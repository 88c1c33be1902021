//! gRPC's health protocol, version 1: one `Check` of the service with the empty name, which stands for the whole server.
//!
//! Question and answer are a few bytes, so they are written and read here instead of by a gRPC client.

use std::net::SocketAddr;

use ::http::header::{CONTENT_TYPE, HeaderMap, TE, USER_AGENT};
use ::http::{HeaderName, HeaderValue, Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use super::http::{beside, saying};
use super::probe::{self, Reading};
use crate::model::ProbeResult;

/// The whole exchange on a fresh connection. Whoever calls bounds its time.
pub async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: SocketAddr,
    host: Option<&str>,
    headers: &[(HeaderName, HeaderValue)],
    is_tls: bool,
) -> Reading {
    let host = host.map_or_else(|| address.to_string(), str::to_owned);
    let scheme = if is_tls { "https" } else { "http" };
    let request = Request::post(format!("{scheme}://{host}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, probe::USER_AGENT);
    let request = saying(headers, request).body(Full::new(Bytes::from_static(ASK_FOR_ALL)));
    let request = match request {
        Ok(request) => request,
        Err(error) => return Reading::broken(error),
    };
    let answered = match http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await {
        Ok((mut sender, connection)) => beside(connection, async { Ok(read(sender.send_request(request).await?).await) }).await,
        Err(error) => Err(error),
    };
    answered.unwrap_or_else(Reading::broken)
}

async fn read(response: Response<Incoming>) -> Reading {
    let (head, body) = response.into_parts();
    if head.status != ::http::StatusCode::OK {
        return Reading::new(ProbeResult::Status, format!("the call was answered {}, which is no gRPC", head.status.as_u16()));
    }
    let body = match Limited::new(body, ANSWER_MAX).collect().await {
        Ok(body) => body,
        Err(error) => return Reading::broken(error),
    };
    // An answer without a message has its status in the head.
    let trailers = body.trailers().cloned().unwrap_or(head.headers);
    verdict(status_of(&trailers), &body.to_bytes())
}

fn status_of(trailers: &HeaderMap) -> Option<u32> {
    trailers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

fn verdict(status: Option<u32>, message: &[u8]) -> Reading {
    let not_serving = |said: String| Reading::new(ProbeResult::NotServing, said);
    match (status, serving_status(message)) {
        (None, _) => Reading::broken("it has no grpc-status"),
        (Some(UNIMPLEMENTED), _) => not_serving("it has no gRPC health service".to_owned()),
        (Some(0), Some(1)) => Reading::new(ProbeResult::Pass, "gRPC health says SERVING"),
        (Some(0), Some(said @ (0 | 2 | 3))) => {
            not_serving(format!("gRPC health says {}", ["UNKNOWN", "", "NOT_SERVING", "SERVICE_UNKNOWN"][usize::from(said)]))
        }
        (Some(0), _) => Reading::broken("its message is no answer of a gRPC health service"),
        (Some(status), _) => not_serving(format!("gRPC health says status {status}")),
    }
}

/// The first field of the message behind its five bytes of frame; what is absent is 0.
fn serving_status(frame: &[u8]) -> Option<u8> {
    let (prefix, message) = frame.split_at_checked(5)?;
    match (prefix[0], message) {
        (0, []) => Some(0),
        (0, [STATUS_FIELD, status, ..]) => Some(*status),
        _ => None,
    }
}

/// Not compressed, and no bytes: a request that names no service.
const ASK_FOR_ALL: &[u8] = &[0; 5];
/// Field 1, a number.
const STATUS_FIELD: u8 = 1 << 3;
const UNIMPLEMENTED: u32 = 12;
/// An answer takes seven bytes.
const ANSWER_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_serving_passes() {
        let answer = |status| [0, 0, 0, 0, 2, 8, status];
        let check = |status, message: &[u8]| {
            let Reading { result, said } = verdict(status, message);
            (result.as_str(), said.into_owned())
        };
        let not_serving = |said: &str| ("not_serving", said.to_owned());
        assert_eq!(check(Some(0), &answer(1)).0, "pass");
        assert_eq!(check(Some(0), &answer(2)), not_serving("gRPC health says NOT_SERVING"));
        assert_eq!(check(Some(0), &[0; 5]), not_serving("gRPC health says UNKNOWN"));
        assert_eq!(check(Some(5), &[]), not_serving("gRPC health says status 5"));
        assert_eq!(check(Some(12), &[]), not_serving("it has no gRPC health service"));
        assert_eq!(check(None, &answer(1)).0, "broken");
        assert_eq!(check(Some(0), b"hello, world").0, "broken");
        assert_eq!(check(Some(0), &[]).0, "broken");
    }
}
