//! What a client of HTTP/2 can ask for without end, and how it ends. Its connection is cut and counted by cause; nobody
//! else notices.

use crate::world::World;
use crate::world::frames::*;

fn cuts(world: &World, cause: &str) -> f64 {
    world.metric("pointsman_http2_cuts_total", &[("cause", cause)]).expect("a series for every cause")
}

/// Says the same again and again until it is enough: the connection has ended, with this cause, and after no more than
/// `most` of them.
fn is_cut(world: &World, cause: &str, opening: &[u8], most: usize, piece: impl Fn(u32) -> Vec<u8>) {
    let before = cuts(world, cause);
    let mut neighbour = world.connect_h2();
    assert_eq!(neighbour.ask("/").status, 200);
    let mut attacker = world.frames();
    attacker.say(opening);
    // In portions, each of which has been read before the next one.
    let portions = most.div_ceil(PORTION) as u32;
    let lasted = (0..portions).find(|portion| {
        let pieces: Vec<u8> = (0..PORTION as u32).flat_map(|n| piece(portion * PORTION as u32 + n)).collect();
        !attacker.say(pieces) || !attacker.is_heard()
    });
    assert!(lasted.is_some(), "{cause}: {most} were not enough");
    world.settles(&format!("{cause} is counted"), before + 1.0, || cuts(world, cause));
    assert_eq!(neighbour.ask("/").status, 200, "{cause}: a neighbour on the same proxy");
}

/// Streams of a client have odd numbers.
fn stream(n: u32) -> u32 {
    2 * n + 1
}

#[test]
fn what_costs_us_and_brings_nothing_has_an_end() {
    let (world, [one]) = World::serving(["one"]);
    let reset = |n| [get(stream(n), "/held"), frame(RST_STREAM, 0, stream(n), &CANCEL)].concat();
    is_cut(&world, "resets", &[], 260, reset);
    is_cut(&world, "pings", &[], 200, |_| frame(PING, 0, 0, &[1; 8]));
    is_cut(&world, "settings", &[], 60, |_| frame(SETTINGS, 0, 0, &[]));
    is_cut(&world, "window_updates", &[], 2000, |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]));
    is_cut(&world, "priorities", &[], 1000, |n| frame(PRIORITY, 0, stream(n), &[0, 0, 0, 0, 1]));
    is_cut(&world, "priorities", &[], 1000, |_| frame(0xfa, 0, 0, b"no type that anybody knows"));
    is_cut(&world, "empty_data", &post(1, "/count"), 100, |_| frame(DATA, 0, 1, &[]));
    let in_pieces = frame(HEADERS, END_STREAM, 1, &head("GET", "/", &[]));
    is_cut(&world, "continuations", &in_pieces, 20, |_| frame(CONTINUATION, 0, 1, &[]));
    // We reset these ourselves, because of what the client sends on them.
    let too_far = [0x7f, 0xff, 0xff, 0xff];
    let provoked = |n| [post(stream(n), "/count"), frame(WINDOW_UPDATE, 0, stream(n), &too_far)].concat();
    is_cut(&world, "faults", &[], 150, provoked);
    world.settles("what was asked for is given up", 0, || one.running());
}

/// Before they have even begun: the codec counts these, and we count it.
#[test]
fn streams_that_are_taken_back_at_once_end_the_connection() {
    let (world, [one]) = World::serving(["one"]);
    let mut attacker = world.frames();
    let burst: Vec<u8> =
        (0..500).flat_map(|n| [get(stream(n), "/held"), frame(RST_STREAM, 0, stream(n), &CANCEL)].concat()).collect();
    attacker.say(burst);
    attacker.rest();
    world.eventually("it is counted", || cuts(&world, "codec") + cuts(&world, "resets") == 1.0);
    world.settles("what was asked for is given up", 0, || one.running());
    assert!(one.requests() < 300, "{} of them reached the instance", one.requests());
}

