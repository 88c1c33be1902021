//! TLS at the listeners, asked by clients that others wrote: curl and openssl.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::Version;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::world::client::{Answer, PATIENCE, whole};
use crate::world::ports::free_address;
use crate::world::tls::{Authority, Curled, Pair, Seen, connect, curl, s_client};
use crate::world::upstream::Upstream;
use crate::world::{Ask, Setup, World};

/// A proxy whose second listener terminates TLS with `a.pem`, for `a.example` and everything below `b.example`.
struct Secure {
    world: World,
    at: SocketAddr,
    authority: Authority,
    one: Upstream,
}

impl Secure {
    fn new() -> Self {
        Self::with("", |setup| setup)
    }

    /// `settings`: more lines of `[listener.tls]`.
    fn with(settings: &str, more: impl FnOnce(Setup) -> Setup) -> Self {
        Self::within("", settings, more)
    }

    /// `limits`: of what clients may do.
    fn within(limits: &str, settings: &str, more: impl FnOnce(Setup) -> Setup) -> Self {
        let (at, authority) = (free_address(), Authority::new("Test Root"));
        let pair = authority.vouch(&["a.example", "*.b.example"]);
        let config = format!(
            "[[listener]]\naddress = 'LISTEN'\n[[listener]]\naddress = '{at}'\n[listener.tls]\n\
             certificates = [{{ chain = 'a.pem', key = 'a.key' }}]\n{settings}\n[proxy]\nworkers = 2\n\
             [proxy.limits]\n{limits}\n[log]\nfilter = 'info,pointsman=debug'\n"
        );
        let setup = World::setup().config(&config).file("ca.pem", &authority.pem);
        let world = more(setup.file("a.pem", &pair.chain).file("a.key", &pair.key)).start();
        let [one] = world.serve("app", ["one"]);
        Self { world, at, authority, one }
    }

    fn folder(&self) -> PathBuf {
        self.world.folder()
    }

    fn curl(&self, host: &str, path: &str, args: &[&str]) -> Curled {
        curl(&self.folder(), self.at, host, path, args)
    }

    fn see(&self, name: &str, args: &[&str]) -> Seen {
        s_client(&self.folder(), self.at, name, args)
    }

    fn handshakes(&self, result: &str) -> f64 {
        self.world.metric("pointsman_tls_handshakes_total", &[("result", result)]).unwrap_or_default()
    }

    fn subject_is(&self, name: &str, subject: &str) {
        self.world.settles(&format!("the certificate for {name}"), format!("CN = {subject}"), || {
            self.see(name, &[]).subject().to_owned()
        });
    }
}

