//! One probe against instances that answer in every way, over sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::check::Check;
use super::probe::probe;
use super::subjects::tests::instance;
use crate::model::{Address, InstanceSpec, Protocol};
use crate::trust::Trusts;
use crate::wire::parse_policy;

/// How an instance behaves once it is connected to.
#[derive(Clone, Copy)]
enum Behaviour {
    /// Says this to the first bytes that come, and hangs up.
    Says(&'static str),
    Silent,
    HangsUp,
    /// The same over TLS with our certificate, offering this protocol.
    Tls(&'static [u8], &'static str),
}

async fn start(behaviour: Behaviour) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 2048];
        match behaviour {
            Behaviour::HangsUp => {}
            Behaviour::Silent => std::future::pending().await,
            Behaviour::Says(answer) => {
                assert!(stream.read(&mut head).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            Behaviour::Tls(protocol, answer) => {
                let Ok(mut stream) = acceptor(protocol).accept(stream).await else { return };
                if stream.read(&mut head).await.is_ok_and(|n| n > 0) {
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    stream.shutdown().await.unwrap();
                }
            }
        }
    });
    address
}

fn acceptor(protocol: &[u8]) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(include_bytes!("../../tests/certificates/instance.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../tests/certificates/instance.key")).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let mut config = builder.with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// What a probe by this policy says of an instance at this address.
async fn ask(policy: &str, address: SocketAddr, protocol: Protocol) -> (&'static str, String) {
    let policy = parse_policy(policy.as_bytes()).unwrap().value;
    let spec = InstanceSpec { protocol, ..InstanceSpec::at(Address::parse(&address.to_string()).unwrap()) };
    let (address, check) = Check::of(&policy, &instance("app", "a", spec, 1), &Trusts::default()).unwrap();
    let (reading, took) = probe(address, &check).await;
    assert!(took < check.timeout + Duration::from_millis(500), "it took {took:?}");
    (reading.result.as_str(), reading.said.into_owned())
}

async fn check(policy: &str, behaviour: Behaviour, result: &str, said: &str) {
    let answer = ask(policy, start(behaviour).await, Protocol::Http).await;
    assert!(answer.0 == result && answer.1.contains(said), "{policy}: {answer:?}, expected {result} {said:?}");
}

const HTTP: &str = r#"{"probe":{"path":"/h","timeout":"200ms","body":"fine"}}"#;

#[tokio::test]
async fn only_a_whole_answer_counts() {
    use Behaviour::*;
    check(HTTP, Says("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nis fine"), "pass", "GET /h was answered 200").await;
    check(HTTP, Says("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nfi\r\n2\r\nne\r\n0\r\n\r\n"), "pass", "200")
        .await;
    check(HTTP, Says("HTTP/1.0 200 OK\r\n\r\nfine to the end"), "pass", "200").await;
    check(HTTP, Says("HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nfine"), "broken", "no whole answer").await;
    check(HTTP, Says("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad"), "body", "does not contain \"fine\"").await;
    check(HTTP, Says("HTTP/1.1 404 No\r\ncontent-length: 4\r\n\r\nfine"), "status", "answered 404; 200-399 would pass").await;
    check(HTTP, Says("HTTP/1.1 503 No\r\nx-pointsman-drain: 1\r\ncontent-length: 0\r\n\r\n"), "draining", "").await;
    check(HTTP, Says("HTTP/1.1 503 No\r\nx-pointsman-drain: 0\r\ncontent-length: 0\r\n\r\n"), "status", "").await;
    check(HTTP, Says("SSH-2.0-x\r\n"), "broken", "").await;
    check(HTTP, HangsUp, "broken", "").await;
    check(HTTP, Silent, "timeout", "connected, but no whole answer within 200ms").await;
}

#[tokio::test]
async fn a_probe_says_who_asks_whom_and_what_its_policy_adds() {
    for (said, expected) in [
        (
            r#""host":"shop.example:8080""#,
            ["host: shop.example:8080\r\n", concat!("user-agent: pointsman/", env!("CARGO_PKG_VERSION"))],
        ),
        (r#""headers":{"X-Key":"k v","User-Agent":"mine"}"#, ["x-key: k v\r\n", "user-agent: mine\r\n"]),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 2048];
            let n = stream.read(&mut head).await.unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&head[..n]).into_owned()
        });
        let policy = format!(r#"{{"probe":{{"path":"/h?x=1",{said}}}}}"#);
        assert_eq!(ask(&policy, address, Protocol::Http).await.0, "pass");
        let heard = heard.await.unwrap();
        assert!(heard.starts_with("GET /h?x=1 HTTP/1.1\r\n") && heard.matches("user-agent").count() == 1, "{heard}");
        assert!(expected.iter().all(|expected| heard.contains(expected)), "{heard}");
    }
}

#[tokio::test]
async fn a_connection_is_enough_for_tcp_and_none_is_told_from_a_silent_one() {
    check("{}", Behaviour::Silent, "pass", "connected").await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(ask("{}", nobody, Protocol::Http).await, ("connect_failed", "cannot connect: connection refused".to_owned()));
}

#[tokio::test]
async fn over_tls_the_certificate_has_to_be_good() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine";
    let ca = serde_json::json!(include_str!("../../tests/certificates/ca.pem"));
    let cases = [
        (format!(r#"{{"ca":{ca}}}"#), "pass", ""),
        (format!(r#"{{"ca":{ca},"server_name":"instance.test"}}"#), "pass", ""),
        (format!(r#"{{"ca":{ca},"server_name":"another.test"}}"#), "tls", "another.test"),
        (r#"{"verify":false,"server_name":"another.test"}"#.to_owned(), "pass", ""),
        ("null".to_owned(), "tls", "UnknownIssuer"),
    ];
    for (tls, result, said) in cases {
        for probe in [r#"{"path":"/h","body":"fine"}"#, r#"{"kind":"tcp"}"#] {
            let policy = format!(r#"{{"probe":{probe},"tls":{tls}}}"#);
            let found = ask(&policy, start(Behaviour::Tls(b"http/1.1", answer)).await, Protocol::Https).await;
            assert!(found.0 == result && found.1.contains(said), "{policy}: {found:?}");
        }
    }
    let found = ask(r#"{"tls":{"verify":false}}"#, start(Behaviour::Says("no TLS")).await, Protocol::Https).await;
    assert_eq!(found.0, "tls", "{found:?}");
}

#[tokio::test]
async fn http_2_has_to_be_offered_where_it_is_spoken() {
    let policy = r#"{"probe":{"kind":"grpc"},"tls":{"verify":false}}"#;
    for protocol in [Protocol::H2, Protocol::Https] {
        let found = ask(policy, start(Behaviour::Tls(b"http/1.1", "")).await, protocol).await;
        assert_eq!(found.0, "tls", "{found:?}");
    }
    let found = ask(policy, start(Behaviour::Tls(b"h2", "no HTTP/2 though")).await, Protocol::H2).await;
    assert_eq!(found.0, "broken", "{found:?}");
}
