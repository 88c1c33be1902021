//! HTTP/2 to the frame: deadlines, ends, and what is no request.

use std::io::Read;
use std::time::{Duration, Instant};

use http::Version;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame as Part;

use crate::world::client::Connection;
use crate::world::frames::*;
use crate::world::raw::Raw;
use crate::world::{Answer, Ask, World};

const SHORT: &str =
    "[proxy.limits]\nhead_timeout = \"1s\"\nkeep_alive = \"1s\"\nbody_progress = \"1s\"\nanswer_progress = \"1s\"\n";

/// The service `app` on a proxy whose clients have to be quick.
fn impatient() -> (World, crate::world::upstream::Upstream) {
    let world = World::setup().config(SHORT).start();
    let [one] = world.serve("app", ["one"]);
    (world, one)
}

fn is_cut_for(world: &World, cause: &str) {
    world.settles(cause, Some(1.0), || world.metric("pointsman_http2_cuts_total", &[("cause", cause)]));
}

#[test]
fn a_head_that_does_not_end_is_not_waited_for() {
    let (world, one) = impatient();
    let fields = head("GET", "/", &[]);
    let begun = Instant::now();
    let mut slow = world.frames();
    slow.say(frame(HEADERS, END_STREAM, 1, &fields));
    slow.rest();
    is_cut_for(&world, "slow_head");
    // Each byte comes in time, the frame does not.
    let mut slow = world.frames();
    let whole = frame(HEADERS, END_STREAM | END_HEADERS, 1, &head("GET", "/", &[("x-long", &"x".repeat(100))]));
    let lasted = whole.iter().take_while(|byte| {
        std::thread::sleep(Duration::from_millis(50));
        slow.say([**byte])
    });
    assert!(lasted.count() < whole.len(), "it had all the time it wanted");
    assert!(begun.elapsed() < Duration::from_secs(12));
    assert_eq!((one.requests(), world.get_h2("/").status), (0, 200));
}

#[test]
fn an_idle_connection_is_told_that_it_closes() {
    let (world, _one) = impatient();
    let mut idle = world.frames();
    idle.say(get(1, "/slow?ms=1500"));
    let answer = idle.until(Frame::ends_stream);
    assert!(!answer.iter().any(|f| f.kind == GOAWAY), "while a request runs it is not idle: {answer:?}");
    let goodbye = idle.until(|f| f.kind == GOAWAY);
    assert_eq!(goodbye.last().and_then(Frame::error), Some(NO_ERROR), "{goodbye:?}");
    // What was on its way by then is answered still.
    idle.say(get(3, "/"));
    let answer = idle.until(Frame::ends_stream);
    assert_eq!(answer.last().map(|f| (f.stream, f.kind)), Some((3, DATA)), "{answer:?}");
    idle.rest();
    assert_eq!(world.metric("pointsman_http2_cuts_total", &[]), Some(0.0));
}

#[test]
fn a_stream_that_nobody_reads_is_reset_and_its_neighbours_are_not() {
    let (world, one) = impatient();
    // No stream has a window, until it is given one.
    let mut client = world.frames_with(&[(4, 0)]);
    client.say([get(1, "/bytes?n=300000"), get(3, "/"), frame(WINDOW_UPDATE, 0, 3, &[0, 0, 16, 0])].concat());
    let seen = client.until(|f| f.kind == RST_STREAM);
    assert!(seen.iter().any(|f| f.stream == 3 && f.ends_stream() && f.kind == DATA), "{seen:?}");
    assert_eq!(seen.last().map(|f| f.stream), Some(1), "{seen:?}");
    is_cut_for(&world, "slow_read");
    world.settles("the instance is rid of it", 0, || one.running());
    assert!(client.is_heard(), "the connection goes on");
}

