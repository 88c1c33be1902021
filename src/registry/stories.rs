//! The whole registry room against a real etcd, with everything that can happen to it.

mod lock;
mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use etcd_client::{Client, DeleteOptions, Permission, PermissionType, PutOptions, Txn, TxnOp};
use tokio::time::{Instant, sleep};

use crate::config::{Credentials, EtcdConfig, KeyPattern, Password};
use crate::model::Secret;
use crate::registry::etcd::Etcd;
use crate::registry::explain::is_login_old;
use crate::registry::{Layout, Prefix};

use self::world::{Cluster, Following, Line, PREFIX, config, key, listed};

async fn put(client: &mut Client, name: &str, address: &str) -> u64 {
    client.put(key(name), address, None).await.unwrap().header().unwrap().revision() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_is_followed_and_a_transaction_is_one_event() {
    let etcd = Cluster::start(1).await;
    let mut client = etcd.client().await;
    put(&mut client, "s/a", "10.0.0.1:80").await;
    let following = Following::start(config(&etcd.urls()), None);
    following.status.synced().await;
    following.eventually("the list", |seen, _| seen.has("s/a", "10.0.0.1:80")).await;

    let ops: Vec<TxnOp> = (0..100).map(|n| TxnOp::put(key(&format!("t/{n}")), "10.0.0.2:80", None)).collect();
    client.txn(Txn::new().and_then(ops)).await.unwrap();
    following.eventually("the transaction", |seen, _| seen.map.len() == 101).await;
    assert_eq!(following.look(|seen| seen.events.last().map(|(_, n)| *n)), Some(100));

    let deleted = client.delete(key("t/"), Some(DeleteOptions::new().with_prefix())).await.unwrap();
    let revision = deleted.header().unwrap().revision() as u64;
    following.eventually("the deletes", |seen, status| seen.map.len() == 1 && status.report().revision == revision).await;
    assert!(following.look(|seen| seen.gone.contains(&"t/7 Deleted".to_owned())));

    let report = following.status.report();
    assert!(report.connected && !report.stale, "{report:?}");
    assert_eq!((report.n_puts, report.n_deletes, report.n_keys), (100, 100, 1));
    assert_eq!(following.relists(), BTreeMap::from([("start", 1)]));
    following.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_deleted_is_told_from_what_went_with_its_lease() {
    let etcd = Cluster::start(1).await;
    let mut client = etcd.client().await;
    put(&mut client, "s/free", "10.0.0.1:80").await;
    let mut leases = Vec::new();
    for _ in 0..3 {
        leases.push(client.lease_grant(60, None).await.unwrap().id());
    }
    for (name, lease) in [("s/a", 0), ("s/b", 0), ("s/c", 1), ("t/a", 1), ("t/b", 2)] {
        let options = PutOptions::new().with_lease(leases[lease]);
        client.put(key(name), "10.0.0.1:80", Some(options)).await.unwrap();
    }
    let following = Following::start(config(&etcd.urls()), None);
    following.eventually("the list", |seen, _| seen.map.len() == 6).await;

    client.delete(key("s/free"), None).await.unwrap();
    client.delete(key("s/a"), None).await.unwrap();
    let took = following.eventually("two are gone", |seen, _| seen.map.len() == 4).await;
    assert!(took < Duration::from_millis(400), "one question more, not {took:?}");
    client.lease_revoke(leases[0]).await.unwrap();
    following.eventually("its lease has taken it", |seen, _| seen.map.len() == 3).await;
    // Not even etcd knows these leases once it is asked, but no lease takes what another one holds.
    client.delete(key("t/"), Some(DeleteOptions::new().with_prefix())).await.unwrap();
    client.lease_revoke(leases[1]).await.unwrap();
    client.lease_revoke(leases[2]).await.unwrap();
    following.eventually("all are gone", |seen, _| seen.map.is_empty()).await;
    let gone = following.look(|seen| seen.gone.clone());
    assert_eq!(gone, ["s/free Deleted", "s/a Deleted", "s/b Expired", "t/a Deleted", "t/b Deleted", "s/c Expired"]);
    following.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_many_pages_is_one_event() {
    let etcd = Cluster::start(1).await;
    let mut client = etcd.client().await;
    for page in 0..25 {
        let ops: Vec<TxnOp> = (0..100).map(|n| TxnOp::put(key(&format!("s{page}/{n}")), "10.0.0.1:80", None)).collect();
        client.txn(Txn::new().and_then(ops)).await.unwrap();
    }
    let following = Following::start(config(&etcd.urls()), None);
    following.eventually("all pages", |seen, _| seen.map.len() == 2500).await;
    assert_eq!(following.look(|seen| seen.events[0].1), 2500);
    following.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_record_is_rejected_alone_and_listed() {
    let etcd = Cluster::start(1).await;
    let mut client = etcd.client().await;
    let good = put(&mut client, "orders/a1", "10.0.0.1:80").await;
    let following = Following::start(config(&etcd.urls()), None);
    following.status.synced().await;
    let bad = put(&mut client, "orders/a1", r#"{"address":"10.0.0.1:80","weight":70000}"#).await;
    put(&mut client, "orders/a2", "10.0.0.2:80").await;
    following.eventually("the good one", |seen, _| seen.has("orders/a2", "10.0.0.2:80")).await;
    assert!(following.look(|seen| seen.has("orders/a1", "10.0.0.1:80")));
    let rejected = following.status.report().rejected;
    let said: Vec<String> = rejected.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [format!("{PREFIX}/instances/orders/a1 (revision {bad}): weight: 70000 is not in 0..=65535; keeping revision {good}")]
    );
    put(&mut client, "orders/a1", "10.0.0.3:80").await;
    following
        .eventually("the correction", |seen, status| seen.has("orders/a1", "10.0.0.3:80") && status.report().n_rejected == 0)
        .await;
    following.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_during_an_outage_leads_to_a_difference() {
    let etcd = Cluster::start(1).await;
    let mut client = etcd.client().await;
    for id in ["a", "b", "c"] {
        put(&mut client, &format!("s/{id}"), "10.0.0.1:80").await;
    }
    let line = Line::to(&etcd.url(0)).await;
    let following = Following::start(config(std::slice::from_ref(&line.url)), None);
    following.eventually("the list", |seen, _| seen.map.len() == 3).await;

    line.cut();
    following.eventually("the loss", |_, status| status.report().stale).await;
    assert_eq!(following.look(|seen| seen.map.len()), 3, "what is unreachable is frozen");
    client.delete(key("s/b"), None).await.unwrap();
    let revision = put(&mut client, "s/d", "10.0.0.4:80").await;
    client.compact(revision as i64, None).await.unwrap();
    line.mend();

    following.eventually("the difference", |seen, _| seen.has("s/d", "10.0.0.4:80")).await;
    assert_eq!(following.relists(), BTreeMap::from([("compacted", 1), ("start", 1)]));
    let (gone, last) = following.look(|seen| (seen.gone.clone(), seen.events.last().copied()));
    assert_eq!((gone, last), (vec!["s/b Unlisted".to_owned()], Some((revision, 2))), "a and c were not touched");
    following.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_followed_through_an_outage_as_our_own_prefix_is() {
    let etcd = Cluster::start(1).await;
    let mut client = etcd.client().await;
    for id in ["a", "b", "c"] {
        client.put(format!("/services/s/{id}"), "10.0.0.1:80", None).await.unwrap();
    }
    put(&mut client, "s/own", "10.0.0.1:80").await;
    let keys = KeyPattern::parse("/services/{service}/{instance}").unwrap();
    let layout = Layout::sources(PREFIX, &[keys]).next().unwrap();
    let line = Line::to(&etcd.url(0)).await;
    let following = Following::of(layout, config(std::slice::from_ref(&line.url)), None);
    following.eventually("the list", |seen, _| seen.map.len() == 3).await;

    line.cut();
    following.eventually("the loss", |_, status| status.report().stale).await;
    client.delete("/services/s/b", None).await.unwrap();
    client.put("/services/s/c", r#"{"host":"10.0.0.3","port":80}"#, None).await.unwrap();
    let last = client.put("/services/s/a", "nonsense", None).await.unwrap();
    client.compact(last.header().unwrap().revision(), None).await.unwrap();
    line.mend();

    following.eventually("the difference", |seen, _| seen.has("s/c", "10.0.0.3:80")).await;
    assert_eq!(following.relists(), BTreeMap::from([("compacted", 1), ("start", 1)]));
    assert_eq!(following.look(|seen| seen.gone.clone()), ["s/b Unlisted"]);
    assert!(following.look(|seen| seen.has("s/a", "10.0.0.1:80")), "the last good value is kept");
    assert_eq!(following.status.report().n_rejected, 1);
    following.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_absence_is_caught_up_without_a_list() {
    let etcd = Cluster::start(1).await;
    let mut client = etcd.client().await;
    put(&mut client, "s/a", "10.0.0.1:80").await;
    let line = Line::to(&etcd.url(0)).await;
    let following = Following::start(config(std::slice::from_ref(&line.url)), None);
    following.status.synced().await;
    line.cut();
    following.eventually("the loss", |_, status| !status.is_connected()).await;
    // 8 MiB in one message: more than a gRPC client reads by default.
    let value = format!(r#"{{"address":"10.0.0.1:80","metadata":{{"note":"{}"}}}}"#, "x".repeat(4000));
    for page in 0..20 {
        let ops: Vec<TxnOp> = (0..100).map(|n| TxnOp::put(key(&format!("s{page}/{n}")), value.as_str(), None)).collect();
        client.txn(Txn::new().and_then(ops)).await.unwrap();
    }
    line.mend();
    following.eventually("all of it", |seen, _| seen.map.len() == 2001).await;
    assert_eq!(following.relists(), BTreeMap::from([("start", 1)]));
    following.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_lost_its_data_is_noticed() {
    let mut etcd = Cluster::start(1).await;
    let mut client = etcd.client().await;
    for id in ["a", "b", "c"] {
        put(&mut client, &format!("s/{id}"), "10.0.0.1:80").await;
    }
    let following = Following::start(config(&etcd.urls()), None);
    following.eventually("the list", |seen, _| seen.map.len() == 3).await;

    etcd.stop(0);
    std::fs::remove_dir_all(etcd.data(0)).unwrap();
    etcd.start_again(0).await;
    let mut client = etcd.client().await;
    put(&mut client, "s/b", "10.0.0.1:80").await;
    put(&mut client, "s/d", "10.0.0.4:80").await;

    following.eventually("the new state", |seen, _| seen.map.len() == 2 && seen.has("s/d", "10.0.0.4:80")).await;
    put(&mut client, "s/e", "10.0.0.5:80").await;
    following.eventually("what comes after", |seen, _| seen.has("s/e", "10.0.0.5:80")).await;
    let relists = following.relists();
    assert!(relists.contains_key("backwards") || relists.contains_key("epoch"), "{relists:?}");
    following.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_epoch_is_another_registry() {
    let etcd = Cluster::start(1).await;
    let mut client = etcd.client().await;
    put(&mut client, "s/a", "10.0.0.1:80").await;
    let following = Following::start(config(&etcd.urls()), None);
    following.status.synced().await;
    let meta = client.get(format!("{PREFIX}/meta"), None).await.unwrap();
    let meta: serde_json::Value = serde_json::from_slice(meta.kvs()[0].value()).unwrap();
    assert_eq!((meta["schema"].as_u64(), meta["epoch"].as_str().map(str::len)), (Some(1), Some(36)));

    client.put(format!("{PREFIX}/meta"), r#"{"schema":1,"epoch":"other"}"#, None).await.unwrap();
    following.eventually("the relist", |_, status| status.report().n_relists[3].1 == 1).await;
    put(&mut client, "s/b", "10.0.0.2:80").await;
    following.eventually("what comes after", |seen, _| seen.map.len() == 2).await;
    assert_eq!(following.relists(), BTreeMap::from([("epoch", 1), ("start", 1)]));
    assert_eq!(following.look(|seen| seen.n_epochs), 2, "said once each");
    following.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_to_a_higher_revision_is_found_by_the_comparison() {
    let mut etcd = Cluster::start(1).await;
    let line = Line::to(&etcd.url(0)).await;
    let following = Following::start(config(std::slice::from_ref(&line.url)), None);
    following.status.synced().await;
    let mut client = etcd.client().await;
    put(&mut client, "s/a", "10.0.0.1:80").await;

    let backup = tempfile::tempdir().unwrap();
    etcd.stop(0);
    copy(&etcd.data(0), &backup.path().join("m0"));
    etcd.start_again(0).await;
    let mut client = etcd.client().await;
    client.delete(key("s/a"), None).await.unwrap();
    put(&mut client, "s/b", "10.0.0.2:80").await;
    following.eventually("b", |seen, _| seen.map.len() == 1 && seen.has("s/b", "10.0.0.2:80")).await;

    line.cut();
    etcd.stop(0);
    std::fs::remove_dir_all(etcd.data(0)).unwrap();
    copy(&backup.path().join("m0"), &etcd.data(0));
    etcd.start_again(0).await;
    let mut client = etcd.client().await;
    for _ in 0..9 {
        put(&mut client, "s/c", "10.0.0.3:80").await;
    }
    line.mend();
    following.eventually("the restored state", |seen, _| seen.map.len() == 2 && !seen.map.contains_key("s/b")).await;
    let report = following.status.report();
    assert!(report.n_drifts >= 2, "{report:?}");
    assert_eq!(following.relists().get("drift"), Some(&1));
    following.stop().await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (from, to) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).unwrap();
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_connection_is_noticed_within_three_seconds() {
    let etcd = Cluster::start(1).await;
    let line = Line::to(&etcd.url(0)).await;
    let following = Following::start(config(std::slice::from_ref(&line.url)), None);
    following.status.synced().await;
    sleep(Duration::from_millis(1200)).await;
    line.silence();
    let took = following.eventually("the silence", |_, status| !status.is_connected()).await;
    assert!(took < Duration::from_secs(3), "{took:?}");
    line.mend();
    following.eventually("the return", |_, status| status.is_connected()).await;
    assert_eq!(following.relists(), BTreeMap::from([("start", 1)]));
    following.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_member_is_left_for_another_within_three_seconds() {
    let etcd = Cluster::start(3).await;
    let following = Following::start(config(&etcd.urls()), None);
    following.status.synced().await;
    let connected = following.status.report().endpoint.unwrap();
    let paused = (0..3).find(|n| etcd.url(*n) == connected).unwrap();
    etcd.pause(paused);
    let took = following.eventually("the loss", |_, status| !status.is_connected()).await;
    assert!(took < Duration::from_secs(3), "{took:?}");
    following.eventually("another", |_, status| status.is_connected()).await;
    assert_ne!(following.status.report().endpoint, Some(connected));

    let alive = etcd.url((paused + 1) % 3);
    let mut client = super::connect(&config(&etcd.urls()), &alive).await.unwrap();
    put(&mut client, "s/a", "10.0.0.1:80").await;
    following.eventually("what comes after", |seen, _| seen.has("s/a", "10.0.0.1:80")).await;
    assert_eq!(following.relists(), BTreeMap::from([("start", 1)]), "the watch is resumed, not begun anew");
    etcd.resume(paused);
    following.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_etcd_the_disk_is_what_we_start_from() {
    let mut etcd = Cluster::start(1).await;
    let mut client = etcd.client().await;
    for id in ["a", "b"] {
        put(&mut client, &format!("s/{id}"), "10.0.0.1:80").await;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.snapshot");
    let first = Following::start(config(&etcd.urls()), Some(path.clone()));
    first.eventually("the list", |seen, _| seen.map.len() == 2).await;
    let bad = put(&mut client, "s/b", "nonsense").await;
    first.eventually("the rejection", |_, status| status.report().revision == bad).await;
    first.stop().await;

    etcd.stop(0);
    let began = Instant::now();
    let second = Following::start(config(&etcd.urls()), Some(path));
    second.status.synced().await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    second.eventually("the snapshot", |seen, _| seen.map.len() == 2).await;
    let report = second.status.report();
    assert!(report.stale && report.source == Some(super::Source::Snapshot), "{report:?}");

    etcd.start_again(0).await;
    let mut client = etcd.client().await;
    put(&mut client, "s/c", "10.0.0.3:80").await;
    second.eventually("etcd", |seen, status| seen.map.len() == 3 && !status.report().stale).await;
    assert!(second.look(|seen| seen.gone.is_empty() && seen.has("s/b", "10.0.0.1:80")), "the last good value is kept");
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_only_read_the_prefix_can_follow() {
    let etcd = Cluster::start(1).await;
    let mut root = etcd.client().await;
    put(&mut root, "s/a", "10.0.0.1:80").await;
    root.role_add("reader").await.unwrap();
    let prefix = Permission::new(PermissionType::Read, format!("{PREFIX}/")).with_prefix();
    root.role_grant_permission("reader", prefix).await.unwrap();
    for (user, role) in [("root", "root"), ("proxy", "reader")] {
        root.user_add(user, "secret", None).await.unwrap();
        root.user_grant_role(user, role).await.unwrap();
    }
    root.auth_enable().await.unwrap();

    let stranger = Following::start(config(&etcd.urls()), None);
    stranger.eventually("a reason", |_, status| status.report().trouble.is_some()).await;
    let trouble = stranger.status.report().trouble.unwrap();
    assert!(trouble.contains("this etcd wants registry.user"), "{trouble}");
    stranger.stop().await;

    let credentials = Some(Credentials { user: "proxy".to_owned(), password: Password::Said(Secret::new("secret")) });
    let following = Following::start(EtcdConfig { credentials, ..config(&etcd.urls()) }, None);
    following.eventually("the list", |seen, status| seen.map.len() == 1 && status.is_connected()).await;
    following.stop().await;
}

/// With signed tokens etcd takes none from before the last change of users or roles.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_from_before_a_change_of_roles_is_renewed_on_the_same_connection() {
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "what the tokens are signed with").unwrap();
    let flag = format!("jwt,sign-method=HS256,priv-key={},ttl=1h", key.path().display());
    let etcd = Cluster::start_with(1, vec!["--auth-token".to_owned(), flag]).await;
    let mut root = etcd.client().await;
    root.user_add("root", "secret", None).await.unwrap();
    root.user_grant_role("root", "root").await.unwrap();
    root.auth_enable().await.unwrap();
    let credentials = Some(Credentials { user: "root".to_owned(), password: Password::Said(Secret::new("secret")) });
    let config = EtcdConfig { credentials, ..config(&etcd.urls()) };
    let etcd = Etcd::connect(&config, &etcd.url(0), &Layout::Own(Prefix::new(PREFIX))).await.unwrap();
    let epoch = etcd.identity().await.unwrap().epoch;

    let mut root = super::connect(&config, etcd.endpoint()).await.unwrap();
    root.role_add("another").await.unwrap();
    let refused = root.get("/any", None).await.unwrap_err();
    assert!(is_login_old(&refused), "{refused}");
    etcd.ping().await.unwrap();
    assert!(epoch.is_some() && etcd.identity().await.unwrap().epoch == epoch);
}

/// Random writes while members stop and go on and history is compacted away under us.
#[tokio::test(flavor = "multi_thread")]
async fn after_chaos_the_map_is_what_etcd_has() {
    let etcd = Cluster::start(3).await;
    let following = Following::start(config(&etcd.urls()), None);
    following.status.synced().await;
    let mut random = fastrand::Rng::with_seed(20_251_123);
    let end = Instant::now() + Duration::from_secs(15);
    let (mut paused, mut n_writes) = (None, 0);
    while Instant::now() < end {
        match (random.u8(..100), paused) {
            (0..4, None) => {
                let victim = random.usize(0..3);
                etcd.pause(victim);
                paused = Some((victim, Instant::now() + Duration::from_millis(random.u64(300..4000))));
            }
            (_, Some((victim, until))) if Instant::now() >= until => {
                etcd.resume(victim);
                paused = None;
            }
            _ => {}
        }
        let writer = (0..3).find(|n| paused.is_none_or(|(victim, _)| victim != *n)).unwrap();
        let Ok(mut client) = super::connect(&config(&etcd.urls()), &etcd.url(writer)).await else { continue };
        for _ in 0..random.usize(1..8) {
            let name = key(&format!("s{}/i{}", random.u8(0..5), random.u8(0..30)));
            let address = format!("10.0.{}.{}:80", random.u8(..), random.u8(..));
            let written = match random.u8(..10) {
                0..6 => client.put(name, address, None).await.map(|answer| answer.header().unwrap().revision()),
                6..9 => client.delete(name, None).await.map(|answer| answer.header().unwrap().revision()),
                _ => {
                    let all = DeleteOptions::new().with_prefix();
                    let some = key(&format!("s{}/", random.u8(0..5)));
                    client.delete(some, Some(all)).await.map(|answer| answer.header().unwrap().revision())
                }
            };
            n_writes += 1;
            if let (Ok(revision), 0..5) = (written, random.u8(..100)) {
                let _ = client.compact(revision, None).await;
            }
        }
        sleep(Duration::from_millis(random.u64(0..60))).await;
    }
    if let Some((victim, _)) = paused {
        etcd.resume(victim);
    }
    let mut client = etcd.client().await;
    put(&mut client, "last/one", "10.0.0.1:80").await;
    let expected = listed(&mut client).await;
    following.eventually("the same map", |seen, _| seen.map == expected).await;
    let relists = following.relists();
    // A late answer of a living member once looked like a registry that went back.
    assert!(["backwards", "epoch", "drift"].iter().all(|reason| !relists.contains_key(reason)), "{relists:?}");
    assert!(n_writes > 50 && expected.len() > 5, "{n_writes} writes left {} keys", expected.len());
    following.stop().await;
}
