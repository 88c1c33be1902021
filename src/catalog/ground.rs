//! The ground state of one service: who declared what. A pool is made from it and from the pool before.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::names::Names;
use crate::model::{Host, InstanceId, InstanceSpec, Origin, Override, ServiceName, ServicePolicy};
use crate::pool::{Instance, InstanceState, Moment, Service, Standing};

#[derive(Debug, Default)]
pub struct Ground {
    /// Everybody's record of an id, side by side; the first of an id is in force.
    instances: BTreeMap<(InstanceId, Origin), Declared>,
    overrides: BTreeMap<InstanceId, (Override, u64)>,
    /// Those that say a DNS name as their address.
    named: BTreeSet<InstanceId>,
    policies: BTreeMap<Origin, Arc<ServicePolicy>>,
}

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
    /// Takes one change in and answers with the instance it is about, if it is about one.
    pub fn absorb(&mut self, origin: Origin, revision: u64, change: GroundChange) -> Option<InstanceId> {
        match change {
            GroundChange::Instance(id, spec) => {
                let key = (id.clone(), origin);
                match spec {
                    Some(spec) => self.instances.insert(key, Declared { spec, revision }),
                    None => self.instances.remove(&key),
                };
                if self.host_name(&id).is_some() {
                    self.named.insert(id.clone());
                } else {
                    self.named.remove(&id);
                }
                Some(id)
            }
            GroundChange::Override(id, Some(value)) => {
                self.overrides.insert(id.clone(), (value, revision));
                Some(id)
            }
            GroundChange::Override(id, None) => {
                self.overrides.remove(&id);
                Some(id)
            }
            GroundChange::Policy(Some(policy)) => {
                self.policies.insert(origin, policy);
                None
            }
            GroundChange::Policy(None) => {
                self.policies.remove(&origin);
                None
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

    /// Drops overrides whose time is over, and answers with the instances they were about.
    pub fn expire(&mut self, wall: SystemTime) -> Vec<InstanceId> {
        self.overrides.extract_if(.., |_, (value, _)| !value.in_force(wall)).map(|(id, _)| id).collect()
    }

    pub fn named(&self) -> &BTreeSet<InstanceId> {
        &self.named
    }

    pub fn host_names(&self) -> BTreeSet<Arc<str>> {
        self.named.iter().filter_map(|id| self.host_name(id)).cloned().collect()
    }

    fn host_name(&self, id: &InstanceId) -> Option<&Arc<str>> {
        match &self.in_force(id)?.1.spec.address.host {
            Host::Name(name) => Some(name),
            Host::Ip(_) => None,
        }
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

    /// The instance as it is declared now: `before` itself if nothing about it changed, else a new one around the old
    /// state, if that is of the same address. `None`: it is declared no more.
    pub fn instance(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        before: Option<&Arc<Instance>>,
        names: &Names,
        learned: &mut Learned<'_>,
    ) -> Option<Arc<Instance>> {
        let (origin, declared) = self.in_force(id)?;
        let standing = self.standing(id, declared, names);
        let is_same = |b: &Instance| b.standing == standing && b.origin == origin && b.spec == declared.spec;
        if let Some(before) = before.filter(|b| is_same(b)) {
            return Some(before.clone());
        }
        let state = match before.filter(|b| b.standing.addr == standing.addr) {
            Some(before) => before.state.clone(),
            None => learned.state(service, id, standing.addr),
        };
        let (service, id, spec) = (service.clone(), id.clone(), declared.spec.clone());
        Some(Arc::new(Instance { service, id, origin, spec, standing, state }))
    }

    fn in_force(&self, id: &InstanceId) -> Option<(Origin, &Declared)> {
        let ((first, origin), declared) = self.instances.range((id.clone(), Origin::File)..).next()?;
        (first == id).then_some((*origin, declared))
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
            Arc::new(InstanceState::new(generation, self.wall, Moment::of(self.now)))
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

    /// Keeps what was learned of an instance that left its place.
    pub fn departed(&mut self, gone: &Instance, now: Instant) {
        let identity = (gone.service.clone(), gone.id.clone(), gone.standing.addr);
        self.order.push_back((now, identity.clone()));
        self.states.insert(identity, (gone.state.clone(), now));
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
