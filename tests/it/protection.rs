//! Instances that vanish from the registry and live are not taken for dead; what somebody wanted is done at once.

use std::time::{Duration, Instant};

use etcd_client::{Client, DeleteOptions, PutOptions};
use nix::sys::signal::Signal;

use crate::world::World;
use crate::world::etcd::Etcd;
use crate::world::program::Program;
use crate::world::upstream::Upstream;

/// A lease that nobody renews holds the records of these upstreams, and a policy and a route are there for them.
fn lease(world: &World, upstreams: &[Upstream], ttl: i64, policy: &str) -> i64 {
    world.put("/services/app", policy);
    world.put("/routes/app", r#"{"service":"app"}"#);
    let work = async {
        let mut etcd = Client::connect([world.registry_url()], None).await.expect("a registry");
        let lease = etcd.lease_grant(ttl, None).await.expect("a lease").id();
        for upstream in upstreams {
            let options = PutOptions::new().with_lease(lease);
            let key = format!("/pointsman/instances/app/{}", upstream.name);
            etcd.put(key, upstream.address.to_string(), Some(options)).await.expect("the registry takes a record");
        }
        lease
    };
    let lease = world.handle().block_on(work);
    world.settles("all are known", upstreams.len(), || world.counts("total"));
    lease
}

fn upstreams(world: &World, n: usize) -> Vec<Upstream> {
    (0..n).map(|n| world.upstream(&format!("u{n}"))).collect()
}

/// `pointsman register` for an upstream; it does not probe before it registers.
fn register(world: &World, upstream: &Upstream) -> Program {
    let (address, name) = (upstream.address.to_string(), &upstream.name);
    let args = ["register", "--service", "app", "--id", name, "--address", &address, "--ttl", "2s", "--drain", "1s"];
    Program::start(&mut world.command(&args), &world.folder(), &format!("register-{name}"))
}

impl World {
    fn counts(&self, which: &str) -> usize {
        let said = self.admin("/api/v1/services/app").json();
        said["counts"][which].as_u64().unwrap_or_default() as usize
    }

    /// What it says of each instance.
    fn each(&self, field: &str) -> Vec<String> {
        let said = self.admin("/api/v1/services/app").json();
        let instances = said["instances"].as_array().cloned().unwrap_or_default();
        instances.iter().map(|instance| instance[field].as_str().unwrap_or_default().to_owned()).collect()
    }

    fn happened(&self, kind: &str) -> usize {
        let said = self.admin("/api/v1/events").json();
        said["events"].as_array().map_or(0, |all| all.iter().filter(|event| event["kind"] == kind).count())
    }
}

#[test]
fn an_etcd_that_stood_still_takes_nobody_out_of_traffic() {
    stands_still(&World::new());
}

/// All three of its members. Whichever leads afterwards ends the leases, at once or, if it is another one than before, after
/// one more TTL.
#[test]
fn a_cluster_that_stood_still_takes_nobody_out_of_traffic() {
    stands_still(&World::setup().etcd(Etcd::cluster(3)).start());
}

/// etcd stands still for longer than the TTL, and the first thing it does afterwards is to end all leases. Those who have
/// to register again notice only a moment later. When they leave in the end, nobody holds them.
fn stands_still(world: &World) {
    world.put("/services/app", PROBED);
    world.put("/routes/app", r#"{"service":"app"}"#);
    let upstreams = upstreams(world, 4);
    let mut registrars: Vec<_> = upstreams.iter().map(|u| register(world, u)).collect();
    world.settles("all are registered and probed", vec!["up".to_owned(); 4], || world.each("probe"));
    let requests = || upstreams.iter().map(Upstream::requests).collect::<Vec<_>>();

    let load = world.load("/");
    world.etcd().pause();
    registrars.iter().for_each(|registrar| registrar.signal(Signal::SIGSTOP));
    std::thread::sleep(Duration::from_secs(4));
    world.etcd().resume();
    world.settles("all are in limbo", (4, 4), || (world.counts("limbo"), world.counts("eligible")));
    assert_eq!(world.happened("protection_begun"), 1);
    let metric = |name| world.metric(name, &[("service", "app")]);
    assert_eq!(metric("pointsman_registry_protection_active"), Some(1.0));
    assert_eq!(metric("pointsman_registry_limbo_instances"), Some(4.0));
    let why = "in limbo: the registry lost it together with many of this service".to_owned();
    assert_eq!((world.each("state"), world.each("reason")), (vec!["limbo".to_owned(); 4], vec![why; 4]));
    let before = requests();
    world.eventually("each is used in limbo", || requests().iter().zip(&before).all(|(now, before)| now > before));
    registrars.iter().for_each(|registrar| registrar.signal(Signal::SIGCONT));
    world.settles("all have registered again", 4, || world.happened("instance_returned"));
    let before = requests();
    world.eventually("each is used", || requests().iter().zip(&before).all(|(now, before)| now > before));
    let tally = load.ends();
    tally.all_served(tally.served());

    world.settles("nothing is held any more", 0, || world.counts("limbo"));
    assert_eq!(metric("pointsman_registry_protection_active"), Some(0.0));
    assert_eq!((world.counts("ready"), world.happened("instance_dropped")), (4, 0));

    let held = world.happened("instance_limbo");
    registrars.iter().for_each(|registrar| registrar.signal(Signal::SIGTERM));
    world.settles("nothing new comes to them", 0, || world.counts("eligible"));
    registrars.iter_mut().for_each(|registrar| assert!(registrar.exits_within(Duration::from_secs(10)).success()));
    let left = Instant::now();
    world.settles("all are gone", 0, || world.counts("total"));
    assert!(left.elapsed() < Duration::from_secs(2), "only after {:?}", left.elapsed());
    assert_eq!(world.happened("instance_limbo"), held, "who says that it leaves is not held");
}

#[test]
fn limbo_is_shown_with_its_reason_and_ends_where_nothing_probes() {
    let world = World::new();
    let upstreams = upstreams(&world, 3);
    lease(&world, &upstreams, 2, UNPROBED);
    world.settles("the lease has ended", 3, || world.counts("limbo"));
    let lost = Instant::now();
    let said = world.admin("/api/v1/services/app").json();
    let first = &said["instances"][0];
    assert_eq!((first["state"].as_str(), first["eligible"].as_bool()), (Some("limbo"), Some(true)), "{said}");
    assert_eq!(first["reason"], "in limbo: the registry lost it together with many of this service");
    let metric = |name| world.metric(name, &[("service", "app")]);
    assert_eq!(metric("pointsman_registry_protection_active"), Some(1.0));
    assert_eq!(metric("pointsman_registry_limbo_instances"), Some(3.0));
    assert_eq!(world.happened("instance_limbo"), 3);
    assert_eq!(world.get_many("/", 20).served(), 20);

    std::thread::sleep(Duration::from_secs(8).saturating_sub(lost.elapsed()));
    world.settles("they are given up", 0, || world.counts("total"));
    assert!(lost.elapsed() > Duration::from_secs(9), "after {:?}", lost.elapsed());
    assert_eq!(metric("pointsman_registry_protection_active"), Some(0.0));
    assert!(world.get("/").text().contains("no_instances"));
}

#[test]
fn records_that_somebody_deletes_go_at_once_though_they_had_a_lease() {
    let world = World::new();
    let upstreams = upstreams(&world, 5);
    lease(&world, &upstreams, 60, UNPROBED);
    let delete = |key: &str, options| {
        let work = async {
            let mut etcd = Client::connect([world.registry_url()], None).await.expect("a registry");
            let began = Instant::now();
            etcd.delete(format!("/pointsman/instances/app/{key}"), options).await.expect("the registry deletes");
            began
        };
        world.handle().block_on(work)
    };
    let began = delete("u0", None);
    world.settles("it is gone", 4, || world.counts("total"));
    assert!(began.elapsed() < Duration::from_secs(1), "only after {:?}", began.elapsed());
    delete("", Some(DeleteOptions::new().with_prefix()));
    world.settles("all are gone", 0, || world.counts("total"));
    assert_eq!(world.happened("instance_limbo"), 0);
}

#[test]
fn the_registry_inside_the_process_tells_deletions_and_lost_leases_apart_too() {
    let world = World::setup().embedded().start();
    let upstreams = upstreams(&world, 3);
    let lease = lease(&world, &upstreams, 60, UNPROBED);
    world.delete("/instances/app/u0");
    assert_eq!((world.counts("total"), world.happened("instance_limbo")), (2, 0));
    let revoke = async {
        let mut etcd = Client::connect([world.registry_url()], None).await.expect("a registry");
        etcd.lease_revoke(lease).await.expect("the lease goes");
    };
    world.handle().block_on(revoke);
    world.settles("both are held", (2, 2), || (world.counts("limbo"), world.counts("eligible")));
}

#[test]
fn a_service_that_leaves_as_a_whole_leaves_at_once() {
    let world = World::new();
    world.put("/services/app", UNPROBED);
    let upstreams = upstreams(&world, 3);
    let mut registrars: Vec<_> = upstreams.iter().map(|u| register(&world, u)).collect();
    world.settles("all are registered", 3, || world.counts("ready"));
    registrars.iter().for_each(|registrar| registrar.signal(Signal::SIGTERM));
    registrars.iter_mut().for_each(|registrar| assert!(registrar.exits_within(Duration::from_secs(10)).success()));
    world.settles("all are gone", 0, || world.counts("total"));
    assert_eq!(world.happened("instance_limbo"), 0);
}

#[test]
fn one_of_ten_that_nobody_renews_is_used_until_a_probe_fails() {
    let world = World::new();
    let mut upstreams = upstreams(&world, 10);
    lease(&world, &upstreams[1..], 60, PROBED);
    let mut registrar = register(&world, &upstreams[0]);
    world.settles("all are registered and probed", vec!["up".to_owned(); 10], || world.each("probe"));
    registrar.signal(Signal::SIGKILL);
    registrar.exits_within(Duration::from_secs(5));
    world.settles("its lease has ended", (1, 10), || (world.counts("limbo"), world.counts("eligible")));
    assert_eq!(world.metric("pointsman_registry_protection_active", &[("service", "app")]), Some(0.0), "one is not many");
    assert_eq!(world.each("reason")[0], "in limbo: the registry lost it");

    let load = world.load("/");
    drop(upstreams.remove(0));
    let died = Instant::now();
    world.settles("it is dropped", 9, || world.counts("total"));
    assert!(died.elapsed() < Duration::from_secs(3), "after {:?}: one failed probe is enough", died.elapsed());
    let tally = load.ends();
    tally.all_served(tally.served());
    assert_eq!((world.happened("instance_dropped"), world.happened("instance_gone")), (1, 0));
}

#[test]
fn one_of_ten_that_is_killed_is_gone_with_its_lease() {
    let world = World::new();
    let mut upstreams = upstreams(&world, 10);
    lease(&world, &upstreams[1..], 60, PROBED);
    let mut registrar = register(&world, &upstreams[0]);
    world.settles("all are registered and probed", vec!["up".to_owned(); 10], || world.each("probe"));
    let load = world.load("/");
    registrar.signal(Signal::SIGSTOP);
    drop(upstreams.remove(0));
    world.settles("probes found it down", "down".to_owned(), || world.each("probe")[0].clone());
    registrar.signal(Signal::SIGKILL);
    registrar.exits_within(Duration::from_secs(5));
    world.settles("it is gone", 9, || world.counts("total"));
    let tally = load.ends();
    tally.all_served(tally.served());
    assert_eq!(world.happened("instance_limbo"), 0, "who is known to be dead is not held");
}

#[test]
fn protection_that_is_off_believes_the_registry() {
    let world = World::new();
    let upstreams = upstreams(&world, 3);
    lease(&world, &upstreams, 2, r#"{"probe":{"kind":"none"},"protection":{"percent":100}}"#);
    world.settles("the lease has ended", 0, || world.counts("total"));
    assert_eq!(world.happened("instance_limbo"), 0);
}

/// Each well within the 2 s of a registrar's lease.
const PROBED: &str = r#"{"probe":{"interval":"500ms","timeout":"400ms","fall":2}}"#;
const UNPROBED: &str = r#"{"probe":{"kind":"none"}}"#;