/// It lets us send, and does not read: what waits for it is bounded, and so is the time.
#[test]
fn a_client_that_does_not_read_holds_little_and_not_for_long() {
    let world = World::setup().config("[proxy.limits]\nanswer_progress = \"3s\"\n").start();
    // Five hundred connect at once, and on a busy machine the instance takes its time; what it refused would not be waited for.
    world.put("/services/app", r#"{"v":1,"timeouts":{"connect":"30s"},"ejection":{"enabled":false}}"#);
    let [one] = world.serve("app", ["one"]);
    let memory = || world.metric("process_resident_memory_bytes", &[]).expect("memory");
    let before = memory();
    let clients: Vec<Frames> = (0..5)
        .map(|_| {
            let mut client = world.frames_with(&[(4, 0x7fff_ffff)]);
            client.say(frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes()));
            let asks: Vec<u8> = (0..100).flat_map(|n| get(2 * n + 1, "/bytes?n=10000000")).collect();
            client.say(asks);
            client
        })
        .collect();
    let mut most: f64 = 0.0;
    world.settles("all five are cut", Some(0.0), || {
        most = most.max(memory() - before);
        world.metric("pointsman_connections", &[])
    });
    assert!(world.metric("pointsman_http2_cuts_total", &[("cause", "slow_read")]) >= Some(5.0));
    assert!(one.requests() > 100, "{} were asked for", one.requests());
    // What waits of an answer: 64 KiB with the codec, and nine pieces of at most as much on their way to it.
    assert!(most < 500.0 * 10.0 * 65536.0, "{} MB for five clients of 100 streams each", most / 1e6);
    world.settles("the instance is rid of them", 0, || one.running());
    drop(clients);
    assert_eq!(world.get_h2("/").status, 200);
}

#[test]
fn an_upload_that_pauses_too_long_is_answered_408_and_its_neighbours_go_on() {
    let (world, one) = impatient();
    world.handle().block_on(async {
        let mut connection = Connection::open(world.listen, Version::HTTP_2).await.expect("the proxy accepts");
        let (_silent, parts) = tokio::sync::mpsc::channel::<Result<Part<bytes::Bytes>, std::io::Error>>(1);
        let body = StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(parts)).boxed_unsync();
        let response = connection.begin(&Ask::post("/count", ""), body).await.expect("an answer");
        let answer = Answer::read(response).await.expect("a whole one");
        assert_eq!((answer.status, answer.json()["error"].as_str()), (408, Some("slow_body")));
        assert_eq!(connection.ask("/").await.map(|a| a.status), Ok(200));
    });
    world.settles("the instance is rid of it", 0, || one.running());
}

#[test]
fn the_end_of_the_process_is_said_and_what_runs_is_answered() {
    let (mut world, [one]) = World::serving(["one"]);
    let mut client = world.frames();
    client.say(get(1, "/held"));
    world.settles("it runs", 1, || one.running());
    world.terminate();
    let goodbye = client.until(|f| f.kind == GOAWAY);
    assert_eq!(goodbye.last().and_then(Frame::error), Some(NO_ERROR), "{goodbye:?}");
    one.release();
    let ping = client.until(|f| f.kind == PING);
    client.say(frame(PING, ACK, 0, &ping.last().expect("the question how far it got").payload));
    let answer = client.rest();
    assert!(answer.iter().any(|f| f.stream == 1 && f.kind == DATA && f.ends_stream()), "{answer:?}");
    assert!(world.proxy_mut().exits_within(Duration::from_secs(20)).success());
}

/// What the frames of an answer say: its status, as far as the table of HPACK has it, and whether there is a body.
fn shape(answer: &[Frame]) -> (u8, bool) {
    let head = answer.iter().find(|f| f.kind == HEADERS).expect("a head");
    // A change of the size of the table may stand before it.
    let status = head.payload.iter().find(|byte| **byte & 0xe0 != 0x20).copied().unwrap_or_default();
    (status, answer.iter().any(|f| f.kind == DATA && !f.payload.is_empty()))
}

#[test]
fn answers_without_a_body_have_none() {
    let (world, [_one]) = World::serving(["one"]);
    let mut client = world.frames();
    for (stream, method, path, expected) in [
        (1, "HEAD", "/", (OK, false)),
        (3, "GET", "/status?code=204", (NO_CONTENT, false)),
        (5, "GET", "/status?code=304", (NOT_MODIFIED, false)),
        (7, "GET", "/", (OK, true)),
    ] {
        client.say(frame(HEADERS, END_HEADERS | END_STREAM, stream, &head(method, path, &[])));
        let answer = client.until(Frame::ends_stream);
        assert_eq!(shape(&answer), expected, "{method} {path}: {answer:?}");
        assert!(answer.iter().all(|f| f.kind != RST_STREAM), "{method} {path}: {answer:?}");
    }
}

