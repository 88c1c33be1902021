//! `[[listener]]`: what all servers at one address come to.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value as Json;

use super::Work;
use super::server::Server;
use crate::import::findings::Weight;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub address: SocketAddr,
    pub proxy_protocol: bool,
    pub redirect_to_https: Option<u16>,
    pub tls: Option<Tls>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Chain and key; the first for clients that name nobody known.
    pub certificates: Vec<(String, String)>,
    pub tls13_only: bool,
    pub client_auth: Option<(String, bool)>,
    pub hsts: Option<Json>,
}

pub fn listeners(work: &mut Work<'_>, servers: &[Server]) -> Vec<Listener> {
    let mut by_address: BTreeMap<SocketAddr, Vec<&Server>> = BTreeMap::new();
    for server in servers {
        for listen in &server.listens {
            let at = by_address.entry(listen.address).or_default();
            if !at.iter().any(|known| std::ptr::eq(*known, server)) {
                at.push(server);
            }
        }
    }
    // An address of one interface is included in that of all of them.
    let all: Vec<SocketAddr> = by_address.keys().copied().collect();
    let within = |a: &SocketAddr| {
        all.iter().any(|b| a != b && b.ip().is_unspecified() && a.is_ipv4() == b.is_ipv4() && a.port() == b.port())
    };
    let (inner, kept): (Vec<_>, Vec<_>) = by_address.into_iter().partition(|(address, _)| within(address));
    for (address, servers) in inner {
        say(
            work,
            servers[0],
            Weight::Lost,
            format!("listen {address}"),
            "another listen takes all addresses of this port",
            Some("one of the two"),
        );
    }
    kept.into_iter().map(|(address, servers)| listener(work, address, &servers)).collect()
}

fn listener(work: &mut Work<'_>, address: SocketAddr, servers: &[&Server]) -> Listener {
    let here: Vec<_> = servers.iter().flat_map(|server| server.listens.iter().filter(|l| l.address == address)).collect();
    let said = format!("listen {address}");
    let wants_header = here.iter().any(|listen| listen.proxy_protocol);
    let proxy_protocol = wants_header && !work.settings.trusted_proxies.is_empty();
    if wants_header && !proxy_protocol {
        let instead = "name who stands before the proxy in proxy.trusted_proxies; then proxy_protocol = true";
        let why = "nobody is trusted (set_real_ip_from), so every connection would be refused; it listens without PROXY headers";
        say(work, servers[0], Weight::Lost, format!("{said} proxy_protocol"), why, Some(instead));
    }
    if here.iter().any(|listen| listen.ssl) {
        let tls = Some(tls(work, &said, servers, address));
        return Listener { address, proxy_protocol, redirect_to_https: None, tls };
    }
    let redirecting: Vec<_> = servers.iter().filter(|server| server.redirects_plain()).collect();
    let port = redirecting.first().and_then(|server| server.redirect).map(|redirect| redirect.port);
    let all = redirecting.len() == servers.len();
    if port.is_some() {
        for server in redirecting {
            if all {
                let why = "the redirect is 308, and for every path and host of this listener";
                say(work, server, Weight::Differs, said.clone(), why, None);
            } else {
                let why = "some servers of this address redirect to https and some do not; a listener redirects all or nothing";
                let instead = "redirect_to_https on a listener of its own, or in the services by X-Forwarded-Proto";
                say(work, server, Weight::Lost, said.clone(), why, Some(instead));
            }
        }
    }
    Listener { address, proxy_protocol, redirect_to_https: port.filter(|_| all), tls: None }
}

fn tls(work: &mut Work<'_>, said: &str, servers: &[&Server], address: SocketAddr) -> Tls {
    let is_default = |server: &&&Server| server.listens.iter().any(|listen| listen.address == address && listen.default);
    let mut certificates: Vec<(String, String)> = Vec::new();
    let own = servers.iter().filter(is_default).chain(servers).flat_map(|server| &server.certificates);
    for pair in own.chain(&work.outer_certificates) {
        if !certificates.contains(pair) {
            certificates.push(pair.clone());
        }
    }
    let client_auth = servers.iter().find_map(|server| server.client_auth.clone());
    let hsts = servers.iter().find_map(|server| server.hsts.clone());
    let open = servers.iter().filter(|server| server.has_open());
    if hsts.is_some() && open.clone().any(|server| server.hsts != hsts) {
        let why = "Strict-Transport-Security is a listener's: it is sent for all servers at this address";
        say(work, servers[0], Weight::Differs, said.to_owned(), why, None);
    }
    let tls13_only = work.tls13_only || !servers.is_empty() && servers.iter().all(|server| server.tls13_only);
    if !tls13_only && servers.iter().any(|server| server.tls13_only) {
        let why = "the oldest TLS is a listener's: 1.2 is spoken with all servers at this address";
        say(work, servers[0], Weight::Differs, said.to_owned(), why, None);
    }
    Tls { certificates, tls13_only, client_auth, hsts }
}

fn say(work: &mut Work<'_>, server: &Server, weight: Weight, said: String, why: &str, instead: Option<&str>) {
    work.ledger.say(weight, &server.place, said, why.to_owned(), instead.map(str::to_owned));
}
