//! Who is probed: every (address, check) once, and all the instances that want to hear of it.
//!
//! 1. `follow` compares a service with how it was followed before, in one walk over both, and keeps what is the same.
//! 2. An instance joins the subject of its (address, check); the first to join makes it, the last to leave ends it.
//! 3. What a subject's probes settled is kept with it; who joins later is told at once.
//!
//! Pure: no socket, no clock.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::check::Check;
use super::judge::Judge;
use super::schedule::Lane;
use crate::model::{Outcome, ServiceName, Verdict};
use crate::pool::{Instance, Service};
use crate::trust::Trusts;

/// Counted up and never used twice, so what is left of one that is gone is never taken for another.
pub type SubjectId = u64;

#[derive(Debug, Default)]
pub struct Subjects {
    all: HashMap<SubjectId, Subject>,
    by_key: HashMap<(SocketAddr, Arc<Check>), SubjectId>,
    services: HashMap<ServiceName, Followed>,
    next_id: SubjectId,
    trusts: Arc<Trusts>,
}

/// A service as it was when it was followed last.
#[derive(Debug)]
struct Followed {
    service: Arc<Service>,
    /// Of each instance, in the order of the pool; `None` where nothing is probed.
    subjects: Vec<Option<SubjectId>>,
}

/// One check of one address.
#[derive(Debug)]
pub struct Subject {
    pub address: SocketAddr,
    pub check: Arc<Check>,
    pub judge: Judge,
    pub followers: Vec<Follower>,
    pub lane: Lane,
    pub is_probed: bool,
    /// The last probe could connect, whatever was answered.
    pub is_reachable: bool,
    /// Probes in a row that real requests stood in for.
    n_rested: u32,
}

/// An instance that wants to hear of a subject's probes.
#[derive(Debug)]
pub struct Follower {
    pub instance: Arc<Instance>,
    good: u64,
    failed: u64,
}

/// What `follow` changed.
#[derive(Debug, Default)]
pub struct Followings {
    pub begun: Vec<SubjectId>,
    /// And whether they had ever been probed.
    pub ended: Vec<(SubjectId, bool)>,
    pub joined: Vec<Joined>,
}

/// Somebody who joined a subject about which something is proven, and what that is.
#[derive(Debug)]
pub struct Joined {
    pub instance: Arc<Instance>,
    pub verdict: Verdict,
    pub is_reachable: bool,
}

