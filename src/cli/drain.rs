//! `pointsman drain`: an operator takes an instance out of traffic, or brings it back.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::global::{Global, block_on};
use super::noun::instance;
use super::{print, proxies};
use crate::model::{InstanceId, Lifecycle, Override, ServiceName};
use crate::registry::{Key, Record, Store};
use crate::wire::{Presence, override_json};

#[derive(Debug, Args)]
#[command(after_help = "\
The instance gets no new request, and what runs is finished. It stays drained when it registers again, until --undo.

Examples:
  pointsman drain orders/a1 --wait && ssh a1 systemctl restart orders
  pointsman drain orders/a1 --undo")]
pub struct DrainArgs {
    /// SERVICE/ID
    instance: String,
    /// Until no proxy has a request left at it
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Let it take traffic again
    #[arg(long)]
    undo: bool,
    /// Also if no such instance is registered
    #[arg(long)]
    force: bool,
}

impl DrainArgs {
    pub fn execute(self, global: &Global) -> Result<ExitCode, Failure> {
        let (service, id) = instance(&self.instance)?;
        block_on(async {
            let mut store = global.store().await?;
            if !self.force && !self.undo {
                must_exist(&mut store, &service, &id).await?;
            }
            let key = Key::Override { service, id };
            let revision = if self.undo { self.take_back(&mut store, &key).await? } else { write(&mut store, &key).await? };
            if !global.json {
                print::out(&format!("{revision}\n"));
            }
            let mut answer = json!({"revision": revision});
            if self.wait {
                // Once a proxy knows of it, who drains is busy there or drained; who has left meanwhile may be neither.
                let is_through = |proxy: &Presence| self.undo || !proxy.busy.contains(&self.instance);
                let done = |proxy: &Presence| proxy.applied_revision >= revision && is_through(proxy);
                let n = proxies::wait_for_all(&mut store, self.timeout, done).await?;
                self.must_still_hold(&mut store, &key).await?;
                answer["proxies"] = n.into();
                match n {
                    _ if global.json => {}
                    0 => print::note("no proxy is running"),
                    n if self.undo => print::note(&format!("{} takes traffic again; proxies that know it: {n}", self.instance)),
                    n => print::note(&format!("nothing is left at {}; proxies that know it drains: {n}", self.instance)),
                }
            }
            if global.json {
                print::json(&answer);
            }
            Ok(ExitCode::SUCCESS)
        })
    }

    /// Somebody may have brought it back while we waited.
    async fn must_still_hold(&self, store: &mut Store, key: &Key) -> Result<(), Failure> {
        let drains = present(store, key).await?.is_some_and(|present| present.lifecycle.is_some_and(|l| l != Lifecycle::Ready));
        if self.undo || drains {
            return Ok(());
        }
        Err(Failure::Missing(format!("{} is not drained any more: somebody has taken that back", self.instance)))
    }

    /// What else the override says, such as a weight, stays.
    async fn take_back(&self, store: &mut Store, key: &Key) -> Result<u64, Failure> {
        let missing = || Failure::Missing(format!("{} is not drained by an operator", self.instance));
        let present = present(store, key).await?.ok_or_else(missing)?;
        if present.lifecycle.is_none() {
            return Err(missing());
        }
        match (Override { lifecycle: None, ..present }) {
            rest if rest.weight.is_some() => Ok(store.put(key, override_json(&rest).to_string().as_bytes()).await?),
            _ => store.delete(key).await?.ok_or_else(missing),
        }
    }
}

async fn write(store: &mut Store, key: &Key) -> Result<u64, Failure> {
    let weight = present(store, key).await?.and_then(|present| present.weight);
    // Without an end: whoever drained it says when it is over.
    let draining = Override { lifecycle: Some(Lifecycle::Draining), weight, until: None };
    Ok(store.put(key, override_json(&draining).to_string().as_bytes()).await?)
}

/// One that cannot be read is in force nowhere, so it counts as empty.
async fn present(store: &mut Store, key: &Key) -> Result<Option<Override>, Failure> {
    let Some(entry) = store.get(key).await? else { return Ok(None) };
    Ok(match Record::read(key, &entry.value).map(|parsed| parsed.value) {
        Ok(Record::Override(present)) => Some(present),
        _ => Some(Override::default()),
    })
}

/// A mistyped name must not look like success.
async fn must_exist(store: &mut Store, service: &ServiceName, id: &InstanceId) -> Result<(), Failure> {
    let key = Key::Instance { service: service.clone(), id: id.clone() };
    if store.get(&key).await?.is_some() {
        return Ok(());
    }
    let siblings = store.list(&format!("/instances/{service}/")).await?.entries;
    let names: Vec<String> = siblings
        .iter()
        .take(NAMED_MAX)
        .filter_map(|entry| match &entry.key {
            Ok(Key::Instance { id, .. }) => Some(id.to_string()),
            _ => None,
        })
        .collect();
    let there =
        if names.is_empty() { "nothing is registered there".to_owned() } else { format!("there is {}", names.join(", ")) };
    Err(Failure::Missing(format!("{service} has no instance {id} in the registry; {there} (--force drains it all the same)")))
}

/// Enough to see the one that was meant.
const NAMED_MAX: usize = 10;
