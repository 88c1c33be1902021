//! What must hold for whatever a client sends, whichever engine reads it (see `crate::fuzzing`).

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};

use super::arrival::{Arrival, Trusted};
use super::forward::{Origin, rewrite_request, rewrite_response};
use super::head::Scheme;
use crate::config::Network;
use crate::model::plain_path;
use crate::routing::host_of;

pub use super::http1::laws::{chunks, request_head, response_head};

/// A path, and on the next line an authority: what they are read as has one spelling, and no way up.
pub fn path_and_host(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (path, authority) = text.split_once('\n').unwrap_or((text, ""));
    if let Ok(plain) = plain_path(path) {
        assert_eq!(plain_path(&plain), Ok(Cow::Borrowed(&*plain)), "read again it is another");
        assert!(plain.starts_with('/') && plain.len() <= path.len());
        let dots = plain.to_ascii_lowercase().replace("%2e", ".");
        assert!(!dots.split('/').any(|segment| segment == "." || segment == ".."), "{plain} leads elsewhere");
    }
    if let Some(host) = host_of(authority) {
        assert_eq!(host_of(&host), Some(host.clone()), "read again it is another");
        assert!(!host.is_empty() && !host.ends_with('.') && !host.bytes().any(|b| b.is_ascii_uppercase() || b <= b' '));
        assert_eq!(host_of(&format!("{host}:80")), Some(host), "with a port it is another");
    }
}

/// Lines of `name: value` are the fields of an HTTP/2 request; one with an empty name (`: x`) makes its client trusted.
/// What a stranger may not say never reaches an instance, and what we say stands there once.
pub fn forwarding(bytes: &[u8]) {
    let mut fields = HeaderMap::new();
    let mut is_trusted = false;
    for line in bytes.split(|byte| *byte == b'\n').take(FIELDS_MAX) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        is_trusted |= name.is_empty();
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            fields.append(name, value);
        }
    }
    let trusted = Trusted::new(if is_trusted { &[EVERYBODY] } else { &[] });
    let arrival = Arrival::of(PEER, &fields, &trusted, &mut fastrand::Rng::with_seed(1));
    let origin = Origin { scheme: Scheme::Https, authority: "shop.example:8443".into(), version: Version::HTTP_2 };
    let mut request = fields.clone();
    rewrite_request(&mut request, &arrival, &origin, 2);
    check_request(&request, is_trusted);
    let ours = ["x-request-id", "traceparent", "x-pointsman-attempt", "x-forwarded-for", "x-forwarded-proto", "via"];
    ours.into_iter().for_each(|name| {
        let n = request.get_all(name).iter().count();
        assert!(n == 1 || (n > 0 && is_trusted && name == "x-forwarded-proto"), "{n} {name}");
    });

    for status in [StatusCode::OK, StatusCode::NO_CONTENT, StatusCode::UPGRADE_REQUIRED] {
        let mut response = fields.clone();
        rewrite_response(&mut response, status, Version::HTTP_11);
        assert!(!response.contains_key("connection") && !response.contains_key("keep-alive"));
        assert!(status != StatusCode::NO_CONTENT || !response.contains_key("content-length"));
        assert!(status == StatusCode::UPGRADE_REQUIRED || !response.contains_key("upgrade"));
    }
}

fn check_request(request: &HeaderMap, is_trusted: bool) {
    for name in request.keys().map(HeaderName::as_str) {
        assert!(!["connection", "keep-alive", "proxy-connection", "upgrade", "http2-settings"].contains(&name), "{name}");
        assert!(is_trusted || !["x-forwarded-port", "x-forwarded-prefix", "x-real-ip", "forwarded"].contains(&name), "{name}");
        let is_of_proxies = |name: &str| name.starts_with("x-forwarded-") && ["for", "proto", "host"].contains(&&name[12..]);
        assert!(!name.contains('_') || !is_of_proxies(&name.replace('_', "-")), "{name}");
    }
    let hops = request.get("x-forwarded-for").map(HeaderValue::as_bytes).unwrap_or_default();
    assert!(hops.ends_with(b"192.0.2.9"), "{hops:?}");
    assert!(is_trusted || hops == b"192.0.2.9", "{hops:?}");
    assert!(request.get_all("cookie").iter().count() <= 1);
    assert!(request.get("te").is_none_or(|te| te == "trailers"));
}

/// More show nothing that these do not.
const FIELDS_MAX: usize = 64;
const EVERYBODY: Network = Network { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix: 0 };
pub const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)), 4000);