impl Subjects {
    pub fn new(trusts: Arc<Trusts>) -> Self {
        Self { trusts, ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn get(&self, id: SubjectId) -> Option<&Subject> {
        self.all.get(&id)
    }

    pub fn get_mut(&mut self, id: SubjectId) -> Option<&mut Subject> {
        self.all.get_mut(&id)
    }

    /// Takes in how a service is now; `None`: it is gone.
    pub fn follow(&mut self, name: &ServiceName, service: Option<Arc<Service>>) -> Followings {
        let mut changes = Followings::default();
        let before = self.services.remove(name);
        let same_policy = match (&before, &service) {
            (Some(before), Some(service)) => Arc::ptr_eq(&before.service.policy, &service.policy),
            _ => false,
        };
        let mut left = Vec::new();
        let was = before.iter().flat_map(|b| b.service.pool.all().iter().zip(&b.subjects));
        let mut was = was.peekable();
        let mut subjects = Vec::with_capacity(service.as_ref().map_or(0, |s| s.pool.all().len()));
        for instance in service.iter().flat_map(|s| s.pool.all()) {
            // Most are the same as before, which the pointer alone tells.
            let is_same = |before: &Arc<Instance>| Arc::ptr_eq(before, instance);
            while let Some((gone, subject)) = was.next_if(|(before, _)| !is_same(before) && before.id < instance.id) {
                left.extend(subject.map(|subject| (subject, gone)));
            }
            let was = was.next_if(|(before, _)| is_same(before) || before.id == instance.id);
            if let Some((before, subject)) = was
                && same_policy
                && is_same(before)
            {
                subjects.push(*subject);
                continue;
            }
            let wanted = service.as_ref().and_then(|s| Check::of(&s.policy, instance, &self.trusts));
            let subject = wanted.map(|(address, check)| self.subject_of(address, check, instance, &mut changes));
            let before = was.and_then(|(before, subject)| Some((before, (*subject)?)));
            if let (Some((before, old)), Some(subject)) = (before, subject)
                && old == subject
            {
                self.succeed(subject, before, instance, &mut changes);
            } else {
                left.extend(before.map(|(before, old)| (old, before)));
                if let Some(subject) = subject {
                    self.join(subject, instance, &mut changes);
                }
            }
            subjects.push(subject);
        }
        left.extend(was.filter_map(|(gone, subject)| subject.map(|subject| (subject, gone))));
        for (subject, instance) in left {
            self.leave(subject, instance, &mut changes);
        }
        if let Some(service) = service {
            self.services.insert(name.clone(), Followed { service, subjects });
        }
        changes
    }

    /// The subject of this check, made if nobody wanted it before.
    fn subject_of(&mut self, address: SocketAddr, check: Check, first: &Instance, changes: &mut Followings) -> SubjectId {
        let key = (address, Arc::new(check));
        if let Some(id) = self.by_key.get(&key) {
            return *id;
        }
        let id = self.next_id;
        self.next_id += 1;
        let subject = Subject {
            address,
            check: key.1.clone(),
            // Who comes back goes on where it was.
            judge: Judge::resuming(first.state.health.verdict()),
            followers: Vec::with_capacity(1),
            lane: Lane::Prompt,
            is_probed: false,
            is_reachable: !first.state.health.is_unreachable(),
            n_rested: 0,
        };
        self.all.insert(id, subject);
        self.by_key.insert(key, id);
        changes.begun.push(id);
        id
    }

    fn join(&mut self, id: SubjectId, instance: &Arc<Instance>, changes: &mut Followings) {
        let Some(subject) = self.all.get_mut(&id) else { return };
        let verdict = subject.judge.verdict();
        if verdict != Verdict::Unknown && instance.state.health.verdict() != verdict {
            changes.joined.push(Joined { instance: instance.clone(), verdict, is_reachable: subject.is_reachable });
        }
        subject.followers.push(Follower::new(instance.clone()));
    }

    /// The instance takes the place of the one before it.
    fn succeed(&mut self, id: SubjectId, before: &Arc<Instance>, instance: &Arc<Instance>, changes: &mut Followings) {
        let Some(subject) = self.all.get_mut(&id) else { return };
        let same_life = before.state.generation == instance.state.generation;
        if same_life && let Some(follower) = subject.followers.iter_mut().find(|f| Arc::ptr_eq(&f.instance, before)) {
            follower.instance = instance.clone();
        } else {
            subject.followers.retain(|follower| !Arc::ptr_eq(&follower.instance, before));
            self.join(id, instance, changes);
        }
    }

    fn leave(&mut self, id: SubjectId, instance: &Arc<Instance>, changes: &mut Followings) {
        let Some(subject) = self.all.get_mut(&id) else { return };
        subject.followers.retain(|follower| !Arc::ptr_eq(&follower.instance, instance));
        if subject.followers.is_empty()
            && let Some(gone) = self.all.remove(&id)
        {
            self.by_key.remove(&(gone.address, gone.check));
            changes.ended.push((id, gone.is_probed));
        }
    }
}

impl Subject {
    /// Called when a probe is due: whether real requests said in the last interval what it would say.
    pub fn may_rest(&mut self) -> bool {
        let (mut n_good, mut n_failed) = (0, 0);
        for follower in &mut self.followers {
            let (good, failed) = follower.since_last();
            n_good += good;
            n_failed += failed;
        }
        // For one in limbo nobody vouches but its probes.
        let in_limbo = self.followers.iter().any(|follower| follower.instance.standing.limbo.is_some());
        let may = !in_limbo && self.judge.is_well() && n_good >= GOOD_MIN && n_failed == 0 && self.n_rested < RESTS_MAX;
        self.n_rested = if may { self.n_rested + 1 } else { 0 };
        may
    }
}

impl Follower {
    fn new(instance: Arc<Instance>) -> Self {
        let (good, failed) = outcomes(&instance);
        Self { instance, good, failed }
    }

    /// Requests since the last call: good ones, and failures.
    fn since_last(&mut self) -> (u64, u64) {
        let (good, failed) = outcomes(&self.instance);
        let since = (good - self.good, failed - self.failed);
        (self.good, self.failed) = (good, failed);
        since
    }
}

fn outcomes(instance: &Instance) -> (u64, u64) {
    instance.state.outcomes().fold((0, 0), |(good, failed), (outcome, n)| match outcome {
        Outcome::Success => (good + n, failed),
        outcome if outcome.is_failure() => (good, failed + n),
        _ => (good, failed),
    })
}

/// Good requests within an interval that say as much as a probe.
const GOOD_MIN: u64 = 10;
/// With these, a probe goes out every fourth interval.
const RESTS_MAX: u32 = 3;

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::model::{Address, InstanceId, InstanceSpec, Lifecycle, Origin, ServicePolicy};
    use crate::pool::{InstanceState, Moment, Pool, ServiceStats, Standing};
    use std::time::{Duration, SystemTime};

    pub fn instance(service: &str, id: &str, spec: InstanceSpec, generation: u64) -> Instance {
        let (addr, lifecycle) = (spec.address.socket_addr(), spec.lifecycle);
        Instance {
            service: ServiceName::parse(service).unwrap(),
            id: InstanceId::parse(id).unwrap(),
            origin: Origin::Registry,
            standing: Standing {
                addr,
                refused: None,
                weight: spec.weight,
                lifecycle,
                overridden: false,
                limbo: None,
                revision: 1,
            },
            spec: Arc::new(spec),
            state: Arc::new(InstanceState::new(generation, SystemTime::UNIX_EPOCH, Moment::from_millis(1))),
        }
    }

    fn at(address: &str, generation: u64) -> Arc<Instance> {
        let (id, address) = address.split_once('=').unwrap();
        Arc::new(instance("app", id, InstanceSpec::at(Address::parse(address).unwrap()), generation))
    }

    fn service(name: &str, policy: &Arc<ServicePolicy>, instances: &[&Arc<Instance>]) -> Arc<Service> {
        let all = instances.iter().map(|i| (*i).clone()).collect();
        let name = ServiceName::parse(name).unwrap();
        Arc::new(Service::new(name, policy.clone(), Pool::new(all), Arc::new(ServiceStats::default())))
    }

    /// Follows and answers with how many subjects began, ended, are there.
    fn follow(subjects: &mut Subjects, service: &Arc<Service>) -> (usize, usize, usize) {
        let changes = subjects.follow(&service.name, Some(service.clone()));
        (changes.begun.len(), changes.ended.len(), subjects.all.len())
    }

    #[test]
    fn only_what_changed_begins_and_ends() {
        let (mut subjects, policy) = (Subjects::default(), Arc::default());
        let [a, b, c] = [("a=10.0.0.1:80", 1), ("b=10.0.0.2:80", 2), ("c=10.0.0.3:80", 3)].map(|(i, g)| at(i, g));
        assert_eq!(follow(&mut subjects, &service("app", &policy, &[&a, &b])), (2, 0, 2));
        assert_eq!(follow(&mut subjects, &service("app", &policy, &[&a, &b, &c])), (1, 0, 3));
        assert_eq!(follow(&mut subjects, &service("app", &policy, &[&b, &c])), (0, 1, 2));
        let heavier = Arc::new(Instance { standing: Standing { weight: 7, ..b.standing }, ..Instance::clone(&b) });
        assert_eq!(follow(&mut subjects, &service("app", &policy, &[&heavier, &c])), (0, 0, 2), "a weight is no other check");
        let in_repair = Standing { lifecycle: Lifecycle::Maintenance, ..b.standing };
        let out = Arc::new(Instance { standing: in_repair, ..Instance::clone(&b) });
        assert_eq!(follow(&mut subjects, &service("app", &policy, &[&out, &c])), (0, 1, 1));
        let changes = subjects.follow(&ServiceName::parse("app").unwrap(), None);
        assert_eq!((changes.ended.len(), subjects.all.len(), subjects.by_key.len()), (1, 0, 0));
    }

    #[test]
    fn another_policy_is_another_check_and_an_equal_one_is_not() {
        let (mut subjects, a) = (Subjects::default(), at("a=10.0.0.1:80", 1));
        assert_eq!(follow(&mut subjects, &service("app", &Arc::default(), &[&a])), (1, 0, 1));
        assert_eq!(follow(&mut subjects, &service("app", &Arc::default(), &[&a])), (0, 0, 1));
        let mut other = ServicePolicy::default();
        other.probe.interval = Duration::from_secs(9);
        assert_eq!(follow(&mut subjects, &service("app", &Arc::new(other), &[&a])), (1, 1, 1));
    }

    #[test]
    fn services_that_share_an_address_share_the_probe_and_hear_what_is_known() {
        let (mut subjects, policy) = (Subjects::default(), Arc::default());
        let [a, b] = [at("a=10.0.0.1:80", 1), at("b=10.0.0.1:80", 2)];
        assert_eq!(follow(&mut subjects, &service("one", &policy, &[&a])), (1, 0, 1));
        subjects.all.get_mut(&0).unwrap().judge = Judge::resuming(Verdict::Up);
        let other = service("two", &policy, &[&b]);
        let changes = subjects.follow(&other.name, Some(other.clone()));
        assert_eq!((changes.begun.len(), subjects.all.len()), (0, 1));
        let [Joined { instance, verdict: Verdict::Up, is_reachable: true }] = &changes.joined[..] else { panic!("{changes:?}") };
        assert!(Arc::ptr_eq(instance, &b));
        assert_eq!(follow(&mut subjects, &service("one", &policy, &[])), (0, 0, 1), "the other still wants it");
        assert_eq!(follow(&mut subjects, &service("two", &policy, &[])), (0, 1, 0));
    }

    #[test]
    fn who_joins_an_address_that_refuses_connections_hears_of_that_too() {
        let (mut subjects, policy) = (Subjects::default(), Arc::default());
        let [a, b] = [at("a=10.0.0.1:80", 1), at("b=10.0.0.1:80", 2)];
        follow(&mut subjects, &service("one", &policy, &[&a]));
        let subject = subjects.all.get_mut(&0).unwrap();
        (subject.judge, subject.is_reachable) = (Judge::resuming(Verdict::Down), false);
        let other = service("two", &policy, &[&b]);
        let changes = subjects.follow(&other.name, Some(other.clone()));
        assert!(matches!(changes.joined[..], [Joined { verdict: Verdict::Down, is_reachable: false, .. }]), "{changes:?}");
    }

    #[test]
    fn who_comes_back_goes_on_with_its_verdict() {
        let (mut subjects, a) = (Subjects::default(), at("a=10.0.0.1:80", 1));
        let app = service("app", &Arc::default(), &[&a]);
        app.settle(&a, Verdict::Down, true, "status 500", Moment::from_millis(5));
        follow(&mut subjects, &app);
        assert_eq!(subjects.all[&0].judge.verdict(), Verdict::Down);
    }

    #[test]
    fn good_traffic_lets_three_of_four_probes_rest_and_a_failure_none() {
        let (mut subjects, a) = (Subjects::default(), at("a=10.0.0.1:80", 1));
        follow(&mut subjects, &service("app", &Arc::default(), &[&a]));
        let subject = subjects.all.get_mut(&0).unwrap();
        let mut rests = |n_good: u64, failures: &[Outcome]| {
            (0..n_good).for_each(|_| a.state.count(Outcome::Success, None));
            failures.iter().for_each(|failure| a.state.count(*failure, None));
            subject.may_rest()
        };
        assert!(!rests(100, &[]), "nothing is proven yet");
        subject.judge = Judge::resuming(Verdict::Up);
        let mut rests = |n_good: u64, failures: &[Outcome]| {
            (0..n_good).for_each(|_| a.state.count(Outcome::Success, None));
            failures.iter().for_each(|failure| a.state.count(*failure, None));
            subject.may_rest()
        };
        assert_eq!([(); 9].map(|()| rests(10, &[])), [true, true, true, false, true, true, true, false, true]);
        assert!(!rests(9, &[]), "too little");
        assert!(!rests(100, &[Outcome::Reset]));
        assert!(rests(100, &[Outcome::ClientGone, Outcome::Overloaded]));
    }
}
