//! HTTP/1.1 and HTTP/2 on both sides, and what is spoken over them.

use std::time::{Duration, Instant};

use http::Version;
use http_body_util::BodyExt;

use crate::world::client::{Connection, whole};
use crate::world::upstream::Upstream;
use crate::world::{Ask, World};

#[test]
fn http_2_is_spoken_on_the_same_port_as_http_1() {
    let (world, [_one]) = World::serving(["one"]);
    let mut connection = world.connect_h2();
    for _ in 0..3 {
        let answer = connection.ask(Ask::post("/echo", "several requests, one connection"));
        assert_eq!((answer.version, answer.text()), (Version::HTTP_2, "several requests, one connection"));
    }
    assert_eq!(world.get("/").version, Version::HTTP_11);
}

#[test]
fn an_instance_that_speaks_h2c_is_spoken_to_in_it() {
    let (world, [one]) = World::serving(["one"]);
    speaks_h2c(&world, &one);
    for answer in [world.get("/seen"), world.get_h2("/seen")] {
        assert_eq!(answer.json()["version"], "HTTP/2.0");
        assert_eq!(answer.json()["authority"], "app.example", "the host is kept: {}", answer.text());
    }
    // Many streams on few connections, once there are some: who comes at the same moment as the first opens one as well.
    world.begin_many("/slow?ms=50", 20).ends().all_served(20);
    let before = one.accepted();
    world.begin_many("/slow?ms=50", 20).ends().all_served(20);
    let more = one.accepted() - before;
    assert!(more < 10, "{more} more connections for 20 streams");
}

#[test]
fn grpc_passes_with_its_trailers() {
    let (world, [one]) = World::serving(["one"]);
    speaks_h2c(&world, &one);
    let message: &[u8] = b"\0\0\0\0\x02hi";
    let call = Ask::post("/echo.Echo/Say", message).with("content-type", "application/grpc").with("te", "trailers");
    let answer = world.get_h2(call);
    assert_eq!((answer.status, &answer.body[..]), (200, message));
    assert_eq!(answer.trailers.get("grpc-status").map(|v| v.as_bytes()), Some(&b"0"[..]), "{answer:?}");
    assert_eq!(answer.trailers.get("grpc-message").map(|v| v.as_bytes()), Some(&b"well done"[..]));
}

#[test]
fn a_websocket_passes_and_outlives_changes_of_its_service() {
    let (world, [_one, two]) = World::serving(["one", "two"]);
    let mut sockets: Vec<_> = (0..8).map(|_| world.websocket("/chat/ws")).collect();
    world.delete("/instances/app/two");
    world.put("/services/app", r#"{"balance":"random"}"#);
    for (n, socket) in sockets.iter_mut().enumerate() {
        let long = "x".repeat(100_000 + n);
        assert_eq!(world.echo(socket, &long), Ok(long));
    }
    assert!(two.requests() > 0, "some of them are at the instance that left");
}

/// Torn down once in some hundred when the answer is read before the request's empty body was (Pingora #946).
#[test]
fn every_one_of_many_websockets_opens() {
    let (world, [one]) = World::serving(["one"]);
    let opened = world.handle().block_on(async {
        let mut opened = 0;
        for _ in 0..600 {
            let mut socket = crate::world::websocket::WebSocket::open(world.listen, "/ws").await.expect("a WebSocket");
            assert_eq!(socket.echo("hello").await, Ok("hello".to_owned()), "number {opened}");
            opened += 1;
        }
        opened
    });
    assert_eq!(one.requests(), opened);
}

#[test]
fn a_refused_upgrade_is_an_ordinary_answer() {
    let (world, [_one]) = World::serving(["one"]);
    let refused = world.websocket_refused("/status?code=403");
    assert_eq!(refused, 403);
    assert_eq!(world.get("/").status, 200);
}

#[test]
fn server_sent_events_arrive_one_by_one() {
    let (world, [_one]) = World::serving(["one"]);
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let (first, all) = world.handle().block_on(async {
            let mut connection = Connection::open(world.listen, version).await.expect("the proxy accepts");
            let begun = Instant::now();
            let ask = Ask::get("/events?n=4&ms=300");
            let mut body = connection.begin(&ask, whole(Default::default())).await.expect("an answer").into_body();
            let first = body.frame().await.expect("an event").expect("a whole one").into_data().expect("bytes");
            assert_eq!(&first[..], b"data: 0\n\n", "one event, and nothing with it");
            let first = begun.elapsed();
            body.collect().await.expect("the other events");
            (first, begun.elapsed())
        });
        assert!(first + Duration::from_millis(600) < all, "{version:?}: the first after {first:?}, all after {all:?}");
    }
}

fn speaks_h2c(world: &World, upstream: &Upstream) {
    let record = format!(r#"{{"address":"{}","protocol":"h2c"}}"#, upstream.address);
    world.put(&format!("/instances/app/{}", upstream.name), &record);
}
