//! An import in words: TOML for the file, commands or JSON for the registry.

use std::borrow::Cow;
use std::fmt::Write;

use serde_json::{Map, Value as Json, json};

use super::nginx::{Listener, Tls};
use super::{Import, Process, Route, Service, Source};
use crate::wire::scalar::{show_duration, show_size};

impl Import {
    /// `pointsman.toml`. With `declared`, services and routes stand in it, too.
    pub fn file(&self, declared: bool) -> String {
        let mut text = String::new();
        self.process.iter().flat_map(|process| &process.listeners).for_each(|listener| write_listener(&mut text, listener));
        self.write_registry(&mut text);
        self.process.iter().for_each(|process| write_process(&mut text, process));
        if declared {
            self.services.iter().for_each(|service| write_service(&mut text, service));
            self.routes.iter().for_each(|route| write_route(&mut text, route));
        }
        text
    }

    /// Noun, name and record of everything that `pointsman put` would write. Services before the routes that name them.
    pub fn records(&self) -> Vec<(&'static str, String, Json)> {
        let mut records = Vec::new();
        for service in &self.services {
            if !service.policy.is_empty() {
                records.push(("service", service.name.clone(), Json::Object(service.policy.clone())));
            }
            for instance in &service.instances {
                let id = instance["address"].as_str().unwrap_or_default().replace(['[', ']'], "");
                records.push(("instance", format!("{}/{id}", service.name), Json::Object(instance.clone())));
            }
        }
        records.extend(self.routes.iter().map(|route| ("route", route.name.clone(), Json::Object(route.record.clone()))));
        records
    }

    /// The same as commands for a shell.
    pub fn commands(&self) -> String {
        let mut text = "#!/bin/sh\nset -eu\n".to_owned();
        for (noun, name, record) in self.records() {
            let quoted = record.to_string().replace('\'', r"'\''");
            // Nothing that echo would take for an escape is safe with it.
            let _ = writeln!(text, "printf '%s' '{quoted}' | pointsman put {noun} '{name}' -");
        }
        text
    }

    /// All of it for programs.
    pub fn json(&self) -> Json {
        let record = |(noun, name, record): (&str, String, Json)| json!({"noun": noun, "name": name, "record": record});
        let findings = self.findings().into_iter().map(|f| {
            json!({"file": &*f.place.file, "line": f.place.line, "directive": f.said, "weight": f.weight.as_str(), "why": f.why, "instead": f.instead})
        });
        json!({
            "file": self.file(true),
            "settings": self.file(false),
            "records": self.records().into_iter().map(record).collect::<Vec<_>>(),
            "findings": findings.collect::<Vec<_>>(),
        })
    }

    /// Our own ports move where nginx had them.
    fn write_registry(&self, text: &mut String) {
        let has = |port: u16| self.process.iter().flat_map(|p| &p.listeners).any(|l| l.address.port() == port);
        let free = |from: u16| (from..=u16::MAX).find(|port| !has(*port)).unwrap_or(from);
        if has(ADMIN_PORT) {
            let _ = write!(text, "[admin]\naddress = \"127.0.0.1:{}\"\n\n", free(ADMIN_PORT));
        }
        if !self.registry.endpoints.is_empty() {
            let _ = write!(text, "[registry]\nendpoints = {}\n\n", inline(&json!(self.registry.endpoints)));
        } else if has(EMBEDDED_PORT) {
            let _ = write!(text, "[registry]\nlisten = \"127.0.0.1:{}\"\n\n", free(EMBEDDED_PORT));
        }
        for Source { keys, service, dest } in &self.sources {
            let _ = write!(
                text,
                "# in place of what confd renders into {}\n[[registry.source]]\nkeys = {}\n",
                plain(dest),
                quoted(keys)
            );
            if let Some(service) = service {
                let _ = writeln!(text, "service = {}", quoted(service));
            }
            text.push('\n');
        }
    }
}

