//! The programs under measurement: started, watched through `/proc`, and ended with us.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::Outcome;

/// A running program and whatever it starts itself, in a process group of their own: a Ctrl-C is for us alone, and we
/// end them all. Dropping it does.
pub struct Process {
    /// Of the first; the group has its number.
    first: Pid,
}

impl Process {
    /// Its output goes to `log`, which is what an error of the measurement points to.
    pub fn start(command: &mut Command, log: &Path) -> Outcome<Self> {
        let log = fs::File::create(log)?;
        let started = command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        let started = started.map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        Ok(Self { first: Pid::from_raw(started.id().try_into()?) })
    }

    pub fn id(&self) -> u32 {
        self.first.as_raw().unsigned_abs()
    }

    /// All of them; see [`adopt_orphans`].
    pub fn has_ended(&self) -> bool {
        loop {
            match waitpid(Pid::from_raw(-self.first.as_raw()), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => return false,
                // One of them; or we were disturbed.
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return true,
            }
        }
    }

    /// The first has, and another may go on in its place.
    pub fn first_has_ended(&self) -> bool {
        self.has_ended() || kill(self.first, None).is_err()
    }

    /// SIGTERM.
    pub fn terminate(&self) -> Outcome<()> {
        self.signal(Signal::SIGTERM)
    }

    /// To the first alone.
    pub fn signal(&self, signal: Signal) -> Outcome<()> {
        kill(self.first, signal).map_err(|error| format!("process {} does not get {signal}: {error}", self.first).into())
    }

    /// SIGKILL for all of them, as when their machine is lost; gone when it returns.
    pub fn kill(&mut self) {
        let _ = killpg(self.first, Signal::SIGKILL);
        let deadline = Instant::now() + KILLED_MAX;
        while !self.has_ended() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub async fn ends_within(&mut self, limit: Duration) -> Outcome<()> {
        let deadline = Instant::now() + limit;
        while !self.has_ended() {
            if Instant::now() > deadline {
                return Err(format!("process {} runs on after {limit:?}", self.id()).into());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Largest resident memory so far, in MiB.
    pub fn peak_memory_mib(&self) -> Outcome<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        // A polite end first, so that what has to be tidied up is.
        let _ = killpg(self.first, Signal::SIGTERM);
        for _ in 0..20 {
            if self.has_ended() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.kill();
    }
}

/// Whoever outlives the program that started it becomes our child, so that we see its end.
pub fn adopt_orphans() -> Outcome<()> {
    Ok(set_child_subreaper(true)?)
}

/// The middle of the figures of some rounds; at least one.
pub fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<_> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let (below, above) = (figures[(figures.len() - 1) / 2], figures[figures.len() / 2]);
    (below + above) / 2.0
}

/// User and system time of all threads of a process and of its children.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the name in parentheses, which may hold anything.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let of_children = children.split_whitespace().filter_map(|child| cpu_time(child.parse().ok()?).ok()).sum();
    Ok(Duration::from_millis(ticks * TICK_MS).saturating_add(of_children))
}

pub fn micros_per(time: Duration, n: u64) -> f64 {
    time.as_secs_f64() * 1e6 / n.max(1) as f64
}

/// A port nobody listens on now.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// `command`, on one core.
pub fn pinned(core: u32, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string()).arg(program);
    command
}

/// Keeps this process, and what it starts from now on, on one core.
pub fn pin_ourselves(core: u32) -> Outcome<()> {
    let us = std::process::id().to_string();
    let pinned = Command::new("taskset").args(["-a", "-p", "-c", &core.to_string(), &us]).stdout(Stdio::null()).status()?;
    if pinned.success() { Ok(()) } else { Err(format!("no core {core} to measure on").into()) }
}

/// The kernel needs no longer, but where it is busy.
const KILLED_MAX: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Linux counts these times in hundredths of a second, whatever its own clock does.
const TICK_MS: u64 = 10;
