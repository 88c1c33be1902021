//! One line a request, written by a thread of its own: a slow disk costs lines, never requests.
//!
//! The thread is woken by the first line after a silence, and then gathers for a moment before it looks again: under load
//! that is one system call a batch, and none for whoever hands in a line.

mod line;

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Stdout, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::{error, warn};

use super::record::RequestRecord;
use crate::config::{AccessLogConfig, AccessLogFormat};

/// Cheap to clone; the writer ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct AccessLog {
    lines: SyncSender<String>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    format: AccessLogFormat,
    deny_query: Vec<String>,
    dropped: AtomicU64,
    reopen: AtomicBool,
}

/// Joined at the end of the process, after the last [`AccessLog`] is gone, so that no line is lost.
#[derive(Debug)]
pub struct Writer(JoinHandle<()>);

impl AccessLog {
    /// Opens the file, so that a wrong path is an error of the start.
    pub fn open(config: &AccessLogConfig) -> io::Result<(Self, Writer)> {
        let file = config.file.as_deref().map(append_to).transpose()?;
        let (lines, waiting) = sync_channel(LINES_WAITING_MAX);
        let shared = Arc::new(Shared {
            format: config.format,
            deny_query: config.deny_query.iter().map(|name| name.to_ascii_lowercase()).collect(),
            dropped: AtomicU64::new(0),
            reopen: AtomicBool::new(false),
        });
        let to = gathering(file.map_or_else(|| To::Stdout(io::stdout()), To::File));
        let output = Output { path: config.file.clone(), to, shared: shared.clone() };
        let writer = std::thread::Builder::new().name("access-log".into()).spawn(move || output.run(&waiting))?;
        Ok((Self { lines, shared }, Writer(writer)))
    }

    pub fn write(&self, record: &RequestRecord<'_>) {
        let line = match self.shared.format {
            AccessLogFormat::Json => line::json(record, &self.shared.deny_query),
            AccessLogFormat::Combined => line::combined(record, &self.shared.deny_query),
        };
        if self.lines.try_send(line).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// After the file was moved away (SIGHUP): the next line goes to a new one.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Relaxed);
    }

    /// Lines that nobody will read, because the disk was too slow for them.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl Writer {
    pub fn join(self) {
        if self.0.join().is_err() {
            error!("Access log writer panicked");
        }
    }
}

struct Output {
    path: Option<PathBuf>,
    to: BufWriter<To>,
    shared: Arc<Shared>,
}

enum To {
    File(File),
    /// By itself it writes each line with a system call of its own; given many lines at once it passes them on as they are.
    Stdout(Stdout),
}

impl Write for To {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stdout(stdout) => stdout.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Stdout(stdout) => stdout.flush(),
        }
    }
}

impl Output {
    fn run(mut self, waiting: &Receiver<String>) {
        let mut failing = false;
        loop {
            let first = match waiting.recv_timeout(LOOK_AFTER) {
                Ok(line) => Some(line),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if first.is_some() {
                std::thread::sleep(GATHER);
            }
            self.reopen_if_asked();
            let batch = first.into_iter().chain(waiting.try_iter()).take(LINES_WAITING_MAX);
            let written = batch.into_iter().try_for_each(|line| self.to.write_all(line.as_bytes()));
            let result = written.and_then(|()| self.to.flush());
            if let (Err(error), false) = (&result, failing) {
                warn!(%error, "Access log cannot be written");
            }
            failing = result.is_err();
        }
        // The last of them are in the file already; an error here was reported above.
        let _ = self.to.flush();
    }

    fn reopen_if_asked(&mut self) {
        if !self.shared.reopen.swap(false, Ordering::Relaxed) {
            return;
        }
        if let Some(path) = &self.path {
            match append_to(path) {
                Ok(file) => self.to = gathering(To::File(file)),
                Err(error) => warn!(path = %path.display(), %error, "Access log cannot be reopened; the old file goes on"),
            }
        }
    }
}

fn gathering(to: To) -> BufWriter<To> {
    BufWriter::with_capacity(BATCH_SIZE, to)
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// About a second of full load. When the writer is further behind, lines are dropped and counted.
const LINES_WAITING_MAX: usize = 16 * 1024;
/// How late a reopening may be noticed when no line comes.
const LOOK_AFTER: Duration = Duration::from_millis(500);
/// How late a line may be written: long enough for many, short enough for whoever follows the log, and for the lines of a
/// process that ends.
const GATHER: Duration = Duration::from_millis(20);
/// Written in one system call.
const BATCH_SIZE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::arrival::Arrival;
    use crate::proxy::record::RequestRecord;
    use http::{HeaderMap, Version};

    #[test]
    fn no_line_of_many_is_lost_when_the_last_hand_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let config = AccessLogConfig { file: Some(path.clone()), ..AccessLogConfig::default() };
        let (log, writer) = AccessLog::open(&config).unwrap();
        let peer = ([192, 0, 2, 1], 4711).into();
        let arrival = Arrival::of(peer, &HeaderMap::new(), &Default::default(), &mut fastrand::Rng::new());
        let record = RequestRecord::of_no_request(&arrival, (Version::HTTP_11, 408), "slow_head", Duration::ZERO);
        // More than one batch, and less than may wait.
        for _ in 0..3 {
            (0..1000).for_each(|_| log.write(&record));
            std::thread::sleep(GATHER / 2);
        }
        assert_eq!(log.dropped(), 0);
        drop(log);
        writer.join();
        let written = std::fs::read_to_string(path).unwrap();
        assert!(written.ends_with('\n') && written.lines().count() == 3000, "{} lines", written.lines().count());
    }
}
