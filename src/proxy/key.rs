//! What of a request decides where it belongs, for services that pick by a key.

use std::net::IpAddr;

use super::arrival::Arrival;
use super::head::RequestHead;
use crate::model::{Balance, HashOn, ServicePolicy};
use crate::pool::Key;

/// `None`: the service does not ask for it, or the request does not carry it.
pub fn key(policy: &ServicePolicy, head: &RequestHead<'_>, arrival: &Arrival) -> Option<Key> {
    if !matches!(policy.balance, Balance::Hash | Balance::Maglev) {
        return None;
    }
    Some(match policy.hash_on.as_ref().unwrap_or(&HashOn::Client) {
        HashOn::Header(name) => Key::of(head.fields.get(name)?),
        HashOn::Cookie(name) => Key::of(head.cookie(name)?.as_bytes()),
        HashOn::Query(name) => Key::of(parameter(head.query?, name)?.as_bytes()),
        HashOn::Path => Key::of(head.path.as_bytes()),
        HashOn::Client => match arrival.client.to_canonical() {
            IpAddr::V4(ip) => Key::of(&ip.octets()),
            IpAddr::V6(ip) => Key::of(&ip.octets()),
        },
    })
}

/// The first of that name, as the client wrote it.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.split_once('=').filter(|(n, _)| *n == name).map(|(_, value)| value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ClientLimits;
    use crate::proxy::arrival::Trusted;
    use crate::proxy::head::{RawHead, Scheme};
    use http::{HeaderMap, Method, Version};

    /// The key of a request from `peer` with these fields.
    fn check(hash_on: Option<HashOn>, target: &str, fields: &[(&'static str, &str)], peer: &str) -> Option<Key> {
        let mut headers = HeaderMap::new();
        fields.iter().for_each(|(name, value)| {
            headers.append(*name, value.parse().unwrap());
        });
        headers.insert("host", "a".parse().unwrap());
        let (method, target, peer) = (&Method::GET, target.as_bytes(), peer.parse().unwrap());
        let version = Version::HTTP_11;
        let raw = RawHead { method, target, authority: None, version, fields: &headers, peer, scheme: Scheme::Http };
        let head = RequestHead::check(raw, &ClientLimits::default()).unwrap();
        let arrival = Arrival::of(peer, &headers, &Trusted::default(), &mut fastrand::Rng::with_seed(1));
        let policy = ServicePolicy { balance: Balance::Hash, hash_on, ..ServicePolicy::default() };
        key(&policy, &head, &arrival)
    }

    #[test]
    fn each_part_of_a_request_can_be_the_key() {
        let peer = "192.0.2.1:5000";
        let of = |value: &str| Some(Key::of(value.as_bytes()));
        let header = || Some(HashOn::Header("x-user".into()));
        assert_eq!(check(header(), "/", &[("x-user", "ann")], peer), of("ann"));
        assert_eq!(check(header(), "/", &[], peer), None);
        let cookie = || Some(HashOn::Cookie("id".into()));
        assert_eq!(check(cookie(), "/", &[("cookie", "idx=1; id=ann; id=bob")], peer), of("ann"));
        assert_eq!(check(cookie(), "/", &[("cookie", "a=b"), ("cookie", "id=\"ann\"")], peer), of("\"ann\""));
        assert_eq!(check(cookie(), "/", &[("cookie", "xid=1; id")], peer), None);
        let query = || Some(HashOn::Query("u".into()));
        assert_eq!(check(query(), "/x?v=1&u=ann&u=bob", &[], peer), of("ann"));
        assert_eq!(check(query(), "/x?uu=1", &[], peer), None);
        assert_eq!(check(query(), "/x", &[], peer), None);
        assert_eq!(check(Some(HashOn::Path), "/a/../b?x=1", &[], peer), of("/b"));
        let client = check(None, "/", &[], peer);
        assert_eq!(client, check(Some(HashOn::Client), "/other", &[], "[::ffff:192.0.2.1]:6000"));
        assert_ne!(client, check(None, "/", &[], "192.0.2.2:5000"));
    }

    #[test]
    fn other_ways_to_pick_need_no_key() {
        let policy = ServicePolicy { hash_on: Some(HashOn::Path), ..ServicePolicy::default() };
        let headers = HeaderMap::from_iter([(http::header::HOST, "a".parse().unwrap())]);
        let peer = "192.0.2.1:5000".parse().unwrap();
        let raw = RawHead {
            method: &Method::GET,
            target: b"/",
            authority: None,
            version: Version::HTTP_11,
            fields: &headers,
            peer,
            scheme: Scheme::Http,
        };
        let head = RequestHead::check(raw, &ClientLimits::default()).unwrap();
        let arrival = Arrival::of(peer, &headers, &Trusted::default(), &mut fastrand::Rng::with_seed(1));
        assert_eq!(key(&policy, &head, &arrival), None);
    }
}
