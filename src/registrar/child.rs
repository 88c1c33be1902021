//! The process we run and register: started, signalled, and its end noticed. It is also our duty as process 1 of a
//! container to collect the children that others left behind.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, getppid};
use tokio::signal::unix::{self, SignalKind};

pub struct Child {
    pid: Pid,
    changes: unix::Signal,
}

impl Child {
    /// In a process group of its own, so that a signal from the terminal reaches it once, through us. It dies with the
    /// **thread** that calls this, so that must be one which lives as long as the process.
    pub fn start(command: &[OsString]) -> io::Result<Self> {
        let Some((program, arguments)) = command.split_first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the command is empty"));
        };
        // Before the child exists, so that not even its immediate end is missed.
        let changes = unix::signal(SignalKind::child())?;
        let parent = getpid();
        let mut command = Command::new(program);
        command.args(arguments).process_group(0);
        // SAFETY: between fork and exec only async-signal-safe calls are made: prctl and getppid; nothing allocates.
        unsafe {
            command.pre_exec(move || {
                prctl::set_pdeathsig(Signal::SIGKILL)?;
                // We may have died before the line above.
                if getppid() == parent { Ok(()) } else { Err(io::Error::from_raw_os_error(nix::libc::ESRCH)) }
            });
        }
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        Ok(Self { pid: Pid::from_raw(pid), changes })
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Its exit code, or 128 and the number of the signal that ended it. May be dropped while it waits.
    pub async fn gone(&mut self) -> u8 {
        loop {
            if let Some(code) = self.reap() {
                return code;
            }
            self.changes.recv().await;
        }
    }

    pub fn signal(&self, signal: Signal) {
        // It fails when the child has just ended, which `gone` reports.
        let _ = kill(self.pid, signal);
    }

    /// Together with what it started in its group.
    pub fn kill(&self) {
        let _ = killpg(self.pid, Signal::SIGKILL);
    }

    /// Collects whoever has ended; one signal may stand for several of them.
    fn reap(&self) -> Option<u8> {
        let whom = if getpid() == INIT { None } else { Some(self.pid) };
        let mut code = None;
        loop {
            match waitpid(whom, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, status)) if pid == self.pid => code = Some(status as u8),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.pid => code = Some(SIGNALLED + signal as u8),
                Ok(WaitStatus::StillAlive) | Err(_) => return code,
                Ok(_) => {}
            }
        }
    }
}

/// Orphans become children of the process with this id.
const INIT: Pid = Pid::from_raw(1);
/// Shells say so too.
const SIGNALLED: u8 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ends_are_told_as_shells_tell_them() {
        let run = |script: &str| Child::start(&["sh".into(), "-c".into(), script.into()]).unwrap();
        assert_eq!(run("exit 7").gone().await, 7);
        assert_eq!(run("kill -9 $$").gone().await, 137);

        let mut stopped = run("exec sleep 60");
        stopped.signal(Signal::SIGTERM);
        assert_eq!(stopped.gone().await, 143);

        let mut stubborn = run("trap '' TERM; sleep 60; sleep 60");
        stubborn.kill();
        assert_eq!(stubborn.gone().await, 137);

        let missing = Child::start(&["/nowhere/program".into()]).err().expect("there is no such program");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert!(Child::start(&[]).is_err());
    }
}