fn write_listener(text: &mut String, listener: &Listener) {
    let _ = writeln!(text, "[[listener]]\naddress = \"{}\"", listener.address);
    if listener.proxy_protocol {
        text.push_str("proxy_protocol = true\n");
    }
    if let Some(port) = listener.redirect_to_https {
        let _ = writeln!(text, "redirect_to_https = {port}");
    }
    if let Some(Tls { certificates, tls13_only, client_auth, hsts }) = &listener.tls {
        let pairs: Vec<Json> = certificates.iter().map(|(chain, key)| json!({"chain": chain, "key": key})).collect();
        let _ = writeln!(text, "[listener.tls]\ncertificates = {}", inline(&Json::Array(pairs)));
        if *tls13_only {
            text.push_str("min_version = \"1.3\"\n");
        }
        if let Some((file, must)) = client_auth {
            let auth = if *must { "require" } else { "request" };
            let _ = writeln!(text, "client_ca = {}\nclient_auth = \"{auth}\"", quoted(file));
        }
        if let Some(hsts) = hsts {
            let _ = writeln!(text, "hsts = {}", inline(hsts));
        }
    }
    text.push('\n');
}

fn write_process(text: &mut String, process: &Process) {
    let settings = &process.settings;
    let mut proxy = Map::new();
    proxy.extend(settings.workers.map(|n| ("workers".to_owned(), json!(n))));
    if !settings.trusted_proxies.is_empty() {
        proxy.insert("trusted_proxies".to_owned(), json!(settings.trusted_proxies));
    }
    write_section(text, "proxy", &proxy);
    let mut limits: Map<String, Json> =
        settings.limits.iter().map(|(key, time)| ((*key).to_owned(), json!(show_duration(*time)))).collect();
    limits.extend(settings.head_size.map(|bytes| ("head_size".to_owned(), json!(show_size(bytes)))));
    limits.extend(process.body_size.map(|bytes| ("body_size".to_owned(), json!(show_size(bytes)))));
    write_section(text, "proxy.limits", &limits);
    let drain = settings.drain.map(|time| ("drain".to_owned(), json!(show_duration(time))));
    write_section(text, "proxy.shutdown", &drain.into_iter().collect());
}

fn write_section(text: &mut String, name: &str, fields: &Map<String, Json>) {
    if !fields.is_empty() {
        let _ = writeln!(text, "[{name}]");
        write_fields(text, fields);
        text.push('\n');
    }
}

fn write_service(text: &mut String, service: &Service) {
    if let Some(Source { keys, .. }) = &service.source {
        let _ = writeln!(text, "# instances: {}", plain(keys));
    }
    let _ = writeln!(text, "[[service]]\nname = {}", quoted(&service.name));
    if !service.instances.is_empty() {
        text.push_str("instances = [\n");
        for instance in &service.instances {
            let only_address = instance.len() == 1;
            let shown = if only_address { instance["address"].clone() } else { Json::Object(instance.clone()) };
            let _ = writeln!(text, "  {},", inline(&shown));
        }
        text.push_str("]\n");
    }
    write_fields(text, &service.policy);
    text.push('\n');
}

fn write_route(text: &mut String, route: &Route) {
    let _ = writeln!(text, "# {}\n[[route]]\nname = {}", plain(&route.comment), quoted(&route.name));
    write_fields(text, &route.record);
    text.push('\n');
}

fn write_fields(text: &mut String, fields: &Map<String, Json>) {
    for (key, value) in fields {
        let _ = writeln!(text, "{key} = {}", inline(value));
    }
}

/// A value of TOML on one line.
fn inline(value: &Json) -> String {
    match value {
        Json::String(text) => quoted(text),
        Json::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Json::Object(fields) => {
            let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{} = {}", key(name), inline(value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        other => other.to_string(),
    }
}

/// Names of header fields may hold what TOML wants quoted.
fn key(name: &str) -> Cow<'_, str> {
    let is_bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if is_bare { Cow::Borrowed(name) } else { Cow::Owned(quoted(name)) }
}

/// Literal where that spares backslashes; else as JSON, whose escapes TOML has, too, but for DEL's, which JSON does without.
fn quoted(text: &str) -> String {
    if text.contains('\\') && !text.contains('\'') && !text.chars().any(char::is_control) {
        return format!("'{text}'");
    }
    Json::from(text).to_string().replace('\u{7f}', "\\u007F")
}

/// For a comment: on one line.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Where the admin endpoint and the embedded registry listen unless they are told otherwise.
const ADMIN_PORT: u16 = 9900;
const EMBEDDED_PORT: u16 = 2379;
