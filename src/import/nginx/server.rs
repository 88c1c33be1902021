//! `server` blocks: where they listen, which hosts they are for, and what they redirect.

use serde_json::Value as Json;

use super::Work;
use super::body::rewritten;
use super::edits;
use super::listen::Listen;
use super::location::{Location, Matcher, Passage, locations};
use super::scope::Scope;
use super::settings::Settings;
use super::words::{Fate, fate};
use crate::import::files::path_from;
use crate::import::findings::{Place, Weight};
use crate::import::grammar::Directive;
use crate::model::HostPattern;

#[derive(Debug)]
pub struct Server {
    pub place: Place,
    /// At least one, unless none was understood.
    pub listens: Vec<Listen>,
    /// As routes write them.
    pub hosts: Vec<String>,
    /// Chain and key.
    pub certificates: Vec<(String, String)>,
    pub tls13_only: bool,
    /// The file with authorities, and whether clients must have a certificate.
    pub client_auth: Option<(String, bool)>,
    pub hsts: Option<Json>,
    pub redirect: Option<Redirect>,
    pub locations: Vec<Location>,
}

/// To https, with the rest of the URL as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect {
    pub port: u16,
    /// Not for what came over TLS.
    pub only_plain: bool,
}

impl Server {
    pub fn has_open(&self) -> bool {
        self.locations.iter().any(Location::is_open)
    }

    /// A service gets requests of it.
    pub fn forwards(&self) -> bool {
        self.locations.iter().any(|location| location.service().is_some())
    }

    /// All that it does is to redirect.
    pub fn only_redirects(&self) -> bool {
        self.redirect.is_some_and(|redirect| !redirect.only_plain)
    }

    /// None of its locations is open from here on.
    pub fn hold(&mut self, why: &str) {
        for location in &mut self.locations {
            let service = match &location.fate {
                Passage::Open { .. } => location.service().map(str::to_owned),
                Passage::Held { service, .. } => service.clone(),
            };
            location.fate = Passage::Held { because: why.to_owned(), service, answer: None, guards: true };
        }
    }

    pub fn redirects_plain(&self) -> bool {
        self.redirect.is_some()
    }
}

pub fn server(work: &mut Work<'_>, directive: &Directive, outer: &Scope) -> Server {
    work.ledger.carried(directive);
    let block = directive.inner();
    let mut scope = work.scope(outer, block);
    let mut server = Server {
        place: directive.place.clone(),
        listens: Vec::new(),
        hosts: Vec::new(),
        certificates: Vec::new(),
        tls13_only: false,
        client_auth: None,
        hsts: scope.fields.hsts.clone(),
        redirect: redirect(block),
        locations: Vec::new(),
    };
    let (mut answer, mut rewrites) = (None, Vec::new());
    for inner in block.iter().filter(|inner| inner.name != "location" && !Scope::reads(&inner.name)) {
        if Settings::reads(&inner.name) {
            work.settings.take(inner, &mut work.ledger);
            continue;
        }
        match inner.name.as_str() {
            "listen" => server.listens.extend(Listen::read(inner, &mut work.ledger)),
            "server_name" => names(&mut server.hosts, inner, work),
            "if" if server.redirect.is_some() && plain_or_named(inner) && to_https(inner.inner(), |_| true).is_some() => {
                work.ledger.carried_whole(inner);
            }
            "if" => {
                work.ledger.lost(
                    inner,
                    "there are no conditions but those of routes; what it is about is held shut",
                    "headers, query, methods of a route",
                );
                scope.guards.push(("if".to_owned(), inner.to_string()));
            }
            "return" if server.redirect.is_some() => work.ledger.carried(inner),
            "return" => answer = Some(inner),
            "rewrite" if server.only_redirects() && https_rewrite(inner, |_| true).is_some() => work.ledger.carried(inner),
            "rewrite" => rewrites.push(inner),
            _ => tls(&mut server, inner, work),
        }
    }
    if !block.iter().any(|inner| inner.name == "listen") {
        server.listens.push(Listen::UNSAID);
    }
    pair_certificates(&mut server, block, work);
    if server.client_auth.take_if(|(file, _)| file.is_empty()).is_some() {
        let why = "no ssl_client_certificate of this server says who may vouch for clients; held shut";
        work.ledger.say(
            Weight::Lost,
            &server.place,
            "ssl_verify_client".to_owned(),
            why.to_owned(),
            Some("client_ca of [listener.tls]".to_owned()),
        );
        scope.guards.push(("ssl_verify_client".to_owned(), "ssl_verify_client".to_owned()));
    }
    let redirecting = redirecting_location(block).filter(|_| server.redirect.is_some());
    redirecting.into_iter().for_each(|location| work.ledger.carried_whole(location));
    server.locations = locations(work, block, &scope);
    let rewritten: Vec<Location> = rewrites.iter().map(|inner| rewritten(work, inner, &scope, &server.locations)).collect();
    server.locations.splice(0..0, rewritten);
    if let Some(answer) = answer {
        answered(work, &mut server, answer, &scope);
    } else if server.locations.is_empty() && server.redirect.is_none() {
        work.ledger.lost_itself(
            directive,
            "it has no location, so nginx serves files",
            "let a service of its own, or a bucket, serve them",
        );
    }
    server
}

