//! What we change in a request that is forwarded, and in the response that comes back.

use std::net::IpAddr;

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE, VIA};
use http::{HeaderMap, StatusCode, Version};

use super::arrival::{Arrival, REQUEST_ID};
use super::attempt::ATTEMPT_FIELD;
use super::head::{RequestHead, Scheme};

/// The fields of a message, in whatever form an engine keeps them.
pub trait Fields {
    fn map(&self) -> &HeaderMap;
    /// Replaces every field of that name.
    fn set(&mut self, name: HeaderName, value: HeaderValue);
    fn remove(&mut self, name: &HeaderName);
}

impl Fields for HeaderMap {
    fn map(&self) -> &HeaderMap {
        self
    }

    fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.insert(name, value);
    }

    fn remove(&mut self, name: &HeaderName) {
        self.remove(name);
    }
}

/// What a request says of itself downstream, kept while its own fields are rewritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub scheme: Scheme,
    /// As the client wrote it; becomes X-Forwarded-Host.
    pub authority: String,
    pub version: Version,
}

impl Origin {
    pub fn of(head: &RequestHead<'_>) -> Self {
        Self { scheme: head.scheme, authority: head.authority.to_owned(), version: head.version }
    }
}

/// Everything but the framing, which is the engine's. `number`: which attempt this is, counted from 1.
pub fn rewrite_request(fields: &mut impl Fields, arrival: &Arrival, origin: &Origin, number: usize) {
    drop_hop_by_hop(fields);
    keep_te_trailers(fields);
    forwarded(fields, arrival, origin);
    set(fields, HeaderName::from_static(REQUEST_ID), &arrival.request_id);
    set(fields, HeaderName::from_static("traceparent"), &arrival.trace.to_string());
    if !arrival.trace.continued {
        fields.remove(&HeaderName::from_static("tracestate"));
    }
    fields.set(HeaderName::from_static(ATTEMPT_FIELD), HeaderValue::from(number));
    fields.remove(&HeaderName::from_static("x-pointsman-debug"));
    append(fields, VIA, via(origin.version));
    join_cookies(fields);
}

/// `status`: of the response these fields belong to.
pub fn rewrite_response(fields: &mut impl Fields, status: StatusCode, version: Version) {
    let upgrade = fields.map().get(UPGRADE).filter(|_| status == StatusCode::UPGRADE_REQUIRED).cloned();
    drop_hop_by_hop(fields);
    if let Some(upgrade) = upgrade {
        fields.set(UPGRADE, upgrade);
    }
    if status == StatusCode::NO_CONTENT {
        // RFC 9110 §8.6: a body that must not be there has no length.
        fields.remove(&CONTENT_LENGTH);
    }
    append(fields, VIA, via(version));
}

/// An upgrade is hop by hop too, so asking for it is our own request.
pub fn ask_upgrade(fields: &mut impl Fields, protocol: HeaderValue) {
    fields.set(CONNECTION, HeaderValue::from_static("upgrade"));
    fields.set(UPGRADE, protocol);
}

/// The fields that belong to one connection, and those that `Connection` names (RFC 9110 §7.6.1).
/// Transfer-Encoding is left to the engine, which frames the body.
fn drop_hop_by_hop(fields: &mut impl Fields) {
    if fields.map().contains_key(CONNECTION) {
        let options: Vec<HeaderName> = fields
            .map()
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|option| HeaderName::try_from(option.trim()).ok())
            .filter(|name| !PROTECTED.contains(name))
            .collect();
        options.iter().for_each(|name| fields.remove(name));
        fields.remove(&CONNECTION);
    }
    for name in HOP_BY_HOP {
        fields.remove(&name);
    }
}

fn keep_te_trailers(fields: &mut impl Fields) {
    let Some(te) = fields.map().get(TE) else { return };
    // gRPC needs it; every other coding would be between the client and us.
    let trailers = te.to_str().is_ok_and(|te| te.split(',').any(|t| t.trim().eq_ignore_ascii_case("trailers")));
    if trailers {
        fields.set(TE, HeaderValue::from_static("trailers"));
    } else {
        fields.remove(&TE);
    }
}

fn forwarded(fields: &mut impl Fields, arrival: &Arrival, origin: &Origin) {
    if !arrival.trusted {
        OF_PROXIES.into_iter().for_each(|name| fields.remove(&name));
    }
    // CGI and its heirs read `X_Forwarded_For` as the field with dashes.
    let twins: Vec<HeaderName> = fields.map().keys().filter(|name| is_twin(name)).cloned().collect();
    twins.iter().for_each(|name| fields.remove(name));

    let peer = arrival.peer.ip().to_canonical();
    append(fields, X_FORWARDED_FOR, &peer.to_string());
    if !fields.map().contains_key(X_FORWARDED_PROTO) {
        fields.set(X_FORWARDED_PROTO, HeaderValue::from_static(origin.scheme.as_str()));
    }
    if !fields.map().contains_key(X_FORWARDED_HOST) && !origin.authority.is_empty() {
        set(fields, X_FORWARDED_HOST, &origin.authority);
    }
    if fields.map().contains_key(FORWARDED) {
        append(fields, FORWARDED, &forwarded_element(peer, origin));
    }
}

/// RFC 7239, only where a trusted proxy has begun it.
fn forwarded_element(peer: IpAddr, origin: &Origin) -> String {
    let scheme = origin.scheme.as_str();
    match peer {
        IpAddr::V4(peer) => format!("for={peer};proto={scheme};host=\"{}\"", origin.authority),
        IpAddr::V6(peer) => format!("for=\"[{peer}]\";proto={scheme};host=\"{}\"", origin.authority),
    }
}

