//! The PROXY protocol: a proxy in front says who its client is, and instances can be told.

use std::fs;
use std::io::{Read, Write};
use std::process::Command;
use std::time::Duration;

use crate::world::ports::free_address;
use crate::world::program::Program;
use crate::world::raw::Raw;
use crate::world::{Ask, World};

/// Believes 127.0.0.1, and the networks given.
fn introduced(more: &str) -> World {
    let proxy = format!("[proxy]\ntrusted_proxies = [\"127.0.0.1\"{more}]\n[proxy.limits]\nhandshake = \"500ms\"\n");
    World::setup().embedded().config(&format!("{LISTENER}{proxy}")).start()
}

fn headers(world: &World, result: &str) -> f64 {
    world.metric("pointsman_proxy_headers_total", &[("result", result)]).unwrap_or_default()
}

/// What the instance saw of `GET /seen` behind these bytes: its X-Forwarded-For.
fn forwarded_for(world: &World, header: &[u8], field: &str) -> String {
    let request = format!("GET /seen HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{field}\r\n");
    let answer = world.say_to_the_end([header, request.as_bytes()].concat());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    field_of(&answer, "x-forwarded-for")
}

fn field_of(answer: &str, name: &str) -> String {
    let (_, body) = answer.split_once("\r\n\r\n").expect("a whole answer");
    let seen: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let fields = seen["fields"].as_array().expect("fields").iter().filter(|field| field[0] == name);
    fields.map(|field| field[1].as_str().unwrap_or_default().replace(' ', "")).collect::<Vec<_>>().join("|")
}

const LISTENER: &str = "[[listener]]\naddress = \"LISTEN\"\nproxy_protocol = true\n";
const V1: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xcb\x00\x71\x07\xc0\x00\x02\x01\x12\x67\x01\xbb\x04\0\x02ok";
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const LIE: &str = "x-forwarded-for: 6.6.6.6\r\n";

