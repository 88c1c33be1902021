//! What happens just now, for whoever watches on a terminal: a line on stderr that the next one takes the place of.

use std::fmt::Display as Shown;
use std::io::{IsTerminal, Write, stderr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::interval;

use super::chapter::Chapter;
use crate::load::Running;

pub struct Display {
    is_on: bool,
    n_told: usize,
    n_chapters: usize,
}

impl Display {
    pub fn new(n_chapters: usize) -> Self {
        Self { is_on: stderr().is_terminal(), n_told: 0, n_chapters }
    }

    pub fn opening(&self, n_instances: u32) {
        self.show(format_args!("etcd, two proxies and {n_instances} instances start …"));
    }

    /// What becomes of this while it is shown.
    pub async fn during<T>(&mut self, chapter: Chapter, load: &Arc<Running>, what: impl Future<Output = T>) -> T {
        self.n_told += 1;
        let (began, story) = (Instant::now(), chapter.story());
        let mut again = interval(REDRAWN);
        let mut what = std::pin::pin!(what);
        let done = loop {
            tokio::select! {
                done = &mut what => break done,
                _ = again.tick(), if self.is_on => {
                    let (n, n_failed) = (load.n_answered() + load.n_failed(), load.n_failed());
                    let (told, of, seconds) = (self.n_told, self.n_chapters, began.elapsed().as_secs());
                    self.show(format_args!("{told}/{of}  {story} …  {seconds} s, {n} requests, {n_failed} failed"));
                }
            }
        };
        self.clear();
        done
    }

    pub fn clear(&self) {
        self.show("");
    }

    /// Without wrapping: what is too long for the terminal is cut by it.
    fn show(&self, line: impl Shown) {
        if self.is_on {
            // A display that cannot be written to changes nothing.
            let _ = write!(stderr(), "\r\x1b[2K\x1b[?7l{line}\x1b[?7h").and_then(|()| stderr().flush());
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.clear();
    }
}

const REDRAWN: Duration = Duration::from_millis(250);
