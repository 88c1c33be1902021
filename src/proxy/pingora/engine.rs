//! Pingora, set up for one worker.

use std::sync::Arc;

use pingora_core::apps::{HttpServerApp, HttpServerOptions, ServerApp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::default_h2_options;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::{HttpProxy, http_proxy};
use tokio::sync::watch;

use super::gateway::Gateway;
use super::io::Carried;
use super::link::SessionLink;
use super::peers::Peers;
use crate::proxy::Shared;
use crate::proxy::downstream::Connection;

#[derive(Clone)]
pub struct Pingora {
    proxy: Arc<HttpProxy<Gateway>>,
    ending: watch::Receiver<bool>,
}

impl Pingora {
    pub fn new(shared: &Arc<Shared>, peers: &Arc<Peers>, ending: watch::Receiver<bool>) -> Self {
        let limits = &shared.limits;
        let conf = ServerConf { threads: 1, upstream_keepalive_pool_size: POOLED_MAX, ..ServerConf::default() };
        let gateway = Gateway { shared: shared.clone(), peers: peers.clone(), ending: ending.clone() };
        let mut proxy: HttpProxy<Gateway> = http_proxy(&Arc::new(conf), gateway);
        let mut options = HttpServerOptions::default();
        options.h2_idle_timeout = Some(limits.keep_alive);
        proxy.server_options = Some(options);
        // The defaults hold what keeps a flood of heads small; only our own limit is put in.
        let mut h2 = default_h2_options();
        h2.max_header_list_size(u32::try_from(limits.head_size).unwrap_or(u32::MAX));
        h2.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        proxy.h2_options = Some(h2);
        Self { proxy: Arc::new(proxy), ending }
    }

    /// The whole connection. `unseen`: Pingora waits for a change that this receiver has not seen.
    pub async fn serve_http2(&self, connection: Connection, unseen: &watch::Receiver<bool>) {
        connection.multiplexed();
        let link = SessionLink::new(connection.link().clone());
        self.proxy.process_new(Box::new(Carried::new(connection, link)), unseen).await;
    }

    /// One HTTP/1 request, whose first bytes are there. `None`: the connection is closed, or was a tunnel.
    ///
    /// Pingora's own loop waits for the next request with its buffers in hand and without a limit of time, so it is only
    /// called for one at a time.
    pub async fn serve_request(&self, connection: Connection) -> Option<Connection> {
        let link = SessionLink::new(connection.link().clone());
        let stream: Stream = Box::new(Carried::new(connection, link.clone()));
        let mut session = ServerSession::new_http1(stream);
        session.set_keepalive(None);
        let done = self.proxy.process_new_http(session, &self.ending).await;
        // `None`: answered with `Connection: close`, or broken.
        let stream = done?.consume().0;
        let connection = stream.into_any().downcast::<Carried>().ok()?.into_connection();
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