#[test]
fn what_is_no_request_is_refused_alone_and_no_instance_sees_it() {
    let (world, [one]) = World::serving(["one"]);
    let mut client = world.frames();
    let usual = || [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];
    let with = |fields: &[(&str, &str)]| usual().iter().chain(fields).flat_map(|(n, v)| field(n, v)).collect::<Vec<u8>>();
    let only = |fields: &[(&str, &str)]| fields.iter().flat_map(|(n, v)| field(n, v)).collect::<Vec<u8>>();
    let [method, scheme, path, authority] = usual();
    let heads = [
        ("two hosts", with(&[("host", "b.example")])),
        ("two Host fields", with(&[("host", "a.example"), ("host", "a.example")])),
        ("no host", only(&[method, scheme, path])),
        ("a user in the host", only(&[method, scheme, path, (":authority", "u@a.example")])),
        ("no method", only(&[scheme, path, authority])),
        ("no path", only(&[method, scheme, authority])),
        ("an empty path", only(&[method, scheme, (":path", ""), authority])),
        ("a path that is none", only(&[method, scheme, (":path", "a"), authority])),
        ("an absolute path", only(&[method, scheme, (":path", "http://b.example/"), authority])),
        ("a line end in the path", only(&[method, scheme, (":path", "/ HTTP/1.1\r\nx: y"), authority])),
        ("a space in the path", only(&[method, scheme, (":path", "/ x"), authority])),
        ("a line end in a value", with(&[("x", "a\r\nb: c")])),
        ("a NUL in a value", with(&[("x", "a\0b")])),
        ("an upper case name", with(&[("X-Upper", "1")])),
        ("a colon in a name", with(&[("x:y", "1")])),
        ("an unknown pseudo field", with(&[(":x", "1")])),
        ("a pseudo field of answers", with(&[(":status", "200")])),
        ("two methods", with(&[(":method", "POST")])),
        ("two paths", with(&[(":path", "/admin")])),
        ("a pseudo field behind another", only(&[method, scheme, path, ("x", "y"), authority])),
        ("Connection", with(&[("connection", "close")])),
        ("Transfer-Encoding", with(&[("transfer-encoding", "chunked")])),
        ("Upgrade", with(&[("upgrade", "websocket")])),
        ("Keep-Alive", with(&[("keep-alive", "timeout=5")])),
        ("Proxy-Connection", with(&[("proxy-connection", "close")])),
        ("TE", with(&[("te", "gzip")])),
        ("a length of no body", with(&[("content-length", "5")])),
        ("two lengths", with(&[("content-length", "0"), ("content-length", "1")])),
        ("a length that is none", with(&[("content-length", "+0")])),
        ("CONNECT", only(&[(":method", "CONNECT"), (":authority", "a.example:80")])),
        ("extended CONNECT", with(&[(":protocol", "websocket")])),
    ];
    let mut accepted = Vec::new();
    for (n, (what, fields)) in heads.iter().enumerate() {
        let stream = 2 * n as u32 + 1;
        if n == 15 {
            // Pingora closes after so many of one connection.
            client = world.frames();
        }
        client.say(frame(HEADERS, END_HEADERS | END_STREAM, stream, fields));
        let answer = client.until(|f| f.ends_stream() || f.kind == GOAWAY);
        if answer.iter().any(|f| f.kind == GOAWAY) || answer.is_empty() {
            client = world.frames();
            continue;
        }
        if answer.last().is_some_and(|f| f.kind != RST_STREAM) && shape(&answer).0 == OK {
            accepted.push(*what);
        }
    }
    assert_eq!(accepted, [""; 0]);
    assert_eq!(one.requests(), 0);
    assert_eq!(world.get_h2("/").status, 200);
}

