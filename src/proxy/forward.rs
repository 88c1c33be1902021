//! What we change in a request that is forwarded, and in the response that comes back.

use std::borrow::Cow;
use std::net::IpAddr;

use http::{StatusCode, Version};

use super::arrival::{Arrival, REQUEST_ID};
use super::attempt::ATTEMPT_FIELD;
use super::head::{RequestHead, Scheme};
use crate::model::{CERTIFICATE_FIELDS, CERTIFICATE_FINGERPRINT, CERTIFICATE_SUBJECT};
use crate::routing::{Fields, all, text};

/// Fields that can be changed. Names are in lower case.
pub trait FieldsMut: Fields {
    /// Replaces every field of that name.
    fn set(&mut self, name: &'static str, value: &[u8]);
    fn remove(&mut self, name: &str);
}

/// What a request says of itself downstream, kept while its own fields are rewritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin<'a> {
    pub scheme: Scheme,
    /// As the client wrote it; becomes X-Forwarded-Host.
    pub authority: Cow<'a, str>,
    pub version: Version,
}

impl<'a> Origin<'a> {
    pub fn of(head: &RequestHead<'a>) -> Self {
        Self { scheme: head.scheme, authority: Cow::Borrowed(head.authority), version: head.version }
    }

    /// For whoever keeps it longer than the head.
    pub fn into_owned(self) -> Origin<'static> {
        Origin { authority: Cow::Owned(self.authority.into_owned()), ..self }
    }
}

/// Everything but the framing, which is the engine's. `number`: which attempt this is, counted from 1.
pub fn rewrite_request(fields: &mut impl FieldsMut, arrival: &Arrival, origin: &Origin<'_>, number: usize) {
    plain_request(fields, origin);
    forwarded(fields, arrival, origin);
    certified(fields, arrival);
    fields.set(REQUEST_ID, arrival.request_id.as_bytes());
    fields.set("traceparent", &arrival.trace.field());
    if !arrival.trace.continued {
        fields.remove("tracestate");
    }
    match number {
        1 => fields.set(ATTEMPT_FIELD, b"1"),
        _ => fields.set(ATTEMPT_FIELD, number.to_string().as_bytes()),
    }
    fields.remove("x-pointsman-debug");
    append(fields, "via", via(origin.version).as_bytes());
    join_cookies(fields);
}

/// Nothing of the client's connection, and what there is said in one way.
pub fn plain_request(fields: &mut impl FieldsMut, origin: &Origin<'_>) {
    drop_hop_by_hop(fields);
    // We tell the client to go on ourselves.
    fields.remove("expect");
    keep_te_trailers(fields);
    plain_length(fields);
    if origin.version < Version::HTTP_11 && fields.get("host").is_none_or(<[u8]>::is_empty) {
        fields.set("host", origin.authority.as_bytes());
    }
}

/// `status`: of the response these fields belong to.
pub fn rewrite_response(fields: &mut impl FieldsMut, status: StatusCode, version: Version) {
    let upgrade = fields.get("upgrade").filter(|_| status == StatusCode::UPGRADE_REQUIRED).map(<[u8]>::to_vec);
    drop_hop_by_hop(fields);
    if let Some(upgrade) = upgrade {
        fields.set("upgrade", &upgrade);
    }
    if status == StatusCode::NO_CONTENT {
        // RFC 9110 §8.6: a body that must not be there has no length.
        fields.remove("content-length");
    }
    plain_length(fields);
    append(fields, "via", via(version).as_bytes());
}

/// Tells browsers to come over TLS from now on, unless the instance has said so itself.
pub fn stay_secure(fields: &mut impl FieldsMut, hsts: Option<&str>) {
    if let Some(hsts) = hsts.filter(|_| fields.get(HSTS).is_none()) {
        fields.set(HSTS, hsts.as_bytes());
    }
}

