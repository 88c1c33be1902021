//! The services that locations pass to: an `upstream`, or an address that stands in `proxy_pass` itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::scope::Scope;
use super::upstream::{Upstream, address};
use crate::import::confd::Source;
use crate::import::findings::{Ledger, Place, Weight};
use crate::import::grammar::Directive;
use crate::import::{HELD, Service};
use crate::wire::parse_policy;
use crate::wire::scalar::show_duration;

#[derive(Debug, Default)]
pub struct Services {
    upstreams: BTreeMap<String, Upstream>,
    /// By what they pass to, and how it is spoken to.
    used: BTreeMap<(String, &'static str), Draft>,
    names: BTreeSet<String>,
}

#[derive(Debug)]
struct Draft {
    name: String,
    /// Where it is passed to first.
    place: Place,
    instances: Vec<Map<String, Json>>,
    policy: Map<String, Json>,
    source: Option<Source>,
    connect: Option<Duration>,
    read: Option<Duration>,
    send: Option<Duration>,
}

/// Where a location passes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'a> {
    /// An upstream, or HOST:PORT.
    pub authority: &'a str,
    pub protocol: &'static str,
}

impl Services {
    pub fn declare(&mut self, upstream: Upstream) {
        self.upstreams.insert(upstream.name.clone(), upstream);
    }

    /// The name of the service; `None` if it can be none, which is told.
    pub fn used(
        &mut self,
        target: &Target<'_>,
        scope: &Scope,
        sources: &[Source],
        said: &Directive,
        ledger: &mut Ledger,
    ) -> Option<String> {
        let key = (target.authority.to_owned(), target.protocol);
        if !self.used.contains_key(&key) {
            let draft = self.draft(target, sources, said, ledger)?;
            self.used.insert(key.clone(), draft);
        }
        let draft = self.used.get_mut(&key)?;
        draft.agree(scope, target.protocol, said, ledger);
        Some(draft.name.clone())
    }

    /// Those that nothing passes to are told by whoever declared them.
    pub fn is_used(&self, upstream: &str) -> bool {
        self.used.keys().any(|(authority, _)| authority == upstream)
    }

    pub fn into_services(self, ledger: &mut Ledger) -> Vec<Service> {
        self.used.into_values().map(|draft| draft.service(ledger)).collect()
    }

    fn draft(&mut self, target: &Target<'_>, sources: &[Source], said: &Directive, ledger: &mut Ledger) -> Option<Draft> {
        let port = if matches!(target.protocol, "https" | "h2") { 443 } else { 80 };
        let upstream = self.upstreams.get(target.authority);
        let (mut instances, policy) = match upstream {
            Some(upstream) => (upstream.instances.clone(), upstream.policy.clone()),
            None => {
                let address = address(target.authority, port)?;
                (vec![Map::from_iter([("address".to_owned(), json!(address))])], Map::new())
            }
        };
        let source = upstream.and_then(|upstream| Source::of(sources, &upstream.file, &upstream.name)).cloned();
        if source.is_some() {
            instances.clear();
            if target.protocol != "http" {
                let why =
                    format!("instances of the registry speak http, unless their value says {}://HOST:PORT", target.protocol);
                ledger.lost(said, why, "write it so, or register them with pointsman register");
            }
        } else if target.protocol != "http" {
            instances.iter_mut().for_each(|record| drop(record.insert("protocol".to_owned(), json!(target.protocol))));
        }
        let taken = |name: &String| name == HELD || self.names.contains(name);
        let plain = name_of(target.authority);
        let name = Some(plain.clone()).filter(|name| !taken(name)).unwrap_or_else(|| {
            let numbered = (1..).map(|n| if n == 1 { format!("{plain}-{}", target.protocol) } else { format!("{plain}-{n}") });
            numbered.map(|name| name_of(&name)).find(|name| !taken(name)).unwrap_or(plain)
        });
        self.names.insert(name.clone());
        let place = said.place.clone();
        Some(Draft { name, place, instances, policy, source, connect: None, read: None, send: None })
    }
}

impl Draft {
    /// A service has one policy: where locations disagree, the longest timeout counts, and the first of everything else.
    fn agree(&mut self, scope: &Scope, protocol: &str, said: &Directive, ledger: &mut Ledger) {
        let timeouts = [
            (&mut self.connect, scope.connect, "connect"),
            (&mut self.read, Some(scope.read.unwrap_or(NGINX_TIMEOUT)), "response_head"),
            (&mut self.send, Some(scope.send.unwrap_or(NGINX_TIMEOUT)), "idle"),
        ];
        for (known, here, key) in timeouts {
            if let (Some(known), Some(here)) = (*known, here)
                && known != here
            {
                ledger.differs(
                    said,
                    format!("a service has one timeouts.{key} for all locations: {}", show_duration(known.max(here))),
                );
            }
            *known = (*known).max(here);
        }
        let mut say = |key: &str, value: Json| match self.policy.get(key) {
            Some(known) if *known != value => {
                ledger.differs(said, format!("a service has one policy: another location has said its {key}"));
            }
            Some(_) => {}
            None => drop(self.policy.insert(key.to_owned(), value)),
        };
        if !scope.retry.is_empty() {
            say("retry", Json::Object(scope.retry.clone()));
        }
        if matches!(protocol, "https" | "h2") {
            let mut tls = Map::from_iter([("verify".to_owned(), json!(scope.verify))]);
            tls.extend(scope.server_name.iter().map(|name| ("server_name".to_owned(), json!(name))));
            tls.extend(scope.ca.iter().map(|ca| ("ca".to_owned(), json!(ca))));
            say("tls", Json::Object(tls));
        }
    }

    fn service(self, ledger: &mut Ledger) -> Service {
        let mut policy = self.policy;
        let (read, send) = (self.read.unwrap_or(NGINX_TIMEOUT), self.send.unwrap_or(NGINX_TIMEOUT));
        let mut timeouts = Map::new();
        timeouts.extend(self.connect.map(|time| ("connect".to_owned(), json!(show_duration(time)))));
        timeouts.insert("response_head".to_owned(), json!(show_duration(read)));
        timeouts.insert("idle".to_owned(), json!(show_duration(read.max(send))));
        timeouts.insert("upgraded_idle".to_owned(), json!(show_duration(read.max(send))));
        policy.insert("timeouts".to_owned(), Json::Object(timeouts));
        while let Err(problems) = parse_policy(Json::Object(policy.clone()).to_string().as_bytes()) {
            for problem in problems {
                let field = problem.path.split(['.', '[']).next().unwrap_or_default();
                if policy.remove(field).is_none() {
                    policy.clear();
                }
                let instead = Some(format!("the policy of the service {}, by hand", self.name));
                ledger.say(Weight::Lost, &self.place, format!("service {}", self.name), problem.to_string(), instead);
            }
        }
        Service { name: self.name, instances: self.instances, policy, source: self.source }
    }
}

/// As a name of ours may be.
pub fn name_of(said: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._:@+-".contains(c);
    let name: String = said.chars().map(|c| if fits(c) { c } else { '-' }).take(NAME_MAX).collect();
    if name.is_empty() { "-".to_owned() } else { name }
}

/// What nginx waits for instances where nothing is said.
const NGINX_TIMEOUT: Duration = Duration::from_secs(60);
/// Leaves room for a number.
const NAME_MAX: usize = 120;
