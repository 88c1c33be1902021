//! `/api/v1/explain`: what would become of a request that came now, and why. Nothing is sent anywhere.

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{Method, Uri};
use serde_json::{Value as Json, json};

use super::query::Query;
use super::reply::Refusal;
use super::routes;
use super::sources::Sources;
use crate::catalog::Snapshot;
use crate::model::{
    Action, FieldMatch, HostPattern, InstanceId, PathMatch, RateKey, RateLimit, RouteSpec, ServiceName, ValueMatch, plain_path,
};
use crate::pool::{Instance, Moment, PickError, Service, View};
use crate::routing::{Question, Words, host_of, location, rewritten};

pub fn explain(sources: &Sources, query: Option<&str>) -> Result<Json, Refusal> {
    let asked = Asked::read(&Query::parse(query, &["method", "url", "header"])?)?;
    let snapshot = sources.live.load_full();
    let question =
        Question { host: &asked.host, path: &asked.path, query: &asked.query, method: &asked.method, headers: &asked.fields };
    let mut said = json!({
        "revision": snapshot.revision,
        "request": { "method": asked.method.as_str(), "host": asked.host, "path": asked.path, "query": asked.query },
    });
    let Some(route) = snapshot.routes.find(&question) else {
        said["outcome"] = "no_route".into();
        said["why"] = no_route(&snapshot, &asked.host).into();
        return Ok(said);
    };
    said["route"] = routes::one(&snapshot, route);
    said["why"] = why(&route.spec, &asked.host).into();
    if let Some(limit) = &route.spec.rate_limit {
        said["rate"] = rate(limit).into();
    }
    match &route.spec.action {
        Action::Forward(name) => forwarded(&mut said, name, snapshot.services.get(name), &route.spec, &asked),
        Action::Redirect(redirect) => {
            said["outcome"] = "redirect".into();
            said["answer"] = match location(redirect, &route.spec, asked.words()) {
                Ok(location) => json!({ "status": redirect.status, "location": location }),
                Err(why) => json!({ "status": 400, "why": why }),
            };
        }
        Action::Respond(respond) => {
            said["outcome"] = "respond".into();
            said["answer"] = json!({ "status": respond.status });
        }
    }
    Ok(said)
}

fn forwarded(said: &mut Json, name: &ServiceName, service: Option<&Arc<Service>>, spec: &RouteSpec, asked: &Asked) {
    said["service"] = name.as_str().into();
    match rewritten(spec, &asked.path, asked.query()) {
        Ok(None) => {}
        Ok(Some(target)) => said["rewritten"] = target.into(),
        Err(why) => {
            said["outcome"] = "malformed".into();
            said["answer"] = json!({ "status": 400, "why": why });
            return;
        }
    }
    said["outcome"] = outcome(service.map(|s| &**s)).into();
    if let Some(service) = service {
        let now = Moment::of(Instant::now());
        let view = service.view(now);
        said["balance"] = service.policy.balance.as_str().into();
        said["panic"] = view.panic.into();
        said["candidates"] = candidates(service, &view, now);
        said["others"] = others(service, &view, now);
        said["counts"] = json!({ "total": service.pool.all().len(), "candidates": view.n_candidates() });
    }
}

/// The request in question.
struct Asked {
    method: Method,
    scheme: &'static str,
    /// Lower case, without port or final dot.
    host: String,
    path: String,
    query: String,
    fields: HeaderMap,
}

impl Asked {
    fn read(query: &Query) -> Result<Self, Refusal> {
        let wrong = |message: String| Err(Refusal::Query(message));
        let Ok(method) = query.get("method").filter(|m| !m.is_empty()).unwrap_or("GET").to_ascii_uppercase().parse() else {
            return wrong("method: not a method".to_owned());
        };
        let Some(url) = query.get("url") else {
            return wrong("url is missing; an example is ?method=GET&url=http://shop.example/api".to_owned());
        };
        let Ok(uri) = url.parse::<Uri>() else {
            return wrong(format!("url: {url:?} is not a URL; an example is http://shop.example/api?x=1"));
        };
        let mut fields = HeaderMap::new();
        for said in query.all("header") {
            let field = said.split_once(':').and_then(|(name, value)| {
                let name = HeaderName::try_from(name.trim()).ok()?;
                Some((name, HeaderValue::try_from(value.trim()).ok()?))
            });
            let Some((name, value)) = field else {
                return wrong(format!("header: {said:?} is not `Name: value`"));
            };
            fields.append(name, value);
        }
        // Of the two the target wins, as on the wire.
        let named = fields.get(http::header::HOST).and_then(|host| host.to_str().ok());
        let Some(host) = uri.authority().map(without_user).or(named).map_or(Some(Cow::Borrowed("")), host_of) else {
            return wrong("url: the proxy would answer 400: Host is not a host name or an address".to_owned());
        };
        let host = host.into_owned();
        let path = if uri.path().is_empty() { "/" } else { uri.path() };
        let scheme = if uri.scheme_str() == Some("https") { "https" } else { "http" };
        match plain_path(path) {
            Ok(path) => {
                let (path, query) = (path.into_owned(), uri.query().unwrap_or_default().to_owned());
                Ok(Self { method, scheme, host, path, query, fields })
            }
            Err(reason) => wrong(format!("url: the proxy would answer 400: {reason}")),
        }
    }