#[test]
fn the_address_in_the_header_is_the_clients_for_all_purposes() {
    let world = introduced(", \"198.51.100.0/24\"");
    let [_one, _two] = world.serve("app", ["one", "two"]);
    for header in [V1, V2] {
        assert_eq!(forwarded_for(&world, header, ""), "203.0.113.7");
        assert_eq!(forwarded_for(&world, header, LIE), "203.0.113.7", "its own word counts as little as any stranger's");
    }
    let cdn = b"PROXY TCP4 198.51.100.9 192.0.2.1 1 2\r\n";
    assert_eq!(forwarded_for(&world, cdn, LIE), "6.6.6.6,198.51.100.9", "unless it is a trusted proxy's");
    for header in [V2_LOCAL, b"PROXY UNKNOWN\r\n"] {
        assert_eq!(forwarded_for(&world, header, LIE), "6.6.6.6,127.0.0.1", "the proxy speaks for itself");
    }
    assert_eq!((headers(&world, "proxied"), headers(&world, "local")), (5.0, 2.0));
    world.eventually("the access log knows the client", || world.proxy.out().contains(r#""client":"203.0.113.7""#));

    world.put("/services/app", r#"{"balance":"maglev"}"#);
    let from = |client: usize| {
        let header = format!("PROXY TCP4 203.0.113.{client} 192.0.2.1 4711 443\r\n");
        let answer = world.say_to_the_end(format!("{header}GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"));
        ["one", "two"].into_iter().position(|name| answer.contains(&format!("x-instance: {name}"))).expect("an instance")
    };
    let first: Vec<usize> = (0..16).map(from).collect();
    assert!(first.contains(&0) && first.contains(&1), "{first:?}");
    assert_eq!((0..16).map(from).collect::<Vec<_>>(), first, "who picks by the client picks by this one");
}

#[test]
fn each_client_that_is_introduced_has_no_more_connections_than_it_may() {
    let proxy = "[proxy]\ntrusted_proxies = [\"127.0.0.1\"]\n[proxy.limits]\nconnections_per_address = 2\n";
    let world = World::setup().embedded().config(&format!("{LISTENER}{proxy}")).start();
    let [_one] = world.serve("app", ["one"]);
    world.eventually("it serves", || world.say_to_the_end([V2_LOCAL, b"GET / HTTP/1.0\r\n\r\n"].concat()).ends_with("one"));
    let hold = |header: &str| {
        let mut stream = world.say(format!("{header}GET / HTTP/1.1\r\nhost: a\r\n\r\n"));
        stream.read(&mut [0]).is_ok_and(|n| n == 1).then_some(stream)
    };
    let client = |n: u8| format!("PROXY TCP4 203.0.113.{n} 192.0.2.1 4711 443\r\n");
    let mut first: Vec<_> = (0..2).map(|_| hold(&client(1)).expect("it may have two")).collect();
    assert!(hold(&client(1)).is_none(), "and no third");
    let _second = hold(&client(2)).expect("another client is another address");
    let _proxies_own: Vec<_> = (0..4).map(|_| hold("PROXY UNKNOWN\r\n").expect("the proxy itself is not counted")).collect();
    assert_eq!(world.metric("pointsman_limits_total", &[("limit", "connections_per_address")]), Some(1.0));
    first.pop();
    world.eventually("there is room again", || hold(&client(1)).is_some());
}

#[test]
fn a_header_may_come_in_pieces_and_nothing_behind_it_is_lost() {
    let world = introduced("");
    let [_one] = world.serve("app", ["one"]);
    for header in [V1, V2] {
        let mut stream = world.say("");
        let request = b"GET /seen HTTP/1.1\r\nhost: a\r\n\r\nGET /seen HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let said = [header, request].concat();
        let (first, rest) = said.split_at(header.len() + 5);
        for piece in first.chunks(7) {
            stream.write_all(piece).expect("the proxy reads");
            std::thread::sleep(Duration::from_millis(2));
        }
        stream.write_all(rest).expect("the proxy reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("two answers");
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
        assert_eq!(answer.matches("203.0.113.7").count(), 2, "{answer}");
    }
}

#[test]
fn who_may_not_or_does_not_introduce_a_client_is_refused() {
    let world = introduced("");
    let [one] = world.serve("app", ["one"]);
    let request = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    assert_eq!(world.say_to_the_end(request), "");
    assert_eq!(world.say_to_the_end(format!("PROXY TCP4 203.0.113.7 192.0.2.1 04711 443\r\n{request}")), "");
    assert_eq!((headers(&world, "malformed"), one.requests()), (2.0, 0));
    let log = world.proxy.log();
    assert!(log.contains("a trusted proxy has to begin with a PROXY header, and there is no PROXY header"), "{log}");

    assert_eq!(world.say_to_the_end("PROXY TCP4 203.0."), "", "half a header is not waited for");
    assert_eq!(headers(&world, "timeout"), 1.0);
    drop(world.say("PROXY "));
    world.settles("a proxy that leaves", 1.0, || headers(&world, "closed"));

    let config = format!("{LISTENER}[proxy]\ntrusted_proxies = [\"192.0.2.0/24\"]\n");
    let world = World::setup().embedded().config(&config).start();
    let [one] = world.serve("app", ["one"]);
    assert_eq!(world.say_to_the_end([V1, request.as_bytes()].concat()), "");
    assert_eq!((headers(&world, "untrusted"), one.requests()), (1.0, 0));

    let out = world.run(&["check", "--config", "nobody.toml"]);
    assert!(!out.status.success());
    fs::write(world.folder().join("nobody.toml"), "[[listener]]\naddress = \"127.0.0.1:1\"\nproxy_protocol = true\n")
        .expect("a file");
    let out = world.run(&["check", "--config", "nobody.toml"]);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(said.contains("nobody.toml:2: listener[0].proxy_protocol: is true, but proxy.trusted_proxies is empty"), "{said}");
}

#[test]
fn instances_are_told_on_connections_that_nobody_shares() {
    let world = World::setup().embedded().start();
    world.put("/routes/app", r#"{"service":"app"}"#);
    world.put(
        "/services/app",
        r#"{"proxy_protocol":"v1","probe":{"kind":"http","path":"/healthz","interval":"1s","timeout":"500ms"}}"#,
    );
    let upstream = Raw::start(|mut line, _| {
        let Some(header) = line.until("\r\n") else { return };
        while line.request().is_some() {
            line.say(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{header}", header.len()));
        }
    });
    world.put("/instances/app/one", &upstream.address.to_string());
    let probe = || world.admin("/api/v1/services/app").json()["instances"][0]["probe"] == "up";
    world.eventually("a probe has introduced itself", probe);
    let before = upstream.accepted();
    let mut client = world.connect();
    let told: Vec<String> = (0..3).map(|_| client.ask("/").text().to_owned()).collect();
    assert!(told.iter().all(|header| header == &told[0]), "one client, told each time: {told:?}");
    let expected = "PROXY TCP4 127.0.0.1 127.0.0.1 ";
    assert!(told[0].starts_with(expected) && told[0].ends_with(&format!(" {}\r\n", world.listen.port())), "{told:?}");
    assert!(upstream.accepted() >= before + 3);
    assert_eq!(headers(&world, "sent"), 3.0);
}

#[test]
fn a_second_proxy_learns_of_the_client_from_the_first_over_every_protocol() {
    let inner = introduced("");
    let [_one] = inner.serve("app", ["one"]);
    let outer = World::setup().embedded().config("[proxy]\ntrusted_proxies = [\"127.0.0.1\"]\n").start();
    outer.put("/routes/edge", r#"{"service":"edge"}"#);
    outer.put("/services/edge", r#"{"proxy_protocol":"v2"}"#);
    let ask = || Ask::get("/seen").with("x-forwarded-for", "203.0.113.7");
    for protocol in ["http", "h2c"] {
        outer.put("/instances/edge/inner", &format!(r#"{{"address":"{}","protocol":"{protocol}"}}"#, inner.listen));
        for answer in [outer.get(ask()), outer.get_h2(ask())] {
            let seen = format!("\r\n\r\n{}", answer.text());
            assert_eq!(field_of(&seen, "x-forwarded-for"), "203.0.113.7", "{protocol}");
        }
    }
    assert_eq!((headers(&inner, "proxied"), headers(&outer, "sent")), (4.0, 4.0));
    outer.put("/instances/edge/inner", &inner.listen.to_string());
    let mut socket = outer.websocket("/ws");
    assert_eq!(outer.echo(&mut socket, "hello").as_deref(), Ok("hello"));
    assert_eq!(headers(&inner, "proxied"), 5.0);
    inner.eventually("probes introduce themselves", || headers(&inner, "local") > 0.0);
    assert_eq!(headers(&inner, "malformed"), 0.0);
}

#[test]
fn real_proxies_and_clients_are_understood() {
    let world = introduced("");
    let [_one] = world.serve("app", ["one"]);
    for (n, send) in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"].into_iter().enumerate() {
        let front = free_address();
        let config = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n\
             listen front\n bind {front}\n unique-id-format %ci\n server inner {} {send}\n",
            world.listen
        );
        let file = world.folder().join(format!("haproxy-{n}.cfg"));
        fs::write(&file, config).expect("HAProxy's file");
        let _haproxy = Program::start(Command::new("haproxy").arg("-db").arg("-f").arg(&file), &world.folder(), "haproxy");
        // 127.0.0.2 is no trusted proxy, 127.0.0.1 is one: so the header was read.
        let curl = || curl(&["--interface", "127.0.0.2", "-H", "X-Forwarded-For: 6.6.6.6", &format!("http://{front}/seen")]);
        world.eventually("HAProxy answers", || curl().contains("x-instance: one"));
        assert_eq!(field_of(&curl(), "x-forwarded-for"), "127.0.0.2", "{send}");
    }
    let answer = curl(&["--haproxy-protocol", &format!("http://{}/seen", world.listen)]);
    assert_eq!(field_of(&answer, "x-forwarded-for"), "127.0.0.1");
    assert_eq!(headers(&world, "malformed"), 0.0);
}

fn curl(args: &[&str]) -> String {
    let out = Command::new("curl").args(["-s", "-i", "--max-time", "5"]).args(args).output().expect("curl can be run");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn forwarded_is_written_where_it_is_asked_for() {
    let world = World::setup().embedded().config("[proxy]\nforwarded = true\n").start();
    let [_one] = world.serve("app", ["one"]);
    let answer = world.get(Ask::get("/seen").host("shop.example").with("forwarded", "for=6.6.6.6"));
    let seen = format!("\r\n\r\n{}", answer.text());
    assert_eq!(field_of(&seen, "forwarded"), "for=127.0.0.1;proto=http;host=\"shop.example\"");
}
