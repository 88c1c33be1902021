//! The listening sockets of the proxy: bound (or handed over) before anything is served, so that a busy port is an
//! error message and not a process that serves nothing.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Listener;

/// One set of listening sockets per worker, each with a socket for every listener in the order of the configuration.
///
/// Every worker has its own accept queue (SO_REUSEPORT), so nobody wakes up for a connection that another takes.
#[derive(Debug)]
pub struct Sockets {
    addresses: Vec<SocketAddr>,
    workers: Vec<Vec<TcpListener>>,
}

#[derive(Debug)]
pub struct BindError {
    address: SocketAddr,
    cause: io::Error,
}

/// Binds every listener once per worker; port 0 becomes one free port, the same for all workers.
pub fn bind(listeners: &[Listener], workers: usize) -> Result<Sockets, BindError> {
    let mut addresses = Vec::with_capacity(listeners.len());
    let mut sockets: Vec<Vec<TcpListener>> = (0..workers.max(1)).map(|_| Vec::new()).collect();
    for listener in listeners {
        let fail = |cause| BindError { address: listener.address, cause };
        if listener.address.port() != 0 {
            // With SO_REUSEPORT alone we would silently share the port with another process of the same user.
            open(listener.address, false).map_err(fail)?;
        }
        let mut address = listener.address;
        for of_worker in &mut sockets {
            let socket = open(address, true).map_err(fail)?;
            address = socket.local_addr().map_err(fail)?;
            of_worker.push(socket);
        }
        addresses.push(address);
    }
    Ok(Sockets { addresses, workers: sockets })
}

impl Sockets {
    /// Takes sockets that listen already, one list per worker: from a predecessor or the service manager.
    pub fn handed_over(workers: Vec<Vec<TcpListener>>) -> io::Result<Self> {
        let mut addresses = Vec::new();
        for socket in workers.iter().flatten() {
            socket.set_nonblocking(true)?;
        }
        for socket in workers.first().into_iter().flatten() {
            addresses.push(socket.local_addr()?);
        }
        Ok(Self { addresses, workers })
    }

    /// Where the proxy listens, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(super) fn into_workers(self) -> Vec<Vec<TcpListener>> {
        self.workers
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, cause } = self;
        match cause.kind() {
            io::ErrorKind::AddrInUse => {
                write!(f, "cannot listen on {address}: another process already does; stop it or choose another --listen")
            }
            io::ErrorKind::PermissionDenied => {
                write!(f, "cannot listen on {address}: ports below 1024 need root or CAP_NET_BIND_SERVICE")
            }
            io::ErrorKind::AddrNotAvailable => write!(f, "cannot listen on {address}: this machine has no such address"),
            _ => write!(f, "cannot listen on {address}: {cause}"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

fn open(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // "[::]" and "0.0.0.0" are two listeners; whoever wants both says so.
        socket.set_only_v6(true)?;
    }
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Connections the kernel completes for us while a worker is busy; capped by net.core.somaxconn.
const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: SocketAddr) -> Listener {
        Listener::plain(address)
    }

    #[test]
    fn every_worker_gets_its_own_socket_on_the_same_free_port() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let sockets = bind(&[listener(any), listener(any)], 3).unwrap();
        let [a, b] = sockets.addresses() else { panic!("two listeners") };
        assert!(a.port() != 0 && b.port() != 0 && a != b);
        for of_worker in &sockets.workers {
            assert_eq!(of_worker.iter().map(|s| s.local_addr().unwrap()).collect::<Vec<_>>(), [*a, *b]);
        }
    }

    #[test]
    fn a_busy_port_is_refused_even_when_its_owner_allows_sharing() {
        let owner = bind(&[listener("127.0.0.1:0".parse().unwrap())], 1).unwrap();
        let busy = owner.addresses()[0];
        let error = bind(&[listener(busy)], 1).unwrap_err().to_string();
        assert!(error.contains(&busy.to_string()) && error.contains("another process"), "{error}");
    }
}
