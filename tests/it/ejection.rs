//! Real requests take an instance out, and one real request brings it back.

use std::time::{Duration, Instant};

use crate::world::ports::free_address;
use crate::world::upstream::Upstream;
use crate::world::{Ask, World};

/// Three instances, of which the first fails as the story wants; ejections of a second, so that the story sees the way back.
fn world(policy: &str) -> (World, [Upstream; 3]) {
    let world = World::new();
    world.put("/services/app", policy);
    let upstreams = world.serve("app", ["bad", "good", "better"]);
    (world, upstreams)
}

const SHORT: &str = r#"{"probe":{"kind":"none"},"ejection":{"base":"1s"}}"#;

fn passive(world: &World, id: &str) -> String {
    world.seen("app", id)["passive"].as_str().unwrap_or_default().to_owned()
}

fn ejections(world: &World, cause: &str) -> f64 {
    world.metric("pointsman_ejections_total", &[("service", "app"), ("cause", cause)]).unwrap_or_default()
}

#[test]
fn an_instance_that_answers_503_is_taken_out_and_comes_back_when_it_is_well() {
    let (world, [bad, _good, _better]) = world(SHORT);
    bad.answers_with(503);
    // Whoever meets it gets another instance's answer.
    let tally = world.get_many("/", 300);
    tally.all_served(300);
    assert_eq!(tally.from("bad"), 0);
    assert!(bad.requests() < 20, "it got {} requests before it was out", bad.requests());
    assert!(ejections(&world, "consecutive") >= 1.0);
    let (state, before) = (passive(&world, "bad"), bad.requests());
    assert!(state == "ejected" || state == "half_open", "{state}");

    // Still failing: each trial costs one request, and it stays out.
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        world.get_many("/", 20).all_served(20);
        std::thread::sleep(Duration::from_millis(20));
    }
    let trials = bad.requests() - before;
    assert!((1..=4).contains(&trials), "{trials} trials in four seconds of growing ejections");
    assert!(ejections(&world, "trial") >= 1.0);
    let reason = world.seen("app", "bad")["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.starts_with("ejected"), "{reason}");

    bad.answers_with(0);
    world.eventually("it is back", || {
        world.get_many("/", 20).all_served(20);
        passive(&world, "bad") == "ok"
    });
    world.eventually("and works again", || world.get("/").from() == "bad");
    let events = world.admin("/api/v1/events").text().to_owned();
    assert!(events.contains("instance_ejected") && events.contains("instance_readmitted"), "{events}");
}

#[test]
fn refused_connections_take_it_out_after_three() {
    let world = World::new();
    world.put("/services/app", SHORT);
    let [_good] = world.serve("app", ["good"]);
    world.put("/instances/app/dead", &free_address().to_string());
    world.get_many("/", 500).all_served(500);
    assert!(ejections(&world, "connect") >= 1.0);
    let failed = world
        .metric("pointsman_upstream_requests_total", &[("service", "app"), ("instance", "dead"), ("outcome", "connect_failed")]);
    assert!(failed.is_some_and(|n| n < 30.0), "{failed:?} attempts at a dead instance");
}

#[test]
fn plain_500s_take_out_the_one_that_stands_out() {
    let (world, [bad, _good, _better]) = world(SHORT);
    bad.answers_with(500);
    world.eventually("it is out", || {
        world.get_many("/", 50);
        ejections(&world, "ratio") >= 1.0
    });
}

#[test]
fn one_that_says_it_is_busy_stays_in() {
    let (world, [bad, _good, _better]) = world(SHORT);
    bad.answers_with(429);
    world.get_many("/", 500);
    assert_eq!(passive(&world, "bad"), "ok");
    let busy =
        world.metric("pointsman_upstream_requests_total", &[("service", "app"), ("instance", "bad"), ("outcome", "overloaded")]);
    assert!(busy.is_some_and(|n| n >= 1.0), "{busy:?}");
    let state = world.metric("pointsman_instances", &[("service", "app"), ("state", "ejected")]);
    assert_eq!(state, Some(0.0));
}

#[test]
fn what_was_learned_survives_a_new_weight_and_a_new_registration() {
    let (world, [bad, _good, _better]) = world(r#"{"probe":{"kind":"none"}}"#);
    bad.answers_with(503);
    world.get_many("/", 300).all_served(300);
    assert_eq!(passive(&world, "bad"), "ejected");
    let applied = world.put("/instances/app/bad", &format!(r#"{{"address":"{}","weight":50}}"#, bad.address));
    world.applied(applied);
    assert_eq!(passive(&world, "bad"), "ejected");
    world.delete("/instances/app/bad");
    let applied = world.put("/instances/app/bad", &bad.address.to_string());
    world.applied(applied);
    assert_eq!(passive(&world, "bad"), "ejected");
    assert_eq!(world.get_many("/", 100).from("bad"), 0);
}

#[test]
fn under_a_full_outage_retries_stay_within_their_budget() {
    let (world, upstreams) = world(r#"{"probe":{"kind":"none"},"retry":{"budget_floor":1}}"#);
    upstreams.iter().for_each(|u| u.answers_with(503));
    // Each retry waits a little, one after the other.
    let n = 600;
    let tally = world.get_many("/", n);
    assert_eq!(tally.served(), 0);
    let sent: usize = upstreams.iter().map(Upstream::requests).sum();
    assert!(sent * 100 < n * 125, "{sent} requests were sent upstream for {n}");
    assert!(world.metric("pointsman_retries_denied_total", &[("service", "app")]).is_some_and(|n| n > 0.0));
    assert!(world.metric("pointsman_ejections_skipped_total", &[("service", "app")]).is_some_and(|n| n > 0.0));
}

#[test]
fn a_post_is_not_repeated_but_its_instance_is_still_judged() {
    let (world, [bad, _good, _better]) = world(SHORT);
    bad.answers_with(502);
    let tally = world.get_many(Ask::post("/", "x"), 200);
    let lost = 200 - tally.served();
    assert!((1..=20).contains(&lost), "{lost} of 200 met it");
    assert!(ejections(&world, "consecutive") >= 1.0);
}
