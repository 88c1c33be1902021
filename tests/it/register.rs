//! An instance keeps itself registered, whatever happens to it, to its registrar or to etcd; and an operator changes
//! the registry from the command line. No proxy is needed for that.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use etcd_client::{Client, KeyValue, PutOptions};
use nix::sys::signal::Signal;
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::world::etcd::Etcd;
use crate::world::ports::free_address;
use crate::world::program::Program;
use crate::world::tls::Authority;

#[test]
fn a_killed_registrar_leaves_nothing_behind_after_its_lease() {
    let scene = Scene::new();
    let pid_file = scene.file("pid");
    let script = format!("echo $$ > {}; exec sleep 60", pid_file.display());
    let mut registrar = scene.register(&["--ttl", "2s", "--", "sh", "-c", &script]);
    scene.eventually("it is registered", || scene.state() == Some("ready".to_owned()));
    scene.eventually("the child has told its pid", || fs::read_to_string(&pid_file).is_ok_and(|pid| pid.ends_with('\n')));
    let child = fs::read_to_string(&pid_file).unwrap();

    registrar.signal(Signal::SIGKILL);
    registrar.exits_within(SOON);
    scene.eventually("the child dies with it", || !PathBuf::from(format!("/proc/{}", child.trim())).exists());
    scene.eventually("the lease ends", || scene.record().is_none());
}

#[test]
fn a_lease_revoked_by_hand_is_replaced() {
    let scene = Scene::new();
    let _registrar = scene.register(&[]);
    scene.eventually("it is registered", || scene.record().is_some());
    let lease = scene.record().unwrap().lease();
    scene.with_etcd(async |etcd| etcd.lease_revoke(lease).await.map(|_| ()));
    scene.eventually("it is registered again", || scene.record().is_some_and(|record| ![0, lease].contains(&record.lease())));
}

#[test]
fn a_key_deleted_or_overwritten_by_hand_comes_back() {
    let scene = Scene::new();
    let _registrar = scene.register(&[]);
    scene.eventually("it is registered", || scene.record().is_some());
    let first = scene.record().unwrap();

    scene.with_etcd(async |etcd| etcd.delete(KEY, None).await.map(|_| ()));
    scene.eventually("it is there again", || scene.record().is_some_and(|record| record.mod_revision() > first.mod_revision()));
    assert_eq!(scene.record().unwrap().lease(), first.lease());

    scene.with_etcd(async |etcd| etcd.put(KEY, "10.9.9.9:9", None).await.map(|_| ()));
    scene.eventually("it says again what it said", || scene.record().is_some_and(|record| record.value() == first.value()));
    assert_eq!(scene.record().unwrap().lease(), first.lease());
}

#[test]
fn an_etcd_that_was_wiped_knows_the_instance_again() {
    let mut scene = Scene::new();
    let _registrar = scene.register(&["--ttl", "30s"]);
    scene.eventually("it is registered", || scene.record().is_some());
    scene.etcd.replace(|_| {});
    scene.eventually("it is registered again", || scene.record().is_some());
}

#[test]
fn a_dead_endpoint_is_passed_over() {
    let scene = Scene::new();
    let endpoints = format!("http://{},{}", free_address(), scene.etcd.url());
    // Each registrar begins with an endpoint of its own choice; of eight, hardly all choose the living one.
    let ids = ["a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8"];
    let _registrars = ids.map(|id| scene.register(&["--etcd", &endpoints, "--id", id]));
    let n_registered = || ids.iter().filter(|id| scene.at(&format!("/pointsman/instances/orders/{id}")).is_some()).count();
    scene.eventually("all are registered", || n_registered() == ids.len());
}

#[test]
fn a_stop_drains_then_deregisters_then_stops_the_child_and_exits_as_it_did() {
    let scene = Scene::new();
    let stopped = scene.file("stopped");
    let script = format!("trap 'touch {}; exit 5' TERM; while :; do sleep 0.02; done", stopped.display());
    let mut registrar = scene.register(&["--drain", "1s", "--", "sh", "-c", &script]);
    scene.eventually("it is registered", || scene.state() == Some("ready".to_owned()));

    registrar.signal(Signal::SIGTERM);
    scene.eventually("it says that it drains", || scene.state() == Some("draining".to_owned()));
    assert!(!stopped.exists(), "the child was stopped while requests could still come");
    scene.eventually("the child is stopped", || stopped.exists());
    assert!(scene.record().is_none(), "the child was stopped before its key was gone");
    assert_eq!(registrar.exits_within(SOON).code(), Some(5));
}

