//! Instances that leave, and a process that ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::world::*;
use crate::model::Lifecycle;

/// Answers at once, but `/slow` only when told to. Counts its open connections.
async fn patient(open: Arc<AtomicUsize>, go: Arc<Notify>) -> std::net::SocketAddr {
    instance(move |mut client, _| {
        let (open, go) = (open.clone(), go.clone());
        async move {
            open.fetch_add(1, Ordering::Relaxed);
            while let Some(request) = client.request().await {
                if request.starts_with("GET /slow") {
                    go.notified().await;
                }
                client.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
            open.fetch_sub(1, Ordering::Relaxed);
        }
    })
    .await
}

#[tokio::test]
async fn idle_connections_close_with_their_instance_and_busy_ones_finish() {
    for drains in [true, false] {
        let (open, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let upstream = patient(open.clone(), go.clone()).await;
        let mut world = world().start(&[upstream]);
        let mut slow = world.connect().await;
        slow.write("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
        eventually(|| world.in_flight() == 1).await;
        assert_eq!(world.get("/").await.status, 200);
        eventually(|| world.in_flight() == 1).await;
        assert_eq!(open.load(Ordering::Relaxed), 2, "one busy, one idle");

        if drains {
            world.put("i0", upstream, Lifecycle::Draining)
        } else {
            world.remove("i0")
        }
        eventually(|| open.load(Ordering::Relaxed) == 1).await;
        assert_eq!(world.get("/").await.status, 503);

        go.notify_one();
        assert_eq!(slow.answer().await.body, "ok");
        eventually(|| open.load(Ordering::Relaxed) == 0).await;
    }
}

#[tokio::test]
async fn an_instance_that_comes_back_is_used_again() {
    let open = Arc::new(AtomicUsize::new(0));
    let upstream = patient(open.clone(), Arc::default()).await;
    let mut world = world().policy(|p| p.timeouts.drain = Duration::from_millis(100)).start(&[upstream]);
    world.get("/").await;
    world.put("i0", upstream, Lifecycle::Draining);
    world.put("i0", upstream, Lifecycle::Ready);
    assert_eq!(world.get("/").await.status, 200);
    sleep(Duration::from_millis(400)).await;
    assert_eq!(open.load(Ordering::Relaxed), 1, "its drain is over because it never ended");
}

#[tokio::test]
async fn a_drain_has_an_end() {
    let upstream = patient(Arc::default(), Arc::default()).await;
    let mut world = world().policy(|p| p.timeouts.drain = Duration::from_millis(300)).start(&[upstream]);
    let mut slow = world.connect().await;
    slow.write("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually(|| world.in_flight() == 1).await;
    world.remove("i0");
    assert_eq!(slow.answer().await.status, 502);
    assert_eq!(world.proxy.stats().drain_forced_closes, 1);
}

#[tokio::test]
async fn no_request_fails_because_instances_come_and_go() {
    let addresses = [echo().await, echo().await, echo().await];
    let mut world = world().start(&addresses);
    let proxy = world.addr;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let clients: Vec<_> = (0..4)
        .map(|n| {
            let stopped = stopped.clone();
            tokio::spawn(async move {
                let mut client = Client::connect(proxy).await;
                let mut answered = 0;
                let method = if n % 2 == 0 { "GET" } else { "POST" };
                while !*stopped.borrow() {
                    client.write(&format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")).await;
                    let answer = client.answer().await;
                    assert_eq!(answer.status, 200, "after {answered}: {answer:?}");
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    for round in 0..100 {
        let at = round % 2;
        match round % 4 {
            0 | 1 => world.remove(&format!("i{at}")),
            _ => world.put(&format!("i{at}"), addresses[at], Lifecycle::Ready),
        }
        sleep(Duration::from_millis(10)).await;
    }
    stop.send_replace(true);
    let mut answered = 0;
    for client in clients {
        answered += soon(client).await.unwrap();
    }
    assert!(answered > 100, "{answered}");
}

#[tokio::test]
async fn the_end_of_the_process_finishes_what_runs_and_closes_what_is_idle() {
    let go = Arc::new(Notify::new());
    let upstream = patient(Arc::default(), go.clone()).await;
    let mut world = world().start(&[upstream]);
    let mut idle = world.connect().await;
    idle.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    idle.answer().await;
    eventually(|| world.in_flight() == 0).await;
    let mut silent = world.connect().await;
    let mut busy = world.connect().await;
    busy.write("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually(|| world.in_flight() == 1).await;

    world.begin_end();
    assert!(idle.is_closed().await && silent.is_closed().await);
    go.notify_one();
    let answer = busy.answer().await;
    assert_eq!((answer.body.as_str(), answer.field("connection")), ("ok", Some("close")));
    soon(world.end()).await;
    assert!(tokio::net::TcpStream::connect(world.addr).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn the_end_of_the_process_does_not_wait_for_ever() {
    let upstream = patient(Arc::default(), Arc::default()).await;
    let mut world = world().drain(Duration::from_millis(300)).start(&[upstream]);
    let mut busy = world.connect().await;
    busy.write("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually(|| world.in_flight() == 1).await;
    let started = Instant::now();
    soon(world.end()).await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(busy.is_closed().await);
    assert_eq!(world.in_flight(), 0, "given back even so");
}

#[tokio::test]
async fn clients_that_keep_coming_do_not_keep_the_listener_open() {
    let mut world = world().start(&[echo().await]);
    let addr = world.addr;
    let knocking = tokio::spawn(async move { while tokio::net::TcpStream::connect(addr).await.is_ok() {} });
    sleep(Duration::from_millis(50)).await;
    soon(world.end()).await;
    soon(knocking).await.unwrap();
}
