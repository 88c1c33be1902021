//! Slow and silent clients lose their connection at the configured time, and only they. Broken ones are not our trouble.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::world::World;

const SHORT: &str = "[proxy.limits]\nhead_timeout = \"1s\"\nkeep_alive = \"1s\"\n";

#[test]
fn an_idle_connection_is_closed_when_its_time_is_over() {
    let world = World::setup().config(SHORT).start();
    let [_one] = world.serve("app", ["one"]);
    let mut idle = world.say("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let closed = closed_after(&mut idle);
    assert!(around_a_second(closed), "closed after {closed:?}");
    let mut silent = world.say("");
    let closed = closed_after(&mut silent);
    assert!(around_a_second(closed), "one that never spoke was closed after {closed:?}");
}

/// Each byte comes in time, the head does not.
#[test]
fn a_head_that_trickles_in_is_cut_off() {
    let world = World::setup().config(SHORT).start();
    let [one] = world.serve("app", ["one"]);
    let mut slow = world.say("GET / HTTP/1.1\r\nhost: a\r\nx-slow: ");
    let mut trickle = slow.try_clone().expect("a second handle");
    std::thread::spawn(move || {
        // Ends with the connection.
        while trickle.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let closed = closed_after(&mut slow);
    assert!(around_a_second(closed), "cut off after {closed:?}");
    assert_eq!(one.requests(), 0);
    assert_eq!(world.get("/").status, 200);
}

/// Shorter than the preface of HTTP/2, for which a listener that speaks both has to look first.
#[test]
fn a_request_shorter_than_the_preface_of_http_2_is_answered() {
    let (world, [_one]) = World::serving(["one"]);
    let begun = Instant::now();
    let answer = world.say_to_the_end("GET / HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.") && answer.ends_with("one"), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// Anybody can send garbage; whoever reads the log at night cannot do anything about it.
#[test]
fn broken_heads_are_answered_and_leave_no_line_in_our_log() {
    let strangers = |world: &World| {
        let [one] = world.serve("app", ["one"]);
        for garbage in ["GET / HTTP/1.1\r\nhost: a\r\n: nameless\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", "G@T\r\n\r\n"]
        {
            let answer = world.say_to_the_end(garbage);
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{garbage:?}: {answer}");
        }
        // Half a head: this is what the library calls an error.
        let mut half = world.say("GET /half HTTP/1.1\r\nho");
        half.shutdown(Shutdown::Write).expect("a connection that was open");
        closed_after(&mut half);
        world.say_to_the_end("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nthis is no frame of HTTP/2 at all");
        assert_eq!((world.get("/").status, one.requests()), (200, 1));
        let log = world.proxy.log();
        log.lines().filter(|line| !line.contains(" pointsman::")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(strangers(&World::new()), [""; 0]);
    let asked = strangers(&World::setup().config("[log]\nfilter = \"info,pingora=error\"\n").start());
    assert_eq!(asked, [""; 0], "a head that is broken does not even reach the library");
}

#[test]
fn one_address_has_no_more_connections_than_it_may() {
    let world = World::setup().config("[proxy.limits]\nconnections_per_address = 3\n").start();
    let [_one] = world.serve("app", ["one"]);
    let limited = |limit: &str| world.metric("pointsman_limits_total", &[("limit", limit)]);
    let mut held: Vec<_> = (0..3).map(|_| world.say("GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n")).collect();
    held.iter_mut().for_each(|stream| assert!(stream.read(&mut [0]).is_ok_and(|n| n == 1), "it is served"));
    let mut refused = TcpStream::connect(world.listen).expect("the kernel accepts");
    assert!(!refused.read(&mut [0]).is_ok_and(|n| n > 0), "closed without a byte");
    assert_eq!((limited("connections_per_address"), limited("connections")), (Some(1.0), Some(0.0)));
    held.pop();
    world.eventually("there is room again", || world.say_to_the_end("GET / HTTP/1.0\r\n\r\n").ends_with("one"));
}

#[test]
fn who_finds_no_room_waits_until_another_leaves() {
    let world = World::setup()
        .config("[proxy.limits]\nconnections = 2\nconnections_per_address = 2\n[proxy]\ntrusted_proxies = [\"127.0.0.0/8\"]\n")
        .start();
    let [_one] = world.serve("app", ["one"]);
    let mut held: Vec<_> = (0..2).map(|_| world.say("GET / HTTP/1.1\r\nhost: a\r\n\r\n")).collect();
    held.iter_mut().for_each(|stream| assert!(stream.read(&mut [0]).is_ok_and(|n| n == 1), "it is served"));
    let mut waiting = world.say("GET / HTTP/1.0\r\n\r\n");
    world.settles("one waits", Some(1.0), || world.metric("pointsman_limits_total", &[("limit", "connections")]));
    drop(held);
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).expect("an answer");
    assert!(answer.ends_with("one"), "{answer}");
}

#[test]
fn a_websocket_on_which_nothing_moves_is_closed_with_a_word_and_counted() {
    let world = World::setup().embedded().start();
    let [_one] = world.serve("app", ["one"]);
    world.put("/services/app", r#"{"timeouts":{"upgraded_idle":"500ms"}}"#);
    let mut socket = world.websocket("/ws");
    assert_eq!(world.echo(&mut socket, "hello").as_deref(), Ok("hello"));
    assert_eq!(world.handle().block_on(socket.close_code()), Some(1001));
    world.settles("it is counted", Some(1.0), || world.metric("pointsman_limits_total", &[("limit", "upgraded_idle")]));
    world.eventually("and logged", || world.proxy.out().contains(r#""reason":"upgraded_idle""#));
    // One that its client closes is neither.
    drop(world.websocket("/ws"));
    let closed = || world.proxy.out().lines().filter(|line| line.contains(r#""status":101"#)).count();
    world.settles("both have their lines", 2, closed);
    assert_eq!(world.metric("pointsman_limits_total", &[("limit", "upgraded_idle")]), Some(1.0));
}

fn closed_after(stream: &mut TcpStream) -> Duration {
    let begun = Instant::now();
    let mut rest = Vec::new();
    // A reset closes as well.
    let _ = stream.read_to_end(&mut rest);
    begun.elapsed()
}

/// Generous to a busy machine, and still far from the 10 s and 75 s of the defaults.
fn around_a_second(time: Duration) -> bool {
    (Duration::from_millis(700)..Duration::from_secs(4)).contains(&time)
}
