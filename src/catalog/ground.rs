//! The ground state of one service: who declared what. A pool is made from it and from the pool before.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::names::Names;
use crate::model::{Host, InstanceId, InstanceSpec, Lifecycle, Origin, Override, ServiceName, ServicePolicy};
use crate::pool::{Instance, InstanceState, Pool, Service, Standing};

#[derive(Debug, Default)]
pub struct Ground {
    /// The file's and the registry's record of an id stand side by side; the file's is in force.
    instances: BTreeMap<InstanceId, ByOrigin>,
    overrides: BTreeMap<InstanceId, (Override, u64)>,
    policies: BTreeMap<Origin, Arc<ServicePolicy>>,
}

/// Indexed by `Origin`.
type ByOrigin = [Option<Declared>; 2];

#[derive(Debug)]
struct Declared {
    spec: Arc<InstanceSpec>,
    revision: u64,
}

pub enum GroundChange {
    Instance(InstanceId, Option<Arc<InstanceSpec>>),
    Override(InstanceId, Option<Override>),
    Policy(Option<Arc<ServicePolicy>>),
}

impl Ground {
    pub fn absorb(&mut self, origin: Origin, revision: u64, change: GroundChange) {
        match change {
            GroundChange::Instance(id, Some(spec)) => {
                self.instances.entry(id).or_default()[origin as usize] = Some(Declared { spec, revision });
            }
            GroundChange::Instance(id, None) => {
                if let Some(declared) = self.instances.get_mut(&id) {
                    declared[origin as usize] = None;
                    if declared.iter().all(Option::is_none) {
                        self.instances.remove(&id);
                    }
                }
            }
            GroundChange::Override(id, Some(value)) => {
                self.overrides.insert(id, (value, revision));
            }
            GroundChange::Override(id, None) => {
                self.overrides.remove(&id);
            }
            GroundChange::Policy(Some(policy)) => {
                self.policies.insert(origin, policy);
            }
            GroundChange::Policy(None) => {
                self.policies.remove(&origin);
            }
        }
    }

    /// A service exists once it has an instance or a policy; an override alone makes none, but is kept.
    pub fn exists(&self) -> bool {
        !self.instances.is_empty() || !self.policies.is_empty()
    }

    pub fn is_empty(&self) -> bool {
        !self.exists() && self.overrides.is_empty()
    }

    /// Drops overrides whose time is over.
    pub fn expire(&mut self, wall: SystemTime) {
        self.overrides.retain(|_, (value, _)| value.in_force(wall));
    }

    pub fn host_names(&self) -> BTreeSet<Arc<str>> {
        let hosts = self.in_force().map(|(_, _, declared)| &declared.spec.address.host);
        hosts.filter_map(|host| if let Host::Name(name) = host { Some(name.clone()) } else { None }).collect()
    }

    /// The same `Arc` as before if it says the same.
    pub fn policy(&self, old: Option<&Service>) -> Arc<ServicePolicy> {
        let declared = self.policies.values().next();
        match (declared, old) {
            (Some(policy), Some(old)) if *policy == old.policy => old.policy.clone(),
            (Some(policy), _) => policy.clone(),
            (None, Some(old)) if *old.policy == ServicePolicy::default() => old.policy.clone(),
            (None, _) => Arc::default(),
        }
    }

    /// Every instance is the old one if nothing about it changed, else a new one around the old state, if there is one.
    pub fn pool(&self, service: &ServiceName, old: Option<&Service>, names: &Names, learned: &mut Learned<'_>) -> Pool {
        let all = self.in_force().map(|(id, origin, declared)| {
            let standing = self.standing(id, declared, names);
            let before = old.and_then(|old| old.pool.get(id));
            if let Some(before) = before
                && before.standing == standing
                && before.origin == origin
                && before.spec == declared.spec
            {
                return before.clone();
            }
            let same_address = before.filter(|b| b.standing.addr == standing.addr);
            let state = match same_address {
                Some(before) => before.state.clone(),
                None => learned.state(service, id, standing.addr),
            };
            let (service, id, spec) = (service.clone(), id.clone(), declared.spec.clone());
            Arc::new(Instance { service, id, origin, spec, standing, state })
        });
        Pool::new(all.collect())
    }

