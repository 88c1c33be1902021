//! The head of a request, read and checked once: behind [`RequestHead::check`] nobody looks at framing, host or path again.

use std::borrow::Cow;
use std::net::SocketAddr;

use http::{Method, Version};

use super::reply::Refusal;
use crate::config::ClientLimits;
use crate::model::plain_path;
use crate::routing::{Fields, all, host_of, text};

/// What an engine hands in, as it stood on the wire.
#[derive(Clone, Copy)]
pub struct RawHead<'a> {
    pub method: &'a Method,
    /// The request target: origin form, absolute form or `*`.
    pub target: &'a [u8],
    /// `:authority` of HTTP/2.
    pub authority: Option<&'a str>,
    pub version: Version,
    pub fields: &'a dyn Fields,
    pub peer: SocketAddr,
    pub scheme: Scheme,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

/// A head that may be routed.
#[derive(Clone)]
pub struct RequestHead<'a> {
    pub method: &'a Method,
    /// As the client wrote it, with its port.
    pub authority: &'a str,
    /// Lower case, without port or final dot; empty when an HTTP/1.0 client named none.
    pub host: Cow<'a, str>,
    /// Starts with a slash, holds no dot segments: what is routed on is what is forwarded.
    pub path: Cow<'a, str>,
    /// Without its question mark.
    pub query: Option<&'a str>,
    pub version: Version,
    pub fields: &'a dyn Fields,
    pub framing: Framing,
    /// It has a body, and sends it once it was told to go on.
    pub expects: bool,
    pub peer: SocketAddr,
    pub scheme: Scheme,
    /// The target has to be written anew: it was in absolute form, or had dot segments.
    pub rewritten: bool,
}

/// How long a body is, as its head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Nothing,
    Length(u64),
    Chunked,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl<'a> RequestHead<'a> {
    pub fn check(raw: RawHead<'a>, limits: &ClientLimits) -> Result<Self, Refusal> {
        check_size(&raw, limits)?;
        let framing = framing(raw.fields)?;
        if matches!((framing, limits.body_size), (Framing::Length(length), Some(max)) if length > max) {
            return Err(Refusal::BodyTooLarge);
        }
        if framing == Framing::Chunked && raw.version < Version::HTTP_11 {
            return Err(Refusal::Malformed("HTTP/1.0 has no chunks"));
        }
        let expects = expects(raw.fields)? && raw.version == Version::HTTP_11 && framing != Framing::Nothing;
        if raw.method == Method::TRACE || raw.method == Method::CONNECT {
            return Err(Refusal::Method);
        }
        let target = std::str::from_utf8(raw.target).map_err(|_| Refusal::Malformed("the request target is not ASCII"))?;
        if target.contains('#') {
            return Err(Refusal::Malformed("the request target holds a fragment"));
        }
        let (named, target) = split_target(target, raw.scheme)?;
        let absolute = named.is_some();
        if absolute && raw.version == Version::HTTP_11 && raw.fields.get("host").is_none() {
            return Err(Refusal::Malformed("the request has no Host"));
        }
        let authority = match (named.or(raw.authority), host_field(raw.fields)?) {
            (Some(target), Some(field)) if raw.version < Version::HTTP_2 && !target.eq_ignore_ascii_case(field) => {
                return Err(Refusal::Malformed("the request target and Host name different hosts"));
            }
            // RFC 9112 §3.2: also where the target names one, which does not stand in the head that goes on.
            (Some(_), None) if raw.version == Version::HTTP_11 => return Err(Refusal::Malformed("the request has no Host")),
            (Some(authority), _) | (None, Some(authority)) => authority,
            (None, None) if raw.version < Version::HTTP_11 => "",
            (None, None) => return Err(Refusal::Malformed("the request has no Host")),
        };
        let host = match authority {
            "" if raw.version < Version::HTTP_11 => Cow::Borrowed(""),
            _ => host_of(authority).ok_or(Refusal::Malformed("Host is not a host name or an address"))?,
        };
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let path = match path {
            "" if absolute && query.is_none() && raw.method == Method::OPTIONS => Cow::Borrowed("*"),
            "" if absolute => Cow::Borrowed("/"),
            "*" if raw.method == Method::OPTIONS => Cow::Borrowed(path),
            path => plain_path(path).map_err(Refusal::Malformed)?,
        };
        let rewritten = absolute || matches!(path, Cow::Owned(_));
        let RawHead { method, version, fields, peer, scheme, .. } = raw;
        Ok(Self { method, authority, host, path, query, version, fields, framing, expects, peer, scheme, rewritten })
    }

    /// The target in the form every instance understands.
    pub fn origin_form(&self) -> String {
        match self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone().into_owned(),
        }
    }

    /// The first cookie of that name.
    pub fn cookie(&self, name: &str) -> Option<&'a str> {
        let fields = all(self.fields, "cookie").filter_map(text);
        let mut pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(n, _)| *n == name).map(|(_, value)| value)
    }
}

