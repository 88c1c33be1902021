//! Requests that go on while something else happens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http::Version;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::World;
use super::client::{Ask, Connection};
use super::talk::Tally;

impl World {
    /// Steady requests on keep-alive connections, until `ends` is called.
    pub fn load(&self, ask: impl Into<Ask>) -> Load {
        let (ask, stop) = (ask.into(), Arc::new(AtomicBool::new(false)));
        let clients = (0..LOAD_CONNECTIONS)
            .map(|_| {
                let (ask, stop) = (ask.clone(), stop.clone());
                self.handle().spawn(steady(self.listen, ask, move || stop.load(Ordering::SeqCst)))
            })
            .collect();
        Load { handle: self.handle().clone(), clients, stop }
    }

    /// The same over HTTP/2, several streams at a time on each connection.
    pub fn load_of_streams(&self, ask: impl Into<Ask>) -> Load {
        let (ask, stop) = (ask.into(), Arc::new(AtomicBool::new(false)));
        let clients = (0..LOAD_CONNECTIONS)
            .map(|_| {
                let (ask, stop) = (ask.clone(), stop.clone());
                self.handle().spawn(streams(self.listen, ask, move || stop.load(Ordering::SeqCst)))
            })
            .collect();
        Load { handle: self.handle().clone(), clients, stop }
    }

    /// `n` requests at once, each on a connection of its own.
    pub fn begin_many(&self, ask: impl Into<Ask>, n: usize) -> Load {
        let ask = ask.into();
        let one = |ask: Ask, to| async move {
            let mut tally = Tally::default();
            tally.take(once(to, ask).await);
            tally
        };
        let clients = (0..n).map(|_| self.handle().spawn(one(ask.clone(), self.listen))).collect();
        Load { handle: self.handle().clone(), clients, stop: Arc::default() }
    }
}

pub struct Load {
    handle: Handle,
    clients: Vec<JoinHandle<Tally>>,
    stop: Arc<AtomicBool>,
}

impl Load {
    /// Lets what runs finish. How everything went.
    pub fn ends(self) -> Tally {
        self.stop.store(true, Ordering::SeqCst);
        self.handle.clone().block_on(async {
            let mut tally = Tally::default();
            for client in self.clients {
                tally.add(client.await.expect("a client that does not panic"));
            }
            tally
        })
    }
}

/// One connection, request after request. Counts each time it had to be opened again.
pub async fn steady(to: SocketAddr, ask: Ask, is_over: impl Fn() -> bool) -> Tally {
    let mut tally = Tally::default();
    let mut connection = Connection::open(to, Version::HTTP_11).await.expect("the proxy accepts");
    while !is_over() {
        if connection.is_closed() {
            tally.reconnected += 1;
            connection = Connection::open(to, Version::HTTP_11).await.expect("the proxy accepts");
        }
        tally.take(connection.ask(ask.clone()).await);
        tokio::time::sleep(LOAD_PAUSE).await;
    }
    tally
}

/// What a connection that is being closed did not take any more (RFC 9113, 6.8) is asked on the next, as every client does.
async fn streams(to: SocketAddr, ask: Ask, is_over: impl Fn() -> bool) -> Tally {
    let mut tally = Tally::default();
    let mut connection = Connection::open(to, Version::HTTP_2).await.expect("the proxy accepts");
    let mut due = 0;
    while due > 0 || !is_over() {
        if connection.is_closed() {
            tally.reconnected += 1;
            connection = Connection::open(to, Version::HTTP_2).await.expect("the proxy accepts");
        }
        let n = due.max(LOAD_STREAMS);
        let round =
            (0..n).map(|_| (connection.beside(), ask.clone())).map(|(mut stream, ask)| async move { stream.ask(ask).await });
        due = 0;
        for answer in join_all(round).await {
            match answer {
                Err(error) if is_not_taken(&error) => due += 1,
                answer => tally.take(answer),
            }
        }
        tally.not_taken += due;
        tokio::time::sleep(LOAD_PAUSE).await;
    }
    tally
}

/// GOAWAY without an error, for a stream after the last one that was taken.
fn is_not_taken(error: &str) -> bool {
    error.contains("GoAway") && error.contains("NO_ERROR")
}

async fn once(to: SocketAddr, ask: Ask) -> Result<super::Answer, String> {
    Connection::open(to, Version::HTTP_11).await?.ask(ask).await
}

const LOAD_CONNECTIONS: usize = 4;
const LOAD_STREAMS: usize = 8;
/// Two cores are shared with the proxy, etcd and the upstreams; a closed loop would only measure who is starved.
const LOAD_PAUSE: Duration = Duration::from_millis(3);
