//! What the operating system says of this process: the `process_*` metrics that every dashboard expects.

use std::time::{Duration, SystemTime};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};

use super::{Exposition, families};

/// One moment. What cannot be read is left out; no scrape fails for it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ProcessReading {
    pub cpu: Option<Duration>,
    pub resident_bytes: Option<u64>,
    pub virtual_bytes: Option<u64>,
    pub open_fds: Option<u64>,
    pub max_fds: Option<u64>,
    pub threads: Option<u64>,
}

impl ProcessReading {
    /// Reads files of the kernel; with very many connections this takes milliseconds.
    pub fn take() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            cpu: cpu(),
            resident_bytes: field(&status, "VmRSS:").map(|kib| kib * 1024),
            virtual_bytes: field(&status, "VmSize:").map(|kib| kib * 1024),
            // One of them is the directory being read.
            open_fds: std::fs::read_dir("/proc/self/fd").ok().map(|fds| (fds.count() as u64).saturating_sub(1)),
            max_fds: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
            threads: field(&status, "Threads:"),
        }
    }

    pub fn tell(&self, started_at: SystemTime, text: &mut Exposition) {
        if let Some(cpu) = self.cpu {
            text.family(&families::PROCESS_CPU);
            text.sample(&[], cpu.as_secs_f64());
        }
        for (family, value) in [
            (&families::PROCESS_RESIDENT, self.resident_bytes),
            (&families::PROCESS_VIRTUAL, self.virtual_bytes),
            (&families::PROCESS_OPEN_FDS, self.open_fds),
            (&families::PROCESS_MAX_FDS, self.max_fds),
            (&families::PROCESS_THREADS, self.threads),
        ] {
            if let Some(value) = value {
                text.family(family);
                text.sample(&[], value);
            }
        }
        text.family(&families::PROCESS_START_TIME);
        text.sample(&[], started_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    }
}

fn cpu() -> Option<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let (user, system) = (usage.user_time(), usage.system_time());
    let us = (user.tv_sec() + system.tv_sec()) * 1_000_000 + user.tv_usec() + system.tv_usec();
    u64::try_from(us).ok().map(Duration::from_micros)
}

/// The number after a name of `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_read() {
        let file = std::fs::File::open("/proc/self/status").unwrap();
        let reading = ProcessReading::take();
        drop(file);
        assert!(reading.open_fds.unwrap() >= 1 && reading.open_fds <= reading.max_fds, "{reading:?}");
        assert!(reading.resident_bytes.unwrap() > 1 << 20 && reading.resident_bytes < reading.virtual_bytes, "{reading:?}");
        assert!(reading.threads.unwrap() >= 1 && reading.cpu.is_some(), "{reading:?}");
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        assert_eq!(field("Name:\tx\nVmRSS:\t   12 kB\n", "VmRSS:"), Some(12));
        assert_eq!(field("Name:\tx\n", "VmRSS:"), None);
        let mut text = Exposition::new(crate::telemetry::Format::Text, &families::BUILD_INFO);
        ProcessReading::default().tell(SystemTime::UNIX_EPOCH + Duration::from_millis(1500), &mut text);
        let told = text.take();
        assert!(told.contains("process_start_time_seconds 1.5\n") && !told.contains("process_cpu"), "{told}");
    }
}
