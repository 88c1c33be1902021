//! What a location does with its requests: where it passes them, what it makes of their path, or what it says by itself.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::Work;
use super::edits::{self, Does};
use super::fields::SentHost;
use super::location::{Location, Matcher, Passage};
use super::scope::Scope;
use super::services::Target;
use super::settings::Settings;
use super::words::{Fate, fate};
use crate::import::grammar::Directive;

/// What a location does with its requests.
#[derive(Default)]
pub struct Body {
    service: Option<String>,
    /// As it stands in `proxy_pass`.
    authority: Option<String>,
    /// What becomes of the path on its way to the service.
    rewrite: Option<Json>,
    /// A `rewrite` has made the path, so the URI of `proxy_pass` does not.
    breaks: bool,
    /// What nginx answers by itself.
    answer: Option<Does>,
    /// Why it cannot be opened.
    pub held: Option<String>,
    /// And that is to keep somebody out.
    pub guards: bool,
    /// Of where it falls back to.
    pub rate: Option<Json>,
}

impl Body {
    pub fn read(
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
                ("rewrite", _) => body.rewrite(work, directive, matcher),
                ("return", _) => body.answer(work, directive, scope),
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
        self.authority = Some(without_usual_port(&target).to_owned());
        let keeps_path = match (uri, matcher) {
            ("" | "$request_uri" | "$uri$is_args$args", _) => true,
            (uri, Matcher::Exact(path) | Matcher::Prefix { path, .. }) => uri == path,
            (_, Matcher::Regex(_)) => false,
        };
        if keeps_path || self.breaks {
            work.ledger.carried(directive);
            return None;
        }
        let Some((rewrite, differs)) = edits::passed(uri, matcher) else {
            let why = format!("the path would have to become {uri}, and no rewrite says that");
            work.ledger.lost(directive, why, "rewrite of the route");
            return Some("the path is changed".to_owned());
        };
        self.rewrite = Some(rewrite);
        match differs {
            Some(why) => work.ledger.differs(directive, why),
            None => work.ledger.carried(directive),
        }
        None
    }

    /// A path that is changed on its way must not reach the service as it is; a redirect of some paths is only missing.
    fn rewrite(&mut self, work: &mut Work<'_>, directive: &Directive, matcher: &Matcher) -> Option<String> {
        let (pattern, to, flag) = (edits::within(directive.arg(0), matcher), directive.arg(1), directive.arg(2));
        let is_only = self.answer.is_none() && !self.breaks;
        if redirects(directive) {
            let within = Directive { args: [vec![pattern], directive.args[1..].to_vec()].concat(), ..directive.clone() };
            let does = edits::redirect(&within).filter(|_| is_only && edits::covers(directive.arg(0), matcher));
            match &does {
                Some(_) => work.ledger.carried(directive),
                None => {
                    work.ledger.lost(directive, "a route redirects all of its requests", "a route with path_regex that redirects")
                }
            }
            self.answer = does.or(self.answer.take());
            return None;
        }
        match edits::rewrite(&pattern, to).filter(|_| is_only && flag == "break") {
            Some(rewrite) => {
                (self.rewrite, self.breaks) = (Some(rewrite), true);
                work.ledger.carried(directive);
                None
            }
            None => {
                let why = "only one rewrite of a location, with break, is the rewrite of a route";
                work.ledger.lost(directive, why, "rewrite of the route, once you know where it leads");
                Some("the path is changed".to_owned())
            }
        }
    }

    fn answer(&mut self, work: &mut Work<'_>, directive: &Directive, scope: &Scope) -> Option<String> {
        if self.answer.is_some() {
            work.ledger.note(directive, "nothing comes so far");
            return None;
        }
        let refuses = directive.arg(0).starts_with('4');
        self.guards |= refuses;
        match edits::answer(directive, &scope.fields.kind).filter(|_| !self.breaks) {
            Some(does) => {
                let has_page = directive.args.len() == 1 && refuses || directive.arg(0).starts_with('5');
                if has_page {
                    work.ledger.differs(directive, "the answer has no body, where nginx's is a page");
                } else {
                    work.ledger.carried(directive);
                }
                self.answer = Some(does);
                None
            }
            None => {
                work.ledger.lost(directive, "no answer of a route says that", "redirect or respond of the route");
                Some("nginx answers by itself".to_owned())
            }
        }
    }

