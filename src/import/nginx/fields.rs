//! The header fields that a block changes, for itself and for those inside it that say nothing of the kind: `proxy_set_header`,
//! `add_header`, `proxy_hide_header`, and what `return` says its text is.

use serde_json::{Map, Value as Json, json};

use super::edits::{Does, is_field, text};
use super::routes::checked;
use crate::import::findings::Ledger;
use crate::import::grammar::Directive;

#[derive(Debug, Clone)]
pub struct FieldChanges {
    pub host: SentHost,
    /// Of requests: what is set, and to which text; empty texts take a field away.
    requests: Vec<(String, String)>,
    /// Of answers: what is added.
    answers: Vec<(String, String)>,
    /// Of answers: what is taken away.
    hidden: Vec<String>,
    pub hsts: Option<Json>,
    /// The type of what `return` says.
    pub kind: String,
}

/// What instances get as `Host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SentHost {
    /// Nothing is said: nginx sends the upstream's.
    Unsaid,
    OfClient,
    OfUpstream,
    Said(String),
}

impl Default for FieldChanges {
    fn default() -> Self {
        Self {
            host: SentHost::Unsaid,
            requests: Vec::new(),
            answers: Vec::new(),
            hidden: Vec::new(),
            hsts: None,
            kind: "text/plain".to_owned(),
        }
    }
}

impl FieldChanges {
    pub fn reads(name: &str) -> bool {
        ["proxy_set_header", "add_header", "proxy_hide_header", "default_type"].contains(&name)
    }

    /// What a block says of one kind is all that is said of it.
    pub fn inside(&mut self, block: &[Directive]) {
        let says = |name: &str| block.iter().any(|directive| directive.name == name);
        if says("proxy_set_header") {
            (self.host, self.requests) = (SentHost::Unsaid, Vec::new());
        }
        if says("add_header") {
            (self.hsts, self.answers) = (None, Vec::new());
        }
        if says("proxy_hide_header") {
            self.hidden.clear();
        }
    }

    pub fn take(&mut self, directive: &Directive, ledger: &mut Ledger) {
        match directive.name.as_str() {
            "proxy_set_header" => self.request(directive, ledger),
            "add_header" => self.answer(directive, ledger),
            "proxy_hide_header" => self.hide(directive, ledger),
            _ => {
                self.kind = directive.arg(0).to_owned();
                ledger.carried(directive);
            }
        }
    }

    /// What is done, with what is changed in the fields of requests and answers besides.
    pub fn changing(&self, mut does: Does) -> Does {
        let (gone, set): (Vec<_>, Vec<_>) = self.requests.iter().partition(|(_, text)| text.is_empty());
        let mut requests = Map::new();
        if !set.is_empty() {
            let set = set.into_iter().map(|(name, text)| (name.clone(), json!(text))).collect();
            requests.insert("set".to_owned(), Json::Object(set));
        }
        if !gone.is_empty() {
            requests.insert("remove".to_owned(), gone.into_iter().map(|(name, _)| json!(name)).collect());
        }
        if !requests.is_empty() {
            does.insert("request_headers".to_owned(), Json::Object(requests));
        }
        self.changing_answers(does)
    }

    /// The same for who sends no request on.
    pub fn changing_answers(&self, mut does: Does) -> Does {
        let mut answers = Map::new();
        if !self.answers.is_empty() {
            let add = self.answers.iter().map(|(name, text)| (name.clone(), json!(text))).collect();
            answers.insert("add".to_owned(), Json::Object(add));
        }
        if !self.hidden.is_empty() {
            answers.insert("remove".to_owned(), json!(self.hidden));
        }
        if !answers.is_empty() {
            does.insert("response_headers".to_owned(), Json::Object(answers));
        }
        does
    }

    fn request(&mut self, directive: &Directive, ledger: &mut Ledger) {
        let (name, value) = (directive.arg(0).to_ascii_lowercase(), directive.arg(1));
        let only_trusted = "what the client says of itself is believed only if it is one of proxy.trusted_proxies";
        match (name.as_str(), value) {
            ("host", "$host" | "$http_host" | "$host:$server_port") => {
                self.host = SentHost::OfClient;
                ledger.carried(directive);
            }
            ("host", "$proxy_host") => {
                self.host = SentHost::OfUpstream;
                ledger.carried(directive);
            }
            ("host", literal) if !literal.contains('$') && is_host(literal) => {
                self.host = SentHost::Said(literal.to_owned());
                ledger.carried(directive);
            }
            ("host", _) => {
                // Told here; the location need not say it again.
                self.host = SentHost::OfClient;
                ledger.lost(directive, "the client's Host is kept", "rewrite.host of the route, or let the service answer to it");
            }
            ("x-forwarded-for", "$remote_addr") | ("x-forwarded-proto", "$scheme") | ("x-request-id", "$request_id") => {
                ledger.carried(directive);
            }
            ("x-forwarded-host", "$host" | "$http_host") | ("upgrade", "$http_upgrade") => ledger.carried(directive),
            ("connection", "" | "upgrade" | "Upgrade" | "close" | "$connection_upgrade" | "$http_connection") => {
                ledger.carried(directive);
            }
            ("x-forwarded-for", "$proxy_add_x_forwarded_for") => ledger.differs(directive, only_trusted),
            ("x-forwarded-proto", "$http_x_forwarded_proto") => ledger.differs(directive, only_trusted),
            // What the client says of it goes on anyway.
            (name, value) if value.strip_prefix("$http_").is_some_and(|same| same == name.replace('-', "_")) => {
                ledger.carried(directive);
            }
            _ => self.set(directive, ledger),
        }
    }

