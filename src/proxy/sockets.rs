//! The listening sockets of the proxy: bound, or there already, before anything is served, so that a busy port is an
//! error message and not a process that serves nothing.
//!
//! Those we bind are one per worker (SO_REUSEPORT), each with its own accept queue, so nobody wakes up for a connection
//! that another takes. Those that are given are as many as they are: if there are fewer than workers, some share one; if
//! there are more, some have several. So no queue is left with nobody to take from it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Listener;

/// In the order of the configuration.
#[derive(Debug)]
pub struct Sockets {
    addresses: Vec<SocketAddr>,
    /// At least one for each listener, all at its address.
    listeners: Vec<Vec<TcpListener>>,
}

/// What one worker accepts from: sockets, each with the number of its listener.
pub type OfWorker = Vec<(usize, TcpListener)>;

#[derive(Debug)]
pub struct BindError {
    address: SocketAddr,
    cause: io::Error,
}

/// Takes for each listener the sockets that are `given` for it. Where there are none it is bound, once per worker; port 0
/// becomes one free port, the same for all workers.
pub fn open(listeners: &[Listener], given: Vec<Vec<TcpListener>>, workers: usize) -> Result<Sockets, BindError> {
    let mut opened = Sockets { addresses: Vec::with_capacity(listeners.len()), listeners: Vec::with_capacity(listeners.len()) };
    let given = given.into_iter().chain(std::iter::repeat_with(Vec::new));
    for (listener, given) in listeners.iter().zip(given) {
        let fail = |cause| BindError { address: listener.address, cause };
        let sockets = if given.is_empty() { bind(listener.address, workers).map_err(fail)? } else { given };
        for socket in &sockets {
            socket.set_nonblocking(true).map_err(fail)?;
        }
        opened.addresses.push(sockets[0].local_addr().map_err(fail)?);
        opened.listeners.push(sockets);
    }
    Ok(opened)
}

fn bind(mut address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    if address.port() != 0 {
        // With SO_REUSEPORT alone we would silently share the port with another process of the same user.
        listen(address, false)?;
    }
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers.max(1) {
        let socket = listen(address, true)?;
        address = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok(sockets)
}

impl Sockets {
    /// Where the proxy listens, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// All there are for each listener, in the order of the configuration.
    pub fn listeners(&self) -> &[Vec<TcpListener>] {
        &self.listeners
    }

    pub(super) fn into_workers(self, n: usize) -> io::Result<Vec<OfWorker>> {
        let mut workers: Vec<OfWorker> = (0..n).map(|_| Vec::new()).collect();
        for (listener, sockets) in self.listeners.into_iter().enumerate() {
            // The first of the workers share what there is too little of.
            for (worker, shared) in (sockets.len()..n).zip(sockets.iter().cycle()) {
                workers[worker].push((listener, shared.try_clone()?));
            }
            for (at, socket) in sockets.into_iter().enumerate() {
                workers[at % n].push((listener, socket));
            }
        }
        Ok(workers)
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
                write!(
                    f,
                    "cannot listen on {address}: ports below 1024 need root, CAP_NET_BIND_SERVICE, or a socket that \
                     systemd passes"
                )
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

fn listen(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
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

    /// Two listeners, with so many sockets given for the first, shared by so many workers: what each worker has of which.
    fn check(given: usize, workers: usize, expected: &[&[usize]]) {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let given = if given == 0 { Vec::new() } else { bind(any, given).unwrap() };
        let sockets = open(&[Listener::plain(any), Listener::plain(any)], vec![given], workers).unwrap();
        let [a, b] = *sockets.addresses() else { panic!("two listeners") };
        assert!(a.port() != 0 && b.port() != 0 && a != b);
        let workers = sockets.into_workers(workers).unwrap();
        assert!(workers.iter().flatten().all(|(listener, socket)| socket.local_addr().unwrap() == [a, b][*listener]));
        let of_listeners: Vec<Vec<usize>> = workers.iter().map(|w| w.iter().map(|(listener, _)| *listener).collect()).collect();
        assert_eq!(of_listeners, expected);
    }

    #[test]
    fn every_worker_gets_its_own_socket_on_the_same_free_port() {
        check(0, 3, &[&[0, 1], &[0, 1], &[0, 1]]);
    }

    #[test]
    fn fewer_than_workers_are_shared_and_more_are_all_taken() {
        check(1, 3, &[&[0, 1], &[0, 1], &[0, 1]]);
        check(2, 2, &[&[0, 1], &[0, 1]]);
        check(3, 2, &[&[0, 0, 1], &[0, 1]]);
    }

    #[test]
    fn a_busy_port_is_refused_even_when_its_owner_allows_sharing() {
        let owner = open(&[Listener::plain("127.0.0.1:0".parse().unwrap())], Vec::new(), 1).unwrap();
        let busy = owner.addresses()[0];
        let error = open(&[Listener::plain(busy)], Vec::new(), 1).unwrap_err().to_string();
        assert!(error.contains(&busy.to_string()) && error.contains("another process"), "{error}");
    }
}
