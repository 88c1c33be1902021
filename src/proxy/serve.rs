//! One connection from its first byte to its last: which protocol, which engine for each request, and what comes between.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::Shared;
use super::downstream::{Connection, HeadLimits, Link, Opening, Stream};
use super::http1::{self, Left};
use super::pingora::Pingora;
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
    pub async fn connection(mut self, stream: Stream, link: Arc<Link>) {
        let limits = &self.shared.limits;
        let heads = HeadLimits { timeout: limits.head_timeout, size: limits.head_size };
        let mut connection = Connection::new(stream, link, heads);
        let unseen = self.ending.clone();
        let opening = until_ending(&mut self.ending, heads.timeout, connection.opening()).await;
        match opening {
            Ok(Ok(Opening::Http2)) => self.pingora.serve_http2(connection, &unseen).await,
            Ok(Ok(Opening::Http1)) => self.http1(connection).await,
            Ok(Ok(Opening::Closed) | Err(_)) => {}
            Ok(Ok(Opening::Unclear)) | Err(_) => connection.too_slow(),
        }
    }

    async fn http1(self, mut connection: Connection) {
        let mut own = http1::Engine::new(self.shared, self.upstreams, self.ending);
        while let Left::General(left) = own.serve(connection).await {
            // On the heap: most connections never need it, and its state is large.
            match Box::pin(self.pingora.serve_request(left)).await {
                Some(back) => connection = back,
                None => return,
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
