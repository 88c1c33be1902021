//! The same random operations against a real etcd and against ours: every answer, every error, every event must be equal.
//!
//! Both begin at revision 1 and see the same writes, so revisions are compared as they are; of headers only the cluster
//! is left out. What etcd leaves to chance is not compared: how events are cut into messages, the order of equal
//! elements in a long sort, and the fraction of a second a lease has left.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use etcd_client::{
    Client, CompactionOptions, Compare, CompareOp, DeleteOptions, Error, GetOptions, LeaseGrantOptions, LeaseKeepAliveResponse,
    LeaseTimeToLiveOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp, WatchFilterType, WatchOptions, WatchRequestSender,
    WatchResponse, WatchResponseStream,
};
use fastrand::Rng;

use super::{Embedded, block_on, client};
use crate::world::etcd::Etcd;

#[test]
fn the_same_operations_get_the_same_answers_as_from_etcd() {
    let seeds: Vec<u64> = match std::env::var("POINTSMAN_SEED") {
        Ok(seed) => vec![seed.parse().expect("POINTSMAN_SEED is a number")],
        // `./test --soak` looks further; a run that decides whether a change lands must not depend on the dice.
        Err(_) if std::env::var_os("POINTSMAN_SOAK_SECONDS").is_some() => (0..20).map(|_| fastrand::u64(..)).collect(),
        Err(_) => vec![1, 2],
    };
    for seed in seeds {
        println!("POINTSMAN_SEED={seed}");
        block_on(compare(seed, OPERATIONS));
    }
}

#[test]
fn what_is_too_large_is_refused_in_the_same_words() {
    let (etcd, ours) = (Etcd::start(), Embedded::in_memory());
    block_on(async {
        let (mut etcd, mut ours) = (client(&etcd.url()).await, client(&ours.url).await);
        let mut refused = Vec::new();
        for kib in [1400, 1600] {
            let value = vec![b'x'; kib << 10];
            let txn = Txn::new().and_then([TxnOp::put("b", value.clone(), None)]);
            let etcd = (told(etcd.put("a", value.clone(), None).await), told(etcd.txn(txn.clone()).await));
            let ours = (told(ours.put("a", value, None).await), told(ours.txn(txn).await));
            assert_eq!(etcd, ours, "left is etcd; {kib} KiB");
            refused.push(ours.0.contains("etcdserver: request is too large"));
        }
        assert_eq!(refused, [false, true]);
    });
}

async fn compare(seed: u64, n_operations: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (etcd, ours) = (Etcd::start(), Embedded::kept_in(dir.path()));
    let mut both = [Side::connect(&etcd.url()).await, Side::connect(&ours.url).await];
    let mut dice = Dice { rng: Rng::with_seed(seed), revision: 1, compacted: 0 };
    let mut last_watch = Instant::now();
    for step in 0..n_operations {
        let operation = dice.operation();
        match operation {
            Operation::Watch(..) => last_watch = Instant::now(),
            // A watch that etcd has not caught up yet would be cancelled or not by chance.
            Operation::Compact(_) => tokio::time::sleep(ETCD_CATCHES_UP.saturating_sub(last_watch.elapsed())).await,
            _ => {}
        }
        if operation.must_follow_quiet() {
            same_events(&both, seed, step).await;
        }
        if operation.watch_id().is_some_and(|id| both[0].was_compacted(id)) {
            continue;
        }
        let mut answers = Vec::new();
        for side in &mut both {
            answers.push(side.run(&operation).await);
        }
        assert_eq!(answers[0], answers[1], "left is etcd; seed {seed}, step {step}: {operation:?}");
        dice.learn(&answers[0]);
        if let Operation::Compact(revision) = operation
            && answers[0].starts_with("CompactionResponse")
        {
            dice.compacted = revision;
        }
        if operation.must_lead_to_quiet() {
            same_events(&both, seed, step).await;
        }
    }
    same_events(&both, seed, n_operations).await;
    let n_events: usize = both[0].seen.lock().unwrap().values().map(|seen| seen.len()).sum();
    assert!(n_events > n_operations / 10, "watches saw only {n_events} events: the story is too quiet to show anything");
}

