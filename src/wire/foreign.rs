//! Instances as other programs register them, told apart by the value alone.
//!
//! | value | written by |
//! |---|---|
//! | `[scheme://]host:port [weight=5] [key=value …]` | scripts, confd, Registrator, go-zero |
//! | ours, with `address` and without `port` | `pointsman register` |
//! | `{"address":…,"port":…}` | Spring Cloud |
//! | `{"Op":0,"Addr":"host:port"}` | gRPC naming (etcd's endpoints package) |
//! | `{"nodes":[{"address":"host:port"}]}` | go-micro |
//! | `{"endpoints":["http://…","grpc://…"]}` | go-kratos |
//! | `{"Host":…,"Port":…,"Enable":…}` | Dubbo |
//! | `{"URL":"http://…"}` | vulcand |
//! | `{"host":…,"port":…}` | SkyDNS, nerve |
//!
//! The first form that fits is the one; a value that fits none is refused with what was found. Fields of theirs that
//! mean nothing to us are no warning: they were never meant for us.

use crate::model::{Address, InstanceSpec, Lifecycle, Protocol};

use super::fields::{Fields, Read, Unknown};
use super::node::{Node, Table, Value, quoted};
use super::record::{json_of, read_node, text_of, whole};
use super::scalar::{boolean, number, text};
use super::{ParseResult, Parsed, parse_instance};

/// One instance out of one value, whoever wrote it.
pub fn parse_foreign_instance(value: &[u8]) -> ParseResult<InstanceSpec> {
    let said = text_of(value, BYTES_MAX)?.trim();
    if !said.starts_with('{') {
        return match plain(said) {
            Ok(value) => Ok(Parsed { value, warnings: Vec::new() }),
            Err(message) => Err(whole(message)),
        };
    }
    let node = json_of(said)?;
    let Some(table) = node.table() else { return Err(whole("the value is not a JSON object".to_owned())) };
    if is_ours(table) {
        return parse_instance(value);
    }
    match Form::of(table) {
        Some(form) => read_node(&node, Unknown::Ignored, |fields| form.read(fields)),
        None => {
            let keys: Vec<&str> = table.entries.iter().take(KEYS_SHOWN_MAX).map(|e| e.key.as_str()).collect();
            Err(whole(format!("no form of an instance that we know has the fields {}", keys.join(", "))))
        }
    }
}

fn is_ours(table: &Table) -> bool {
    table.has("address") && (table.has("v") || !table.has("port"))
}

#[derive(Clone, Copy)]
enum Form {
    Spring,
    GrpcNaming,
    GoMicro,
    GoKratos,
    Dubbo,
    Vulcand,
    SkyDns,
}

impl Form {
    fn of(table: &Table) -> Option<Self> {
        let has_list = |key: &str| table.get(key).is_some_and(|e| matches!(e.node.value, Value::List(_)));
        Some(match () {
            () if table.has("address") => Self::Spring,
            () if table.has("Op") && table.has("Addr") => Self::GrpcNaming,
            () if has_list("nodes") => Self::GoMicro,
            () if has_list("endpoints") => Self::GoKratos,
            () if table.has("Host") && table.has("Port") => Self::Dubbo,
            () if table.has("URL") => Self::Vulcand,
            () if table.has("host") => Self::SkyDns,
            () => return None,
        })
    }

    fn read(self, fields: &mut Fields<'_>) -> Option<InstanceSpec> {
        match self {
            Self::Spring => host_and_port(fields, "address", "port"),
            Self::GrpcNaming => grpc_naming(fields),
            Self::GoMicro => go_micro(fields),
            Self::GoKratos => go_kratos(fields),
            Self::Dubbo => dubbo(fields),
            Self::Vulcand => fields.required("URL", |node| url(text(node)?)),
            Self::SkyDns => {
                let mut spec = host_and_port(fields, "host", "port")?;
                spec.weight = fields.or("weight", spec.weight, number(0..=u16::MAX));
                Some(spec)
            }
        }
    }
}

/// `[scheme://]host:port`, then `key=value` pairs of which `weight` counts and the rest is metadata.
fn plain(said: &str) -> Read<InstanceSpec> {
    let mut words = said.split_whitespace();
    let mut spec = url(words.next().unwrap_or_default())?;
    for pair in words {
        match pair.split_once('=') {
            Some(("weight", weight)) => {
                spec.weight = weight.parse().map_err(|_| format!("weight: {} is not in 0..=65535", quoted(weight)))?;
            }
            Some((key, value)) => drop(spec.metadata.insert(key.to_owned(), value.to_owned())),
            None => return Err(format!("{} is not a pair such as \"weight=5\" after the address", quoted(pair))),
        }
    }
    Ok(spec)
}

