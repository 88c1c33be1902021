//! What the catalog promises, told with values.

use super::*;
use crate::model::{Address, Departure, InstanceId, InstanceSpec, Lifecycle, Override, RouteName, RouteSpec, Verdict};
use crate::pool::Moment;
use crate::pool::Pool;

struct World {
    catalog: Catalog,
    live: Arc<Live>,
    now: Instant,
    wall: SystemTime,
    revision: u64,
}

impl World {
    fn new() -> Self {
        let live = Arc::new(Live::default());
        let catalog = Catalog::new(live.clone(), Arc::default());
        Self { catalog, live, now: Instant::now(), wall: SystemTime::UNIX_EPOCH, revision: 0 }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.wall += time;
    }

    fn apply(&mut self, changes: Vec<Change>) -> Applied {
        self.apply_of(Origin::Registry, changes)
    }

    fn apply_of(&mut self, origin: Origin, changes: Vec<Change>) -> Applied {
        self.revision += 1;
        let event = Event { origin, revision: self.revision, changes };
        self.catalog.apply(vec![event], vec![], self.now, self.wall)
    }

    fn resolve(&mut self, host: &str, ip: &str) -> Applied {
        let resolution = Resolution { name: host.into(), addresses: vec![ip.parse().unwrap()] };
        self.catalog.apply(vec![], vec![resolution], self.now, self.wall)
    }

    fn service(&self, service: &str) -> Arc<Service> {
        self.live.load().services.get(service).expect("the service exists").clone()
    }

    /// `ID ADDRESS WEIGHT LIFECYCLE` of each instance.
    fn pool(&self, service: &str) -> Vec<String> {
        let show = |i: &Arc<crate::pool::Instance>| {
            let addr = i.standing.addr.map_or("?".into(), |a| a.to_string());
            format!("{} {addr} {} {}", i.id, i.standing.weight, i.standing.word())
        };
        self.live.load().services.get(service).map_or(vec![], |s| s.pool.all().iter().map(show).collect())
    }
}

fn name(text: &str) -> ServiceName {
    ServiceName::parse(text).unwrap()
}

fn id(text: &str) -> InstanceId {
    InstanceId::parse(text).unwrap()
}

fn put(service: &str, instance: &str, address: &str) -> Change {
    let spec = InstanceSpec::at(Address::parse(address).unwrap());
    Change::Instance { service: name(service), id: id(instance), spec }
}

fn weigh(service: &str, instance: &str, address: &str, weight: u16) -> Change {
    let spec = InstanceSpec { weight, ..InstanceSpec::at(Address::parse(address).unwrap()) };
    Change::Instance { service: name(service), id: id(instance), spec }
}

fn gone(service: &str, instance: &str) -> Change {
    Change::InstanceGone { service: name(service), id: id(instance), departure: Departure::Deleted }
}

fn lost(service: &str, instance: &str) -> Change {
    Change::InstanceGone { service: name(service), id: id(instance), departure: Departure::Expired }
}

fn rule(service: &str, instance: &str, value: Option<Override>) -> Change {
    Change::Override { service: name(service), id: id(instance), value }
}

#[test]
fn a_change_in_one_service_leaves_every_other_pointer_equal() {
    let mut world = World::new();
    world.apply((0..100).map(|n| put(&format!("s{n}"), "a", "10.0.0.1:80")).collect());
    let before: Vec<_> = (0..100).map(|n| world.service(&format!("s{n}"))).collect();
    let applied = world.apply(vec![put("s7", "b", "10.0.0.2:80")]);
    assert_eq!(applied.services, BTreeSet::from([name("s7")]));
    for (n, old) in before.iter().enumerate() {
        assert_eq!(Arc::ptr_eq(old, &world.service(&format!("s{n}"))), n != 7, "s{n}");
    }
    assert!(Arc::ptr_eq(&before[7].pool.all()[0], &world.service("s7").pool.all()[0]), "an unchanged instance stays itself");
}