    /// `try_files … @name`: files are missing, but what would be asked without them is not.
    fn fall_back(&mut self, work: &mut Work<'_>, named: &Directive, scope: &Scope, matcher: &Matcher) -> Option<String> {
        work.ledger.carried(named);
        let inside = work.scope(scope, named.inner());
        let body = Self::read(work, named.inner(), &inside, matcher, &BTreeMap::new());
        (self.service, self.authority, self.rewrite) = (body.service, body.authority, body.rewrite);
        self.answer = self.answer.take().or(body.answer);
        self.rate = inside.rates.record();
        self.guards |= body.guards || !inside.guards.is_empty();
        body.held.or(inside.guarded())
    }

    pub fn fate(self, scope: &Scope) -> Passage {
        let guards = self.guards || !scope.guards.is_empty();
        let held = |because, service, answer| Passage::Held { because, service, answer, guards };
        match (scope.guarded().or(self.held), self.answer, self.service) {
            (Some(because), _, service) => held(because, service, None),
            (None, Some(answer), _) => {
                let does = scope.fields.changing_answers(answer);
                if guards { held("nginx refuses".to_owned(), None, Some(does)) } else { Passage::Open { does } }
            }
            (None, None, Some(service)) => {
                let mut rewrite = match self.rewrite {
                    Some(Json::Object(rewrite)) => rewrite,
                    _ => Does::new(),
                };
                let host = match &scope.fields.host {
                    SentHost::Unsaid | SentHost::OfClient => None,
                    SentHost::OfUpstream => self.authority,
                    SentHost::Said(host) => Some(host.clone()),
                };
                rewrite.extend(host.map(|host| ("host".to_owned(), json!(host))));
                let mut does = Does::from_iter([("service".to_owned(), json!(service))]);
                if !rewrite.is_empty() {
                    does.insert("rewrite".to_owned(), Json::Object(rewrite));
                }
                Passage::Open { does: scope.fields.changing(does) }
            }
            (None, None, None) => held("it serves files".to_owned(), None, None),
        }
    }
}

/// What the server does with paths before it looks for a location: they are redirected, or they are those of a location that
/// is known beforehand. All others are held shut.
pub fn rewritten(work: &mut Work<'_>, directive: &Directive, scope: &Scope, locations: &[Location]) -> Location {
    let is_speakable = regex::Regex::new(directive.arg(0)).is_ok();
    let led = if !scope.guards.is_empty() || !is_speakable {
        None
    } else if redirects(directive) {
        edits::redirect(directive).map(|does| (scope.fields.changing_answers(does), None))
    } else {
        led_to(directive, locations)
    };
    let (fate, rate) = match led {
        Some((does, rate)) => {
            work.ledger.carried(directive);
            (Passage::Open { does }, rate)
        }
        None => {
            let why = "where it leads is not known before a request comes; what its pattern is for is held shut";
            work.ledger.lost(directive, why, "a route with path_regex and rewrite, or with redirect");
            let because = "the path is changed".to_owned();
            (Passage::Held { because, service: None, answer: None, guards: false }, None)
        }
    };
    let (place, said) = (directive.place.clone(), directive.to_string());
    Location { first: true, matcher: Matcher::Regex(directive.arg(0).to_owned()), fate, rate, place, said }
}

/// What becomes of a path that is rewritten, if what it begins with says which location it is for.
fn led_to(directive: &Directive, locations: &[Location]) -> Option<(Does, Option<Json>)> {
    let head = directive.arg(1).split(['$', '?']).next().unwrap_or_default();
    let mut led: Option<(&str, &Location)> = None;
    for location in locations {
        match &location.matcher {
            Matcher::Prefix { path, .. } if head.starts_with(path) => {
                if led.is_none_or(|(known, _)| known.len() < path.len()) {
                    led = Some((path, location));
                }
            }
            Matcher::Exact(path) | Matcher::Prefix { path, .. } if !path.starts_with(head) => {}
            _ => return None,
        }
    }
    let (_, location) = led?;
    let Passage::Open { does } = &location.fate else { return None };
    let mut does = does.clone();
    does.contains_key("service").then_some(())?;
    let rewrite = does.entry("rewrite").or_insert_with(|| json!({})).as_object_mut()?;
    let Json::Object(own) = edits::rewrite(directive.arg(0), directive.arg(1))? else { return None };
    if rewrite.keys().any(|key| key != "host") {
        return None;
    }
    rewrite.extend(own);
    Some((does, location.rate.clone()))
}

fn redirects(directive: &Directive) -> bool {
    matches!(directive.arg(2), "redirect" | "permanent") || directive.arg(1).contains("://")
}

/// As `$proxy_host` has it.
fn without_usual_port<'a>(target: &Target<'a>) -> &'a str {
    let usual = if matches!(target.protocol, "https" | "h2") { ":443" } else { ":80" };
    target.authority.strip_suffix(usual).unwrap_or(target.authority)
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
