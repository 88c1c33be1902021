//! Waiting until every living proxy has done something, as their own records under `/proxies/` tell it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::failure::Failure;
use super::noun::name_of;
use crate::registry::{Entry, Record, Store};
use crate::wire::Presence;

/// How many proxies there are, once all of them are `done`. None at all is all of them.
pub async fn wait_for_all(store: &mut Store, limit: Duration, done: impl Fn(&Presence) -> bool) -> Result<usize, Failure> {
    let deadline = Instant::now() + limit;
    loop {
        let proxies = store.list("/proxies/").await?.entries;
        let late: Vec<String> = proxies.iter().filter_map(|entry| lateness(entry, &done)).collect();
        if late.is_empty() {
            return Ok(proxies.len());
        }
        if Instant::now() >= deadline {
            return Err(Failure::TimedOut { after: limit, waiting_for: late.join(", ") });
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Who is not done yet and how far it is.
fn lateness(entry: &Entry, done: impl Fn(&Presence) -> bool) -> Option<String> {
    let key = match &entry.key {
        Ok(key) => key,
        Err(error) => return Some(format!("{}: {error}", entry.raw_key)),
    };
    match Record::read(key, &entry.value).map(|parsed| parsed.value) {
        Ok(Record::Proxy(presence)) if done(&presence) => None,
        Ok(Record::Proxy(presence)) => Some(format!("proxy {} is at revision {}", name_of(key), presence.applied_revision)),
        _ => Some(format!("the record of proxy {} cannot be read", name_of(key))),
    }
}

/// Proxies write once a second at most, so asking more often learns little.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
