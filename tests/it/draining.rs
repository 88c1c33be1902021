//! No request fails because the registry changed.

use std::time::{Duration, Instant};

use crate::world::load::steady;
use crate::world::websocket::WebSocket;
use crate::world::{Tally, World, transact};

#[test]
fn a_draining_instance_finishes_what_runs_and_gets_nothing_new() {
    let (world, [one, two]) = World::serving(["one", "two"]);
    let waiting = world.begin_many("/half", 4);
    world.eventually("both have some of them", || one.running() > 0 && two.running() > 0 && one.running() + two.running() == 4);
    world.put("/instances/app/one", &format!(r#"{{"address":"{}","state":"draining"}}"#, one.address));
    assert_eq!(world.get_many("/", 50).from("two"), 50);
    one.release();
    two.release();
    waiting.ends().all_served(4);
    world.settles("its connections are closed", 0, || one.connections());
}

#[test]
fn a_deleted_instance_finishes_its_running_response() {
    let (world, [one]) = World::serving(["one"]);
    let waiting = world.begin_many("/half", 1);
    world.settles("it runs", 1, || one.running());
    world.delete("/instances/app/one");
    assert_eq!(world.get("/").status, 503);
    one.release();
    waiting.ends().all_served(1);
}

#[test]
fn idle_connections_to_an_instance_that_leaves_are_closed_at_once() {
    let (world, [one, two]) = World::serving(["one", "two"]);
    for way in ["deleted", "draining"] {
        world.begin_many("/", 16).ends().all_served(16);
        world.eventually("both have idle connections", || {
            world.begin_many("/", 8).ends().all_served(8);
            one.connections() > 0 && two.connections() > 0
        });
        match way {
            "deleted" => world.delete("/instances/app/one"),
            _ => world.put("/instances/app/one", &format!(r#"{{"address":"{}","state":"draining"}}"#, one.address)),
        };
        let left = Instant::now();
        world.settles("its connections are closed", 0, || one.connections());
        assert!(left.elapsed() < Duration::from_secs(1), "{way}: closed after {:?}", left.elapsed());
        assert!(two.connections() > 0, "{way}: the other's are kept");
        world.put("/instances/app/one", &one.address.to_string());
    }
}

/// Clients of long connections come back at once when theirs is closed; not all of them at the same moment.
#[test]
fn what_outlasts_a_drain_is_closed_spread_over_its_last_fifth() {
    let (world, [one, _two]) = World::serving(["one", "two"]);
    world.put("/services/app", r#"{"timeouts":{"drain":"4s"}}"#);
    world.put("/overrides/app/two", r#"{"weight":0}"#);
    let sockets: Vec<_> = (0..6).map(|_| world.websocket("/ws")).collect();
    let streams = world.begin_many("/half", 2);
    world.settles("all run", 8, || one.requests());
    assert_eq!(world.metric("pointsman_drains_active", &[]), Some(0.0));

    world.put("/overrides/app/one", r#"{"state":"draining"}"#);
    assert_eq!(world.metric("pointsman_drains_active", &[]), Some(1.0));
    world.delete("/instances/app/one");
    assert_eq!(world.metric("pointsman_drains_active", &[]), Some(1.0), "its requests go on");
    let mut ended: Vec<Duration> = world.handle().block_on(async {
        let ends: Vec<_> = sockets.into_iter().map(|socket| tokio::spawn(socket.ends())).collect();
        let mut ended = Vec::new();
        for end in ends {
            ended.push(end.await.expect("a client that does not panic"));
        }
        ended
    });
    ended.sort();
    let (first, last) = (ended[0], ended[5]);
    assert!(first > Duration::from_millis(2500) && last < Duration::from_millis(5500), "{ended:?}");
    assert!(last - first > Duration::from_millis(200), "all at once: {ended:?}");
    assert_eq!(streams.ends().failed.len(), 2, "half a response is no response");
    assert_eq!(world.metric("pointsman_drain_forced_closes_total", &[]), Some(8.0));
    world.settles("nothing runs there", Some(0.0), || world.metric("pointsman_drains_active", &[]));
}

#[test]
fn a_weight_that_changes_closes_nothing() {
    let (world, [one]) = World::serving(["one"]);
    // Probes come over connections of their own.
    world.put("/services/app", r#"{"probe":{"kind":"none"}}"#);
    world.settles("no probe runs", 0, || one.connections());
    let probed = one.accepted();
    // Each worker has connections of its own, so both requests have to come to the same.
    let mut client = world.connect();
    client.ask("/");
    let revision = world.put("/instances/app/one", &format!(r#"{{"address":"{}","weight":7}}"#, one.address));
    world.eventually("the new weight is in force", || world.status()["registry"]["applied_revision"].as_i64() >= Some(revision));
    client.ask("/");
    assert_eq!((one.requests(), one.accepted() - probed), (2, 1));
}

/// The promise this proxy is built around: instances come and go at 50 changes a second under keep-alive connections
/// with steady requests, long responses and a WebSocket, and no request fails and no client's connection is closed.
#[test]
fn nothing_fails_and_nothing_closes_at_fifty_changes_a_second() {
    let duration = std::env::var("POINTSMAN_SOAK_SECONDS").ok().and_then(|s| s.parse().ok()).map_or(CHURN, Duration::from_secs);
    let (world, _steady) = World::serving(["one", "two"]);
    let [socket_only] = world.serve("socket", ["socket"]);
    world.put("/routes/socket", r#"{"path":"/ws","service":"socket"}"#);
    world.put("/services/app", r#"{"balance":"round_robin"}"#);
    let coming_and_going: Vec<_> = (0..8).map(|n| world.upstream(&format!("c{n}"))).collect();
    let addresses: Vec<String> = coming_and_going.iter().map(|u| u.address.to_string()).collect();
    let (url, to) = (world.registry_url(), world.listen);
    let ends_at = Instant::now() + duration;
    let is_over = move || Instant::now() >= ends_at;

    let (changes, [short, long], echoes) = world.handle().block_on(async {
        let churn = tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            let mut n = 0;
            while !is_over() {
                tick.tick().await;
                // Each is there for eight changes and away for eight.
                let (which, comes) = (n % addresses.len(), (n / addresses.len()).is_multiple_of(2));
                transact(&url, &[(format!("/instances/app/c{which}"), comes.then(|| addresses[which].clone()))]).await;
                n += 1;
            }
            n
        });
        let short: Vec<_> = (0..8).map(|_| tokio::spawn(steady(to, "/".into(), is_over))).collect();
        let long: Vec<_> = (0..4).map(|_| tokio::spawn(steady(to, "/events?n=10&ms=60".into(), is_over))).collect();
        let echo = tokio::spawn(async move {
            let mut socket = WebSocket::open(to, "/ws").await.expect("a WebSocket");
            let mut n = 0;
            while !is_over() {
                assert_eq!(socket.echo("still there?").await, Ok("still there?".to_owned()), "echo {n}");
                n += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            n
        });
        let mut tallies = [short, long].map(|tasks| (tasks, Tally::default()));
        for (tasks, tally) in &mut tallies {
            for task in tasks {
                tally.add(task.await.expect("a client that does not panic"));
            }
        }
        (churn.await.expect("the churn"), tallies.map(|(_, tally)| tally), echo.await.expect("the WebSocket"))
    });

    assert!(changes >= usize::try_from(duration.as_millis()).unwrap() / 25, "only {changes} changes: the machine was too slow");
    short.all_served(short.served());
    long.all_served(long.served());
    assert_eq!((short.reconnected, long.reconnected), (0, 0), "keep-alive connections were closed");
    assert!(coming_and_going.iter().all(|u| u.requests() > 0), "those that came were used");
    assert!(socket_only.requests() == 1 && echoes > 0);
    world.settles("those that went are left alone", 0, || {
        world.transact(&(0..8).map(|n| (format!("/instances/app/c{n}"), None)).collect::<Vec<_>>());
        coming_and_going.iter().map(crate::world::upstream::Upstream::connections).sum::<usize>()
    });
}

const CHURN: Duration = Duration::from_secs(8);
