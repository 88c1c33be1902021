//! Route tables: the index finds what reading the precedence out loud finds.

use std::cmp::Reverse;

use http::{HeaderMap, Method};

use crate::model::{FieldMatch, HostPattern, Origin, PathMatch, RouteName, RouteSpec};
use crate::routing::{Question, RouteBook, RouteTable};
use crate::wire::parse_route;

/// Lines of JSON are routes, one that begins with `f` of the file; the last line is `METHOD HOST PATH[?QUERY]`, and further
/// words of it are headers, `name=value`.
pub fn routing(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines: Vec<&str> = text.lines().collect();
    let Some(question) = lines.pop() else { return };
    let mut routes: Vec<(Origin, RouteSpec)> = Vec::new();
    for (n, line) in lines.into_iter().take(ROUTES_MAX).enumerate() {
        let (origin, value) = line.strip_prefix('f').map_or((Origin::Registry, line), |rest| (Origin::File, rest));
        let Ok(name) = RouteName::parse(&format!("r{n}")) else { return };
        let Ok(parsed) = parse_route(&name, value.as_bytes()) else { continue };
        routes.push((origin, parsed.value));
    }
    let changes = routes.iter().map(|(origin, spec)| (*origin, spec.name.clone(), Some(spec.clone())));
    let mut book = RouteBook::default();
    let table = book.apply(&RouteTable::default(), changes.collect());
    assert_eq!(table.routes().len(), routes.len());
    ask(&table, &routes, question);

    // Without them all, nothing is left.
    let gone = routes.iter().map(|(origin, spec)| (*origin, spec.name.clone(), None));
    assert!(book.apply(&table, gone.collect()).routes().is_empty());
}

fn ask(table: &RouteTable, routes: &[(Origin, RouteSpec)], said: &str) {
    let mut words = said.split(' ');
    let (Some(method), Some(host), Some(target)) = (words.next(), words.next(), words.next()) else { return };
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
    let Some(host) = crate::routing::host_of(host) else { return };
    if !target.starts_with('/') {
        return;
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = HeaderMap::new();
    for (name, value) in words.filter_map(|word| word.split_once('=')) {
        if let (Ok(name), Ok(value)) = (name.parse::<http::HeaderName>(), value.parse()) {
            headers.append(name, value);
        }
    }
    let question = Question { host: &host, path, query, method: &method, headers: &headers };
    let matching = routes.iter().filter(|(_, route)| matches(route, &question, &headers));
    let best = matching.min_by_key(|(origin, route)| rank(route, *origin, &host));
    let found = table.find(&question).map(|route| &route.spec.name);
    assert_eq!(found, best.map(|(_, route)| &route.name), "{said}");
}

fn matches(route: &RouteSpec, question: &Question<'_>, headers: &HeaderMap) -> bool {
    let of_query = |condition: &FieldMatch| {
        let mut pairs = question.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.any(|(name, value)| name == condition.name && condition.value.matches(value))
    };
    let of_headers = |condition: &FieldMatch| {
        let mut values = headers.get_all(condition.name.as_str()).iter().filter_map(|value| value.to_str().ok());
        values.any(|value| condition.value.matches(value))
    };
    let path_matches = match &route.path {
        PathMatch::Any => true,
        PathMatch::Exact(path) => question.path == &**path,
        PathMatch::Prefix(prefix) if &**prefix == "/" => true,
        PathMatch::Prefix(prefix) => {
            question.path.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        PathMatch::Regex(regex) => regex.is_match(question.path),
    };
    path_matches
        && (route.hosts.is_empty() || host_length(route, question.host).is_some())
        && (route.methods.is_empty() || route.methods.contains(question.method))
        && route.headers.iter().all(of_headers)
        && route.query.iter().all(of_query)
}

/// How exactly the route names this host: the longest of its patterns that fit, an exact one before all.
fn host_length(route: &RouteSpec, host: &str) -> Option<usize> {
    let fits = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(name) => (&**name == host).then_some(usize::MAX),
        HostPattern::Suffix(suffix) => host.ends_with(&**suffix).then_some(suffix.len()),
    };
    route.hosts.iter().filter_map(fits).max()
}

type Rank<'a> = (Reverse<i32>, Reverse<Option<usize>>, u8, Reverse<usize>, Reverse<usize>, Origin, &'a RouteName);

/// The order of precedence of the module docs of `routing`, the smallest first.
fn rank<'a>(route: &'a RouteSpec, origin: Origin, host: &str) -> Rank<'a> {
    let (kind, length) = match &route.path {
        PathMatch::Exact(_) => (0, 0),
        PathMatch::Prefix(prefix) if &**prefix != "/" => (1, prefix.len()),
        PathMatch::Regex(_) => (2, 0),
        PathMatch::Any | PathMatch::Prefix(_) => (3, 0),
    };
    let conditions = route.headers.len() + route.query.len() + usize::from(!route.methods.is_empty());
    let host = host_length(route, host);
    (Reverse(route.priority), Reverse(host), kind, Reverse(length), Reverse(conditions), origin, &route.name)
}

/// More show nothing that these do not.
const ROUTES_MAX: usize = 16;
