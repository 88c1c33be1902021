//! stderr as journald likes it: each line begins with its priority (`sd-daemon(3)`), and leaves the time to the journal.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Whether what we write to stderr goes there, as `JOURNAL_STREAM` says by device and inode.
pub fn hears_stderr() -> bool {
    let Ok(said) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr = io::stderr().as_fd().try_clone_to_owned().and_then(|stderr| File::from(stderr).metadata());
    stderr.is_ok_and(|stderr| said == format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// Makes writers that say how bad a line is, if that is wanted.
pub struct Priorities<W> {
    pub writer: W,
    pub are_told: bool,
}

pub struct Line<W> {
    priority: Option<&'static str>,
    writer: W,
}

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for Priorities<W> {
    type Writer = Line<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        Line { priority: self.are_told.then_some(INFO), writer: self.writer.make_writer() }
    }

    fn make_writer_for(&'w self, event: &Metadata<'_>) -> Self::Writer {
        Line { priority: self.are_told.then(|| priority(*event.level())), writer: self.writer.make_writer_for(event) }
    }
}

impl<W: Write> Write for Line<W> {
    /// A whole event, of one line, at once: that is how `tracing_subscriber` writes.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        match self.priority {
            Some(priority) => self.writer.write_all(&[priority.as_bytes(), event].concat()).map(|()| event.len()),
            None => self.writer.write(event),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => INFO,
        _ => "<7>",
    }
}

const INFO: &str = "<6>";
