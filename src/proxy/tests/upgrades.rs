//! Connections that stop being HTTP.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::world::*;

const ASK: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Agrees to an upgrade, says hello in the same packet, and echoes.
async fn echoes() -> std::net::SocketAddr {
    instance(|mut client, _| async move {
        let head = client.until(b"\r\n\r\n").await.to_ascii_lowercase();
        assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"), "{head}");
        assert!(head.contains("x-forwarded-for: 127.0.0.1") && head.contains("sec-websocket-key: "), "{head}");
        client.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello").await;
        let (mut reads, mut writes) = client.stream.split();
        let _ = tokio::io::copy(&mut reads, &mut writes).await;
    })
    .await
}

#[tokio::test]
async fn an_upgrade_joins_both_ends() {
    let world = world().start(&[echoes().await]);
    let mut client = world.connect().await;
    // The first message comes with the request, before anybody has agreed.
    client.write(&format!("{ASK}early")).await;
    let head = client.head().await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("upgrade: websocket\r\n"), "{head}");
    assert_eq!(client.exactly(10).await, "helloearly");
    client.write("over and out").await;
    assert_eq!(client.exactly(12).await, "over and out");
    assert_eq!(world.in_flight(), 1);
    drop(client);
    eventually(|| world.in_flight() == 0).await;
}

/// Pingora's tunnel loses about one in a thousand (#946).
#[tokio::test]
async fn no_upgrade_of_many_is_torn() {
    let world = world().start(&[echoes().await]);
    for n in 0..300 {
        let mut client = world.connect().await;
        client.write(ASK).await;
        client.head().await;
        client.write("ping").await;
        assert_eq!(client.exactly(9).await, "helloping", "upgrade {n}");
    }
}

#[tokio::test]
async fn much_passes_through_a_tunnel_whoever_reads_first() {
    let world = world().start(&[echoes().await]);
    let mut client = world.connect().await;
    client.write(ASK).await;
    client.head().await;
    client.exactly(5).await;
    let (mut reads, mut writes) = client.stream.split();
    let sent = vec![b'x'; 8 * 1024 * 1024];
    let mut received = vec![0; sent.len()];
    let both = async {
        tokio::try_join!(
            tokio::io::AsyncWriteExt::write_all(&mut writes, &sent),
            tokio::io::AsyncReadExt::read_exact(&mut reads, &mut received),
        )
    };
    soon(both).await.unwrap();
    assert!(received == sent);
}

#[tokio::test]
async fn a_refused_upgrade_is_an_answer() {
    for (response, body) in [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope", "nope"),
        ("HTTP/1.1 426 Upgrade Required\r\nUpgrade: x/2\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nnope\r\n0\r\n\r\n", "nope"),
    ] {
        let world = world().start(&[always(response).await]);
        let mut client = world.connect().await;
        for _ in 0..2 {
            client.write(ASK).await;
            let answer = client.answer().await;
            assert_eq!((answer.status.to_string().as_str(), answer.body.as_str()), (&response[9..12], body));
        }
        eventually(|| world.in_flight() == 0).await;
    }
}

#[tokio::test]
async fn an_upgrade_is_retried_like_any_request() {
    let world = world().start(&[nobody().await, echoes().await]);
    for _ in 0..10 {
        let mut client = world.connect().await;
        client.write(ASK).await;
        assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    }
    let alone = super::world::world().start(&[nobody().await]);
    let answer = alone.send(ASK).await;
    assert_eq!((answer.status, answer.body.contains("connect_failed")), (502, true), "{answer:?}");
}

#[tokio::test]
async fn a_quiet_tunnel_ends_after_its_own_time() {
    let world = world().policy(|p| p.timeouts.upgraded_idle = Duration::from_millis(300)).start(&[echoes().await]);
    let mut client = world.connect().await;
    client.write(ASK).await;
    client.head().await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        client.write(".").await;
    }
    assert_eq!(client.rest_of_it().await, "hello....");
    eventually(|| world.in_flight() == 0).await;
}

#[tokio::test]
async fn a_tunnel_ends_with_the_drain_of_its_instance() {
    let mut world = world().policy(|p| p.timeouts.drain = Duration::from_millis(300)).start(&[echoes().await]);
    let mut client = world.connect().await;
    client.write(ASK).await;
    client.head().await;
    world.remove("i0");
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.write("still here").await;
    assert_eq!(client.rest_of_it().await, "hellostill here");
}

/// With a word for each, between the frames.
#[tokio::test]
async fn a_websocket_whose_time_is_over_is_told_so() {
    for (what, stands) in [("between frames", &b"\x81\x02hi"[..]), ("inside a frame", b"\x81\x05hi")] {
        let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
        let upstream = instance(move |mut client, _| {
            let heard = heard.clone();
            async move {
                client.until(b"\r\n\r\n").await;
                let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
                client.write(head).await;
                let _ = client.stream.write_all(stands).await;
                let mut rest = Vec::new();
                let _ = client.stream.read_to_end(&mut rest).await;
                let _ = heard.send(rest);
            }
        })
        .await;
        let mut world = world().policy(|p| p.timeouts.drain = Duration::from_millis(300)).start(&[upstream]);
        let mut client = world.connect().await;
        client.write(ASK).await;
        eventually(|| world.in_flight() == 1).await;
        world.remove("i0");
        let mut rest = Vec::new();
        soon(client.stream.read_to_end(&mut rest)).await.unwrap();
        let told: &[u8] = if what == "between frames" { b"\x88\x02\x03\xe9" } else { b"" };
        assert!(rest.ends_with(&[b"\r\n\r\n", stands, told].concat()), "{what}: {rest:?}");
        let heard = soon(hears.recv()).await.unwrap();
        assert_eq!(heard[..2], [0x88, 0x82], "{what}");
        assert_eq!([heard[6] ^ heard[2], heard[7] ^ heard[3]], 1001_u16.to_be_bytes(), "{what}");
        assert_eq!(world.proxy.stats().drain_forced_closes, 1, "{what}");
    }
}
