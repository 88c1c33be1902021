//! Who watches what, and what each watcher has not been told yet.
//!
//! There is no queue of events for a watcher, so a slow one costs nothing and holds nobody up: it only remembers the
//! first revision it has not seen (`pending`) and reads on in the log of the [`Keyspace`] when its stream has room.
//! If history goes on without it, it learns that by a cancel with the compact revision, as from etcd.
//!
//! 1. A change is made; `note` finds the watchers it concerns, marks them and wakes their streams.
//! 2. Each stream's task calls `pull` for one batch at a time until there is none.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;

use super::keyspace::Keyspace;
use super::kv::{KeyRange, Kv};

#[derive(Default)]
pub struct Watchers {
    streams: HashMap<StreamId, Stream>,
    next_stream: StreamId,
    /// Watchers of one key, found by it: most are services that watch their own key.
    by_key: HashMap<Bytes, Vec<(StreamId, i64)>>,
    /// Watchers of a range, tried one by one: few, as a proxy has one for its whole prefix.
    spans: BTreeMap<(StreamId, i64), KeyRange>,
}

pub type StreamId = u64;

struct Stream {
    watchers: BTreeMap<i64, Watcher>,
    /// Watchers with something pending, each once, in the order they are served.
    ready: VecDeque<i64>,
    next_auto_id: i64,
    wake: Arc<Notify>,
}

/// What a client asked for.
#[derive(Clone, Debug)]
pub struct Watching {
    pub keys: KeyRange,
    /// The first revision it wants to see.
    pub from: i64,
    pub puts: bool,
    pub deletes: bool,
    pub prev_kv: bool,
    pub progress_notify: bool,
    /// Large batches may be cut.
    pub fragment: bool,
}

struct Watcher {
    watching: Watching,
    /// The first revision not yet looked at, while there is one.
    pending: Option<i64>,
    /// Nothing was sent since the last progress notification was due.
    quiet: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Pulled {
    Batch {
        watch_id: i64,
        /// Everything up to here has now been told.
        revision: i64,
        events: Vec<Event>,
        fragment: bool,
    },
    /// The watcher is gone: what it wanted to see is compacted.
    Compacted {
        watch_id: i64,
        revision: i64,
    },
    /// Some of the log was read, nothing in it mattered, and there is more.
    NotYet,
    Idle,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kv: Arc<Kv>,
    pub prev_kv: Option<Arc<Kv>>,
}

/// Why a watch was not created, in etcd's words.
#[derive(Debug, PartialEq, Eq)]
pub enum WatchFault {
    EmptyRange,
    DuplicateId,
    TooMany,
}

impl WatchFault {
    pub fn text(&self) -> &'static str {
        match self {
            Self::EmptyRange => "mvcc: watcher range is empty",
            Self::DuplicateId => "mvcc: duplicate watch ID provided on the WatchStream",
            Self::TooMany => super::fault::Fault::TooManyRequests.text(),
        }
    }
}

impl Watchers {
    /// A new stream of watches; `wake` is notified whenever `pull` has something for it.
    pub fn open(&mut self, wake: Arc<Notify>) -> StreamId {
        self.next_stream += 1;
        let stream = Stream { watchers: BTreeMap::new(), ready: VecDeque::new(), next_auto_id: 0, wake };
        self.streams.insert(self.next_stream, stream);
        self.next_stream
    }

    pub fn close(&mut self, stream: StreamId) {
        let Some(closed) = self.streams.remove(&stream) else { return };
        for (id, watcher) in closed.watchers {
            self.unlist(stream, id, &watcher.watching.keys);
        }
    }

    /// Starts a watch. Id 0 asks for one that is free on the stream. History it wants is pending at once.
    pub fn create(&mut self, stream_id: StreamId, id: i64, watching: Watching, keyspace: &Keyspace) -> Result<i64, WatchFault> {
        let Some(stream) = self.streams.get_mut(&stream_id) else { return Err(WatchFault::TooMany) };
        if watching.keys.is_empty() {
            return Err(WatchFault::EmptyRange);
        }
        if stream.watchers.len() >= WATCHERS_PER_STREAM_MAX {
            return Err(WatchFault::TooMany);
        }
        let id = if id == 0 { stream.free_id() } else { id };
        if stream.watchers.contains_key(&id) {
            return Err(WatchFault::DuplicateId);
        }
        match &watching.keys {
            KeyRange::One(key) => self.by_key.entry(key.clone()).or_default().push((stream_id, id)),
            span => {
                self.spans.insert((stream_id, id), span.clone());
            }
        }
        let from = watching.from;
        stream.watchers.insert(id, Watcher { watching, pending: None, quiet: true });
        if from <= keyspace.revision() {
            stream.mark(id, from);
        }
        Ok(id)
    }

