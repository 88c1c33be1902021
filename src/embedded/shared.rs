//! What the calls of all clients share: the state behind its lock, and the thread that saves it.
//!
//! A write is answered when it is on disk, as etcd's are; what waits is saved in one commit. Readers and watchers see
//! it before that: should the machine stop in between, revisions begin above the one they saw, and they list again.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info};

use super::fault::Fault;
use super::journal::{Identity, Journal};
use super::state::{State, Unsaved};

pub struct Shared {
    state: Arc<Mutex<State>>,
    pub identity: Identity,
    saver: Option<Saver>,
}

impl Shared {
    /// Without a journal nothing is kept and nothing is waited for.
    pub fn new(mut state: State, identity: Identity, journal: Option<Journal>) -> Self {
        if let Some(journal) = &journal {
            state.reserve(journal.reserved());
        }
        let state = Arc::new(Mutex::new(state));
        let saver = journal.map(|journal| Saver::start(journal, state.clone()));
        Self { state, identity, saver }
    }

    /// For reading, and for what needs no disk: watches and renewals.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Changes the state and waits until the change is durable. Returns the answer and the revision then.
    pub async fn write<T>(&self, mut change: impl FnMut(&mut State) -> Result<T, Fault>) -> Result<(T, i64), Fault> {
        let mut attempt = || {
            let mut state = self.lock();
            if !state.may_write() {
                return None;
            }
            let before = state.tick();
            let answer = change(&mut state);
            Some((answer, state.revision(), before, state.tick()))
        };
        let Some(saver) = &self.saver else {
            let (answer, revision, ..) = attempt().ok_or(Fault::TimedOut)?;
            return Ok((answer?, revision));
        };
        let durable = async {
            let mut saved = saver.saved.clone();
            let (answer, revision, before, tick) = loop {
                saved.mark_unchanged();
                if let Some(done) = attempt() {
                    break done;
                }
                saver.kick();
                saved.changed().await.map_err(|_| Fault::Stopped)?;
            };
            if tick != before {
                saver.kick();
                saved.wait_for(|saved| *saved >= tick).await.map_err(|_| Fault::Stopped)?;
            }
            Ok((answer?, revision))
        };
        tokio::time::timeout(SAVE_TIMEOUT, durable).await.unwrap_or(Err(Fault::TimedOut))
    }

    /// Lets the disk catch up without waiting for it.
    pub fn save_soon(&self) {
        if let Some(saver) = &self.saver {
            saver.kick();
        }
    }

    /// Saves everything and marks the stop as clean. Blocks; writes that come later are refused.
    pub fn close(&self) {
        if let Some(saver) = &self.saver {
            saver.close();
        }
    }

