//! Who can reach a server. nginx tells servers apart by the address that a connection came to; routes hold for all listeners.
//! So what only this machine or one network could reach is held shut, and what only TLS led to is told.

use super::Work;
use super::listen::Listen;
use super::server::Server;
use crate::import::findings::Weight;

pub fn shut(work: &mut Work<'_>, servers: &mut [Server]) {
    let wide = servers.iter().flat_map(|server| &server.listens).any(Listen::is_wide);
    let is_narrow = |server: &&mut Server| !server.listens.is_empty() && !server.listens.iter().any(Listen::is_wide);
    for server in servers.iter_mut().filter(|_| wide).filter(is_narrow) {
        // Its listener would lead to everybody else's routes.
        let listens = std::mem::take(&mut server.listens);
        let addresses: Vec<String> = listens.iter().map(|listen| listen.address.to_string()).collect();
        let why = format!("only {} leads to it, and routes hold for all listeners", addresses.join(", "));
        hold(work, server, &why);
    }
    let open_plain = |server: &&Server| !server.redirects_plain() && server.listens.iter().any(|listen| !listen.ssl);
    let Some(plain) = servers.iter().find(open_plain).map(|server| server.place.clone()) else { return };
    for server in servers.iter_mut().filter(|server| server.has_open()) {
        let wants_certificate = server.client_auth.as_ref().is_some_and(|(_, must)| *must);
        if wants_certificate {
            let why = format!("it wants certificates of clients, and routes hold for all listeners, also where {plain} listens");
            hold(work, server, &why);
        } else if server.listens.iter().all(|listen| listen.ssl) {
            let why = format!("routes hold for all listeners: it can be reached without TLS, too, where {plain} listens");
            work.ledger.say(Weight::Differs, &server.place, "server".to_owned(), why, None);
        }
    }
}

fn hold(work: &mut Work<'_>, server: &mut Server, why: &str) {
    let told = format!("{why}: others would reach it; held shut");
    let instead = "a second process with this listener alone".to_owned();
    work.ledger.say(Weight::Lost, &server.place, "server".to_owned(), told, Some(instead));
    server.hold(why);
}
