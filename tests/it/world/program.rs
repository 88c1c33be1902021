//! A started program: its log in a file, signals by process id, killed when dropped.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

pub struct Program {
    name: String,
    child: Child,
    out: PathBuf,
    log: PathBuf,
}

impl Program {
    /// In a process group of its own, so that what it leaves behind can be found.
    pub fn start(command: &mut Command, folder: &Path, name: &str) -> Self {
        let out = output(&folder.join(format!("{name}.out")));
        Self::start_with(command.stdin(Stdio::null()).stdout(out), folder, name)
    }

    /// With these two sockets as descriptors 3 and 4, of these names, as a service manager passes them.
    pub fn start_passing(command: &Command, folder: &Path, name: &str, sockets: [TcpListener; 2], names: &str) -> Self {
        let [first, second] = sockets.map(|socket| Stdio::from(OwnedFd::from(socket)));
        let script = format!(
            "exec 3<&0 4>&1 </dev/null >/dev/null; export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES={names}; exec \"$@\""
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, "sh"]).arg(command.get_program()).args(command.get_args());
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Self::start_with(shell.stdin(first).stdout(second).current_dir(folder), folder, name)
    }

    fn start_with(command: &mut Command, folder: &Path, name: &str) -> Self {
        let (out, log) = (folder.join(format!("{name}.out")), folder.join(format!("{name}.log")));
        let child = command
            .stderr(output(&log))
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        Self { name: name.to_owned(), child, out, log }
    }

    pub fn signal(&self, signal: Signal) {
        signal::kill(self.pid(), signal).expect("a signal to our own child");
    }

    /// `None`: it still runs.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the state of our own child")
    }

    pub fn exits_within(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.exited() {
                return status;
            }
            assert!(Instant::now() < deadline, "it still runs after {limit:?}; its log ends:\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn kill(&mut self) {
        // An error means that it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn out(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
    }

    /// The most memory it ever had, in KiB.
    pub fn memory_peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status in /proc");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM stands in the status");
        line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
    }

    /// Forgets the peak, so that the next one is only about what comes now.
    pub fn reset_memory_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").expect("its peak can be reset");
    }

    /// A line of `/proc/PID/task/TID/status` of each of its threads.
    pub fn of_threads(&self, field: &str) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("its threads can be listed").flatten();
        let status = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
        let value = |status: String| {
            let value = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field stands in the status");
            value.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        status.map(value).collect()
    }

    pub fn is_running(&self) -> bool {
        group_of_living(&Path::new("/proc").join(self.child.id().to_string())).is_some()
    }

    /// The processes of its group that live: itself, and what it started.
    pub fn n_processes(&self) -> usize {
        let entries = fs::read_dir("/proc").expect("/proc can be listed").flatten();
        entries.filter(|entry| group_of_living(&entry.path()) == Some(self.child.id())).count()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what {} logged last\n{}\n---", self.name, self.log_tail());
        }
        // One that has handed over has ended, and its successor is in the same group.
        if self.exited().is_none() || self.n_processes() > 0 {
            // Paused programs die too, and so does what they have started.
            let _ = signal::killpg(self.pid(), Signal::SIGKILL);
        }
        self.kill();
    }
}

fn output(path: &Path) -> File {
    File::options().create(true).append(true).open(path).expect("a file for a program's output")
}

fn group_of_living(process: &Path) -> Option<u32> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // The name in parentheses may contain anything; after it: state, parent, group.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    fields.nth(1).filter(|_| state != "Z")?.parse().ok()
}

const LOG_TAIL: usize = 60;
