//! What a block says for itself and for those inside it: changed fields, timeouts, retries, TLS to instances, rates, and what
//! keeps requests out.
//!
//! Values are inherited one by one; lists (`proxy_set_header`, `add_header`) are inherited only by a block that has none of
//! its own, as nginx does.

use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::fields::FieldChanges;
use super::rates::Rates;
use super::units;
use super::words::{Fate, fate};
use crate::import::files::{Files, path_from};
use crate::import::findings::Ledger;
use crate::import::grammar::Directive;

#[derive(Debug, Clone)]
pub struct Scope {
    pub fields: FieldChanges,
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
    pub rates: Rates,
}

/// As nginx has it where nothing is said.
impl Default for Scope {
    fn default() -> Self {
        Self {
            fields: FieldChanges::default(),
            connect: None,
            read: None,
            send: None,
            body_size: 1024 * 1024,
            retry: Map::new(),
            verify: false,
            server_name: None,
            ca: None,
            guards: Vec::new(),
            rates: Rates::default(),
        }
    }
}

impl Scope {
    /// What holds inside `block`. Directives for which [`Scope::reads`] holds are accounted for.
    pub fn inside(&self, block: &[Directive], files: &dyn Files, folder: &str, ledger: &mut Ledger) -> Self {
        let mut scope = self.clone();
        scope.fields.inside(block);
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
        NAMES.contains(&name) || FieldChanges::reads(name) || Rates::reads(name) || matches!(fate(name), Fate::Guard(_))
    }

    fn take(&mut self, directive: &Directive, files: &dyn Files, folder: &str, ledger: &mut Ledger) {
        let said = directive.arg(0);
        match directive.name.as_str() {
            name if FieldChanges::reads(name) => self.fields.take(directive, ledger),
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

const NAMES: [&str; 14] = [
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
