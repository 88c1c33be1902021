//! When the state is written to disk and when it is read back: at most every five seconds, on change, never on the path of
//! an event.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::reflector::Reflector;
use super::snapshot::Snapshot;

/// Without a path it keeps nothing.
pub struct Keeper {
    path: Option<PathBuf>,
    is_behind: bool,
    /// No write before.
    not_before: Instant,
    writing: Option<JoinHandle<()>>,
}

impl Keeper {
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { path, is_behind: false, not_before: Instant::now(), writing: None }
    }

    /// There is something new to write.
    pub fn changed(&mut self) {
        self.is_behind = self.path.is_some();
    }

    /// Waits until `save` should be called. Safe to drop and ask again.
    pub async fn due(&mut self) {
        if !self.is_behind {
            return std::future::pending().await;
        }
        self.written().await;
        sleep_until(self.not_before).await;
    }

    /// Takes a copy, which shares keys and values, and writes it on another thread, after what is being written.
    pub fn save(&mut self, reflector: &Reflector) {
        let Some(path) = self.path.clone().filter(|_| self.is_behind) else { return };
        self.is_behind = false;
        self.not_before = Instant::now() + EVERY;
        let snapshot = Snapshot {
            prefix: reflector.layout().to_string(),
            revision: reflector.revision(),
            records: reflector.in_force().collect(),
        };
        let before = self.writing.take();
        let write = move || {
            if let Err(error) = snapshot.save(&path) {
                warn!(path = %path.display(), %error, "Registry snapshot could not be written");
            }
        };
        self.writing = Some(tokio::spawn(async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            let _ = spawn_blocking(write).await;
        }));
    }

    /// Writes what is not written yet, and waits until it is.
    pub async fn finish(&mut self, reflector: &Reflector) {
        self.save(reflector);
        self.written().await;
    }

    /// What the disk remembers, if it can be used.
    pub async fn load(&self, prefix: &str) -> Option<Snapshot> {
        let path = self.path.clone()?;
        let prefix = prefix.to_owned();
        let shown = path.display().to_string();
        let loaded = spawn_blocking(move || Snapshot::load(&path, &prefix)).await.ok()?;
        match loaded {
            Ok(Some(snapshot)) => {
                info!(path = shown, revision = snapshot.revision, n_records = snapshot.records.len(), "Registry snapshot loaded");
                Some(snapshot)
            }
            Ok(None) => None,
            Err(error) => {
                warn!(path = shown, %error, "Registry snapshot is not used");
                None
            }
        }
    }

    async fn written(&mut self) {
        if let Some(writing) = &mut self.writing {
            // A panic there was reported there.
            let _ = writing.await;
            self.writing = None;
        }
    }
}

const EVERY: Duration = Duration::from_secs(5);
