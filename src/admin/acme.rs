//! What became of orders for certificates: as part of `/api/v1/certificates`, and as metrics. Never a key.

use std::time::UNIX_EPOCH;

use serde_json::{Value as Json, json};

use super::services::moment;
use super::sources::Sources;
use crate::catalog::Snapshot;
use crate::telemetry::{Exposition, families};

pub fn state(sources: &Sources, snapshot: &Snapshot) -> Json {
    let orders = snapshot.acme.orders.iter().map(|(name, order)| {
        json!({
            "name": name.as_str(),
            "domains": order.domains.iter().map(|domain| &**domain).collect::<Json>(),
            "state": order.state.as_str(),
            "directory": order.directory,
            "proxy": order.proxy,
            "at": moment(order.at),
            "next": order.next.map(moment),
            "failed": order.n_failed,
            "error": order.error,
        })
    });
    json!({ "renewer": (sources.acme)().map(|acme| acme.is_renewer), "orders": orders.collect::<Json>() })
}

pub fn metrics(sources: &Sources, snapshot: &Snapshot, challenges: &[(&str, u64)], text: &mut Exposition) {
    if let Some(acme) = (sources.acme)() {
        text.family(&families::ACME_RENEWER);
        text.sample(&[], u8::from(acme.is_renewer));
        text.family(&families::ACME_ORDERS);
        acme.orders.iter().for_each(|(result, n)| text.sample(&[result], n));
    }
    let orders = &snapshot.acme.orders;
    text.family(&families::ACME_FAILURES);
    orders.iter().for_each(|(name, order)| text.sample(&[name.as_str()], order.n_failed));
    text.family(&families::ACME_NEXT_ORDER);
    for (name, next) in orders.iter().filter_map(|(name, order)| Some((name, order.next?))) {
        text.sample(&[name.as_str()], next.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
    }
    text.family(&families::ACME_CHALLENGES);
    challenges.iter().for_each(|(kind, n)| text.sample(&[kind], n));
}
