//! Locations: which requests they take, and where those go.
//!
//! A location is opened only if its service is sent what nginx would send it. Where nginx answers by itself, rewrites the
//! path, or keeps somebody out, the location is held shut: no broader one may take its requests.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::Work;
use super::scope::Scope;
use super::services::Target;
use super::settings::Settings;
use super::words::{Fate, fate};
use crate::import::findings::Place;
use crate::import::grammar::Directive;

#[derive(Debug, Clone)]
pub struct Location {
    pub matcher: Matcher,
    pub fate: Passage,
    /// `rate_limit` of its route.
    pub rate: Option<Json>,
    pub place: Place,
    pub said: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matcher {
    Exact(String),
    /// `stops`: no pattern is asked once this is the longest prefix (`^~`).
    Prefix {
        path: String,
        stops: bool,
    },
    Regex(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passage {
    Open {
        service: String,
    },
    /// Why, and the service that would be asked. `guards`: somebody is kept out, so no other spelling of the path may lead in.
    Held {
        because: String,
        service: Option<String>,
        guards: bool,
    },
}

impl Location {
    pub fn is_open(&self) -> bool {
        matches!(self.fate, Passage::Open { .. })
    }

    pub fn takes_all(&self) -> bool {
        matches!(&self.matcher, Matcher::Prefix { path, .. } if path == "/")
    }
}

/// All locations of a server that are not dealt with yet, those inside others too.
pub fn locations(work: &mut Work<'_>, block: &[Directive], scope: &Scope) -> Vec<Location> {
    let named: BTreeMap<&str, &Directive> =
        block.iter().filter(|d| d.name == "location" && d.arg(0).starts_with('@')).map(|d| (d.arg(0), d)).collect();
    let mut found = Vec::new();
    for directive in block.iter().filter(|d| d.name == "location" && !d.arg(0).starts_with('@')) {
        if work.ledger.is_accounted(directive) {
            continue;
        }
        location(work, directive, scope, &named, None, &mut found);
    }
    for directive in named.values() {
        if !work.ledger.is_accounted(directive) {
            work.ledger.lost(directive, "only error pages and the like lead there", "let the service answer");
        }
    }
    found
}

fn location(
    work: &mut Work<'_>,
    directive: &Directive,
    scope: &Scope,
    named: &BTreeMap<&str, &Directive>,
    outer: Option<&Matcher>,
    found: &mut Vec<Location>,
) {
    let Some(matcher) = matcher(directive) else {
        return work.ledger.lost(directive, "is not a location that is understood", "a [[route]]");
    };
    if matches!((&matcher, outer), (Matcher::Regex(_), Some(_))) {
        let why = "a pattern inside a location has to be asked together with it; the outer one is held shut";
        return work.ledger.lost(directive, why, "a route with path_regex that has the outer path in it");
    }
    work.ledger.carried(directive);
    let block = directive.inner();
    let inside = work.scope(scope, block);
    let mut body = Body::read(work, block, &inside, &matcher, named);
    let has_pattern = |inner: &Directive| inner.name == "location" && matches!(self::matcher(inner), Some(Matcher::Regex(_)));
    if block.iter().any(has_pattern) {
        body.guards = true;
        body.held.get_or_insert_with(|| "a pattern inside it would have to be asked together with it".to_owned());
    }
    let rate = inside.rates.record().or(body.rate.take());
    let fate = body.fate(&inside);
    match &fate {
        Passage::Held { because, .. } => {
            let why = format!("{because}; held shut: its requests are answered 503");
            work.ledger.lost_itself(directive, why, "give the route a service once it may be opened");
        }
        Passage::Open { .. } => {
            work.settings.body_size(inside.body_size, &directive.place);
            differences(work, directive, &matcher);
            if !inside.keeps_host {
                let why = "nginx sends the name of the upstream as Host where nothing else is said; here the client's is kept";
                work.ledger.differs(directive, why);
            }
        }
    }
    let place = directive.place.clone();
    found.push(Location { matcher: matcher.clone(), fate, rate, place, said: directive.to_string() });
    for nested in block.iter().filter(|inner| inner.name == "location") {
        location(work, nested, &inside, named, Some(&matcher), found);
    }
}

fn matcher(directive: &Directive) -> Option<Matcher> {
    let prefix = |path: &str, stops| Matcher::Prefix { path: path.to_owned(), stops };
    Some(match (directive.arg(0), directive.args.get(1).map(String::as_str)) {
        ("=", Some(path)) => Matcher::Exact(path.to_owned()),
        ("^~", Some(path)) => prefix(path, true),
        ("~", Some(regex)) => Matcher::Regex(regex.to_owned()),
        ("~*", Some(regex)) => Matcher::Regex(format!("(?i){regex}")),
        (_, Some(_)) | ("", None) => return None,
        (joined, None) => {
            match [("=", 0), ("^~", 1), ("~*", 3), ("~", 2)].iter().find_map(|(m, n)| Some((joined.strip_prefix(m)?, n))) {
                Some((path, 0)) => Matcher::Exact(path.to_owned()),
                Some((path, 1)) => prefix(path, true),
                Some((regex, 2)) => Matcher::Regex(regex.to_owned()),
                Some((regex, _)) => Matcher::Regex(format!("(?i){regex}")),
                None => prefix(joined, false),
            }
        }
    })
}

/// What a prefix takes here and there.
fn differences(work: &mut Work<'_>, directive: &Directive, matcher: &Matcher) {
    let Matcher::Prefix { path, .. } = matcher else { return };
    if path == "/" {
        return;
    }
    let why = match path.strip_suffix('/') {
        Some(bare) => format!("{bare} without its slash comes here, too, where nginx answers with a redirect to {path}"),
        None => format!("a prefix is whole segments: {path} and {path}/…, not {path}x"),
    };
    work.ledger.differs(directive, why);
}

/// What a location does with its requests.
#[derive(Default)]
struct Body {
    service: Option<String>,
    /// Why it cannot be opened.
    held: Option<String>,
    /// And that is to keep somebody out.
    guards: bool,
    /// Of where it falls back to.
    rate: Option<Json>,
}

impl Body {
    fn read(
        work: &mut Work<'_>,
        block: &[Directive],
        scope: &Scope,
        matcher: &Matcher,
        named: &BTreeMap<&str, &Directive>,
    ) -> Self {
        let mut body = Self::default();
        for directive in block {
            let name = directive.name.as_str();
            if name == "location" || Scope::reads(name) {
                continue;
            }
            if Settings::reads(name) {
                work.settings.take(directive, &mut work.ledger);
                continue;
            }
            let held = match (name, fate(name)) {
                ("proxy_pass" | "grpc_pass", _) => body.pass(work, directive, scope, matcher),
                ("rewrite", _) => rewrite(work, directive),
                ("return", _) => {
                    body.guards |= directive.arg(0).starts_with('4');
                    work.ledger.lost(directive, "Pointsman gives no answers of its own making", "let a service answer");
                    Some("nginx answers by itself".to_owned())
                }
                ("if", _) => {
                    body.guards = true;
                    work.ledger.lost(
                        directive,
                        "there are no conditions but those of routes",
                        "headers, query, methods of a route",
                    );
                    Some("what it does is subject to an if".to_owned())
                }
                ("try_files", Fate::Answers(why, instead)) => {
                    work.ledger.lost(directive, why, instead);
                    let last = directive.args.last().and_then(|last| named.get(last.as_str()));
                    match last {
                        Some(fallback) => body.fall_back(work, fallback, scope, matcher),
                        None => Some("it serves files".to_owned()),
                    }
                }
                (_, Fate::Answers(why, instead)) => {
                    work.ledger.lost(directive, why, instead);
                    Some("nginx answers by itself".to_owned())
                }
                (_, Fate::Note(why)) => {
                    work.ledger.note(directive, why);
                    None
                }
                (_, Fate::Lost(why, instead)) => {
                    work.ledger.lost(directive, why, instead);
                    None
                }
                (_, Fate::Guard(_)) => None,
            };
            body.held = body.held.or(held);
        }
        body
    }

    fn pass(&mut self, work: &mut Work<'_>, directive: &Directive, scope: &Scope, matcher: &Matcher) -> Option<String> {
        let Some((target, uri)) = target(directive.arg(0)) else {
            let why = "is not a host and port that are known before a request comes";
            work.ledger.lost(directive, why, "a route for each service");
            return Some("where it passes to is not known".to_owned());
        };
        let Some(service) = work.services.used(&target, scope, work.sources, directive, &mut work.ledger) else {
            work.ledger.lost(directive, "is neither an upstream nor a host and port", "a service with instances");
            return Some("where it passes to is not known".to_owned());
        };
        self.service = Some(service);
        let keeps_path = match (uri, matcher) {
            ("" | "$request_uri" | "$uri$is_args$args", _) => true,
            (uri, Matcher::Exact(path) | Matcher::Prefix { path, .. }) => uri == path,
            (_, Matcher::Regex(_)) => false,
        };
        if keeps_path {
            work.ledger.carried(directive);
            return None;
        }
        let instead = "let the service answer under the path that clients ask for";
        work.ledger.lost(directive, format!("the path would have to become {uri}, and paths are forwarded as they are"), instead);
        Some("the path is changed".to_owned())
    }

    /// `try_files … @name`: files are missing, but what would be asked without them is not.
    fn fall_back(&mut self, work: &mut Work<'_>, named: &Directive, scope: &Scope, matcher: &Matcher) -> Option<String> {
        work.ledger.carried(named);
        let inside = work.scope(scope, named.inner());
        let body = Self::read(work, named.inner(), &inside, matcher, &BTreeMap::new());
        self.service = body.service;
        self.guards |= body.guards || !inside.guards.is_empty();
        self.rate = inside.rates.record();
        body.held.or(inside.guarded())
    }

    fn fate(self, scope: &Scope) -> Passage {
        let guards = self.guards || !scope.guards.is_empty();
        match (scope.guarded().or(self.held), self.service) {
            (None, Some(service)) => Passage::Open { service },
            (Some(because), service) => Passage::Held { because, service, guards },
            (None, None) => Passage::Held { because: "it serves files".to_owned(), service: None, guards },
        }
    }
}

/// A redirect is only missing; a path that is changed on its way must not reach the service as it is.
fn rewrite(work: &mut Work<'_>, directive: &Directive) -> Option<String> {
    let redirects = matches!(directive.arg(2), "redirect" | "permanent") || directive.arg(1).contains("://");
    let instead =
        if redirects { "let the service redirect" } else { "let the service answer under the path that clients ask for" };
    work.ledger.lost(directive, "paths are forwarded as they are", instead);
    (!redirects).then(|| "the path is changed".to_owned())
}

/// Scheme and authority, and what stands after them.
fn target(said: &str) -> Option<(Target<'_>, &str)> {
    let (scheme, rest) = said.split_once("://").unwrap_or(("http", said));
    let protocol = match scheme {
        "http" => "http",
        "https" => "https",
        "grpc" => "h2c",
        "grpcs" => "h2",
        _ => return None,
    };
    if rest.starts_with("unix:") {
        return None;
    }
    let end = rest.find(['/', '$']).unwrap_or(rest.len());
    let (authority, uri) = rest.split_at(end);
    // A variable right behind the host would be part of it, but for those that are the path itself.
    let is_whole = !uri.starts_with('$') || uri.starts_with("$request_uri") || uri.starts_with("$uri$");
    (!authority.is_empty() && is_whole).then_some((Target { authority, protocol }, uri))
}
