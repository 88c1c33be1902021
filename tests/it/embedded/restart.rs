//! What the next process finds: after an orderly stop, after the plug was pulled, and after `kill -9`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use etcd_client::{Client, GetOptions, LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions, WatchOptions};
use pointsman::embedded::{OpenError, Options, Registry};

use super::{Embedded, block_on, client};

#[test]
fn an_orderly_stop_keeps_the_revision_exactly_and_needs_no_relist() {
    let dir = tempfile::tempdir().unwrap();
    let first = Embedded::kept_in(dir.path());
    let (before, identity) = block_on(async {
        let mut client = client(&first.url).await;
        client.lease_grant(600, Some(LeaseGrantOptions::new().with_id(7))).await.unwrap();
        client.put("leased", "x", Some(PutOptions::new().with_lease(7))).await.unwrap();
        client.put("a", "1", None).await.unwrap();
        client.put("a", "2", None).await.unwrap();
        client.put("gone", "1", None).await.unwrap();
        client.delete("gone", None).await.unwrap();
        (everything(&mut client).await, identity(&mut client).await)
    });
    first.stop();

    let second = Embedded::kept_in(dir.path());
    block_on(async {
        let mut client = client(&second.url).await;
        assert_eq!(everything(&mut client).await, before);
        let (cluster, member, term) = identity;
        assert_eq!(self::identity(&mut client).await, (cluster, member, term + 1));
        let lease = client.lease_time_to_live(7, Some(LeaseTimeToLiveOptions::new().with_keys())).await.unwrap();
        assert_eq!(lease.keys(), [b"leased".to_vec()]);
        assert!(lease.ttl() > 590, "a lease begins anew, as nobody could renew it: {lease:?}");
        // A watch goes on where the last one ended.
        let options = WatchOptions::new().with_all_keys().with_start_revision(before.0 + 1);
        let mut watch = client.watch("", Some(options)).await.unwrap();
        assert!(watch.message().await.unwrap().unwrap().created());
        client.put("a", "3", None).await.unwrap();
        let told = watch.message().await.unwrap().unwrap();
        assert_eq!(told.events()[0].kv().unwrap().version(), 3);
        assert_eq!(told.events()[0].kv().unwrap().mod_revision(), before.0 + 1);
    });
}

#[test]
fn after_the_plug_was_pulled_revisions_go_on_above_all_that_were_seen() {
    let dir = tempfile::tempdir().unwrap();
    let first = Embedded::kept_in(dir.path());
    let before = block_on(async {
        let mut client = client(&first.url).await;
        for n in 0..20 {
            client.put(format!("k{n}"), "1", None).await.unwrap();
        }
        everything(&mut client).await
    });
    drop(first);

    let second = Embedded::kept_in(dir.path());
    block_on(async {
        let mut client = client(&second.url).await;
        let after = everything(&mut client).await;
        assert_eq!(after.1, before.1, "every put that was answered is there, as it was");
        assert!(after.0 > before.0, "{} is not above {}", after.0, before.0);
        // Who watched before must list again.
        let options = WatchOptions::new().with_all_keys().with_start_revision(before.0 + 1);
        let mut watch = client.watch("", Some(options)).await.unwrap();
        assert!(watch.message().await.unwrap().unwrap().created());
        let told = watch.message().await.unwrap().unwrap();
        assert!(told.canceled());
        assert_eq!(told.compact_revision(), after.0 + 1);
        // And can then watch from what the list said.
        let options = WatchOptions::new().with_all_keys().with_start_revision(after.0 + 1);
        let mut watch = client.watch("", Some(options)).await.unwrap();
        assert!(watch.message().await.unwrap().unwrap().created());
        client.put("a", "1", None).await.unwrap();
        assert_eq!(watch.message().await.unwrap().unwrap().events().len(), 1);
    });
}

