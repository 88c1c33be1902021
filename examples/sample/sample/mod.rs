//! A small service with every kind of answer a proxy has to carry: plain, slow, failing, streamed, huge, reset,
//! WebSocket, gRPC health. HTTP/1.1, HTTP/2 with prior knowledge and WebSocket share one port.
//!
//! It is also the example of how a service of yours registers itself: `register.rs` needs nothing but etcd-client.
//!
//! 1. [`Sample::bind`] opens the listening socket, so the address is known before anything is announced.
//! 2. [`Sample::run`] serves, and keeps the registration under a lease.
//! 3. When told to stop it says `draining` in the registry and goes on serving, gives the lease back, and only
//!    then closes the listening socket and finishes the requests that run.
//!
//! Nothing here names the crate it is built in: the same files are the Cargo example and a part of a demo.

mod answer;
mod asked;
mod behaviour;
mod body;
mod connection;
mod flags;
mod grpc;
mod instance;
mod register;
mod ws;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

pub use behaviour::Behaviour;
pub use flags::{Flags, run};
use instance::{Instance, Stage, Told};
pub use register::Registration;

pub struct Options {
    /// What it calls itself in its answers; `SERVICE-PORT` when it is not said.
    pub name: Option<String>,
    /// Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Waited before every answer but those about health.
    pub latency: Duration,
    /// How many of a hundred requests are answered 503, health aside.
    pub fail_percent: u8,
    /// What it does to every request from the start.
    pub behaviour: Option<Behaviour>,
    /// How long it serves on after it said `draining`: the time proxies have to hear of it.
    pub drain: Duration,
    pub registration: Option<Registration>,
}

pub struct Sample {
    listener: TcpListener,
    address: SocketAddr,
    instance: Arc<Instance>,
    drain: Duration,
    registration: Option<register::Announced>,
}

impl Sample {
    pub async fn bind(options: Options) -> io::Result<Self> {
        let listener = listen(options.listen)?;
        let address = listener.local_addr()?;
        let service = options.registration.as_ref().map_or("sample", |registration| &registration.service);
        let name = options.name.unwrap_or_else(|| format!("{service}-{}", address.port()));
        let registration = match options.registration {
            Some(registration) => Some(registration.announced(&name, address)?),
            None => None,
        };
        let instance = Arc::new(Instance::new(name, options.latency, options.fail_percent, options.behaviour));
        Ok(Self { listener, address, instance, drain: options.drain, registration })
    }

    /// Where it really listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is ready and what was running then has ended, at most [`FINISH_MAX`] later.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { listener, address, instance, drain, registration } = self;
        let registered = registration.map(|announced| tokio::spawn(register::stay(announced, instance.stage())));
        let leave = async {
            stop.await;
            instance.advance(Stage::Draining).await;
            if let Some(registered) = registered {
                sleep(drain).await;
                instance.advance(Stage::Leaving).await;
                if timeout(REVOKE_MAX, registered).await.is_err() {
                    warn!("The registry did not take the lease back in time; it runs out by itself");
                }
            }
            instance.advance(Stage::Stopping).await;
        };
        tokio::join!(serve(listener, address, &instance), leave);
    }
}

/// With room for as many connects at once as a proxy may begin: beyond the usual 128 the kernel drops them, and they come
/// again a second later.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

const BACKLOG: u32 = 4096;

/// Accepts until the instance is stopping, then waits for the connections that are open. While the instance refuses
/// there is no listening socket.
async fn serve(listener: TcpListener, address: SocketAddr, instance: &Arc<Instance>) {
    let (mut stage, mut behaviour) = (instance.stage(), instance.behaviours());
    let mut connections = JoinSet::new();
    let mut listening = Some(listener);
    loop {
        let Some(listener) = &listening else {
            tokio::select! {
                _ = behaviour.wait_for(|told| !refuses(told)) => {}
                () = stopping(&mut stage) => break,
            }
            match listen(address) {
                Ok(listener) => listening = Some(listener),
                Err(error) => {
                    warn!(%error, %address, "The address cannot be listened on again");
                    sleep(ACCEPT_AGAIN).await;
                }
            }
            continue;
        };
        let accepted = tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => accepted,
            Some(_) = connections.join_next() => continue,
            () = refusing(&mut behaviour) => {
                listening = None;
                continue;
            }
            () = stopping(&mut stage) => break,
        };
        match accepted {
            Ok((stream, client)) => {
                connections.spawn(connection::serve(stream, client, instance.clone()));
            }
            Err(error) => {
                warn!(%error, "No connection could be accepted");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(listening);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if timeout(FINISH_MAX, all_ended).await.is_err() {
        info!("Some connections were still busy and are closed");
    }
}

/// Ready once the instance takes nothing new.
async fn stopping(stage: &mut watch::Receiver<Stage>) {
    // An error means that the instance itself is gone, which is as good a reason to stop.
    let _ = stage.wait_for(|stage| *stage == Stage::Stopping).await;
}

/// Ready once the instance refuses connections. Never, once the instance is gone.
async fn refusing(behaviour: &mut watch::Receiver<Told>) {
    if behaviour.wait_for(refuses).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn refuses(told: &Told) -> bool {
    told.as_ref().is_some_and(|behaviour| behaviour.refuses())
}

/// Connections served at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 16_384;
/// Pause after a failed accept: without it, being out of descriptors would be a busy loop.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// How long running requests may take to end once the service stops.
const FINISH_MAX: Duration = Duration::from_secs(10);
/// How long a silent registry may hold up our leaving.
const REVOKE_MAX: Duration = Duration::from_secs(3);
