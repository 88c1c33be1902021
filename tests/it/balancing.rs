//! How requests are shared among the instances of a service.

use crate::world::World;

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
    for balance in ["p2c", "least_conn"] {
        let (world, [one, two]) = World::serving(["one", "two"]);
        world.put("/services/app", &format!(r#"{{"balance":"{balance}"}}"#));
        let waiting = world.begin_many("/held", 2);
        world.settles("each got one", (1, 1), || (one.running(), two.running()));
        one.release();
        world.settles("one of them is free", 0, || one.running());
        let tally = world.get_many("/", 100);
        assert_eq!((tally.from("one"), tally.from("two")), (100, 0), "{balance}");
        two.release();
        waiting.ends().all_served(2);
    }
}
