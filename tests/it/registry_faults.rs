//! Whatever happens to etcd, traffic goes on, and in the end the proxy has the right map.

use std::time::{Duration, Instant};

use crate::world::etcd::Etcd;
use crate::world::forwarder::Forwarder;
use crate::world::{World, transact};

#[test]
fn traffic_goes_on_while_etcd_is_dead() {
    let (mut world, [_one, two]) = World::serving(["one", "two"]);
    world.delete("/instances/app/two");
    world.settles("connected", Some(1.0), || world.metric("pointsman_registry_connected", &[]));
    world.etcd_mut().kill();
    world.settles("the loss is noticed", Some(0.0), || world.metric("pointsman_registry_connected", &[]));
    assert_eq!(world.get_many("/", 50).from("one"), 50);
    assert_eq!(world.admin_status("/readyz"), Some(200), "it knows where to route");
    assert_eq!(world.status()["registry"]["connected"], false);

    world.etcd_mut().start_again();
    world.put("/instances/app/two", &two.address.to_string());
    assert_eq!(world.metric("pointsman_registry_connected", &[]), Some(1.0));
    world.eventually("the new instance is used", || world.get_many("/", 10).from("two") > 0);
}

/// Revisions begin again; a proxy that went on watching from the old one would never see a change.
#[test]
fn an_etcd_that_lost_its_data_is_read_anew_and_nothing_unchanged_notices() {
    let (mut world, [one, _gone]) = World::serving(["one", "gone"]);
    let new = world.upstream("new");
    for n in 0..20 {
        world.put("/instances/other/x", &format!("127.0.0.1:{}", 1 + n));
    }
    let records = [
        ("/routes/app".to_owned(), Some(r#"{"service":"app"}"#.to_owned())),
        ("/instances/app/one".to_owned(), Some(one.address.to_string())),
        ("/instances/app/new".to_owned(), Some(new.address.to_string())),
    ];
    let load = world.load("/");
    let handle = world.handle().clone();
    world.etcd_mut().replace(|url| {
        handle.block_on(transact(url, &records));
    });
    world.eventually("the new instance is used", || new.requests() > 0);
    let tally = load.ends();
    tally.all_served(tally.served());
    world.put("/instances/app/last", &new.address.to_string());
    assert!(world.metric("pointsman_registry_relists_total", &[]).is_some_and(|n| n > 0.0));
}

#[test]
fn a_paused_etcd_is_noticed_and_found_again() {
    let (world, [_one]) = World::serving(["one"]);
    world.settles("connected", Some(1.0), || world.metric("pointsman_registry_connected", &[]));
    world.etcd().pause();
    let paused = Instant::now();
    world.settles("the silence is noticed", Some(0.0), || world.metric("pointsman_registry_connected", &[]));
    let noticed = paused.elapsed();
    assert!(noticed < NOTICED_WITHIN, "noticed after {noticed:?}");
    assert_eq!(world.get("/").from(), "one");
    world.etcd().resume();
    world.settles("connected again", Some(1.0), || world.metric("pointsman_registry_connected", &[]));
}

#[test]
fn a_silent_endpoint_is_left_for_another() {
    let etcd = Etcd::start();
    let relays = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let ways = [(); 2].map(|()| Forwarder::start(relays.handle(), etcd.address()));
    let world = World::setup().etcd(etcd).endpoints(&[ways[0].url(), ways[1].url()]).start();
    let [_one] = world.serve("app", ["one"]);
    let two = world.upstream("two");
    let change = |weight: u32| {
        let record = format!(r#"{{"address":"{}","weight":{weight}}}"#, two.address);
        world.put("/instances/app/two", &record);
    };
    // After this the proxy is at the second for certain, wherever it was before.
    ways[0].go_silent();
    change(1);
    ways[0].speak_again();
    ways[1].go_silent();
    change(2);
    assert!(world.metric("pointsman_registry_relists_total", &[]) <= Some(1.0), "it went on where it was, without a new list");
}

#[test]
fn a_compaction_behind_its_back_is_survived() {
    let (world, [_one]) = World::serving(["one"]);
    world.etcd().pause();
    world.settles("the silence is noticed", Some(0.0), || world.metric("pointsman_registry_connected", &[]));
    world.etcd().resume();
    let two = world.upstream("two");
    for n in 0..50 {
        world.tell(&[("/instances/other/x".to_owned(), Some(format!("127.0.0.1:{}", 1 + n)))]);
    }
    let revision = world.tell(&[("/instances/app/two".to_owned(), Some(two.address.to_string()))]);
    world.compact(revision);
    world.applied(revision);
    world.eventually("the new instance is used", || world.get_many("/", 10).from("two") > 0);
}

/// Promised is three seconds; the rest is for a busy machine.
const NOTICED_WITHIN: Duration = Duration::from_secs(5);
