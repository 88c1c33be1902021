//! What a service manager is told, as `sd_notify(3)` has it: a datagram of `NAME=value` lines to the socket that
//! `NOTIFY_SOCKET` names. Without that variable everything here does nothing.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

/// Clones speak to the same one.
#[derive(Debug, Clone, Default)]
pub struct ServiceManager {
    socket: Option<Arc<UnixDatagram>>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    pub fn of_environment() -> io::Result<Self> {
        let variable = |name: &str| std::env::var_os(name).filter(|said| !said.is_empty());
        let socket = match variable("NOTIFY_SOCKET") {
            Some(said) => Some(Arc::new(connect(&said)?)),
            None => None,
        };
        let said = |name: &str| variable(name)?.into_string().ok();
        let watchdog = watchdog(said("WATCHDOG_USEC"), said("WATCHDOG_PID"), std::process::id());
        Ok(Self { socket, watchdog })
    }

    pub fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// How often it wants to hear that we work (`WatchdogSec=`).
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.is_there())
    }

    /// Never waits: what does not fit its queue now is not told.
    pub fn say(&self, lines: &[&str]) {
        if let Some(socket) = &self.socket {
            // A service manager that is gone has nobody to tell it, us neither.
            let _ = socket.send(lines.join("\n").as_bytes());
        }
    }

    /// `words` for people, as `systemctl status` shows them.
    pub fn status(&self, words: &str) {
        self.say(&[&status(words)]);
    }
}

/// A line of its own, whatever the words are.
pub fn status(words: &str) -> String {
    let one_line: String = words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("STATUS={one_line}")
}

/// What has to be said with `RELOADING=1`, so that an earlier `READY=1` is not taken for its end.
pub fn monotonic() -> String {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is ours to be written. The call fails for clocks that do not exist only; this one always does.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    format!("MONOTONIC_USEC={}", now.tv_sec * 1_000_000 + now.tv_nsec / 1_000)
}

fn connect(said: &OsString) -> io::Result<UnixDatagram> {
    let address = match said.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(said)?,
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{said:?} is no path and no abstract name"))),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn watchdog(every: Option<String>, pid: Option<String>, own_pid: u32) -> Option<Duration> {
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(own_pid));
    let every = every?.parse().ok().filter(|n| *n > 0)?;
    is_ours.then_some(Duration::from_micros(every))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_arrives_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("pointsman-notify-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let sockets = [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).unwrap()),
            (format!("@{name}").into(), UnixDatagram::bind_addr(&abstract_name).unwrap()),
        ];
        for (said, receives) in sockets {
            let socket = Some(Arc::new(connect(&said).unwrap()));
            ServiceManager { socket, watchdog: None }.say(&["READY=1", &status("all\nis well")]);
            let mut buffer = [0; 64];
            let n = receives.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..n], b"READY=1\nSTATUS=all is well");
        }
        assert!(connect(&"relative".into()).is_err());
    }

    #[test]
    fn the_watchdog_is_ours_or_nobodys() {
        let check = |every: &str, pid: Option<&str>| watchdog(Some(every.to_owned()), pid.map(str::to_owned), 7);
        assert_eq!(check("2000000", Some("7")), Some(Duration::from_secs(2)));
        assert_eq!(check("2000000", None), Some(Duration::from_secs(2)));
        assert_eq!(check("2000000", Some("8")), None);
        assert_eq!(check("0", Some("7")), None);
        assert_eq!(check("soon", None), None);
    }
}