fn check_size(raw: &RawHead<'_>, limits: &ClientLimits) -> Result<(), Refusal> {
    if raw.method.as_str().len() > METHOD_LENGTH_MAX {
        return Err(Refusal::Malformed("the method is too long"));
    }
    if raw.target.len() > TARGET_LENGTH_MAX.min(limits.head_size) {
        return Err(Refusal::TargetTooLong);
    }
    // Four bytes a field stand on the wire beside its name and value: colon, space, line end.
    let (mut n_fields, mut size) = (0, raw.target.len());
    raw.fields.each(&mut |name, value| {
        n_fields += 1;
        size += name.len() + value.len() + 4;
    });
    if n_fields > limits.fields {
        return Err(Refusal::TooManyFields);
    }
    if size > limits.head_size {
        return Err(Refusal::HeadTooLarge);
    }
    Ok(())
}

/// Where the body ends must be plain, or the next proxy may see another request in it.
fn framing(fields: &dyn Fields) -> Result<Framing, Refusal> {
    let mut codings = all(fields, "transfer-encoding");
    let mut lengths = all(fields, "content-length");
    match (codings.next(), lengths.next()) {
        (None, None) => Ok(Framing::Nothing),
        (Some(_), Some(_)) => Err(Refusal::Malformed("the request has both Transfer-Encoding and Content-Length")),
        (Some(coding), None) => {
            let is_chunked = coding.trim_ascii().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
            is_chunked.then_some(Framing::Chunked).ok_or(Refusal::Malformed("Transfer-Encoding is not chunked alone"))
        }
        (None, Some(length)) => {
            let number = number(length).filter(|_| lengths.next().is_none());
            number.map(Framing::Length).ok_or(Refusal::Malformed("Content-Length is not one number"))
        }
    }
}

/// Digits alone: no sign, no list, nothing that overflows, not even where somebody counts with a sign.
pub fn number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().all(u8::is_ascii_digit).then_some(text)?;
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|n| i64::try_from(*n).is_ok())
}

/// Whether the client waits for `100 Continue`. Nobody knows what else could be expected.
fn expects(fields: &dyn Fields) -> Result<bool, Refusal> {
    let mut expected = all(fields, "expect");
    match (expected.next(), expected.next()) {
        (None, _) => Ok(false),
        (Some(one), None) if one.eq_ignore_ascii_case(b"100-continue") => Ok(true),
        _ => Err(Refusal::Expectation),
    }
}

fn host_field(fields: &dyn Fields) -> Result<Option<&str>, Refusal> {
    let mut hosts = all(fields, "host");
    let Some(host) = hosts.next() else { return Ok(None) };
    if hosts.next().is_some() {
        return Err(Refusal::Malformed("the request has more than one Host"));
    }
    text(host).map(|h| Some(h.trim_ascii())).ok_or(Refusal::Malformed("Host is not ASCII"))
}

