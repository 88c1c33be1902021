//! Sockets that a service manager opened for us, as `sd_listen_fds(3)` has it: `LISTEN_PID` is ours, `LISTEN_FDS` of them
//! begin at descriptor 3, `LISTEN_FDNAMES` are their names, separated by colons.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use socket2::{Domain, Socket, Type};

/// One of them.
#[derive(Debug)]
pub struct PassedSocket {
    /// `FileDescriptorName=` of the unit; its file's name if that says nothing.
    pub name: String,
    pub address: SocketAddr,
    pub socket: TcpListener,
}

#[derive(Debug, PartialEq, Eq)]
pub enum PassedError {
    /// A variable says what it cannot mean.
    Variable { name: &'static str, said: String },
    /// One of the descriptors is nothing to accept connections from.
    NotListening { descriptor: RawFd, name: String, reason: String },
}

/// What the environment says, before any descriptor is touched.
#[derive(Debug, PartialEq, Eq)]
struct Announced(Vec<(RawFd, String)>);

/// Adopts what was passed to this process. Nothing, if it was passed to another. Only the first call gets them, since
/// whoever has a socket closes it when it is done.
pub fn take() -> Result<Vec<PassedSocket>, PassedError> {
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let announced = announced(|name| std::env::var(name).ok(), std::process::id())?;
    announced.0.into_iter().map(|(descriptor, name)| adopt(descriptor, name)).collect()
}

fn announced(variable: impl Fn(&str) -> Option<String>, own_pid: u32) -> Result<Announced, PassedError> {
    let wrong = |name, said: &str| PassedError::Variable { name, said: said.to_owned() };
    let Some(pid) = variable("LISTEN_PID") else { return Ok(Announced(Vec::new())) };
    // Not for us, but for somebody who started us without clearing it.
    if pid.parse::<u32>().map_err(|_| wrong("LISTEN_PID", &pid))? != own_pid {
        return Ok(Announced(Vec::new()));
    }
    let n = variable("LISTEN_FDS").unwrap_or_default();
    let n: RawFd = n.parse().ok().filter(|n| (0..=PASSED_MAX).contains(n)).ok_or_else(|| wrong("LISTEN_FDS", &n))?;
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').filter(|name| !name.is_empty());
    let named = |at| (PASSED_FIRST + at, names.next().unwrap_or(UNNAMED).to_owned());
    Ok(Announced((0..n).map(named).collect()))
}

fn adopt(descriptor: RawFd, name: String) -> Result<PassedSocket, PassedError> {
    let fail = |reason: String| PassedError::NotListening { descriptor, name: name.clone(), reason };
    // SAFETY: only a descriptor that is open may be borrowed: asking for its flags fails for any other. That it is nobody
    // else's is what the service manager says in `LISTEN_PID`, and `take` gives each away once.
    let socket = unsafe {
        let flags = nix::libc::fcntl(descriptor, nix::libc::F_GETFD);
        if flags < 0 {
            return Err(fail(io::Error::last_os_error().to_string()));
        }
        OwnedFd::from_raw_fd(descriptor)
    };
    // They come without it, and what we start must not hold them open.
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|e| fail(e.to_string()))?;
    let socket = Socket::from(socket);
    let is_tcp =
        socket.domain().is_ok_and(|d| d == Domain::IPV4 || d == Domain::IPV6) && socket.r#type().ok() == Some(Type::STREAM);
    if !is_tcp || !socket.is_listener().unwrap_or(false) {
        return Err(fail(
            "it is no TCP socket that listens; in the unit that is ListenStream= with an address and a port".to_owned(),
        ));
    }
    socket.set_nonblocking(true).map_err(|e| fail(e.to_string()))?;
    let socket = TcpListener::from(socket);
    let address = socket.local_addr().map_err(|e| fail(e.to_string()))?;
    Ok(PassedSocket { name, address, socket })
}

impl fmt::Display for PassedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable { name, said } => write!(f, "{name}: {said:?} is not what a service manager says there"),
            Self::NotListening { descriptor, name, reason } => {
                write!(f, "the socket {name:?} that was passed as descriptor {descriptor} cannot be used: {reason}")
            }
        }
    }
}

impl std::error::Error for PassedError {}

/// A descriptor has one owner, and numbers are free again once that has closed it.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// `SD_LISTEN_FDS_START`.
const PASSED_FIRST: RawFd = 3;
/// More than any unit has; whoever says more has lost count.
const PASSED_MAX: RawFd = 1024;
/// As systemd calls it.
const UNNAMED: &str = "unknown";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(variables: &[(&str, &str)], expected: Result<&[(RawFd, &str)], (&str, &str)>) {
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, said)| (*said).to_owned());
        let expected = match expected {
            Ok(sockets) => Ok(Announced(sockets.iter().map(|(fd, name)| (*fd, (*name).to_owned())).collect())),
            Err((name, said)) => Err((name.to_owned(), said.to_owned())),
        };
        let found = announced(variable, 42).map_err(|error| match error {
            PassedError::Variable { name, said } => (name.to_owned(), said),
            other => panic!("{other}"),
        });
        assert_eq!(found, expected, "{variables:?}");
    }

    #[test]
    fn what_is_for_us_has_numbers_and_names() {
        check(&[], Ok(&[]));
        check(&[("LISTEN_PID", "41"), ("LISTEN_FDS", "1")], Ok(&[]));
        check(&[("LISTEN_PID", "42"), ("LISTEN_FDS", "1")], Ok(&[(3, "unknown")]));
        let three = [("LISTEN_PID", "42"), ("LISTEN_FDS", "3"), ("LISTEN_FDNAMES", "http:https")];
        check(&three, Ok(&[(3, "http"), (4, "https"), (5, "unknown")]));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        check(&[("LISTEN_PID", "me")], Err(("LISTEN_PID", "me")));
        check(&[("LISTEN_PID", "42"), ("LISTEN_FDS", "many")], Err(("LISTEN_FDS", "many")));
        check(&[("LISTEN_PID", "42"), ("LISTEN_FDS", "-1")], Err(("LISTEN_FDS", "-1")));
        check(&[("LISTEN_PID", "42")], Err(("LISTEN_FDS", "")));
    }

    #[test]
    fn only_a_socket_that_listens_is_adopted() {
        use std::os::fd::IntoRawFd;
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listening.local_addr().unwrap();
        let adopted = adopt(listening.into_raw_fd(), "http".to_owned()).unwrap();
        assert_eq!((adopted.name.as_str(), adopted.address), ("http", address));
        let datagram = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = adopt(datagram.into_raw_fd(), "dns".to_owned()).unwrap_err().to_string();
        assert!(error.contains("\"dns\"") && error.contains("ListenStream="), "{error}");
        assert!(matches!(adopt(9999, "none".to_owned()), Err(PassedError::NotListening { .. })));
    }
}
