//! What a block says for itself and for those inside it: forwarded fields, timeouts, retries, TLS to instances, rates, and what
//! keeps requests out.
//!
//! Values are inherited one by one; lists (`proxy_set_header`, `add_header`) are inherited only by a block that has none of
//! its own, as nginx does.

use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::rates::Rates;
use super::units;
use super::words::{Fate, fate};
use crate::import::files::{Files, path_from};
use crate::import::findings::Ledger;
use crate::import::grammar::Directive;

#[derive(Debug, Clone)]
pub struct Scope {
    pub keeps_host: bool,
    pub connect: Option<Duration>,
    pub read: Option<Duration>,
    pub send: Option<Duration>,
    /// Bytes; 0 is no limit.
    pub body_size: u64,
    /// Fields of `retry` in a policy.
    pub retry: Map<String, Json>,
    pub verify: bool,
    pub server_name: Option<String>,
    /// PEM.
    pub ca: Option<String>,
    /// What keeps requests out, all of it together: the directive's name, and all that it says.
    pub guards: Vec<(String, String)>,
    pub hsts: Option<Json>,
    pub rates: Rates,
}

/// As nginx has it where nothing is said.
impl Default for Scope {
    fn default() -> Self {
        Self {
            keeps_host: false,
            connect: None,
            read: None,
            send: None,
            body_size: 1024 * 1024,
            retry: Map::new(),
            verify: false,
            server_name: None,
            ca: None,
            guards: Vec::new(),
            hsts: None,
            rates: Rates::default(),
        }
    }
}

impl Scope {
    /// What holds inside `block`. Directives for which [`Scope::reads`] holds are accounted for.
    pub fn inside(&self, block: &[Directive], files: &dyn Files, folder: &str, ledger: &mut Ledger) -> Self {
        let mut scope = self.clone();
        if block.iter().any(|directive| directive.name == "proxy_set_header") {
            scope.keeps_host = false;
        }
        if block.iter().any(|directive| directive.name == "add_header") {
            scope.hsts = None;
        }
        scope.rates = self.rates.inside(block, ledger);
        for directive in block.iter().filter(|directive| Self::reads(&directive.name) && !Rates::reads(&directive.name)) {
            scope.take(directive, files, folder, ledger);
        }
        scope
    }

    /// Why nothing inside may be opened.
    pub fn guarded(&self) -> Option<String> {
        self.guards.first().map(|(_, said)| format!("{said} keeps requests out"))
    }

    pub fn reads(name: &str) -> bool {
        NAMES.contains(&name) || Rates::reads(name) || matches!(fate(name), Fate::Guard(_))
    }

    fn take(&mut self, directive: &Directive, files: &dyn Files, folder: &str, ledger: &mut Ledger) {
        let said = directive.arg(0);
        match directive.name.as_str() {
            "proxy_set_header" => self.field(directive, ledger),
            "add_header" => self.answer_field(directive, ledger),
            "proxy_connect_timeout" | "grpc_connect_timeout" => timeout(&mut self.connect, directive, ledger),
            "proxy_read_timeout" | "grpc_read_timeout" => timeout(&mut self.read, directive, ledger),
            "proxy_send_timeout" | "grpc_send_timeout" => timeout(&mut self.send, directive, ledger),
            "client_max_body_size" => match units::size(said) {
                Some(bytes) => {
                    self.body_size = bytes;
                    ledger.carried(directive);
                }
                None => ledger.lost(directive, "is not a size", "proxy.limits.body_size"),
            },
            "proxy_next_upstream" | "grpc_next_upstream" => self.retry_on(directive, ledger),
            "proxy_next_upstream_tries" => match said.parse::<u8>() {
                Ok(n @ 1..) => {
                    self.retry.insert("attempts".to_owned(), json!((n - 1).min(ATTEMPTS_MAX)));
                    ledger.carried(directive);
                }
                _ => ledger.differs(directive, "nginx tries every server; retry.attempts is 1 unless a policy says more"),
            },
            "proxy_next_upstream_timeout" if said == "0" => ledger.carried(directive),
            "proxy_next_upstream_timeout" => {
                ledger.lost(directive, "retries are bounded by number and budget", "retry.per_try_timeout of the service");
            }
            "proxy_ssl_verify" => {
                self.verify = said == "on";
                ledger.carried(directive);
            }
            "proxy_ssl_name" if said.contains('$') => {
                ledger.lost(directive, "there are no variables", "tls.server_name of the service");
            }
            "proxy_ssl_name" => {
                self.server_name = Some(said.to_owned());
                ledger.carried(directive);
            }
            "proxy_ssl_trusted_certificate" => match files.read(&path_from(folder, said)) {
                Ok(pem) => {
                    self.ca = Some(pem);
                    ledger.carried(directive);
                }
                Err(reason) => ledger.lost(directive, reason, "its text, as tls.ca of the service"),
            },
            _ => self.keep_out(directive, ledger),
        }
    }

