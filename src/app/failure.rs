//! Why the process did not start, in words for whoever started it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::EMBEDDED;
use crate::system::passed::PassedError;
use crate::system::privileges::PrivilegeError;
use crate::{embedded, proxy};

#[derive(Debug)]
pub enum StartError {
    Bind(proxy::BindError),
    /// What was passed to this process makes no sense.
    PassedSocket(PassedError),
    /// What was passed is not what the configuration says; a line each.
    Passed(String),
    Privileges(PrivilegeError),
    /// What root can read is needed again by who is none; a line each.
    Unreadable {
        user: String,
        problems: String,
    },
    Notify(io::Error),
    /// The process that hands over could not be heard, or told.
    Handover(io::Error),
    /// It goes on after all.
    TooLate,
    /// The registry is not known, or not every instance probed.
    NotReady(Duration),
    Listen(&'static str, SocketAddr, io::Error),
    Embedded(embedded::OpenError),
    AccessLog(String, io::Error),
    Access(String),
    Runtime(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => error.fmt(f),
            Self::PassedSocket(error) => error.fmt(f),
            Self::Passed(problems) => f.write_str(problems),
            Self::Privileges(error) => error.fmt(f),
            Self::Unreadable { user, problems } => {
                write!(f, "user {user} (process.user) could not read the configuration again on SIGHUP:\n{problems}")
            }
            Self::Handover(error) => write!(f, "the process that was to hand its sockets over cannot be understood: {error}"),
            Self::TooLate => f.write_str("the process that was to hand its sockets over goes on after all"),
            Self::NotReady(limit) => write!(
                f,
                "not ready after {} (process.upgrade_timeout): the registry has not been heard of, or not every instance was probed",
                humantime::format_duration(*limit)
            ),
            Self::Notify(error) => write!(f, "NOTIFY_SOCKET: the service manager cannot be told anything: {error}"),
            Self::Listen(what @ EMBEDDED, address, error) if error.kind() == io::ErrorKind::AddrInUse => write!(
                f,
                "the {what} cannot listen on {address}: something answers there already; if it is an etcd, use it with \
                 --etcd http://{address}, else set registry.listen"
            ),
            Self::Listen(what, address, error) => write!(f, "the {what} cannot listen on {address}: {error}"),
            Self::Embedded(error) => error.fmt(f),
            Self::AccessLog(file, error) => write!(f, "log.access.file: {file:?} cannot be written: {error}"),
            Self::Access(reason) => write!(f, "the admin endpoint cannot be guarded: {reason}"),
            Self::Runtime(error) => write!(f, "the process cannot be set up: {error}"),
        }
    }
}

impl std::error::Error for StartError {}
