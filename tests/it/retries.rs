//! A dead instance is not a user's error.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use crate::world::ports::free_address;
use crate::world::raw::{Deaf, Raw};
use crate::world::{Answer, Ask, World};

/// The drill that other proxies fail with 50 % and 60 % errors at default settings.
#[test]
fn one_of_two_instances_refuses_connections_and_nobody_notices() {
    let world = World::new();
    let one = world.upstream("one");
    // Both come at once: one that came later would get nothing before it has passed a probe.
    world.transact(&[
        ("/instances/app/dead".into(), Some(free_address().to_string())),
        ("/instances/app/one".into(), Some(one.address.to_string())),
        ("/routes/app".into(), Some(r#"{"service":"app"}"#.into())),
    ]);
    let mut together = world.get_many("/", 2000);
    together.add(world.get_many(Ask::post("/count", "a body that was not consumed"), 1000));
    together.all_served(3000);
    assert!(world.metric("pointsman_retries_total", &[("service", "app")]).is_some_and(|n| n > 0.0));
}

#[test]
fn an_instance_that_dies_under_load_is_not_noticed() {
    let (world, [_one, two]) = World::serving(["one", "two"]);
    let load = world.load("/");
    world.eventually("both are busy", || two.requests() > 50);
    drop(two);
    assert_eq!(world.get_many("/", 200).from("one"), 200);
    let tally = load.ends();
    // A request that was running on it may be lost only if it cannot be repeated; these can.
    tally.all_served(tally.served());
}

#[test]
fn when_every_instance_refuses_it_is_a_502() {
    let world = World::new();
    let [_gone] = world.serve("app", ["gone"]);
    world.put("/instances/app/gone", &free_address().to_string());
    assert_eq!(world.get("/").status, 502);
    assert_eq!(world.get(Ask::post("/", "x")).status, 502);
}

/// It says nothing of closing, but closes after each response: the next request may meet the closing half-way.
#[test]
fn an_instance_that_closes_idle_connections_loses_no_request() {
    let world = World::new();
    let listener = TcpListener::bind(free_address()).expect("a free address");
    let address = listener.local_addr().expect("the address of our own listener");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer_once(stream));
        }
    });
    world.put("/instances/app/closing", &address.to_string());
    world.put("/routes/app", r#"{"service":"app"}"#);
    world.get_many("/", 500).all_served(500);
    world.get_many(Ask::post("/", "not idempotent, but not consumed either"), 300).all_served(300);
}

fn answer_once(mut stream: std::net::TcpStream) {
    let (mut head, mut bytes) = (Vec::new(), [0; 4096]);
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut bytes) {
            Ok(n @ 1..) => head.extend_from_slice(&bytes[..n]),
            _ => return,
        }
    }
    // An error means that the proxy has gone away.
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-instance: closing\r\n\r\nok");
}

/// Whichever engine serves, and over HTTP/2 as well: too slow is 504, gone or broken is 502.
#[test]
fn what_an_instance_does_wrong_decides_the_status() {
    let world = World::new();
    let deaf = Deaf::start();
    let silent = Raw::start(|mut line, _| while line.request().is_some() {});
    let broken = Raw::start(|mut line, _| {
        line.request();
    });
    let half = Raw::start(|mut line, _| {
        line.request();
        line.say("HTTP/1.1 200 OK\r\nContent-Le");
    });
    let policy = r#""probe":{"kind":"none"},"retry":{"attempts":0},"ejection":{"enabled":false},"panic":0"#;
    world.put("/services/app", &format!(r#"{{{policy},"timeouts":{{"connect":"500ms","response_head":"500ms"}}}}"#));
    world.put("/routes/app", r#"{"service":"app"}"#);
    for general in [false, true] {
        if general {
            world.put("/instances/app/h2c", &format!(r#"{{"address":"{}","protocol":"h2c","weight":0}}"#, free_address()));
        }
        for (address, status, error) in [
            (deaf.address, 504, "connect_timeout"),
            (silent.address, 504, "upstream_timeout"),
            (free_address(), 502, "connect_failed"),
            (broken.address, 502, "upstream_reset"),
            (half.address, 502, "upstream_reset"),
        ] {
            world.put("/instances/app/one", &address.to_string());
            let asked = |answer: Answer| (answer.status, answer.json()["error"].as_str().unwrap_or_default().to_owned());
            world.settles(error, (status, error.to_owned()), || asked(world.get("/")));
            assert_eq!(asked(world.get_h2("/")), (status, error.to_owned()), "over HTTP/2");
        }
    }
}

/// HTTP/1.0 knows no chunks: its body ends with the connection.
#[test]
fn old_clients_get_an_answer_in_chunks_as_it_is() {
    let raw =
        Raw::always("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n");
    let world = World::new();
    world.put("/services/app", r#"{"probe":{"kind":"none"}}"#);
    world.put("/instances/app/raw", &raw.address.to_string());
    world.put("/routes/app", r#"{"service":"app"}"#);
    world.eventually("it serves", || world.get("/").status == 200);
    for more in ["", "Host: a\r\nConnection: keep-alive\r\n"] {
        let answer = world.say_to_the_end(format!("GET / HTTP/1.0\r\n{more}\r\n"));
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{answer}");
        assert_eq!(body, "abcde", "{answer}");
    }
}
