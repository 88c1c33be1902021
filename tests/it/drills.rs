//! Instances crash, hang, refuse and leave under load, and users notice nothing. The short forms of
//! `cargo bench --bench measure -- drill …`: counted, not timed. Of the landscape, `./test` runs some chapters themselves.

use std::collections::VecDeque;

use nix::sys::signal::Signal;

use crate::world::raw::Deaf;
use crate::world::{Ask, World};

/// Its registration stays, and it comes back.
#[test]
fn an_instance_that_refuses_for_a_while_is_not_noticed() {
    let world = world_of(SOON_BACK);
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
    let n_tried = world.requests_at(&hanging);
    assert!((1..50).contains(&n_tried), "{n_tried} requests were sent to it");
    assert_eq!(world.ejections("app"), 1.0);
}

/// Packets to it are lost, so it does not even refuse.
#[test]
fn an_instance_that_nobody_gets_through_to_costs_its_requests_one_attempt() {
    let world = world_of(
        r#"{"probe":{"kind":"none"},"timeouts":{"connect":"100s"},"retry":{"per_try_timeout":"200ms"},"slow_start":"0s"}"#,
    );
    let (_one, deaf) = (world.sample("app", "one"), Deaf::start());
    world.put("/instances/app/deaf", &deaf.address.to_string());
    world.get_many("/", 50).all_served(50);
    let labels = [("instance", "deaf"), ("outcome", "connect_timeout")];
    assert!(world.metric("pointsman_upstream_requests_total", &labels) > Some(0.0), "it was tried");
}

/// The kernel accepts connections and takes requests for it, nobody reads them: probes find out, and that it is over.
#[test]
fn a_black_hole_is_found_and_forgiven() {
    let world = world_of(
        r#"{"probe":{"path":"/healthz","interval":"400ms","timeout":"200ms"},"ejection":{"enabled":false},
            "slow_start":"0s","retry":{"per_try_timeout":"200ms"}}"#,
    );
    let [_one, _two, hole] = ["one", "two", "hole"].map(|id| world.sample("app", id));
    let load = world.load("/");
    hole.process.signal(Signal::SIGSTOP);
    world.eventually("probes find it down", || world.seen("app", "hole")["probe"] == "down");
    world.get_many("/", 50).all_served(50);
    hole.process.signal(Signal::SIGCONT);
    world.eventually("it is used again", || world.get_many("/", 20).from("hole") > 0);
    let tally = load.ends();
    tally.all_served(tally.served());
}

/// Half an answer cannot be taken back, so somebody notices; but only until the instance is out.
#[test]
fn an_instance_that_breaks_off_its_answers_is_taken_out() {
    let world = world_of(r#"{"probe":{"kind":"none"}}"#);
    let [_one, _two, breaking] = ["one", "two", "breaking"].map(|id| world.sample("app", id));
    world.behaves(&breaking, "break");
    let tally = world.get_many("/", 300);
    // The client's next request may still meet the connection that ended with the answer.
    let n_broken = tally.failed.iter().filter(|failure| failure.contains("broke off")).count();
    assert!((1..=6).contains(&n_broken), "{:?}", tally.failed);
    assert_eq!((tally.from("breaking"), tally.served() + tally.failed.len()), (0, 300), "half an answer is not a whole one");
    assert_eq!(world.ejections("app"), 1.0);
}

/// Each of its answers begins well, that to its trial too.
#[test]
fn an_instance_that_goes_on_breaking_off_costs_one_answer_each_time_it_comes_back() {
    let world = world_of(r#"{"probe":{"kind":"none"},"ejection":{"base":"500ms"},"slow_start":"0s"}"#);
    let [_one, _two, breaking] = ["one", "two", "breaking"].map(|id| world.sample("app", id));
    world.behaves(&breaking, "break");
    let by_trial = || world.metric("pointsman_ejections_total", &[("service", "app"), ("cause", "trial")]).unwrap_or_default();
    let mut n_broken = 0;
    world.eventually("it is sent away by two trials", || {
        n_broken += world.get_many("/", 20).failed.iter().filter(|failure| failure.contains("broke off")).count();
        by_trial() >= 2.0
    });
    assert!((3..=9).contains(&n_broken), "five before it is taken out, and one for each trial, but {n_broken}");
}

/// Well and unwell in turns, and its health never shows it.
#[test]
fn an_instance_that_flaps_is_not_noticed() {
    let world = world_of(SOON_BACK);
    let [_one, _two, flapping] = ["one", "two", "flapping"].map(|id| world.sample("app", id));
    world.behaves(&flapping, "flap&ms=300");
    let load = world.load("/");
    world.eventually("it was taken out again and again", || world.ejections("app") >= 2.0);
    let tally = load.ends();
    tally.all_served(tally.served());
}

/// Nobody can be helped, and the instances are not asked twice.
#[test]
fn an_outage_is_not_made_worse_by_retries() {
    let world = world_of(r#"{"probe":{"kind":"none"}}"#);
    let samples = ["one", "two", "three"].map(|id| world.sample("app", id));
    samples.iter().for_each(|sample| world.behaves(sample, "fail&status=503"));
    let n_failed: usize = (0..4).map(|_| world.begin_many("/", 250).ends().failed.len()).sum();
    let n_sent: u64 = samples.iter().map(|sample| world.requests_at(sample)).sum();
    assert_eq!(n_failed, 1000);
    assert!((1000..1250).contains(&n_sent), "{n_sent} requests upstream for 1000 received");
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
    let world = world_of(SOON_BACK);
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

/// So that a story need not wait long for the way back.
const SOON_BACK: &str = r#"{"ejection":{"base":"1s"},"slow_start":"0s"}"#;
const STUCK: usize = 200;
