//! `pointsman demo` as a visitor meets it.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::world::World;

#[test]
fn the_demo_serves_follows_etcdctl_and_leaves_nothing_behind() {
    let mut world = World::demo();
    world.eventually("its samples answer", || world.get("/").status == 200);
    world.eventually("it says what to try", || world.proxy.out().contains("etcdctl"));
    let pids: Vec<String> = world
        .proxy
        .out()
        .lines()
        .filter_map(|line| line.rsplit_once(" process ").map(|(_, pid)| pid.trim().to_owned()))
        .collect();
    assert!(pids.len() >= 3 && pids.iter().all(|pid| is_alive(pid)), "{pids:?} in {}", world.proxy.out());

    let by_hand = world.upstream("by-hand");
    let key = "/pointsman/instances/shop/by-hand";
    assert!(etcdctl(&world, &["put", key, &by_hand.address.to_string()]).status.success());
    world.eventually("traffic follows", || world.get_many("/", 20).from("by-hand") > 0);
    assert!(etcdctl(&world, &["del", key]).status.success());
    world.settles("its connections are closed", 0, || by_hand.connections());
    let requests = by_hand.requests();
    world.get_many("/", 50);
    assert_eq!(by_hand.requests(), requests, "and it gets nothing more");

    world.proxy.signal(Signal::SIGINT);
    let exit = world.proxy_mut().exits_within(Duration::from_secs(10));
    assert_eq!(exit.code(), Some(0), "{}", world.proxy.log_tail());
    world.settles("no process is left", Vec::new(), || pids.iter().filter(|pid| is_alive(pid)).collect::<Vec<_>>());
    assert_eq!(world.proxy.n_processes(), 0);
}

#[test]
fn a_sample_that_dies_is_not_noticed_by_clients() {
    let world = World::demo();
    world.eventually("its samples are printed", || world.proxy.out().contains("Ctrl-C"));
    world.eventually("its samples answer", || world.get("/").status == 200);
    let out = world.proxy.out();
    let line = out.lines().find(|line| line.contains("shop/shop-1")).expect("a line for shop-1");
    let pid = line.rsplit_once(" process ").expect("its process id").1.trim().to_owned();
    let load = world.load("/");
    assert!(Command::new("kill").args(["-9", &pid]).status().expect("kill can be run").success());
    world.eventually("its lease ends", || !world.admin("/api/v1/services/shop").text().contains("\"shop-1\""));
    let tally = load.ends();
    assert!(tally.failed.is_empty(), "{:?}", tally.failed);
}

/// The real one, pointed at the registry inside the process.
fn etcdctl(world: &World, args: &[&str]) -> Output {
    let endpoint = format!("--endpoints={}", world.registry_url());
    Command::new("etcdctl").env("ETCDCTL_API", "3").arg(endpoint).args(args).output().expect("etcdctl can be run")
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}
