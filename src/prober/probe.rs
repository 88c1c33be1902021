//! One probe: a fresh connection, one question, one answer, all of it within the timeout.

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::check::{Ask, Check};
use super::judge::Seen;
use super::{grpc, http};
use crate::model::ProbeResult;
use crate::proxy_protocol::{self, Said};

/// How a probe ended, as a word and in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    pub result: ProbeResult,
    pub said: Cow<'static, str>,
}

impl Reading {
    pub fn new(result: ProbeResult, said: impl Into<Cow<'static, str>>) -> Self {
        Self { result, said: said.into() }
    }

    pub fn broken(error: impl std::fmt::Display) -> Self {
        Self::new(ProbeResult::Broken, format!("no whole answer: {error}"))
    }

    pub fn seen(&self) -> Seen {
        match self.result {
            ProbeResult::Pass => Seen::Pass,
            ProbeResult::Draining => Seen::Draining,
            _ => Seen::Fail,
        }
    }
}

/// A new connection each time, closed at its end: only that shows what a client would meet.
pub async fn probe(address: SocketAddr, check: &Check) -> (Reading, Duration) {
    let began = Instant::now();
    let deadline = began + check.timeout;
    let reading = match timeout_at(deadline, TcpStream::connect(address)).await {
        Err(_) => Reading::new(ProbeResult::ConnectTimeout, format!("no connection within {:?}", check.timeout)),
        Ok(Err(error)) => Reading::new(ProbeResult::ConnectFailed, format!("cannot connect: {}", reason(&error))),
        Ok(Ok(stream)) => match timeout_at(deadline, converse(stream, address, check)).await {
            Err(_) => Reading::new(ProbeResult::Timeout, format!("connected, but no whole answer within {:?}", check.timeout)),
            Ok(reading) => reading,
        },
    };
    (reading, began.elapsed())
}

async fn converse(mut stream: TcpStream, address: SocketAddr, check: &Check) -> Reading {
    // Refused by an old kernel at worst; then it is only slower.
    let _ = stream.set_nodelay(true);
    if let Some(version) = check.proxy_protocol
        && let Err(error) = stream.write_all(&proxy_protocol::write(version, &Said::Local)).await
    {
        return Reading::broken(reason(&error));
    }
    match &check.tls {
        None => ask(stream, address, check).await,
        Some(tls) => match tls.handshake(stream).await {
            Ok(stream) => ask(stream, address, check).await,
            Err(reason) => Reading::new(ProbeResult::Tls, format!("TLS: {reason}")),
        },
    }
}

async fn ask(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, address: SocketAddr, check: &Check) -> Reading {
    match &check.ask {
        Ask::Tcp => Reading::new(ProbeResult::Pass, "connected"),
        Ask::Http(ask) => http::ask(stream, address, ask, check.tls.is_some()).await,
        Ask::Grpc { host, headers } => grpc::ask(stream, address, host.as_deref(), headers, check.tls.is_some()).await,
    }
}

/// What the system says, without its number.
fn reason(error: &io::Error) -> String {
    let said = error.to_string();
    said.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// Who asks.
pub const USER_AGENT: &str = concat!("pointsman/", env!("CARGO_PKG_VERSION"), " (probe)");
