//! Instances that fail, and what their clients notice of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::world::*;

#[tokio::test]
async fn an_instance_that_refuses_connections_is_nobodys_error() {
    let world = world().start(&[nobody().await, echo().await]);
    for method in ["GET", "POST"].into_iter().cycle().take(40) {
        let answer = world.send(&format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let retried: u64 = world.service().stats.retries().map(|(_, n)| n).sum();
    assert!(retried > 0);
}

#[tokio::test]
async fn a_body_is_sent_again_to_the_other_instance() {
    let listener = nobody().await;
    let upstream = instance(|mut client, _| async move {
        client.until(b"\r\n\r\n").await;
        let body = client.exactly(5).await;
        client.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{body}")).await;
    })
    .await;
    let world = world().start(&[listener, upstream]);
    for _ in 0..10 {
        let answer = world.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "hello"));
    }
}

#[tokio::test]
async fn with_no_other_instance_the_failure_is_told() {
    let world = world().start(&[nobody().await]);
    let answer = world.get("/").await;
    assert_eq!((answer.status, answer.body.contains("connect_failed")), (502, true), "{answer:?}");
    assert_eq!(answer.field("connection"), Some("close"), "the engine closes after a failure, so it has to say so");
}

/// Reads a request and hangs up, every time.
async fn hangs_up(seen: Arc<AtomicUsize>) -> std::net::SocketAddr {
    instance(move |mut client, _| {
        let seen = seen.clone();
        async move {
            client.request().await;
            seen.fetch_add(1, Ordering::Relaxed);
        }
    })
    .await
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_again() {
    let seen = Arc::new(AtomicUsize::new(0));
    let world = world().start(&[hangs_up(seen.clone()).await, hangs_up(seen.clone()).await]);
    let answer = world.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!((answer.status, seen.load(Ordering::Relaxed)), (502, 1), "{answer:?}");
    let answer = world.get("/").await;
    assert_eq!((answer.status, seen.load(Ordering::Relaxed)), (502, 3), "a GET goes to the other one: {answer:?}");
}

#[tokio::test]
async fn a_request_that_was_retried_before_is_not_retried_again() {
    let seen = Arc::new(AtomicUsize::new(0));
    let world = world().start(&[hangs_up(seen.clone()).await, hangs_up(seen.clone()).await]);
    world.send("GET / HTTP/1.1\r\nHost: a\r\nX-Pointsman-Attempt: 2\r\n\r\n").await;
    assert_eq!(seen.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_pooled_connection_that_closes_as_it_is_taken_is_nobodys_error() {
    // It answers one request on each connection, promises to keep it, and resets it when the second one arrives.
    let upstream = instance(|mut client, number| async move {
        client.request().await;
        client.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        if number == 0 {
            client.request().await;
            return;
        }
        while client.request().await.is_some() {
            client.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        }
    })
    .await;
    let world = world().start(&[upstream]);
    for n in 0..3 {
        let answer = world.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
        assert_eq!(answer.status, 200, "request {n}: {answer:?}");
    }
    assert_eq!(world.service().stats.retries().map(|(_, n)| n).sum::<u64>(), 0, "it costs no retry");
}

#[tokio::test]
async fn a_gateway_error_is_another_instances_chance_for_a_get() {
    let unwell = always("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nwell").await;
    let world = world().start(&[unwell, echo().await]);
    for _ in 0..20 {
        assert_eq!(world.get("/").await.status, 200);
    }
    let alone = super::world::world().start(&[unwell]);
    let answer = alone.get("/").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "well"), "with nobody else, its answer is the client's");
}

#[tokio::test]
async fn a_slow_try_gives_way_to_another() {
    let slow = instance(|mut client, _| async move {
        client.request().await;
        tokio::time::sleep(Duration::from_secs(30)).await;
    })
    .await;
    let world = world().policy(|p| p.retry.per_try_timeout = Some(Duration::from_millis(200))).start(&[slow, echo().await]);
    for _ in 0..4 {
        assert_eq!(world.get("/").await.status, 200);
    }
}

#[tokio::test]
async fn a_client_that_leaves_leaves_nothing_behind() {
    let upstream = instance(|mut client, _| async move {
        client.request().await;
        client.rest_of_it().await;
    })
    .await;
    let world = world().start(&[upstream]);
    let mut client = world.connect().await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually(|| world.in_flight() == 1).await;
    drop(client);
    eventually(|| world.in_flight() == 0).await;
    let service = world.service();
    let gone = service.pool.all()[0].state.outcomes().find(|(o, _)| o.as_str() == "client_gone").unwrap();
    assert_eq!(gone.1, 1);
}
