//! The ground state of one service: who declared what. A pool is made from it and from the pool before.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::names::Names;
use super::protection::{Losses, Rules};
use crate::config::AddressGuard;
use crate::model::{Host, InstanceId, InstanceSpec, Lifecycle, Origin, Override, ServiceName, ServicePolicy};
use crate::pool::{Instance, InstanceState, Limbo, Moment, Service, Standing};

#[derive(Debug, Default)]
pub struct Ground {
    /// Everybody's record of an id, side by side; the first of an id is in force.
    instances: BTreeMap<(InstanceId, Origin), Declared>,
    overrides: BTreeMap<InstanceId, (Override, u64)>,
    /// Those that say a DNS name as their address.
    named: BTreeSet<InstanceId>,
    policies: BTreeMap<Origin, Arc<ServicePolicy>>,
    losses: Losses,
    /// As they were last told.
    protects: bool,
    limbo_end: Option<Instant>,
}

#[derive(Debug)]
struct Declared {
    spec: Arc<InstanceSpec>,
    revision: u64,
    /// It is declared no more, but kept.
    limbo: Option<Limbo>,
}

/// What a look at the losses of a service came to.
#[derive(Debug, Default)]
pub struct Judged {
    /// Who changes; `None` is the end.
    pub changes: Vec<(InstanceId, Option<Limbo>)>,
    /// When to look again, and when that was to be until now.
    pub next_end: Option<Instant>,
    pub last_end: Option<Instant>,
    /// Protection began, for so many, or ended, with none.
    pub turn: Option<usize>,
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
                    Some(spec) => {
                        // Whoever declares it, it is not lost any more.
                        self.losses.found(&id);
                        self.forget_lost(&id);
                        self.instances.insert(key, Declared { spec, revision, limbo: None });
                    }
                    None => {
                        self.instances.remove(&key);
                    }
                }
                self.note_name(&id);
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

    /// The registry lost what `origin` declared. It stays, in limbo, if nothing speaks against that; whether for long is for
    /// `judge_losses` to say. `alive`: nobody found that it is dead.
    pub fn lose(&mut self, origin: Origin, id: InstanceId, alive: bool, old: Option<&Service>, now: Instant) -> InstanceId {
        let rules = Rules::of(&self.policy(old));
        let alone = self.records(&id).count() == 1;
        let is_wanted = |d: &Declared| d.limbo.is_some() || self.lifecycle(&id, d) != Lifecycle::Ready;
        let is_clean = rules.are_off() || !alone || self.records(&id).any(is_wanted);
        let key = (id, origin);
        if !is_clean {
            self.losses.lose(key.0.clone(), alive, now);
        }
        match self.instances.get_mut(&key) {
            Some(declared) if alive && !is_clean => declared.limbo = Some(Limbo::Alone),
            _ => drop(self.instances.remove(&key)),
        }
        self.note_name(&key.0);
        key.0
    }

    /// It is dead. Whether it was in limbo until now.
    pub fn let_go(&mut self, id: &InstanceId) -> bool {
        let held = self.losses.let_go(id);
        if held {
            self.remove_lost(id);
        }
        held
    }

    /// What becomes of those in limbo now.
    pub fn judge_losses(&mut self, old: Option<&Service>, now: Instant) -> Judged {
        if self.losses.is_empty() && !self.protects && self.limbo_end.is_none() {
            return Judged::default();
        }
        let rules = Rules::of(&self.policy(old));
        let n_present = self.n_present();
        let changes = self.losses.judge(n_present, rules, now);
        for (id, limbo) in &changes {
            match limbo {
                Some(_) => self.instances.range_mut(Self::all_of(id)).for_each(|(_, declared)| declared.limbo = *limbo),
                None => self.remove_lost(id),
            }
        }
        let n_protected = self.losses.n_protected();
        let turn = (std::mem::replace(&mut self.protects, n_protected > 0) != (n_protected > 0)).then_some(n_protected);
        let next_end = self.losses.next_end(rules);
        Judged { changes, next_end, last_end: std::mem::replace(&mut self.limbo_end, next_end), turn }
    }

    /// Those that are declared and may get requests.
    fn n_present(&self) -> usize {
        let mut last = None;
        let in_force = self.instances.iter().filter(|((id, _), _)| last.replace(id) != Some(id));
        in_force.filter(|((id, _), d)| d.limbo.is_none() && self.lifecycle(id, d) == Lifecycle::Ready).count()
    }

    fn lifecycle(&self, id: &InstanceId, declared: &Declared) -> Lifecycle {
        self.overrides.get(id).and_then(|(value, _)| value.lifecycle).unwrap_or(declared.spec.lifecycle)
    }

    fn remove_lost(&mut self, id: &InstanceId) {
        self.forget_lost(id);
        self.note_name(id);
    }

    fn forget_lost(&mut self, id: &InstanceId) {
        self.instances.extract_if(Self::all_of(id), |_, declared| declared.limbo.is_some()).for_each(drop);
    }

    /// Everybody's record of it.
    fn records(&self, id: &InstanceId) -> impl Iterator<Item = &Declared> {
        self.instances.range(Self::all_of(id)).map(|(_, declared)| declared)
    }

    fn all_of(id: &InstanceId) -> RangeInclusive<(InstanceId, Origin)> {
        (id.clone(), Origin::File)..=(id.clone(), Origin::Source(u8::MAX))
    }

    fn note_name(&mut self, id: &InstanceId) {
        if self.host_name(id).is_some() {
            self.named.insert(id.clone());
        } else {
            self.named.remove(id);
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
        let standing = self.standing(id, (origin, declared), names, learned.guard);
        let is_same = |b: &Instance| b.standing == standing && b.origin == origin && b.spec == declared.spec;
        if let Some(before) = before.filter(|b| is_same(b)) {
            return Some(before.clone());
        }
        let state = match before.filter(|b| b.standing.addr == standing.addr) {
            Some(before) => before.state.clone(),
            None => learned.state(service, id, standing.addr),
        };
        let drains = standing.lifecycle == Lifecycle::Draining || state.health.says_draining();
        state.drains(drains, Moment::of(learned.now));
        let (service, id, spec) = (service.clone(), id.clone(), declared.spec.clone());
        Some(Arc::new(Instance { service, id, origin, spec, standing, state }))
    }

    fn in_force(&self, id: &InstanceId) -> Option<(Origin, &Declared)> {
        let ((first, origin), declared) = self.instances.range((id.clone(), Origin::File)..).next()?;
        (first == id).then_some((*origin, declared))
    }

    fn standing(
        &self,
        id: &InstanceId,
        (origin, declared): (Origin, &Declared),
        names: &Names,
        guard: &AddressGuard,
    ) -> Standing {
        let spec = &declared.spec;
        let ruling = self.overrides.get(id);
        let said = ruling.map(|(value, _)| value);
        let addr = match &spec.address.host {
            // The registry's was judged as it was read.
            Host::Ip(ip) => Ok(SocketAddr::new(*ip, spec.address.port)),
            Host::Name(name) => names.get(name, origin).and_then(|ip| {
                let addr = SocketAddr::new(ip, spec.address.port);
                let judged = if origin == Origin::File { Ok(()) } else { guard.judge(addr, spec) };
                judged.map(|()| addr).map_err(Some)
            }),
        };
        Standing {
            addr: addr.ok(),
            refused: addr.err().flatten(),
            weight: said.and_then(|o| o.weight).unwrap_or(spec.weight),
            lifecycle: self.lifecycle(id, declared),
            limbo: declared.limbo,
            overridden: ruling.is_some(),
            revision: ruling.map_or(declared.revision, |(_, revision)| declared.revision.max(*revision)),
        }
    }
}

/// What the next pool may take over from the past.
pub struct Learned<'a> {
    pub remembered: &'a mut Remembered,
    pub next_generation: &'a mut u64,
    pub guard: &'a AddressGuard,
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