    pub fn file_bytes(&self) -> u64 {
        let path = self.saver.as_ref().map(|saver| saver.path.as_path());
        path.and_then(|path| path.metadata().ok()).map_or(0, |file| file.len())
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A change is whole or not begun, so what a panicking thread leaves is in order.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread that writes the file: it sleeps until kicked, then saves whatever waits.
struct Saver {
    path: PathBuf,
    /// `None` once closed; dropping it ends the thread.
    kicks: Mutex<Option<SyncSender<Kick>>>,
    saved: watch::Receiver<u64>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Kick {
    Save,
    /// Save, and mark the stop as clean.
    Close,
}

impl Saver {
    fn start(journal: Journal, state: Arc<Mutex<State>>) -> Self {
        let path = journal.path().to_path_buf();
        let (kicks, kicked) = sync_channel(KICKS_WAITING_MAX);
        let (tell_saved, saved) = watch::channel(0);
        let thread = std::thread::spawn(move || run(journal, &state, &kicked, &tell_saved));
        Self { path, kicks: Mutex::new(Some(kicks)), saved, thread: Mutex::new(Some(thread)) }
    }

    fn kick(&self) {
        let kicks = self.kicks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kicks) = &*kicks {
            // Full is as good: a kick that waits will find what we wrote.
            let _ = kicks.try_send(Kick::Save);
        }
    }

    fn close(&self) {
        let kicks = self.kicks.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(kicks) = kicks {
            // An error means that the thread is gone, and then there is nothing to wait for.
            let _ = kicks.send(Kick::Close);
        }
        self.join();
    }

    fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Drop for Saver {
    /// Not an orderly stop, but the file is free for the next process when this returns.
    fn drop(&mut self) {
        self.kicks.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.join();
    }
}

fn run(journal: Journal, state: &Mutex<State>, kicked: &Receiver<Kick>, tell_saved: &watch::Sender<u64>) {
    let (path, mut reserved) = (journal.path().to_path_buf(), journal.reserved());
    let mut open = Some(journal);
    let mut failing = false;
    let mut saved_tick = 0;
    loop {
        let kick = if failing { kicked.recv_timeout(RETRY_EVERY) } else { kicked.recv().map_err(Into::into) };
        let clean = match kick {
            Ok(Kick::Save) | Err(RecvTimeoutError::Timeout) => false,
            Ok(Kick::Close) => true,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let unsaved = if clean { lock(state).seal() } else { lock(state).take_unsaved() };
        if unsaved.tick == saved_tick && !clean {
            // The save before this kick took what it was for.
            continue;
        }
        match save(&mut open, &path, reserved, &unsaved, clean) {
            Ok(now_reserved) => {
                if failing {
                    info!(path = %path.display(), "The registry's file can be written again");
                }
                failing = false;
                reserved = now_reserved;
                saved_tick = unsaved.tick;
                if !clean {
                    lock(state).reserve(reserved);
                }
                // Nobody listens after the last client has gone.
                let _ = tell_saved.send(unsaved.tick);
            }
            Err(source) => {
                if !failing {
                    error!(path = %path.display(), %source, "The registry's file cannot be written; writes are not confirmed");
                }
                failing = true;
                open = None;
                lock(state).give_back(unsaved);
            }
        }
        if clean {
            return;
        }
    }
}

fn save(open: &mut Option<Journal>, path: &Path, reserved: i64, unsaved: &Unsaved, clean: bool) -> Result<i64, redb::Error> {
    let journal = match open {
        Some(journal) => journal,
        None => open.insert(Journal::reopen(path, reserved)?),
    };
    journal.save(unsaved, clean)?;
    Ok(journal.reserved())
}

/// One is enough: a kick says that something waits, not what.
const KICKS_WAITING_MAX: usize = 1;
/// How long a client waits for the disk before it is told that the outcome is unknown; etcd's own is 7 s.
const SAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a disk that refused is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::journal::RESERVE_STEP;
    use crate::embedded::keyspace::Limits;
    use crate::embedded::ops::Put;
    use std::time::Instant;

    fn open(dir: &Path) -> Shared {
        let (journal, identity, saved) = Journal::open(dir).unwrap();
        Shared::new(State::new(saved, Limits::default(), Instant::now()), identity, Some(journal))
    }

    fn put(key: &'static str) -> Put {
        Put { key: key.into(), value: Some("1".into()), lease: Some(0), prev_kv: false }
    }

    #[tokio::test]
    async fn no_revision_is_shown_that_the_next_process_could_show_again() {
        let dir = tempfile::tempdir().unwrap();
        let shared = open(dir.path());
        // Faster than any disk, and without waiting for one.
        let mut shown = 0;
        while shared.lock().may_write() {
            shown = shared.lock().put(&put("a")).unwrap().revision;
            assert!(shown <= 1 + RESERVE_STEP);
        }
        // The next one has to wait until more are reserved.
        let (answer, _) = shared.write(|state| state.put(&put("b"))).await.unwrap();
        assert_eq!(answer.revision, shown + 1);
        drop(shared);
        let shared = open(dir.path());
        assert!(shared.lock().revision() > shown + 1);
    }

    #[tokio::test]
    async fn an_orderly_stop_skips_no_revision_and_any_other_does() {
        let dir = tempfile::tempdir().unwrap();
        let shared = open(dir.path());
        shared.write(|state| state.put(&put("a"))).await.unwrap();
        shared.close();
        let refused = shared.write(|state| state.put(&put("a"))).await.unwrap_err();
        assert_eq!(refused, Fault::Stopped);
        assert_eq!(shared.lock().revision(), 2, "what the next process will say is not said by this one");
        drop(shared);
        let shared = open(dir.path());
        assert_eq!(shared.lock().revision(), 2);
        drop(shared);
        assert_eq!(open(dir.path()).lock().revision(), 2 + RESERVE_STEP);
    }
}
