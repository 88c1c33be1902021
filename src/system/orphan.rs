//! A process that we start and that is nobody's child: process 1 takes it in, or whoever else takes orphans in, as a service
//! manager does. systemd hears of the end of such a main process, and waits for it when it stops the unit. Of one whose
//! parent is another process of the unit it learns nothing while that lives, and ends it without waiting.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

#[derive(Debug)]
pub struct Orphan {
    pid: libc::pid_t,
    /// It, and never another process that has got its number since.
    handle: OwnedFd,
}

impl Orphan {
    /// `Err` if the program cannot be started. Linux 5.3 or newer.
    pub fn start(mut command: Command) -> io::Result<Self> {
        let (mut reads, writes) = io::pipe()?;
        let tell = writes.as_raw_fd();
        // SAFETY: what runs between fork and exec makes system calls only: it takes no lock, and allocates nothing. `writes`
        // lives until the program was started.
        unsafe { command.pre_exec(move || leave_to_nobody(tell)) };
        // Of the one in between, which has ended; a program that cannot be started is heard of through it.
        command.spawn()?.wait()?;
        drop((command, writes));
        let mut pid = [0; size_of::<libc::pid_t>()];
        reads.read_exact(&mut pid)?;
        let pid = libc::pid_t::from_ne_bytes(pid);
        // SAFETY: the call takes numbers, and returns a descriptor that is nobody else's.
        let handle = unsafe {
            match libc::syscall(libc::SYS_pidfd_open, pid, 0) {
                -1 => return Err(io::Error::last_os_error()),
                descriptor => OwnedFd::from_raw_fd(descriptor as RawFd),
            }
        };
        Ok(Self { pid, handle })
    }

    pub fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// At once. Nothing happens to one that has ended.
    pub fn kill(&self) {
        // SAFETY: the descriptor is ours; without a `siginfo_t` (null) the call reads nothing.
        unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.handle.as_raw_fd(), libc::SIGKILL, std::ptr::null::<u8>(), 0);
        }
    }
}

/// In the child: its own child goes on as the program, and it ends.
fn leave_to_nobody(tell: RawFd) -> io::Result<()> {
    // SAFETY: none of the calls allocates; the bytes of `pid` live until they are written.
    unsafe {
        match libc::fork() {
            -1 => Err(io::Error::last_os_error()),
            0 => Ok(()),
            pid => {
                let pid = pid.to_ne_bytes();
                let written = libc::write(tell, pid.as_ptr().cast(), pid.len());
                libc::_exit(i32::from(written != pid.len() as isize))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    fn stat(pid: u32) -> Option<(char, u32)> {
        let said = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = said.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
    }

    #[test]
    fn it_is_not_our_child_and_ends_when_told() {
        let mut command = Command::new("sleep");
        command.arg("60").stdin(Stdio::null());
        let orphan = Orphan::start(command).unwrap();
        let (state, parent) = stat(orphan.pid()).expect("it lives");
        assert!(state != 'Z' && parent != std::process::id(), "{state} {parent}");
        orphan.kill();
        let patience = Instant::now() + Duration::from_secs(10);
        while stat(orphan.pid()).is_some_and(|(state, _)| state != 'Z') {
            assert!(Instant::now() < patience, "it lives on");
            std::thread::sleep(Duration::from_millis(5));
        }
        orphan.kill();
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let error = Orphan::start(Command::new("/no/such/program")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
