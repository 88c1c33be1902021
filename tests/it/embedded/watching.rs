//! Watchers are told at once, in order, completely; one that does not read harms itself only.

use std::time::{Duration, Instant};

use etcd_client::{Client, Event, LeaseGrantOptions, PutOptions, WatchOptions, WatchStream};
use pointsman::embedded::{Limits, Options};
use tokio::time::timeout;

use super::{Embedded, block_on, client};

#[test]
fn a_put_reaches_a_watcher_at_once() {
    let registry = Embedded::in_memory();
    block_on(async {
        let mut watcher = client(&registry.url).await;
        let mut watch = watch_all(&mut watcher, 0).await;
        let mut writer = client(&registry.url).await;
        let mut delays = Vec::new();
        for n in 0..200 {
            let start = Instant::now();
            let (put, told) = tokio::join!(writer.put("k", n.to_string(), None), next_events(&mut watch));
            delays.push(start.elapsed());
            put.unwrap();
            assert_eq!(told[0].kv().unwrap().value(), n.to_string().as_bytes());
        }
        delays.sort();
        println!("put to event: median {:?}, worst {:?}", delays[100], delays[199]);
        // No figure, which a busy machine would decide: an event that waited for a timer would be far beyond this.
        assert!(delays[100] < Duration::from_millis(50), "the median is {:?}", delays[100]);
    });
}

#[test]
fn a_watcher_that_does_not_read_holds_up_nobody_and_misses_nothing() {
    let registry = Embedded::in_memory();
    block_on(async {
        let (mut slow, mut fast, mut writer) =
            (client(&registry.url).await, client(&registry.url).await, client(&registry.url).await);
        let mut slow = watch_all(&mut slow, 0).await;
        let mut fast = watch_all(&mut fast, 0).await;
        // 20 MB, far more than the queue and the windows of a connection hold.
        for n in 0..N_LARGE {
            writer.put(format!("k{n}"), vec![0; LARGE], None).await.unwrap();
            let told = timeout(Duration::from_secs(5), next_events(&mut fast)).await.expect("the fast one to be told");
            assert_eq!(told.len(), 1);
        }
        let mut seen = Vec::new();
        while seen.len() < N_LARGE {
            let told = timeout(Duration::from_secs(5), next_events(&mut slow)).await.expect("the slow one to catch up");
            seen.extend(told.iter().map(|event| event.kv().unwrap().mod_revision()));
        }
        let expected: Vec<i64> = (2..2 + N_LARGE as i64).collect();
        assert_eq!(seen, expected);
    });
}

#[test]
fn a_watcher_that_falls_behind_history_is_told_so() {
    let limits = Limits { revisions: 50, ..Limits::default() };
    let registry = Embedded::open(Options { limits, ..Options::default() });
    block_on(async {
        let mut slow = client(&registry.url).await;
        let mut slow = watch_all(&mut slow, 0).await;
        let mut writer = client(&registry.url).await;
        for n in 0..N_LARGE {
            writer.put(format!("k{n}"), vec![0; LARGE], None).await.unwrap();
        }
        let mut last = 1;
        let cancelled = loop {
            let told = timeout(Duration::from_secs(5), slow.message()).await.expect("an answer").unwrap().unwrap();
            if told.canceled() {
                break told;
            }
            for event in told.events() {
                let revision = event.kv().unwrap().mod_revision();
                assert_eq!(revision, last + 1, "nothing is left out before the cancel");
                last = revision;
            }
        };
        assert!(cancelled.compact_revision() > last + 1, "{cancelled:?} after {last}");
    });
}

#[test]
fn a_long_history_comes_in_messages_any_client_takes() {
    let registry = Embedded::in_memory();
    block_on(async {
        let mut client = client(&registry.url).await;
        for n in 0..N_LARGE {
            client.put(format!("k{n}"), vec![0; LARGE], None).await.unwrap();
        }
        // 20 MB through a client that refuses messages of more than 4 MiB.
        let mut watch = watch_all(&mut client, 1).await;
        let mut n_seen = 0;
        while n_seen < N_LARGE {
            n_seen += timeout(Duration::from_secs(5), next_events(&mut watch)).await.expect("more events").len();
        }
        assert_eq!(n_seen, N_LARGE);
    });
}