    /// Ends a watch; false if there is none of that id.
    pub fn cancel(&mut self, stream: StreamId, id: i64) -> bool {
        let Some(watcher) = self.streams.get_mut(&stream).and_then(|stream| stream.watchers.remove(&id)) else {
            return false;
        };
        self.unlist(stream, id, &watcher.watching.keys);
        true
    }

    /// Marks and wakes whoever is concerned by what happened at `revision`.
    pub fn note(&mut self, revision: i64, events: &[Arc<Kv>]) {
        for event in events {
            for (stream, id) in self.by_key.get(&event.key).into_iter().flatten() {
                if let Some(stream) = self.streams.get_mut(stream) {
                    stream.mark(*id, revision);
                }
            }
        }
        for ((stream, id), keys) in &self.spans {
            if events.iter().any(|event| keys.contains(&event.key))
                && let Some(stream) = self.streams.get_mut(stream)
            {
                stream.mark(*id, revision);
            }
        }
    }

    /// The next batch for a stream. All events of one revision are in one batch.
    pub fn pull(&mut self, stream_id: StreamId, keyspace: &Keyspace) -> Pulled {
        let Some(stream) = self.streams.get_mut(&stream_id) else { return Pulled::Idle };
        let Some(watch_id) = stream.ready.pop_front() else { return Pulled::Idle };
        // Cancelled since it was marked.
        let Some(watcher) = stream.watchers.get_mut(&watch_id) else { return Pulled::NotYet };
        let Some(from) = watcher.pending.take() else { return Pulled::NotYet };
        if from < keyspace.watchable() {
            self.cancel(stream_id, watch_id);
            return Pulled::Compacted { watch_id, revision: keyspace.watchable() };
        }
        let (events, next) = watcher.read(from, keyspace);
        if next <= keyspace.revision() {
            stream.mark(watch_id, next);
        }
        let Some(watcher) = stream.watchers.get_mut(&watch_id).filter(|_| !events.is_empty()) else {
            return Pulled::NotYet;
        };
        watcher.quiet = false;
        Pulled::Batch { watch_id, revision: next - 1, events, fragment: watcher.watching.fragment }
    }

    /// Whether a stream still has something to be told of what happened up to `revision`.
    pub fn owes(&self, stream: StreamId, revision: i64) -> bool {
        self.streams.get(&stream).is_some_and(|stream| {
            let pending = |id| stream.watchers.get(id).and_then(|watcher| watcher.pending);
            stream.ready.iter().any(|id| pending(id).is_some_and(|from| from <= revision))
        })
    }

    /// The watchers of a stream that asked for progress, have nothing pending and were told nothing since the last call.
    pub fn due_progress(&mut self, stream: StreamId) -> Vec<i64> {
        let Some(stream) = self.streams.get_mut(&stream) else { return Vec::new() };
        let mut due = Vec::new();
        for (id, watcher) in &mut stream.watchers {
            let was_quiet = std::mem::replace(&mut watcher.quiet, true);
            if was_quiet && watcher.watching.progress_notify && watcher.pending.is_none() {
                due.push(*id);
            }
        }
        due
    }

    fn unlist(&mut self, stream: StreamId, id: i64, keys: &KeyRange) {
        let KeyRange::One(key) = keys else {
            self.spans.remove(&(stream, id));
            return;
        };
        if let Some(listed) = self.by_key.get_mut(key) {
            listed.retain(|who| *who != (stream, id));
            if listed.is_empty() {
                self.by_key.remove(key);
            }
        }
    }
}

impl Stream {
    fn mark(&mut self, id: i64, revision: i64) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        if watcher.pending.is_some() || (revision < watcher.watching.from) {
            return;
        }
        watcher.pending = Some(revision);
        self.ready.push_back(id);
        self.wake.notify_one();
    }

    fn free_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_auto_id) {
            self.next_auto_id += 1;
        }
        self.next_auto_id += 1;
        self.next_auto_id - 1
    }
}