/// One of the two registries, and what it told.
struct Side {
    client: Client,
    watch: WatchRequestSender,
    /// By watch id, everything told in order; events one by one.
    seen: Arc<Mutex<Seen>>,
}

#[derive(Clone, Debug)]
enum Operation {
    Get(Vec<u8>, GetOptions),
    Put(Vec<u8>, Vec<u8>, PutOptions),
    Delete(Vec<u8>, DeleteOptions),
    Txn(Txn),
    Compact(i64),
    Grant { id: i64, ttl_s: i64 },
    Revoke(i64),
    TimeToLive(i64),
    Leases,
    Renew(i64),
    Watch(Vec<u8>, WatchOptions, Option<i64>),
    CancelWatch(i64),
}

impl Operation {
    /// etcd reads what was there before an event when it sends it; a compaction in between would change that.
    fn must_follow_quiet(&self) -> bool {
        matches!(self, Self::Compact(_) | Self::Watch(..) | Self::CancelWatch(_))
    }

    /// What follows must find the watch there, or gone, on both sides.
    fn must_lead_to_quiet(&self) -> bool {
        matches!(self, Self::Watch(..) | Self::CancelWatch(_))
    }

    fn watch_id(&self) -> Option<i64> {
        match self {
            Self::CancelWatch(id) => Some(*id),
            Self::Watch(_, _, id) => *id,
            _ => None,
        }
    }
}

impl Side {
    async fn connect(url: &str) -> Self {
        let mut client = client(url).await;
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let options = WatchOptions::new().with_start_revision(1 << 40).with_watch_id(FIRST_WATCH);
        let (watch, told) = client.watch("none", Some(options)).await.unwrap().split();
        tokio::spawn(collect(told, seen.clone()));
        Self { client, watch, seen }
    }

    async fn run(&mut self, operation: &Operation) -> String {
        let client = &mut self.client;
        match operation.clone() {
            Operation::Get(key, options) => told(client.get(key, Some(options)).await),
            Operation::Put(key, value, options) => told(client.put(key, value, Some(options)).await),
            Operation::Delete(key, options) => told(client.delete(key, Some(options)).await),
            Operation::Txn(txn) => told(client.txn(txn).await),
            Operation::Compact(revision) => told(client.compact(revision, Some(CompactionOptions::new().with_physical())).await),
            Operation::Grant { id, ttl_s } => told(client.lease_grant(ttl_s, Some(LeaseGrantOptions::new().with_id(id))).await),
            Operation::Revoke(id) => told(client.lease_revoke(id).await),
            Operation::TimeToLive(id) => {
                let answer = client.lease_time_to_live(id, Some(LeaseTimeToLiveOptions::new().with_keys())).await;
                told(answer.map(|answer| {
                    let mut keys = answer.keys().to_vec();
                    keys.sort();
                    let used = answer.granted_ttl() - answer.ttl();
                    (revision(answer.header()), answer.id(), answer.granted_ttl(), used <= 30, keys)
                }))
            }
            Operation::Leases => told(client.leases().await.map(|answer| {
                let mut ids: Vec<i64> = answer.leases().iter().map(|lease| lease.id()).collect();
                ids.sort();
                (revision(answer.header()), ids)
            })),
            Operation::Renew(id) => told(renew(client, id).await),
            Operation::Watch(key, options, id) => {
                let options = id.map_or(options.clone(), |id| options.with_watch_id(id));
                told(self.watch.watch(key, Some(options)).await)
            }
            Operation::CancelWatch(id) => told(self.watch.cancel(id).await),
        }
    }

    /// etcd 3.4 holds such an id for taken until the client cancels it too; with us it is free again.
    fn was_compacted(&self, id: i64) -> bool {
        let seen = self.seen.lock().unwrap();
        let last = seen.get(&id).and_then(|told| told.iter().rfind(|told| told.starts_with(STATE)));
        last.is_some_and(|told| told.contains("canceled true") && !told.contains("compact_revision 0"))
    }
}

