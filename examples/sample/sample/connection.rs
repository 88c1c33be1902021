//! One accepted connection, whichever protocol it speaks: HTTP requests, and what an upgrade makes of it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tracing::debug;

use super::instance::Instance;
use super::{answer, refusing, stopping, ws};

/// What the requests of one connection share with it.
pub struct Link {
    pub client: SocketAddr,
    reset: Arc<AtomicBool>,
    upgrade: Mutex<Option<OnUpgrade>>,
}

impl Link {
    /// The connection ends in a reset instead of a proper close.
    pub fn reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }

    /// Once the answer 101 is out, the connection goes on as a WebSocket.
    pub fn becomes_websocket(&self, upgrade: OnUpgrade) {
        *self.upgrade.lock().expect("no holder of this lock panics") = Some(upgrade);
    }
}

pub async fn serve(stream: TcpStream, client: SocketAddr, instance: Arc<Instance>) {
    let _ = stream.set_nodelay(true);
    let reset = Arc::new(AtomicBool::new(false));
    let link = Arc::new(Link { client, reset: reset.clone(), upgrade: Mutex::new(None) });
    let (mut stage, mut behaviour) = (instance.stage(), instance.behaviours());

    let service = service_fn({
        let (link, instance) = (link.clone(), instance.clone());
        move |request| answer::answer(request, link.clone(), instance.clone())
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(Stream { stream, reset }), service);
    let mut connection = std::pin::pin!(connection);

    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = async {
            tokio::select! {
                () = stopping(&mut stage) => {}
                () = refusing(&mut behaviour) => {}
            }
        } => {
            connection.as_mut().graceful_shutdown();
            connection.as_mut().await
        }
    };
    if let Err(error) = served {
        debug!(%client, %error, "A connection ended early");
        return;
    }
    let upgrade = link.upgrade.lock().expect("no holder of this lock panics").take();
    if let Some(upgrade) = upgrade {
        ws::echo(upgrade, stage).await;
    }
}

/// A TCP connection that can be told to end in a reset.
struct Stream {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            // With no time to linger the kernel sends RST. If it will not, the client sees a plain close.
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A client that does not finish its request head in this time is let go; idle connections count as well.
const HEAD_MAX: Duration = Duration::from_secs(75);
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 1024;