/// `Op` 0 adds, 1 deletes; a deletion is never stored as a value.
fn grpc_naming(fields: &mut Fields<'_>) -> Option<InstanceSpec> {
    fields.optional("Op", |node| match &node.value {
        Value::Integer(0) => Ok(()),
        _ => Err(format!("{} is not 0, which adds an instance", node.shown())),
    });
    let mut spec = fields.required("Addr", |node| url(text(node)?))?;
    spec.protocol = if spec.protocol.is_tls() { Protocol::H2 } else { Protocol::H2c };
    Some(spec)
}

fn go_micro(fields: &mut Fields<'_>) -> Option<InstanceSpec> {
    let mut instances = fields.each("nodes", |node, path, report| {
        let mut fields = Fields::of(node, path, report)?;
        let mut spec = fields.required("address", |node| url(text(node)?))?;
        let pairs = fields.entries("metadata", |entry| Ok((entry.key.clone(), text(&entry.node)?.to_owned())));
        spec.metadata = pairs.into_iter().collect();
        Some(spec)
    })?;
    if instances.len() > 1 {
        fields.wrong("nodes", format!("has {} entries; one key is one instance", instances.len()));
    }
    let instance = instances.pop();
    if instance.is_none() {
        fields.wrong("nodes", "has no usable entry");
    }
    instance
}

/// One process, several ports: the one that speaks HTTP, else the one for gRPC.
fn go_kratos(fields: &mut Fields<'_>) -> Option<InstanceSpec> {
    let endpoints = fields.list("endpoints", |node| {
        let said = text(node)?;
        let (address, query) = said.split_once('?').unwrap_or((said, ""));
        let mut spec = url(address)?;
        if query.split('&').any(|pair| pair == "isSecure=true") {
            spec.protocol = if spec.protocol.is_http2() { Protocol::H2 } else { Protocol::Https };
        }
        Ok(spec)
    })?;
    let chosen = endpoints.iter().find(|spec| !spec.protocol.is_http2()).or(endpoints.first());
    if chosen.is_none() {
        fields.wrong("endpoints", "has no usable entry");
    }
    chosen.cloned()
}

/// Its weight is 0 where nobody set one.
fn dubbo(fields: &mut Fields<'_>) -> Option<InstanceSpec> {
    let mut spec = host_and_port(fields, "Host", "Port")?;
    spec.weight = match fields.or("Weight", 0, number(0..=u16::MAX)) {
        0 => InstanceSpec::WEIGHT_DEFAULT,
        weight => weight,
    };
    if !fields.or("Enable", true, boolean) {
        spec.lifecycle = Lifecycle::Draining;
    }
    Some(spec)
}

fn host_and_port(fields: &mut Fields<'_>, host: &'static str, port: &'static str) -> Option<InstanceSpec> {
    let port = fields.required(port, |node| match &node.value {
        Value::Text(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            number(1..=u16::MAX)(&Node { value: Value::Word(digits.clone()), place: node.place.clone() })
        }
        _ => number(1..=u16::MAX)(node),
    });
    let host = fields.required(host, |node| {
        let said = text(node)?;
        let host = if said.parse::<std::net::Ipv6Addr>().is_ok() { format!("[{said}]") } else { said.to_owned() };
        // Any port will do to see whether the host is one.
        Address::parse(&format!("{host}:1")).map_err(|_| format!("{} is neither an IP address nor a DNS name", quoted(said)))
    });
    let (Some(host), Some(port)) = (host, port) else { return None };
    Some(InstanceSpec::at(Address { port, ..host }))
}

