//! FLOOR 1. Which route a request takes. It answers with a name; what stands behind the name is not known here.
//!
//! Order of precedence, the first difference decides:
//! 1. `priority`, higher first;
//! 2. host: exact, then the longest wildcard, then any;
//! 3. path: exact, then the longest prefix, then a regex, then any path (the prefix `/` says no more than that);
//! 4. the number of conditions on method, headers and query, more first;
//! 5. the file before the registry, then the name in alphabetical order.
//!
//! A route whose conditions fail is passed over and the search goes on, across hosts too.
//!
//! Invariant: a `RouteTable` never changes. `RouteBook` makes its successor, which shares all hosts that no change names.

mod authority;
mod book;
mod edit;
mod fields;
mod host_routes;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use authority::host_of;
pub use book::RouteBook;
pub use edit::{Words, filled, location, rewritten};
pub use fields::{Fields, all, text};
use host_routes::HostRoutes;

use crate::model::{HostPattern, Origin, RouteSpec, ShardMap};

/// What a request is judged by.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// Lower case, without port or final dot; empty when the client named none.
    pub host: &'a str,
    /// Starts with a slash; without the query.
    pub path: &'a str,
    pub query: &'a str,
    pub method: &'a http::Method,
    pub headers: &'a dyn Fields,
}

/// A route in force, with what was counted on it.
#[derive(Debug)]
pub struct Route {
    pub origin: Origin,
    pub spec: RouteSpec,
    pub stats: Arc<RouteStats>,
}

/// Finished requests by the class of their status: index 1 is 1xx, 5 is 5xx, 0 is none sent.
#[derive(Debug, Default)]
pub struct RouteStats {
    by_class: [AtomicU64; 6],
    /// Requests over the route's rate that were refused, and those that went through in a dry run.
    pub limited: AtomicU64,
    pub limited_dry: AtomicU64,
}

impl RouteStats {
    /// `status` 0 means that no status was sent.
    pub fn count(&self, status: u16) {
        let class = usize::from(status / 100);
        self.by_class[if class < self.by_class.len() { class } else { 0 }].fetch_add(1, Ordering::Relaxed);
    }

    pub fn by_class(&self) -> [u64; 6] {
        std::array::from_fn(|class| self.by_class[class].load(Ordering::Relaxed))
    }
}

#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    exact: ShardMap<Arc<str>, Arc<HostRoutes>>,
    /// By what follows the star, with its dot.
    wildcard: ShardMap<Arc<str>, Arc<HostRoutes>>,
    any: Arc<HostRoutes>,
}

impl RouteTable {
    pub fn find(&self, question: &Question<'_>) -> Option<&Arc<Route>> {
        let mut best: Option<&Arc<Route>> = None;
        for routes in self.hosts_of(question.host) {
            if best.is_some_and(|b| routes.priority_max() <= b.spec.priority) {
                continue;
            }
            match (routes.find(question), best) {
                (Some(found), Some(b)) if found.spec.priority <= b.spec.priority => {}
                (Some(found), _) => best = Some(found),
                (None, _) => {}
            }
        }
        best
    }

    /// Each route once: the file's first, each origin's by name. Costs all routes; for who shows them, not for requests.
    pub fn routes(&self) -> Vec<&Arc<Route>> {
        let by_host = self.exact.iter().chain(self.wildcard.iter()).map(|(_, routes)| &**routes);
        let mut all: Vec<_> = by_host.chain(std::iter::once(&*self.any)).flat_map(HostRoutes::all).collect();
        all.sort_by(|a, b| (a.origin, &a.spec.name).cmp(&(b.origin, &b.spec.name)));
        all.dedup_by(|a, b| Arc::ptr_eq(a, b));
        all
    }