/// RFC 9113 §8.2.3: an HTTP/2 client may split its cookies, HTTP/1.1 knows one field.
fn join_cookies(fields: &mut impl Fields) {
    let mut cookies = fields.map().get_all(COOKIE).iter();
    if let (Some(first), Some(second)) = (cookies.next(), cookies.next()) {
        let all: Vec<&[u8]> = [first, second].into_iter().chain(cookies).map(HeaderValue::as_bytes).collect();
        if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
            fields.set(COOKIE, joined);
        }
    }
}

/// One field with all the values, ours last.
fn append(fields: &mut impl Fields, name: HeaderName, value: &str) {
    let mut all: Vec<&[u8]> = fields.map().get_all(&name).iter().map(HeaderValue::as_bytes).collect();
    if all.is_empty() {
        return set(fields, name, value);
    }
    all.push(value.as_bytes());
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b", "[..])) {
        fields.set(name, joined);
    }
}

fn set(fields: &mut impl Fields, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        fields.set(name, value);
    }
}

fn is_twin(name: &HeaderName) -> bool {
    name.as_str().contains('_') && {
        let dashed = name.as_str().replace('_', "-");
        OF_PROXIES.iter().any(|n| n.as_str() == dashed) || dashed == REQUEST_ID
    }
}

fn via(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 | Version::HTTP_10 => "1.0 pointsman",
        Version::HTTP_11 => "1.1 pointsman",
        _ => "2 pointsman",
    }
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");

/// What only a trusted proxy may say.
const OF_PROXIES: [HeaderName; 7] = [
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    X_FORWARDED_HOST,
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-real-ip"),
    FORWARDED,
];

const HOP_BY_HOP: [HeaderName; 4] = [
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// `Connection` cannot take these away from the next hop, whatever it names.
const PROTECTED: [HeaderName; 6] = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, TE, X_FORWARDED_FOR, FORWARDED];

#[cfg(test)]
mod tests {
    use super::super::arrival::Trusted;
    use super::*;
    use crate::config::Network;

    fn request(trusted: bool, fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        fields.iter().for_each(|(n, v)| {
            map.append(*n, HeaderValue::from_static(v));
        });
        let networks = [Network { address: [10, 0, 0, 1].into(), prefix: if trusted { 32 } else { 0 } }];
        let networks = if trusted { &networks[..] } else { &[] };
        let peer = "10.0.0.1:4000".parse().unwrap();
        let arrival = Arrival::of(peer, &map, &Trusted::new(networks), &mut fastrand::Rng::with_seed(1));
        let origin = Origin { scheme: Scheme::Http, authority: "shop.example:8080".into(), version: Version::HTTP_11 };
        rewrite_request(&mut map, &arrival, &origin, 1);
        map
    }

    fn values(map: &HeaderMap, name: &str) -> Vec<String> {
        map.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_stranger_cannot_say_who_it_is() {
        let map = request(
            false,
            &[
                ("x-forwarded-for", "6.6.6.6"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "evil"),
                ("x-real-ip", "6.6.6.6"),
                ("forwarded", "for=6.6.6.6"),
                ("x_forwarded_for", "6.6.6.6"),
            ],
        );
        assert_eq!(values(&map, "x-forwarded-for"), ["10.0.0.1"]);
        assert_eq!(values(&map, "x-forwarded-proto"), ["http"]);
        assert_eq!(values(&map, "x-forwarded-host"), ["shop.example:8080"]);
        for gone in ["x-real-ip", "forwarded", "x_forwarded_for"] {
            assert!(!map.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_added_to() {
        let fields = [
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=1.2.3.4"),
            ("x-request-id", "r1"),
        ];
        let map = request(true, &fields);
        assert_eq!(values(&map, "x-forwarded-for"), ["1.2.3.4, 10.0.0.1"]);
        assert_eq!(values(&map, "x-forwarded-proto"), ["https"]);
        assert_eq!(values(&map, "forwarded"), ["for=1.2.3.4, for=10.0.0.1;proto=http;host=\"shop.example:8080\""]);
        assert_eq!(values(&map, "x-request-id"), ["r1"]);
    }

    #[test]
    fn what_belongs_to_one_connection_ends_with_it() {
        let map = request(
            false,
            &[
                ("connection", "close, X-Private, Host"),
                ("x-private", "1"),
                ("host", "shop.example"),
                ("keep-alive", "timeout=5"),
                ("te", "gzip, trailers"),
                ("upgrade", "h2c"),
                ("http2-settings", "AAA"),
                ("cookie", "a=1"),
                ("cookie", "b=2"),
                ("via", "1.1 cdn"),
            ],
        );
        for gone in ["connection", "x-private", "keep-alive", "upgrade", "http2-settings"] {
            assert!(!map.contains_key(gone), "{gone}");
        }
        assert_eq!(values(&map, "te"), ["trailers"]);
        assert_eq!(values(&map, "cookie"), ["a=1; b=2"]);
        assert_eq!(values(&map, "via"), ["1.1 cdn, 1.1 pointsman"]);
        assert_eq!(values(&map, "host"), ["shop.example"]);
        assert_eq!(values(&map, "x-pointsman-attempt"), ["1"]);
    }

    #[test]
    fn responses_lose_their_hop_by_hop_fields_too() {
        let mut map = HeaderMap::new();
        for (name, value) in
            [("connection", "x-inner"), ("x-inner", "1"), ("keep-alive", "5"), ("content-length", "0"), ("upgrade", "h2")]
        {
            map.insert(name, HeaderValue::from_static(value));
        }
        rewrite_response(&mut map, StatusCode::NO_CONTENT, Version::HTTP_11);
        assert_eq!(map.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["via"]);
    }
}
