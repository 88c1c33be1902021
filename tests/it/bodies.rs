//! Bodies of any size and shape pass as they are, in constant memory.

use std::io::{Read, Write};

use bytes::Bytes;
use futures_util::stream;
use http::Version;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use crate::world::client::{Answer, Body, Connection, whole};
use crate::world::{Ask, World};

#[test]
fn a_hundred_megabytes_pass_both_ways_in_constant_memory() {
    // Its peak of memory can only be set back by who may look into it.
    let world = World::setup().config("[process]\ncore_dumps = true\n").start();
    let [_one] = world.serve("app", ["one"]);
    for version in [Version::HTTP_11, Version::HTTP_2] {
        // What the process needs for any request at all is there before.
        world.handle().block_on(download(&world, version, 4 << 20));
        world.handle().block_on(upload(&world, version, 4 << 20));
        world.proxy.reset_memory_peak();
        let before = world.proxy.memory_peak_kib();
        world.handle().block_on(download(&world, version, HUNDRED_MEGABYTES));
        world.handle().block_on(upload(&world, version, HUNDRED_MEGABYTES));
        let grown = world.proxy.memory_peak_kib().saturating_sub(before);
        assert!(grown < GROWTH_MAX_KIB, "{version:?}: {grown} KiB more than before");
    }
}

