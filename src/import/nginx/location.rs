//! Locations: which requests they take, and where those go.
//!
//! A location is opened only if its service is sent what nginx would send it. Where nginx answers by itself, rewrites the
//! path, or keeps somebody out, the location is held shut: no broader one may take its requests.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::Work;
use super::body::Body;
use super::edits::Does;
use super::fields::SentHost;
use super::scope::Scope;
use crate::import::findings::Place;
use crate::import::grammar::Directive;

#[derive(Debug, Clone)]
pub struct Location {
    /// The server rewrites these before it looks for a location.
    pub first: bool,
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
    /// As nginx does.
    Open { does: Does },
    /// Why, and the service that would be asked. `answer`: what nginx itself says. `guards`: somebody is kept out, so no other
    /// spelling of the path may lead in.
    Held { because: String, service: Option<String>, answer: Option<Does>, guards: bool },
}

impl Location {
    pub fn is_open(&self) -> bool {
        matches!(self.fate, Passage::Open { .. })
    }

    /// Where its requests go.
    pub fn service(&self) -> Option<&str> {
        match &self.fate {
            Passage::Open { does } => does.get("service").and_then(Json::as_str),
            Passage::Held { .. } => None,
        }
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
        Passage::Held { answer: Some(_), .. } => {}
        Passage::Held { because, .. } => {
            let why = format!("{because}; held shut: its requests are answered 503");
            work.ledger.lost_itself(directive, why, "give the route a service once it may be opened");
        }
        Passage::Open { .. } => {
            work.settings.body_size(inside.body_size, &directive.place);
            differences(work, directive, &matcher);
            if inside.fields.host == SentHost::Unsaid && matches!(&fate, Passage::Open { does } if does.contains_key("service")) {
                let why = "nginx sends the name of the upstream as Host where nothing else is said; here the client's is kept";
                work.ledger.differs(directive, why);
            }
        }
    }
    let place = directive.place.clone();
    found.push(Location { first: false, matcher: matcher.clone(), fate, rate, place, said: directive.to_string() });
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