/// The authority, if the target is in absolute form, and the rest.
fn split_target(target: &str, of_connection: Scheme) -> Result<(Option<&str>, &str), Refusal> {
    if target.starts_with('/') || target == "*" {
        return Ok((None, target));
    }
    let malformed = Refusal::Malformed("the request target is neither a path nor a URL of this connection's scheme");
    let (scheme, rest) = target.split_once("://").ok_or(malformed.clone())?;
    if !scheme.eq_ignore_ascii_case(of_connection.as_str()) {
        return Err(malformed);
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    Ok((Some(authority), path))
}

const METHOD_LENGTH_MAX: usize = 32;
const TARGET_LENGTH_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderName, HeaderValue};

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(n, v): &(&str, &str)| (HeaderName::try_from(*n).unwrap(), HeaderValue::try_from(*v).unwrap());
        let mut map = HeaderMap::new();
        fields.iter().map(field).for_each(|(n, v)| {
            map.append(n, v);
        });
        map
    }

    /// `Ok` shows `host path?query`, `Err` the reason.
    fn check(version: Version, request: &str, fields: &[(&str, &str)]) -> Result<String, String> {
        let (method, target) = request.split_once(' ').unwrap();
        let raw = RawHead {
            method: &Method::from_bytes(method.as_bytes()).unwrap(),
            target: target.as_bytes(),
            authority: None,
            version,
            fields: &headers(fields),
            peer: "192.0.2.1:5000".parse().unwrap(),
            scheme: Scheme::Http,
        };
        match RequestHead::check(raw, &ClientLimits::default()) {
            Ok(head) => Ok(format!("{} {}", head.host, head.origin_form())),
            Err(refusal) => Err(format!("{} {refusal}", refusal.status())),
        }
    }

    #[test]
    fn hosts_and_targets_are_read_in_every_form() {
        for (request, host, expected) in [
            ("GET /a?b=c", "Shop.Example:8080", "shop.example /a?b=c"),
            ("GET /", "shop.example.", "shop.example /"),
            ("GET /x", "[::1]:8080", "[::1] /x"),
            ("GET http://a.example/x?y", "a.example", "a.example /x?y"),
            ("GET http://a.example", "a.example", "a.example /"),
            ("OPTIONS *", "a", "a *"),
            ("GET /a/../b", "a", "a /b"),
        ] {
            assert_eq!(check(Version::HTTP_11, request, &[("host", host)]).as_deref(), Ok(expected));
        }
        assert_eq!(check(Version::HTTP_10, "GET /", &[]).as_deref(), Ok(" /"));
    }

    #[test]
    fn what_two_proxies_could_read_differently_is_refused() {
        let host = ("host", "a");
        for (request, fields, reason) in [
            ("GET /", vec![], "400 the request has no Host"),
            ("GET http://a/", vec![], "400 the request has no Host"),
            ("GET /", vec![host, ("host", "b")], "400 the request has more than one Host"),
            ("GET /", vec![("host", "a/b")], "400 Host is not a host name"),
            ("GET /", vec![("host", "")], "400 Host is not a host name"),
            ("GET /", vec![("host", "a:b")], "400 Host is not a host name"),
            ("GET /", vec![("host", "u@a")], "400 Host is not a host name"),
            ("GET http://b/", vec![host], "400 the request target and Host name different"),
            ("GET ftp://a/", vec![host], "400 the request target is neither"),
            ("POST /", vec![host, ("content-length", "5"), ("content-length", "5")], "400 Content-Length is not"),
            ("POST /", vec![host, ("content-length", "5, 5")], "400 Content-Length is not"),
            ("POST /", vec![host, ("transfer-encoding", "gzip, chunked")], "400 Transfer-Encoding is not"),
            ("POST /", vec![host, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], "400 Transfer-Encoding"),
            ("POST /", vec![host, ("content-length", "+5")], "400 Content-Length is not"),
            ("POST /", vec![host, ("content-length", "")], "400 Content-Length is not"),
            ("POST /", vec![host, ("content-length", "18446744073709551616")], "400 Content-Length is not"),
            ("POST /", vec![host, ("content-length", "5"), ("transfer-encoding", "chunked")], "400 the request has both"),
            ("TRACE /", vec![host], "405"),
            ("CONNECT a:443", vec![host], "405"),
        ] {
            let refused = check(Version::HTTP_11, request, &fields).unwrap_err();
            assert!(refused.starts_with(reason), "{request} {fields:?}: {refused}");
        }
    }

    #[test]
    fn heads_have_a_size() {
        let many: Vec<_> = (0..101).map(|_| ("x", "y")).chain([("host", "a")]).collect();
        assert!(check(Version::HTTP_11, "GET /", &many).unwrap_err().starts_with("431"));
        let long = "v".repeat(33 * 1024);
        assert!(check(Version::HTTP_11, "GET /", &[("host", "a"), ("x", &long)]).unwrap_err().starts_with("431"));
        assert!(check(Version::HTTP_11, &format!("GET /{}", "p".repeat(17 * 1024)), &[]).unwrap_err().starts_with("414"));
    }
}
