//! One connection from its first byte to its last: which protocol, which engine for each request, and what comes between.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::Shared;
use super::downstream::{Connection, Link, Met, Opening, Stream};
use super::handshake::{Negotiated, Secured, Terminator, Unsecured};
use super::http1;
use super::limits::Limit;
use super::pingora::Pingora;
use super::reply::Refusal;
use super::stats::{HandshakeResult, HandshakeVersion};
use super::upstream::Upstreams;

/// What serves the connections of one worker.
#[derive(Clone)]
pub struct Serve {
    pub shared: Arc<Shared>,
    pub upstreams: Arc<Upstreams>,
    pub pingora: Pingora,
    pub ending: watch::Receiver<bool>,
}

impl Serve {
    pub async fn connection(mut self, stream: TcpStream, met: Met) {
        let listening = met.listening.clone();
        let (stream, protocol, client) = match &listening.tls {
            None => (Stream::Plain(stream), None, None),
            // On the heap while it lasts, so that a connection without TLS does not carry its state.
            Some(tls) => match Box::pin(self.handshake(tls, stream, &met)).await {
                Ok(Secured { stream, protocol, client }) => (Stream::Tls(stream), protocol, client),
                Err(Unsecured::NotTls(stream)) => {
                    let connection = Connection::new(Stream::Plain(stream), Link::new(met, None));
                    return self.shared.refuse(connection, &NOT_TLS, Duration::ZERO).await;
                }
                Err(Unsecured::Proved | Unsecured::Failed) => return,
            },
        };
        let mut connection = Connection::new(stream, Link::new(met, client));
        let opening = until_ending(&mut self.ending, self.shared.limits.head_timeout, LAST_WORDS, connection.opening()).await;
        match (opening, protocol) {
            // What was agreed on holds; what else comes is not valid in it, and the engines say so.
            (Ok(Ok(Opening::Http1 | Opening::Http2)), Some(Negotiated::Http2)) | (Ok(Ok(Opening::Http2)), None) => {
                self.pingora.serve_http2(connection).await;
            }
            (Ok(Ok(Opening::Http1 | Opening::Http2)), _) => self.http1(connection).await,
            (Ok(Ok(Opening::Closed) | Err(_)), _) => {}
            (Ok(Ok(Opening::Unclear)) | Err(_), _) if connection.rest().is_empty() => {
                if !*self.ending.borrow() {
                    connection.link().stats.limits.count(Limit::HeadTimeout);
                }
            }
            (Ok(Ok(Opening::Unclear)) | Err(_), _) => {
                self.shared.refuse(connection, &Refusal::SlowHead, self.shared.limits.head_timeout).await;
            }
        }
    }

    async fn handshake(&mut self, tls: &Terminator, stream: TcpStream, met: &Met) -> Result<Secured, Unsecured> {
        let within = self.shared.limits.handshake;
        let Ok(done) = until_ending(&mut self.ending, within, LAST_HANDSHAKES, tls.accept(stream, &met.stats)).await else {
            met.stats.handshakes.count(HandshakeVersion::None, HandshakeResult::Slow);
            met.stats.limits.count(Limit::Handshake);
            return Err(Unsecured::Failed);
        };
        done
    }

    async fn http1(self, mut connection: Connection) {
        let mut own = http1::Engine::new(self.shared, self.upstreams, self.ending);
        while let Some((left, upload)) = own.serve(connection).await {
            // On the heap: most connections never need it, and its state is large.
            match Box::pin(self.pingora.serve_request(left, upload)).await {
                Some(back) => connection = back,
                None => return,
            }
        }
    }
}

/// Waits for a client to say something, for so long; for `last` only once the process is about to end, when what is under
/// way already is answered and nothing else.
pub async fn until_ending<T>(
    ending: &mut watch::Receiver<bool>,
    within: Duration,
    last: Duration,
    what: impl Future<Output = T>,
) -> Result<T, Elapsed> {
    let mut what = pin!(what);
    tokio::select! {
        said = timeout(within, &mut what) => return said,
        () = has_begun(ending) => {}
    }
    timeout(last.min(within), what).await
}

/// Returns when the process is about to end.
pub async fn has_begun(ending: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone: there is nobody left to serve for.
    let _ = ending.wait_for(|ending| *ending).await;
}

/// For a handshake that has begun: a few times to the other side of the world and back.
const LAST_HANDSHAKES: Duration = Duration::from_secs(2);
const NOT_TLS: Refusal = Refusal::Malformed("this port speaks TLS; the URL begins with https://");
/// For what was sent before the client could know that we end.
pub const LAST_WORDS: Duration = Duration::from_millis(50);
