//! When so few instances are well that the probes are more likely wrong than the instances.

use crate::world::upstream::Health;
use crate::world::{Ask, World};

fn panics(world: &World) -> Option<f64> {
    world.metric("pointsman_panic_active", &[("service", "app")])
}

fn world(panic: &str) -> (World, [crate::world::upstream::Upstream; 4]) {
    let world = World::setup().config("[proxy]\ntrusted_proxies = [\"127.0.0.0/8\"]\n").start();
    let probe = r#""probe":{"path":"/healthz","interval":"300ms","timeout":"200ms","rise":1,"fall":2}"#;
    world.put("/services/app", &format!(r#"{{"slow_start":"0s","panic":{panic},{probe}}}"#));
    let upstreams = world.serve("app", ["a", "b", "c", "d"]);
    world.proven("app", 4);
    (world, upstreams)
}

#[test]
fn when_most_are_down_all_that_can_be_reached_are_used_and_it_is_told() {
    let (world, [a, b, c, d]) = world("50");
    assert_eq!(panics(&world), Some(0.0));
    let sick = Health { status: 500, ..Health::GOOD };
    a.is_now(sick);
    b.is_now(sick);
    world.settles("two are down", "down".into(), || world.seen("app", "b")["probe"].clone());
    assert_eq!(panics(&world), Some(0.0), "half of them is enough");
    let address = d.address;
    drop(d);
    c.is_now(sick);
    world.eventually("none is well, and that is panic", || panics(&world) == Some(1.0));
    // The three that answer, though their probes fail, and not the one that nobody can connect to.
    world.settles("the dead one is found dead", "down".into(), || world.seen("app", "d")["probe"].clone());
    let tally = world.get_many("/", 100);
    tally.all_served(100);
    assert!([&a, &b, &c].iter().all(|u| tally.from(&u.name) > 0) && tally.from("d") == 0, "{tally:?}");
    let answer = world.get(Ask::get("/").with("x-pointsman-debug", "1"));
    assert_eq!((answer.status, answer.field("x-pointsman-reason")), (200, "panic"));

    let _back = world.upstream_at("d", address);
    [&a, &b, &c].iter().for_each(|u| u.is_now(Health::GOOD));
    world.eventually("it is over", || panics(&world) == Some(0.0));
    let events = world.admin("/api/v1/events").text().to_owned();
    assert!(events.contains("panic_begun") && events.contains("panic_ended"), "{events}");
}

#[test]
fn who_would_rather_fail_gets_none_healthy() {
    let (world, upstreams) = world(r#""fail""#);
    upstreams.iter().for_each(|u| u.is_now(Health { status: 500, ..Health::GOOD }));
    world.eventually("nobody is left", || {
        let answer = world.get("/");
        answer.status == 503 && answer.json()["error"] == "none_healthy" && answer.field("retry-after") == "1"
    });
    assert_eq!(panics(&world), Some(0.0));
    upstreams.iter().for_each(|u| u.is_now(Health::GOOD));
    world.eventually("it serves again", || world.get("/").status == 200);
}
