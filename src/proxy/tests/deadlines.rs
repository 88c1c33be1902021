//! Clients and instances that take their time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::world::*;

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_head_that_trickles_in_is_answered_408_and_closed() {
    let world = world().limits(|l| l.head_timeout = SHORT).start(&[echo().await]);
    let mut client = world.connect().await;
    let started = Instant::now();
    let (mut reads, mut writes) = client.stream.into_split();
    let trickle = tokio::spawn(async move {
        for byte in "GET / HTTP/1.1\r\nHost: a\r\nX: ".bytes().chain(std::iter::repeat_n(b'v', 1000)) {
            if tokio::io::AsyncWriteExt::write_all(&mut writes, &[byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        writes
    });
    let mut answer = Vec::new();
    let _ = soon(tokio::io::AsyncReadExt::read_to_end(&mut reads, &mut answer)).await;
    let took = started.elapsed();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("slow_head"), "{answer}");
    assert!(took >= SHORT && took < SHORT * 4, "{took:?}");
    trickle.abort();
    client = world.connect().await;
    assert!(client.is_closed().await, "one that says nothing at all is closed, too");
}

#[tokio::test]
async fn the_beginning_of_the_h2_preface_holds_nobody_up() {
    let world = world().limits(|l| l.head_timeout = SHORT).start(&[echo().await]);
    // 18 bytes, fewer than the preface: the engine's own detection waits for ever for the rest.
    assert_eq!(world.send("GET / HTTP/1.0\r\n\r\n").await.status, 200);
    let mut client = world.connect().await;
    client.write("PRI * HT").await;
    let started = Instant::now();
    client.rest_of_it().await;
    assert!(started.elapsed() < SHORT * 4);
}

#[tokio::test]
async fn idle_connections_are_closed_after_keep_alive() {
    let world = world().limits(|l| l.keep_alive = SHORT).start(&[echo().await]);
    let mut client = world.connect().await;
    for _ in 0..2 {
        client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 200);
        sleep(SHORT / 3).await;
    }
    let started = Instant::now();
    assert!(client.is_closed().await);
    assert!(started.elapsed() < SHORT * 2, "{:?}", started.elapsed());
    eventually(|| world.proxy.stats().connections == [0]).await;
}

#[tokio::test]
async fn a_body_that_stands_still_is_answered_408() {
    let world = world().limits(|l| l.body_progress = SHORT).start(&[echo().await]);
    let mut client = world.connect().await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.body.contains("slow_body")), (408, true), "{answer:?}");
    assert_eq!(world.in_flight(), 0);
}

#[tokio::test]
async fn a_response_head_has_until_its_deadline() {
    let upstream = instance(|mut client, _| async move {
        client.request().await;
        sleep(SHORT * 20).await;
    })
    .await;
    let world = world().policy(|p| p.timeouts.response_head = SHORT).start(&[upstream]);
    let started = Instant::now();
    let answer = world.get("/").await;
    assert_eq!((answer.status, answer.body.contains("upstream_timeout")), (504, true), "{answer:?}");
    assert!(started.elapsed() < SHORT * 4, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_slow_upload_is_not_a_slow_response() {
    let world = world().policy(|p| p.timeouts.response_head = SHORT).start(&[echo().await]);
    let mut client = world.connect().await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n").await;
    for byte in ["h", "e", "l", "l", "o"] {
        sleep(SHORT / 2).await;
        client.write(byte).await;
    }
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn a_quiet_stream_outlives_the_response_deadline() {
    let upstream = instance(|mut client, _| async move {
        client.request().await;
        client.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na").await;
        sleep(SHORT * 3).await;
        client.write("b").await;
    })
    .await;
    let world = world().policy(|p| p.timeouts.response_head = SHORT).start(&[upstream]);
    assert_eq!(world.get("/").await.body, "ab");
}