#[test]
fn http_2_and_http_1_are_agreed_on_and_instances_know_that_it_was_tls() {
    let secure = Secure::new();
    for (args, version) in [
        (&["--http2"][..], "2"),
        (&["--http1.1"], "1.1"),
        (&["--http2", "--tls-max", "1.2"], "2"),
        (&["--http1.1", "--tls-max", "1.2"], "1.1"),
        (&["--no-alpn", "--http1.1"], "1.1"),
    ] {
        let answer = secure.curl("a.example", "/seen", args);
        assert_eq!((answer.status, &*answer.version), (200, version), "{args:?} {answer:?}");
        assert!(answer.body.contains(r#""x-forwarded-proto","https""#), "{answer:?}");
    }
    let count =
        |version: &str| secure.world.metric("pointsman_tls_handshakes_total", &[("version", version), ("result", "full")]);
    assert_eq!((count("1.3"), count("1.2")), (Some(3.0), Some(2.0)));
    // The listener beside it is as it was.
    assert!(secure.world.get("/seen").text().contains(r#""x-forwarded-proto","http""#));
}

#[test]
fn bodies_of_any_size_pass_both_ways_whole() {
    let secure = Secure::new();
    let sent: Vec<u8> = (0..8_000_000u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(secure.folder().join("sent"), &sent).expect("a file");
    for version in ["--http2", "--http1.1"] {
        // Slowly enough that the kernel does not take everything at once.
        for limit in ["4M", "1G"] {
            let args = [version, "--limit-rate", limit, "--data-binary", "@sent", "--output", "got", "-H", "Expect:"];
            let answer = secure.curl("a.example", "/echo", &args);
            assert_eq!(answer.status, 200, "{version} {limit} {answer:?}");
            assert!(
                std::fs::read(secure.folder().join("got")).expect("a file") == sent,
                "{version} {limit}: other bytes came back"
            );
        }
    }
}

#[test]
fn a_client_gets_the_certificate_of_the_name_it_asks_for() {
    let secure = Secure::new();
    secure.world.put("/certificates/exact", &secure.authority.vouch(&["x.b.example"]).record());
    secure.world.put("/certificates/star", &secure.authority.vouch(&["*.c.example"]).record());
    secure.subject_is("x.b.example", "x.b.example");
    secure.subject_is("a.example", "a.example");
    secure.subject_is("y.b.example", "a.example");
    secure.subject_is("y.c.example", "*.c.example");
    secure.subject_is("nobody.example", "a.example");
    let told = secure.world.admin("/api/v1/certificates");
    assert!(!told.text().contains("PRIVATE") && told.json()["rejected"].as_array().is_some_and(Vec::is_empty), "{}", told.text());
    let of = |name: &str| told.json()["certificates"].as_array().unwrap().iter().find(|c| c["name"] == name).cloned().unwrap();
    assert_eq!((&of("star")["names"][0], &of("star")["in_use"]), (&"*.c.example".into(), &true.into()));
    assert_eq!(of("exact")["listeners"][0], secure.at.to_string());
    for name in ["exact", "star"] {
        assert!(secure.world.metric("pointsman_certificate_expiry_timestamp_seconds", &[("name", name)]).is_some());
    }
    let listed = secure.world.run(&["get", "certificate"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("*.c.example") && listed.contains("EXPIRES") && !listed.contains("PRIVATE"), "{listed}");
    let checked = secure.world.run(&["check", "--registry", "--config", "pointsman.toml"]);
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.contains("holds a private key, like 1 more") && checked.contains("is not encrypted"), "{checked}");
    // What is taken away is offered no more.
    secure.world.delete("/certificates/exact");
    secure.subject_is("x.b.example", "a.example");
}

#[test]
fn certificates_are_swapped_under_open_connections_and_sessions_go_on() {
    let secure = Secure::new();
    let mut open = secure.world.handle().block_on(async {
        let stream = connect(secure.at, "a.example", &secure.authority.pem, &["h2"]).await.expect("a handshake");
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    });
    let mut ask = || {
        let request = Ask::get("/").request(Version::HTTP_2, whole(Default::default()));
        secure.world.handle().block_on(async { Answer::read(open.send_request(request).await.unwrap()).await.unwrap().status })
    };
    for (version, ticket) in [("-tls1_3", "t3"), ("-tls1_2", "t2")] {
        let first = secure.see("a.example", &[version, "-sess_out", ticket]);
        assert!(!first.is_resumed() && first.answer() == "HTTP/1.1 200 OK", "{first:?}");
    }
    // Of a file, twice: found by itself, and on SIGHUP.
    secure.authority.vouch(&["two.example", "a.example"]).write(&secure.folder(), "a");
    secure.subject_is("a.example", "two.example");
    secure.authority.vouch(&["three.example", "a.example"]).write(&secure.folder(), "a");
    secure.world.proxy.signal(Signal::SIGHUP);
    secure.subject_is("a.example", "three.example");
    // Of the registry, for a name that the file's has no more.
    for name in ["four", "five"] {
        secure.world.put("/certificates/shop", &secure.authority.vouch(&[&format!("{name}.example"), "x.b.example"]).record());
        secure.subject_is("x.b.example", &format!("{name}.example"));
    }
    assert_eq!(ask(), 200, "the connection from before all of it");
    // Often enough to meet both workers.
    for _ in 0..6 {
        for (version, ticket) in [("-tls1_3", "t3"), ("-tls1_2", "t2")] {
            let again = secure.see("a.example", &[version, "-sess_in", ticket]);
            assert!(again.is_resumed() && again.answer() == "HTTP/1.1 200 OK", "{version} {again:?}");
        }
    }
    assert_eq!(secure.handshakes("resumed"), 12.0);
    let events = secure.world.admin("/api/v1/events");
    assert!(events.text().contains(r#""kind":"certificate_set""#) && events.text().contains("five.example"), "{}", events.text());
}

#[test]
fn a_bad_pair_is_told_by_name_and_the_old_one_serves() {
    let secure = Secure::new();
    let (good, other) = (secure.authority.vouch(&["x.example"]), secure.authority.vouch(&["y.example"]));
    secure.world.put("/certificates/x", &good.record());
    secure.subject_is("x.example", "x.example");

    let mixed = Pair { key: other.key.clone(), ..good.clone() };
    secure.world.put("/certificates/x", &mixed.record());
    secure.world.eventually("the record is rejected", || secure.world.status()["registry"]["n_rejected"] == 1);
    let rejected = secure.world.status()["registry"]["rejected"][0].clone();
    assert!(rejected["key"].as_str().is_some_and(|key| key.ends_with("/certificates/x")), "{rejected}");
    assert!(rejected["reason"].as_str().is_some_and(|r| r.contains("key: does not belong to the certificate of CN=x.example")));
    assert_eq!(secure.see("x.example", &[]).subject(), "CN = x.example");

    std::fs::write(secure.folder().join("a.key"), &other.key).expect("a file");
    let rejected = || secure.world.admin("/api/v1/certificates").json()["rejected"].clone();
    secure.world.eventually("the file is rejected", || rejected().as_array().is_some_and(|list| list.len() == 1));
    assert!(rejected()[0]["reason"].as_str().is_some_and(|reason| reason.contains("a.key does not belong")), "{}", rejected());
    assert_eq!(secure.world.metric("pointsman_certificate_files_rejected", &[]), Some(1.0));
    assert_eq!(secure.see("a.example", &[]).subject(), "CN = a.example");

    let check = secure.world.run(&["check", "--config", "pointsman.toml"]);
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(
        !check.status.success() && said.contains("listener[1].tls.certificates[0]") && said.contains("a.key does not"),
        "{said}"
    );
    std::fs::write(secure.folder().join("mixed.json"), mixed.record()).expect("a file");
    let put = secure.world.run(&["put", "certificate", "x", "mixed.json"]);
    assert!(!put.status.success(), "what is bad is not even written");

    // It is good again as soon as both are.
    other.write(&secure.folder(), "a");
    secure.world.eventually("nothing is rejected", || rejected().as_array().is_some_and(Vec::is_empty));
    secure.subject_is("y.example", "y.example");
    for part in [&good.key, &other.key] {
        let line = part.lines().nth(1).expect("a line of the key");
        assert!(!secure.world.proxy.log().contains(line), "a key is in the log");
    }
}

#[test]
fn who_a_client_is_is_verified_told_and_cannot_be_said_by_anybody_else() {
    let clients = Authority::new("Client Root");
    let alice = clients.vouch(&["alice"]);
    let secure = Secure::with("client_auth = 'require'\nclient_ca = 'clients.pem'", |setup| {
        setup.file("clients.pem", &clients.pem).file("alice.pem", &alice.chain).file("alice.key", &alice.key)
    });
    let shown = ["--cert", "alice.pem", "--key", "alice.key"];
    let forged = ["-H", "X-Client-Cert-Subject: CN=root", "-H", "X_Client_Cert_Fingerprint: 00", "-H", "Client-Cert: :AAAA:"];
    for version in ["--http2", "--http1.1"] {
        let answer = secure.curl("a.example", "/seen", &[&[version][..], &shown, &forged].concat());
        let expected = format!(r#""x-client-cert-fingerprint","{}""#, sha256(&secure, "alice.pem"));
        assert!(answer.body.contains(r#""x-client-cert-subject","CN=alice""#) && answer.body.contains(&expected), "{answer:?}");
        assert!(!answer.body.contains("root") && !answer.body.contains("AAAA") && !answer.body.contains("_cert_"), "{answer:?}");
    }
    // Nobody who shows nothing, or somebody else's.
    let stranger = Authority::new("Another Root").vouch(&["mallory"]);
    stranger.write(&secure.folder(), "mallory");
    assert_eq!(secure.curl("a.example", "/", &[]).status, 0);
    assert_eq!(secure.curl("a.example", "/", &["--cert", "mallory.pem", "--key", "mallory.key"]).status, 0);
    secure.world.settles("who was refused", 2.0, || secure.handshakes("client_certificate"));
    // The listener without TLS believes nobody.
    let plain = secure.world.get(Ask::get("/seen").with("x-client-cert-subject", "CN=root").with("client-cert", ":AAAA:"));
    assert!(!plain.text().contains("root") && !plain.text().contains("AAAA"), "{}", plain.text());

    // Once another authority is believed, alice is nobody, though she has a ticket.
    let certificate = ["-cert", "alice.pem", "-key", "alice.key"];
    let first = secure.see("a.example", &[&certificate[..], &["-sess_out", "ticket"]].concat());
    assert_eq!(first.answer(), "HTTP/1.1 200 OK", "{first:?}");
    let again = secure.see("a.example", &[&certificate[..], &["-sess_in", "ticket"]].concat());
    assert!(again.is_resumed(), "{again:?}");
    std::fs::write(secure.folder().join("clients.pem"), Authority::new("New Root").pem).expect("a file");
    secure.world.settles("alice is refused", 0, || secure.curl("a.example", "/", &shown).status);
    let refused = secure.see("a.example", &[&certificate[..], &["-sess_in", "ticket"]].concat());
    assert!(!refused.is_resumed() && refused.answer().is_empty(), "{refused:?}");
}

#[test]
fn a_client_that_may_show_a_certificate_need_not() {
    let clients = Authority::new("Client Root");
    let secure =
        Secure::with("client_auth = 'request'\nclient_ca = 'clients.pem'", |setup| setup.file("clients.pem", &clients.pem));
    clients.vouch(&["alice"]).write(&secure.folder(), "alice");
    let without = secure.curl("a.example", "/seen", &["-H", "X-Client-Cert-Subject: CN=root"]);
    assert!(without.status == 200 && !without.body.contains("x-client-cert"), "{without:?}");
    let with = secure.curl("a.example", "/seen", &["--cert", "alice.pem", "--key", "alice.key"]);
    assert!(with.body.contains(r#""x-client-cert-subject","CN=alice""#), "{with:?}");
}

#[test]
fn websockets_and_grpc_pass_over_tls() {
    let secure = Secure::new();
    secure.world.handle().block_on(async {
        let stream = connect(secure.at, "a.example", &secure.authority.pem, &["http/1.1"]).await.expect("a handshake");
        let (mut socket, _) = tokio_tungstenite::client_async("wss://a.example/chat/ws", stream).await.expect("a WebSocket");
        for said in ["hello".to_owned(), "x".repeat(300_000)] {
            socket.send(Message::text(said.clone())).await.expect("it is taken");
            let heard = tokio::time::timeout(PATIENCE, socket.next()).await.expect("an echo in time");
            assert_eq!(heard.expect("an echo").expect("a whole one").into_text().expect("text"), said);
        }
        socket.close(None).await.expect("a goodbye");
    });
    let record = format!(r#"{{"address":"{}","protocol":"h2c"}}"#, secure.one.address);
    secure.world.put("/instances/app/one", &record);
    let answer = secure.world.handle().block_on(async {
        let stream = connect(secure.at, "a.example", &secure.authority.pem, &["h2"]).await.expect("a handshake");
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
        tokio::spawn(connection);
        let call = Ask::post("/echo.Echo/Say", "").with("content-type", "application/grpc").with("te", "trailers");
        let call = call.request(Version::HTTP_2, whole(b"\0\0\0\0\x02hi"[..].into()));
        Answer::read(sender.send_request(call).await.expect("an answer")).await.expect("a whole one")
    });
    assert_eq!(answer.trailers.get("grpc-status").map(|v| v.as_bytes()), Some(&b"0"[..]), "{answer:?}");
}

#[test]
fn browsers_are_brought_to_tls_and_kept_there() {
    let redirecting = free_address();
    let more = format!(
        "hsts = {{ max_age = '1h', include_subdomains = true }}\n[[listener]]\naddress = '{redirecting}'\nredirect_to_https = 443"
    );
    let secure = Secure::with(&more, |setup| setup);
    for version in ["--http2", "--http1.1"] {
        for path in ["/", "/status?code=503"] {
            let answer = secure.curl("a.example", path, &[version]);
            assert!(answer.fields.contains("strict-transport-security: max-age=3600; includesubdomains"), "{path} {answer:?}");
        }
    }
    // Also on what we answer ourselves, and never without TLS.
    secure.world.delete("/routes/app");
    for version in ["--http2", "--http1.1"] {
        secure.world.settles("no route", 404, || secure.curl("a.example", "/", &[version]).status);
        assert!(secure.curl("a.example", "/", &[version]).fields.contains("strict-transport-security"));
    }
    assert_eq!(secure.world.get("/").field("strict-transport-security"), "");

    let redirected = |bytes: &str| {
        let mut stream = TcpStream::connect(redirecting).expect("it accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        stream.write_all(bytes.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it closes");
        answer
    };
    let answer =
        redirected("POST /a/../b?c=d HTTP/1.1\r\nHost: Shop.example:8080\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 308 ") && answer.contains("\r\nlocation: https://shop.example/b?c=d\r\n"), "{answer}");
    let answer = redirected("GET / HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[test]
fn handshakes_that_fail_are_counted_and_disturb_nobody() {
    let secure = Secure::within("handshake = '2s'", "min_version = '1.3'", |setup| setup);
    // Says nothing, for longer than a handshake may take; others are not kept waiting by it.
    let silent: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(secure.at).expect("it accepts")).collect();
    assert_eq!(secure.curl("a.example", "/", &[]).status, 200);
    assert_eq!(secure.curl("a.example", "/", &["--tls-max", "1.2"]).status, 0);
    secure.world.settles("silent ones are given up", 8.0, || secure.handshakes("slow"));
    drop(silent);
    let mut plain = TcpStream::connect(secure.at).expect("it accepts");
    plain.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    plain.read_to_string(&mut answer).expect("it closes");
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("this port speaks TLS"), "{answer}");
    let mut noise = TcpStream::connect(secure.at).expect("it accepts");
    noise.write_all(&[22, 3, 1, 0, 5, 9, 9, 9, 9, 9]).expect("it reads");
    let _ = noise.read(&mut [0; 64]);
    // Ours is not believed.
    std::fs::write(secure.folder().join("ca.pem"), Authority::new("Another Root").pem).expect("a file");
    assert_eq!(secure.curl("a.example", "/", &[]).status, 0);
    for (result, n) in [("full", 1.0), ("incompatible", 1.0), ("not_tls", 1.0), ("invalid", 1.0), ("distrusted", 1.0)] {
        secure.world.settles(result, n, || secure.handshakes(result));
    }
    let log = secure.world.proxy.log();
    let loud: Vec<_> = log.lines().filter(|line| line.contains("handshake") && !line.contains("DEBUG")).collect();
    assert!(loud.is_empty() && log.contains("A handshake failed"), "{loud:?}");
}

/// In hexadecimal, as openssl has it.
fn sha256(secure: &Secure, file: &str) -> String {
    let out = std::process::Command::new("openssl")
        .current_dir(secure.folder())
        .args(["x509", "-in", file, "-noout", "-fingerprint", "-sha256"])
        .output()
        .expect("openssl runs");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let (_, digits) = said.trim().split_once('=').expect("a fingerprint");
    digits.replace(':', "").to_ascii_lowercase()
}

#[test]
fn an_idle_connection_ends_with_a_goodbye_and_not_as_if_it_were_cut() {
    let secure = Secure::within("keep_alive = '300ms'", "", |setup| setup);
    let said = secure.world.handle().block_on(async {
        let mut stream = connect(secure.at, "a.example", &secure.authority.pem, &["http/1.1"]).await.expect("a handshake");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.expect("it is taken");
        let mut said = String::new();
        // Without the goodbye this is an error.
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut said)).await.expect("an end in time").expect("a clean one");
        said
    });
    assert!(said.starts_with("HTTP/1.1 200 OK"), "{said}");
}

#[test]
fn the_end_lets_requests_finish_and_a_start_without_etcd_has_its_certificates() {
    let settings = "[registry]\nsnapshot = 'registry.snapshot'\n[proxy.shutdown]\ngrace = '0s'\ndrain = '20s'";
    let mut secure = Secure::with(settings, |setup| setup);
    secure.world.put("/certificates/shop", &secure.authority.vouch(&["shop.example"]).record());
    secure.subject_is("shop.example", "shop.example");
    // One in the middle of an answer, one in the middle of a handshake.
    let (folder, at) = (secure.folder(), secure.at);
    let running = std::thread::spawn(move || curl(&folder, at, "shop.example", "/half", &["--http2"]));
    secure.world.settles("it runs", 1, || secure.one.running());
    let _silent = TcpStream::connect(secure.at).expect("it accepts");
    secure.world.terminate();
    secure.world.eventually("the listener closes", || TcpStream::connect(at).is_err());
    secure.one.release();
    assert_eq!(running.join().expect("curl ends").status, 200);
    assert_eq!(secure.world.proxy_mut().exits_within(Duration::from_secs(8)).code(), Some(0));

    secure.world.etcd_mut().kill();
    secure.world.start_proxy_again();
    secure.world.is_ready();
    assert_eq!(secure.see("shop.example", &[]).subject(), "CN = shop.example");
}

#[test]
fn a_proxy_header_comes_before_the_handshake() {
    let settings = "[proxy]\ntrusted_proxies = ['127.0.0.0/8']\n";
    let at = free_address();
    let authority = Authority::new("Test Root");
    let pair = authority.vouch(&["a.example"]);
    let config = format!(
        "[[listener]]\naddress = 'LISTEN'\n[[listener]]\naddress = '{at}'\nproxy_protocol = true\n[listener.tls]\n\
         certificates = [{{ chain = 'a.pem', key = 'a.key' }}]\n{settings}"
    );
    let setup = World::setup().config(&config).file("ca.pem", &authority.pem);
    let world = setup.file("a.pem", &pair.chain).file("a.key", &pair.key).start();
    let [_one] = world.serve("app", ["one"]);
    for version in ["--http2", "--http1.1"] {
        let answer = curl(&world.folder(), at, "a.example", "/seen", &[version, "--haproxy-protocol"]);
        assert!(answer.status == 200 && answer.body.contains(r#""x-forwarded-proto","https""#), "{version} {answer:?}");
        let without = curl(&world.folder(), at, "a.example", "/seen", &[version]);
        assert_eq!(without.status, 0, "{version} {without:?}");
    }
    assert_eq!(world.metric("pointsman_proxy_headers_total", &[("result", "proxied")]), Some(2.0));
    assert_eq!(world.metric("pointsman_tls_handshakes_total", &[("result", "full")]), Some(2.0));
}

#[test]
fn an_expired_certificate_is_served_with_a_warning() {
    let secure = Secure::new();
    let old = secure.authority.vouch_for(&["old.example"], Duration::ZERO);
    secure.world.put("/certificates/old", &old.record());
    secure.subject_is("old.example", "old.example");
    secure.world.eventually("it is told", || secure.world.proxy.log().contains("has expired: certificate 1 (CN=old.example)"));
    let told = secure.world.admin("/api/v1/certificates").json();
    assert!(told["certificates"].as_array().unwrap().iter().any(|c| c["name"] == "old" && c["expired"] == true), "{told}");
}
