//! Requests and responses that are written so that two readers understand them differently, against the running binary.
//!
//! Behind each request of these tables another one is sent on the same connection. Either the first is refused, the connection is
//! closed and no instance hears a word; or an instance hears exactly what is expected, in the one form that nobody can read
//! otherwise (`reader` is that strict), and then the other request, as a request of its own. The tables hold the shapes that
//! were published (CL.TE, TE.CL, TE.TE, CL.0, chunk extensions, line folding and the rest) and what we thought of beside them.
//! Both engines have to pass all of them.

mod answers;
mod bodies;
mod heads;
mod reader;
mod targets;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use reader::Instance;

use crate::world::World;
use crate::world::ports::free_address;

/// One request and what has to become of it: the status it is refused with, or what an instance hears, as `reader` shows it.
/// With ` !` behind it, the connection ends with this request.
struct Case {
    bytes: Vec<u8>,
    expected: String,
}

impl Case {
    fn new(bytes: impl Into<Vec<u8>>, expected: &str) -> Self {
        Self { bytes: bytes.into(), expected: expected.to_owned() }
    }
}

#[test]
fn our_own_engine_passes_on_what_can_be_read_in_one_way() {
    let world = World::new();
    let instance = Instance::start();
    serve(&world, &instance, false);
    check(&world, &instance, "own", heads::cases().into_iter().chain(bodies::cases()).chain(targets::cases()).collect());
}

#[test]
fn so_does_the_general_engine() {
    let world = World::new();
    let instance = Instance::start();
    serve(&world, &instance, true);
    let mut cases: Vec<Case> = heads::cases().into_iter().chain(bodies::cases()).chain(targets::cases()).collect();
    // It drops trailers.
    cases.iter_mut().for_each(|case| case.expected = case.expected.split(" +").next().unwrap_or_default().to_owned());
    check(&world, &instance, "general", cases);
}

fn check(world: &World, instance: &Instance, engine: &str, cases: Vec<Case>) {
    assert!(cases.len() > 500, "only {} cases", cases.len());
    let wrong: Vec<String> = cases.iter().filter_map(|case| run(world, instance, case).err()).collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    let served = world.metric("pointsman_http1_requests_total", &[("engine", engine)]);
    assert!(served > Some(100.0), "{engine} served {served:?}");
}

/// An instance for every request. `general`: one beside it speaks HTTP/2 and never gets any, so that the other engine serves.
fn serve(world: &World, instance: &Instance, general: bool) {
    let record = |id: &str, value: String| (format!("/instances/app/{id}"), Some(value));
    let mut records = vec![
        ("/services/app".to_owned(), Some(r#"{"probe":{"kind":"none"}}"#.to_owned())),
        ("/routes/app".to_owned(), Some(r#"{"service":"app"}"#.to_owned())),
        record("raw", instance.address.to_string()),
    ];
    if general {
        records.push(record("h2c", format!(r#"{{"address":"{}","protocol":"h2c","weight":0}}"#, free_address())));
    }
    world.transact(&records);
}

fn run(world: &World, instance: &Instance, case: &Case) -> Result<(), String> {
    let (expected, goes_on) = match case.expected.strip_suffix(" !") {
        Some(expected) => (expected, false),
        None => (&case.expected[..], true),
    };
    let answer = ask(world, &[&case.bytes[..], AFTER].concat());
    let heard = instance.forget();
    let told = |what: &str| {
        let bytes = String::from_utf8_lossy(&case.bytes);
        Err(format!("{what}\n   sent {bytes:.300?}\n   should {:?}\n   heard {heard:?}\n   answer {answer:.200?}", case.expected))
    };
    if let Some(odd) = heard.iter().find(|request| request.starts_with("ODD")) {
        return told(odd);
    }
    let n_answers = answer.matches("HTTP/1.1 ").count();
    if expected.parse::<u16>().is_ok() {
        return match () {
            () if !heard.is_empty() => told("an instance heard of it"),
            () if n_answers != 1 => told("one answer, and then the end"),
            () if !answer.starts_with(&format!("HTTP/1.1 {expected} ")) => told("another status"),
            () if !answer.to_ascii_lowercase().contains("connection: close\r\n") => {
                told("nobody said that the connection is closed")
            }
            () => Ok(()),
        };
    }
    let mut should: Vec<&str> = expected.split(" | ").collect();
    if goes_on {
        should.push("GET /after");
    }
    match () {
        () if heard != should => told("an instance heard something else"),
        () if n_answers != should.len() => told("as many answers as requests"),
        () => Ok(()),
    }
}

/// What comes back until the connection ends, or nothing comes for so long that it does not matter any more.
fn ask(world: &World, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(world.listen).expect("the proxy accepts");
    stream.set_read_timeout(Some(Duration::from_secs(3))).expect("a deadline for reads");
    // Whoever is refused half way may be hung up on.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

const AFTER: &[u8] = b"GET /after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
