//! What is tried again, where, and what not.

use super::*;
use crate::catalog::{Catalog, Live};
use crate::config::ClientLimits;
use crate::model::{Address, Change, Event, InstanceId, InstanceSpec, Origin, RouteName, RouteSpec, ServiceName};
use crate::proxy::arrival::Trusted;
use crate::proxy::head::{RawHead, Scheme};
use crate::proxy::route::route;
use std::time::SystemTime;

/// A request on its way to a service of so many instances.
fn forwarding(instances: usize, method: &Method, earlier: Option<&str>) -> Forwarding {
    let service = ServiceName::parse("api").unwrap();
    let name = RouteName::parse("all").unwrap();
    let spec = RouteSpec::to(name.clone(), service.clone());
    let mut changes = vec![Change::Route { name, route: Some(Box::new(spec)) }];
    changes.extend((0..instances).map(|n| Change::Instance {
        service: service.clone(),
        id: InstanceId::parse(&format!("i{n}")).unwrap(),
        spec: InstanceSpec::at(Address::parse(&format!("10.0.0.{n}:80")).unwrap()),
    }));
    let live = Arc::new(Live::default());
    let event = Event { origin: Origin::Registry, revision: 7, changes };
    Catalog::new(live.clone(), Arc::default()).apply(vec![event], vec![], Instant::now(), SystemTime::now());

    let mut headers = http::HeaderMap::new();
    headers.insert("host", "a".parse().unwrap());
    earlier.map(|n| headers.insert(ATTEMPT_FIELD, n.parse().unwrap()));
    let peer = "192.0.2.1:5000".parse().unwrap();
    let version = http::Version::HTTP_11;
    let raw = RawHead { method, target: b"/", authority: None, version, fields: &headers, peer, scheme: Scheme::Http };
    let head = RequestHead::check(raw, &ClientLimits::default()).unwrap();
    let arrival = Arrival::of(peer, &headers, &Trusted::default(), &mut fastrand::Rng::with_seed(1));
    route(&live.load(), &head, &arrival).unwrap()
}

fn begin<'a>(forwarding: &'a mut Forwarding, rng: &mut fastrand::Rng) -> &'a Attempt {
    forwarding.begin_attempt(rng).unwrap();
    forwarding.current().unwrap()
}

fn progress(method: &Method) -> Progress<'_> {
    Progress { method, body_read: 0, body_lost: false, answered: false }
}

/// Whether such a failure of the first of so many instances is followed by a further attempt.
fn check(instances: usize, method: Method, failure: Failure, reused: bool) -> bool {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut forwarding = forwarding(instances, &method, None);
    let first = begin(&mut forwarding, &mut rng).instance().id.clone();
    if !matches!(failure, Failure::Refused | Failure::ConnectTimeout) {
        forwarding.connected(reused);
    }
    match forwarding.fail_attempt(failure, progress(&method), &mut rng) {
        Next::GiveUp(refusal) => {
            assert_eq!(refusal, Refusal::Upstream(failure));
            false
        }
        Next::Retry { .. } => {
            let second = begin(&mut forwarding, &mut rng);
            assert_eq!(second.wants_fresh, second.instance().id == first, "again only on a fresh connection");
            true
        }
    }
}

#[test]
fn what_is_tried_again_and_what_is_not() {
    use Failure::*;
    for (failure, get, post) in [
        (Refused, true, true),
        (ConnectTimeout, true, true),
        (NotProcessed, true, true),
        (Reset, true, false),
        (Timeout, true, false),
        (Status(503), true, false),
        (Invalid, false, false),
    ] {
        assert_eq!((check(2, Method::GET, failure, false), check(2, Method::POST, failure, false)), (get, post), "{failure:?}");
        assert!(!check(1, Method::GET, failure, false), "{failure:?}: there is no other instance");
    }
    for method in [Method::GET, Method::POST] {
        assert!(check(1, method.clone(), Reset, true), "a pooled connection that died says nothing");
    }
}

#[test]
fn a_stale_connection_is_forgiven_once() {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut forwarding = forwarding(1, &Method::POST, None);
    forwarding.begin_attempt(&mut rng).unwrap();
    forwarding.connected(true);
    let again = forwarding.fail_attempt(Failure::Reset, progress(&Method::POST), &mut rng);
    assert_eq!((again, forwarding.number()), (Next::Retry { pause: Duration::ZERO }, 1));
    forwarding.begin_attempt(&mut rng).unwrap();
    forwarding.connected(false);
    let end = forwarding.fail_attempt(Failure::Reset, progress(&Method::POST), &mut rng);
    assert_eq!(end, Next::GiveUp(Refusal::Upstream(Failure::Reset)));
    assert_eq!(forwarding.attempts.len(), 2);
}

#[test]
fn nothing_is_sent_twice_that_cannot_be() {
    let get = Method::GET;
    for (progress, earlier) in [
        (Progress { answered: true, ..progress(&get) }, None),
        (Progress { body_lost: true, ..progress(&get) }, None),
        (Progress { body_read: 64 * 1024 + 1, ..progress(&get) }, None),
        (progress(&get), Some("2")),
    ] {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut forwarding = forwarding(2, &get, earlier);
        forwarding.begin_attempt(&mut rng).unwrap();
        assert!(
            matches!(forwarding.fail_attempt(Failure::Refused, progress, &mut rng), Next::GiveUp(_)),
            "{progress:?} {earlier:?}"
        );
    }
}

#[test]
fn an_attempt_that_is_dropped_is_given_back() {
    let mut forwarding = forwarding(1, &Method::GET, None);
    let instance = begin(&mut forwarding, &mut fastrand::Rng::new()).instance().clone();
    assert_eq!(instance.state.in_flight(), 1);
    drop(forwarding);
    assert_eq!(instance.state.in_flight(), 0);
    let gone = instance.state.outcomes().find(|(outcome, _)| *outcome == Outcome::ClientGone);
    assert_eq!(gone.map(|(_, n)| n), Some(1));
}
