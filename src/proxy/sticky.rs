//! Sticky sessions: a cookie tells which instance a client has been at, and brings it back there.
//!
//! 1. Of a request's cookie we learn the instance's id, if we sealed it ourselves, for this service and this cookie.
//! 2. The first attempt goes there if the instance can take it, or has just begun to drain; else somewhere else.
//! 3. When another instance answers than the one the client named, the answer sets the cookie anew.
//!
//! The id is sealed with ChaCha20-Poly1305: who has the cookie neither learns an id, which may be an address, nor can
//! name an instance of its choice. The nonce is made of what is sealed, so one instance has one cookie on every proxy.

use std::fmt::Write;

use http::HeaderValue;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;

use super::arrival::Arrival;
use super::head::{RequestHead, Scheme};
use crate::model::{InstanceId, Secret, ServiceName, StickyPolicy};

/// What of a request's session concerns its cookie.
#[derive(Debug)]
pub struct Sticky {
    policy: StickyPolicy,
    seal: Seal,
    /// Where the client says it has been, and it is true.
    held: Option<InstanceId>,
    /// The client speaks TLS, to us or to a trusted proxy before us.
    secure: bool,
}

impl Sticky {
    pub fn of(
        policy: &StickyPolicy,
        service: &ServiceName,
        secret: &Secret,
        head: &RequestHead<'_>,
        arrival: &Arrival,
    ) -> Option<Self> {
        let seal = Seal::new(secret, service, &policy.cookie)?;
        let held = head.cookie(&policy.cookie).and_then(|value| seal.open(value));
        let tells_https = || head.fields.get("x-forwarded-proto").is_some_and(|v| v.eq_ignore_ascii_case(b"https"));
        let secure = head.scheme == Scheme::Https || (arrival.trusted && tells_https());
        Some(Self { policy: policy.clone(), seal, held, secure })
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
        let mut cookie = format!("{}={}; Path=/; HttpOnly; SameSite=Lax", self.policy.cookie, self.seal.close(answered)?);
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

/// Seals ids for one cookie of one service.
struct Seal {
    key: LessSafeKey,
    root: hmac::Key,
    /// Authenticated with every id, so that a cookie is good nowhere else.
    place: Vec<u8>,
}

impl Seal {
    fn new(secret: &Secret, service: &ServiceName, cookie: &str) -> Option<Self> {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
        let key = UnboundKey::new(&CHACHA20_POLY1305, hmac::sign(&root, b"pointsman sticky 1: key").as_ref()).ok()?;
        // Neither name holds a slash.
        let place = [service.as_str().as_bytes(), b"/", cookie.as_bytes()].concat();
        Some(Self { key: LessSafeKey::new(key), root, place })
    }

    /// Nonce and sealed id in hexadecimal.
    fn close(&self, id: &InstanceId) -> Option<String> {
        let mut context = hmac::Context::with_key(&self.root);
        [b"pointsman sticky 1: nonce", &self.place[..], b"/", id.as_str().as_bytes()]
            .iter()
            .for_each(|part| context.update(part));
        let nonce: [u8; NONCE_LEN] = context.sign().as_ref()[..NONCE_LEN].try_into().ok()?;
        let mut sealed = id.as_str().as_bytes().to_vec();
        let (nonce, shown) = (Nonce::assume_unique_for_key(nonce), nonce);
        self.key.seal_in_place_append_tag(nonce, Aad::from(&self.place), &mut sealed).ok()?;
        Some(shown.iter().chain(&sealed).fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        }))
    }

    /// `None` for whatever was not sealed here.
    fn open(&self, cookie: &str) -> Option<InstanceId> {
        let digits = cookie.as_bytes();
        if digits.len() > COOKIE_LENGTH_MAX || !digits.len().is_multiple_of(2) {
            return None;
        }
        let digit = |d: u8| char::from(d).to_digit(16).map(|d| d as u8);
        let byte = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
        let mut bytes: Vec<u8> = digits.chunks_exact(2).map(byte).collect::<Option<_>>()?;
        let (nonce, sealed) = bytes.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let id = self.key.open_in_place(nonce, Aad::from(&self.place), sealed).ok()?;
        InstanceId::parse(std::str::from_utf8(id).ok()?).ok()
    }
}

impl std::fmt::Debug for Seal {
    /// Keys never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

/// Of the longest id, in hexadecimal with its nonce and tag; whatever is longer is none of ours.
const COOKIE_LENGTH_MAX: usize = 2 * (NONCE_LEN + 128 + 16);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ClientLimits, Network};
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
        Sticky::of(&policy, &ServiceName::parse(service).unwrap(), &Secret::new(secret), &head, &arrival).unwrap()
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
