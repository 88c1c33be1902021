//! A configuration of nginx in our words.
//!
//! 1. `files` and `grammar` make one tree of all files; every directive of it ends as carried over or as a finding.
//! 2. Top to bottom: `settings` for what holds for the whole proxy, `upstream` for pools, `server` and `location` for who is
//!    sent where, with what their `scope` says. What nobody reads has its words in `words`.
//! 3. All servers together become `listeners` and `routes`, after `reach` has shut what others than nginx's would reach.
//! 4. `edits` are what nginx does to a request or answers by itself, in a route's words.
//!
//! Invariant: a request that nginx refuses, rewrites or answers by itself is sent to no service unless a route does the same to it;
//! it is held shut.

mod body;
mod edits;
mod fields;
mod listen;
mod listeners;
mod location;
mod rates;
mod reach;
mod routes;
mod scope;
mod server;
mod services;
mod settings;
#[cfg(test)]
mod tests;
mod units;
mod upstream;
mod words;

pub use listeners::{Listener, Tls};
pub use services::name_of;
pub use settings::Settings;

use super::confd::Source;
use super::files::{Files, ImportError, folder_of, read_whole};
use super::findings::Ledger;
use super::grammar::Directive;
use super::{Import, Process, RegistryAt};
use scope::Scope;
use services::Services;
use words::{Fate, fate};

/// What is being read, and what came of it so far.
struct Work<'a> {
    files: &'a dyn Files,
    /// Where relative paths begin.
    folder: &'a str,
    sources: &'a [Source],
    ledger: Ledger,
    settings: Settings,
    services: Services,
    /// Of `http`, for all servers.
    outer_certificates: Vec<(String, String)>,
    tls13_only: bool,
}

impl Work<'_> {
    fn scope(&mut self, outer: &Scope, block: &[Directive]) -> Scope {
        outer.inside(block, self.files, self.folder, &mut self.ledger)
    }
}

/// The file at `path` with all that it includes. Upstreams that one of the `sources` is rendered into keep no instances.
pub fn nginx(files: &dyn Files, path: &str, sources: &[Source]) -> Result<Import, ImportError> {
    let tree = read_whole(files, path)?;
    let mut work = Work {
        files,
        folder: folder_of(path),
        sources,
        ledger: Ledger::default(),
        settings: Settings::default(),
        services: Services::default(),
        outer_certificates: Vec::new(),
        tls13_only: false,
    };
    let mut servers = Vec::new();
    for directive in &tree {
        match directive.name.as_str() {
            "http" => http(&mut work, directive, &mut servers),
            _ => plain(&mut work, directive),
        }
    }
    reach::shut(&mut work, &mut servers);
    routes::hold_unspeakable(&mut work, &mut servers);
    routes::hold_tails(&mut work, &mut servers);
    let listeners = listeners::listeners(&mut work, &servers);
    let routes = routes::routes(&mut work, &servers);
    let body_size = work.settings.whole_body_size(&mut work.ledger);
    let process = Process { listeners, settings: work.settings, body_size };
    while let Some(directive) = work.ledger.unaccounted(&tree) {
        work.ledger.lost(directive, "nobody expects it here, nor would nginx", "see what it was to do");
    }
    let services = work.services.into_services(&mut work.ledger);
    let (sources, registry) = (Vec::new(), RegistryAt::default());
    Ok(Import { process: Some(process), services, routes, sources, registry, ledger: work.ledger })
}

fn http(work: &mut Work<'_>, directive: &Directive, servers: &mut Vec<server::Server>) {
    work.ledger.carried(directive);
    let block = directive.inner();
    for inner in block.iter().filter(|inner| inner.name == "upstream") {
        let upstream = upstream::upstream(inner, &mut work.ledger);
        work.services.declare(upstream);
    }
    let scope = work.scope(&Scope::default(), block);
    for inner in block {
        match inner.name.as_str() {
            "server" | "upstream" | "ssl_certificate" | "ssl_certificate_key" => {}
            "ssl_protocols" => {
                work.tls13_only = inner.args == ["TLSv1.3"];
                server::protocols(inner, work);
            }
            "map" if inner.arg(0) == "$http_upgrade" => {
                work.ledger.note(inner, "upgraded connections are forwarded by themselves")
            }
            name if Scope::reads(name) => {}
            _ => plain(work, inner),
        }
    }
    let (chain, key) = (one(block, "ssl_certificate"), one(block, "ssl_certificate_key"));
    if let (Some(chain), Some(key)) = (chain, key) {
        let path = |said: &Directive| super::files::path_from(work.folder, said.arg(0));
        work.outer_certificates.push((path(chain), path(key)));
    }
    for inner in block.iter().filter(|inner| inner.name.starts_with("ssl_certificate")) {
        work.ledger.carried(inner);
    }
    for inner in block.iter().filter(|inner| inner.name == "server") {
        servers.push(server::server(work, inner, &scope));
    }
    for inner in block.iter().filter(|inner| inner.name == "upstream" && !work.services.is_used(inner.arg(0))) {
        work.ledger.lost_itself(inner, "no location that is understood passes to it", "a [[service]], if somebody needs it");
    }
}

/// What stands outside of servers and is read by nobody else.
fn plain(work: &mut Work<'_>, directive: &Directive) {
    if Settings::reads(&directive.name) {
        return work.settings.take(directive, &mut work.ledger);
    }
    match fate(&directive.name) {
        Fate::Note(why) => work.ledger.note(directive, why),
        Fate::Lost(why, instead) | Fate::Answers(why, instead) => work.ledger.lost(directive, why, instead),
        Fate::Guard(instead) => work.ledger.lost(directive, "it keeps requests out, which Pointsman does not", instead),
    }
}

fn one<'a>(block: &'a [Directive], name: &str) -> Option<&'a Directive> {
    block.iter().find(|inner| inner.name == name)
}