#[test]
fn a_child_that_ignores_its_end_is_killed() {
    let scene = Scene::new();
    let deaf = scene.file("deaf");
    let script = format!("trap '' TERM; touch {}; while :; do sleep 0.02; done", deaf.display());
    let mut registrar = scene.register(&["--drain", "0s", "--kill-after", "300ms", "--", "sh", "-c", &script]);
    scene.eventually("it is registered and deaf", || scene.record().is_some() && deaf.exists());
    registrar.signal(Signal::SIGTERM);
    assert_eq!(registrar.exits_within(SOON).code(), Some(137));
    assert!(scene.record().is_none());
}

#[test]
fn a_child_that_ends_takes_its_registration_along_at_once() {
    let scene = Scene::new();
    let end = scene.file("end");
    let script = format!("while [ ! -e {} ]; do sleep 0.02; done; exit 3", end.display());
    let mut registrar = scene.register(&["--ttl", "60s", "--", "sh", "-c", &script]);
    scene.eventually("it is registered", || scene.record().is_some());
    fs::write(&end, "").unwrap();
    assert_eq!(registrar.exits_within(SOON).code(), Some(3));
    assert!(scene.record().is_none());
}

#[test]
fn other_signals_are_handed_on_to_the_child() {
    let scene = Scene::new();
    let heard = scene.file("heard");
    let script = format!(
        "trap 'echo usr1 >> {0}' USR1; trap 'echo int >> {0}; exit 0' INT; echo up >> {0}; while :; do sleep 0.02; done",
        heard.display()
    );
    let mut registrar = scene.register(&["--", "sh", "-c", &script]);
    let hears = |words: &str| fs::read_to_string(&heard).is_ok_and(|text| text.split_whitespace().eq(words.split(' ')));
    scene.eventually("the child listens", || hears("up"));
    registrar.signal(Signal::SIGUSR1);
    scene.eventually("USR1 arrives", || hears("up usr1"));
    registrar.signal(Signal::SIGINT);
    assert_eq!(registrar.exits_within(SOON).code(), Some(0));
    assert!(hears("up usr1 int"));
}

#[test]
fn an_id_in_use_is_refused_with_its_reason_unless_forced() {
    let scene = Scene::new();
    let _first = scene.register(&[]);
    scene.eventually("it is registered", || scene.record().is_some());

    let other = ["--address", "10.0.0.9:80"];
    let mut second = scene.register_at(&other);
    assert_eq!(second.exits_within(SOON).code(), Some(1));
    assert!(second.log().contains("--force") && second.log().contains(ADDRESS), "{}", second.log());
    assert_eq!(scene.address(), Some(ADDRESS.to_owned()));

    let _forced = scene.register_at(&[&other[..], &["--force"]].concat());
    scene.eventually("the forced one has the id", || scene.address().as_deref() == Some("10.0.0.9:80"));
}

#[test]
fn a_registrar_that_starts_again_after_a_crash_takes_over_what_it_left() {
    let scene = Scene::new();
    let mut first = scene.register(&["--ttl", "60s"]);
    scene.eventually("it is registered", || scene.record().is_some());
    let left = scene.record().unwrap().lease();
    first.signal(Signal::SIGKILL);
    first.exits_within(SOON);
    let _second = scene.register(&["--ttl", "60s"]);
    scene.eventually("the new lease holds the key", || scene.record().is_some_and(|record| record.lease() != left));
}

#[test]
fn the_gate_registers_what_is_well_and_drains_what_is_not() {
    let scene = Scene::new();
    let (address, well) = healthz();
    let instance = ["--address", &address, "--probe", "/healthz", "--probe-interval", "50ms", "--rise", "2", "--fall", "2"];
    let _registrar = scene.register_at(&instance);
    std::thread::sleep(Duration::from_millis(300));
    assert!(scene.record().is_none(), "it was registered although it is not well");
    for (is_well, state) in [(true, "ready"), (false, "draining"), (true, "ready")] {
        well.store(is_well, Ordering::Relaxed);
        scene.eventually(&format!("it is {state}"), || scene.state().as_deref() == Some(state));
    }
    assert_eq!(scene.value().unwrap()["probe"]["path"], "/healthz");
}