    fn field(&mut self, directive: &Directive, ledger: &mut Ledger) {
        let (name, value) = (directive.arg(0).to_ascii_lowercase(), directive.arg(1));
        let only_trusted = "what the client says of itself is believed only if it is one of proxy.trusted_proxies";
        match (name.as_str(), value) {
            ("host", "$host" | "$http_host" | "$host:$server_port") => {
                self.keeps_host = true;
                ledger.carried(directive);
            }
            ("host", _) => {
                // Told here; the location need not say it again.
                self.keeps_host = true;
                ledger.lost(directive, "the client's Host is kept", "let the service answer to it");
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
            ("x-real-ip", _) => {
                ledger.lost(
                    directive,
                    "X-Real-IP is not sent",
                    "the service reads X-Forwarded-For, where the last one is the client",
                );
            }
            _ => ledger.lost(
                directive,
                "fields of requests are not set, but for X-Forwarded-For, -Proto, -Host, X-Request-Id and traceparent",
                "let the client send it, or the service do without",
            ),
        }
    }

    fn answer_field(&mut self, directive: &Directive, ledger: &mut Ledger) {
        let (name, value) = (directive.arg(0), directive.arg(1));
        match name.eq_ignore_ascii_case("strict-transport-security").then(|| hsts(value)).flatten() {
            Some(hsts) => {
                self.hsts = Some(hsts);
                ledger.carried(directive);
            }
            None => ledger.lost(directive, "no fields are added to answers", "let the service send it"),
        }
    }

    fn retry_on(&mut self, directive: &Directive, ledger: &mut Ledger) {
        let said = |word: &str| directive.args.iter().any(|arg| arg == word);
        if said("off") {
            self.retry.insert("attempts".to_owned(), json!(0));
            ledger.carried(directive);
            return;
        }
        if said("non_idempotent") {
            let all = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "POST", "PATCH"];
            self.retry.insert("methods".to_owned(), json!(all));
        }
        let missing: Vec<&str> = directive.args.iter().map(String::as_str).filter(|arg| !RETRIED.contains(arg)).collect();
        if !missing.is_empty() {
            let why = format!("{} is no reason for another attempt", missing.join(", "));
            ledger.lost(directive, why, "let the service answer 503 where it wants to be asked elsewhere");
        } else if !["http_502", "http_503", "http_504"].into_iter().all(said) {
            ledger.differs(directive, "a GET is tried once more after 502, 503 and 504, too");
        } else {
            ledger.carried(directive);
        }
    }

    fn keep_out(&mut self, directive: &Directive, ledger: &mut Ledger) {
        let name = &directive.name;
        if directive.arg(0) == "off" {
            self.guards.retain(|(guard, _)| guard != name);
            ledger.carried_whole(directive);
            return;
        }
        self.guards.push((name.clone(), directive.to_string()));
        let instead = match fate(name) {
            Fate::Guard(instead) => instead,
            _ => "",
        };
        ledger.lost(directive, "it keeps requests out, which Pointsman does not; what it guards is held shut", instead);
    }
}

fn timeout(into: &mut Option<Duration>, directive: &Directive, ledger: &mut Ledger) {
    match units::time(directive.arg(0)).filter(|time| !time.is_zero()) {
        Some(time) => {
            *into = Some(time);
            ledger.carried(directive);
        }
        None => ledger.lost(directive, "is not a time above zero", "timeouts of the service"),
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

const NAMES: [&str; 16] = [
    "proxy_set_header",
    "add_header",
    "proxy_connect_timeout",
    "proxy_read_timeout",
    "proxy_send_timeout",
    "grpc_connect_timeout",
    "grpc_read_timeout",
    "grpc_send_timeout",
    "client_max_body_size",
    "proxy_next_upstream",
    "grpc_next_upstream",
    "proxy_next_upstream_tries",
    "proxy_next_upstream_timeout",
    "proxy_ssl_verify",
    "proxy_ssl_name",
    "proxy_ssl_trusted_certificate",
];
/// Reasons of nginx's that are ours, too.
const RETRIED: [&str; 7] = ["error", "timeout", "invalid_header", "http_502", "http_503", "http_504", "non_idempotent"];
/// What `retry.attempts` takes.
const ATTEMPTS_MAX: u8 = 10;
