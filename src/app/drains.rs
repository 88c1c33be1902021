//! Who drains or has left, and who has finished: what `pointsman drain --wait` waits for.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::catalog::{Applied, Snapshot};
use crate::model::{InstanceId, Lifecycle, ServiceName};
use crate::pool::{Instance, Moment, Service};

/// The instances that are present and may take nothing new, and those that left. Costs what changes and what drains, not
/// what exists.
#[derive(Debug, Default)]
pub struct Drains {
    draining: BTreeMap<(ServiceName, InstanceId), Draining>,
    /// By generation; forgotten once they have finished.
    left: BTreeMap<u64, Left>,
}

#[derive(Debug)]
struct Draining {
    service: Arc<Service>,
    instance: Arc<Instance>,
    idle: Idle,
}

#[derive(Debug)]
struct Left {
    instance: Arc<Instance>,
    idle: Idle,
}

/// How many looks in a row found nothing in flight. One is not enough: a request may have read the snapshot before the
/// swap and not have picked yet.
#[derive(Debug, Clone, Copy, Default)]
struct Idle(u32);

/// As `SERVICE/ID`. Who drains is in one of the two.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Looked {
    pub drained: Vec<String>,
    /// Who drains, or has left, and is still busy.
    pub busy: Vec<String>,
}

impl Drains {
    /// Takes in what a new snapshot says of the services that changed.
    pub fn follow(&mut self, snapshot: &Snapshot, applied: &Applied) {
        let now = |service: &ServiceName, id: &InstanceId| snapshot.services.get(service)?.pool.get(id);
        self.draining.retain(|(service, id), _| !applied.services.contains(service) || now(service, id).is_some_and(drains));
        for service in applied.services.iter().filter_map(|name| snapshot.services.get(name)) {
            for instance in service.pool.all().iter().filter(|instance| drains(instance)) {
                let key = (service.name.clone(), instance.id.clone());
                let before = self.draining.get(&key).filter(|d| is_same_life(&d.instance, instance));
                let idle = before.map_or(Idle::default(), |before| before.idle);
                self.draining.insert(key, Draining { service: service.clone(), instance: instance.clone(), idle });
            }
        }
        let left =
            applied.left.iter().map(|gone| (gone.state.generation, Left { instance: gone.clone(), idle: Idle::default() }));
        self.left.extend(left);
        // Who comes back soon goes on where it was.
        self.left
            .retain(|_, Left { instance, .. }| !now(&instance.service, &instance.id).is_some_and(|i| is_same_life(i, instance)));
    }

    /// Looks at each once.
    pub fn look(&mut self, now: Moment) -> Looked {
        let mut looked = Looked::default();
        for ((service, id), Draining { service: current, instance, idle }) in &mut self.draining {
            idle.look(instance);
            let expects_sessions = current.policy.sticky.is_some() && current.lets_sessions_end(instance, now);
            let list = if idle.is_over() && !expects_sessions { &mut looked.drained } else { &mut looked.busy };
            list.push(format!("{service}/{id}"));
        }
        self.left.retain(|_, Left { instance, idle }| {
            idle.look(instance);
            if instance.state.in_flight() > 0 {
                looked.busy.push(format!("{}/{}", instance.service, instance.id));
            }
            !idle.is_over()
        });
        looked
    }

    /// How many of them still have requests.
    pub fn n_active(&self) -> u64 {
        let all = self.draining.values().map(|d| &d.instance).chain(self.left.values().map(|l| &l.instance));
        all.filter(|instance| instance.state.in_flight() > 0).count() as u64
    }
}

impl Idle {
    fn look(&mut self, instance: &Instance) {
        self.0 = if instance.state.in_flight() == 0 { self.0.saturating_add(1) } else { 0 };
    }

    fn is_over(self) -> bool {
        self.0 >= IDLE_LOOKS
    }
}

fn drains(instance: &Arc<Instance>) -> bool {
    instance.standing.lifecycle != Lifecycle::Ready
}

fn is_same_life(a: &Instance, b: &Instance) -> bool {
    a.state.generation == b.state.generation
}

const IDLE_LOOKS: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Catalog, Live};
    use crate::model::{Address, Change, Departure, Event, InstanceSpec, Origin};
    use crate::pool::InFlight;
    use std::time::{Instant, SystemTime};

    struct World {
        catalog: Catalog,
        live: Arc<Live>,
        drains: Drains,
    }

    impl World {
        fn new() -> Self {
            let live = Arc::new(Live::default());
            Self { catalog: Catalog::new(live.clone(), Arc::default()), live, drains: Drains::default() }
        }

        fn apply(&mut self, change: Change) {
            let event = Event { origin: Origin::Registry, revision: 1, changes: vec![change] };
            let applied = self.catalog.apply(vec![event], vec![], Instant::now(), SystemTime::now());
            self.drains.follow(&self.live.load(), &applied);
        }

        fn put(&mut self, lifecycle: Lifecycle) {
            let spec = InstanceSpec { lifecycle, ..InstanceSpec::at(Address::parse("10.0.0.1:80").unwrap()) };
            self.apply(Change::Instance { service: name(), id: id(), spec });
        }

        fn delete(&mut self) {
            self.apply(Change::InstanceGone { service: name(), id: id(), departure: Departure::Deleted });
        }

        fn hold(&self) -> InFlight {
            InFlight::begin(self.live.load().services.get("s").unwrap().pool.get(&id()).unwrap().clone())
        }

        /// Two looks: who is drained, who is busy, and how many have requests.
        fn looks(&mut self) -> (Vec<String>, Vec<String>, u64) {
            let now = Moment::of(Instant::now());
            self.drains.look(now);
            let Looked { drained, busy } = self.drains.look(now);
            (drained, busy, self.drains.n_active())
        }
    }

    fn name() -> ServiceName {
        ServiceName::parse("s").unwrap()
    }

    fn id() -> InstanceId {
        InstanceId::parse("a").unwrap()
    }

    fn one() -> Vec<String> {
        vec!["s/a".to_owned()]
    }

    #[test]
    fn who_drains_is_busy_until_two_looks_found_nothing() {
        let mut world = World::new();
        world.put(Lifecycle::Ready);
        let held = world.hold();
        assert_eq!(world.looks(), (vec![], vec![], 0));
        world.put(Lifecycle::Draining);
        assert_eq!(world.looks(), (vec![], one(), 1));
        drop(held);
        assert_eq!(world.drains.look(Moment::of(Instant::now())).busy, one());
        assert_eq!(world.looks(), (one(), vec![], 0));
        world.put(Lifecycle::Ready);
        assert_eq!(world.looks(), (vec![], vec![], 0));
    }

    #[test]
    fn who_leaves_with_requests_is_busy_until_they_have_ended() {
        let mut world = World::new();
        world.put(Lifecycle::Draining);
        let held = world.hold();
        world.delete();
        assert_eq!(world.looks(), (vec![], one(), 1));
        assert_eq!(world.looks(), (vec![], one(), 1));
        drop(held);
        assert_eq!((world.looks(), world.drains.left.len()), ((vec![], vec![], 0), 0));
    }

    #[test]
    fn who_comes_back_has_not_left() {
        let mut world = World::new();
        world.put(Lifecycle::Ready);
        let _held = world.hold();
        world.delete();
        assert_eq!(world.looks().2, 1);
        world.put(Lifecycle::Ready);
        assert_eq!(world.looks(), (vec![], vec![], 0));
    }
}