/// Whether a field may come behind a body too: none that says where messages end, where they go, or who sends them.
pub fn may_trail(name: &str) -> bool {
    let never = |names: &[&str]| names.iter().any(|n| name.eq_ignore_ascii_case(n));
    let ours = name.get(..OUR_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(OUR_PREFIX));
    !(ours
        || is_twin(name)
        || never(&PROTECTED)
        || never(&HOP_BY_HOP)
        || never(&OF_PROXIES)
        || never(&CERTIFICATE_FIELDS)
        || never(&NEVER_TRAILING))
}

/// An upgrade is hop by hop too, so asking for it is our own request.
pub fn ask_upgrade(fields: &mut impl FieldsMut, protocol: &[u8]) {
    fields.set("connection", b"upgrade");
    fields.set("upgrade", protocol);
}

/// Without leading zeros, which some take for octal.
fn plain_length(fields: &mut impl FieldsMut) {
    let Some(length) = fields.get("content-length").filter(|length| length.len() > 1 && length.starts_with(b"0")) else { return };
    let zeros = length.iter().take_while(|digit| **digit == b'0').count();
    let plain = length[zeros.min(length.len() - 1)..].to_vec();
    fields.set("content-length", &plain);
}

/// The fields that belong to one connection, and those that `Connection` names (RFC 9110 §7.6.1).
/// Transfer-Encoding is left to the engine, which frames the body.
fn drop_hop_by_hop(fields: &mut impl FieldsMut) {
    if fields.get("connection").is_some() {
        let options = all(fields, "connection").filter_map(text).flat_map(|value| value.split(',')).map(str::trim);
        let named: Vec<String> = options.filter(|option| !STANDING.contains(option)).map(str::to_ascii_lowercase).collect();
        named.iter().filter(|name| !PROTECTED.contains(&name.as_str())).for_each(|name| fields.remove(name));
        fields.remove("connection");
    }
    HOP_BY_HOP.into_iter().for_each(|name| fields.remove(name));
}

fn keep_te_trailers(fields: &mut impl FieldsMut) {
    let Some(te) = fields.get("te") else { return };
    // gRPC needs it; every other coding would be between the client and us.
    let trailers = text(te).is_some_and(|te| te.split(',').any(|t| t.trim().eq_ignore_ascii_case("trailers")));
    if trailers {
        fields.set("te", b"trailers");
    } else {
        fields.remove("te");
    }
}

fn forwarded(fields: &mut impl FieldsMut, arrival: &Arrival, origin: &Origin<'_>) {
    if !arrival.trusted {
        OF_PROXIES.into_iter().for_each(|name| fields.remove(name));
    }
    // CGI and its heirs read `X_Forwarded_For` as the field with dashes.
    let mut twins: Vec<String> = Vec::new();
    fields.each(&mut |name, _| {
        if is_twin(name) {
            twins.push(name.to_ascii_lowercase());
        }
    });
    twins.iter().for_each(|name| fields.remove(name));

    let peer = arrival.peer.ip().to_canonical();
    append(fields, "x-forwarded-for", &written(peer));
    if fields.get("x-forwarded-proto").is_none() {
        fields.set("x-forwarded-proto", origin.scheme.as_str().as_bytes());
    }
    if fields.get("x-forwarded-host").is_none() && !origin.authority.is_empty() {
        fields.set("x-forwarded-host", origin.authority.as_bytes());
    }
    if arrival.forwarded || fields.get("forwarded").is_some() {
        append(fields, "forwarded", forwarded_element(peer, origin).as_bytes());
    }
}

/// Who the client is, by its certificate. Nobody else may say so, not even a trusted proxy.
fn certified(fields: &mut impl FieldsMut, arrival: &Arrival) {
    CERTIFICATE_FIELDS.into_iter().for_each(|name| fields.remove(name));
    if let Some(client) = &arrival.client_certificate {
        fields.set(CERTIFICATE_SUBJECT, client.subject.as_bytes());
        fields.set(CERTIFICATE_FINGERPRINT, client.fingerprint.as_bytes());
    }
}

