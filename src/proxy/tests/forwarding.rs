//! Requests and answers on their way through.

use super::world::*;

#[tokio::test]
async fn a_request_reaches_an_instance_with_what_it_has_to_know() {
    let world = world().start(&[echo().await]);
    let answer = world.send("GET /a?b=c HTTP/1.1\r\nHost: Shop.Example:8080\r\nX-Mine: 1\r\nConnection: x-mine\r\n\r\n").await;
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
