//! The story that `docs/getting-started.md` tells by hand: an etcd, a proxy, three registrars with their services, and
//! one of them killed.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::world::World;
use crate::world::sample::LEASE;

#[test]
fn three_register_one_is_killed_and_no_request_fails() {
    let world = World::new();
    world.put("/routes/shop", r#"{"service":"shop"}"#);
    let [mut killed, mut leaving, _staying] = ["shop-1", "shop-2", "shop-3"].map(|id| world.registered("shop", id));
    let served = |id: &str| world.get_many("/", 30).from(id) > 0;
    world.settles("all three are used", [true; 3], || ["shop-1", "shop-2", "shop-3"].map(served));

    let load = world.load("/");
    killed.process.signal(Signal::SIGKILL);
    let at = Instant::now();
    killed.process.exits_within(Duration::from_secs(2));
    world.eventually("its record goes with its lease", || world.value("/instances/shop/shop-1").is_none());
    assert!(at.elapsed() < LEASE + Duration::from_secs(4), "only after {:?}", at.elapsed());

    leaving.process.signal(Signal::SIGTERM);
    let exit = leaving.process.exits_within(Duration::from_secs(10));
    assert_eq!(exit.code(), Some(0), "the exit code of its command: {}", leaving.process.log_tail());
    assert_eq!(world.value("/instances/shop/shop-2"), None, "whoever leaves by itself leaves no record");
    world.settles("only the third is used", 30, || world.get_many("/", 30).from("shop-3"));
    let tally = load.ends();
    tally.all_served(tally.served());
}