#[test]
fn what_was_learned_survives_a_new_weight_and_a_quick_return_but_not_a_new_address() {
    let mut world = World::new();
    let generation = |world: &World| world.service("s").pool.all()[0].state.generation;
    world.apply(vec![put("s", "a", "10.0.0.1:80"), put("s", "b", "10.0.0.9:80")]);
    let first = generation(&world);

    let applied = world.apply(vec![weigh("s", "a", "10.0.0.1:80", 5)]);
    assert_eq!((generation(&world), applied.retired), (first, vec![]));

    let applied = world.apply(vec![gone("s", "a")]);
    assert_eq!(applied.retired, [first]);
    world.pass(Duration::from_secs(29));
    world.apply(vec![put("s", "a", "10.0.0.1:80")]);
    assert_eq!(generation(&world), first, "back within 30 s");

    world.apply(vec![gone("s", "a")]);
    world.pass(Duration::from_secs(31));
    world.apply(vec![put("s", "a", "10.0.0.1:80")]);
    let second = generation(&world);
    assert_ne!(second, first, "back after 30 s");

    let applied = world.apply(vec![put("s", "a", "10.0.0.2:80")]);
    assert_ne!(generation(&world), second);
    assert_eq!(applied.retired, [second], "connections to the old address must close");
}

#[test]
fn an_override_wins_survives_a_new_registration_and_ends_in_time() {
    let mut world = World::new();
    world.apply(vec![put("s", "a", "10.0.0.1:80")]);
    let until = world.wall + Duration::from_secs(60);
    let drain = Override { lifecycle: Some(Lifecycle::Draining), weight: None, until: Some(until) };
    let applied = world.apply(vec![rule("s", "a", Some(drain))]);
    assert_eq!(world.pool("s"), ["a 10.0.0.1:80 100 draining"]);
    assert_eq!(applied.retired.len(), 1);
    assert_eq!(world.service("s").pool.all()[0].reason(), Some("draining: an operator's override"));

    world.apply(vec![gone("s", "a")]);
    assert_eq!(world.pool("s"), Vec::<String>::new());
    world.apply(vec![put("s", "a", "10.0.0.1:80")]);
    assert_eq!(world.pool("s"), ["a 10.0.0.1:80 100 draining"]);

    assert_eq!(world.catalog.next_expiry(world.now, world.wall), Some(Duration::from_secs(60)));
    world.pass(Duration::from_secs(60));
    world.catalog.apply(vec![], vec![], world.now, world.wall);
    assert_eq!(world.pool("s"), ["a 10.0.0.1:80 100 ready"]);
    assert_eq!(world.catalog.next_expiry(world.now, world.wall), None);

    world.apply(vec![rule("s", "a", Some(Override { weight: Some(7), ..Override::default() }))]);
    assert_eq!(world.pool("s"), ["a 10.0.0.1:80 7 ready"]);
    world.apply(vec![rule("s", "a", None)]);
    assert_eq!(world.pool("s"), ["a 10.0.0.1:80 100 ready"]);
}

#[test]
fn the_files_instance_is_not_overwritten_by_the_registrys() {
    let mut world = World::new();
    let event = Event { origin: Origin::File, revision: 0, changes: vec![put("s", "a", "10.0.0.1:80")] };
    world.catalog.apply(vec![event], vec![], world.now, world.wall);
    world.apply(vec![put("s", "a", "10.0.0.2:80"), put("s", "b", "10.0.0.3:80")]);
    assert_eq!(world.pool("s"), ["a 10.0.0.1:80 100 ready", "b 10.0.0.3:80 100 ready"]);
    world.apply(vec![gone("s", "a")]);
    assert_eq!(world.pool("s"), ["a 10.0.0.1:80 100 ready", "b 10.0.0.3:80 100 ready"]);
    assert_eq!(world.live.load().revision, world.revision, "the file has no revision of its own");
}

#[test]
fn a_service_exists_once_it_has_an_instance_or_a_policy() {
    let mut world = World::new();
    world.apply(vec![rule("s", "a", Some(Override { weight: Some(1), ..Override::default() }))]);
    assert!(world.live.load().services.get("s").is_none());
    world.apply(vec![Change::Policy { service: name("s"), policy: Some(Box::default()) }]);
    assert!(world.service("s").pool.all().is_empty());
    let stats = world.service("s").stats.clone();
    world.apply(vec![put("s", "a", "10.0.0.1:80"), Change::Policy { service: name("s"), policy: None }]);
    assert!(Arc::ptr_eq(&stats, &world.service("s").stats), "counts go on while the service exists");
    assert_eq!(world.pool("s"), ["a 10.0.0.1:80 1 ready"], "the override was kept");
    world.apply(vec![gone("s", "a")]);
    assert!(world.live.load().services.get("s").is_none());
}

