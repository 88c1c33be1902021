//! Pingora, set up for one worker.

use std::sync::Arc;
use std::time::Duration;

use pingora_core::apps::{HttpServerApp, ServerApp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::default_h2_options;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::{HttpProxy, http_proxy};
use tokio::sync::watch;
use tokio::time::sleep;

use super::gateway::Gateway;
use super::guard::Guard;
use super::io::Carried;
use super::link::SessionLink;
use super::peers::Peers;
use crate::proxy::Shared;
use crate::proxy::downstream::Connection;
use crate::proxy::http1::Upload;
use crate::proxy::limits::Limit;
use crate::proxy::serve::has_begun;

#[derive(Clone)]
pub struct Pingora {
    proxy: Arc<HttpProxy<Gateway>>,
    shared: Arc<Shared>,
    ending: watch::Receiver<bool>,
}

impl Pingora {
    pub fn new(shared: &Arc<Shared>, peers: &Arc<Peers>, ending: watch::Receiver<bool>) -> Self {
        let limits = &shared.limits;
        let conf = ServerConf { threads: 1, upstream_keepalive_pool_size: POOLED_MAX, ..ServerConf::default() };
        let gateway = Gateway { shared: shared.clone(), peers: peers.clone(), ending: ending.clone() };
        let mut proxy: HttpProxy<Gateway> = http_proxy(&Arc::new(conf), gateway);
        // The defaults hold what keeps a flood of heads small. The codec answers what is larger than it is told all by itself,
        // and counts 32 bytes for each field; up to twice our limit we do it, with a line in the access log.
        let mut h2 = default_h2_options();
        h2.max_header_list_size(u32::try_from(limits.head_size.saturating_mul(2)).unwrap_or(u32::MAX));
        h2.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        h2.max_send_buffer_size(STREAM_BUFFER);
        h2.max_pending_accept_reset_streams(UNSEEN_MAX);
        proxy.h2_options = Some(h2);
        Self { proxy: Arc::new(proxy), shared: shared.clone(), ending }
    }

    /// The whole connection. Pingora's own end of an idle one says nothing to the client, so that a request that is on its
    /// way already would be lost.
    pub async fn serve_http2(&self, connection: Connection) {
        connection.multiplexed();
        let link = SessionLink::new(connection.link().clone());
        let guard = Guard::new(connection.link().clone(), self.shared.clone());
        let carried = Carried::new(connection, link.clone()).guarded(guard);
        let (end, ended) = watch::channel(false);
        tokio::select! {
            _ = self.proxy.process_new(Box::new(carried), &ended) => {}
            () = self.unused(&link, &end) => {}
        }
    }

    /// Tells the client that nothing new is taken once nothing has run for long, and returns when it had the time to leave;
    /// it never returns once the process is about to end, or has handed over, because then the drain says when.
    async fn unused(&self, link: &SessionLink, end: &watch::Sender<bool>) {
        let (mut ending, mut parting) = (self.ending.clone(), self.shared.parting.clone());
        let is_process_ending = tokio::select! {
            () = has_begun(&mut ending) => true,
            () = has_begun(&mut parting) => true,
            () = link.idle_for(self.shared.limits.keep_alive) => false,
        };
        end.send_replace(true);
        if is_process_ending {
            return std::future::pending().await;
        }
        link.stats.limits.count(Limit::KeepAlive);
        sleep(GOODBYE).await;
        link.idle_for(Duration::ZERO).await;
    }

    /// One HTTP/1 request, whose head is there, checked and written anew; `upload` reads its body. `None`: the connection is closed, or was a tunnel.
    ///
    /// Pingora's own loop waits for the next request with its buffers in hand and without a limit of time, so it is only
    /// called for one at a time.
    pub async fn serve_request(&self, connection: Connection, upload: Upload) -> Option<Connection> {
        let link = SessionLink::new(connection.link().clone());
        let stream: Stream = Box::new(Carried::new(connection, link.clone()).with_body(upload));
        let mut session = ServerSession::new_http1(stream);
        session.set_keepalive(None);
        let done = self.proxy.process_new_http(session, &self.ending).await;
        // `None`: answered with `Connection: close`, or broken.
        let stream = done?.consume().0;
        let connection = stream.into_any().downcast::<Carried>().ok()?.into_connection()?;
        if let Some(tunnel) = link.take_tunnel() {
            tunnel.run(connection).await;
            return None;
        }
        Some(connection)
    }
}

/// Idle connections to all instances together, per worker and HTTP version; the least recently used one makes room.
const POOLED_MAX: usize = 4096;
/// What an HTTP/2 client may send before we have passed it on: one upload fills a fast link, many share a bound.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What waits of one answer for a client that lets us send it and does not read.
const STREAM_BUFFER: usize = 64 * 1024;
/// Streams that were taken back before they could begin; more of them are stopped by what we allow of resets. The codec's
/// own 20 are too few for a client that gives up a burst of calls at once.
const UNSEEN_MAX: usize = 250;
/// For what a client has sent before it could know that we close.
const GOODBYE: Duration = Duration::from_secs(2);