impl Watcher {
    /// Reads the log from a revision on, until the batch is large enough. Returns the first revision not read.
    fn read(&self, from: i64, keyspace: &Keyspace) -> (Vec<Event>, i64) {
        let (mut events, mut bytes) = (Vec::new(), 0);
        let mut next = from.max(keyspace.first_logged());
        let first = next;
        for (revision, changed) in keyspace.changes_from(from) {
            if bytes >= BATCH_BYTES || revision - first >= SCANNED_REVISIONS_MAX {
                break;
            }
            for kv in changed.iter().filter(|kv| self.wants(kv)) {
                // As in etcd: a key that begins has nothing before it, and what is compacted cannot be told.
                let tells_prev = self.watching.prev_kv && kv.version != 1;
                let prev_kv = tells_prev.then(|| keyspace.get_at(&kv.key, revision - 1).cloned()).flatten();
                let event = Event { kv: kv.clone(), prev_kv };
                bytes += event.size();
                events.push(event);
            }
            next = revision + 1;
        }
        (events, next)
    }

    fn wants(&self, kv: &Kv) -> bool {
        let kind = if kv.is_tombstone() { self.watching.deletes } else { self.watching.puts };
        kind && self.watching.keys.contains(&kv.key)
    }
}

impl Event {
    /// Its size on the wire, roughly.
    pub fn size(&self) -> usize {
        const FIELDS: usize = 40;
        let size = |kv: &Arc<Kv>| kv.key.len() + kv.value.len() + FIELDS;
        size(&self.kv) + self.prev_kv.as_ref().map_or(0, size)
    }
}

