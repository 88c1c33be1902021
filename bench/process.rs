//! The programs under measurement: started, watched through `/proc`, and ended with us.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Outcome;

/// A running program; dropping it ends it.
pub struct Process(Child);

impl Process {
    /// Its output goes to `log`, which is what an error of the measurement points to.
    pub fn start(command: &mut Command, log: &Path) -> Outcome<Self> {
        let log = fs::File::create(log)?;
        let started = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        Ok(Self(started.map_err(|error| format!("{}: {error}", command.get_program().display()))?))
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    pub fn has_ended(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(Some(_)) | Err(_))
    }

    /// SIGTERM.
    pub fn terminate(&self) -> Outcome<()> {
        self.signal("TERM")
    }

    /// By its name without `SIG`.
    pub fn signal(&self, signal: &str) -> Outcome<()> {
        let told = Command::new("kill").args(["-s", signal, &self.id().to_string()]).status()?;
        if told.success() { Ok(()) } else { Err(format!("process {} does not get SIG{signal}", self.id()).into()) }
    }

    /// SIGKILL; gone when it returns.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
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
        // A polite end first, so that a master takes its workers with it.
        if self.has_ended() {
            return;
        }
        let _ = self.terminate();
        for _ in 0..20 {
            if self.has_ended() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.kill();
    }
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

const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Linux counts these times in hundredths of a second, whatever its own clock does.
const TICK_MS: u64 = 10;