async fn renew(client: &mut Client, id: i64) -> Result<Option<LeaseKeepAliveResponse>, Error> {
    let (mut keeper, mut answers) = client.lease_keep_alive(id).await?;
    keeper.keep_alive().await?;
    answers.message().await
}

/// Everything an answer says but who said it.
fn told<T: Debug>(answer: Result<T, Error>) -> String {
    match answer {
        Ok(answer) => without_identity(&format!("{answer:?}")),
        Err(Error::GRpcStatus(status)) => format!("{:?} {:?}", status.code(), status.message()),
        Err(error) => format!("{error:?}"),
    }
}

fn revision(header: Option<&etcd_client::ResponseHeader>) -> Option<i64> {
    header.map(|header| header.revision())
}

/// Leaves `cluster_id`, `member_id` and `raft_term` out of a printed message.
fn without_identity(printed: &str) -> String {
    let mut rest = printed;
    let mut kept = String::new();
    while let Some(at) = rest.find("cluster_id: ") {
        kept.push_str(&rest[..at]);
        let revision = &rest[at..][rest[at..].find("revision: ").unwrap()..];
        let end = revision.find(',').unwrap();
        kept.push_str(&revision[..end]);
        rest = &revision[revision.find(" }").unwrap()..];
    }
    kept + rest
}

async fn collect(mut answers: WatchResponseStream, seen: Arc<Mutex<Seen>>) {
    while let Ok(Some(answer)) = answers.message().await {
        let mut seen = seen.lock().unwrap();
        let seen = seen.entry(answer.watch_id()).or_default();
        if answer.created() || answer.canceled() {
            seen.push(state_of(&answer));
        }
        seen.extend(answer.events().iter().map(|event| format!("{event:?}")));
    }
}

fn state_of(answer: &WatchResponse) -> String {
    format!(
        "{STATE} created {} canceled {} compact_revision {} reason {:?} revision {:?}",
        answer.created(),
        answer.canceled(),
        answer.compact_revision(),
        answer.cancel_reason(),
        revision(answer.header()),
    )
}

