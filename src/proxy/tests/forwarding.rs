//! Requests and answers on their way through.

use super::world::*;

#[tokio::test]
async fn a_request_reaches_an_instance_with_what_it_has_to_know() {
    let world = world().start(&[echo().await]);
    let request = "GET /a?b=c HTTP/1.1\r\nHost: Shop.Example:8080\r\nX-Mine: 1\r\nConnection: x-mine\r\n\r\n";
    let answer = world.send(request).await;
    assert_eq!(answer.status, 200);
    let seen = answer.body;
    assert!(seen.starts_with("get /a?b=c http/1.1\r\n"), "{seen}");
    for field in [
        "host: shop.example:8080",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: shop.example:8080",
        "x-request-id: ",
        "traceparent: 00-",
        "via: 1.1 pointsman",
        "x-pointsman-attempt: 1",
    ] {
        assert!(seen.contains(field), "{field} in {seen}");
    }
    assert!(!seen.contains("x-mine"), "{seen}");
}

#[tokio::test]
async fn keep_alive_connections_carry_one_request_after_the_other() {
    let world = world().start(&[echo().await]);
    let mut client = world.connect().await;
    for n in 0..5 {
        client.write(&format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert!(client.answer().await.body.starts_with(&format!("get /{n} ")));
    }
    assert_eq!(world.proxy.stats().connections, [1]);
    drop(client);
    eventually(|| world.proxy.stats().connections == [0]).await;
    assert_eq!(world.in_flight(), 0);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let world = world().start(&[echo().await]);
    let mut client = world.connect().await;
    let requests: String = (0..20).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.write(&requests).await;
    for n in 0..20 {
        assert!(client.answer().await.body.starts_with(&format!("get /{n} ")), "request {n}");
    }
}

#[tokio::test]
async fn a_long_body_passes_in_both_directions() {
    let size = 20 * 1024 * 1024;
    let upstream = instance(|mut client, _| async move {
        let head = client.until(b"\r\n\r\n").await;
        let length: usize =
            head.to_ascii_lowercase().lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok()).unwrap();
        let body = client.exactly(length).await;
        client.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")).await;
    })
    .await;
    let world = world().start(&[upstream]);
    let body = "0123456789abcdef".repeat(size / 16);
    let mut client = world.connect().await;
    client.write(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n{body}")).await;
    let answer = client.answer().await;
    assert!(answer.status == 200 && answer.body == body);
    let stats = world.proxy.stats();
    assert!(stats.received_bytes > size as u64 && stats.sent_bytes > size as u64, "{stats:?}");
}

#[tokio::test]
async fn an_answer_may_begin_before_the_request_has_ended() {
    let upstream = instance(|mut client, _| async move {
        loop {
            client.until(b"\r\n\r\n").await;
            client.write("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n").await;
            for _ in 0..2 {
                let half = client.exactly(4).await;
                client.write(&half).await;
            }
        }
    })
    .await;
    let world = world().start(&[upstream]);
    let mut client = world.connect().await;
    for _ in 0..2 {
        client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf").await;
        assert!(!client.until(b"half").await.to_ascii_lowercase().contains("connection: close"));
        client.write("rest").await;
        assert_eq!(client.exactly(4).await, "rest");
    }
}

#[tokio::test]
async fn events_pass_as_they_come() {
    let (next, wanted) = tokio::sync::mpsc::channel::<&str>(1);
    let wanted = std::sync::Arc::new(tokio::sync::Mutex::new(wanted));
    let upstream = instance(move |mut client, _| {
        let wanted = wanted.clone();
        async move {
            client.request().await;
            client.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            while let Some(event) = wanted.lock().await.recv().await {
                client.write(&format!("{:x}\r\n{event}\r\n", event.len())).await;
            }
        }
    })
    .await;
    let world = world().start(&[upstream]);
    let mut client = world.connect().await;
    client.write("GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.head().await;
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        next.send(event).await.unwrap();
        assert!(client.until(b"\n\n").await.ends_with(event), "it must arrive before the next one is made");
    }
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on() {
    let upstream = instance(|mut client, _| async move {
        let head = client.until(b"\r\n\r\n").await.to_ascii_lowercase();
        assert!(!head.contains("expect"), "{head}");
        let body = client.exactly(5).await;
        client.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{body}")).await;
    })
    .await;
    let world = world().start(&[upstream]);
    let mut client = world.connect().await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 100);
    client.write("hello").await;
    assert_eq!(client.answer().await.body, "hello");
}

#[tokio::test]
async fn answers_without_a_body_end_where_they_should() {
    for (method, response) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n"),
    ] {
        let world = world().start(&[always(response).await]);
        let mut client = world.connect().await;
        for _ in 0..2 {
            client.write(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            let head = client.head().await;
            assert_eq!(head.split(' ').nth(1), response.split(' ').nth(1), "{head}");
        }
    }
}

#[tokio::test]
async fn an_old_client_gets_no_chunks() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let world = world().start(&[always(chunked).await]);
    let answer = world.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!((answer.body.as_str(), answer.field("transfer-encoding")), ("hello", None));
}

#[tokio::test]
async fn a_path_is_forwarded_as_it_was_routed() {
    let world = world().start(&[echo().await]);
    let answer = world.get("/public/%2e%2e/admin?x=1").await;
    assert!(answer.body.starts_with("get /admin?x=1 "), "{}", answer.body);
    let answer = world.send("GET http://shop.example/a HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
    assert!(answer.body.starts_with("get /a http"), "{}", answer.body);
}

#[tokio::test]
async fn only_trusted_clients_see_what_was_decided() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Pointsman-Debug: 1\r\n\r\n";
    let upstream = echo().await;
    let answer = world().trusting_everyone().start(&[upstream]).send(request).await;
    let told = ["route", "service", "instance", "attempts"].map(|n| answer.field(&format!("x-pointsman-{n}")));
    assert_eq!(told, [Some("all"), Some("api"), Some("i0"), Some("1")]);
    assert!(!answer.body.contains("x-pointsman-debug"));

    let answer = world().start(&[upstream]).send(request).await;
    assert!(!answer.head.contains("x-pointsman"), "{}", answer.head);
}

#[tokio::test]
async fn finished_requests_are_counted_where_they_were_served() {
    let world = world().start(&[echo().await]);
    for _ in 0..3 {
        world.get("/").await;
    }
    let service = world.service();
    eventually(|| service.stats.requests.read().count() == 3).await;
    let outcomes: u64 = service.pool.all()[0].state.outcomes().map(|(_, n)| n).sum();
    assert_eq!((outcomes, service.stats.attempts.read().count()), (3, 3));
}