#[test]
fn what_was_answered_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::restart::a_registry_to_be_killed", "--nocapture"])
        .env(DIRECTORY_TO_SERVE, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut printed = BufReader::new(process.stdout.take().unwrap()).lines();
    let url = printed.find_map(|line| line.unwrap().strip_prefix("serving ").map(str::to_owned)).unwrap();
    let answered = block_on(async {
        let client = client(&url).await;
        // Several at once, so that it is killed in the middle of something.
        let writers = (0..8).map(|writer| {
            let mut client = client.clone();
            tokio::spawn(async move {
                let mut answered = 0;
                while let Ok(answer) = client.put(format!("w{writer}"), answered.to_string(), None).await {
                    answered = answer.header().unwrap().revision();
                }
                answered
            })
        });
        let writers: Vec<_> = writers.collect();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        process.kill().unwrap();
        let mut answered = Vec::new();
        for writer in writers {
            answered.push(writer.await.unwrap());
        }
        answered
    });
    process.wait().unwrap();

    let second = Embedded::kept_in(dir.path());
    block_on(async {
        let mut client = client(&second.url).await;
        let (revision, kvs) = everything(&mut client).await;
        for (writer, answered) in answered.into_iter().enumerate() {
            let key = format!("w{writer}").into_bytes();
            let kept = kvs.iter().find(|kv| kv.0 == key).map_or(0, |kv| kv.3);
            assert!(answered > 1 && kept >= answered, "{writer}: revision {answered} was answered, {kept} was kept");
            assert!(revision > answered);
        }
    });
}

/// Not a story: the process of `what_was_answered_survives_kill_9`. Without its variable it has nothing to do.
#[test]
fn a_registry_to_be_killed() {
    let Ok(dir) = std::env::var(DIRECTORY_TO_SERVE) else { return };
    let registry = Embedded::kept_in(dir.as_ref());
    println!("\nserving {}", registry.url);
    loop {
        std::thread::park();
    }
}

#[test]
fn a_file_in_use_is_named_and_said_to_be_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Embedded::kept_in(dir.path());
    let options = Options { data: Some(dir.path().into()), ..Options::default() };
    let Err(refused) = Registry::open(options) else { panic!("two registries opened one file") };
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused:?}");
    let told = refused.to_string();
    assert!(told.contains("registry.redb is in use by another process"), "{told}");
}

#[test]
fn a_file_that_is_no_registry_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("registry.redb"), "not a registry").unwrap();
    let Err(refused) = Registry::open(Options { data: Some(dir.path().into()), ..Options::default() }) else {
        panic!("it opened what is no registry")
    };
    let told = refused.to_string();
    assert!(told.contains("registry.redb cannot be read") && told.contains("move it away"), "{told}");
}

#[test]
fn in_memory_every_process_is_another_cluster() {
    block_on(async {
        let (first, second) = (Embedded::in_memory(), Embedded::in_memory());
        let first = identity(&mut client(&first.url).await).await;
        let second = identity(&mut client(&second.url).await).await;
        assert_ne!(first.0, second.0);
        assert!(first.0 != 0 && first.1 != 0 && first.2 != 0);
    });
}

/// Key, value, version and mod revision of everything, and the revision.
async fn everything(client: &mut Client) -> (i64, Vec<(Vec<u8>, Vec<u8>, i64, i64)>) {
    let answer = client.get("", Some(GetOptions::new().with_all_keys())).await.unwrap();
    let kvs = answer.kvs().iter();
    let kvs = kvs.map(|kv| (kv.key().to_vec(), kv.value().to_vec(), kv.version(), kv.mod_revision())).collect();
    (answer.header().unwrap().revision(), kvs)
}

async fn identity(client: &mut Client) -> (u64, u64, u64) {
    let answer = client.get("none", None).await.unwrap();
    let header = answer.header().unwrap();
    (header.cluster_id(), header.member_id(), header.raft_term())
}

const DIRECTORY_TO_SERVE: &str = "POINTSMAN_STORY_DIRECTORY";
