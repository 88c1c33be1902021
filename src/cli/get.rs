//! `pointsman get`: what the registry says, as a table, as it was written, or as JSON.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::{Value as Json, json};

use super::failure::Failure;
use super::global::{Global, block_on};
use super::noun::{Noun, name_of};
use super::print::{self, Cell, Table, Tone};
use crate::model::{InstanceSpec, Lifecycle, ServicePolicy};
use crate::registry::{Entry, Key, Listing, Record, Store};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pointsman get instance                all instances
  pointsman get instance orders         those of one service
  pointsman get instance orders/a1      one record, as it was written
  pointsman get route --json            for programs
  pointsman get service orders > orders.json && pointsman put service orders orders.json")]
pub struct GetArgs {
    /// What to show
    noun: Noun,
    /// One record; without it, all. Of an instance SERVICE/ID, or SERVICE for all of one service
    name: Option<String>,
}

impl GetArgs {
    pub fn execute(self, global: &Global) -> Result<ExitCode, Failure> {
        block_on(async {
            let mut store = global.store().await?;
            match &self.name {
                None => self.list(&mut store, self.noun.folder(), global.json).await?,
                Some(service) if self.noun == Noun::Instance && !service.contains('/') => {
                    // The name is checked as one, so that a wrong one is not just an empty list.
                    Noun::Service.key(service)?;
                    self.list(&mut store, &format!("/instances/{service}/"), global.json).await?;
                }
                Some(name) => self.one(&mut store, name, global.json).await?,
            }
            Ok(ExitCode::SUCCESS)
        })
    }

    async fn one(&self, store: &mut Store, name: &str, json: bool) -> Result<(), Failure> {
        let key = self.noun.key(name)?;
        let Some(entry) = store.get(&key).await? else {
            return Err(Failure::Missing(format!("there is no {} {name} ({})", self.noun.word(), store.full(&key))));
        };
        if json {
            print::json(&entry_json(&entry));
            return Ok(());
        }
        match shown(&entry) {
            // A plain HOST:PORT is not JSON, and is shown as it is.
            Json::String(text) => print::out(&format!("{}\n", text.trim_end())),
            value => print::json(&value),
        }
        Ok(())
    }

    async fn list(&self, store: &mut Store, folder: &str, json: bool) -> Result<(), Failure> {
        let listing = store.list(folder).await?;
        let instances = match self.noun {
            Noun::Service => store.list(Noun::Instance.folder()).await?.entries,
            _ => Vec::new(),
        };
        match (json, self.noun) {
            (true, Noun::Service) => print::json(&json!({
                "revision": listing.revision,
                "services": services(&listing, &instances).iter().map(Service::json).collect::<Vec<_>>(),
            })),
            (true, _) => print::json(&json!({
                "revision": listing.revision,
                format!("{}s", self.noun.word()): listing.entries.iter().map(entry_json).collect::<Vec<_>>(),
            })),
            (false, Noun::Service) => print_services(&services(&listing, &instances)),
            (false, Noun::Instance) => print_instances(&listing),
            (false, Noun::Route) => print_routes(&listing),
            (false, Noun::Certificate) => print_certificates(&listing),
        }
        Ok(())
    }
}

/// The value as JSON, or as text if it is none. A private key is never shown.
fn shown(entry: &Entry) -> Json {
    let secret = matches!(entry.key, Ok(Key::Certificate(_)));
    match serde_json::from_slice(&entry.value) {
        Ok(Json::Object(mut fields)) if secret => {
            fields.retain(|name, value| is_public(name, value));
            Json::Object(fields)
        }
        Ok(Json::Object(mut fields)) if !secret => {
            if let Some(tls) = fields.get_mut("tls").and_then(Json::as_object_mut) {
                tls.remove("key");
            }
            Json::Object(fields)
        }
        // What is not the record it should be may hold a key anywhere.
        _ if secret => json!({}),
        _ => String::from_utf8_lossy(&entry.value).into(),
    }
}

/// Of a certificate's record. Whoever mixed up its fields may have written the key into any of them.
fn is_public(name: &str, value: &Json) -> bool {
    match (name, value) {
        ("v", Json::Number(_)) => true,
        ("chain", Json::String(chain)) => {
            let mut begun = chain.lines().filter(|line| line.starts_with("-----BEGIN")).peekable();
            begun.peek().is_some() && begun.all(|begin| begin.trim() == "-----BEGIN CERTIFICATE-----")
        }
        _ => false,
    }
}

fn entry_json(entry: &Entry) -> Json {
    let mut said = json!({
        "name": entry.key.as_ref().map_or_else(|_| entry.raw_key.clone(), name_of),
        "revision": entry.revision,
        "leased": entry.leased,
        "value": shown(entry),
    });
    if let Ok(Record::Certificate(certificate)) = read(entry) {
        said["names"] = certificate.names.iter().map(|name| &**name).collect();
        said["not_after"] = humantime::format_rfc3339_seconds(certificate.not_after).to_string().into();
    }
    said
}

struct Service {
    name: String,
    n_instances: usize,
    policy: Option<Entry>,
}

impl Service {
    fn json(&self) -> Json {
        json!({"name": self.name, "instances": self.n_instances, "policy": self.policy.as_ref().map(shown)})
    }
}

