//! Walking our map and etcd's keys side by side, page by page, in the order both have.
//!
//! A `Listing` finds what a list would change, by value: revisions of a registry that was restored say nothing about ours.
//! A `Comparison` only looks at keys and revisions, to find what a watch has lost. Neither changes the map.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::reflector::{Bytes, Entries, Entry, Record, Reflector};

/// A list under way: only what differs is held, so a relist of a registry that did not change holds nothing.
#[derive(Default)]
pub struct Listing {
    cursor: Cursor,
    puts: Vec<Record>,
    gone: Vec<Bytes>,
}

/// Keys and revisions of etcd beside ours.
#[derive(Default)]
pub struct Comparison {
    cursor: Cursor,
    differing: Differing,
}

/// The keys where etcd and we do not agree.
pub type Differing = BTreeMap<Bytes, Disagreement>;

/// Two revisions of one key; `None` where it is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disagreement {
    pub ours: Option<u64>,
    pub listed: Option<u64>,
}

impl Listing {
    /// Takes the next page; pages come in order and do not overlap.
    pub fn page(&mut self, reflector: &Reflector, records: Vec<Record>) {
        for record in records {
            let gone = &mut self.gone;
            let ours = self.cursor.advance(&reflector.entries, &record.key, |key, _| gone.push(key.clone()));
            let is_same = ours.is_some_and(|entry| {
                !entry.is_rejected()
                    && (entry.seen, entry.lease) == (record.revision, record.lease)
                    && entry.good.as_ref().is_some_and(|good| good.value == record.value)
            });
            if !is_same {
                self.puts.push(record);
            }
        }
    }

    /// What was listed and differs, and what was not listed.
    pub(super) fn finish(mut self, entries: &Entries) -> (Vec<Record>, Vec<Bytes>) {
        self.gone.extend(self.cursor.rest(entries).map(|(key, _)| key.clone()));
        (self.puts, self.gone)
    }
}

impl Comparison {
    /// Takes the next page of keys with their revisions.
    pub fn page(&mut self, reflector: &Reflector, records: Vec<Record>) {
        for Record { key, revision, .. } in records {
            let differing = &mut self.differing;
            let ours = self.cursor.advance(&reflector.entries, &key, |key, entry| {
                differing.insert(key.clone(), Disagreement { ours: Some(entry.seen), listed: None });
            });
            let is_same = match ours {
                Some(entry) => entry.seen == revision,
                None => !reflector.layout().kind(&key).is_kept(),
            };
            if !is_same {
                let disagreement = Disagreement { ours: ours.map(|entry| entry.seen), listed: Some(revision) };
                self.differing.insert(key, disagreement);
            }
        }
    }

    pub(super) fn finish(mut self, entries: &Entries) -> Differing {
        let rest = self.cursor.rest(entries);
        self.differing.extend(rest.map(|(key, entry)| (key.clone(), Disagreement { ours: Some(entry.seen), listed: None })));
        self.differing
    }
}

/// How far the walk has come.
#[derive(Default)]
struct Cursor(Option<Bytes>);

impl Cursor {
    /// Steps to `key`: shows every key of ours that was passed on the way, and gives what we have there.
    fn advance<'a>(&mut self, entries: &'a Entries, key: &Bytes, mut passed: impl FnMut(&Bytes, &Entry)) -> Option<&'a Entry> {
        if self.0.as_ref().is_some_and(|last| last >= key) {
            // Out of order: no etcd does that, and it must not hurt.
            return entries.get(key);
        }
        let mut here = None;
        for (ours, entry) in self.ahead(entries, Bound::Included(key)) {
            if ours == key {
                here = Some(entry);
            } else {
                passed(ours, entry);
            }
        }
        self.0 = Some(key.clone());
        here
    }

    fn rest<'a>(&self, entries: &'a Entries) -> impl Iterator<Item = (&'a Bytes, &'a Entry)> {
        self.ahead(entries, Bound::Unbounded)
    }

    fn ahead<'a>(&self, entries: &'a Entries, to: Bound<&Bytes>) -> impl Iterator<Item = (&'a Bytes, &'a Entry)> {
        let from = self.0.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        entries.range::<Bytes, _>((from, to))
    }
}