#[test]
fn a_progress_answer_comes_after_everything_it_speaks_of() {
    let registry = Embedded::in_memory();
    block_on(async {
        let mut client = client(&registry.url).await;
        let mut watch = watch_all(&mut client, 0).await;
        for round in 0..50 {
            client.put("k", vec![0; LARGE], None).await.unwrap();
            watch.request_progress().await.unwrap();
            let event = watch.message().await.unwrap().unwrap();
            assert_eq!(event.events().len(), 1, "in round {round}: {event:?}");
            let progress = watch.message().await.unwrap().unwrap();
            assert_eq!(progress.watch_id(), -1);
            assert_eq!(progress.header().unwrap().revision(), event.events()[0].kv().unwrap().mod_revision());
        }
    });
}

#[test]
fn a_quiet_watch_is_told_the_revision_when_it_asked_for_that() {
    let registry = Embedded::open(Options { progress_every: Duration::from_millis(100), ..Options::default() });
    block_on(async {
        let mut client = client(&registry.url).await;
        let options = WatchOptions::new().with_progress_notify();
        let mut watch = client.watch("quiet", Some(options)).await.unwrap();
        assert!(watch.message().await.unwrap().unwrap().created());
        let put = client.put("elsewhere", "1", None).await.unwrap();
        let revision = put.header().unwrap().revision();
        let told_revision = async {
            loop {
                let told = watch.message().await.unwrap().unwrap();
                assert!(told.events().is_empty() && told.watch_id() == 0, "{told:?}");
                if told.header().unwrap().revision() == revision {
                    break;
                }
            }
        };
        timeout(Duration::from_secs(5), told_revision).await.expect("a progress notification");
    });
}

#[test]
fn keys_vanish_when_their_lease_is_not_renewed() {
    let registry = Embedded::in_memory();
    block_on(async {
        let mut client = client(&registry.url).await;
        let mut watch = watch_all(&mut client, 0).await;
        client.lease_grant(1, Some(LeaseGrantOptions::new().with_id(7))).await.unwrap();
        let granted = Instant::now();
        for key in ["b", "a"] {
            client.put(key, "1", Some(PutOptions::new().with_lease(7))).await.unwrap();
            next_events(&mut watch).await;
        }
        let told = timeout(Duration::from_secs(10), next_events(&mut watch)).await.expect("the lease to end");
        let keys: Vec<&[u8]> = told.iter().map(|event| event.kv().unwrap().key()).collect();
        assert_eq!(keys, [b"a", b"b"], "both at once, in order");
        assert!(granted.elapsed() >= Duration::from_secs(2), "two seconds is the shortest lease");
        assert!(client.put("a", "1", Some(PutOptions::new().with_lease(7))).await.is_err());
    });
}

#[test]
fn an_orderly_stop_ends_watches_instead_of_waiting_for_them() {
    let registry = Embedded::in_memory();
    block_on(async {
        let mut client = client(&registry.url).await;
        let mut watch = watch_all(&mut client, 0).await;
        let start = Instant::now();
        let stopped = tokio::task::spawn_blocking(move || registry.stop());
        let told = timeout(Duration::from_secs(5), watch.message()).await.expect("the watch to end");
        assert!(told.is_err_and(|error| error.to_string().contains("etcdserver: server stopped")));
        stopped.await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    });
}

async fn watch_all(client: &mut Client, from: i64) -> WatchStream {
    let options = WatchOptions::new().with_all_keys().with_start_revision(from);
    let mut watch = client.watch("", Some(options)).await.unwrap();
    assert!(watch.message().await.unwrap().unwrap().created());
    watch
}

async fn next_events(watch: &mut WatchStream) -> Vec<Event> {
    watch.message().await.unwrap().unwrap().events().to_vec()
}

const N_LARGE: usize = 400;
const LARGE: usize = 50_000;
