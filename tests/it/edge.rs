//! Every limit of what clients may do acts: over HTTP/1 with either engine, over TLS, over HTTP/2. Who meets one is told as
//! much as the status says, the access log knows which it was, and a counter has its name.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::world::World;
use crate::world::client::PATIENCE;
use crate::world::frames::*;
use crate::world::ports::free_address;
use crate::world::raw::Raw;
use crate::world::tls::{Authority, connect};

/// What a client says, and what comes of it: the status (0: the connection is only closed), the limit, and the log's reason.
struct Case(Vec<u8>, u16, Option<&'static str>, Option<&'static str>);

fn cases() -> Vec<Case> {
    // Reads its body.
    let head = "POST /count HTTP/1.1\r\nHost: a\r\n";
    let field = "v".repeat(40_000);
    let fields: String = (0..21).map(|n| format!("x-{n}: 1\r\n")).collect();
    let target = "t".repeat(17_000);
    let chunk = "c".repeat(70_000);
    let case = |said: String, status, limit, reason| Case(said.into_bytes(), status, limit, reason);
    vec![
        case(format!("{head}X: "), 408, Some("head_timeout"), Some("slow_head")),
        case(String::new(), 0, Some("head_timeout"), None),
        case(format!("{head}Content-Length: 4\r\n\r\nsl"), 408, Some("body_progress"), Some("slow_body")),
        case(format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhel"), 408, Some("body_progress"), Some("slow_body")),
        case("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 200, Some("keep_alive"), None),
        case(format!("{head}X: {field}\r\n\r\n"), 431, Some("head_size"), Some("head_too_large")),
        case(format!("{head}X: {field}"), 431, Some("head_size"), Some("head_too_large")),
        case(format!("{head}{fields}\r\n"), 431, Some("fields"), Some("too_many_fields")),
        case(format!("GET /{target} HTTP/1.1\r\nHost: a\r\n\r\n"), 414, Some("target_size"), Some("target_too_long")),
        case(format!("{head}Content-Length: 70000\r\n\r\n"), 413, Some("body_size"), Some("body_too_large")),
        case(
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{chunk}\r\n0\r\n\r\n", chunk.len()),
            413,
            Some("body_size"),
            Some("body_too_large"),
        ),
        case(format!("{head}no token: 1\r\n\r\n"), 400, None, Some("malformed")),
        case("GET / HTTP/1.1\nHost: a\n\n".to_owned(), 400, None, Some("malformed")),
    ]
}

const LIMITS: &str = "head_timeout = '1s'\nbody_progress = '1s'\nanswer_progress = '1s'\nkeep_alive = '1s'\nhandshake = '1s'\n\
    fields = 20\nbody_size = '64KiB'\n";

fn acted(world: &World, limit: &str) -> f64 {
    world.metric("pointsman_limits_total", &[("limit", limit)]).expect("a series for every limit")
}

/// The lines of the access log with this reason.
fn logged(world: &World, reason: &str) -> Vec<Value> {
    let lines = world.proxy.out();
    let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["reason"] == reason).collect()
}

trait Carrier: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Carrier for T {}

/// Says all of it, and returns what comes back until the connection ends.
async fn outcome(mut stream: Box<dyn Carrier>, said: &[u8]) -> String {
    // Whoever is refused half way may be hung up on.
    let _ = stream.write_all(said).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection is closed");
    String::from_utf8_lossy(&answer).into_owned()
}

/// All cases at once, each on a connection of its own; `open` makes one.
fn all_act<F: Future<Output = Box<dyn Carrier>>>(world: &World, open: impl Fn() -> F) {
    let cases = cases();
    let count = |name: &str| (acted(world, name), cases.iter().filter(|case| case.2 == Some(name)).count());
    let names = ["head_timeout", "body_progress", "keep_alive", "head_size", "fields", "target_size", "body_size"];
    let before = names.map(count);
    let answers = world
        .handle()
        .block_on(futures_util::future::join_all(cases.iter().map(|Case(said, ..)| async { outcome(open().await, said).await })));
    for (Case(said, status, ..), answer) in cases.iter().zip(&answers) {
        let said = String::from_utf8_lossy(said);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        assert_eq!(head.split(' ').nth(1).unwrap_or("0"), status.to_string(), "{said:.100?}: {answer:.300?}");
        if *status < 400 {
            continue;
        }
        let told: Value = serde_json::from_str(body).expect("JSON");
        let message = told["message"].as_str().expect("a message");
        assert!(!message.contains(|c: char| c.is_ascii_digit()), "{said:.100?}: it is not told where the limit is: {message}");
        let id = &told["request_id"];
        world.eventually("its line, under the id that it was told", || {
            let lines = logged(world, told["error"].as_str().unwrap_or_default());
            lines.iter().any(|line| line["request_id"] == *id && line["status"] == *status)
        });
    }
    for (name, (before, n)) in names.into_iter().zip(before) {
        world.settles(name, before + n as f64, || acted(world, name));
    }
    for reason in cases.iter().filter_map(|case| case.3) {
        assert!(!logged(world, reason).is_empty(), "{reason}");
    }
}

async fn plain(to: SocketAddr) -> Box<dyn Carrier> {
    Box::new(TcpStream::connect(to).await.expect("the proxy accepts"))
}

/// Asks for more than all buffers hold, and reads nothing of it.
async fn unread(mut stream: Box<dyn Carrier>) -> Box<dyn Carrier> {
    stream.write_all(b"GET /bytes?n=50000000 HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("the proxy reads");
    stream
}

fn a_slow_reader_is_left<F: Future<Output = Box<dyn Carrier>>>(world: &World, open: impl Fn() -> F) {
    let (before, lines) = (acted(world, "answer_progress"), logged(world, "slow_read").len());
    let _kept = world.handle().block_on(async { unread(open().await).await });
    world.settles("who does not read is counted", before + 1.0, || acted(world, "answer_progress"));
    world.settles("and logged", lines + 1, || logged(world, "slow_read").len());
}

#[test]
fn clients_of_our_own_engine_meet_every_limit_over_tls_as_well() {
    let (at, authority) = (free_address(), Authority::new("Test Root"));
    let pair = authority.vouch(&["a.example"]);
    let config = format!(
        "[[listener]]\naddress = 'LISTEN'\n[[listener]]\naddress = '{at}'\n[listener.tls]\n\
         certificates = [{{ chain = 'a.pem', key = 'a.key' }}]\n[proxy.limits]\n{LIMITS}"
    );
    let setup = World::setup().embedded().config(&config).file("a.pem", &pair.chain).file("a.key", &pair.key);
    let world = setup.start();
    let [_one] = world.serve("app", ["one"]);
    world.eventually("it serves", || world.get("/").status == 200);
    let secure = || async {
        let stream = connect(at, "a.example", &authority.pem, &["http/1.1"]).await.expect("a handshake");
        Box::new(stream) as Box<dyn Carrier>
    };
    all_act(&world, || plain(world.listen));
    all_act(&world, secure);
    a_slow_reader_is_left(&world, || plain(world.listen));
    a_slow_reader_is_left(&world, secure);

    let unread = &logged(&world, "slow_head")[0];
    assert_eq!([&unread["method"], &unread["path"], &unread["host"]], [&Value::Null; 3], "nothing is said that was not read");
    assert!(unread["client"] == "127.0.0.1" && unread["total_ms"].as_f64() >= Some(900.0), "{unread}");
    let refused = || world.metric("pointsman_http_requests_total", &[("route", ""), ("code_class", "4xx")]);
    assert_eq!(refused(), Some(16.0), "they count as requests that met no route");

    let silent = world.handle().block_on(async { outcome(plain(at).await, b"").await });
    assert_eq!(silent, "", "a handshake that does not begin");
    world.settles("it is counted", 1.0, || acted(&world, "handshake"));
    let n = logged(&world, "malformed").len();
    let answer = world.handle().block_on(async { outcome(plain(at).await, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await });
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    world.settles("one line more", n + 1, || logged(&world, "malformed").len());
}

#[test]
fn clients_of_the_general_engine_meet_the_same() {
    let world = World::setup().embedded().config(&format!("[proxy.limits]\n{LIMITS}")).start();
    let [_one] = world.serve("app", ["one"]);
    // Never gets a request, and takes its service to the other engine.
    world.put("/instances/app/h2c", &format!(r#"{{"address":"{}","protocol":"h2c","weight":0}}"#, free_address()));
    let general = || world.metric("pointsman_http1_requests_total", &[("engine", "general")]) > Some(0.0);
    world.eventually("it serves", || world.get("/").status == 200 && general());
    all_act(&world, || plain(world.listen));
    a_slow_reader_is_left(&world, || plain(world.listen));
}

#[test]
fn clients_of_http_2_meet_those_that_it_has() {
    let world = World::setup().embedded().config(&format!("[proxy.limits]\n{LIMITS}")).start();
    let [one] = world.serve("app", ["one"]);
    world.eventually("it serves", || world.get("/").status == 200);
    let served = one.requests();
    let mut slow = world.frames();
    slow.say(frame(HEADERS, END_STREAM, 1, &head("GET", "/", &[])));
    let mut idle = world.frames();
    let mut silent = world.frames_with(&[(4, 0)]);
    silent.say(get(1, "/bytes?n=300000"));
    let fields: Vec<(String, &str)> = (0..21).map(|n| (format!("x-{n}"), "1")).collect();
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    // Larger than 32 KiB as it would stand in HTTP/1; the codec takes up to twice as much.
    let large = [head("GET", "/", &[]), remembered("x", &"v".repeat(3900)), vec![0xbe; 9]].concat();
    let mut client = world.frames();
    let ends = END_HEADERS | END_STREAM;
    client.say(frame(HEADERS, ends, 1, &large));
    client.say(frame(HEADERS, ends, 3, &head("GET", "/", &fields)));
    client.say(frame(HEADERS, END_HEADERS, 5, &head("POST", "/count", &[("content-length", "70000")])));
    client.say([post(7, "/count"), frame(DATA, 0, 7, b"half")].concat());
    let long = head("GET", &format!("/{}", "t".repeat(17_000)), &[]);
    let (first, rest) = long.split_at(16_000);
    client.say([frame(HEADERS, END_STREAM, 9, first), frame(CONTINUATION, END_HEADERS, 9, rest)].concat());
    let mut ended: Vec<u32> = Vec::new();
    while ended.len() < 5 {
        let frame = client.next().expect("an answer to each");
        if frame.ends_stream() && !ended.contains(&frame.stream) {
            ended.push(frame.stream);
        }
    }
    slow.rest();
    idle.rest();
    for (limit, reason) in [
        ("head_timeout", Some("slow_head")),
        ("keep_alive", None),
        ("answer_progress", Some("slow_read")),
        ("head_size", Some("head_too_large")),
        ("fields", Some("too_many_fields")),
        ("body_size", Some("body_too_large")),
        ("body_progress", Some("slow_body")),
        ("target_size", Some("target_too_long")),
    ] {
        world.eventually(limit, || acted(&world, limit) >= 1.0);
        if let Some(reason) = reason {
            world.eventually(reason, || logged(&world, reason).iter().any(|line| line["protocol"] == "HTTP/2.0"));
        }
    }
    // What paused had been begun.
    assert!(one.requests() <= served + 2, "{} reached the instance", one.requests() - served);
}

/// Whoever answers early does not have to read the rest, and the client is not heard for ever.
#[test]
fn the_rest_of_a_body_that_nobody_wants_is_not_waited_for_long() {
    let raw = Raw::start(|mut line, _| {
        line.head();
        line.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    });
    let world = World::setup().embedded().start();
    world.put("/services/app", r#"{"probe":{"kind":"none"}}"#);
    world.put("/instances/app/raw", &raw.address.to_string());
    world.put("/routes/app", r#"{"service":"app"}"#);
    world.eventually("it serves", || world.get("/").status == 200);
    let begun = Instant::now();
    // Both at once: it takes five seconds.
    let upload = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nno more";
    let mut own = world.say(upload);
    world.settles("our own engine has it", 1, || raw.heard_of("POST"));
    world.put("/instances/app/h2c", &format!(r#"{{"address":"{}","protocol":"h2c","weight":0}}"#, free_address()));
    let general = || world.metric("pointsman_http1_requests_total", &[("engine", "general")]) > Some(0.0);
    world.eventually("the other engine serves", || world.get("/").status == 200 && general());
    let mut general = world.say(upload);
    let mut multiplexed = world.frames();
    multiplexed.say([post(1, "/"), frame(DATA, 0, 1, b"no more")].concat());
    let answer = multiplexed.until(Frame::ends_stream);
    assert!(answer.last().is_some_and(|f| f.stream == 1), "{answer:?}");
    let running = || world.metric("pointsman_upstream_in_flight", &[("service", "app")]);
    world.settles("no place is taken any more", Some(0.0), running);
    for stream in [&mut own, &mut general] {
        let mut answer = String::new();
        std::io::Read::read_to_string(stream, &mut answer).expect("an answer and the end");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "not for as long as a body may pause");
    world.settles("both are counted", 2.0, || acted(&world, "unread_body"));
    assert!(multiplexed.is_heard(), "the other streams go on");
}
