//! The map that etcd's answers are compared with: what comes out is what has changed, and nothing else.
//!
//! No socket, no clock: `apply` takes one watch response, a `Listing` takes a list page by page, and both come to one
//! `Applied`.
//!
//! What holds:
//! - `revision` is the last one whose effects are all in the map; edits at or below it change nothing (duplicates after a
//!   fail-over), so no key ever goes back in time while one registry lives.
//! - A rejected record leaves the last good value in the map and in force; a DELETE always removes.
//! - Nothing is ever cleared to be filled again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::applied::{Applied, Warning};
use super::departures::{Departures, LeaseId};
use super::layout::{Kind, Layout};
use super::merge::{Comparison, Differing, Listing};
use super::record::{self, Readable, Rejected};
use crate::config::{AddressGuard, Said};
use crate::model::{Change, Departure};

pub struct Reflector {
    layout: Layout,
    guard: Arc<AddressGuard>,
    pub(super) entries: Entries,
    revision: u64,
    /// Keys edited since a comparison began; what it says about them is out of date.
    touched: Option<BTreeSet<Bytes>>,
    /// One key that does not fit a source's pattern was named.
    has_named_stray: bool,
}

/// Sorted as etcd sorts, so that pages can be merged with it. Keys include the prefix.
pub(super) type Entries = BTreeMap<Bytes, Entry>;
pub type Bytes = Arc<[u8]>;

/// One key-value as etcd holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub key: Bytes,
    pub value: Bytes,
    /// Of its last modification.
    pub revision: u64,
    /// What it stands under; unknown, so `None`, of what comes from the disk.
    pub lease: Option<LeaseId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    Put(Record),
    Delete { key: Bytes, revision: u64 },
}

pub(super) struct Entry {
    /// etcd's last modification, good or not.
    pub seen: u64,
    pub lease: Option<LeaseId>,
    /// What is in force. Its revision is below `seen` while the record is rejected.
    pub good: Option<Good>,
}

pub(super) struct Good {
    pub revision: u64,
    pub value: Bytes,
}

impl Reflector {
    pub fn new(layout: Layout, guard: Arc<AddressGuard>) -> Self {
        Self { layout, guard, entries: Entries::new(), revision: 0, touched: None, has_named_stray: false }
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The last good values, in the order of their keys.
    pub fn in_force(&self) -> impl Iterator<Item = Record> + '_ {
        self.entries.iter().filter_map(|(key, entry)| {
            let good = entry.good.as_ref()?;
            Some(Record { key: key.clone(), value: good.value.clone(), revision: good.revision, lease: entry.lease })
        })
    }

    /// One watch response: whole revisions, in order.
    pub fn apply(&mut self, edits: impl IntoIterator<Item = Edit>) -> Applied {
        let applied_before = self.revision;
        let (mut applied, mut departures) = (Applied::default(), Departures::default());
        for edit in edits {
            let (key, revision) = match &edit {
                Edit::Put(record) => (&record.key, record.revision),
                Edit::Delete { key, revision } => (key, *revision),
            };
            if revision <= applied_before {
                continue;
            }
            self.revision = self.revision.max(revision);
            if let Some(touched) = &mut self.touched {
                touched.insert(key.clone());
            }
            match edit {
                Edit::Put(record) => {
                    applied.n_puts += 1;
                    departures.put(revision);
                    self.put(record, &mut applied);
                }
                Edit::Delete { key, .. } => {
                    applied.n_deletes += 1;
                    let (lease, change) = (self.entries.get(&key).map(|entry| entry.lease), applied.changes.len());
                    self.delete(&key, revision, Departure::Deleted, &mut applied);
                    if let Some(lease) = lease {
                        departures.deleted(revision, lease, (applied.changes.len() > change).then_some(change));
                    }
                }
            }
        }
        applied.doubts = departures.doubts();
        applied
    }