    fn set(&mut self, directive: &Directive, ledger: &mut Ledger) {
        let (name, value) = (directive.arg(0), directive.arg(1));
        let instead = "request_headers of the route";
        let Some(text) = text(value) else {
            return ledger.lost(directive, "it has a variable that no placeholder stands for", instead);
        };
        let edit = if text.is_empty() { json!({"remove": [name]}) } else { json!({"set": {name: text}}) };
        match is_field("request_headers", edit) {
            Err(why) => ledger.lost(directive, why, instead),
            Ok(()) => {
                self.requests.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
                self.requests.push((name.to_owned(), text));
                ledger.carried(directive);
            }
        }
    }

    fn answer(&mut self, directive: &Directive, ledger: &mut Ledger) {
        let (name, value) = (directive.arg(0), directive.arg(1));
        match name.eq_ignore_ascii_case("strict-transport-security").then(|| hsts(value)).flatten() {
            Some(hsts) => {
                self.hsts = Some(hsts);
                ledger.carried(directive);
            }
            None => self.add(directive, ledger),
        }
    }

    fn add(&mut self, directive: &Directive, ledger: &mut Ledger) {
        let (name, value) = (directive.arg(0), directive.arg(1));
        let instead = "response_headers of the route";
        let Some(text) = text(value) else {
            return ledger.lost(directive, "it has a variable that no placeholder stands for", instead);
        };
        if name.eq_ignore_ascii_case("content-type") && is_field("response_headers", json!({"add": {name: text}})).is_ok() {
            self.kind = text;
            return ledger.differs(directive, "it is the type of what return says; an instance's own is left as it is");
        }
        if self.answers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            return ledger.lost(directive, "a route adds a field of one name once", instead);
        }
        match is_field("response_headers", json!({"add": {name: text}})) {
            Err(why) => ledger.lost(directive, why, instead),
            Ok(()) => {
                self.answers.push((name.to_owned(), text));
                if directive.arg(2) == "always" {
                    ledger.carried(directive);
                } else {
                    ledger.differs(directive, "it is added to all answers of instances, those with 4xx and 5xx, too");
                }
            }
        }
    }

    fn hide(&mut self, directive: &Directive, ledger: &mut Ledger) {
        let name = directive.arg(0);
        match is_field("response_headers", json!({"remove": [name]})) {
            Err(why) => ledger.lost(directive, why, "response_headers of the route"),
            Ok(()) => {
                if !self.hidden.iter().any(|hidden| hidden.eq_ignore_ascii_case(name)) {
                    self.hidden.push(name.to_owned());
                }
                ledger.carried(directive);
            }
        }
    }
}

/// `max-age=31536000; includeSubDomains; preload` as `[listener.tls.hsts]`.
fn hsts(value: &str) -> Option<Json> {
    let mut hsts = Map::new();
    for part in value.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        match part.to_ascii_lowercase().as_str() {
            "includesubdomains" => hsts.insert("include_subdomains".to_owned(), json!(true)),
            "preload" => hsts.insert("preload".to_owned(), json!(true)),
            lower => {
                let seconds: u64 = lower.strip_prefix("max-age=")?.trim_matches('"').parse().ok()?;
                (1..=365 * 24 * 60 * 60).contains(&seconds).then_some(())?;
                hsts.insert("max_age".to_owned(), json!(format!("{seconds}s")))
            }
        };
    }
    let is_whole = hsts.contains_key("max_age") && (!hsts.contains_key("preload") || hsts.contains_key("include_subdomains"));
    is_whole.then_some(Json::Object(hsts))
}

/// As a route may say it.
fn is_host(said: &str) -> bool {
    let route = Map::from_iter([("service".to_owned(), json!("any")), ("rewrite".to_owned(), json!({"host": said}))]);
    checked("any", &route).is_ok()
}