/// `host:port` with or without a scheme; without a port, the scheme has one.
fn url(said: &str) -> Read<InstanceSpec> {
    if said.starts_with("unix:") {
        return Err(format!("{} is a Unix socket, which instances cannot have", quoted(said)));
    }
    let (scheme, rest) = said.split_once("://").unwrap_or(("", said));
    let (protocol, port) = match scheme {
        "" => (Protocol::Http, None),
        "http" => (Protocol::Http, Some(80)),
        "https" => (Protocol::Https, Some(443)),
        "h2c" | "grpc" => (Protocol::H2c, None),
        "h2" | "grpcs" => (Protocol::H2, None),
        _ => return Err(format!("{} is none of http, https, h2, h2c, grpc, grpcs", quoted(scheme))),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let address = match port {
        Some(port) if !has_port => Address::parse(&format!("{rest}:{port}")),
        _ => Address::parse(rest),
    };
    let address = address.map_err(|e| e.to_string())?;
    Ok(InstanceSpec { protocol, ..InstanceSpec::at(address) })
}

/// Theirs may be longer than ours: go-micro lists every method.
const BYTES_MAX: usize = 64 * 1024;
/// Fields a message lists.
const KEYS_SHOWN_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// Address, protocol, weight and lifecycle in one line; or the problems.
    fn shown(value: &str) -> String {
        match parse_foreign_instance(value.as_bytes()) {
            Ok(Parsed { value, warnings }) => {
                assert!(warnings.is_empty(), "{warnings:?}");
                format!("{} {} {} {}", value.address, value.protocol, value.weight, value.lifecycle)
            }
            Err(problems) => problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        }
    }

    #[test]
    fn each_form_is_told_apart_by_its_value() {
        for (value, expected) in [
            ("10.0.1.101:80\n", "10.0.1.101:80 http 100 ready"),
            ("http://10.0.1.101/ weight=5 zone=a", "10.0.1.101:80 http 5 ready"),
            ("https://[::1] id=7", "[::1]:443 https 100 ready"),
            ("grpc://[::1]:9000", "[::1]:9000 h2c 100 ready"),
            (r#"{"v":1,"address":"a:1","weight":7}"#, "a:1 http 7 ready"),
            (r#"{"address":"a:1","state":"draining"}"#, "a:1 http 100 draining"),
            (r#"{"serviceName":"x","address":"192.168.1.102","port":8080,"serviceId":"x"}"#, "192.168.1.102:8080 http 100 ready"),
            (r#"{"Op":0,"Addr":"10.0.0.1:8080","Metadata":null}"#, "10.0.0.1:8080 h2c 100 ready"),
            (
                r#"{"name":"g","version":"1","endpoints":[{"name":"A"}],"nodes":[{"metadata":{"a":"b"},"id":"g-1","address":"10.0.0.1:8080"}]}"#,
                "10.0.0.1:8080 http 100 ready",
            ),
            (
                r#"{"id":"1","endpoints":["grpc://127.0.0.1:9000?isSecure=false","http://127.0.0.1:8000?isSecure=true"]}"#,
                "127.0.0.1:8000 https 100 ready",
            ),
            (r#"{"endpoints":["grpc://127.0.0.1:9000?isSecure=true"]}"#, "127.0.0.1:9000 h2 100 ready"),
            (
                r#"{"ID":"x","ServiceName":"s","Host":"127.0.0.1","Port":2233,"Weight":0,"Enable":false,"Healthy":true}"#,
                "127.0.0.1:2233 http 100 draining",
            ),
            (r#"{"URL":"http://localhost:5000"}"#, "localhost:5000 http 100 ready"),
            (r#"{"host":"fe80::1","port":8080,"priority":10,"weight":20,"ttl":60}"#, "[fe80::1]:8080 http 20 ready"),
            (r#"{"host":"a.example","port":"3000","name":"i-1","labels":{}}"#, "a.example:3000 http 100 ready"),
        ] {
            assert_eq!(shown(value), expected, "{value}");
        }
    }

    #[test]
    fn what_fits_no_form_says_what_was_found() {
        for (value, expected) in [
            ("", "the value is empty"),
            ("myapp", "\"myapp\" is not HOST:PORT: it has no port"),
            ("a:1 fast", "\"fast\" is not a pair such as \"weight=5\" after the address"),
            ("a:1 weight=-1", "weight: \"-1\" is not in 0..=65535"),
            ("unix:/run/a.sock", "\"unix:/run/a.sock\" is a Unix socket, which instances cannot have"),
            ("tcp://a:1", "\"tcp\" is none of http, https, h2, h2c, grpc, grpcs"),
            (r#"{"Id":"h","IP":"10.0.0.2"}"#, "no form of an instance that we know has the fields IP, Id"),
            (r#"{"host":"10.0.0.1"}"#, "port: is missing"),
            (r#"{"host":"a b","port":0}"#, "port: 0 is not in 1..=65535; host: \"a b\" is neither an IP address nor a DNS name"),
            (r#"{"Op":1,"Addr":"a:1"}"#, "Op: 1 is not 0, which adds an instance"),
            (r#"{"nodes":[]}"#, "nodes: has no usable entry"),
            (r#"{"nodes":[{"address":"a:1"},{"address":"b:1"}]}"#, "nodes: has 2 entries; one key is one instance"),
            (
                r#"{"endpoints":["ftp://a"]}"#,
                "endpoints[0]: \"ftp\" is none of http, https, h2, h2c, grpc, grpcs; endpoints: has no usable entry",
            ),
            (r#"{"v":1,"address":"a"}"#, "address: \"a\" is not HOST:PORT: it has no port"),
        ] {
            assert_eq!(shown(value), expected, "{value}");
        }
    }
}