    /// etcd says, on this very watch, that it has told us everything up to here.
    pub fn progressed(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    /// The list was complete at `revision`. That may lie below ours: then the registry went back, and so do we.
    pub fn conclude(&mut self, listing: Listing, revision: u64) -> Applied {
        let (puts, gone) = listing.finish(&self.entries);
        let mut applied = Applied::default();
        for key in gone {
            self.delete(&key, revision, Departure::Unlisted, &mut applied);
        }
        for record in puts {
            self.put(record, &mut applied);
        }
        self.revision = revision;
        self.touched = None;
        applied.revision = Some(revision);
        applied
    }

    /// Begins to compare keys and revisions while the watch goes on.
    pub fn begin_comparison(&mut self) -> Comparison {
        self.touched = Some(BTreeSet::new());
        Comparison::default()
    }

    /// The keys that differ and were not edited meanwhile.
    pub fn end_comparison(&mut self, comparison: Comparison) -> Differing {
        let mut differing = comparison.finish(&self.entries);
        let touched = self.touched.take().unwrap_or_default();
        differing.retain(|key, _| !touched.contains(key));
        differing
    }

    fn put(&mut self, record: Record, applied: &mut Applied) {
        let Record { key, value, revision, lease } = record;
        let read = match self.layout.kind(&key) {
            Kind::Foreign => return,
            Kind::Stray => {
                self.name_stray(&key, revision, applied);
                return;
            }
            Kind::Meta => {
                applied.reached(revision);
                applied.meta = Some(value);
                return;
            }
            Kind::Malformed(error) => Err(error.to_string()),
            Kind::Record(name) => {
                if self.confirmed(&key, &value, (revision, lease), applied) {
                    return;
                }
                self.layout.read(name, &value).and_then(|read| self.guarded(read))
            }
        };
        applied.reached(revision);
        let shown = || String::from_utf8_lossy(&key).into_owned();
        match read {
            Ok(Readable { change, warning }) => {
                applied.changes.push(change);
                applied.warnings.extend(warning.map(|message| Warning { key: shown(), revision, message }));
                if self.entries.get(&key).is_some_and(Entry::is_rejected) {
                    applied.cleared.push(shown());
                }
                self.entries.insert(key, Entry { seen: revision, lease, good: Some(Good { revision, value }) });
            }
            Err(reason) => {
                let shown = shown();
                let entry = self.entries.entry(key).or_insert(Entry { seen: 0, lease: None, good: None });
                (entry.seen, entry.lease) = (revision, lease);
                let keeping = entry.good.as_ref().map(|good| good.revision);
                applied.rejected.push(Rejected { key: shown, revision, reason, keeping });
            }
        }
    }

    /// Refuses an instance at an address that the registry may not name.
    fn guarded(&self, read: Readable) -> Result<Readable, String> {
        if let Change::Instance { spec, .. } = &read.change {
            self.guard.judge_declared(spec).inspect_err(|_| self.guard.count(Said::Record))?;
        }
        Ok(read)
    }

    /// Such keys are common, and no mistake; but if the pattern is one, this is the only trace of it.
    fn name_stray(&mut self, key: &[u8], revision: u64, applied: &mut Applied) {
        if std::mem::replace(&mut self.has_named_stray, true) {
            return;
        }
        let (key, layout) = (String::from_utf8_lossy(key).into_owned(), &self.layout);
        let message = format!("does not fit {layout} and is passed over; further ones are not named");
        applied.warnings.push(Warning { key, revision, message });
    }

    /// The value in force was put again, as it is.
    fn confirmed(
        &mut self,
        key: &Bytes,
        value: &Bytes,
        (revision, lease): (u64, Option<LeaseId>),
        applied: &mut Applied,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(key) else { return false };
        let was_rejected = entry.is_rejected();
        let Some(good) = entry.good.as_mut().filter(|good| good.value == *value) else { return false };
        good.revision = revision;
        (entry.seen, entry.lease) = (revision, lease);
        applied.reached(revision);
        if was_rejected {
            applied.cleared.push(String::from_utf8_lossy(key).into_owned());
        }
        true
    }

    fn delete(&mut self, key: &Bytes, revision: u64, departure: Departure, applied: &mut Applied) {
        let kind = self.layout.kind(key);
        if !matches!(kind, Kind::Foreign | Kind::Stray) {
            applied.reached(revision);
        }
        let Some(entry) = self.entries.remove(key) else { return };
        if entry.is_rejected() {
            applied.cleared.push(String::from_utf8_lossy(key).into_owned());
        }
        if let (Kind::Record(name), true) = (kind, entry.good.is_some()) {
            applied.changes.extend(record::removal(name, departure));
        }
    }
}

impl Entry {
    pub fn is_rejected(&self) -> bool {
        self.good.as_ref().is_none_or(|good| good.revision != self.seen)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::config::KeyPattern;
    use crate::model::{Event, Origin};
    use crate::registry::key::Prefix;

    const PREFIX: &str = "/p";

    fn own() -> Reflector {
        Reflector::new(Layout::Own(Prefix::new(PREFIX)), Arc::default())
    }

    fn bytes(text: &str) -> Bytes {
        text.as_bytes().into()
    }

    fn record(key: &str, value: &str, revision: u64) -> Record {
        Record { key: bytes(&format!("{PREFIX}{key}")), value: bytes(value), revision, lease: None }
    }

    fn put(key: &str, value: &str, revision: u64) -> Edit {
        Edit::Put(record(key, value, revision))
    }

    fn delete(key: &str, revision: u64) -> Edit {
        Edit::Delete { key: bytes(&format!("{PREFIX}{key}")), revision }
    }

    /// Lists in pages of two.
    fn list(reflector: &mut Reflector, records: &[Record], revision: u64) -> Applied {
        let mut listing = Listing::default();
        records.chunks(2).for_each(|page| listing.page(reflector, page.to_vec()));
        reflector.conclude(listing, revision)
    }

    fn event(applied: &mut Applied) -> (u64, Vec<String>) {
        let event = applied.take_event(Origin::Registry).expect("an event");
        (event.revision, event.changes.iter().map(shown).collect())
    }

    fn shown(change: &Change) -> String {
        match change {
            Change::Instance { service, id, spec } => format!("{service}/{id}={}", spec.address),
            Change::InstanceGone { service, id, departure } => format!("{service}/{id} {departure:?}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_relist_is_a_difference() {
        let mut reflector = own();
        let a = record("/instances/s/a", "10.0.0.1:1", 3);
        let b = record("/instances/s/b", "10.0.0.2:1", 4);
        let c = record("/instances/s/c", "10.0.0.3:1", 5);
        let first = event(&mut list(&mut reflector, &[a.clone(), b.clone(), c.clone()], 9));
        assert_eq!(first, (9, vec!["s/a=10.0.0.1:1".into(), "s/b=10.0.0.2:1".into(), "s/c=10.0.0.3:1".into()]));

        assert_eq!(event(&mut list(&mut reflector, &[a, b, c], 10)), (10, vec![]), "nothing changed, nothing is said");

        // The registry was wiped and filled again: smaller revisions, one value the same, one other, one gone.
        let a = record("/instances/s/a", "10.0.0.1:1", 2);
        let b = record("/instances/s/b", "10.0.0.9:1", 4);
        let wiped = event(&mut list(&mut reflector, &[a, b], 5));
        assert_eq!(wiped, (5, vec!["s/c Unlisted".into(), "s/b=10.0.0.9:1".into()]));
        assert_eq!(reflector.revision(), 5);
        assert_eq!(event(&mut reflector.apply([delete("/instances/s/a", 6)])), (6, vec!["s/a Deleted".into()]));
    }

    #[test]
    fn a_bad_record_is_rejected_alone_and_the_last_good_value_stays() {
        let mut reflector = own();
        reflector.apply([put("/instances/s/a", "10.0.0.1:1", 2)]);
        let mut applied = reflector.apply([put("/instances/s/a", "nonsense", 3), put("/instances/s/b", "10.0.0.2:1", 3)]);
        assert_eq!(event(&mut applied), (3, vec!["s/b=10.0.0.2:1".into()]));
        let rejected = &applied.rejected[0];
        assert_eq!((rejected.key.as_str(), rejected.revision, rejected.keeping), ("/p/instances/s/a", 3, Some(2)));
        assert_eq!(reflector.in_force().count(), 2);

        let mut applied = reflector.apply([put("/instances/s/a", "10.0.0.1:1", 4)]);
        assert_eq!(applied.cleared, ["/p/instances/s/a"]);
        assert_eq!(event(&mut applied), (4, vec![]), "the value in force was right all along");

        reflector.apply([put("/instances/s/a", "nonsense", 5)]);
        let mut applied = reflector.apply([delete("/instances/s/a", 6)]);
        assert_eq!(applied.cleared, ["/p/instances/s/a"]);
        assert_eq!(event(&mut applied), (6, vec!["s/a Deleted".into()]), "a DELETE always removes");

        let mut applied = reflector.apply([put("/instances/s", "10.0.0.1:1", 7)]);
        assert_eq!((event(&mut applied), applied.rejected[0].keeping), ((7, vec![]), None));
        assert_eq!(event(&mut reflector.apply([delete("/instances/s", 8)])), (8, vec![]), "it never was in force");
    }

    #[test]
    fn what_proxies_write_about_themselves_makes_no_event() {
        let mut reflector = own();
        let mut applied = reflector.apply([put("/proxies/p1", "{}", 5), delete("/proxies/p2", 6), put("/future/x", "", 7)]);
        assert!(applied.take_event(Origin::Registry).is_none());
        assert_eq!(reflector.revision(), 7, "yet the watch resumes behind them");
        assert_eq!(reflector.len(), 0);
    }

    #[test]
    fn a_source_is_a_reflector_like_ours_with_other_keys_and_values() {
        let keys = KeyPattern::parse("/p/{service}/{instance}").unwrap();
        let own = Prefix::new("/own");
        let mut reflector = Reflector::new(Layout::Source { number: 0, keys, own }, Arc::default());
        let a = record("/s/a", "10.0.0.1:1 weight=5", 3);
        let b = record("/s/b", r#"{"Op":0,"Addr":"10.0.0.2:1"}"#, 4);
        let bad = record("/s/c", r#"{"IP":"10.0.0.2"}"#, 5);
        let unnamed = record("/s/d!", "10.0.0.4:1", 6);
        let setting = record("/subdomain", "shop", 7);
        let mut listed = list(&mut reflector, &[a, b, bad, unnamed, setting], 9);
        assert_eq!(event(&mut listed), (9, vec!["s/a=10.0.0.1:1".into(), "s/b=10.0.0.2:1".into()]));
        let rejected: Vec<String> = listed.rejected.iter().map(ToString::to_string).collect();
        assert!(rejected.len() == 2 && rejected[0].starts_with("/p/s/c (revision 5): no form of an instance"), "{rejected:?}");
        assert!(rejected[1].starts_with("/p/s/d! (revision 6): the instance in the key: the name has '!'"), "{rejected:?}");
        assert_eq!(listed.warnings.len(), 1, "{:?}", listed.warnings);
        assert_eq!(
            listed.warnings[0].message,
            "does not fit /p/{service}/{instance} and is passed over; further ones are not named"
        );

        let mut applied = reflector.apply([put("/subdomain", "shops", 10), put("/s/e/f", "10.0.0.1:1", 11)]);
        assert!(applied.warnings.is_empty() && applied.take_event(Origin::Source(0)).is_none());
        let mut applied = reflector.apply([delete("/s/a", 12), delete("/s/d!", 12), put("/s/b", "nonsense", 12)]);
        assert_eq!((event(&mut applied), applied.cleared), ((12, vec!["s/a Deleted".into()]), vec!["/p/s/d!".to_owned()]));
        assert_eq!(applied.rejected[0].keeping, Some(4));

        let mut comparison = reflector.begin_comparison();
        let there = [("/s/b", 12), ("/s/c", 5), ("/s/e/f", 11), ("/subdomain", 10)];
        comparison.page(&reflector, there.map(|(key, revision)| record(key, "", revision)).to_vec());
        assert!(reflector.end_comparison(comparison).is_empty(), "what is passed over is not missing");
    }

    #[test]
    fn a_comparison_finds_what_the_watch_lost_and_forgives_what_it_just_brought() {
        let mut reflector = own();
        for (n, id) in ["a", "b", "c", "d"].into_iter().enumerate() {
            reflector.apply([put(&format!("/instances/s/{id}"), "10.0.0.1:1", n as u64 + 2)]);
        }
        let mut comparison = reflector.begin_comparison();
        reflector.apply([delete("/instances/s/d", 9)]);
        // etcd at revision 8: a as we know it, b with an edit we never saw, no c, d not yet deleted, e unknown to us.
        let key = |id: &str, revision| record(&format!("/instances/s/{id}"), "", revision);
        comparison.page(&reflector, vec![key("a", 2), key("b", 7)]);
        comparison.page(&reflector, vec![key("d", 5), key("e", 6), record("/proxies/p1", "", 8)]);
        let differing = reflector.end_comparison(comparison);
        let shown: Vec<_> = differing.iter().map(|(key, it)| (key[key.len() - 1], it.ours, it.listed)).collect();
        assert_eq!(shown, [(b'b', Some(3), Some(7)), (b'c', Some(4), None), (b'e', None, Some(6))]);
    }

    /// What a catalog makes of the events.
    fn follow(map: &mut BTreeMap<String, String>, event: Option<Event>) {
        for change in event.into_iter().flat_map(|event| event.changes) {
            match change {
                Change::Instance { service, id, spec } => {
                    map.insert(format!("{service}/{id}"), spec.address.to_string());
                }
                Change::InstanceGone { service, id, .. } => {
                    assert!(map.remove(&format!("{service}/{id}")).is_some(), "{id} left but never came");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Happening {
        /// One transaction: each key once.
        Write(BTreeMap<u8, Option<u8>>),
        /// The watch delivers up to this many revisions, as one response.
        Deliver(usize),
        /// After a fail-over: some of what was delivered comes again.
        DeliverAgain(usize),
        Relist,
        /// All data is lost; revisions start again. Noticed by a relist.
        Wipe,
    }

    fn happenings() -> impl Strategy<Value = Vec<Happening>> {
        let write = prop::collection::btree_map(0u8..6, prop::option::of(0u8..9), 1..4).prop_map(Happening::Write);
        let happening = prop_oneof![
            6 => write,
            4 => (0usize..4).prop_map(Happening::Deliver),
            2 => (1usize..6).prop_map(Happening::DeliverAgain),
            1 => Just(Happening::Relist),
            1 => Just(Happening::Wipe),
        ];
        prop::collection::vec(happening, 1..60)
    }

    proptest! {
        /// Values of 8 are bad: at the end such a key must hold nothing, or some good value.
        #[test]
        fn whatever_happens_the_map_ends_as_etcd_has_it(happenings in happenings()) {
            let value = |n: u8| if n == 8 { "bad".to_owned() } else { format!("10.0.0.{n}:80") };
            let name = |key: u8| format!("/instances/s/k{key}");
            let mut etcd: BTreeMap<u8, (u8, u64)> = BTreeMap::new();
            let mut history: Vec<Vec<Edit>> = Vec::new();
            let (mut revision, mut delivered) = (1u64, 0usize);
            let mut reflector = own();
            let mut map = BTreeMap::new();

            let listed = |etcd: &BTreeMap<u8, (u8, u64)>| -> Vec<Record> {
                etcd.iter().map(|(key, (n, revision))| record(&name(*key), &value(*n), *revision)).collect()
            };
            for happening in happenings.into_iter().chain([Happening::Deliver(usize::MAX)]) {
                match happening {
                    Happening::Write(edits) => {
                        revision += 1;
                        let edits = edits.into_iter().filter_map(|(key, n)| match n {
                            Some(n) => {
                                etcd.insert(key, (n, revision));
                                Some(put(&name(key), &value(n), revision))
                            }
                            None => etcd.remove(&key).map(|_| delete(&name(key), revision)),
                        });
                        history.push(edits.collect());
                    }
                    Happening::Deliver(n) => {
                        let upto = delivered.max(history.len().min(delivered.saturating_add(n)));
                        let edits = history[delivered..upto].concat();
                        delivered = upto;
                        follow(&mut map, reflector.apply(edits).take_event(Origin::Registry));
                    }
                    Happening::DeliverAgain(n) => {
                        let edits = history[delivered.saturating_sub(n)..delivered].concat();
                        let before = map.clone();
                        follow(&mut map, reflector.apply(edits).take_event(Origin::Registry));
                        prop_assert_eq!(&before, &map);
                    }
                    Happening::Relist | Happening::Wipe => {
                        if matches!(happening, Happening::Wipe) {
                            etcd.clear();
                            history.clear();
                            revision = 1;
                        }
                        follow(&mut map, list(&mut reflector, &listed(&etcd), revision).take_event(Origin::Registry));
                        delivered = history.len();
                    }
                }
            }
            for (key, (n, _)) in &etcd {
                let ours = map.remove(&format!("s/k{key}"));
                prop_assert!(if *n == 8 { ours != Some(value(8)) } else { ours == Some(value(*n)) }, "k{key}: {ours:?}");
            }
            prop_assert!(map.is_empty(), "left over: {map:?}");
        }
    }
}
