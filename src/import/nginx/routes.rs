//! Locations of all servers as routes, so that each request goes where nginx sends it.
//!
//! 1. nginx first chooses a server, then a location of it; here all routes stand side by side. A server's routes therefore
//!    name its hosts, and a server that has no `location /` gets a route that is held shut, if a broader host has routes.
//! 2. nginx asks patterns before it takes the longest prefix, unless that has `^~`; here prefixes go first. Where there are
//!    patterns, priorities put exact paths and `^~` above them, and them, in their order, above other prefixes; and because a
//!    priority also goes before the host, narrower hosts begin above all of the broader ones.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

use super::Work;
use super::location::{Location, Matcher, Passage};
use super::server::Server;
use super::services::name_of;
use crate::import::findings::Weight;
use crate::import::{HELD, Route};
use crate::model::RouteName;
use crate::wire::parse_route;

/// A server's hosts of one width, and its locations.
struct Piece<'a> {
    /// 0 is any host, then wildcards by their length, then exact hosts.
    tier: usize,
    hosts: Vec<String>,
    server: &'a Server,
}

pub fn routes(work: &mut Work<'_>, servers: &[Server]) -> Vec<Route> {
    let mut served: Vec<&Server> = servers.iter().filter(|server| !server.only_redirects()).collect();
    let default = default_server(work, &served);
    // Of two for one host the one that has a service.
    served.sort_by_key(|server| (!server.forwards(), !server.has_open()));
    let mut pieces: Vec<Piece<'_>> = served.iter().flat_map(|server| pieces(server, default, &served)).collect();
    once_each(work, &mut pieces);
    pieces.sort_by_key(|piece| piece.tier);
    let mut routes = Vec::new();
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    let (mut base, mut tier, mut highest, mut broader_open) = (0, ANY, 0, false);
    let mut open_here = false;
    for piece in &pieces {
        if piece.tier != tier {
            tier = piece.tier;
            base = if highest == 0 { 0 } else { highest + 1 };
            broader_open |= open_here;
        }
        let priorities = Priorities::of(piece.server, base);
        highest = highest.max(priorities.highest);
        open_here |= piece.server.has_open();
        if !piece.server.has_open() && !broader_open {
            continue;
        }
        let label = piece.hosts.first().map_or("any".to_owned(), |host| name_of(&host.replace("*.", "all.")));
        let mut add = |record: Map<String, Json>, comment: String, work: &mut Work<'_>, at: &Location| {
            let n = numbers.entry(label.clone()).or_default();
            *n += 1;
            let name = format!("{label}-{n}");
            match checked(&name, &record) {
                Ok(()) => routes.push(Route { name, record, comment }),
                Err(why) => {
                    let instead = "a route in other words; until then its requests go where a broader one sends them".to_owned();
                    work.ledger.say(Weight::Lost, &at.place, at.said.clone(), why, Some(instead));
                }
            }
        };
        for (at, location) in piece.server.locations.iter().enumerate() {
            let record = record(piece, location, priorities.of_location(at, location));
            add(record, comment(location), work, location);
        }
        for spelling in spellings(piece.server) {
            add(record(piece, &spelling, priorities.highest), comment(&spelling), work, &spelling);
        }
        if broader_open && !piece.server.locations.iter().any(Location::takes_all) {
            let rest = Location {
                matcher: Matcher::Prefix { path: "/".to_owned(), stops: false },
                fate: held("no location of this server is for other paths", false),
                rate: None,
                place: piece.server.place.clone(),
                said: "server".to_owned(),
                first: false,
            };
            add(record(piece, &rest, base), comment(&rest), work, &rest);
        }
    }
    routes
}