    fn in_force(&self) -> impl Iterator<Item = (&InstanceId, Origin, &Declared)> {
        self.instances.iter().filter_map(|(id, declared)| {
            [Origin::File, Origin::Registry].into_iter().find_map(|o| Some((id, o, declared[o as usize].as_ref()?)))
        })
    }

    fn standing(&self, id: &InstanceId, declared: &Declared, names: &Names) -> Standing {
        let spec = &declared.spec;
        let ruling = self.overrides.get(id);
        let said = ruling.map(|(value, _)| value);
        let lifecycle = said.and_then(|o| o.lifecycle);
        let addr = spec.address.socket_addr().or_else(|| match &spec.address.host {
            Host::Name(name) => names.get(name).map(|ip| SocketAddr::new(ip, spec.address.port)),
            Host::Ip(_) => None,
        });
        Standing {
            addr,
            weight: said.and_then(|o| o.weight).unwrap_or(spec.weight),
            lifecycle: lifecycle.unwrap_or(spec.lifecycle),
            overridden: ruling.is_some(),
            revision: ruling.map_or(declared.revision, |(_, revision)| declared.revision.max(*revision)),
        }
    }
}

/// What the next pool may take over from the past.
pub struct Learned<'a> {
    pub remembered: &'a mut Remembered,
    pub next_generation: &'a mut u64,
    pub now: Instant,
    pub wall: SystemTime,
}

impl Learned<'_> {
    fn state(&mut self, service: &ServiceName, id: &InstanceId, addr: Option<SocketAddr>) -> Arc<InstanceState> {
        self.remembered.recall(service, id, addr, self.now).unwrap_or_else(|| {
            let generation = *self.next_generation;
            *self.next_generation += 1;
            Arc::new(InstanceState::new(generation, self.wall))
        })
    }
}

/// States of instances that left less than `REMEMBERED_FOR` ago: who comes back under the same id and address goes on where it was.
#[derive(Debug, Default)]
pub struct Remembered {
    states: HashMap<Identity, (Arc<InstanceState>, Instant)>,
    order: VecDeque<(Instant, Identity)>,
}

type Identity = (ServiceName, InstanceId, Option<SocketAddr>);

impl Remembered {
    fn recall(
        &mut self,
        service: &ServiceName,
        id: &InstanceId,
        addr: Option<SocketAddr>,
        now: Instant,
    ) -> Option<Arc<InstanceState>> {
        let (state, left) = self.states.remove(&(service.clone(), id.clone(), addr))?;
        (now.saturating_duration_since(left) < REMEMBERED_FOR).then_some(state)
    }

    pub fn departed(&mut self, service: &ServiceName, old: &Pool, new: &Pool, now: Instant) {
        for instance in old.all() {
            if new.get(&instance.id).is_some_and(|i| i.state.generation == instance.state.generation) {
                continue;
            }
            let identity = (service.clone(), instance.id.clone(), instance.standing.addr);
            self.order.push_back((now, identity.clone()));
            self.states.insert(identity, (instance.state.clone(), now));
        }
    }

    pub fn forget(&mut self, now: Instant) {
        while let Some((left, identity)) = self.order.front()
            && (now.saturating_duration_since(*left) >= REMEMBERED_FOR || self.order.len() > REMEMBERED_MAX)
        {
            if self.states.get(identity).is_some_and(|(_, at)| at == left) {
                self.states.remove(identity);
            }
            self.order.pop_front();
        }
    }
}

const REMEMBERED_FOR: Duration = Duration::from_secs(30);
/// So that a registry that comes and goes as a whole cannot fill the memory.
const REMEMBERED_MAX: usize = 200_000;

/// Who took traffic in the old pool and does not in the new one, or is another one now.
pub fn retired(old: Option<&Pool>, new: &Pool) -> Vec<u64> {
    let taking = |i: &Arc<Instance>| i.standing.lifecycle == Lifecycle::Ready && i.standing.addr.is_some();
    let before = old.into_iter().flat_map(|old| old.all().iter()).filter(|i| taking(i));
    let stays = |i: &Arc<Instance>| new.get(&i.id).is_some_and(|n| taking(n) && n.state.generation == i.state.generation);
    before.filter(|i| !stays(i)).map(|i| i.state.generation).collect()
}
