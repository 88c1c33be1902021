//! One connection from its first byte to its last: which protocol, one request after the other, and what comes between.
//!
//! Pingora's own loop waits for the next request with its buffers in hand and without a limit of time. Here it is only
//! called once bytes are there; an idle connection costs its socket and a task.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::apps::{HttpServerApp, ServerApp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_proxy::HttpProxy;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::gateway::Gateway;
use super::input::Opening;
use super::io::{Connection, HeadLimits};
use super::link::Link;

/// What serves the connections of one worker.
#[derive(Clone)]
pub struct Engine {
    pub proxy: Arc<HttpProxy<Gateway>>,
    pub limits: HeadLimits,
    pub keep_alive: Duration,
    pub ending: watch::Receiver<bool>,
}

impl Engine {
    pub async fn serve(mut self, stream: TcpStream, link: Arc<Link>) {
        let mut connection = Connection::new(stream, link, self.limits);
        // Pingora waits for a change that this receiver has not seen.
        let unseen = self.ending.clone();
        let opening = until_ending(&mut self.ending, self.limits.timeout, connection.opening()).await;
        match opening {
            Ok(Ok(Opening::Http2)) => {
                connection.multiplexed();
                self.proxy.process_new(Box::new(connection), &unseen).await;
            }
            Ok(Ok(Opening::Http1)) => self.serve_http1(connection).await,
            Ok(Ok(Opening::Closed) | Err(_)) => {}
            Ok(Ok(Opening::Unclear)) | Err(_) => connection.too_slow(),
        }
    }

    async fn serve_http1(mut self, mut connection: Connection) {
        loop {
            let link = connection.link().clone();
            let stream: Stream = Box::new(connection);
            let mut session = ServerSession::new_http1(stream);
            session.set_keepalive(None);
            let done = self.proxy.process_new_http(session, &self.ending).await;
            // `None`: answered with `Connection: close`, or broken.
            let Some(stream) = done.map(|reused| reused.consume().0) else { return };
            let Ok(returned) = stream.into_any().downcast::<Connection>() else { return };
            connection = *returned;
            if let Some(tunnel) = link.take_tunnel() {
                return tunnel.run(connection).await;
            }
            connection.expect_head();
            let next = until_ending(&mut self.ending, self.keep_alive, connection.arrived()).await;
            if !matches!(next, Ok(Ok(true))) {
                return;
            }
        }
    }
}

/// Waits for a client to say something, for so long; much shorter once the process is about to end, when only what is
/// under way already is answered.
async fn until_ending<T>(
    ending: &mut watch::Receiver<bool>,
    within: Duration,
    what: impl Future<Output = T>,
) -> Result<T, Elapsed> {
    let mut what = pin!(what);
    tokio::select! {
        said = timeout(within, &mut what) => return said,
        () = has_begun(ending) => {}
    }
    timeout(LAST_WORDS, what).await
}

/// Returns when the process is about to end.
pub async fn has_begun(ending: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone: there is nobody left to serve for.
    let _ = ending.wait_for(|ending| *ending).await;
}

/// For what was sent before the client could know that we end.
pub const LAST_WORDS: Duration = Duration::from_millis(50);