/// A `return` of the server goes before its locations.
fn answered(work: &mut Work<'_>, server: &mut Server, answer: &Directive, scope: &Scope) {
    let does = edits::answer(answer, &scope.fields.kind).filter(|does| does.contains_key("redirect"));
    if let Some(does) = does.filter(|_| scope.guards.is_empty() && !server.locations.iter().any(|location| location.first)) {
        work.ledger.carried(answer);
        server.locations = vec![Location {
            matcher: Matcher::Prefix { path: "/".to_owned(), stops: false },
            fate: Passage::Open { does: scope.fields.changing_answers(does) },
            place: answer.place.clone(),
            said: answer.to_string(),
            first: false,
            rate: None,
        }];
        return;
    }
    let refuses = ["403", "404", "410", "444"].contains(&answer.arg(0));
    server.hold(&answer.to_string());
    if refuses {
        work.ledger.differs(answer, "a host that no route is for is answered 404");
    } else {
        work.ledger.lost(answer, "Pointsman gives no answers of its own making", "let a service answer, or redirect");
    }
}

fn names(hosts: &mut Vec<String>, directive: &Directive, work: &mut Work<'_>) {
    let mut missing = Vec::new();
    for said in &directive.args {
        match said.as_str() {
            // Names that no host has: the server is there for its place or default_server.
            "" | "_" | "localhost.invalid" => {}
            name if name.starts_with('.') && HostPattern::parse(&name[1..]).is_ok() => {
                hosts.extend([name[1..].to_ascii_lowercase(), format!("*{}", name.to_ascii_lowercase())]);
            }
            name => match HostPattern::parse(name) {
                Ok(pattern) => hosts.push(pattern.to_string()),
                Err(_) => missing.push(name),
            },
        }
    }
    let mut kept = Vec::new();
    hosts.retain(|host| {
        let is_new = !kept.contains(host);
        kept.push(host.clone());
        is_new
    });
    if missing.is_empty() {
        work.ledger.carried(directive);
    } else {
        let why = format!("a host of a route is a name or *.NAME, which {} is not", missing.join(", "));
        work.ledger.lost(directive, why, "the hosts that are meant, each by its name");
    }
}

fn tls(server: &mut Server, directive: &Directive, work: &mut Work<'_>) {
    let said = directive.arg(0);
    match directive.name.as_str() {
        // Paired when all have been seen.
        "ssl_certificate" | "ssl_certificate_key" => {}
        "ssl" if said == "on" => {
            server.listens.iter_mut().for_each(|listen| listen.ssl = true);
            work.ledger.carried(directive);
        }
        "ssl" => work.ledger.carried(directive),
        "ssl_protocols" => {
            server.tls13_only = directive.args == ["TLSv1.3"];
            protocols(directive, work);
        }
        "ssl_client_certificate" => {
            let file = path_from(work.folder, said);
            server.client_auth = Some((file, server.client_auth.as_ref().is_none_or(|(_, must)| *must)));
            work.ledger.carried(directive);
        }
        "ssl_verify_client" => client_auth(server, directive, work),
        name => match fate(name) {
            Fate::Note(why) => work.ledger.note(directive, why),
            Fate::Lost(why, instead) | Fate::Answers(why, instead) => work.ledger.lost(directive, why, instead),
            Fate::Guard(_) => {}
        },
    }
}

fn client_auth(server: &mut Server, directive: &Directive, work: &mut Work<'_>) {
    let must = directive.arg(0) == "on";
    match directive.arg(0) {
        "on" | "optional" => {
            let file = server.client_auth.take().map_or_else(String::new, |(file, _)| file);
            server.client_auth = Some((file, must));
            work.ledger.differs(directive, "is a listener's: all servers at the same address ask for certificates");
        }
        "off" => {
            server.client_auth = None;
            work.ledger.carried(directive);
        }
        _ => work.ledger.lost(directive, "certificates that nobody checks are not asked for", "client_auth of [listener.tls]"),
    }
}

pub fn protocols(directive: &Directive, work: &mut Work<'_>) {
    let old: Vec<&str> = directive.args.iter().map(String::as_str).filter(|p| !matches!(*p, "TLSv1.2" | "TLSv1.3")).collect();
    if old.is_empty() {
        work.ledger.carried(directive);
    } else {
        work.ledger.differs(directive, format!("{} is not spoken; TLS 1.2 is the oldest", old.join(", ")));
    }
}

