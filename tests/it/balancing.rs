//! How requests are shared among the instances of a service.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::{Ask, World};

#[test]
fn round_robin_is_exact_and_keeps_to_the_weights() {
    let (world, [_one, _two, three]) = World::serving(["one", "two", "three"]);
    world.put("/services/app", r#"{"balance":"round_robin"}"#);
    let tally = world.get_many("/", 300);
    assert_eq!([tally.from("one"), tally.from("two"), tally.from("three")], [100, 100, 100]);

    world.put("/instances/app/three", &format!(r#"{{"address":"{}","weight":200}}"#, three.address));
    let tally = world.get_many("/", 400);
    assert_eq!([tally.from("one"), tally.from("two"), tally.from("three")], [100, 100, 200]);
}

#[test]
fn every_way_to_pick_honours_weights() {
    let (world, [light, heavy]) = World::serving(["light", "heavy"]);
    let weigh = |upstream: &crate::world::upstream::Upstream, weight: u32| {
        let record = format!(r#"{{"address":"{}","weight":{weight}}}"#, upstream.address);
        world.put(&format!("/instances/app/{}", upstream.name), &record);
    };
    weigh(&light, 50);
    weigh(&heavy, 150);
    // `peak_ewma` does too, as far as instances are equally fast, which nobody can promise on a busy machine.
    for balance in ["p2c", "random", "least_conn", "round_robin"] {
        world.put("/services/app", &format!(r#"{{"balance":"{balance}"}}"#));
        let tally = world.get_many("/", 800);
        // A fair draw of 800 at 1:3 lies outside this once in some ten million runs.
        assert!((135..=265).contains(&tally.from("light")) && tally.failed.is_empty(), "{balance}: {tally:?}");
    }
    weigh(&light, 0);
    assert_eq!(world.get_many("/", 200).from("heavy"), 200, "weight 0 means no new traffic");
    weigh(&heavy, 0);
    assert_eq!(world.get("/").status, 503, "all weights 0 is a refusal, not a crash");
}

#[test]
fn the_busy_instance_is_avoided() {
    for balance in ["p2c", "peak_ewma", "least_conn"] {
        let (world, [one, two]) = World::serving(["one", "two"]);
        world.put("/services/app", &format!(r#"{{"balance":"{balance}"}}"#));
        let waiting = world.begin_many("/held", 2);
        world.settles("each got one", (1, 1), || (one.running(), two.running()));
        one.release();
        let in_flight = || world.metric("pointsman_upstream_in_flight", &[("service", "app"), ("instance", "one")]);
        world.settles("one of them is free, and the proxy knows", Some(0.0), in_flight);
        let tally = world.get_many("/", 100);
        assert_eq!((tally.from("one"), tally.from("two")), (100, 0), "{balance}");
        two.release();
        waiting.ends().all_served(2);
    }
}

/// Where each of these users' requests go.
fn owners(world: &World, n_users: usize) -> Vec<String> {
    let ask = |user| Ask::get("/").with("x-user", &format!("user-{user}"));
    (0..n_users).map(|user| world.get(ask(user)).from().to_owned()).collect()
}

#[test]
fn a_key_goes_to_the_same_instance_through_every_proxy() {
    let (world, upstreams) = World::serving(["a", "b", "c", "d", "e"]);
    let second = World::setup().endpoints(&[world.registry_url()]).start();
    for balance in ["hash", "maglev"] {
        let policy = format!(r#"{{"balance":"{balance}","hash_on":"header:X-User"}}"#);
        second.applied(world.put("/services/app", &policy));
        let first = owners(&world, 40);
        assert_eq!(first, owners(&second, 40), "{balance}");
        assert!(upstreams.iter().filter(|u| first.contains(&u.name)).count() >= 4, "{balance} spreads the keys: {first:?}");

        second.applied(world.delete("/instances/app/c"));
        let after = owners(&world, 40);
        assert_eq!(after, owners(&second, 40), "{balance}");
        if balance == "hash" {
            assert!(first.iter().zip(&after).all(|(before, after)| before == after || before == "c"), "others' keys moved");
        }
        second.applied(world.put("/instances/app/c", &upstreams[2].address.to_string()));
        assert_eq!(owners(&world, 40), first, "{balance}: who comes back has its keys again");
        let keyless = world.get_many("/", 50);
        assert!(upstreams.iter().all(|u| keyless.from(&u.name) > 0), "{balance}: without a key by load: {keyless:?}");
    }
}

/// By id, in percent.
type Shares = Vec<(String, f64)>;
/// By id.
type Reasons = Vec<(String, String)>;

/// The candidates and the others, as `explain` tells them.
fn explained(world: &World) -> (Shares, Reasons) {
    let said = world.admin("/api/v1/explain?url=http://app.example/").json();
    let text = |of: &Value, key: &str| of[key].as_str().expect("a text").to_owned();
    let all = |key: &str| said[key].as_array().expect("a list").clone();
    let candidates = all("candidates").iter().map(|c| (text(c, "id"), c["share_percent"].as_f64().expect("a number"))).collect();
    (candidates, all("others").iter().map(|o| (text(o, "id"), text(o, "reason"))).collect())
}

fn register(world: &World, upstream: &crate::world::upstream::Upstream, more: &str) {
    world.put(&format!("/instances/app/{}", upstream.name), &format!(r#"{{"address":"{}",{more}}}"#, upstream.address));
}

#[test]
fn the_next_tier_takes_what_the_first_cannot() {
    let (world, [one, two, reserve]) = World::serving(["one", "two", "reserve"]);
    world.put("/services/app", r#"{"probe":{"kind":"none"},"slow_start":"0s"}"#);
    register(&world, &reserve, r#""tier":1"#);
    let tally = world.get_many("/", 100);
    assert_eq!((tally.served(), tally.from("reserve")), (100, 0));
    let (candidates, others) = explained(&world);
    assert_eq!(candidates, [("one".to_owned(), 50.0), ("two".to_owned(), 50.0)]);
    let why = "in reserve: of tier 1, and the tiers before it carry all".to_owned();
    assert_eq!(others, [("reserve".to_owned(), why)]);

    drop(two);
    world.eventually("the dead one is ejected, and half a tier carries seventy percent", || {
        world.get_many("/", 20).all_served(20);
        explained(&world).0 == [("one".to_owned(), 70.0), ("reserve".to_owned(), 30.0)]
    });
    assert!(world.get_many("/", 100).from("reserve") > 5);

    register(&world, &one, r#""state":"draining""#);
    world.delete("/instances/app/two");
    assert_eq!(world.get_many("/", 50).from("reserve"), 50);
}

#[test]
fn a_zone_that_can_carry_its_part_keeps_its_requests() {
    let world = World::setup().config("[proxy]\nzone = \"here\"\n").start();
    let upstreams = world.serve("app", ["a", "b", "c", "d", "e", "f"]);
    for (n, upstream) in upstreams.iter().enumerate() {
        register(&world, upstream, if n < 3 { r#""zone":"here""# } else { r#""zone":"there""# });
    }
    let here = |n: usize| {
        let tally = world.get_many("/", n);
        ["a", "b", "c"].map(|name| tally.from(name)).iter().sum::<usize>()
    };
    assert!((60..140).contains(&here(200)), "without zone_aware");
    world.put("/services/app", r#"{"zone_aware":true}"#);
    assert_eq!(here(100), 100);
    let (candidates, others) = explained(&world);
    assert_eq!(candidates.len(), 3);
    assert_eq!(others[0].1, "in reserve: of zone there, and nearer ones have room");
    // Two of six for a zone that has half of the traffic: two thirds stay.
    register(&world, &upstreams[2], r#""zone":"there""#);
    let (candidates, _) = explained(&world);
    let stay: f64 = candidates.iter().filter(|(id, _)| id == "a" || id == "b").map(|(_, share)| share).sum();
    assert!((stay - 66.67).abs() < 0.1, "{candidates:?}");
}

/// What `explain` says of a candidate: its share in percent, and why it is less than by its weight.
fn candidate(world: &World, id: &str) -> (f64, String) {
    let said = world.admin("/api/v1/explain?url=http://app.example/").json();
    let candidates = said["candidates"].as_array().cloned().unwrap_or_default();
    let one = candidates.into_iter().find(|candidate| candidate["id"] == id).unwrap_or_default();
    (one["share_percent"].as_f64().unwrap_or_default(), one["reason"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_newcomer_in_a_warm_pool_gets_its_share_little_by_little() {
    let (world, _warm) = World::serving(["a", "b", "c", "d"]);
    world.put("/services/app", r#"{"balance":"round_robin","slow_start":"6s"}"#);
    world.proven("app", 4);
    let n_warming = || world.metric("pointsman_slow_start_active", &[("service", "app")]);
    assert_eq!(n_warming(), Some(0.0), "where all are new nobody is held back");
    std::thread::sleep(Duration::from_secs(6));
    let newcomer = world.upstream("new");
    world.put("/instances/app/new", &newcomer.address.to_string());
    world.settles("it is held back", Some(1.0), n_warming);
    let (share, reason) = candidate(&world, "new");
    assert!(share > 0.0 && share < 20.0, "{share} % of the requests");
    assert!(reason.starts_with("warming up: it gets ") && reason.ends_with(" % of its weight"), "{reason}");
    assert_eq!(world.seen("app", "new")["eligible"], true);
    let tally = world.get_many("/", 100);
    tally.all_served(100);
    assert!((1..20).contains(&tally.from("new")), "{tally:?}");

    world.settles("it is warm", Some(0.0), n_warming);
    assert_eq!(candidate(&world, "new"), (20.0, String::new()));
    assert_eq!(world.get_many("/", 100).from("new"), 20);
}

#[test]
fn a_slow_instance_gets_a_part_of_its_weight_where_the_policy_says_so() {
    let world = World::new();
    world.put("/routes/app", r#"{"service":"app"}"#);
    let policy = |more: &str| format!(r#"{{"balance":"round_robin","slow_start":"0s"{more}}}"#);
    world.put("/services/app", &policy(""));
    let [_one, _two, slow] = ["one", "two", "slow"].map(|id| world.sample("app", id));
    world.behaves(&slow, "slow&ms=800");
    let metric = |name| world.metric(name, &[("service", "app")]);
    world.begin_many("/", 90).ends().all_served(90);
    assert_eq!(metric("pointsman_latency_outliers_active"), Some(0.0), "nobody asked for it");

    world.put("/services/app", &policy(r#","latency_outliers":{"requests":20}"#));
    world.begin_many("/", 90).ends().all_served(90);
    world.settles("it is found slow", Some(1.0), || metric("pointsman_latency_outliers_active"));
    assert_eq!(metric("pointsman_latency_outliers_total"), Some(1.0));
    let why = world.seen("app", "slow");
    let reason = why["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("slow: half of its answers take ") && reason.ends_with("it gets 25 % of its weight"), "{why}");
    assert_eq!((&why["eligible"], &why["passive"], &why["probe"]), (&true.into(), &"ok".into(), &"up".into()));
    assert_eq!(candidate(&world, "slow"), (11.11, reason.to_owned()));
    let tally = world.begin_many("/", 90).ends();
    assert_eq!((tally.served(), tally.from("slow")), (90, 10), "{tally:?}");
    assert!(world.admin("/api/v1/events").text().contains("instance_slow"));

    world.behaves(&slow, "slow&ms=1");
    let until = Instant::now() + Duration::from_secs(8);
    while Instant::now() < until {
        world.begin_many("/", 18).ends().all_served(18);
        std::thread::sleep(Duration::from_millis(100));
    }
    world.eventually("it is fast again", || {
        world.get_many("/", 18).all_served(18);
        metric("pointsman_latency_outliers_active") == Some(0.0)
    });
    let tally = world.get_many("/", 90);
    assert_eq!((tally.served(), tally.from("slow")), (90, 30), "{tally:?}");
    assert_eq!(metric("pointsman_latency_outliers_total"), Some(1.0));
}
