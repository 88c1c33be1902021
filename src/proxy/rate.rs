//! Rate limits of routes: who a request's client is, and whether it may have one more.
//!
//! All routes and workers share one table. A client is known in it by what its route's limit says, so that a change elsewhere
//! leaves it what it has used, and a change of the limit itself begins anew.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::addresses::network_of;
use super::arrival::Arrival;
use super::reply::Refusal;
use crate::model::{RateKey, RateLimit};
use crate::rate::{Rule, Table};
use crate::routing::{Fields, Route, all};

pub struct Rates {
    /// How many clients are remembered.
    places: usize,
    /// Made for the first request that meets a limit: most proxies have none.
    table: OnceLock<Table>,
    routes: foldhash::quality::RandomState,
    clients: RandomState,
    begun: Instant,
}

impl Rates {
    pub fn new(places: usize) -> Self {
        let (routes, clients) = (foldhash::quality::RandomState::default(), RandomState::new());
        Self { places, table: OnceLock::new(), routes, clients, begun: Instant::now() }
    }

    /// Takes one request out of what the client may have on its route. To be asked once for each request, by the engine that
    /// serves it.
    pub fn admit(&self, route: &Route, fields: &dyn Fields, arrival: &Arrival) -> Result<(), Refusal> {
        let Some(limit) = &route.spec.rate_limit else { return Ok(()) };
        let table = self.table.get_or_init(|| Table::new(self.places));
        let rule = Rule::new(limit.requests, limit.per, limit.burst);
        let key = self.key(route, limit, fields, arrival.client);
        let Err(wait) = table.take(key, rule, arrival.started.saturating_duration_since(self.begun)) else { return Ok(()) };
        if limit.dry_run {
            route.stats.limited_dry.fetch_add(1, Relaxed);
            return Ok(());
        }
        route.stats.limited.fetch_add(1, Relaxed);
        // The whole second after it: who comes then is let in.
        Err(Refusal::Limited { seconds: wait.as_secs() + u64::from(wait.subsec_nanos() > 0) })
    }

    /// Clients that were forgotten before their time.
    pub fn displaced(&self) -> u64 {
        self.table.get().map_or(0, Table::displaced)
    }

    /// What the client goes by in the table. It is hashed with a seed that nobody knows and an algorithm made for that, so that
    /// no header can be chosen that takes another client's place; the route, which is an operator's word, with a cheaper one.
    fn key(&self, route: &Route, limit: &RateLimit, fields: &dyn Fields, client: IpAddr) -> u64 {
        let RateLimit { requests, per, burst, by, dry_run: _ } = limit;
        let of_route = self.routes.hash_one((route.origin, &route.spec.name, requests, per, burst, by));
        let mut of_client = self.clients.build_hasher();
        of_client.write_u64(of_route);
        match by {
            RateKey::Route => {}
            RateKey::Header(name) if fields.get(name).is_some() => all(fields, name).for_each(|value| value.hash(&mut of_client)),
            RateKey::Header(_) | RateKey::ClientAddress => match network_of(client) {
                IpAddr::V4(ip) => of_client.write(&ip.octets()),
                IpAddr::V6(ip) => of_client.write(&ip.octets()),
            },
        }
        of_client.finish()
    }
}
