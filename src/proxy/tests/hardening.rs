//! What a client sends that no instance should see.

use super::world::*;

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused() {
    let world = world().start(&[echo().await]);
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        let answer = world.send(request).await;
        assert_eq!(answer.status, 400, "{request:?} {answer:?}");
        assert!(answer.body.contains("\"malformed\"") && answer.field("x-request-id").is_some(), "{request:?} {answer:?}");
        assert_eq!(answer.field("connection"), Some("close"), "{request:?}");
    }
    assert_eq!(world.send("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 405);
    assert_eq!(world.send("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n").await.status, 405);
    eventually(|| world.proxy.stats().unrouted[4] == 11).await;
}

#[tokio::test]
async fn an_empty_line_before_a_request_is_passed_over_however_it_is_cut() {
    let world = world().start(&[echo().await]);
    let mut client = world.connect().await;
    for pieces in [["\r", "\nGET /1 HTTP/1.1\r\nHost: a\r\n\r\n"], ["\r\n\r\nG", "ET /2 HTTP/1.1\r\nHost: a\r\n\r\n"]] {
        for piece in pieces {
            client.write(piece).await;
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        }
        assert_eq!(client.answer().await.status, 200);
    }
}

#[tokio::test]
async fn a_head_may_be_so_large_and_no_larger() {
    let world = world().start(&[echo().await]);
    let many: String = (0..101).map(|n| format!("X-{n}: 1\r\n")).collect();
    assert_eq!(world.send(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")).await.status, 431);

    let fits = "v".repeat(31 * 1024);
    assert_eq!(world.send(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {fits}\r\n\r\n")).await.status, 200);

    // Never ended: it is refused for what has come, not for what may come.
    let mut client = world.connect().await;
    client.write(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "v".repeat(40 * 1024))).await;
    assert_eq!(client.answer().await.status, 431);
    assert!(client.is_closed().await);

    assert_eq!(world.get(&format!("/{}", "p".repeat(17 * 1024))).await.status, 414);
}

#[tokio::test]
async fn a_101_that_nobody_asked_for_is_not_passed_on() {
    let surprise = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    let world = world().start(&[always(surprise).await]);
    let answer = world.get("/").await;
    assert_eq!((answer.status, answer.body.contains("upstream_invalid")), (502, true), "{answer:?}");
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_a_bad_gateway() {
    let world = world().start(&[always("SSH-2.0-OpenSSH_9.2\r\n\r\n").await]);
    assert_eq!(world.get("/").await.status, 502);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_made_to_look_whole() {
    for half in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let upstream = instance(move |mut client, _| async move {
            client.request().await;
            client.write(half).await;
        })
        .await;
        let world = world().start(&[upstream]);
        let mut client = world.connect().await;
        client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.head().await;
        let rest = client.rest_of_it().await;
        assert!(rest.contains("half") && !rest.ends_with("0\r\n\r\n"), "{rest:?}");
        assert_eq!(world.in_flight(), 0);
    }
}

#[tokio::test]
async fn refusals_keep_the_connection_when_nothing_is_left_on_it() {
    let world = world().start(&[]);
    let mut client = world.connect().await;
    for _ in 0..3 {
        client.write("GET / HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")));
        assert!(answer.body.starts_with("503 ") && answer.body.contains("no_instances"), "{}", answer.body);
    }
    client.write("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 503"));
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 503);
}

#[tokio::test]
async fn a_client_that_is_still_sending_gets_its_refusal() {
    let world = world().start(&[]);
    let mut client = world.connect().await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;
    for _ in 0..20 {
        // Each of these would meet a reset, and the last one the loss of the answer.
        client.write(&"x".repeat(50_000)).await;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("connection")), (503, Some("close")));
}
