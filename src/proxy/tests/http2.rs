//! HTTP/2 without TLS, on either side.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;

use super::world::*;
use crate::model::Protocol;

type Body = BoxBody<Bytes, Infallible>;
type Part = Result<Frame<Bytes>, Infallible>;

/// A body that is made piece by piece.
fn channel() -> (mpsc::Sender<Part>, Body) {
    let (parts, body) = mpsc::channel(1);
    (parts, BodyExt::boxed(StreamBody::new(ReceiverStream::new(body))))
}

async fn client(world: &World) -> SendRequest<Body> {
    let stream = TcpStream::connect(world.addr).await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn get(path: &str) -> Request<Body> {
    Request::get(format!("http://shop.example{path}")).body(Empty::new().boxed()).unwrap()
}

/// An HTTP/2 instance: echoes the body, and answers as gRPC does, with trailers.
async fn grpc() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let serve = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service_fn(answer_grpc));
            tokio::spawn(serve);
        }
    });
    addr
}

async fn answer_grpc(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let seen = format!("{} {} te={:?}", request.version() == http::Version::HTTP_2, request.uri(), request.headers().get("te"));
    let mut incoming = request.into_body();
    let (sender, body) = channel();
    tokio::spawn(async move {
        while let Some(Ok(frame)) = incoming.frame().await {
            if frame.is_data() && sender.send(Ok(frame)).await.is_err() {
                return;
            }
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let _ = sender.send(Ok(Frame::trailers(trailers))).await;
    });
    Ok(Response::builder().header("x-seen", seen).body(body).unwrap())
}

#[tokio::test]
async fn one_listener_speaks_both_versions() {
    let world = world().start(&[echo().await]);
    assert_eq!(world.get("/").await.status, 200);
    let mut client = client(&world).await;
    for n in 0..3 {
        let response = client.send_request(get(&format!("/{n}"))).await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let seen = String::from_utf8_lossy(&body).into_owned();
        assert!(seen.starts_with(&format!("get /{n} http/1.1\r\n")) && seen.contains("host: shop.example\r\n"), "{seen}");
        assert!(seen.contains("via: 2 pointsman") && seen.contains("x-forwarded-host: shop.example"), "{seen}");
    }
}

#[tokio::test]
async fn a_call_passes_with_its_trailers() {
    let world = world().protocol(Protocol::H2c).start(&[grpc().await]);
    let mut client = client(&world).await;
    let mut request = get("/pkg.Service/Method").map(|_| Full::new(Bytes::from_static(b"\0\0\0\0\x05hello")).boxed());
    *request.method_mut() = http::Method::POST;
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    let response = client.send_request(request).await.unwrap();
    let seen = response.headers()["x-seen"].to_str().unwrap().to_owned();
    assert!(seen.starts_with("true http://shop.example/pkg.Service/Method te=Some(\"trailers\")"), "{seen}");
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), &b"\0\0\0\0\x05hello"[..]);
}

#[tokio::test]
async fn a_call_may_talk_both_ways_and_pause() {
    let pause = Duration::from_millis(400);
    let world = world()
        .limits(|l| l.body_progress = pause / 2)
        .policy(|p| p.timeouts.response_head = pause / 2)
        .protocol(Protocol::H2c)
        .start(&[grpc().await]);
    let mut client = client(&world).await;
    let (talk, body) = channel();
    let mut request = get("/pkg.Service/Chat").map(|_| body);
    *request.method_mut() = http::Method::POST;
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut answers = soon(client.send_request(request)).await.unwrap().into_body();
    for word in ["one", "two", "three"] {
        talk.send(Ok(Frame::data(Bytes::from_static(word.as_bytes())))).await.unwrap();
        let frame = soon(answers.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), word);
        sleep(pause).await;
    }
    drop(talk);
    let last = soon(answers.frame()).await.unwrap().unwrap();
    assert_eq!(last.into_trailers().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn an_old_client_reaches_an_http2_instance() {
    let world = world().protocol(Protocol::H2c).start(&[grpc().await]);
    let mut client = world.connect().await;
    for _ in 0..2 {
        client.write("POST /a HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\n\r\nhello").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "hello"), "{answer:?}");
        assert!(answer.field("x-seen").is_some_and(|s| s.starts_with("true http://shop.example/a")), "{answer:?}");
    }
}

