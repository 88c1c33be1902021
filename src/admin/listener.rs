//! The admin address itself: a small HTTP/1.1 listener with a bound on everything a client can hold.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::access::WRONG_TOKEN_PAUSE;
use super::patience::Patient;
use super::reply::Refusal;
use super::sources::Sources;
use super::{Admin, guard};

/// Answers until `shutdown` turns true; then answers under way may finish for a moment, and streams of events end.
pub async fn serve(listener: TcpListener, sources: Arc<Sources>, mut shutdown: watch::Receiver<bool>) {
    let admin = Arc::new(Admin::new(sources, shutdown.clone()));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        // Beyond the bound new connections wait in the kernel's queue.
        let accepted = tokio::select! {
            accepted = async { (places.clone().acquire_owned().await, listener.accept().await) } => accepted,
            () = stopped(&mut shutdown) => break,
        };
        match accepted {
            (place, Ok((stream, _))) => {
                let (admin, shutdown) = (admin.clone(), shutdown.clone());
                connections.spawn(async move {
                    let _place = place;
                    talk(stream, admin, shutdown).await;
                });
            }
            (_, Err(error)) => {
                warn!(%error, "The admin address could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    // What is not done by then is dropped with the set.
    let _ = tokio::time::timeout(FINISH_MAX, async { while connections.join_next().await.is_some() {} }).await;
}

async fn talk(stream: TcpStream, admin: Arc<Admin>, shutdown: watch::Receiver<bool>) {
    let stream = Patient::new(stream, STALL_MAX);
    let Some(tls) = &admin.sources.access.tls else { return converse(stream, false, admin, shutdown).await };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok((stream, certified))) => converse(stream, certified, admin.clone(), shutdown).await,
        Ok(Err(error)) => debug!(%error, "A TLS handshake at the admin address failed"),
        Err(_) => debug!("A TLS handshake at the admin address took too long"),
    }
}

/// `certified`: the client has shown a certificate, which was verified.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    certified: bool,
    admin: Arc<Admin>,
    mut shutdown: watch::Receiver<bool>,
) {
    let (begun, mut has_begun) = watch::channel(false);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let admin = admin.clone();
        begun.send_replace(true);
        async move {
            let access = &admin.sources.access;
            let checked = guard::check(&request).and_then(|()| access.check(request.uri().path(), request.headers(), certified));
            if let Err(Refusal::Unauthorized { wrong: true }) = checked {
                tokio::time::sleep(WRONG_TOKEN_PAUSE).await;
            }
            Ok::<_, Infallible>(checked.map_or_else(Refusal::reply, |()| admin.answer(&request)))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_SIZE_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async {
            stopped(&mut shutdown).await;
            // A connection on which nothing has come yet would be closed at once, and the request on its way lost.
            let _ = tokio::time::timeout(FIRST_REQUEST_MAX, has_begun.wait_for(|begun| *begun)).await;
        } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "An admin connection broke");
    }
}

/// Whoever could say it having gone is the same.
pub async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Far more than scrapers, probes and people need.
const CONNECTIONS_MAX: usize = 64;
/// Request line and fields, in bytes.
const HEAD_SIZE_MAX: usize = 16 * 1024;
/// For a whole head. It runs between requests too, so it is also how long a connection may be idle; longer than the
/// usual 15 s between scrapes.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const STALL_MAX: Duration = Duration::from_secs(10);
const FINISH_MAX: Duration = Duration::from_secs(2);
/// How long a connection that was just opened may still send its first request after the end was asked for.
const FIRST_REQUEST_MAX: Duration = Duration::from_millis(500);
/// When no file descriptor is left, trying at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