/// The standard library's formatting costs as much as all else that is done to these fields.
fn written(ip: IpAddr) -> Vec<u8> {
    let IpAddr::V4(ip) = ip else { return ip.to_string().into_bytes() };
    let mut text = Vec::with_capacity(16);
    for byte in ip.octets() {
        let digits = [byte / 100, byte / 10 % 10, byte % 10].map(|digit| digit + b'0');
        text.extend_from_slice(
            &digits[if byte >= 100 {
                0
            } else if byte >= 10 {
                1
            } else {
                2
            }..],
        );
        text.push(b'.');
    }
    text.pop();
    text
}

/// RFC 7239, where it is asked for or a trusted proxy has begun it.
fn forwarded_element(peer: IpAddr, origin: &Origin<'_>) -> String {
    let scheme = origin.scheme.as_str();
    let host = if origin.authority.is_empty() { String::new() } else { format!(";host=\"{}\"", origin.authority) };
    match peer {
        IpAddr::V4(peer) => format!("for={peer};proto={scheme}{host}"),
        IpAddr::V6(peer) => format!("for=\"[{peer}]\";proto={scheme}{host}"),
    }
}

/// RFC 9113 §8.2.3: an HTTP/2 client may split its cookies, HTTP/1.1 knows one field.
fn join_cookies(fields: &mut impl FieldsMut) {
    if fields.nth("cookie", 1).is_some() {
        let joined = all(fields, "cookie").collect::<Vec<_>>().join(&b"; "[..]);
        fields.set("cookie", &joined);
    }
}

/// One field with all the values, ours last.
fn append(fields: &mut impl FieldsMut, name: &'static str, value: &[u8]) {
    if fields.get(name).is_none() {
        return fields.set(name, value);
    }
    let joined = all(fields, name).chain([value]).collect::<Vec<_>>().join(&b", "[..]);
    fields.set(name, &joined);
}

fn is_twin(name: &str) -> bool {
    name.contains('_') && {
        let dashed = name.replace('_', "-").to_ascii_lowercase();
        let dashed = dashed.trim_end_matches('-');
        let is_ours = OF_PROXIES.contains(&dashed) || CERTIFICATE_FIELDS.contains(&dashed) || dashed == REQUEST_ID;
        is_ours || PROTECTED.contains(&dashed)
    }
}

fn via(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 | Version::HTTP_10 => "1.0 pointsman",
        Version::HTTP_11 => "1.1 pointsman",
        _ => "2 pointsman",
    }
}

const HSTS: &str = "strict-transport-security";

/// What only a trusted proxy may say.
const OF_PROXIES: [&str; 7] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-real-ip",
    "forwarded",
];

const HOP_BY_HOP: [&str; 4] = ["upgrade", "keep-alive", "proxy-connection", "http2-settings"];

/// Options of `Connection` that nearly everybody sends; they name no field, or one that goes anyway.
const STANDING: [&str; 5] = ["close", "Close", "keep-alive", "Keep-Alive", "Upgrade"];

/// What decides how a message is treated has to come before it (RFC 9110 §6.5.1).
const NEVER_TRAILING: [&str; 15] = [
    "connection",
    "trailer",
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "content-encoding",
    "content-type",
    "content-range",
    "cache-control",
    "expect",
    "range",
    "via",
    REQUEST_ID,
    "traceparent",
];
const OUR_PREFIX: &str = "x-pointsman-";

/// `Connection` cannot take these away from the next hop, whatever it names.
const PROTECTED: [&str; 6] = ["host", "content-length", "transfer-encoding", "te", "x-forwarded-for", "forwarded"];

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

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
    fn addresses_are_written_as_everybody_writes_them() {
        for ip in ["0.0.0.0", "1.20.255.100", "10.0.0.1", "203.0.113.9", "2001:db8::1"] {
            assert_eq!(written(ip.parse().unwrap()), ip.as_bytes());
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
