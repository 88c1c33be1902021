//! Instances that speak TLS: real ones, by Python's `ssl`, with certificates of `tests/certificates` and of OpenSSL; and
//! upstreams behind a sidecar, where it is about the protocols in it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::world::World;
use crate::world::ports::free_address;
use crate::world::program::Program;
use crate::world::sidecar::Sidecar;
use crate::world::tls::Authority;
use crate::world::upstream::Upstream;

/// Answers with the client's certificate, or `none`, and counts connections. With a fourth argument it wants one of those.
const INSTANCE: &str = r#"
import ssl, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
if len(sys.argv) > 4:
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(sys.argv[4])
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        shown = self.connection.getpeercert()
        name = dict(x[0] for x in shown["subject"])["commonName"] if shown else "none"
        said = f"{name} {self.client_address[1]}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
    def log_message(self, *_):
        pass
host, port = sys.argv[1].split(":")
server = ThreadingHTTPServer((host, int(port)), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
"#;

const CA: &str = include_str!("../certificates/ca.pem");

/// A world whose service `app` is one instance with the certificate for `instance.test`.
fn serving(tls: &Value, wants: Option<&Path>) -> (World, Program, SocketAddr) {
    let world = World::new();
    let address = free_address();
    let certificates = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates");
    let mut command = Command::new("python3");
    command.args(["-c", INSTANCE, &address.to_string()]);
    command.arg(certificates.join("instance.pem")).arg(certificates.join("instance.key")).args(wants);
    let instance = Program::start(&mut command, &world.folder(), "instance");
    world.eventually("the instance listens", || std::net::TcpStream::connect(address).is_ok());
    world.put("/services/app", &policy(tls));
    world.put("/routes/app", r#"{"service":"app"}"#);
    world.put("/instances/app/a", &format!(r#"{{"address":"{address}","protocol":"https"}}"#));
    (world, instance, address)
}

fn policy(tls: &Value) -> String {
    json!({"probe": {"kind": "none"}, "ejection": {"enabled": false}, "tls": tls}).to_string()
}

fn service(world: &World) -> Value {
    world.admin("/api/v1/services/app").json()
}

fn connect_detail(world: &World) -> String {
    service(world)["instances"][0]["connect_detail"].as_str().unwrap_or_default().to_owned()
}

/// A self-signed certificate for this name, and its key, as PEM.
fn identity(folder: &Path, name: &str) -> (String, String) {
    let [certificate, key] = ["pem", "key"].map(|kind| folder.join(format!("{name}.{kind}")));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", &format!("/CN={name}"), "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output();
    assert!(made.expect("openssl runs").status.success());
    let read = |path| fs::read_to_string(path).expect("what openssl wrote");
    (read(certificate), read(key))
}

#[test]
fn a_private_authority_is_trusted_by_requests_of_both_versions() {
    let (world, _instance, _) = serving(&json!({"ca": CA, "server_name": "instance.test"}), None);
    for answer in [world.get("/"), world.get("/"), world.get_h2("/")] {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    // On one connection of ours, so at one worker, each of which has connections of its own.
    let mut client = world.connect();
    let [first, second] = [(); 2].map(|()| client.ask("/").text().to_owned());
    assert_eq!(first, second, "the connection is used again");
    assert_eq!(connect_detail(&world), "");
}

#[test]
fn who_cannot_be_verified_gets_no_request_and_says_why() {
    let (world, _instance, _) = serving(&json!({"ca": CA, "server_name": "instance.test"}), None);
    assert_eq!(world.get("/").status, 200);
    // A pooled connection was made under another trust, so it is none for these.
    for (tls, said) in [(json!(null), "UnknownIssuer"), (json!({"ca": CA, "server_name": "another.test"}), "another.test")] {
        world.put("/services/app", &policy(&tls));
        for answer in [world.get("/"), world.get_h2("/")] {
            assert_eq!(answer.status, 502, "{tls}: {answer:?}");
            assert_eq!(answer.json()["error"], "upstream_tls");
            let detail = connect_detail(&world);
            assert!(detail.starts_with("TLS: ") && detail.contains(said), "{detail}");
        }
        assert!(world.proxy.log().contains("No TLS with an instance"));
    }
    world.put("/services/app", &policy(&json!({"verify": false})));
    assert_eq!(world.get("/").status, 200);
    assert_eq!(connect_detail(&world), "", "it has answered since");
    assert!(world.proxy.log().contains("tls.verify: is false"));
}

#[test]
fn a_client_certificate_is_shown_and_changed_live_and_its_key_never_seen() {
    let folder = tempfile::tempdir().expect("a folder");
    let [one, two] = ["one", "two"].map(|name| identity(folder.path(), name));
    let known = folder.path().join("known.pem");
    fs::write(&known, format!("{}{}", one.0, two.0)).expect("whom the instance knows");
    let with = |(certificate, key): &(String, String)| json!({"ca": CA, "certificate": certificate, "key": key});
    let (world, _instance, _) = serving(&with(&one), Some(&known));
    for answer in [world.get("/"), world.get_h2("/")] {
        assert!(answer.text().starts_with("one "), "{answer:?}");
    }
    let load = world.load("/");
    world.put("/services/app", &policy(&with(&two)));
    for answer in [world.get("/"), world.get_h2("/")] {
        assert!(answer.text().starts_with("two "), "{answer:?}");
    }
    let tally = load.ends();
    tally.all_served(tally.served());
    world.put("/services/app", &policy(&json!({"ca": CA})));
    let answer = world.get("/");
    assert_eq!(answer.status, 502, "{answer:?}");
    let shown = format!("{}{}", service(&world), world.proxy.log());
    let secret = one.1.lines().nth(1).expect("a line of the key");
    assert!(!shown.contains(secret) && !shown.contains("PRIVATE KEY"));
    world.put("/services/app", &policy(&with(&two)));
    let got = world.run(&["get", "service", "app"]);
    let got = String::from_utf8_lossy(&got.stdout).into_owned();
    assert!(got.contains("BEGIN CERTIFICATE") && !got.contains("PRIVATE KEY"), "{got}");
}

/// A world whose service `app` is an upstream behind TLS, in its record with this protocol.
fn behind_tls(protocol: &str, offers: &[&str]) -> (World, Authority, Upstream, Sidecar) {
    let world = World::new();
    let (authority, one) = (Authority::new("a story's own"), world.upstream("one"));
    let sidecar = Sidecar::offering(world.handle(), &authority.vouch(&["instance.test"]), one.address, offers);
    world.put("/services/app", &policy(&json!({"ca": authority.pem, "server_name": "instance.test"})));
    world.put("/routes/app", r#"{"service":"app"}"#);
    world.put("/instances/app/a", &json!({"address": sidecar.address.to_string(), "protocol": protocol}).to_string());
    (world, authority, one, sidecar)
}

#[test]
fn a_websocket_passes_to_an_instance_over_tls_which_hears_the_name_it_is_asked_by() {
    let (world, _authority, _one, sidecar) = behind_tls("https", &["http/1.1"]);
    let mut socket = world.websocket("/chat/ws");
    for said in ["once".to_owned(), "x".repeat(100_000)] {
        assert_eq!(world.echo(&mut socket, &said), Ok(said));
    }
    assert_eq!(sidecar.seen(), ["instance.test"]);
    world.put("/services/app", &policy(&json!({"server_name": "instance.test"})));
    assert_eq!(world.websocket_refused("/chat/ws"), 502, "nobody whom the system trusts has signed it");
    assert!(connect_detail(&world).contains("UnknownIssuer"), "{}", connect_detail(&world));
    assert_eq!(world.echo(&mut socket, "goes on"), Ok("goes on".to_owned()), "what was open stays");
}

#[test]
fn http_2_is_spoken_over_tls_to_who_agrees_to_it_and_to_nobody_else() {
    let (world, _authority, one, sidecar) = behind_tls("h2", &["h2"]);
    for answer in [world.get("/seen"), world.get_h2("/seen")] {
        assert_eq!((answer.status, &answer.json()["version"]), (200, &json!("HTTP/2.0")), "{answer:?}");
    }
    assert!(sidecar.seen().iter().all(|name| name == "instance.test") && one.accepted() < 4);

    let (world, _authority, one, _sidecar) = behind_tls("h2", &["http/1.1"]);
    for answer in [world.get("/"), world.get_h2("/")] {
        assert_eq!((answer.status, &answer.json()["error"]), (502, &json!("upstream_tls")), "{answer:?}");
    }
    assert_eq!(one.requests(), 0);
}

#[test]
fn a_certificate_that_has_expired_or_is_for_another_name_is_refused_and_counted() {
    let (world, authority, one, sidecar) = behind_tls("https", &["http/1.1"]);
    for (pair, said) in [
        (authority.vouch_until(&["instance.test"], SystemTime::now() - Duration::from_secs(3600)), "expired"),
        (authority.vouch(&["another.test"]), "another.test"),
    ] {
        sidecar.shows(&pair);
        for answer in [world.get("/"), world.get_h2("/")] {
            assert_eq!((answer.status, &answer.json()["error"]), (502, &json!("upstream_tls")), "{answer:?}");
        }
        assert!(connect_detail(&world).contains(said), "{}", connect_detail(&world));
    }
    assert_eq!((one.requests(), sidecar.seen().len()), (0, 0), "not a byte of a request reached it");
    let failed = world.metric("pointsman_upstream_requests_total", &[("service", "app"), ("outcome", "connect_failed")]);
    assert!(failed >= Some(4.0), "{failed:?}");
    sidecar.shows(&authority.vouch(&["instance.test"]));
    assert_eq!(world.get("/").status, 200);
}

#[test]
fn authorities_in_a_file_change_under_load_without_a_failed_request() {
    let world = World::setup().embedded().start();
    let (old, new, one) = (Authority::new("old"), Authority::new("new"), world.upstream("one"));
    let sidecar = Sidecar::start(world.handle(), &old.vouch(&["instance.test"]), one.address);
    let declared = format!(
        "[[route]]\nservice = \"app\"\n[[service]]\nname = \"app\"\nprobe = {{ kind = \"none\" }}\n\
         instances = [{{ address = \"{}\", protocol = \"https\" }}]\n\
         tls = {{ ca_file = \"instances.pem\", server_name = \"instance.test\" }}\n",
        sidecar.address
    );
    let config = fs::read_to_string(world.config_file()).expect("the configuration");
    let authorities = |pem: &str| {
        fs::write(world.folder().join("instances.pem"), pem).expect("a file");
        world.proxy.signal(Signal::SIGHUP);
    };
    world.write_config(&format!("{config}{declared}"));
    authorities(&old.pem);
    world.settles("it is declared", 200, || world.get("/").status);

    let load = world.load("/");
    let n_read = || world.proxy.log().matches("File's declarations read").count();
    for pem in [format!("{}{}", old.pem, new.pem), new.pem.clone()] {
        let before = n_read();
        authorities(&pem);
        world.eventually("it is read", || n_read() > before);
        sidecar.shows(&new.vouch(&["instance.test"]));
        for answer in [world.get("/"), world.get_h2("/")] {
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
    let tally = load.ends();
    tally.all_served(tally.served());

    authorities("nothing");
    world.eventually("it is told", || world.proxy.log().contains("service[0].tls.ca: is not a PEM text"));
    assert_eq!(world.get("/").status, 200, "what was in force is in force");
}
