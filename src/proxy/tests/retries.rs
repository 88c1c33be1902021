//! Instances that fail, and what their clients notice of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::world::*;
use crate::model::{Balance, Outcome, ServicePolicy};

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

/// Each refusal is a surprise, and costs nobody anything.
#[tokio::test]
async fn three_instances_that_die_together_are_nobodys_error() {
    for _ in 0..8 {
        let world = world().start(&[nobody().await, nobody().await, nobody().await, echo().await]);
        for method in ["GET", "POST"].into_iter().cycle().take(10) {
            let answer = world.send(&format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
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
    let mut client = world.connect().await;
    for _ in 0..2 {
        client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.body.contains("connect_failed")), (502, true), "{answer:?}");
        assert_eq!(answer.field("connection"), None, "nothing is left on the connection, so it goes on");
    }
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

/// Answers 503 to everything, on connections that are kept.
async fn unwell(seen: Arc<AtomicUsize>) -> std::net::SocketAddr {
    instance(move |mut client, _| {
        let seen = seen.clone();
        async move {
            while client.request().await.is_some() {
                seen.fetch_add(1, Ordering::Relaxed);
                client.write("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nwell").await;
            }
        }
    })
    .await
}

/// A gateway error that is thrown away is no broken connection: nothing is sent again beside the one retry.
#[tokio::test]
async fn where_every_instance_is_unwell_each_request_costs_what_the_budget_allows() {
    for (percent, floor, per_request) in [(100, 3, 2), (0, 0, 1)] {
        let seen = Arc::new(AtomicUsize::new(0));
        let policy = |p: &mut ServicePolicy| {
            p.ejection.enabled = false;
            (p.retry.budget_percent, p.retry.budget_floor) = (percent, floor);
        };
        let world = world().policy(policy).start(&[unwell(seen.clone()).await, unwell(seen.clone()).await]);
        for _ in 0..20 {
            let answer = world.get("/").await;
            assert_eq!((answer.status, answer.body.as_str()), (503, "well"), "the client gets an instance's own words");
        }
        assert_eq!(seen.load(Ordering::Relaxed), 20 * per_request);
        let service = world.service();
        let outcomes = service.pool.all().iter().flat_map(|i| i.state.outcomes());
        let others: Vec<_> = outcomes.filter(|(outcome, n)| *n > 0 && *outcome != Outcome::GatewayError).collect();
        assert!(others.is_empty(), "{others:?}");
        assert_eq!(service.stats.retries_denied.load(Ordering::Relaxed), if percent == 0 { 20 } else { 0 });
    }
}

/// Another one may have room; whoever asks for less is not ill.
#[tokio::test]
async fn an_instance_that_pushes_back_is_retried_elsewhere_and_not_held_against_it() {
    let full = always("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n").await;
    let world = world().policy(|p| p.balance = Balance::RoundRobin).start(&[full, echo().await]);
    for _ in 0..20 {
        assert_eq!(world.get("/").await.status, 200);
    }
    let service = world.service();
    let outcomes = service.pool.all().iter().flat_map(|i| i.state.outcomes());
    let others: Vec<_> = outcomes.filter(|(o, n)| *n > 0 && !matches!(o, Outcome::Success | Outcome::Overloaded)).collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(service.stats.retries().map(|(_, n)| n).sum::<u64>() > 5);
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