fn pair_certificates(server: &mut Server, block: &[Directive], work: &mut Work<'_>) {
    let of = |name: &str| block.iter().filter(|inner| inner.name == name).collect::<Vec<_>>();
    let (chains, keys) = (of("ssl_certificate"), of("ssl_certificate_key"));
    for (at, chain) in chains.iter().enumerate() {
        let key = keys.get(at);
        let is_file = |said: &str| !said.contains('$') && !said.contains(':');
        match key.filter(|key| is_file(key.arg(0)) && is_file(chain.arg(0))) {
            Some(key) => {
                work.ledger.carried(chain);
                work.ledger.carried(key);
                server.certificates.push((path_from(work.folder, chain.arg(0)), path_from(work.folder, key.arg(0))));
            }
            None => work.ledger.lost(
                chain,
                "there is no file with its key",
                "pointsman put certificate, or certificates of the listener",
            ),
        }
    }
    for key in keys.iter().filter(|key| !work.ledger.is_accounted(key)).collect::<Vec<_>>() {
        work.ledger.lost(
            key,
            "there is no file with its certificate",
            "pointsman put certificate, or certificates of the listener",
        );
    }
}

/// What the server does by `return`, `rewrite` and Certbot's `if`s, if that is to redirect to https.
fn redirect(block: &[Directive]) -> Option<Redirect> {
    let ifs: Vec<&Directive> = block.iter().filter(|inner| inner.name == "if").collect();
    let whole = |port| Redirect { port, only_plain: false };
    let names = block.iter().filter(|inner| inner.name == "server_name").flat_map(|inner| &inner.args).collect::<Vec<_>>();
    let own = |host: &str| matches!(host, "$host" | "$http_host" | "$server_name") || names.len() == 1 && names[0] == host;
    if let Some(port) = to_https(block, own).or_else(|| block.iter().find_map(|inner| https_rewrite(inner, own))) {
        return Some(whole(port));
    }
    if let Some(all) = redirecting_location(block) {
        return to_https(all.inner(), own).map(whole);
    }
    let port = ifs.iter().find_map(|inner| to_https(inner.inner(), own).filter(|_| plain_or_named(inner)))?;
    let refuses_others = block.iter().any(|inner| inner.name == "return" && inner.arg(0) == "404");
    if ifs.iter().all(|inner| inner.arg(0) == "($host") && refuses_others {
        return Some(whole(port));
    }
    let asks_tls = |inner: &&&Directive| plain_or_named(inner) && inner.arg(0) != "($host";
    let only_plain = ifs.iter().filter(asks_tls).any(|inner| to_https(inner.inner(), own).is_some());
    only_plain.then_some(Redirect { port, only_plain: true })
}

/// `location / { return 301 https://…; }`
fn redirecting_location(block: &[Directive]) -> Option<&Directive> {
    let all = block.iter().find(|inner| inner.name == "location" && inner.args == ["/"])?;
    to_https(all.inner(), |_| true).is_some().then_some(all)
}

/// The port of a `return` to the same URL with https.
fn to_https(block: &[Directive], own: impl Fn(&str) -> bool) -> Option<u16> {
    let found = block.iter().find(|inner| inner.name == "return")?;
    let redirects = ["301", "302", "307", "308"].contains(&found.arg(0)) && found.arg(1).ends_with("$request_uri");
    redirects.then(|| https_port(found.arg(1), own)).flatten()
}

fn https_rewrite(directive: &Directive, own: impl Fn(&str) -> bool) -> Option<u16> {
    let all = ["^", "^/", "^(.*)$", "^(.*)", "^/(.*)$", "^/(.*)", ".*"].contains(&directive.arg(0));
    let keeps = ["$request_uri", "$request_uri?", "$1"].iter().any(|rest| directive.arg(1).ends_with(rest));
    (directive.name == "rewrite" && all && keeps).then(|| https_port(directive.arg(1), own)).flatten()
}

fn https_port(url: &str, own: impl Fn(&str) -> bool) -> Option<u16> {
    let rest = url.strip_prefix("https://")?;
    let end = rest.char_indices().skip(1).find(|(_, c)| matches!(c, '/' | '$')).map_or(rest.len(), |(at, _)| at);
    let (host, port) = rest[..end].split_once(':').unwrap_or((&rest[..end], "443"));
    own(host).then(|| port.parse().ok()).flatten().filter(|port| *port != 0)
}

/// `if ($host = NAME)`, as Certbot writes it, or a question whether the request came without TLS.
fn plain_or_named(directive: &Directive) -> bool {
    let condition = directive.args.concat();
    condition.starts_with("($host=")
        || ["($scheme=http)", "($scheme!=https)", "($https=)", "($https!=on)", "($server_port=80)"].contains(&condition.as_str())
        || ["($scheme=\"http\")", "($https=\"\")", "($https!=\"on\")"].contains(&condition.as_str())
}