/// A batch ends at the first revision past this size, so that it stays below the 4 MiB a gRPC client takes by default.
const BATCH_BYTES: usize = 1 << 20;
/// How far one `pull` looks for events that matter, as the keyspace is locked meanwhile.
const SCANNED_REVISIONS_MAX: i64 = 1000;
/// A client that creates watches in a loop stops here; a proxy needs a handful.
const WATCHERS_PER_STREAM_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::keyspace::Limits;

    /// A keyspace with watchers and one stream.
    struct Story {
        keyspace: Keyspace,
        watchers: Watchers,
        stream: StreamId,
        wake: Arc<Notify>,
    }

    impl Story {
        fn new(limits: Limits) -> Self {
            let (mut watchers, wake) = (Watchers::default(), Arc::new(Notify::new()));
            let stream = watchers.open(wake.clone());
            Self { keyspace: Keyspace::new(limits), watchers, stream, wake }
        }

        fn watch(&mut self, keys: KeyRange, from: i64) -> Result<i64, WatchFault> {
            let watching =
                Watching { keys, from, puts: true, deletes: true, prev_kv: false, progress_notify: true, fragment: false };
            self.watchers.create(self.stream, 0, watching, &self.keyspace)
        }

        fn put(&mut self, key: &str, value: usize) {
            let mut change = self.keyspace.change();
            change.put(Bytes::from(key.to_owned()), Bytes::from(vec![0; value]), 0);
            let changed = change.finish();
            self.watchers.note(self.keyspace.revision(), &changed.events);
        }

        fn pull(&mut self) -> Pulled {
            self.watchers.pull(self.stream, &self.keyspace)
        }

        /// Everything there is to tell: watch, first and last revision of each batch.
        fn pull_all(&mut self) -> Vec<(i64, i64, i64)> {
            let mut batches = Vec::new();
            loop {
                match self.pull() {
                    Pulled::Batch { watch_id, events, .. } => {
                        let revision = |event: Option<&Event>| event.unwrap().kv.mod_revision;
                        batches.push((watch_id, revision(events.first()), revision(events.last())));
                    }
                    Pulled::NotYet => {}
                    Pulled::Idle => return batches,
                    Pulled::Compacted { .. } => panic!("nothing was compacted"),
                }
            }
        }

        fn was_woken(&self) -> bool {
            let mut woken = std::pin::pin!(self.wake.notified());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            woken.as_mut().poll(&mut context).is_ready()
        }
    }

    fn one(key: &str) -> KeyRange {
        KeyRange::new(key.into(), vec![])
    }

    fn all() -> KeyRange {
        KeyRange::new(vec![0], vec![0])
    }

    #[test]
    fn only_who_is_concerned_is_woken() {
        let mut story = Story::new(Limits::default());
        story.watch(one("a"), 2).unwrap();
        story.watch(KeyRange::new("b".into(), "c".into()), 2).unwrap();
        story.put("x", 1);
        assert!(!story.was_woken());
        assert_eq!(story.pull(), Pulled::Idle);
        story.put("a", 1);
        assert!(story.was_woken());
        story.put("b1", 1);
        assert_eq!(story.pull_all(), [(0, 3, 3), (1, 4, 4)]);
    }

    #[test]
    fn history_comes_first_and_a_future_start_waits() {
        let mut story = Story::new(Limits::default());
        story.put("a", 1); // 2
        story.put("a", 1); // 3
        story.watch(all(), 2).unwrap();
        story.watch(all(), 5).unwrap();
        assert_eq!(story.pull_all(), [(0, 2, 3)]);
        story.put("a", 1); // 4
        assert_eq!(story.pull_all(), [(0, 4, 4)]);
        story.put("a", 1); // 5
        assert_eq!(story.pull_all(), [(0, 5, 5), (1, 5, 5)]);
    }

    #[test]
    fn a_batch_ends_at_a_size_and_watchers_take_turns() {
        let mut story = Story::new(Limits::default());
        story.watch(all(), 2).unwrap();
        story.watch(all(), 2).unwrap();
        for _ in 0..4 {
            story.put("a", BATCH_BYTES / 2);
        }
        assert_eq!(story.pull_all(), [(0, 2, 3), (1, 2, 3), (0, 4, 5), (1, 4, 5)]);
    }

    #[test]
    fn looking_through_history_that_does_not_matter_is_done_in_steps() {
        let mut story = Story::new(Limits::default());
        for _ in 0..SCANNED_REVISIONS_MAX + 10 {
            story.put("x", 1);
        }
        story.put("a", 1);
        story.watch(one("a"), 2).unwrap();
        assert_eq!(story.pull(), Pulled::NotYet);
        let last = story.keyspace.revision();
        assert_eq!(story.pull_all(), [(0, last, last)]);
    }

    #[test]
    fn who_falls_behind_history_is_cancelled_and_who_is_idle_is_not() {
        let mut story = Story::new(Limits { revisions: 10, ..Limits::default() });
        story.watch(one("a"), 2).unwrap();
        story.watch(one("idle"), 2).unwrap();
        story.put("a", 1);
        for _ in 0..100 {
            story.put("x", 1);
        }
        let watchable = story.keyspace.watchable();
        assert_eq!(story.pull(), Pulled::Compacted { watch_id: 0, revision: watchable });
        assert_eq!(story.pull_all(), []);
        assert!(!story.watchers.cancel(story.stream, 0), "it is gone");
        story.put("idle", 1);
        assert_eq!(story.pull_all().len(), 1);
    }

    #[test]
    fn a_stream_owes_what_it_has_not_told_up_to_a_revision() {
        let mut story = Story::new(Limits::default());
        story.watch(all(), 2).unwrap();
        story.put("a", 1); // 2
        assert!(!story.watchers.owes(story.stream, 1));
        assert!(story.watchers.owes(story.stream, 2));
        assert!(story.watchers.due_progress(story.stream).is_empty(), "it has something else to say first");
        story.pull_all();
        assert!(!story.watchers.owes(story.stream, 2));
        assert!(story.watchers.due_progress(story.stream).is_empty(), "it just said something");
        assert_eq!(story.watchers.due_progress(story.stream), [0]);
    }

    #[test]
    fn nothing_is_left_of_a_watch_that_ended() {
        let mut story = Story::new(Limits::default());
        story.watch(one("a"), 2).unwrap();
        story.watch(one("a"), 2).unwrap();
        story.watch(all(), 2).unwrap();
        assert_eq!(story.watch(KeyRange::new("b".into(), "a".into()), 2), Err(WatchFault::EmptyRange));
        story.put("a", 1);
        assert!(story.watchers.cancel(story.stream, 0));
        assert_eq!(story.pull_all(), [(1, 2, 2), (2, 2, 2)]);
        story.watchers.close(story.stream);
        story.put("a", 1);
        assert_eq!(story.pull(), Pulled::Idle);
        let watchers = &story.watchers;
        assert!(watchers.streams.is_empty() && watchers.by_key.is_empty() && watchers.spans.is_empty());
    }
}
