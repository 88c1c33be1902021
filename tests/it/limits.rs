//! Limits of a service and of an instance: who waits, who is refused at once, and who never notices.

use std::time::{Duration, Instant};

use crate::world::frames::*;
use crate::world::ports::free_address;
use crate::world::raw::Deaf;
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
    // An answer may be here before its place is free.
    world.settles("its place is free", Some(0.0), || world.metric("pointsman_upstream_in_flight", &[("service", "app")]));
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

#[test]
fn who_leaves_the_queue_of_our_own_engine_gives_up_its_place_at_once() {
    they_leave(false);
}

#[test]
fn so_does_who_leaves_that_of_the_general_engine() {
    they_leave(true);
}

/// However they asked, and whether their body was whole or not.
fn they_leave(general: bool) {
    let world = World::new();
    world.put("/services/app", r#"{"probe":{"kind":"none"},"limits":{"in_flight":1,"queue":20,"queue_wait":"100s"}}"#);
    let [one] = world.serve("app", ["one"]);
    if general {
        // Never gets a request, and takes its service to the other engine.
        let never = format!(r#"{{"address":"{}","protocol":"h2c","weight":0}}"#, free_address());
        world.put("/instances/app/h2c", &never);
    }
    let engine = if general { "general" } else { "own" };
    let serves = || world.metric("pointsman_http1_requests_total", &[("engine", engine)]) > Some(0.0);
    world.eventually("it serves", || world.get("/").status == 200 && serves());
    let load = world.begin_many("/held", 1);
    world.settles("one runs", 1, || one.running());
    let served = one.requests();
    let upload = "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf";
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let waits = ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.0\r\n\r\n", upload, upgrade].map(|said| world.say(said));
    world.settles("all wait", 4.0, || waiting(&world));
    drop(waits);
    world.settles("nobody waits", 0.0, || waiting(&world));

    let mut streams = world.frames();
    streams.say([get(1, "/"), post(3, "/count"), frame(DATA, 0, 3, b"half"), get(5, "/")].concat());
    world.settles("three streams wait", 3.0, || waiting(&world));
    streams.say([1, 3].map(|stream| frame(RST_STREAM, 0, stream, &CANCEL)).concat());
    world.settles("two were taken back", 1.0, || waiting(&world));
    drop(streams);
    world.settles("and their connection left", 0.0, || waiting(&world));
    assert_eq!(one.requests(), served, "the instance heard of none of them");
    one.release();
    load.ends().all_served(1);
    assert_eq!((overflow(&world), world.get("/").status), (0.0, 200));
    let lines = || world.proxy.out().lines().filter(|line| line.contains(r#""reason":"client_gone""#)).count();
    world.settles("the access log knows why", 7, lines);
}

/// An instance that does not take connections at the moment; its client does not wait for it.
#[test]
fn who_leaves_while_we_connect_frees_the_instance_at_once() {
    let world = World::new();
    let deaf = Deaf::start();
    world.put("/services/app", r#"{"probe":{"kind":"none"},"timeouts":{"connect":"100s"}}"#);
    world.put("/instances/app/deaf", &deaf.address.to_string());
    world.put("/routes/app", r#"{"service":"app"}"#);
    let running = || world.metric("pointsman_upstream_in_flight", &[("service", "app")]).unwrap_or_default();
    for said in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"] {
        let mut client = None;
        world.eventually("it connects", || {
            client = Some(world.say(said));
            std::thread::sleep(Duration::from_millis(50));
            running() >= 1.0
        });
        drop(client);
        world.settles("it has given up", 0.0, running);
    }
}
