//! Sticky sessions: a cookie tells which instance a client has been at, and brings it back there.
//!
//! 1. Of a request's cookie we learn the instance's id, if we sealed it ourselves, for this service and this cookie.
//! 2. The first attempt goes there if the instance can take it, or has just begun to drain; else somewhere else.
//! 3. When another instance answers than the one the client named, the answer sets the cookie anew.
//!
//! The id is sealed (`crate::seal`), and a cookie is good for the service and the name it was made for alone.

use std::fmt::Write;
use std::sync::Arc;

use http::HeaderValue;

use super::arrival::Arrival;
use super::head::{RequestHead, Scheme};
use crate::model::{InstanceId, ServiceName, StickyPolicy};
use crate::seal::Seal;

/// What of a request's session concerns its cookie.
#[derive(Debug)]
pub struct Sticky {
    policy: StickyPolicy,
    seal: Arc<Seal>,
    /// What is sealed with the id, so that a cookie is good nowhere else.
    place: String,
    /// Where the client says it has been, and it is true.
    held: Option<InstanceId>,
    /// The client speaks TLS, to us or to a trusted proxy before us.
    secure: bool,
}

impl Sticky {
    pub fn of(policy: &StickyPolicy, service: &ServiceName, seal: &Arc<Seal>, head: &RequestHead<'_>, arrival: &Arrival) -> Self {
        // Neither name holds a slash.
        let place = format!("{service}/{}", policy.cookie);
        let held = head.cookie(&policy.cookie).and_then(|value| InstanceId::parse(&seal.open(value, &place)?).ok());
        let tells_https = || head.fields.get("x-forwarded-proto").is_some_and(|v| v.eq_ignore_ascii_case(b"https"));
        let secure = head.scheme == Scheme::Https || (arrival.trusted && tells_https());
        Self { policy: policy.clone(), seal: seal.clone(), place, held, secure }
    }

    /// Where the request should go.
    pub fn instance(&self) -> Option<&InstanceId> {
        self.held.as_ref()
    }

    /// The value of `Set-Cookie`, if this instance's answer needs one.
    pub fn cookie(&self, answered: &InstanceId) -> Option<HeaderValue> {
        if self.held.as_ref() == Some(answered) {
            return None;
        }
        let sealed = self.seal.close(answered.as_str(), &self.place)?;
        let mut cookie = format!("{}={sealed}; Path=/; HttpOnly; SameSite=Lax", self.policy.cookie);
        if self.secure {
            cookie.push_str("; Secure");
        }
        if let Some(ttl) = self.policy.ttl {
            // A fraction would be none; 0 would delete it.
            let _ = write!(cookie, "; Max-Age={}", ttl.as_secs().max(1));
        }
        HeaderValue::try_from(cookie).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ClientLimits, Network};
    use crate::model::Secret;
    use crate::proxy::arrival::Trusted;
    use crate::proxy::head::RawHead;
    use http::{HeaderMap, Method, Version};
    use std::time::Duration;

    fn id(text: &str) -> InstanceId {
        InstanceId::parse(text).unwrap()
    }

    /// The session of a request with these fields, from an address that is trusted.
    fn session(secret: &str, service: &str, fields: &[(&'static str, &str)], ttl: Option<Duration>) -> Sticky {
        let mut headers = HeaderMap::from_iter([(http::header::HOST, "a".parse().unwrap())]);
        fields.iter().for_each(|(name, value)| {
            headers.append(*name, value.parse().unwrap());
        });
        let peer = "192.0.2.1:5000".parse().unwrap();
        let (method, version) = (&Method::GET, Version::HTTP_11);
        let raw = RawHead { method, target: b"/", authority: None, version, fields: &headers, peer, scheme: Scheme::Http };
        let head = RequestHead::check(raw, &ClientLimits::default()).unwrap();
        let trusted = Trusted::new(&[Network { address: peer.ip(), prefix: 32 }]);
        let arrival = Arrival::of(peer, &headers, &trusted, &mut fastrand::Rng::with_seed(1));
        let policy = StickyPolicy { cookie: "at".into(), ttl };
        let seal = Arc::new(Seal::new(&Secret::new(secret)).unwrap());
        Sticky::of(&policy, &ServiceName::parse(service).unwrap(), &seal, &head, &arrival)
    }

    /// The value of the cookie that an answer of this instance sets.
    fn value(instance: &str) -> String {
        let cookie = session("secret", "shop", &[], None).cookie(&id(instance)).unwrap();
        let (pair, _) = cookie.to_str().unwrap().split_once(';').unwrap();
        pair.strip_prefix("at=").unwrap().to_owned()
    }

    fn held(secret: &str, service: &str, value: &str) -> Option<InstanceId> {
        session(secret, service, &[("cookie", &format!("x=1; at={value}; y=2"))], None).held
    }

    #[test]
    fn a_cookie_comes_back_as_the_instance_it_names() {
        let longest = "x".repeat(128);
        for instance in ["a", "10.0.0.5:8080", &longest] {
            let value = value(instance);
            assert_eq!(held("secret", "shop", &value), Some(id(instance)));
            assert!(!value.contains(instance) || instance == "a", "the id shows: {value}");
        }
        assert_eq!(value("a"), value("a"), "every proxy makes the same one");
    }

    #[test]
    fn what_was_not_sealed_for_this_service_names_nobody() {
        let value = value("a1");
        assert_eq!(held("another secret", "shop", &value), None);
        assert_eq!(held("secret", "orders", &value), None);
        for n in 0..value.len() {
            let mut tampered = value.clone().into_bytes();
            tampered[n] = if tampered[n] == b'0' { b'1' } else { b'0' };
            assert_eq!(held("secret", "shop", &String::from_utf8(tampered).unwrap()), None, "digit {n} changed");
        }
        for odd in ["", "a1", "zz", "0", &value[2..], &value[..24], &"0".repeat(400), "\"a1\""] {
            assert_eq!(held("secret", "shop", odd), None, "{odd}");
        }
    }

    #[test]
    fn it_is_set_only_when_it_changes_and_kept_from_scripts_and_strangers() {
        let mine = format!("at={}", value("a1"));
        let session = |fields: &[(&'static str, &str)], ttl| session("secret", "shop", fields, ttl);
        assert_eq!(session(&[("cookie", &mine)], None).cookie(&id("a1")), None);
        let changed = session(&[("cookie", &mine)], None).cookie(&id("a2")).unwrap();
        assert_eq!(changed, format!("at={}; Path=/; HttpOnly; SameSite=Lax", value("a2")));
        let hour = Some(Duration::from_secs(3600));
        let secure = session(&[("x-forwarded-proto", "https")], hour).cookie(&id("a2")).unwrap();
        assert_eq!(secure, format!("at={}; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=3600", value("a2")));
    }
}
