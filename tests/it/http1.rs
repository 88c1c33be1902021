//! HTTP/1.1 to the byte: what can be read in two ways goes no further, and what is passed on is written anew.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::world::World;
use crate::world::ports::free_address;
use crate::world::raw::Raw;

/// A proxy with one such instance for every request.
fn before(raw: &Raw) -> World {
    let world = World::new();
    unprobed(&world);
    register(&world, &[("raw", raw.address)]);
    world
}

/// Every connection that an instance sees is a request's.
fn unprobed(world: &World) {
    world.put("/services/app", r#"{"probe":{"kind":"none"}}"#);
}

fn register(world: &World, instances: &[(&str, std::net::SocketAddr)]) {
    let record = |(id, address): &(&str, std::net::SocketAddr)| (format!("/instances/app/{id}"), Some(address.to_string()));
    let route = ("/routes/app".to_owned(), Some(r#"{"service":"app"}"#.to_owned()));
    world.transact(&instances.iter().map(record).chain([route]).collect::<Vec<_>>());
}

fn engine(world: &World, name: &str) -> f64 {
    world.metric("pointsman_http1_requests_total", &[("engine", name)]).unwrap_or_default()
}

/// Reads until it ends with this.
fn until(stream: &mut TcpStream, mark: &str) -> String {
    let (mut said, mut byte) = (Vec::new(), [0]);
    while !said.ends_with(mark.as_bytes()) {
        match stream.read(&mut byte) {
            Ok(1) => said.push(byte[0]),
            _ => panic!("it ended, or stopped, after {:?}", String::from_utf8_lossy(&said)),
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn requests_sent_together_are_answered_in_their_order() {
    let raw = Raw::start(|mut line, _| {
        while let Some(request) = line.request() {
            let target = request.split(' ').nth(1).unwrap_or_default().to_owned();
            line.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}", target.len()));
        }
    });
    let world = before(&raw);
    let requests = "\r\nGET /1 HTTP/1.1\r\nHost: a\r\n\r\n\
        POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nxyz\r\n\
        POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n\
        HEAD /4 HTTP/1.1\r\nHost: a\r\n\r\n\
        GET /5 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n\
        GET /6 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = world.say_to_the_end(requests);
    let places: Vec<_> = ["/1", "/2", "/3", "/5", "/6"].map(|target| answer.find(&format!("\r\n\r\n{target}"))).into();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} in {answer}");
    assert_eq!(answer.matches("HTTP/1.").count(), 6, "{answer}");
    assert_eq!((engine(&world, "own"), engine(&world, "general")), (5.0, 1.0), "HTTP/1.0 is for the other engine");
    assert_eq!(raw.heard().iter().filter(|request| request.contains("xyz")).count(), 2);
}

#[test]
fn chunks_are_written_anew_and_trailers_follow_them() {
    let raw = Raw::always(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nTrailer: x-sum\r\n\r\n\
         003;why=not\r\nabc\r\n2\r\nde\r\n0;last\r\nX-Sum: 5\r\nContent-Length: 9\r\n\r\n",
    );
    let world = before(&raw);
    let mut client = world.say(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n\
         0A;ext=\"1\"\r\n0123456789\r\n00\r\nX-Sum: 10\r\nX-Forwarded-For: 6.6.6.6\r\nHost: b\r\n\r\n",
    );
    let answer = until(&mut client, "x-sum: 5\r\n\r\n".to_ascii_uppercase().replace("X-SUM", "X-Sum").as_str());
    assert!(answer.ends_with("\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n"), "{answer}");
    let heard = &raw.heard()[0];
    assert!(heard.ends_with("\r\n\r\na\r\n0123456789\r\n0\r\nX-Sum: 10\r\n\r\n"), "{heard}");
    assert_eq!(heard.to_ascii_lowercase().matches("transfer-encoding: chunked\r\n").count(), 1, "{heard}");
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection goes on");
    until(&mut client, "\r\n0\r\nX-Sum: 5\r\n\r\n");
    assert_eq!(raw.accepted(), 1, "and so does the instance's");
}

#[test]
fn a_body_that_ends_with_its_connection_is_framed_for_the_client() {
    let raw = Raw::start(|mut line, _| {
        line.request();
        line.say("HTTP/1.1 200 OK\r\n\r\nfirst");
        std::thread::sleep(Duration::from_millis(50));
        line.say(" second");
    });
    let world = before(&raw);
    let mut connection = world.connect();
    for _ in 0..3 {
        let answer = connection.ask("/");
        assert_eq!((answer.text(), answer.field("transfer-encoding")), ("first second", "chunked"));
    }
    assert_eq!(raw.accepted(), 3);
}

#[test]
fn answers_without_a_body_leave_both_connections_as_they_were() {
    let raw = Raw::start(|mut line, _| {
        while let Some(request) = line.request() {
            let length = "Content-Length: 1000\r\n";
            line.say(match request.split(' ').nth(1) {
                Some("/204") => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
                Some("/304") => format!("HTTP/1.1 304 Not Modified\r\n{length}\r\n"),
                Some("/chunked") => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
                Some("/early") => "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n".to_owned(),
                _ => format!("HTTP/1.1 200 OK\r\n{length}\r\n"),
            });
        }
    });
    let world = before(&raw);
    let mut client = world.say("");
    for (request, expected) in [
        ("HEAD /", "HTTP/1.1 200 OK"),
        ("HEAD /chunked", "HTTP/1.1 200 OK"),
        ("GET /204", "HTTP/1.1 204 No Content"),
        ("GET /304", "HTTP/1.1 304 Not Modified"),
        ("GET /early", "HTTP/1.1 103 Early Hints"),
        ("HEAD /", "HTTP/1.1 200 OK"),
    ] {
        client.write_all(format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).expect("the connection goes on");
        let mut head = until(&mut client, "\r\n\r\n");
        if head.starts_with("HTTP/1.1 103") {
            assert!(head.contains("Link: </x>"), "{head}");
            head = format!("{expected} and {}", until(&mut client, "\r\n\r\n"));
        }
        assert!(head.starts_with(expected), "{request}: {head}");
    }
    assert_eq!(raw.accepted(), 1);
}

#[test]
fn an_instance_that_refuses_an_upload_early_is_heard() {
    let raw = Raw::start(|mut line, _| {
        line.until("\r\n\r\n");
        line.say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!");
        // What is still sent is not read, and the connection ends.
    });
    let world = before(&raw);
    let size = 8 << 20;
    let mut client = world.say(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"));
    let mut writes = client.try_clone().expect("a second handle");
    let sending = std::thread::spawn(move || {
        let piece = vec![b'x'; 64 * 1024];
        (0..size / piece.len()).take_while(|_| writes.write_all(&piece).is_ok()).count()
    });
    let answer = until(&mut client, "no!");
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(sending.join().expect("the sender ends"), size / (64 * 1024), "the rest is read and dropped");
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").expect("the connection goes on");
    assert!(until(&mut client, "no!").starts_with("HTTP/1.1 413 "));
}

#[test]
fn a_body_is_kept_for_another_attempt_in_either_framing() {
    let raw = Raw::always(OK);
    let world = World::new();
    let dead: Vec<_> = (0..3).map(|n| (format!("dead{n}"), free_address())).collect();
    world.put(
        "/services/app",
        r#"{"probe":{"kind":"none"},"retry":{"attempts":3},"balance":"round_robin","ejection":{"enabled":false}}"#,
    );
    let all = dead.iter().map(|(id, address)| (id.as_str(), *address)).chain([("raw", raw.address)]).collect::<Vec<_>>();
    register(&world, &all);
    let kept = "k".repeat(40_000);
    for n in 0..8 {
        let body = if n % 2 == 0 {
            format!("Content-Length: 40000\r\nConnection: close\r\n\r\n{kept}")
        } else {
            format!("Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n9c40\r\n{kept}\r\n0\r\n\r\n")
        };
        let answer = world.say_to_the_end(format!("POST / HTTP/1.1\r\nHost: a\r\n{body}"));
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{n}: {answer}");
    }
    let whole = |request: &&String| request.matches('k').count() >= 40_000;
    assert_eq!(raw.heard().iter().filter(whole).count(), 8);
    assert!(raw.heard().iter().any(|request| !request.contains("x-pointsman-attempt: 1\r\n")), "nobody was tried before");
}

#[test]
fn a_client_that_ends_its_side_early_has_left() {
    let raw = Raw::start(|mut line, _| while line.request().is_some() {});
    let world = before(&raw);
    let client = world.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let running = || world.metric("pointsman_upstream_in_flight", &[("service", "app")]) == Some(1.0);
    world.eventually("the request runs", running);
    client.shutdown(Shutdown::Write).expect("the write side ends");
    world.settles("attempts given up", Some(1.0), || {
        world.metric("pointsman_upstream_requests_total", &[("service", "app"), ("outcome", "client_gone")])
    });
    assert_eq!(engine(&world, "own"), 1.0);
}

#[test]
fn a_body_that_stands_still_is_cut_off_and_a_slow_one_is_not() {
    let raw = Raw::always(OK);
    let world = World::setup().config("[proxy.limits]\nbody_progress = \"1s\"\n").start();
    unprobed(&world);
    register(&world, &[("raw", raw.address)]);
    let begun = Instant::now();
    let mut slow = world.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n");
    for byte in [b"s", b"l", b"o", b"w"] {
        std::thread::sleep(Duration::from_millis(400));
        slow.write_all(byte).expect("the proxy reads");
    }
    assert!(until(&mut slow, "ok").starts_with("HTTP/1.1 200 ") && begun.elapsed() > Duration::from_secs(1));
    let answer = world.say_to_the_end("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel");
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("slow_body"), "{answer}");
    assert_eq!(world.metric("pointsman_upstream_in_flight", &[("service", "app")]), Some(0.0));
}

/// The client waits before it sends, and is told to go on as soon as its request has a route; the instance hears nothing of it.
#[test]
fn a_client_that_expects_to_be_told_is_told_to_go_on() {
    let raw = Raw::always(OK);
    let world = before(&raw);
    let ask = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let mut client = world.say(ask);
    for n in 0..2 {
        if n > 0 {
            client.write_all(ask.as_bytes()).expect("the connection goes on");
        }
        assert_eq!(until(&mut client, "\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"hello").expect("the proxy reads");
        assert!(until(&mut client, "ok").starts_with("HTTP/1.1 200 "));
    }
    assert!(raw.heard().iter().all(|request| request.ends_with("\r\n\r\nhello") && !request.to_lowercase().contains("expect:")));
    world.delete("/routes/app");
    world.eventually("the route is gone", || world.get("/").status == 404);
    let refused = world.say_to_the_end(ask);
    assert!(refused.starts_with("HTTP/1.1 404 ") && refused.contains("connection: close"), "{refused}");
}

/// What our own path does not do goes to the other engine, request by request, on the same connection.
#[test]
fn each_request_takes_the_engine_that_can_do_it() {
    let raw = Raw::always(OK);
    let world = before(&raw);
    let mut client = world.say("");
    for (request, own, general) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1.0, 0.0),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", 1.0, 1.0),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", 2.0, 1.0),
        ("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", 2.0, 2.0),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 3.0, 2.0),
    ] {
        client.write_all(request.as_bytes()).expect("the connection goes on");
        until(&mut client, "\r\n\r\nok");
        world.settles(request, (own, general), || (engine(&world, "own"), engine(&world, "general")));
    }
    world.put("/instances/app/other", &format!(r#"{{"address":"{}","protocol":"h2c"}}"#, free_address()));
    assert_eq!(world.get("/").status, 200);
    assert_eq!(engine(&world, "own"), 3.0, "one instance that speaks HTTP/2 takes its whole service there");
}