/// A service exists once it has an instance or a policy.
fn services(policies: &Listing, instances: &[Entry]) -> Vec<Service> {
    let mut services: BTreeMap<String, Service> = BTreeMap::new();
    let mut of = |name: String, change: &dyn Fn(&mut Service)| {
        change(services.entry(name.clone()).or_insert(Service { name, n_instances: 0, policy: None }));
    };
    for entry in instances {
        if let Ok(Key::Instance { service, .. }) = &entry.key {
            of(service.to_string(), &|service| service.n_instances += 1);
        }
    }
    for entry in &policies.entries {
        if let Ok(Key::Policy(service)) = &entry.key {
            of(service.to_string(), &|service| service.policy = Some(entry.clone()));
        }
    }
    services.into_values().collect()
}

fn print_services(services: &[Service]) {
    let mut table = Table::new(&["SERVICE", "INSTANCES", "BALANCE", "REVISION"]);
    for service in services {
        let revision = service.policy.as_ref().map_or("-".to_owned(), |entry| entry.revision.to_string());
        let balance = match service.policy.as_ref().map(read) {
            None => ServicePolicy::default().balance.as_str().into(),
            Some(Ok(Record::Policy(policy))) => policy.balance.as_str().into(),
            Some(wrong) => rejected(wrong),
        };
        table.row(vec![(&service.name).into(), service.n_instances.into(), balance, revision.into()]);
    }
    table.print();
}

fn print_instances(listing: &Listing) {
    let mut table = Table::new(&["INSTANCE", "ADDRESS", "WEIGHT", "STATE", "ZONE", "PROTOCOL", "LEASE", "REVISION"]);
    for entry in &listing.entries {
        let lease = if entry.leased { "yes" } else { "no" };
        let mut row = vec![name(entry)];
        row.extend(match read(entry) {
            Ok(Record::Instance(spec)) => instance_cells(&spec),
            wrong => vec![rejected(wrong), "".into(), "".into(), "".into(), "".into()],
        });
        row.extend([lease.into(), entry.revision.into()]);
        table.row(row);
    }
    table.print();
}

fn instance_cells(spec: &InstanceSpec) -> Vec<Cell> {
    let tone = if spec.lifecycle == Lifecycle::Ready { Tone::Good } else { Tone::Warning };
    vec![
        (&spec.address).into(),
        spec.weight.into(),
        Cell::toned(spec.lifecycle, tone),
        spec.zone.as_deref().unwrap_or("-").into(),
        spec.protocol.into(),
    ]
}

fn print_routes(listing: &Listing) {
    let mut table = Table::new(&["ROUTE", "HOSTS", "PATH", "SERVICE", "PRIORITY", "REVISION"]);
    for entry in &listing.entries {
        let mut row = vec![name(entry)];
        row.extend(match read(entry) {
            Ok(Record::Route(route)) => {
                let hosts: Vec<String> = route.hosts.iter().map(ToString::to_string).collect();
                let hosts = if hosts.is_empty() { "any host".to_owned() } else { hosts.join(" ") };
                vec![hosts.into(), (&route.path).into(), (&route.action).into(), route.priority.into()]
            }
            wrong => vec![rejected(wrong), "".into(), "".into(), "".into()],
        });
        row.push(entry.revision.into());
        table.row(row);
    }
    table.print();
}

fn print_certificates(listing: &Listing) {
    let mut table = Table::new(&["CERTIFICATE", "NAMES", "EXPIRES", "REVISION"]);
    let now = SystemTime::now();
    for entry in &listing.entries {
        let (names, expires) = match read(entry) {
            Ok(Record::Certificate(certificate)) => {
                let tone = match certificate.not_after.duration_since(now) {
                    Err(_) => Tone::Bad,
                    Ok(left) if left < EXPIRES_SOON => Tone::Warning,
                    Ok(_) => Tone::Plain,
                };
                let until = humantime::format_rfc3339_seconds(certificate.not_after);
                (certificate.names.join(" ").into(), Cell::toned(until, tone))
            }
            wrong => (rejected(wrong), Cell::from("")),
        };
        table.row(vec![name(entry), names, expires, entry.revision.into()]);
    }
    table.print();
}

/// `Err` says in a word or two what is wrong.
fn read(entry: &Entry) -> Result<Record, String> {
    let key = entry.key.as_ref().map_err(ToString::to_string)?;
    match Record::read(key, &entry.value) {
        Ok(parsed) => Ok(parsed.value),
        Err(problems) => Err(problems.first().map(ToString::to_string).unwrap_or_default()),
    }
}

fn rejected(record: Result<Record, String>) -> Cell {
    Cell::toned(format!("rejected: {}", record.err().unwrap_or_default()), Tone::Bad)
}

fn name(entry: &Entry) -> Cell {
    entry.key.as_ref().map_or_else(|_| entry.raw_key.clone(), name_of).into()
}

/// Whoever renews by hand should have begun by then.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CertificateName;

    fn certificate(value: &str) -> Entry {
        let key = Ok(Key::Certificate(CertificateName::parse("a").unwrap()));
        Entry { raw_key: "/p/certificates/a".into(), key, value: value.into(), revision: 1, leased: false }
    }

    #[test]
    fn a_private_key_is_never_shown() {
        let mixed_up =
            r#"{"chain":"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nSECRET"}"#;
        let misnamed = r#"{"chain":"SECRET","kye":"SECRET","v":"SECRET"}"#;
        for value in
            [r#"{"chain":"C","key":"SECRET"}"#, r#"{"chain":"C","key":"SECRET"#, r#""SECRET""#, "SECRET", mixed_up, misnamed]
        {
            let shown = entry_json(&certificate(value)).to_string();
            assert!(!shown.contains("SECRET"), "{shown}");
        }
        let chain = "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n";
        let whole = json!({"v": 1, "chain": chain, "key": "SECRET"}).to_string();
        assert_eq!(shown(&certificate(&whole)), json!({"v": 1, "chain": chain}));
    }
}