    /// Who would ask, and by which name, is not known.
    fn words(&self) -> Words<'_> {
        let (client, request_id) = (Ipv4Addr::UNSPECIFIED.into(), "-");
        Words { client, host: &self.host, scheme: self.scheme, path: &self.path, query: self.query(), request_id }
    }

    fn query(&self) -> Option<&str> {
        Some(&*self.query).filter(|query| !query.is_empty())
    }
}

/// Clients keep the user of a URL to themselves.
fn without_user(authority: &Authority) -> &str {
    authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, host)| host)
}

fn outcome(service: Option<&Service>) -> &'static str {
    let Some(service) = service else { return "no_instances" };
    match service.would_refuse(Moment::of(Instant::now())) {
        None => "forward",
        Some(PickError::NoInstances) => "no_instances",
        Some(_) => "none_healthy",
    }
}

fn no_route(snapshot: &Snapshot, host: &str) -> String {
    let routes = snapshot.routes.routes();
    let of_host = routes.iter().filter(|route| host_match(&route.spec, host).is_some()).count();
    match (routes.len(), of_host) {
        (0, _) => "there are no routes".to_owned(),
        (_, 0) => format!("no route is for the host {host:?} or for any host"),
        (_, n) => {
            format!("{n} routes are for the host {host:?}, but none of them for this path with this method, headers and query")
        }
    }
}

/// What of the route the request met, in the order in which routes are preferred.
fn why(spec: &RouteSpec, host: &str) -> Vec<String> {
    let mut why = Vec::new();
    if spec.priority != 0 {
        why.push(format!("its priority is {}", spec.priority));
    }
    why.push(match host_match(spec, host) {
        Some(HostMatch::Exact) => format!("it names the host {host}"),
        Some(HostMatch::Wildcard(pattern)) => format!("{host} is below {pattern}"),
        Some(HostMatch::Any) | None => "it is for any host".to_owned(),
    });
    why.push(match &spec.path {
        PathMatch::Any => "it is for any path".to_owned(),
        PathMatch::Exact(path) => format!("it names the path {path}"),
        PathMatch::Prefix(prefix) => format!("the path begins with {prefix}"),
        PathMatch::Regex(regex) => format!("the path matches {regex}"),
    });
    if !spec.methods.is_empty() {
        let methods: Vec<&str> = spec.methods.iter().map(Method::as_str).collect();
        why.push(format!("the method is one of {}", methods.join(", ")));
    }
    why.extend(spec.headers.iter().map(|field| condition("header", field)));
    why.extend(spec.query.iter().map(|field| condition("query parameter", field)));
    why
}

enum HostMatch<'a> {
    Exact,
    /// The longest that fits.
    Wildcard(&'a HostPattern),
    Any,
}

fn host_match<'a>(spec: &'a RouteSpec, host: &str) -> Option<HostMatch<'a>> {
    if spec.hosts.is_empty() {
        return Some(HostMatch::Any);
    }
    if spec.hosts.iter().any(|pattern| matches!(pattern, HostPattern::Exact(name) if **name == *host)) {
        return Some(HostMatch::Exact);
    }
    let fits = |pattern: &&HostPattern| matches!(pattern, HostPattern::Suffix(suffix) if host.ends_with(&**suffix));
    let length = |pattern: &&HostPattern| match pattern {
        HostPattern::Exact(name) | HostPattern::Suffix(name) => name.len(),
    };
    spec.hosts.iter().filter(fits).max_by_key(length).map(HostMatch::Wildcard)
}

fn condition(what: &str, field: &FieldMatch) -> String {
    match &field.value {
        ValueMatch::Present => format!("the {what} {} is there", field.name),
        ValueMatch::Exact(value) => format!("the {what} {} is {value}", field.name),
        ValueMatch::Regex(regex) => format!("the {what} {} matches {regex}", field.name),
    }
}

fn rate(limit: &RateLimit) -> String {
    let RateLimit { requests, per, burst, by, dry_run } = limit;
    let whose = match by {
        RateKey::ClientAddress => "of each client address".to_owned(),
        RateKey::Route => "of all clients together".to_owned(),
        RateKey::Header(name) => format!("with the same {name}"),
    };
    let per = humantime::format_duration(*per);
    format!("{requests} in {per}, {burst} at once, {whose}{}", if *dry_run { "; only counted" } else { "" })
}

fn candidates(service: &Service, view: &View, now: Moment) -> Json {
    let candidates = view.candidates(service);
    let total: u64 = candidates.clone().map(|(_, weight)| u64::from(weight)).sum();
    let one = |(i, weight): (&Arc<Instance>, u32)| {
        json!({
            "id": i.id.as_str(),
            "address": i.spec.address.to_string(),
            "weight": i.standing.weight,
            "share_percent": (f64::from(weight) * 1e4 / total.max(1) as f64).round() / 1e2,
            "in_flight": i.state.in_flight(),
            "reason": service.why_less(i, now),
        })
    };
    candidates.take(LISTED_MAX).map(one).collect()
}

fn others(service: &Service, view: &View, now: Moment) -> Json {
    let picked: HashSet<&InstanceId> = view.candidates(service).map(|(i, _)| &i.id).collect();
    let others = service.pool.all().iter().filter(|i| !picked.contains(&i.id)).take(LISTED_MAX);
    let one = |i: &Arc<Instance>| json!({ "id": i.id.as_str(), "address": i.spec.address.to_string(), "reason": service.reason(i, now) });
    others.map(one).collect()
}

/// Of each list; `counts` has the whole numbers. More than anybody reads, and small enough to be written at once.
const LISTED_MAX: usize = 1000;
