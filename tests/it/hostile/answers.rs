//! Responses that can be read in two ways: 502, and their connection is not used again. Those that cannot reach the client in
//! one form, whatever form they came in.

use std::io::Read;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use super::free_address;
use crate::world::World;
use crate::world::raw::Raw;

/// An instance that says what it is told to say next.
struct Told {
    raw: Raw,
    next: Arc<Mutex<Vec<u8>>>,
}

impl Told {
    fn start() -> Self {
        let next = Arc::<Mutex<Vec<u8>>>::default();
        let said = next.clone();
        let raw = Raw::start(move |mut line, _| {
            while line.request().is_some() {
                let answer = said.lock().expect("no story panics while it holds this").clone();
                line.say(&answer);
                if answer.starts_with(b"HTTP/1.0") || answer.windows(UNTIL_END.len()).any(|w| w == UNTIL_END) {
                    return;
                }
            }
        });
        Self { raw, next }
    }
}

#[test]
fn our_own_engine_takes_responses_that_can_be_read_in_one_way() {
    check(false);
}

#[test]
fn so_does_the_general_engine() {
    check(true);
}

fn check(general: bool) {
    // One, so that the connection that one request has left is the next one's.
    let world = World::setup().config("[proxy]\nworkers = 1\n").start();
    let told = Told::start();
    let mut records = vec![
        ("/services/app".to_owned(), Some(r#"{"probe":{"kind":"none"},"ejection":{"enabled":false}}"#.to_owned())),
        ("/routes/app".to_owned(), Some(r#"{"service":"app"}"#.to_owned())),
        ("/instances/app/raw".to_owned(), Some(told.raw.address.to_string())),
    ];
    if general {
        let other = format!(r#"{{"address":"{}","protocol":"h2c","weight":0}}"#, free_address());
        records.push(("/instances/app/h2c".to_owned(), Some(other)));
    }
    world.transact(&records);
    let table = if general { ANSWERS.to_vec() } else { [ANSWERS, MENDED].concat() };
    let cases: Vec<(Vec<u8>, String)> =
        table.iter().map(|(answer, expected)| (answer.to_vec(), (*expected).to_owned())).chain(large()).collect();
    let mut wrong = Vec::new();
    for (answer, expected) in &cases {
        told.next.lock().expect("no story panics while it holds this").clone_from(answer);
        let before = told.raw.accepted();
        let got = [(); 2].map(|()| shown(&ask(&world)));
        // Whatever it was used for, the connection that was kept before this may serve the first of the two.
        let fresh = told.raw.accepted() - before;
        let (body, keeps) = expected.strip_suffix(" !").map_or((&expected[..], true), |body| (body, false));
        let is_kept = fresh <= 1 || body.ends_with("502");
        if got.iter().any(|shown| shown != body) || (keeps && !is_kept) || (!keeps && fresh == 0) {
            let answer = String::from_utf8_lossy(answer);
            wrong.push(format!("{answer:.200?}\n   should {expected:.200?}\n   got {got:.300?} on {fresh} new connections"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// `STATUS BODY`, or what is wrong with the answer as the client got it.
fn shown(answer: &str) -> String {
    let Some((head, mut rest)) = answer.split_once("\r\n\r\n") else { return format!("no head: {answer:?}") };
    let status = head.split(' ').nth(1).unwrap_or_default();
    let fields = head.to_ascii_lowercase();
    let stands = |name: &str| fields.lines().filter(|line| line.starts_with(name)).count();
    let is_interim = status.starts_with('1');
    let odd = stands("content-length:") + stands("transfer-encoding:") > 1 || stands("connection:") != usize::from(!is_interim);
    if odd
        || stands("keep-alive:") + stands("proxy-connection:") + stands("upgrade:") > 0
        || (stands("via:") != 1 && status != "502" && !is_interim)
    {
        return format!("odd fields: {head:?}");
    }
    if is_interim {
        return format!("{status} | {}", shown(rest));
    }
    if status == "502" {
        return "502".to_owned();
    }
    let mut body = String::new();
    if fields.contains("transfer-encoding: chunked") {
        loop {
            let Some((size, more)) = rest.split_once("\r\n") else { return format!("{status} {body} cut off") };
            let Ok(n) = usize::from_str_radix(size, 16) else { return format!("no size: {size:?}") };
            if n == 0 {
                return format!("{status} {body}").trim_end().to_owned();
            }
            let Some(piece) = more.get(..n) else { return format!("{status} {body} cut off") };
            body += piece;
            rest = &more[n + 2..];
        }
    }
    format!("{status} {rest}").trim_end().to_owned()
}

fn ask(world: &World) -> String {
    let mut stream: TcpStream = world.say("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Marks answers behind which the instance closes its connection.
const UNTIL_END: &[u8] = b"X-Until: end";

/// What the instance says, and what the client gets; ` !`: the instance's connection is not used again.
const ANSWERS: &[(&[u8], &str)] = &[
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "200 ok"),
    (b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", "200 ok"),
    (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", "200 ok"),
    (b"HTTP/1.1 299 What \xe9 is\r\nContent-Length: 2\r\n\r\nok", "299 ok"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 02\r\n\r\nok", "200 ok"),
    (b"HTTP/1.1 200 OK\r\ncontent-length:2\r\n\r\nok", "200 ok"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "200 ok"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n002;a\r\nok\r\n0\r\n\r\n", "200 ok"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "200"),
    (b"HTTP/1.1 200 OK\r\nX-Until: end\r\n\r\nok", "200 ok !"),
    (b"HTTP/1.0 200 OK\r\n\r\nok", "200 ok !"),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "200 ok !"),
    (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\nX-Until: end\r\n\r\nok", "200 ok !"),
    (b"HTTP/1.1 204 No Content\r\n\r\n", "204"),
    (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "204"),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n", "304"),
    (b"HTTP/1.1 200 OK\r\nConnection: x-inner, keep-alive\r\nX-Inner: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nContent-Length: 2\r\n\r\nok", "200 ok"),
    (b"HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nok", "200 ok"),
    (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "103 | 200 ok"),
    // Two lengths, or none that everybody reads alike.
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", "502 !"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2,3\r\n\r\nok!", "502 !"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2 2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nok", "502 !"),
    // Codings.
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "502 !"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", "502 !"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "502 !"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n", "502 !"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nX-Until: end\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "502 !"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", "502 !"),
    (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "502 !"),
    // Not one answer to one request.
    (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", "200 ok !"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", "200 ok !"),
    (b"HTTP/1.1 204 No Content\r\n\r\npoison", "204 !"),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison", "304 !"),
];

/// What the general engine mends before anybody can look at it: the client gets one whole answer, or one that breaks off, but no
/// 502. What it mends it has read in one way and written anew, so it stays between us and the instance.
const MENDED: &[(&[u8], &str)] = &[
    // Chunks.
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", "502 !"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n;a\r\n\r\n", "502 !"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 2\r\nok\r\n0\r\n\r\n", "502 !"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n", "502 !"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a\nb\r\nok\r\n0\r\n\r\n", "502 !"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n", "502 !"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000002\r\nok\r\n0\r\n\r\n", "502 !"),
    // The head.
    (b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 200 OK\r\nX: 1\r\n folded\r\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 200 OK\r\n X: 1\r\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 200 OK\r\nX: a\x01b\r\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 200 OK\r\nX: a\x7fb\r\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 200 OK\r\nX: a\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 200 OK\r\nX Y: 1\r\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 200 OK\r\n: 1\r\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "502 !"),
    (b"HTTP/1.1 200 O\0K\r\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 099 No\r\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 -20 OK\r\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 2x0 OK\r\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b"ICY 200 OK\r\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "502 !"),
    (b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b" HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "502 !"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "502 !"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n", "502 !"),
    (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n", "204 !"),
];

fn large() -> Vec<(Vec<u8>, String)> {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let many = |n: usize| (0..n).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    [
        (format!("HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\nok", many(100)), "200 ok".to_owned()),
        (format!("HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\nok", many(300)), "502 !".to_owned()),
        (format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 2\r\n\r\nok", "v".repeat(20_000)), "200 ok".to_owned()),
        (format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 2\r\n\r\nok", "v".repeat(2_000_000)), "502 !".to_owned()),
        (format!("{}{answer}", hints.repeat(5)), format!("{}200 ok", "103 | ".repeat(5))),
        (format!("{}{answer}", hints.repeat(5000)), format!("{}502 !", "103 | ".repeat(32))),
    ]
    .map(|(answer, expected)| (answer.into_bytes(), expected))
    .into()
}