#[test]
fn a_dns_name_is_used_once_resolved_and_its_last_good_address_stays() {
    let mut world = World::new();
    let applied = world.apply(vec![put("s", "a", "orders.internal:80")]);
    assert_eq!(applied.names, Some(BTreeSet::from([Arc::from("orders.internal")])));
    assert_eq!(world.pool("s"), ["a ? 100 ready"]);
    assert_eq!(world.service("s").n_admitted(Moment::of(Instant::now())), 0);

    world.resolve("orders.internal", "10.0.0.7");
    assert_eq!(world.pool("s"), ["a 10.0.0.7:80 100 ready"]);
    let applied = world.catalog.apply(
        vec![],
        vec![Resolution {
            name: "orders.internal".into(),
            addresses: vec!["10.0.0.1".parse().unwrap(), "10.0.0.7".parse().unwrap()],
        }],
        world.now,
        world.wall,
    );
    assert_eq!(applied.services.len(), 0, "the address in use is still among them");
    let applied = world.resolve("orders.internal", "10.0.0.8");
    assert_eq!((world.pool("s"), applied.retired.len()), (vec!["a 10.0.0.8:80 100 ready".to_owned()], 1));

    let applied = world.apply(vec![gone("s", "a")]);
    assert_eq!(applied.names, Some(BTreeSet::new()));
}

#[test]
fn a_name_of_the_registry_never_leads_where_it_may_not() {
    let mut world = World::new();
    let guard = Arc::new(AddressGuard::default());
    world.catalog = Catalog::new(world.live.clone(), Arc::default()).guarded_by(guard.clone());
    world.apply(vec![put("s", "a", "orders.internal:80")]);
    world.apply_of(Origin::File, vec![put("s", "f", "orders.internal:80")]);
    let refused = |world: &World| world.service("s").pool.get(&id("a")).and_then(|a| a.standing.refused);
    world.resolve("orders.internal", "169.254.169.254");
    assert_eq!(world.pool("s"), ["a ? 100 ready", "f 169.254.169.254:80 100 ready"], "the file is the operator's own");
    assert!(refused(&world).is_some_and(|why| why.contains("link-local")) && guard.refused()[1] == ("name", 1));

    world.resolve("orders.internal", "10.0.0.7");
    world.resolve("orders.internal", "::ffff:169.254.169.254");
    assert_eq!(world.pool("s")[0], "a 10.0.0.7:80 100 ready", "the last good address stays");
    assert!(refused(&world).is_none() && guard.refused()[1] == ("name", 2));
    let both = ["169.254.169.254", "10.0.0.9"].map(|ip| ip.parse().unwrap()).to_vec();
    let resolution = Resolution { name: "orders.internal".into(), addresses: both };
    world.catalog.apply(vec![], vec![resolution], world.now, world.wall);
    assert_eq!(world.pool("s")[0], "a 10.0.0.9:80 100 ready", "of several, one that is good");
}

#[test]
fn whoever_comes_first_is_in_force_and_whoever_leaves_uncovers_the_next() {
    let mut world = World::new();
    let origins = [Origin::Source(1), Origin::Source(0), Origin::Registry, Origin::File];
    for (n, origin) in origins.into_iter().enumerate() {
        world.apply_of(origin, vec![put("s", "a", &format!("10.0.0.{n}:80"))]);
        assert_eq!(world.pool("s"), [format!("a 10.0.0.{n}:80 100 ready")], "{origin:?} comes before those until now");
    }
    for beneath in [Origin::Source(1), Origin::Registry] {
        let before = world.service("s").pool.all()[0].clone();
        world.apply_of(beneath, vec![put("s", "a", "10.0.0.9:80")]);
        assert!(Arc::ptr_eq(&before, &world.service("s").pool.all()[0]), "{beneath:?} changes nothing that is in force");
    }
    world.apply_of(Origin::Registry, vec![gone("s", "a")]);
    world.apply_of(Origin::File, vec![gone("s", "a")]);
    assert_eq!(world.pool("s"), ["a 10.0.0.1:80 100 ready"]);
    world.apply_of(Origin::Source(0), vec![gone("s", "a")]);
    assert_eq!(world.pool("s"), ["a 10.0.0.9:80 100 ready"]);
    world.apply_of(Origin::Source(1), vec![gone("s", "a")]);
    assert!(world.live.load().services.get("s").is_none());
}

