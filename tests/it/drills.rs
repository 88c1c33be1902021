//! Instances crash, hang, refuse and leave under load, and users notice nothing. The short forms of
//! `cargo bench --bench measure -- drill …`: counted, not timed.

use std::collections::VecDeque;

use crate::world::{Ask, World};

/// Its registration stays, and it comes back.
#[test]
fn an_instance_that_refuses_for_a_while_is_not_noticed() {
    let world = world_of("{}");
    let [_one, two] = ["one", "two"].map(|id| world.sample("app", id));
    let load = world.load("/");
    world.behaves(&two, "refuse&for=1500");
    let mut meanwhile = world.get_many("/", 500);
    meanwhile.add(world.get_many(Ask::post("/sum", "a body that was not consumed"), 500));
    meanwhile.all_served(1000);
    world.eventually("it is used again", || world.get_many("/", 20).from("two") > 0);
    let tally = load.ends();
    tally.all_served(tally.served());
}

/// Its health is fine, so only the time limit of an attempt helps.
#[test]
fn an_instance_that_hangs_costs_its_requests_one_attempt() {
    let world = world_of(r#"{"retry":{"per_try_timeout":"200ms"}}"#);
    let [_one, _two, hanging] = ["one", "two", "hanging"].map(|id| world.sample("app", id));
    world.behaves(&hanging, "hang");
    let load = world.load("/");
    world.get_many("/", 200).all_served(200);
    let tally = load.ends();
    tally.all_served(tally.served());
    assert_eq!(tally.from("hanging"), 0);
    assert!(world.requests_at(&hanging) > 0, "nobody was sent to it");
}

#[test]
fn a_rolling_deploy_is_not_noticed() {
    let world = world_of("{}");
    let old = ["one", "two", "three"].map(|id| world.registered("app", id));
    let load = world.load("/");
    let new: Vec<_> = old
        .into_iter()
        .map(|leaving| {
            let comes = world.registered("app", &format!("new-{}", leaving.id));
            leaving.leaves();
            comes
        })
        .collect();
    world.eventually("the new ones are used", || {
        let tally = world.get_many("/", 50);
        new.iter().all(|instance| tally.from(&instance.id) > 0) && tally.served() == 50
    });
    let tally = load.ends();
    tally.all_served(tally.served());
}

/// SIGKILL tells nobody: the registration lives on, and the address refuses until the instance is back.
#[test]
fn instances_that_are_killed_and_come_back_are_not_noticed() {
    let world = world_of("{}");
    let mut samples = VecDeque::from(["one", "two", "three"].map(|id| world.sample("app", id)));
    let load = world.load("/");
    for _ in 0..4 {
        let Some(killed) = samples.pop_front() else { break };
        let id = killed.id.clone();
        let address = killed.dies();
        world.get_many("/", 100).all_served(100);
        samples.push_back(world.sample_at("app", &id, address));
        world.eventually("it is used again", || world.get_many("/", 20).from(&id) > 0);
    }
    let tally = load.ends();
    tally.all_served(tally.served());
}

#[test]
fn a_service_that_hangs_does_not_slow_another() {
    let world = World::new();
    for service in ["stuck", "well"] {
        world.put(&format!("/routes/{service}"), &format!(r#"{{"path_prefix":"/{service}","service":"{service}"}}"#));
    }
    let (hanging, _well) = (world.sample("stuck", "hanging"), world.sample("well", "well"));
    world.behaves(&hanging, "hang");
    let stuck = world.begin_many("/stuck", STUCK);
    world.settles("all of them wait", STUCK as u64, || world.requests_at(&hanging));
    world.get_many("/well", 500).all_served(500);
    assert_eq!(world.metric("pointsman_upstream_in_flight", &[("service", "stuck")]), Some(STUCK as f64), "they wait still");
    world.behaves(&hanging, "slow&ms=1");
    stuck.ends().all_served(STUCK);
}

/// A world in which every request goes to the service `app`, with this policy.
fn world_of(policy: &str) -> World {
    let world = World::new();
    world.put("/services/app", policy);
    world.put("/routes/app", r#"{"service":"app"}"#);
    world
}

const STUCK: usize = 200;
