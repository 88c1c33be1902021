//! What the operating system asks of the process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// One request of an operator or a service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// SIGTERM: leave gracefully; readiness goes first, so that others notice.
    Stop,
    /// SIGINT: leave gracefully, without that pause, for a person is waiting.
    StopNow,
    /// SIGHUP: read the file again, open logs again.
    Reload,
    /// SIGQUIT: let a new process of the program take over.
    Upgrade,
}

pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    quit: Signal,
}

impl Signals {
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    pub async fn next(&mut self) -> Ask {
        tokio::select! {
            _ = self.terminate.recv() => Ask::Stop,
            _ = self.interrupt.recv() => Ask::StopNow,
            _ = self.hang_up.recv() => Ask::Reload,
            _ = self.quit.recv() => Ask::Upgrade,
        }
    }
}
