//! Who is answered at all.
//!
//! A page on the web can make a browser send requests to this address under a name of its own, and read the answers once
//! it lets that name resolve to 127.0.0.1 (DNS rebinding). Such a name must be one that can be owned; so what is answered
//! are IP addresses, names without a dot, and names below domains that are nobody's on the Internet.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{Method, Request};

use super::reply::Refusal;

pub fn check<B>(request: &Request<B>) -> Result<(), Refusal> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Err(Refusal::Method);
    }
    let fields = request.headers();
    let has_length = fields.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    if has_length || fields.contains_key(TRANSFER_ENCODING) {
        return Err(Refusal::Body);
    }
    let hosts = fields.get_all(HOST).iter().map(|host| host.as_bytes());
    let mut named = hosts.chain(request.uri().authority().map(|a| a.as_str().as_bytes()));
    match named.find(|host| !is_ours(host)) {
        Some(host) => Err(Refusal::Host { said: String::from_utf8_lossy(host).into_owned() }),
        None => Ok(()),
    }
}

/// `host` may have a port.
fn is_ours(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    if let Some(v6) = host.strip_prefix('[') {
        let is_port = |rest: &str| rest.is_empty() || rest.starts_with(':');
        return v6.split_once(']').is_some_and(|(ip, rest)| ip.parse::<std::net::Ipv6Addr>().is_ok() && is_port(rest));
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    if name.parse::<std::net::Ipv4Addr>().is_ok() {
        return true;
    }
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let domain = name.rsplit_once('.').map(|(_, domain)| domain);
    is_name && domain.is_none_or(|domain| OWNED_BY_NOBODY.contains(&domain))
}

/// Reserved for machines among themselves; `local` and `svc` are what clusters use.
const OWNED_BY_NOBODY: [&str; 4] = ["localhost", "local", "internal", "svc"];

#[cfg(test)]
mod tests {
    use super::*;

    fn check_of(method: &str, target: &str, fields: &[(&str, &str)]) -> Result<(), Refusal> {
        let request =
            fields.iter().fold(Request::builder().method(method).uri(target), |r, (name, value)| r.header(*name, *value));
        check(&request.body(()).unwrap())
    }

    #[test]
    fn names_a_web_page_could_come_under_are_refused() {
        for host in [
            "127.0.0.1:9900",
            "10.1.2.3",
            "[::1]:9900",
            "[fe80::1]",
            "localhost",
            "LocalHost:9900",
            "pointsman:9900",
            "pointsman.edge.svc:9900",
            "pointsman.edge.svc.cluster.local.",
        ] {
            assert_eq!(check_of("GET", "/", &[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example:9900",
            "a.localhost.example",
            "local.example",
            "[::1].evil.example",
            "[x]",
            "a,b",
            "ü",
        ] {
            let said = check_of("GET", "/", &[("host", host)]);
            assert!(matches!(said, Err(Refusal::Host { .. })), "{host}: {said:?}");
        }
        assert_eq!(check_of("GET", "/", &[]), Ok(()), "HTTP/1.0 names none; no browser speaks it");
        assert!(check_of("GET", "http://evil.example/", &[("host", "localhost")]).is_err());
        assert!(check_of("GET", "/", &[("host", "localhost"), ("host", "evil.example")]).is_err());
    }

    #[test]
    fn only_reading_without_a_body_is_answered() {
        assert_eq!(check_of("HEAD", "/", &[("content-length", "0")]), Ok(()));
        assert_eq!(check_of("POST", "/", &[]), Err(Refusal::Method));
        assert_eq!(check_of("GET", "/", &[("content-length", "1")]), Err(Refusal::Body));
        assert_eq!(check_of("GET", "/", &[("transfer-encoding", "chunked")]), Err(Refusal::Body));
    }
}
