//! The host that a request names, as routes are asked about it.

use std::borrow::Cow;

/// `Shop.Example.:8080` → `shop.example`; `[::1]:80` → `[::1]`. `None` for what is no host.
pub fn host_of(authority: &str) -> Option<Cow<'_, str>> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')?;
            rest[..end].parse::<std::net::Ipv6Addr>().ok()?;
            authority.split_at(end + 2)
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port_is_fine = port.strip_prefix(':').is_none_or(is_port);
    if !port_is_fine || (!port.is_empty() && !port.starts_with(':')) {
        return None;
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    // RFC 3986 lets a name hold more, as commas and escapes; nobody is called so, and readers differ about what they mean.
    let allowed =
        |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b) || (b"[]:".contains(&b) && authority.starts_with('['));
    // Of an empty label, as in `a..b`, some make the root.
    if host.len() > 255 || host.split('.').any(str::is_empty) || !host.bytes().all(allowed) {
        return None;
    }
    let is_lower = !host.bytes().any(|b| b.is_ascii_uppercase());
    Some(if is_lower { Cow::Borrowed(host) } else { Cow::Owned(host.to_ascii_lowercase()) })
}

/// Empty, as RFC 3986 allows, or digits alone: the standard library would take a sign for one.
fn is_port(text: &str) -> bool {
    text.is_empty() || (text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_has_one_spelling() {
        for (authority, host) in [
            ("shop.example", "shop.example"),
            ("Shop.Example.:8080", "shop.example"),
            ("shop.example:", "shop.example"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("10.0.0.1:1", "10.0.0.1"),
        ] {
            assert_eq!(host_of(authority).as_deref(), Some(host), "{authority}");
        }
        assert!(matches!(host_of("a.example:80"), Some(Cow::Borrowed(_))));
    }

    #[test]
    fn what_is_no_host_has_none() {
        let long = "a".repeat(256);
        for authority in
            ["", ".", ":80", "a:b", "a:65536", "a/b", "u@a", "[::1", "[::1]80", "[a]", "ä.example", "a..b", "a..", ".a", &long]
        {
            assert_eq!(host_of(authority), None, "{authority}");
        }
    }
}