/// Each reference is a byte here and four thousand in memory.
#[test]
fn heads_that_grow_when_they_are_read_are_refused() {
    let (world, [one]) = World::serving(["one"]);
    // Ten are more than we allow, twenty more than the codec does.
    let bomb = |references: usize| {
        let fields = [head("GET", "/", &[]), remembered("bomb", &"x".repeat(3900)), vec![0xbe; references]].concat();
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields)
    };
    let mut large = world.frames();
    large.say(bomb(10));
    let answer = large.until(Frame::ends_stream);
    assert!(answer.last().is_some_and(|f| f.stream == 1), "refused alone: {answer:?}");
    assert!(large.is_heard(), "the connection goes on");
    let mut huge = world.frames();
    huge.say(bomb(10_000));
    let answer = huge.rest();
    assert!(answer.iter().any(|f| f.kind == GOAWAY), "the connection ends: {answer:?}");
    let again = |n: u32| {
        let fields = [head("GET", "/", &[]), remembered("bomb", &"x".repeat(3900)), vec![0xbe; 20]].concat();
        frame(HEADERS, END_HEADERS | END_STREAM, stream(n), &fields)
    };
    is_cut(&world, "heads", &[], 300, again);
    // Its own requests are the neighbour's.
    assert_eq!(one.requests(), 2);
}

#[test]
fn fields_without_a_name_are_no_head() {
    let (world, [one]) = World::serving(["one"]);
    let mut attacker = world.frames();
    let nameless = [head("GET", "/", &[]), vec![0; 3 * 4000]].concat();
    attacker.say(frame(HEADERS, END_HEADERS | END_STREAM, 1, &nameless));
    let answer = attacker.until(|f| f.kind == GOAWAY || f.kind == RST_STREAM);
    assert!(answer.last().is_some_and(|f| f.error().is_some_and(|code| code != NO_ERROR)), "{answer:?}");
    assert_eq!((one.requests(), world.get("/").status), (0, 200));
}

#[test]
fn more_streams_than_allowed_are_refused_and_many_more_are_too_much() {
    let (world, [one]) = World::serving(["one"]);
    let mut client = world.frames();
    let many: Vec<u8> = (0..120).flat_map(|n| get(stream(n), "/held")).collect();
    client.say(many);
    assert!(client.is_heard(), "the first of a new client may be too many");
    world.settles("as many as may run do", 100, || one.running());
    one.release();
    let mut ends = 0;
    while ends < 100 {
        ends += usize::from(client.next().expect("answers").ends_stream());
    }
    drop(client);
    is_cut(&world, "heads", &[], 450, |n| get(stream(n), "/slow?ms=3000"));
}

/// Whoever asks for a lot and takes what it gets is no attacker.
#[test]
fn a_busy_client_is_left_alone() {
    let (world, [_one]) = World::serving(["one"]);
    let mut client = world.frames();
    for n in 0..1500 {
        // As careful clients do: a priority and a window for each stream, a ping and a window for each piece.
        let said = [
            get(stream(n), "/"),
            frame(PRIORITY, 0, stream(n), &[0, 0, 0, 0, 1]),
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 100]),
            frame(WINDOW_UPDATE, 0, stream(n), &[0, 0, 0, 100]),
        ];
        assert!(client.say(said.concat()), "request {n}");
        let answer = client.until(Frame::ends_stream);
        assert_eq!(answer.last().map(|f| (f.stream, f.kind)), Some((stream(n), DATA)), "request {n}: {answer:?}");
        // Too late to matter.
        client.say(frame(RST_STREAM, 0, stream(n), &CANCEL));
        assert!(client.is_heard(), "request {n}");
    }
    assert_eq!(world.metric("pointsman_http2_cuts_total", &[]), Some(0.0));
}

#[test]
fn whoever_is_cut_is_told_why() {
    let (world, [_one]) = World::serving(["one"]);
    let mut attacker = world.frames();
    attacker.say(get(1, "/"));
    attacker.until(Frame::ends_stream);
    attacker.say(frame(PING, 0, 0, &[1; 8]).repeat(101));
    let goodbye = attacker.rest().into_iter().find(|f| f.kind == GOAWAY).expect("a word");
    assert_eq!((goodbye.error(), &goodbye.payload[..4]), (Some(ENHANCE_YOUR_CALM), &[0, 0, 0, 1][..]));
}

/// Of a flood that is read in one go before it is enough.
const PORTION: usize = 15;