#[test]
fn put_names_every_problem_and_writes_nothing() {
    let scene = Scene::new();
    let refused = scene.pipe(&["put", "instance", "orders/a1", "-"], r#"{"address":"nowhere","weight":70000,"state":"sleepy"}"#);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(["address", "nowhere", "weight", "70000", "state", "sleepy"].iter().all(|part| said.contains(part)), "{said}");
    assert!(scene.record().is_none());

    let taken = scene.pipe(&["put", "instance", "orders/a1", "-"], "10.0.0.5:8080\n");
    assert_eq!(taken.status.code(), Some(0));
    let record = scene.record().unwrap();
    assert_eq!((text(&taken), record.value()), (record.mod_revision().to_string(), &b"10.0.0.5:8080"[..]));
    assert_eq!(text(&scene.run(&["get", "instance", "orders/a1"])), "10.0.0.5:8080");
}

#[test]
fn get_and_delete_tell_what_is_not_there() {
    let scene = Scene::new();
    for command in ["get", "delete"] {
        assert_eq!(scene.run(&[command, "route", "shop"]).status.code(), Some(1), "{command}");
        assert_eq!(scene.run(&[command, "instance", "no-id/"]).status.code(), Some(2), "{command}");
    }
    scene.pipe(&["put", "route", "shop"], r#"{"service":"orders"}"#);
    assert_eq!(scene.run(&["delete", "route", "shop"]).status.code(), Some(0));
    assert_eq!(scene.run(&["delete", "route", "shop"]).status.code(), Some(1));
}

#[test]
fn get_never_prints_a_private_key() {
    let scene = Scene::new();
    let pair = Authority::new("Root").vouch(&["shop.example"]);
    for record in [pair.record(), format!("{}{}", pair.chain, pair.key), format!("{}{}", pair.key, pair.chain)] {
        let put = scene.pipe(&["put", "certificate", "shop"], &record);
        assert_eq!(put.status.code(), Some(0), "{}", String::from_utf8_lossy(&put.stderr));
    }
    // Who writes past the commands may write anything.
    let pem = |kind: &str| format!("-----BEGIN {kind}-----\nU0VDUkVU\n-----END {kind}-----\n");
    let broken = json!({"chain": pem("CERTIFICATE"), "key": pem("PRIVATE KEY")}).to_string();
    scene.put("/pointsman/certificates/broken", &broken);
    assert_eq!(scene.pipe(&["put", "certificate", "broken"], &broken).status.code(), Some(1));
    let line = pair.key.lines().nth(1).expect("a line of the key");
    for args in [&["get", "certificate"][..], &["get", "certificate", "shop"], &["get", "certificate", "--json"]] {
        let said = text(&scene.run(args));
        assert!(said.contains("shop") || said.contains("CERTIFICATE"), "{said}");
        assert!(!said.contains("PRIVATE") && !said.contains(line), "{said}");
    }
}

#[test]
fn drain_waits_for_every_proxy_and_keeps_what_else_was_overridden() {
    let scene = Scene::new();
    let drain = ["drain", "orders/a1", "--wait", "--timeout", "300ms"];
    assert_eq!(scene.run(&drain).status.code(), Some(1), "there is no such instance");
    scene.put("/pointsman/instances/orders/a1", "10.0.0.5:8080");
    scene.put("/pointsman/overrides/orders/a1", r#"{"weight":7}"#);

    let proxy = |revision: &str, drained: &[&str]| {
        json!({"v": 1, "version": "0.1.0", "started_at": "2030-01-01T00:00:00Z", "addresses": [], "admin": null,
            "applied_revision": revision.parse::<u64>().unwrap(), "drained": drained})
        .to_string()
    };
    scene.put("/pointsman/proxies/p1", &proxy("1", &["orders/a1"]));
    let late = scene.run(&drain);
    assert_eq!(late.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&late.stderr).contains("p1"), "{late:?}");
    let revision = text(&late);
    assert_eq!(scene.override_of("a1"), Some(json!({"v": 1, "state": "draining", "weight": 7})));

    scene.put("/pointsman/proxies/p1", &proxy(&revision, &[]));
    assert_eq!(scene.run(&["wait", "--revision", &revision]).status.code(), Some(0));
    scene.put("/pointsman/proxies/p1", &proxy("9999", &["orders/a1"]));
    assert_eq!(scene.run(&drain).status.code(), Some(0));

    assert_eq!(scene.run(&["drain", "orders/a1", "--undo"]).status.code(), Some(0));
    assert_eq!(scene.override_of("a1"), Some(json!({"v": 1, "weight": 7})));
    assert_eq!(scene.run(&["drain", "orders/a1", "--undo"]).status.code(), Some(1), "it is not drained any more");
}

#[test]
fn check_names_what_is_wrong_in_file_and_registry_at_once() {
    let scene = Scene::new();
    let file = scene.file("pointsman.toml");
    fs::write(&file, "[proxy]\nworkers = \"four\"\n").unwrap();
    scene.put("/pointsman/instances/orders/a1", r#"{"weight":70000}"#);
    scene.put("/pointsman/routes/shop", r#"{"service":"order"}"#);
    let checked = scene.run(&["check", "--registry", "--config", file.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(1));
    let said = text(&checked);
    for part in ["pointsman.toml:2: proxy.workers", "/pointsman/instances/orders/a1 (revision 2): weight", "no service order;"] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
    fs::write(&file, "").unwrap();
    assert_eq!(scene.run(&["check", "--config", file.to_str().unwrap()]).status.code(), Some(0));
}

/// A real etcd and the commands of the built binary.
struct Scene {
    etcd: Etcd,
    runtime: Runtime,
    dir: TempDir,
    n_started: std::cell::Cell<u32>,
}

impl Scene {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { etcd: Etcd::start(), runtime, dir: tempfile::tempdir().expect("a folder"), n_started: Default::default() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The registrar of `orders/a1` at `ADDRESS`.
    fn register(&self, args: &[&str]) -> Program {
        self.register_at(&[&["--address", ADDRESS], args].concat())
    }

    fn register_at(&self, args: &[&str]) -> Program {
        self.n_started.set(self.n_started.get() + 1);
        let id: &[&str] = if args.contains(&"--id") { &[] } else { &["--id", "a1"] };
        let mut command = self.command(&[&["register", "--service", "orders"], id].concat());
        Program::start(command.args(args), self.dir.path(), &format!("register-{}", self.n_started.get()))
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().expect("the built binary can be run")
    }

    fn pipe(&self, args: &[&str], input: &str) -> Output {
        let mut command = self.command(args);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it can be run");
        child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("it reads its input");
        child.wait_with_output().expect("its output")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
        command.args(args).env("POINTSMAN_REGISTRY_ENDPOINTS", self.etcd.url());
        command
    }

    fn with_etcd<T>(&self, ask: impl AsyncFnOnce(&mut Client) -> Result<T, etcd_client::Error>) -> T {
        self.runtime.block_on(async {
            let mut etcd = Client::connect([self.etcd.url()], None).await.expect("a client");
            ask(&mut etcd).await.expect("etcd answers")
        })
    }

    fn put(&self, key: &str, value: &str) {
        self.with_etcd(async |etcd| etcd.put(key, value, None::<PutOptions>).await.map(|_| ()));
    }

    fn at(&self, key: &str) -> Option<KeyValue> {
        self.with_etcd(async |etcd| etcd.get(key, None).await).kvs().first().cloned()
    }

    /// The record of `orders/a1`.
    fn record(&self) -> Option<KeyValue> {
        self.at(KEY)
    }

    fn value(&self) -> Option<Json> {
        serde_json::from_slice(self.record()?.value()).ok()
    }

    fn state(&self) -> Option<String> {
        self.value()?["state"].as_str().map(str::to_owned)
    }

    fn address(&self) -> Option<String> {
        self.value()?["address"].as_str().map(str::to_owned)
    }

    fn override_of(&self, id: &str) -> Option<Json> {
        serde_json::from_slice(self.at(&format!("/pointsman/overrides/orders/{id}"))?.value()).ok()
    }

    fn eventually(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + EVENTUALLY;
        while !holds() {
            assert!(Instant::now() < deadline, "not within {EVENTUALLY:?}: {what}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn logs(&self) -> String {
        (1..=self.n_started.get()).filter_map(|n| fs::read_to_string(self.file(&format!("register-{n}.log"))).ok()).collect()
    }
}

/// An instance that answers 200 while it is told to be well, else 503.
fn healthz() -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind(free_address()).expect("a free address");
    let address = listener.local_addr().expect("its address").to_string();
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    // It ends with the test process; nobody connects after the registrar has gone.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let status = if is_well.load(Ordering::Relaxed) { "200 OK" } else { "503 Service Unavailable" };
            let _ = stream.read(&mut [0; 1024]);
            let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    (address, well)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

const KEY: &str = "/pointsman/instances/orders/a1";
/// Nobody connects to it.
const ADDRESS: &str = "10.0.0.5:8080";
const SOON: Duration = Duration::from_secs(10);
// What takes long is a busy machine.
const EVENTUALLY: Duration = Duration::from_secs(30);
