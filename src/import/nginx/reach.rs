//! Who can reach a server. nginx tells servers apart by the address that a connection came to; routes hold for all listeners.
//! So what only this machine or one network could reach is held shut, and what only TLS led to is told.

use super::Work;
use super::listen::Listen;
use super::location::Passage;
use super::server::Server;
use crate::import::findings::Weight;

pub fn shut(work: &mut Work<'_>, servers: &mut [Server]) {
    let wide = servers.iter().flat_map(|server| &server.listens).any(Listen::is_wide);
    let open_plain = |server: &&Server| !server.redirects_plain() && server.listens.iter().any(|listen| !listen.ssl);
    let plain = servers.iter().find(open_plain).map(|server| server.place.clone());
    for server in servers.iter_mut().filter(|server| server.has_open()) {
        let addresses: Vec<String> = server.listens.iter().map(|listen| listen.address.to_string()).collect();
        let is_narrow = !server.listens.is_empty() && !server.listens.iter().any(Listen::is_wide);
        let wants_certificate = server.client_auth.as_ref().is_some_and(|(_, must)| *must);
        let only_tls = server.listens.iter().all(|listen| listen.ssl);
        match &plain {
            _ if wide && is_narrow => {
                let why = format!("only {} leads to it, and routes hold for all listeners", addresses.join(", "));
                hold(work, server, &why, "a second process with this listener alone");
            }
            Some(plain) if wants_certificate => {
                let why =
                    format!("it wants certificates of clients, and routes hold for all listeners, also where {plain} listens");
                hold(work, server, &why, "a second process with this listener alone");
            }
            Some(plain) if only_tls => {
                let why = format!("routes hold for all listeners: it can be reached without TLS, too, where {plain} listens");
                work.ledger.say(Weight::Differs, &server.place, "server".to_owned(), why, None);
            }
            _ => {}
        }
    }
}

fn hold(work: &mut Work<'_>, server: &mut Server, why: &str, instead: &str) {
    let told = format!("{why}: others would reach it; held shut");
    work.ledger.say(Weight::Lost, &server.place, "server".to_owned(), told, Some(instead.to_owned()));
    for location in &mut server.locations {
        let service = match &location.fate {
            Passage::Open { service } => Some(service.clone()),
            Passage::Held { service, .. } => service.clone(),
        };
        location.fate = Passage::Held { because: why.to_owned(), service };
    }
}
