//! Requests that go on while something else happens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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

async fn once(to: SocketAddr, ask: Ask) -> Result<super::Answer, String> {
    Connection::open(to, Version::HTTP_11).await?.ask(ask).await
}

const LOAD_CONNECTIONS: usize = 4;
/// Two cores are shared with the proxy, etcd and the upstreams; a closed loop would only measure who is starved.
const LOAD_PAUSE: Duration = Duration::from_millis(3);