/// The server for hosts that nobody names: by nginx's rules there is one for each address, here there is one.
fn default_server<'a>(work: &mut Work<'_>, served: &[&'a Server]) -> Option<&'a Server> {
    let mut defaults: Vec<&Server> = Vec::new();
    let mut addresses: Vec<_> = served.iter().flat_map(|server| server.listens.iter().map(|listen| listen.address)).collect();
    addresses.sort_unstable();
    addresses.dedup();
    for address in addresses {
        let here = || served.iter().filter(|s| s.listens.iter().any(|listen| listen.address == address));
        let said = here().find(|server| server.listens.iter().any(|listen| listen.address == address && listen.default));
        if let Some(server) = said.or_else(|| here().next())
            && !defaults.iter().any(|known| std::ptr::eq(*known, *server))
        {
            defaults.push(server);
        }
    }
    let best = defaults.iter().position(|server| server.forwards()).or(defaults.iter().position(|server| server.has_open()));
    let chosen = best.map(|at| defaults.remove(at));
    for other in defaults.iter().filter(|server| server.has_open()) {
        let why = if other.hosts.is_empty() {
            "routes hold for all listeners, and requests for any host are another server's already; this one gets none"
        } else {
            "routes hold for all listeners, and requests for hosts that nobody names are another server's already"
        };
        let instead = Some("a second process for the other address, or hosts to tell them apart".to_owned());
        work.ledger.say(Weight::Lost, &other.place, "server".to_owned(), why.to_owned(), instead);
    }
    chosen
}

/// Where something is held shut that no route can say, nothing of that server may take its requests.
pub fn hold_unspeakable(work: &mut Work<'_>, servers: &mut [Server]) {
    for server in servers {
        let piece = Piece { tier: ANY, hosts: Vec::new(), server };
        let is_unspeakable = |l: &&Location| !l.is_open() && checked("any", &record(&piece, l, 0)).is_err();
        let Some(location) = server.locations.iter().find(is_unspeakable) else { continue };
        let why = format!("{} of this server is held shut, and no route can say what it is for", location.said);
        let (place, said) = (location.place.clone(), location.said.clone());
        let told = format!("{why}; all of the server is held shut");
        work.ledger.say(Weight::Lost, &place, said, told, Some("a path or a pattern that the crate regex knows".to_owned()));
        server.hold(&why);
    }
}

/// A guard's prefix has characters, so `/administrator`, if it is open, stands above `/admin`, which is not; but no pattern can
/// leave it out of what it holds.
pub fn hold_tails(work: &mut Work<'_>, servers: &mut [Server]) {
    for server in servers {
        let tails: Vec<_> = spellings(server).filter_map(|location| regex::Regex::new(path_of(&location)).ok()).collect();
        if spellings(server).next().is_some() {
            let why =
                "it keeps somebody out, so paths with //, or with escapes of letters, digits or slashes, are held shut, too";
            work.ledger.say(Weight::Differs, &server.place, "server".to_owned(), why.to_owned(), None);
        }
        for location in server.locations.iter_mut().filter(|location| location.is_open()) {
            let is_pattern = matches!(location.matcher, Matcher::Regex(_));
            if !is_pattern && tails.iter().any(|tail| tail.is_match(path_of(location))) {
                let why = "a location that is held shut begins with the same characters";
                location.fate = held(why, false);
                let told = format!("{why}; held shut: its requests are answered 503");
                let instead = Some("a route of a higher priority, once you have looked at both".to_owned());
                work.ledger.say(Weight::Lost, &location.place, location.said.clone(), told, instead);
            }
        }
    }
}

/// A path, or the pattern of one.
fn path_of(location: &Location) -> &str {
    match &location.matcher {
        Matcher::Exact(path) | Matcher::Prefix { path, .. } | Matcher::Regex(path) => path,
    }
}

/// A host is one server's: the first one's.
fn once_each(work: &mut Work<'_>, pieces: &mut Vec<Piece<'_>>) {
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for piece in pieces.iter_mut().filter(|piece| piece.tier != ANY) {
        let (kept, again): (Vec<_>, Vec<_>) = piece.hosts.drain(..).partition(|host| !taken.contains(host));
        taken.extend(kept.iter().cloned());
        piece.hosts = kept;
        if !again.is_empty() && piece.server.has_open() {
            let why = format!("routes hold for all listeners, and {} is another server's already", again.join(", "));
            let instead = Some("a second process for the other address, or hosts to tell them apart".to_owned());
            work.ledger.say(Weight::Lost, &piece.server.place, "server".to_owned(), why, instead);
        }
    }
    pieces.retain(|piece| piece.tier == ANY || !piece.hosts.is_empty());
}

fn pieces<'a>(server: &'a Server, default: Option<&'a Server>, served: &[&Server]) -> Vec<Piece<'a>> {
    let is_default = default.is_some_and(|default| std::ptr::eq(default, server));
    let shadowed = |host: &String| {
        let mut others = served.iter().filter(|other| !std::ptr::eq(**other, server)).flat_map(|other| &other.hosts);
        others.any(|other| other == host || other.strip_prefix('*').is_some_and(|suffix| host.ends_with(suffix)))
    };
    let mut pieces = Vec::new();
    if is_default {
        pieces.push(Piece { tier: ANY, hosts: Vec::new(), server });
        if !server.hosts.iter().any(shadowed) {
            return pieces;
        }
    }
    let mut by_tier: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for host in &server.hosts {
        let tier = if host.starts_with('*') { host.len() } else { EXACT };
        by_tier.entry(tier).or_default().push(host.clone());
    }
    pieces.extend(by_tier.into_iter().map(|(tier, hosts)| Piece { tier, hosts, server }));
    pieces
}

/// The priorities of one server's locations.
struct Priorities {
    base: i32,
    n_patterns: i32,
    /// Of what the server rewrites before it looks for a location.
    n_first: i32,
    highest: i32,
    /// Prefixes that go before patterns.
    stopping: Vec<String>,
    /// Places of the patterns among all locations, in order.
    patterns: Vec<usize>,
}

impl Priorities {
    fn of(server: &Server, base: i32) -> Self {
        let locations = server.locations.iter().enumerate();
        let is_pattern = |l: &Location| matches!(l.matcher, Matcher::Regex(_)) && !l.first;
        let patterns: Vec<usize> = locations.filter(|(_, l)| is_pattern(l)).map(|(at, _)| at).collect();
        let n_first = i32::try_from(server.locations.iter().filter(|l| l.first).count()).unwrap_or(i32::MAX / 4);
        let stopping = server.locations.iter().filter_map(|l| match &l.matcher {
            Matcher::Prefix { path, stops: true } => Some(path.clone()),
            _ => None,
        });
        let n_patterns = i32::try_from(patterns.len()).unwrap_or(i32::MAX / 4);
        let needs_top = !patterns.is_empty() || spellings(server).next().is_some();
        let highest = if needs_top { base + n_patterns + 1 } else { base } + n_first;
        Self { base, n_patterns, n_first, highest, stopping: stopping.collect(), patterns }
    }

    fn of_location(&self, at: usize, location: &Location) -> i32 {
        let highest = self.highest - self.n_first;
        match &location.matcher {
            // They stand before all others, in their order.
            _ if location.first => self.highest - i32::try_from(at).unwrap_or(0),
            _ if self.patterns.is_empty() => self.base,
            Matcher::Exact(_) => highest,
            Matcher::Prefix { path, .. } if self.stopping.iter().any(|stopping| path.starts_with(stopping)) => highest,
            Matcher::Prefix { .. } => self.base,
            Matcher::Regex(_) => {
                let before = self.patterns.iter().take_while(|other| **other < at).count();
                self.base + self.n_patterns - i32::try_from(before).unwrap_or(0)
            }
        }
    }
}

/// nginx looks at a path without escapes and double slashes, we look at it as it was written. Where somebody is kept out, no
/// other spelling may lead in, nor what nginx counts to the same prefix: `/admins` for `location /admin`.
fn spellings(server: &Server) -> impl Iterator<Item = Location> {
    let guards = |l: &&Location| matches!(l.fate, Passage::Held { guards: true, .. });
    let guarded = server.locations.iter().filter(guards).filter(|_| server.has_open());
    let tails = guarded.clone().filter_map(|location| match &location.matcher {
        Matcher::Prefix { path, .. } if !path.ends_with('/') => Some((location, format!("^{}[^/]", regex::escape(path)))),
        _ => None,
    });
    let others = guarded.clone().next().map(|location| (location, OTHER_SPELLINGS.to_owned()));
    tails.chain(others).map(|(location, regex)| Location {
        matcher: Matcher::Regex(regex),
        fate: held("nginx reads this path as one that is held shut", true),
        rate: None,
        place: location.place.clone(),
        said: location.said.clone(),
        first: false,
    })
}

fn held(because: &str, guards: bool) -> Passage {
    Passage::Held { because: because.to_owned(), service: None, answer: None, guards }
}

fn record(piece: &Piece<'_>, location: &Location, priority: i32) -> Map<String, Json> {
    let mut record = Map::new();
    if !piece.hosts.is_empty() {
        record.insert("hosts".to_owned(), json!(piece.hosts));
    }
    match &location.matcher {
        Matcher::Prefix { path, .. } if path == "/" => {}
        Matcher::Exact(path) => drop(record.insert("path".to_owned(), json!(path))),
        Matcher::Prefix { path, .. } => drop(record.insert("path_prefix".to_owned(), json!(path))),
        Matcher::Regex(regex) => drop(record.insert("path_regex".to_owned(), json!(regex))),
    }
    if priority != 0 {
        record.insert("priority".to_owned(), json!(priority));
    }
    match &location.fate {
        Passage::Open { does } | Passage::Held { answer: Some(does), .. } => record.extend(does.clone()),
        Passage::Held { answer: None, .. } => drop(record.insert("service".to_owned(), json!(HELD))),
    }
    if let Some(rate) = location.rate.as_ref().filter(|_| location.service().is_some()) {
        record.insert("rate_limit".to_owned(), rate.clone());
    }
    record
}

fn comment(location: &Location) -> String {
    let held = match &location.fate {
        Passage::Open { .. } | Passage::Held { answer: Some(_), .. } => String::new(),
        Passage::Held { because, service: Some(service), .. } => {
            format!("; held shut: {because}; opened, it would be service = {service:?}")
        }
        Passage::Held { because, service: None, .. } => format!("; held shut: {because}"),
    };
    format!("{} {}{held}", location.place, location.said)
}

/// Whether it is a route.
pub fn checked(name: &str, record: &Map<String, Json>) -> Result<(), String> {
    let name = RouteName::parse(name).map_err(|error| error.to_string())?;
    let text = Json::Object(record.clone()).to_string();
    match parse_route(&name, text.as_bytes()) {
        Ok(_) => Ok(()),
        Err(problems) => Err(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
    }
}

/// Double slashes, and escapes of what needs none: letters, digits, `-`, `.`, `_`, `~`, and the slash.
const OTHER_SPELLINGS: &str = "//|%(?i:2[def]|3[0-9]|4[1-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9ae])";
const ANY: usize = 0;
/// Above every wildcard.
const EXACT: usize = usize::MAX;
