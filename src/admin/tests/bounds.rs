//! What is refused, and what one client can hold.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn refusals_are_json_that_helps() {
    let world = World::new().await;
    for (method, path, fields, status, says) in [
        ("GET", "/api/v2/status", &[][..], 404, "/api/v1/explain?method=&url=&header="),
        ("GET", "/api/v1/services/", &[], 200, "\"services\""),
        ("GET", "/api/v1/services/a/b", &[], 404, "there is no service"),
        ("POST", "/api/v1/status", &[], 405, "GET or HEAD"),
        ("DELETE", "/nothing", &[], 405, "GET or HEAD"),
        ("GET", "/", &[("host", "evil.example")], 403, "evil.example"),
    ] {
        let answer = world.ask(method, path, fields).await;
        assert!(answer.status == status && answer.text.contains(says), "{method} {path}: {} {}", answer.status, answer.text);
        assert_eq!(answer.fields["content-type"], "application/json", "{method} {path}");
        assert_eq!(answer.fields.get("allow").is_some(), status == 405);
    }
}

#[tokio::test]
async fn a_body_is_not_read() {
    let world = World::new().await;
    for field in ["content-length: 5", "transfer-encoding: chunked"] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        let head = format!("GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{field}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("no body"), "{field}: {answer}");
    }
}

#[tokio::test]
async fn head_has_the_fields_and_no_body() {
    let world = World::used().await;
    for path in ["/livez", "/metrics", "/api/v1/services", "/"] {
        let answer = world.ask("HEAD", path, &[]).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, ""), "{path}");
    }
}

#[tokio::test]
async fn who_has_just_connected_when_it_ends_is_answered_once() {
    let world = World::new().await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    // Long enough to be accepted, by a runtime that has nothing else to do.
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.shutdown.send_replace(true);
    tokio::time::sleep(Duration::from_millis(50)).await;
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    world.serving.await.unwrap();
}

#[tokio::test]
async fn a_head_beyond_the_bound_is_refused() {
    let answer = World::new().await.ask("GET", "/livez", &[("x-long", &"x".repeat(20_000))]).await;
    assert_eq!(answer.status, 431);
}

/// The clock is ours: it jumps to the next timer whenever nobody has anything to do.
#[tokio::test(start_paused = true)]
async fn who_says_nothing_or_half_a_head_is_left() {
    let world = World::new().await;
    for said in ["", "GET /livez HTTP/1.1\r\nhost: local"] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let began = tokio::time::Instant::now();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        let took = began.elapsed().as_secs();
        assert!((29..=32).contains(&took) && !answer.contains("200"), "{said:?}: {took} s, {answer}");
    }
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_a_place() {
    let world = World::new().await;
    let mut held = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        stream.read_u8().await.unwrap();
        held.push(stream);
    }
    let asking = world.get("/livez");
    let mut asking = std::pin::pin!(asking);
    assert!(tokio::time::timeout(Duration::from_millis(150), asking.as_mut()).await.is_err(), "there was a 65th place");
    held.pop();
    assert_eq!(asking.await.status, 200);
}

#[tokio::test]
async fn followers_are_few_and_their_places_come_back() {
    let world = World::new().await;
    let accept = &[("accept", "text/event-stream")];
    let mut following = Vec::new();
    for _ in 0..16 {
        let mut body = world.open("GET", "/api/v1/events", accept).await.into_body();
        body.frame().await.unwrap().unwrap();
        following.push(body);
    }
    let answer = world.ask("GET", "/api/v1/events", accept).await;
    assert_eq!((answer.status, answer.fields.contains_key("retry-after")), (503, true));
    drop(following);
    let freed = async {
        while world.open("GET", "/api/v1/events", accept).await.status() != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), freed).await.expect("their places are free again");
}
