//! Which requests a route takes.

use std::fmt;
use std::sync::Arc;

use super::{Action, FieldEdits, RateLimit, Rewrite, RouteName, ServiceName};

/// One route: which requests it takes, and what becomes of them. An empty `hosts` matches any host; `path: Any` any path;
/// empty conditions any request.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteSpec {
    pub name: RouteName,
    pub hosts: Vec<HostPattern>,
    pub path: PathMatch,
    pub methods: Vec<http::Method>,
    pub headers: Vec<FieldMatch>,
    pub query: Vec<FieldMatch>,
    /// Higher goes first, before any comparison of specificity; the default is 0.
    pub priority: i32,
    pub rate_limit: Option<RateLimit>,
    pub action: Action,
    pub rewrite: Rewrite,
    pub request_headers: FieldEdits,
    pub response_headers: FieldEdits,
}

impl RouteSpec {
    /// Every request to this service, as it is.
    pub fn to(name: RouteName, service: ServiceName) -> Self {
        Self {
            name,
            hosts: Vec::new(),
            path: PathMatch::Any,
            methods: Vec::new(),
            headers: Vec::new(),
            query: Vec::new(),
            priority: 0,
            rate_limit: None,
            action: Action::Forward(service),
            rewrite: Rewrite::default(),
            request_headers: FieldEdits::default(),
            response_headers: FieldEdits::default(),
        }
    }

    /// `None`: nothing is forwarded.
    pub fn service(&self) -> Option<&ServiceName> {
        match &self.action {
            Action::Forward(service) => Some(service),
            Action::Redirect(_) | Action::Respond(_) => None,
        }
    }
}

/// `shop.example`, or `*.shop.example` for every host below it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Lower case, without port or final dot.
    Exact(Arc<str>),
    /// What follows the star, with its dot: `.shop.example`.
    Suffix(Arc<str>),
}

impl HostPattern {
    /// `Err` says what a host pattern looks like.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let lower = text.to_ascii_lowercase();
        let (pattern, name) = match lower.strip_prefix('*') {
            Some(rest) if rest.starts_with('.') => (Self::Suffix(rest.into()), &rest[1..]),
            Some(_) => return Err("a wildcard is *. followed by a domain, as in *.shop.example"),
            None => (Self::Exact(lower.trim_end_matches('.').into()), lower.trim_end_matches('.')),
        };
        let is_ipv6 =
            name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).is_some_and(|n| n.parse::<std::net::Ipv6Addr>().is_ok());
        let is_name = !name.is_empty()
            && name.split('.').all(|l| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        if is_ipv6 || is_name { Ok(pattern) } else { Err("a host is a DNS name or an IP address, without scheme, port or path") }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.pad(host),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}

#[derive(Debug, Clone, Default)]
pub enum PathMatch {
    #[default]
    Any,
    Exact(Arc<str>),
    /// By whole segments: `/v1` matches `/v1` and `/v1/x`, never `/v10`. Without a final slash, but for `/`.
    Prefix(Arc<str>),
    /// Matches somewhere in the path, as `location ~` does; anchor it with `^` and `$`.
    Regex(regex::Regex),
}

impl PartialEq for PathMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, Self::Any) => true,
            (Self::Exact(a), Self::Exact(b)) | (Self::Prefix(a), Self::Prefix(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.pad("any path"),
            Self::Exact(path) => write!(f, "= {path}"),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Regex(regex) => write!(f, "~ {regex}"),
        }
    }
}

/// A condition on one header (name in lower case) or one query parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldMatch {
    pub name: String,
    pub value: ValueMatch,
}

#[derive(Debug, Clone)]
pub enum ValueMatch {
    Present,
    Exact(String),
    Regex(regex::Regex),
}

impl PartialEq for ValueMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Present, Self::Present) => true,
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

impl ValueMatch {
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(expected) => expected == value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}
