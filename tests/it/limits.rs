//! Limits of a service and of an instance: who waits, who is refused at once, and who never notices.

use std::time::{Duration, Instant};

use crate::world::{Ask, World};

fn overflow(world: &World) -> f64 {
    world.metric("pointsman_overflow_total", &[("service", "app")]).unwrap_or_default()
}

fn waiting(world: &World) -> f64 {
    world.metric("pointsman_queue_depth", &[("service", "app")]).unwrap_or_default()
}

#[test]
fn what_is_too_much_for_a_service_waits_and_what_is_too_much_for_the_queue_is_refused_at_once() {
    let world = World::new();
    world.put("/services/app", r#"{"probe":{"kind":"none"},"limits":{"in_flight":2,"queue":3,"queue_wait":"20s"}}"#);
    let [one] = world.serve("app", ["one"]);
    world.get("/");
    let load = world.begin_many("/held", 5);
    world.settles("two run", 2, || one.running());
    world.eventually("three wait", || waiting(&world) == 3.0);
    let began = Instant::now();
    let refused = world.get("/");
    assert_eq!((refused.status, refused.json()["error"].as_str(), refused.field("retry-after")), (503, Some("overflow"), "1"));
    assert!(began.elapsed() < Duration::from_secs(10), "it was not kept waiting");
    assert_eq!(overflow(&world), 1.0);
    assert_eq!(one.running(), 2);
    one.release();
    load.ends().all_served(5);
    assert_eq!(waiting(&world), 0.0);
}

#[test]
fn who_waits_too_long_is_told_so() {
    let world = World::new();
    world.put("/services/app", r#"{"probe":{"kind":"none"},"limits":{"in_flight":1,"queue_wait":"100ms"}}"#);
    let [one] = world.serve("app", ["one"]);
    let load = world.begin_many("/held", 1);
    world.settles("one runs", 1, || one.running());
    let refused = world.get("/");
    assert_eq!((refused.status, refused.json()["error"].as_str()), (503, Some("overflow")));
    one.release();
    load.ends().all_served(1);
    assert_eq!(world.get("/").status, 200);
}

#[test]
fn an_instance_gets_no_more_than_it_asked_for_and_the_rest_waits() {
    let world = World::new();
    world.put("/services/app", r#"{"probe":{"kind":"none"},"limits":{"queue_wait":"20s"}}"#);
    let one = world.upstream("one");
    world.put("/instances/app/one", &format!(r#"{{"address":"{}","max_requests":2}}"#, one.address));
    world.put("/routes/app", r#"{"service":"app"}"#);
    world.eventually("it serves", || world.get("/").status == 200);
    let load = world.begin_many("/held", 6);
    world.settles("two run", 2, || one.running());
    world.eventually("four wait", || waiting(&world) == 4.0);
    assert_eq!(one.running(), 2);
    one.release();
    load.ends().all_served(6);
}

#[test]
fn a_service_that_hangs_does_not_slow_its_neighbour() {
    let world = World::new();
    let quick = r#"{"probe":{"kind":"none"},"limits":{"in_flight":20,"queue":10}}"#;
    world.put("/services/app", quick);
    let [hanging] = world.serve("app", ["hanging"]);
    let neighbour = world.upstream("neighbour");
    world.put("/instances/other/neighbour", &neighbour.address.to_string());
    world.put("/routes/other", r#"{"hosts":["other.example"],"service":"other"}"#);
    let ask = || Ask::get("/").host("other.example");
    world.eventually("the neighbour serves", || world.get(ask()).status == 200);
    let load = world.begin_many("/held", 60);
    world.settles("the limit is reached", 20, || hanging.running());
    world.get_many(ask(), 500).all_served(500);
    assert!(overflow(&world) >= 1.0);
    assert_eq!(world.metric("pointsman_overflow_total", &[("service", "other")]), Some(0.0));
    hanging.release();
    drop(load);
}