    /// Exact host, wildcards from the longest, any.
    fn hosts_of<'t>(&'t self, host: &str) -> impl Iterator<Item = &'t HostRoutes> {
        let exact = (!host.is_empty()).then(|| self.exact.get(host)).flatten();
        let wildcard = host.match_indices('.').filter_map(move |(at, _)| self.wildcard.get(&host[at..]));
        exact.into_iter().chain(wildcard).map(|routes| &**routes).chain(std::iter::once(&*self.any))
    }

    fn replace(&mut self, host: Option<&HostPattern>, routes: HostRoutes) {
        let (map, key) = match host {
            None => {
                self.any = Arc::new(routes);
                return;
            }
            Some(HostPattern::Exact(host)) => (&mut self.exact, host),
            Some(HostPattern::Suffix(suffix)) => (&mut self.wildcard, suffix),
        };
        if routes.is_empty() {
            map.remove(key);
        } else {
            map.insert(key.clone(), Arc::new(routes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FieldMatch, PathMatch, RouteName, ServiceName, ValueMatch};
    use std::sync::Arc;

    fn route(name: &str, hosts: &[&str], path: PathMatch) -> RouteSpec {
        let hosts = hosts.iter().map(|h| HostPattern::parse(h).unwrap()).collect();
        RouteSpec { hosts, path, ..RouteSpec::to(RouteName::parse(name).unwrap(), ServiceName::parse("s").unwrap()) }
    }

    fn exact(path: &str) -> PathMatch {
        PathMatch::Exact(path.into())
    }

    fn prefix(path: &str) -> PathMatch {
        PathMatch::Prefix(path.into())
    }

    fn regex(pattern: &str) -> PathMatch {
        PathMatch::Regex(regex::Regex::new(pattern).unwrap())
    }

    fn table(routes: Vec<RouteSpec>) -> (RouteBook, RouteTable) {
        let mut book = RouteBook::default();
        let changes = routes.into_iter().map(|r| (Origin::Registry, r.name.clone(), Some(r)));
        let table = book.apply(&RouteTable::default(), changes.collect());
        (book, table)
    }

    fn ask<'a>(table: &'a RouteTable, method: &str, host: &str, target: &str, headers: &[(&str, &str)]) -> &'a str {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let method = method.parse().unwrap();
        let headers: http::HeaderMap = headers.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect();
        let question = Question { host, path, query, method: &method, headers: &headers };
        table.find(&question).map_or("-", |r| r.spec.name.as_str())
    }

    /// Each line of `expected` is `HOST TARGET -> ROUTE`.
    fn check(routes: Vec<RouteSpec>, expected: &str) {
        let (_, table) = table(routes);
        for line in expected.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [host, target, "->", name] = words[..] else { panic!("{line}") };
            assert_eq!(ask(&table, "GET", host, target, &[]), name, "{line}");
        }
    }

    #[test]
    fn the_most_specific_host_wins() {
        check(
            vec![
                route("any", &[], PathMatch::Any),
                route("shop", &["shop.example"], PathMatch::Any),
                route("star", &["*.example"], PathMatch::Any),
                route("deep", &["*.eu.example"], PathMatch::Any),
            ],
            "shop.example / -> shop
             eu.example / -> star
             a.eu.example /x -> deep
             a.b.eu.example / -> deep
             example / -> any
             other / -> any",
        );
    }

    #[test]
    fn the_most_specific_path_wins() {
        check(
            vec![
                route("root", &[], prefix("/")),
                route("v1", &[], prefix("/v1")),
                route("users", &[], prefix("/v1/users")),
                route("me", &[], exact("/v1/users/me")),
                route("pic", &[], regex(r"\.png$")),
            ],
            "h / -> root
             h /v10 -> root
             h /v1 -> v1
             h /v1/ -> v1
             h /v1/users -> users
             h /v1/users/7 -> users
             h /v1/users/me -> me
             h /v1/users/me/x -> users
             h /a/b.png -> pic
             h /v1/b.png -> v1",
        );
    }

    #[test]
    fn priority_overrides_every_specificity() {
        let mut first = route("first", &[], PathMatch::Any);
        first.priority = 1;
        let mut last = route("last", &["h"], exact("/x"));
        last.priority = -1;
        check(vec![first.clone(), last.clone(), route("mid", &["h"], exact("/x"))], "h /x -> first");
        check(vec![last, route("mid", &[], PathMatch::Any)], "h /x -> mid");
    }

    #[test]
    fn a_route_whose_conditions_fail_is_passed_over() {
        let mut post = route("post", &["h"], exact("/x"));
        post.methods = vec![http::Method::POST];
        let mut canary = route("canary", &["h"], prefix("/x"));
        canary.headers = vec![FieldMatch { name: "x-canary".into(), value: ValueMatch::Exact("1".into()) }];
        let mut beta = route("beta", &["h"], prefix("/x"));
        beta.query = vec![FieldMatch { name: "beta".into(), value: ValueMatch::Present }];
        let (_, table) = table(vec![post, canary, beta, route("rest", &[], PathMatch::Any)]);
        assert_eq!(ask(&table, "POST", "h", "/x", &[]), "post");
        assert_eq!(ask(&table, "GET", "h", "/x", &[]), "rest");
        assert_eq!(ask(&table, "GET", "h", "/x", &[("x-canary", "1")]), "canary");
        assert_eq!(ask(&table, "GET", "h", "/x", &[("x-canary", "2")]), "rest");
        assert_eq!(ask(&table, "GET", "h", "/x?a=1&beta=", &[]), "beta");
        assert_eq!(ask(&table, "GET", "h", "/x?alphabeta=1", &[]), "rest");
    }

    #[test]
    fn the_file_comes_before_the_registry() {
        let mut book = RouteBook::default();
        let change = |origin, name: &str| {
            let spec = route(name, &[], PathMatch::Any);
            (origin, spec.name.clone(), Some(spec))
        };
        let changes = vec![change(Origin::Registry, "a"), change(Origin::File, "z")];
        let table = book.apply(&RouteTable::default(), changes);
        assert_eq!(ask(&table, "GET", "h", "/", &[]), "z");
    }

    #[test]
    fn each_route_is_listed_once_however_many_hosts_it_has() {
        let (_, table) = table(vec![
            route("c", &["h", "*.h"], exact("/x")),
            route("b", &["h"], regex("^/y")),
            route("a", &[], prefix("/z")),
            route("d", &["i"], PathMatch::Any),
        ]);
        let names: Vec<_> = table.routes().iter().map(|r| r.spec.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
    }

    #[test]
    fn a_change_of_one_host_shares_all_others_and_keeps_the_counts() {
        let (mut book, before) = table(vec![route("a", &["a"], PathMatch::Any), route("b", &["b"], PathMatch::Any)]);
        let old = before.exact.get("a").unwrap().clone();
        before.exact.get("b").unwrap().all().for_each(|r| r.stats.count(200));

        let name = RouteName::parse("b").unwrap();
        let after = book.apply(&before, vec![(Origin::Registry, name.clone(), Some(route("b", &["b", "c"], exact("/x"))))]);
        assert!(Arc::ptr_eq(&old, after.exact.get("a").unwrap()));
        assert_eq!(ask(&after, "GET", "c", "/x", &[]), "b");
        assert_eq!(ask(&after, "GET", "b", "/", &[]), "-");
        assert_eq!(ask(&before, "GET", "b", "/", &[]), "b");
        assert_eq!(after.exact.get("b").unwrap().all().next().unwrap().stats.by_class()[2], 1);

        let gone = book.apply(&after, vec![(Origin::Registry, name, None)]);
        assert_eq!(ask(&gone, "GET", "b", "/x", &[]), "-");
        assert!(gone.exact.get("b").is_none() && book.routes().count() == 1);
    }
}
