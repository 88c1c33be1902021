//! What a new process knows from the one before it.

use std::time::Duration;

use crate::world::World;
use crate::world::ports::free_address;

#[test]
fn a_start_without_the_registry_serves_what_was_known_last() {
    let mut world =
        World::setup().config("[registry]\nsnapshot = \"registry.snapshot\"\n[proxy.shutdown]\ngrace = \"0s\"\n").start();
    let [_one, _two] = world.serve("app", ["one", "two"]);
    let revision = world.delete("/instances/app/two");
    world.terminate();
    world.proxy_mut().exits_within(Duration::from_secs(10));
    world.etcd_mut().kill();

    world.start_proxy_again();
    world.is_ready();
    assert_eq!(world.get_many("/", 20).from("one"), 20);
    let registry = world.status()["registry"].clone();
    assert_eq!((&registry["connected"], &registry["source"]), (&false.into(), &"snapshot".into()), "{registry}");
    assert!(registry["applied_revision"].as_i64() >= Some(revision), "{registry}");

    world.etcd_mut().start_again();
    world.settles("the registry takes over", "registry".into(), || world.status()["registry"]["source"].clone());
    world.put("/routes/app", r#"{"path_prefix":"/only","service":"app"}"#);
    assert_eq!((world.get("/only").status, world.get("/").status), (200, 404));
}

#[test]
fn a_start_that_knows_nothing_says_so_and_not_404() {
    let nobody = format!("http://{}", free_address());
    let world = World::setup().endpoints(&[nobody]).unready().start();
    assert_eq!(world.admin_status("/readyz"), Some(503));
    let answer = world.get("/");
    assert_eq!((answer.status, answer.json()["error"].clone()), (503, "registry_unknown".into()));
    assert!(answer.fields.contains_key("retry-after"));
}

#[test]
fn a_torn_snapshot_is_not_believed() {
    let mut world =
        World::setup().config("[registry]\nsnapshot = \"registry.snapshot\"\n[proxy.shutdown]\ngrace = \"0s\"\n").start();
    let [_one] = world.serve("app", ["one"]);
    world.terminate();
    world.proxy_mut().exits_within(Duration::from_secs(10));
    let file = world.folder().join("registry.snapshot");
    let mut bytes = std::fs::read(&file).expect("the snapshot");
    bytes.truncate(bytes.len() / 2);
    std::fs::write(&file, bytes).expect("half of it");

    world.etcd_mut().kill();
    world.start_proxy_again();
    world.eventually("the file is named", || world.proxy.log().contains("registry.snapshot"));
    assert_eq!(world.admin_status("/readyz"), Some(503), "half a map is no map");
    world.etcd_mut().start_again();
    world.is_ready();
    assert_eq!(world.get("/").from(), "one");
}

#[test]
fn the_embedded_registry_remembers_and_its_revisions_go_on() {
    let mut world = World::setup().embedded().start();
    let [_one, two] = world.serve("app", ["one", "two"]);
    let revision = world.delete("/instances/app/two");
    assert_eq!(world.get_many("/", 10).from("one"), 10);
    world.start_proxy_again();
    world.is_ready();
    assert_eq!(world.get_many("/", 10).from("one"), 10);
    assert!(world.put("/instances/app/two", &two.address.to_string()) > revision);
    world.eventually("the change is in force", || world.get_many("/", 10).from("two") > 0);
}