/// Half an answer does not look whole, however its end would have been known.
#[test]
fn an_answer_that_breaks_off_resets_its_stream() {
    let world = World::new();
    for (name, half) in [
        ("length", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
        ("chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        ("chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\nhalf"),
    ] {
        let instance = Raw::start(move |mut line, _| {
            if line.request().is_some() {
                line.say(half);
            }
        });
        world.put(&format!("/instances/{name}/one"), &format!(r#"{{"address":"{}"}}"#, instance.address));
        world.put(&format!("/services/{name}"), r#"{"probe":{"kind":"none"}}"#);
        world.put(&format!("/routes/{name}"), &format!(r#"{{"path_prefix":"/{name}","service":"{name}"}}"#));
        world.eventually("it is known", || world.metric("pointsman_instances", &[("service", name)]).is_some_and(|n| n > 0.0));
        let mut client = world.frames();
        client.say(get(1, &format!("/{name}")));
        let answer = client.until(Frame::ends_stream);
        assert!(answer.iter().any(|f| f.kind == HEADERS), "{name}: {answer:?}");
        assert_eq!(answer.last().map(|f| f.kind), Some(RST_STREAM), "{name}: {answer:?}");
        assert!(client.is_heard(), "{name}: only the stream");
    }
}

/// A service of an instance that speaks HTTP/2 like this, and one more if it has a name.
fn with_instance(world: &World, talk: impl Fn(&mut Frames, u32) + Send + Sync + 'static) -> Raw {
    let instance = Raw::start(move |line, _| {
        let Some(mut frames) = Frames::of_instance(line.stream) else { return };
        while let Some(head) = frames.until(|f| f.kind == HEADERS).last().filter(|f| f.kind == HEADERS) {
            talk(&mut frames, head.stream);
        }
    });
    world.put("/services/app", r#"{"probe":{"kind":"none"},"balance":"round_robin","ejection":{"enabled":false}}"#);
    world.put("/instances/app/odd", &format!(r#"{{"address":"{}","protocol":"h2c"}}"#, instance.address));
    world.put("/routes/app", r#"{"service":"app"}"#);
    world.eventually("it is known", || world.metric("pointsman_instances", &[("service", "app")]).is_some_and(|n| n > 0.0));
    instance
}

/// Whatever the method: the instance says that it has not looked at it.
#[test]
fn what_an_instance_has_not_looked_at_goes_to_another() {
    goes_to_another("REFUSED_STREAM", |frames, stream| {
        frames.say(frame(RST_STREAM, 0, stream, &[0, 0, 0, 7]));
    });
    goes_to_another("GOAWAY", |frames, _| {
        frames.say(frame(GOAWAY, 0, 0, &[0; 8]));
        frames.rest();
    });
}

fn goes_to_another(what: &str, talk: impl Fn(&mut Frames, u32) + Send + Sync + 'static) {
    let world = World::new();
    let odd = with_instance(&world, talk);
    let other = world.upstream("other");
    world.put("/instances/app/other", &format!(r#"{{"address":"{}","protocol":"h2c"}}"#, other.address));
    world.eventually("both are known", || world.metric("pointsman_instances", &[("state", "ready")]) == Some(2.0));
    for n in 0..6 {
        let answer = world.get_h2(Ask::post("/echo", "once"));
        assert_eq!((answer.status, answer.from(), answer.text()), (200, "other", "once"), "{what}, number {n}");
    }
    assert!(odd.accepted() > 0, "{what}: it was asked");
    assert_eq!(other.requests(), 6, "{what}");
}

#[test]
fn an_answer_of_http_2_that_breaks_off_looks_whole_in_neither_version() {
    let world = World::new();
    let breaks_off = |frames: &mut Frames, stream: u32| {
        let head = frame(HEADERS, END_HEADERS, stream, &[OK]);
        let half = frame(DATA, 0, stream, b"half");
        frames.say([head, half, frame(RST_STREAM, 0, stream, &[0, 0, 0, 2])].concat());
    };
    let _odd = with_instance(&world, breaks_off);
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let broken = world
            .handle()
            .block_on(async { Connection::open(world.listen, version).await.expect("the proxy accepts").ask("/").await });
        assert!(broken.as_ref().is_err() || broken.as_ref().is_ok_and(|a| a.status == 502), "{version:?}: {broken:?}");
    }
}

/// HTTP/2 lets clients split it; HTTP/1 knows one field of that name (RFC 9113, 8.2.3).
#[test]
fn cookies_in_several_fields_are_one_field_for_an_instance() {
    let (world, [_one]) = World::serving(["one"]);
    let ask = Ask::get("/seen").with("cookie", "a=1").with("cookie", "b=2").with("x-other", "x").with("cookie", "c=3");
    let fields = world.get_h2(ask).json()["fields"].as_array().expect("a list").clone();
    let cookies: Vec<_> = fields.iter().filter(|field| field[0] == "cookie").map(|field| field[1].clone()).collect();
    assert_eq!(cookies, ["a=1; b=2; c=3"], "{fields:?}");
}

/// Pingora drops them; what matters is that the request is whole without.
#[test]
fn trailers_of_a_request_are_left_out_and_end_it() {
    let (world, [one]) = World::serving(["one"]);
    let mut client = world.frames();
    client.say([post(1, "/count"), frame(DATA, 0, 1, b"twelve bytes")].concat());
    client.say(frame(HEADERS, END_HEADERS | END_STREAM, 1, &field("x-sum", "1")));
    let answer = client.until(Frame::ends_stream);
    let body: Vec<u8> = answer.iter().filter(|f| f.kind == DATA).flat_map(|f| f.payload.clone()).collect();
    assert_eq!(body, b"12", "{answer:?}");
    // It should be refused; the codec does not look, and nothing of it reaches anybody.
    client.say([post(3, "/seen"), frame(DATA, 0, 3, b"twelve bytes")].concat());
    client.say(frame(HEADERS, END_HEADERS | END_STREAM, 3, &field(":path", "/admin")));
    let answer = client.until(Frame::ends_stream);
    let body: Vec<u8> = answer.iter().filter(|f| f.kind == DATA).flat_map(|f| f.payload.clone()).collect();
    let seen = String::from_utf8_lossy(&body);
    assert!(seen.contains("\"path\":\"/seen\"") && seen.contains("\"body\":12") && !seen.contains("admin"), "{seen}");
    world.settles("nothing is left", 0, || one.running());
}

/// Pingora drops them as well, and the answer comes.
#[test]
fn interim_answers_are_left_out_over_http_2() {
    let instance =
        Raw::always("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let world = World::new();
    world.put("/services/app", r#"{"probe":{"kind":"none"}}"#);
    world.put("/instances/app/one", &instance.address.to_string());
    world.put("/routes/app", r#"{"service":"app"}"#);
    world.eventually("it is known", || world.metric("pointsman_instances", &[("service", "app")]).is_some_and(|n| n > 0.0));
    let mut client = world.frames();
    client.say(get(1, "/"));
    let answer = client.until(Frame::ends_stream);
    assert_eq!(answer.iter().filter(|f| f.kind == HEADERS).count(), 1, "{answer:?}");
    assert_eq!(shape(&answer), (OK, true));
}

#[test]
fn a_body_that_is_not_as_long_as_it_says_is_no_request() {
    let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let remembers = heard.clone();
    let instance = Raw::start(move |mut line, _| {
        let mut all = Vec::new();
        let _ = line.stream.read_to_end(&mut all);
        remembers.lock().expect("nobody panics with it").push(String::from_utf8_lossy(&all).into_owned());
    });
    let world = World::new();
    world.put("/services/app", r#"{"probe":{"kind":"none"}}"#);
    world.put("/instances/app/one", &instance.address.to_string());
    world.put("/routes/app", r#"{"service":"app"}"#);
    world.eventually("it is known", || world.metric("pointsman_instances", &[("service", "app")]).is_some_and(|n| n > 0.0));
    let mut client = world.frames();
    for (stream, data) in [(1, "four"), (3, "more than ten bytes")] {
        let fields = head("POST", "/", &[("content-length", "10")]);
        client.say(frame(HEADERS, END_HEADERS, stream, &fields));
        client.say(frame(DATA, END_STREAM, stream, data.as_bytes()));
        let answer = client.until(Frame::ends_stream);
        assert_eq!(answer.last().map(|f| f.kind), Some(RST_STREAM), "{data}: {answer:?}");
        assert!(client.is_heard(), "only the stream");
    }
    for said in heard.lock().expect("nobody panics with it").iter() {
        let body = said.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(said.contains("ontent-length: 10") || said.contains("ontent-Length: 10"), "{said}");
        assert!(body.len() < 10, "what looked whole: {said}");
    }
}

// Indexed fields of HPACK's static table.
const OK: u8 = 0x88;
const NO_CONTENT: u8 = 0x89;
const NOT_MODIFIED: u8 = 0x8b;
