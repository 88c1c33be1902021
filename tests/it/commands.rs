//! What operators type.

use std::io::Write;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::{Ask, World};

#[test]
fn a_record_is_put_shown_and_deleted() {
    let world = World::new();
    let one = world.upstream("one");
    let put = put(&world, "instance", "app/one", &one.address.to_string());
    assert_eq!(put.status.code(), Some(0), "{}", said(&put));
    let revision = heard(&put).trim().to_owned();
    assert!(revision.parse::<u64>().is_ok(), "put prints the revision: {revision:?}");
    assert_eq!(self::put(&world, "route", "all", r#"{"service":"app"}"#).status.code(), Some(0));
    world.eventually("it is served", || world.get("/").from() == "one");

    let get = |args: &[&str]| heard(&world.run(&[&["get"], args].concat()));
    assert_eq!(get(&["instance", "app/one"]).trim(), one.address.to_string());
    assert!(get(&["instance"]).contains("app/one") && get(&["route"]).contains("all") && get(&["service"]).contains("app"));
    let json: Value = serde_json::from_str(&get(&["instance", "app", "--json"])).expect("JSON for programs");
    assert_eq!(json["instances"][0]["name"], "app/one", "{json}");

    assert_eq!(world.run(&["delete", "instance", "app/one"]).status.code(), Some(0));
    world.settles("it is gone", 503, || world.get("/").status);
    let again = world.run(&["delete", "instance", "app/one"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again).contains("app/one"), "{}", said(&again));
    assert_eq!(world.run(&["get", "instance", "app/one"]).status.code(), Some(1));
}

#[test]
fn a_bad_record_is_not_written_and_every_problem_is_named() {
    let world = World::new();
    let bad = put(&world, "instance", "app/one", r#"{"address":"nowhere","weight":70000}"#);
    assert_eq!(bad.status.code(), Some(1));
    for word in ["nowhere", "port", "weight", "70000", "65535", "nothing was written"] {
        assert!(said(&bad).contains(word), "{word} is missing in: {}", said(&bad));
    }
    assert_eq!(world.value("/instances/app/one"), None);
}

#[test]
fn usage_errors_are_told_apart() {
    let world = World::new();
    for args in [&["get", "instanc"][..], &["put"], &["drain", "no-slash"], &["--nothing"], &["wait"]] {
        let out = world.run(args);
        assert_eq!(out.status.code(), Some(2), "{args:?}: {}", said(&out));
        assert!(!said(&out).is_empty(), "{args:?} says why");
    }
    let help = world.run(&["register", "--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(heard(&help).contains("Examples:"));
}

#[test]
fn drain_waits_until_nothing_runs_there() {
    let (world, [one, two]) = World::serving(["one", "two"]);
    announced(&world, 1);
    world.put("/services/app", r#"{"balance":"round_robin"}"#);
    let waiting = world.begin_many("/held", 2);
    world.settles("each got one", (1, 1), || (one.running(), two.running()));
    let too_soon = world.run(&["drain", "app/one", "--wait", "--timeout", "1s"]);
    assert_eq!(too_soon.status.code(), Some(1), "{}", said(&too_soon));
    world.settles("it takes nothing new", 20, || world.get_many("/", 20).from("two"));
    one.release();
    let done = world.run(&["drain", "app/one", "--wait", "--timeout", "10s"]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert_eq!(one.running(), 0);
    two.release();
    waiting.ends().all_served(2);

    assert_eq!(world.run(&["drain", "app/one", "--undo"]).status.code(), Some(0));
    world.eventually("it takes traffic again", || world.get_many("/", 20).from("one") > 0);
    let mistyped = world.run(&["drain", "app/on"]);
    assert_eq!(mistyped.status.code(), Some(1));
    assert!(said(&mistyped).contains("one"), "names what is there: {}", said(&mistyped));
}

/// One proxy carries a WebSocket to the instance, the other one nothing; and one that is killed has nothing to finish.
#[test]
fn drain_waits_for_every_proxy_and_not_for_one_that_died() {
    let (world, [one, two]) = World::serving(["one", "two"]);
    let (mut other, listen, _) = world.another_proxy();
    announced(&world, 2);
    let mut sockets = Vec::new();
    world.eventually("both instances have one", || {
        let open = crate::world::websocket::WebSocket::open(listen, "/ws");
        sockets.push(world.handle().block_on(open).expect("a WebSocket"));
        one.requests() > 0 && two.requests() > 0
    });
    let too_soon = world.run(&["drain", "app/one", "--wait", "--timeout", "2s"]);
    assert_eq!(too_soon.status.code(), Some(1), "{}", said(&too_soon));
    assert!(said(&too_soon).contains(&listen.port().to_string()), "it names the proxy: {}", said(&too_soon));
    assert!(!said(&too_soon).contains(&format!("{},", world.listen.port())), "and no other: {}", said(&too_soon));

    let began = Instant::now();
    let waiting = world.command(&["drain", "app/two", "--wait", "--timeout", "60s"]).stderr(Stdio::piped()).spawn();
    let revision = heard(&put(&world, "instance", "app/two", &two.address.to_string()));
    other.kill();
    let waited = world.run(&["wait", "--revision", revision.trim(), "--timeout", "40s"]);
    assert_eq!(waited.status.code(), Some(0), "{}", said(&waited));
    let drained = waiting.and_then(std::process::Child::wait_with_output).expect("its end");
    assert_eq!(drained.status.code(), Some(0), "{}", said(&drained));
    assert!(began.elapsed() < Duration::from_secs(25), "its lease is 15 s, this took {:?}", began.elapsed());
}

#[test]
fn drain_is_over_when_the_instance_leaves_and_nothing_runs_there() {
    let (world, [one, two]) = World::serving(["one", "two"]);
    announced(&world, 1);
    let waiting = world.begin_many("/held", 8);
    world.eventually("it has some", || one.running() > 0);
    assert_eq!(world.run(&["drain", "app/one"]).status.code(), Some(0));
    world.delete("/instances/app/one");
    let too_soon = world.run(&["drain", "app/one", "--force", "--wait", "--timeout", "2s"]);
    assert_eq!(too_soon.status.code(), Some(1), "{}", said(&too_soon));
    one.release();
    two.release();
    waiting.ends().all_served(8);
    let done = world.run(&["drain", "app/one", "--force", "--wait", "--timeout", "10s"]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
}

#[test]
fn wait_returns_when_the_revision_is_in_force() {
    let (world, [one]) = World::serving(["one"]);
    announced(&world, 1);
    let revision = heard(&put(&world, "instance", "app/new", &one.address.to_string()));
    let waited = world.run(&["wait", "--revision", revision.trim(), "--timeout", "10s"]);
    assert_eq!(waited.status.code(), Some(0), "{}", said(&waited));
    assert!(world.admin("/api/v1/services/app").text().contains("\"new\""));
    let never = world.run(&["wait", "--revision", "999999", "--timeout", "300ms"]);
    assert_eq!(never.status.code(), Some(1));
}

#[test]
fn status_and_explain_show_what_the_proxy_does() {
    let (world, [one]) = World::serving(["one"]);
    world.get_many("/", 3).all_served(3);
    let all = heard(&world.run(&["status"]));
    assert!(all.contains("app") && all.contains("connected"), "{all}");
    let service = heard(&world.run(&["status", "app"]));
    assert!(service.contains("one") && service.contains(&one.address.to_string()), "{service}");
    let json: Value = serde_json::from_str(&heard(&world.run(&["status", "--json"]))).expect("JSON for programs");
    assert_eq!(json["status"]["registry"]["connected"], true, "{json}");
    assert_eq!(world.run(&["status", "none"]).status.code(), Some(1));
    let explained = heard(&world.run(&["explain", "GET", "http://shop.example/x"]));
    assert!(explained.contains("app") && explained.contains("one"), "{explained}");
}

#[test]
fn check_names_every_problem_at_once() {
    let (world, _upstreams) = World::serving(["one"]);
    let check = |args: &[&str]| world.run(&[&["check"], args].concat());
    assert_eq!(check(&["--registry"]).status.code(), Some(0), "{}", said(&check(&["--registry"])));
    let bad = world.put("/instances/app/bad", "nowhere");
    let found = check(&["--registry"]);
    assert_eq!(found.status.code(), Some(1));
    assert!(
        heard(&found).contains("/pointsman/instances/app/bad") && heard(&found).contains(&bad.to_string()),
        "{}",
        heard(&found)
    );

    world.write_config("[proxy]\nworkers = \"many\"\n\n[proxy.limits]\nkeep_alife = \"75s\"\n");
    let file = world.config_file().to_string_lossy().into_owned();
    let found = check(&["--config", &file]);
    assert_eq!(found.status.code(), Some(1));
    for word in ["pointsman.toml:2", "workers", "pointsman.toml:5", "keep_alife", "keep_alive"] {
        assert!(heard(&found).contains(word), "{word} is missing in: {}", heard(&found));
    }
    assert_eq!(world.get(Ask::get("/")).status, 200);
}

/// Waits until so many proxies have said in the registry that they live.
fn announced(world: &World, n: usize) {
    world.settles("who is waited for", format!("{n} proxies route by revision 1 or newer\n"), || {
        let wait = world.run(&["wait", "--revision", "1", "--timeout", "1s"]);
        heard(&wait) + &said(&wait)
    });
}

fn put(world: &World, noun: &str, name: &str, record: &str) -> Output {
    let mut command = world.command(&["put", noun, name, "-"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the built binary");
    // Dropped at once, so that it sees the end.
    child.stdin.take().expect("its input").write_all(record.as_bytes()).expect("it reads");
    child.wait_with_output().expect("its end")
}

fn heard(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}