#[test]
fn chunked_and_sized_bodies_arrive_as_sent() {
    let (world, [_one]) = World::serving(["one"]);
    let mut connection = world.connect();
    for n in [0, 1, 65_535, 65_536, 65_537, 1_000_000] {
        let body: Bytes = (0..n).map(|at| (at % 251) as u8).collect::<Vec<_>>().into();
        // An answer that begins before the request has ended may announce the connection's end, so this is one of its own.
        assert_eq!(world.get(Ask::post("/echo", body.clone())).body, body, "{n} bytes");
        assert_eq!(connection.ask(format!("/bytes?n={n}").as_str()).body.len(), n);
    }
    let chunked = world.say_to_the_end(
        "POST /count HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n5;x=y\r\ndefgh\r\n0\r\n\r\n",
    );
    assert!(chunked.starts_with("HTTP/1.1 200") && chunked.ends_with('8'), "{chunked}");
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it() {
    let (world, [_one]) = World::serving(["one"]);
    let mut stream =
        world.say("POST /count HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n");
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).expect("an interim answer");
    assert_eq!(String::from_utf8_lossy(&interim), "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"12345").expect("the proxy reads on");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("5"), "{answer}");
}

#[test]
fn head_has_the_fields_and_no_body() {
    let (world, [_one]) = World::serving(["one"]);
    let mut connection = world.connect();
    let answer = connection.ask(Ask::new("HEAD", "/"));
    assert_eq!((answer.status, answer.from(), answer.field("content-length"), answer.body.len()), (200, "one", "3", 0));
    assert_eq!(connection.ask("/").text(), "one", "the connection goes on");
    for code in [204, 304] {
        let answer = connection.ask(format!("/status?code={code}").as_str());
        assert_eq!((answer.status, answer.body.len(), answer.field("content-length")), (code, 0, ""), "{answer:?}");
    }
}

/// An upload over HTTP/2 whose end comes as an empty DATA frame made the proxy end the body twice upstream, and the
/// second end poisoned the connection for whoever got it next (Pingora #935).
#[test]
fn an_upload_that_ends_in_an_empty_frame_leaves_the_upstream_connection_clean() {
    let (world, [one]) = World::serving(["one"]);
    world.handle().block_on(async {
        let mut connection = Connection::open(world.listen, Version::HTTP_2).await.expect("the proxy accepts");
        for n in 0..20 {
            let frames = [Bytes::from_static(b"some bytes"), Bytes::new()].map(|data| Ok(Frame::data(data)));
            let body: Body = StreamBody::new(stream::iter(frames)).boxed_unsync();
            let response = connection.begin(&Ask::post("/count", ""), body).await.expect("an answer");
            let answer = Answer::read(response).await.expect("a whole answer");
            assert_eq!((answer.status, answer.text()), (200, "10"), "upload {n}");
            let next = connection.ask("/").await.expect("an answer");
            assert_eq!((next.status, next.text()), (200, "one"), "the request after upload {n}");
        }
    });
    assert_eq!(one.requests(), 40);
    assert!(one.accepted() <= 4, "connections are reused: {}", one.accepted());
}

async fn download(world: &World, version: Version, n: usize) {
    let mut connection = Connection::open(world.listen, version).await.expect("the proxy accepts");
    let ask = Ask::get(&format!("/bytes?n={n}"));
    let mut body = connection.begin(&ask, whole(Bytes::new())).await.expect("an answer").into_body();
    let mut arrived = 0;
    while let Some(frame) = body.frame().await {
        arrived += frame.expect("a whole body").data_ref().map_or(0, Bytes::len);
    }
    assert_eq!(arrived, n);
}

async fn upload(world: &World, version: Version, n: usize) {
    static PIECE: [u8; 64 * 1024] = [b'u'; 64 * 1024];
    let mut connection = Connection::open(world.listen, version).await.expect("the proxy accepts");
    let pieces = (0..n / PIECE.len()).map(|_| Ok(Frame::data(Bytes::from_static(&PIECE))));
    let body = StreamBody::new(stream::iter(pieces)).boxed_unsync();
    let response = connection.begin(&Ask::post("/count", ""), body).await.expect("an answer");
    let answer = Answer::read(response).await.expect("a whole answer");
    assert_eq!(answer.text(), n.to_string());
}

const HUNDRED_MEGABYTES: usize = 100 << 20;
/// Windows of HTTP/2 and buffers of sockets, some times over; a tenth of what passes.
const GROWTH_MAX_KIB: u64 = 10 << 10;

#[test]
fn a_body_that_is_too_large_is_refused_whether_its_head_says_so_or_not() {
    let world = World::setup().config("[proxy.limits]\nbody_size = \"100KiB\"\n").start();
    let [one] = world.serve("app", ["one"]);
    let (fits, too_large) = (vec![b'x'; 100 * 1024], vec![b'x'; 100 * 1024 + 1]);
    for version in [Version::HTTP_11, Version::HTTP_2] {
        world.handle().block_on(async {
            let pieces = |body: &[u8]| {
                let pieces: Vec<_> = body.chunks(10_000).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
                StreamBody::new(futures_util::stream::iter(pieces)).boxed_unsync()
            };
            let mut connection = Connection::open(world.listen, version).await.expect("the proxy accepts");
            let answer = connection.ask(Ask::post("/count", fits.clone())).await.expect("an answer");
            assert_eq!((answer.status, answer.text()), (200, "102400"), "{version:?}");
            let begun = connection.begin(&Ask::post("/count", ""), pieces(&fits)).await.expect("an answer");
            assert_eq!(begun.status(), 200, "{version:?} in pieces");
            Answer::read(begun).await.expect("a whole one");
            let asked = one.requests();
            let answer = connection.ask(Ask::post("/count", too_large.clone())).await.expect("an answer");
            assert_eq!((answer.status, answer.json()["error"].as_str()), (413, Some("body_too_large")), "{version:?}");
            assert_eq!(one.requests(), asked, "{version:?}: no instance was asked");
            let mut connection = Connection::open(world.listen, version).await.expect("the proxy accepts");
            let begun = connection.begin(&Ask::post("/count", ""), pieces(&too_large)).await.expect("an answer");
            assert_eq!(begun.status(), 413, "{version:?} in pieces");
        });
        world.settles("the instance is rid of it", 0, || one.running());
    }
    assert_eq!(
        world.metric("pointsman_upstream_requests_total", &[("outcome", "client_gone")]),
        Some(2.0),
        "nobody else's fault"
    );
}