#[test]
fn only_our_own_prefix_moves_the_revision_and_all_must_be_heard_of() {
    let mut world = World::new();
    world.catalog = std::mem::replace(&mut world.catalog, Catalog::new(Arc::default(), Arc::default())).with_sources(1);
    let seen = |world: &World| (world.live.load().revision, world.live.load().registry_known);
    world.apply_of(Origin::File, vec![]);
    world.apply(vec![]);
    assert_eq!(seen(&world), (2, false));
    assert_eq!(world.apply_of(Origin::Source(0), vec![put("s", "a", "10.0.0.1:80")]).revision, 2);
    assert_eq!(seen(&world), (2, true));
}

/// A service of so many instances, `i0` and on, that probes found up; then its registry loses the first ones.
fn losing(n: usize, n_lost: usize) -> World {
    let mut world = World::new();
    world.apply((0..n).map(|n| put("s", &format!("i{n}"), &format!("10.0.0.{n}:80"))).collect());
    let service = world.service("s");
    for instance in service.pool.all() {
        service.settle(instance, Verdict::Up, true, "status 200", Moment::of(world.now));
    }
    for n in 0..n_lost {
        world.apply(vec![lost("s", &format!("i{n}"))]);
        world.pass(Duration::from_millis(100));
    }
    world
}

impl World {
    fn look(&mut self) -> Applied {
        self.catalog.apply(vec![], vec![], self.now, self.wall)
    }

    /// How many instances there are, how many of them in limbo, and how many may be picked.
    fn counts(&self) -> [usize; 3] {
        let live = self.live.load();
        let Some(service) = live.services.get("s") else { return [0; 3] };
        let n_limbo = service.pool.all().iter().filter(|i| i.standing.limbo.is_some()).count();
        [service.pool.all().len(), n_limbo, service.n_admitted(Moment::of(self.now))]
    }

    fn happened(&self, kind: &str) -> Vec<String> {
        let of_kind = self.catalog.history.recent().into_iter().filter(|h| h.kind == kind);
        of_kind.map(|h| format!("{} {}", h.subject, h.detail)).collect()
    }
}

#[test]
fn many_that_vanish_at_once_stay_in_use_and_those_that_return_go_on_where_they_were() {
    let mut world = losing(10, 4);
    assert_eq!(world.counts(), [10, 4, 10]);
    assert_eq!(world.happened("protection_begun"), ["s 4 instances vanished at once and are held in limbo"]);
    let generations = |w: &World| w.service("s").pool.all().iter().map(|i| i.state.generation).collect::<Vec<_>>();
    let before = generations(&world);
    world.pass(Duration::from_secs(500));
    world.look();
    assert_eq!(world.counts(), [10, 4, 10]);

    world.apply((0..4).map(|n| put("s", &format!("i{n}"), &format!("10.0.0.{n}:80"))).collect());
    assert_eq!((world.counts(), generations(&world)), ([10, 0, 10], before));
    assert_eq!((world.happened("instance_returned").len(), world.happened("protection_ended").len()), (4, 1));
    world.pass(Duration::from_secs(500));
    assert_eq!((world.look().services.len(), world.counts()), (0, [10, 0, 10]), "nothing is left of it");
}

#[test]
fn whoever_is_in_limbo_is_dropped_by_one_failed_probe_or_when_its_time_is_over() {
    let mut world = losing(10, 5);
    let service = world.service("s");
    for n in [0, 9] {
        service.settle(&service.pool.all()[n], Verdict::Up, false, "connection refused", Moment::of(world.now));
        service.probe_failed(&service.pool.all()[n]);
    }
    service.settle(&service.pool.all()[1], Verdict::Down, false, "status 500", Moment::of(world.now));
    let retired = [0, 1].map(|n| service.pool.all()[n].state.generation);
    assert_eq!(world.look().retired, retired);
    assert_eq!(world.counts(), [8, 3, 8], "one that is declared has the patience of its service");
    assert_eq!(world.happened("instance_dropped")[0], "s/i0 a probe of it failed: connection refused");

    let end = world.catalog.next_expiry(world.now, world.wall).unwrap();
    assert!(end > Duration::from_secs(590) && end <= Duration::from_secs(600), "{end:?}");
    world.pass(end);
    world.look();
    assert_eq!(world.counts(), [7, 2, 7]);
    assert_eq!(world.happened("instance_dropped")[2], "s/i2 its time in limbo is over");
    world.pass(Duration::from_secs(1));
    world.look();
    assert_eq!((world.counts(), world.happened("protection_ended").len()), ([5, 0, 5], 1));
}