/// An upload that ends with an empty frame of its own became two last chunks, and the second one the next answer
/// (pingora #935).
#[tokio::test]
async fn an_upload_that_ends_with_nothing_ends_once() {
    let upstream = instance(|mut client, _| async move {
        while client.stream.peek(&mut [0]).await.unwrap_or(0) > 0 {
            let head = client.until(b"\r\n\r\n").await;
            let body = client.until(b"0\r\n\r\n").await;
            sleep(Duration::from_millis(50)).await;
            let mut more = [0; 64];
            let more = client.stream.try_read(&mut more).unwrap_or(0);
            let seen = format!("{} {} {more}", head.contains("hunked"), body.replace("\r\n", "|"));
            client.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{seen}", seen.len())).await;
        }
    })
    .await;
    let world = world().start(&[upstream]);
    let mut client = client(&world).await;
    for _ in 0..2 {
        let frames = ["hello", ""].map(|data| Ok::<_, Infallible>(Frame::data(Bytes::from_static(data.as_bytes()))));
        let body = StreamBody::new(tokio_stream::iter(frames));
        let mut request = get("/").map(|_| BodyExt::boxed(body));
        *request.method_mut() = http::Method::POST;
        let response = soon(client.send_request(request)).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "true 5|hello|0|| 0", "chunked, one last chunk, nothing behind it");
    }
}

#[tokio::test]
async fn cookies_in_pieces_reach_an_http1_instance_as_one() {
    let world = world().start(&[echo().await]);
    let mut request = get("/");
    request.headers_mut().append("cookie", HeaderValue::from_static("a=1"));
    request.headers_mut().append("cookie", HeaderValue::from_static("b=2"));
    let response = client(&world).await.send_request(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("cookie: a=1; b=2\r\n"), "{body:?}");
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_reset() {
    let upstream = instance(|mut client, _| async move {
        client.request().await;
        client.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    })
    .await;
    let world = world().start(&[upstream]);
    let response = client(&world).await.send_request(get("/")).await.unwrap();
    assert!(soon(response.into_body().collect()).await.is_err(), "half an answer does not look whole");
}

#[tokio::test]
async fn a_client_that_only_opens_and_resets_is_cut_off() {
    let upstream = instance(|mut client, _| async move {
        client.request().await;
        client.rest_of_it().await;
    })
    .await;
    let world = world().start(&[upstream]);
    let mut client = client(&world).await;
    let mut opened = 0;
    while opened < 2000 && client.ready().await.is_ok() {
        let pending = client.send_request(get("/"));
        let _ = tokio::time::timeout(Duration::from_millis(1), pending).await;
        opened += 1;
    }
    assert!(opened < 2000, "it went on and on");
    eventually(|| world.in_flight() == 0).await;
}

#[tokio::test]
async fn the_end_of_the_process_lets_streams_finish() {
    let upstream = instance(|mut client, _| async move {
        client.request().await;
        sleep(Duration::from_millis(300)).await;
        client.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    })
    .await;
    let mut world = world().start(&[upstream]);
    let mut client = client(&world).await;
    let running = tokio::spawn(client.send_request(get("/")));
    eventually(|| world.in_flight() == 1).await;
    world.begin_end();
    let response = soon(running).await.unwrap().unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
    soon(world.end()).await;
}

#[tokio::test]
async fn idle_connections_are_closed_after_keep_alive() {
    let world = world().limits(|l| l.keep_alive = Duration::from_millis(200)).start(&[echo().await]);
    let mut client = client(&world).await;
    assert_eq!(client.send_request(get("/")).await.unwrap().status(), 200);
    eventually(|| world.proxy.stats().connections == [0]).await;
    soon(async {
        while client.ready().await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
