//! What is written in the registry is what is served, record by record.

use serde_json::Value;

use crate::world::World;

#[test]
fn an_instance_is_served_from_its_record_to_its_deletion() {
    let (world, [one]) = World::serving(["one"]);
    assert_eq!(world.get("/").from(), "one");

    world
        .put("/instances/app/two", &format!(r#"{{"v":1,"address":"{}","weight":50,"zone":"a"}}"#, world.upstream("two").address));
    world.delete("/instances/app/one");
    world.eventually("no connection to the first is left", || one.connections() == 0);
    let requests = one.requests();
    assert_eq!(
        (world.get("/").status, one.requests()),
        (502, requests),
        "the second listens no more, and the first is not asked"
    );

    world.delete("/instances/app/two");
    let refused = world.get("/");
    assert_eq!((refused.status, refused.field("retry-after")), (503, "1"));
    assert!(refused.text().contains("no_instances"), "{}", refused.text());
}

#[test]
fn addresses_may_be_ipv6_and_names() {
    let (world, [one]) = World::serving(["one"]);
    let v6 = world.upstream_at("six", "[::1]:0".parse().expect("an address"));
    world.put("/instances/app/one", &v6.address.to_string());
    assert_eq!(world.get("/").from(), "six");

    world.put("/instances/app/one", &format!("localhost:{}", one.address.port()));
    world.settles("the name is looked up", "one".to_owned(), || world.get("/").from().to_owned());
}

#[test]
fn a_bad_record_is_rejected_alone_and_the_value_before_it_stays() {
    let (world, [one, _two]) = World::serving(["one", "two"]);
    world.put("/services/app", r#"{"balance":"round_robin"}"#);
    let bad = world.put("/instances/app/one", r#"{"address":"127.0.0.1:1","weight":70000}"#);
    let also_bad = world.put("/services/app", r#"{"balance":"fastest"}"#);
    let tally = world.get_many("/", 10);
    assert_eq!((tally.from("one"), tally.from("two"), tally.failed.len()), (5, 5, 0));

    let rejected = world.status()["registry"]["rejected"].clone();
    let of = |key: &str| rejected.as_array().and_then(|all| all.iter().find(|r| r["key"] == key)).cloned().unwrap_or(Value::Null);
    let instance = of("/pointsman/instances/app/one");
    assert_eq!(instance["revision"], bad, "{rejected}");
    assert!(
        instance["reason"].as_str().is_some_and(|r| r.contains("weight") && r.contains("70000") && r.contains("65535")),
        "{rejected}"
    );
    assert_eq!(of("/pointsman/services/app")["revision"], also_bad, "{rejected}");
    assert_eq!(world.metric("pointsman_registry_rejected_records", &[]), Some(2.0));

    world.put("/instances/app/one", &one.address.to_string());
    world.put("/services/app", r#"{"balance":"random"}"#);
    assert_eq!(world.status()["registry"]["rejected"], serde_json::json!([]));
}

#[test]
fn an_unknown_field_is_only_odd() {
    let (world, [one]) = World::serving(["one"]);
    world.put("/instances/app/one", &format!(r#"{{"address":"{}","flavour":"mint"}}"#, one.address));
    assert_eq!(world.get("/").from(), "one");
    assert_eq!(world.status()["registry"]["rejected"], serde_json::json!([]));
}

#[test]
fn an_override_wins_and_outlives_the_record() {
    let (world, [one, _two]) = World::serving(["one", "two"]);
    world.put("/overrides/app/one", r#"{"weight":0}"#);
    world.delete("/instances/app/one");
    world.put("/instances/app/one", &one.address.to_string());
    assert_eq!(world.get_many("/", 20).from("two"), 20);
    world.delete("/overrides/app/one");
    world.eventually("both are used again", || world.get_many("/", 20).from("one") > 0);
}

/// In each transaction the old instance leaves, the new one comes, and the route names another service.
#[test]
fn a_transaction_of_several_keys_is_one_swap() {
    let world = World::new();
    let [red, blue] = ["red", "blue"].map(|name| world.upstream(name));
    let flip = |come: &crate::world::upstream::Upstream, go: &str| {
        [
            (format!("/instances/{go}/1"), None),
            (format!("/instances/{}/1", come.name), Some(come.address.to_string())),
            ("/routes/all".to_owned(), Some(format!(r#"{{"service":"{}"}}"#, come.name))),
        ]
    };
    world.transact(&flip(&red, "blue"));
    let load = world.load("/");
    for _ in 0..10 {
        world.transact(&flip(&blue, "red"));
        world.transact(&flip(&red, "blue"));
    }
    let tally = load.ends();
    assert!(tally.from("red") > 0 && tally.from("blue") > 0, "{tally:?}");
    tally.all_served(tally.served());
}

#[test]
fn the_file_declares_services_and_routes_of_its_own() {
    let etcd = crate::world::etcd::Etcd::start();
    let nobody = crate::world::ports::free_address();
    let file = format!(
        "[[route]]\npath_prefix = \"/fixed\"\nservice = \"fixed\"\n\n[[service]]\nname = \"fixed\"\ninstances = [\"{nobody}\"]\n"
    );
    let world = World::setup().etcd(etcd).config(&file).start();
    let [_one] = world.serve("app", ["one"]);
    world.put("/routes/fixed", r#"{"path_prefix":"/fixed","service":"app"}"#);
    assert_eq!(world.get("/fixed").status, 502, "the file's route and instance come first");
    assert_eq!(world.get("/").from(), "one");
}