#[test]
fn what_somebody_wanted_is_done_at_once() {
    let deleted = |mut world: World| {
        world.apply((0..10).map(|n| gone("s", &format!("i{n}"))).collect());
        world.counts()
    };
    assert_eq!(deleted(losing(10, 0)), [0, 0, 0]);

    let mut drained = losing(10, 0);
    let drain = Override { lifecycle: Some(Lifecycle::Draining), ..Override::default() };
    drained.apply((0..10).map(|n| rule("s", &format!("i{n}"), Some(drain.clone()))).collect());
    drained.apply((0..10).map(|n| lost("s", &format!("i{n}"))).collect());
    assert_eq!(drained.counts(), [0, 0, 0]);

    let mut off = losing(10, 5);
    let mut policy = crate::model::ServicePolicy::default();
    policy.protection.percent = 100;
    off.apply(vec![Change::Policy { service: name("s"), policy: Some(Box::new(policy)) }]);
    assert_eq!(off.counts(), [5, 0, 5], "the operator believes the registry");
    off.apply(vec![lost("s", "i5"), lost("s", "i6")]);
    assert_eq!(off.counts(), [3, 0, 3]);
}

#[test]
fn who_was_known_to_be_dead_is_not_held() {
    let mut world = losing(10, 0);
    let service = world.service("s");
    service.settle(&service.pool.all()[0], Verdict::Down, false, "connection refused", Moment::of(world.now));
    world.apply(vec![lost("s", "i0"), lost("s", "i1")]);
    assert_eq!(world.counts(), [9, 1, 9]);
    assert_eq!(world.happened("protection_begun").len(), 0);
    world.pass(Duration::from_secs(30));
    world.look();
    assert_eq!(world.counts(), [8, 0, 8]);
}

#[test]
fn another_record_of_the_same_instance_needs_no_limbo() {
    let mut world = losing(2, 0);
    world.apply_of(Origin::Source(0), vec![put("s", "i0", "10.0.0.7:80")]);
    world.apply(vec![lost("s", "i0")]);
    assert_eq!(world.pool("s"), ["i0 10.0.0.7:80 100 ready", "i1 10.0.0.1:80 100 ready"]);
    world.apply(vec![lost("s", "i1")]);
    assert_eq!(world.pool("s")[1], "i1 10.0.0.1:80 100 limbo");
    world.apply_of(Origin::Source(0), vec![put("s", "i1", "10.0.0.8:80")]);
    assert_eq!(world.pool("s")[1], "i1 10.0.0.8:80 100 ready");
    assert_eq!(world.catalog.next_expiry(world.now, world.wall), None);
}

#[test]
fn routes_and_happenings_follow_the_changes() {
    let mut world = World::new();
    let route = RouteSpec::to(RouteName::parse("r").unwrap(), name("s"));
    world.apply(vec![Change::Route { name: route.name.clone(), route: Some(Box::new(route)) }, put("s", "a", "10.0.0.1:80")]);
    let kinds: Vec<_> = world.catalog.history.recent().into_iter().map(|h| (h.kind, h.subject)).collect();
    assert_eq!(kinds, [("route_set", "r".to_owned()), ("instance_added", "s/a".to_owned())]);
}

#[test]
fn random_changes_in_any_grouping_end_in_the_same_pools() {
    let mut rng = fastrand::Rng::with_seed(11);
    let (mut one_by_one, mut grouped) = (World::new(), World::new());
    let mut pending = Vec::new();
    for _ in 0..3000 {
        let (service, instance) = (format!("s{}", rng.u8(0..5)), format!("i{}", rng.u8(0..6)));
        let change = match rng.u8(0..10) {
            0..5 => weigh(&service, &instance, &format!("10.0.0.{}:80", rng.u8(1..4)), rng.u16(0..3)),
            5..8 => gone(&service, &instance),
            8 => rule(&service, &instance, Some(Override { weight: Some(9), ..Override::default() })),
            _ => rule(&service, &instance, None),
        };
        one_by_one.apply(vec![change.clone()]);
        pending.push(change);
        if rng.u8(0..8) == 0 {
            grouped.apply(std::mem::take(&mut pending));
        }
    }
    grouped.apply(pending);
    let services = |w: &World| w.live.load().services.iter().map(|(n, s)| (n.clone(), shown(&s.pool))).collect::<BTreeSet<_>>();
    assert_eq!(services(&one_by_one), services(&grouped));
    assert!(!services(&grouped).is_empty());
}

fn shown(pool: &Pool) -> Vec<String> {
    pool.all().iter().map(|i| format!("{} {} {:?}", i.id, i.spec.address, i.standing.weight)).collect()
}