async fn same_events(both: &[Side; 2], seed: u64, step: usize) {
    let same = || *both[0].seen.lock().unwrap() == *both[1].seen.lock().unwrap();
    // A watch is only there once both have said so; give a request time to arrive.
    tokio::time::sleep(Duration::from_millis(2)).await;
    let deadline = Instant::now() + Duration::from_secs(5);
    while !same() {
        if Instant::now() > deadline {
            let difference = first_difference(&both[0].seen.lock().unwrap(), &both[1].seen.lock().unwrap());
            panic!("seed {seed}, before step {step}: {difference}");
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

type Seen = BTreeMap<i64, Vec<String>>;

fn first_difference(etcd: &Seen, ours: &Seen) -> String {
    for id in etcd.keys().chain(ours.keys()) {
        let told = |seen: &Seen, nth: usize| seen.get(id).and_then(|told| told.get(nth)).cloned();
        let mut nth = 0;
        while told(etcd, nth) == told(ours, nth) && told(etcd, nth).is_some() {
            nth += 1;
        }
        let (etcd, ours) = (told(etcd, nth), told(ours, nth));
        if etcd != ours {
            return format!("watch {id} was told as number {nth}\n by etcd {etcd:?}\n by us   {ours:?}");
        }
    }
    "they became equal just now".into()
}

/// Draws operations so that they often meet: few keys, few leases, revisions around those there are.
struct Dice {
    rng: Rng,
    /// The newest revision either side spoke of.
    revision: i64,
    compacted: i64,
}

impl Dice {
    fn operation(&mut self) -> Operation {
        match self.rng.u32(0..100) {
            0..30 => Operation::Put(self.key(), self.value(), self.lone_put_options()),
            30..50 => Operation::Get(self.key(), self.get_options()),
            50..60 => Operation::Delete(self.key(), self.delete_options()),
            60..78 => Operation::Txn(self.txn(0)),
            78..81 => Operation::Grant { id: self.rng.i64(1..6), ttl_s: self.ttl() },
            81..84 => Operation::Revoke(self.rng.i64(1..6)),
            84..87 => Operation::TimeToLive(self.rng.i64(1..6)),
            87 => Operation::Leases,
            88..90 => Operation::Renew(self.rng.i64(1..6)),
            90..92 => Operation::Compact(self.some_revision()),
            92..98 => self.watch(),
            _ => Operation::CancelWatch(self.watch_id()),
        }
    }

    fn learn(&mut self, answer: &str) {
        let spoken = answer.split("revision: ").skip(1);
        let revisions = spoken.filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
        self.revision = revisions.fold(self.revision, i64::max);
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.rng.u32(0..n) == 0
    }

    fn key(&mut self) -> Vec<u8> {
        if self.one_in(40) {
            return Vec::new();
        }
        let second = *self.rng.choice(["", "0", "1", "2"].iter()).unwrap();
        format!("{}{second}", self.rng.char('a'..='d')).into_bytes()
    }

    fn value(&mut self) -> Vec<u8> {
        match self.rng.u32(0..20) {
            0 => Vec::new(),
            1 => vec![0xff; self.rng.usize(1..6)],
            _ => format!("v{}", self.rng.u32(0..5)).into_bytes(),
        }
    }

    fn ttl(&mut self) -> i64 {
        *self.rng.choice([1000, 2000, 9_000_000_000, 9_000_000_001].iter()).unwrap()
    }

    /// Around those there are, sometimes beyond.
    fn some_revision(&mut self) -> i64 {
        (self.revision - self.rng.i64(-2..30)).max(0)
    }

    fn put_options(&mut self) -> PutOptions {
        let mut options = PutOptions::new();
        if self.one_in(4) {
            options = options.with_lease(self.rng.i64(1..6));
        }
        if self.one_in(3) {
            options = options.with_prev_key();
        }
        options
    }

    /// In a transaction after a delete of the same key these make etcd 3.4.23 end with a panic, so they come alone.
    fn lone_put_options(&mut self) -> PutOptions {
        let mut options = self.put_options();
        if self.one_in(10) {
            options = options.with_ignore_value();
        }
        if self.one_in(10) {
            options = options.with_ignore_lease();
        }
        options
    }

    fn get_options(&mut self) -> GetOptions {
        let mut options = match self.rng.u32(0..6) {
            0 => GetOptions::new(),
            1 => GetOptions::new().with_from_key(),
            2 => GetOptions::new().with_prefix(),
            3 => GetOptions::new().with_all_keys(),
            _ => GetOptions::new().with_range(self.key()),
        };
        if self.one_in(3) {
            options = options.with_limit(self.rng.i64(-1..6));
        }
        if self.one_in(3) {
            options = options.with_revision(self.some_revision());
        }
        if self.one_in(4) {
            options = options.with_keys_only();
        }
        if self.one_in(6) {
            options = options.with_count_only();
        }
        if self.one_in(4) {
            options = options.with_serializable();
        }
        if self.one_in(3) {
            // One transaction gives several keys the same revision, so only keys are all different. (`tied` has the others.)
            options = options.with_sort(SortTarget::Key, self.order());
        } else if self.one_in(5) {
            options = self.tied(options);
        }
        for bound in 0..4 {
            if self.one_in(8) {
                let revision = self.some_revision();
                options = match bound {
                    0 => options.with_min_mod_revision(revision),
                    1 => options.with_max_mod_revision(revision),
                    2 => options.with_min_create_revision(revision),
                    _ => options.with_max_create_revision(revision),
                };
            }
        }
        options
    }

    /// Elements that compare equal keep their order in etcd while there are at most twelve.
    fn tied(&mut self, options: GetOptions) -> GetOptions {
        let target =
            *self.rng.choice([SortTarget::Version, SortTarget::Create, SortTarget::Mod, SortTarget::Value].iter()).unwrap();
        options.with_range("c0").with_sort(target, self.order())
    }

    fn order(&mut self) -> SortOrder {
        *self.rng.choice([SortOrder::None, SortOrder::Ascend, SortOrder::Descend].iter()).unwrap()
    }

    fn delete_options(&mut self) -> DeleteOptions {
        let mut options = match self.rng.u32(0..12) {
            0..8 => DeleteOptions::new(),
            8 => DeleteOptions::new().with_from_key(),
            9 => DeleteOptions::new().with_prefix(),
            _ => DeleteOptions::new().with_range(self.key()),
        };
        if self.one_in(3) {
            options = options.with_prev_key();
        }
        options
    }

    fn txn(&mut self, depth: u32) -> Txn {
        let compares: Vec<Compare> = (0..self.rng.usize(0..3)).map(|_| self.compare()).collect();
        Txn::new().when(compares).and_then(self.ops(depth)).or_else(self.ops(depth))
    }

    fn ops(&mut self, depth: u32) -> Vec<TxnOp> {
        let n = if self.one_in(40) { self.rng.usize(126..131) } else { self.rng.usize(0..4) };
        (0..n)
            .map(|_| match self.rng.u32(0..10) {
                0..4 => TxnOp::put(self.key(), self.value(), Some(self.put_options())),
                4..7 => TxnOp::get(self.key(), Some(self.get_options())),
                7 | 8 => TxnOp::delete(self.key(), Some(self.delete_options())),
                _ if depth < 3 => TxnOp::txn(self.txn(depth + 1)),
                _ => TxnOp::get(self.key(), None),
            })
            .collect()
    }

    fn compare(&mut self) -> Compare {
        let compare_op =
            *self.rng.choice([CompareOp::Equal, CompareOp::Greater, CompareOp::Less, CompareOp::NotEqual].iter()).unwrap();
        let key = self.key();
        let compare = match self.rng.u32(0..5) {
            0 => Compare::version(key, compare_op, self.rng.i64(0..3)),
            1 => Compare::create_revision(key, compare_op, self.some_revision()),
            2 => Compare::mod_revision(key, compare_op, self.some_revision()),
            3 => Compare::value(key, compare_op, self.value()),
            _ => Compare::lease(key, compare_op, self.rng.i64(0..6)),
        };
        match self.rng.u32(0..6) {
            0 => compare.with_prefix(),
            1 => compare.with_range(self.key()),
            _ => compare,
        }
    }

    fn watch(&mut self) -> Operation {
        let mut options = match self.rng.u32(0..5) {
            0 => WatchOptions::new(),
            1 => WatchOptions::new().with_from_key(),
            2 => WatchOptions::new().with_all_keys(),
            3 => WatchOptions::new().with_prefix(),
            _ => WatchOptions::new().with_range(self.key()),
        };
        if self.one_in(2) {
            // etcd 3.4.23 forgets a DELETE at the very revision of a compaction (its issues 18089 and 19179); ours tells it,
            // as the newer ones do.
            let start = Some(self.some_revision()).filter(|start| *start != self.compacted);
            options = options.with_start_revision(start.unwrap_or(self.compacted + 1));
        }
        if self.one_in(3) {
            options = options.with_prev_key();
        }
        if self.one_in(4) {
            options = options.with_progress_notify();
        }
        if self.one_in(4) {
            options = options.with_fragment();
        }
        if self.one_in(4) {
            let filter = if self.rng.bool() { WatchFilterType::NoPut } else { WatchFilterType::NoDelete };
            options = options.with_filters([filter]);
        }
        // Not one of those the registry counts up to: whether they are free depends on `was_compacted`.
        let id = self.one_in(3).then(|| self.rng.i64(CHOSEN_WATCH..FIRST_WATCH));
        Operation::Watch(self.key(), options, id)
    }

    /// One the client chose, or one it left to the registry, which counts from 0.
    fn watch_id(&mut self) -> i64 {
        if self.rng.bool() { self.rng.i64(0..OPERATIONS as i64 / 50) } else { self.rng.i64(CHOSEN_WATCH..FIRST_WATCH) }
    }
}

/// Enough for every kind to meet every other, in a few seconds each.
const OPERATIONS: usize = 1500;
/// It does so every 100 ms.
const ETCD_CATCHES_UP: Duration = Duration::from_millis(300);
/// How a watch's own story is told among its events.
const STATE: &str = "state:";
/// Ids clients choose, from here up to the one of the watch that opens the stream.
const CHOSEN_WATCH: i64 = 990;
const FIRST_WATCH: i64 = 1000;
