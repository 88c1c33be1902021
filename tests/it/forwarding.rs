//! What an instance is told of a request, and a client of the response.

use crate::world::{Ask, Seen, World};

#[test]
fn an_instance_learns_who_asked_and_is_not_lied_to() {
    let (world, [_one]) = World::serving(["one"]);
    let lies = Ask::get("/seen?q=1")
        .host("shop.example")
        .with("x-forwarded-for", "6.6.6.6")
        .with("x-forwarded-proto", "https")
        .with("x-forwarded-host", "bank.example")
        .with("x-forwarded-port", "443")
        .with("x-real-ip", "6.6.6.6")
        .with("forwarded", "for=6.6.6.6")
        .with("x_forwarded_for", "6.6.6.6")
        .with("X_Real-IP", "6.6.6.6")
        .with("x-request-id", "chosen-by-a-stranger")
        .with("x-pointsman-debug", "1");
    for answer in [world.get(lies.clone()), world.get_h2(lies)] {
        let seen = Seen::of(&answer);
        assert_eq!((seen.one("host"), seen.text("query")), ("shop.example", "q=1"));
        assert_eq!(seen.one("x-forwarded-for"), "127.0.0.1");
        assert_eq!((seen.one("x-forwarded-proto"), seen.one("x-forwarded-host")), ("http", "shop.example"));
        for lie in ["x-forwarded-port", "x-real-ip", "forwarded", "x_forwarded_for", "x_real-ip"] {
            assert_eq!(seen.all(lie), Vec::<&str>::new(), "{lie} was forwarded");
        }
        let id = seen.one("x-request-id");
        assert!(id != "chosen-by-a-stranger" && id.len() >= 16, "{id}");
        assert_eq!(seen.all("x-pointsman-debug"), Vec::<&str>::new());
        assert_eq!(answer.field("x-pointsman-instance"), "", "a stranger is shown nothing");
    }
}

#[test]
fn a_trusted_proxy_is_believed() {
    let world = World::setup().config("[proxy]\ntrusted_proxies = [\"127.0.0.0/8\"]\n").start();
    let [_one] = world.serve("app", ["one"]);
    let answer = world.get(
        Ask::get("/seen")
            .with("x-forwarded-for", "203.0.113.9")
            .with("x-forwarded-proto", "https")
            .with("x-forwarded-host", "shop.example")
            .with("x-request-id", "edge-17")
            .with("x-pointsman-debug", "1"),
    );
    let seen = Seen::of(&answer);
    assert_eq!(seen.one("x-forwarded-for").replace(' ', ""), "203.0.113.9,127.0.0.1");
    assert_eq!((seen.one("x-forwarded-proto"), seen.one("x-forwarded-host")), ("https", "shop.example"));
    assert_eq!(seen.one("x-request-id"), "edge-17");
    assert_eq!((answer.field("x-pointsman-service"), answer.field("x-pointsman-instance")), ("app", "one"));
}

#[test]
fn a_trace_is_continued_or_begun() {
    let (world, [_one]) = World::serving(["one"]);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = world.get(Ask::get("/seen").with("traceparent", parent).with("tracestate", "a=1"));
    let seen = Seen::of(&answer);
    assert!(seen.one("traceparent").starts_with("00-0af7651916cd43dd8448eb211c80319c-") && seen.one("traceparent") != parent);
    assert_eq!(seen.one("tracestate"), "a=1");

    let answer = world.get(Ask::get("/seen").with("traceparent", "nonsense"));
    let seen = Seen::of(&answer);
    assert!(seen.one("traceparent").len() == 55 && !seen.one("traceparent").contains("nonsense"), "{}", seen.one("traceparent"));
}

#[test]
fn fields_of_one_connection_stay_on_it() {
    let (world, [_one]) = World::serving(["one"]);
    let raw = world.say_to_the_end(
        "GET /seen HTTP/1.1\r\nhost: a\r\nconnection: close, x-mine\r\nx-mine: 1\r\nkeep-alive: timeout=5\r\nproxy-connection: x\r\n\
         te: gzip\r\nupgrade: h2c\r\nx-kept: 1\r\n\r\n",
    );
    let (head, body) = raw.split_once("\r\n\r\n").expect("a whole answer");
    assert!(head.starts_with("HTTP/1.1 200"), "{raw}");
    let seen = Seen::in_body(body);
    for name in ["x-mine", "keep-alive", "proxy-connection", "te", "upgrade"] {
        assert_eq!(seen.all(name), Vec::<&str>::new(), "{name} was forwarded");
    }
    assert_eq!(seen.one("x-kept"), "1");

    let answer = world.get("/own-fields");
    assert_eq!((answer.field("x-secret"), answer.field("keep-alive"), answer.field("x-kept")), ("", "", "1"));
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let (world, [one]) = World::serving(["one"]);
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost : a\r\n\r\n",
    ] {
        let answer = world.say_to_the_end(request);
        assert!(answer.starts_with("HTTP/1.1 400"), "{request:?} was answered {answer:?}");
    }
    assert_eq!(one.requests(), 0);
    let too_large = format!("GET / HTTP/1.1\r\nhost: a\r\nx-large: {}\r\n\r\n", "x".repeat(40 * 1024));
    assert!(world.say_to_the_end(too_large).starts_with("HTTP/1.1 431"));
}
