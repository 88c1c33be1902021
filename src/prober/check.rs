//! What is asked of an instance, and how often: its service's policy and its own record, put together.

use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::judge::Pace;
use super::tls::Tls;
use crate::model::{Host, InstanceSpec, Lifecycle, ProbeKind, ProbePolicy, ProxyProtocol, ServicePolicy, StatusRanges};
use crate::pool::Instance;
use crate::trust::Trusts;

/// Equal checks of one address are one check, whoever wants it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Check {
    pub ask: Ask,
    /// `None`: in the clear.
    pub tls: Option<Tls>,
    /// Begins with a PROXY header of our own.
    pub proxy_protocol: Option<ProxyProtocol>,
    pub timeout: Duration,
    pub pace: Pace,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ask {
    /// A connection is enough; where there is TLS, its handshake too.
    Tcp,
    Http(HttpAsk),
    /// `grpc.health.v1.Health/Check` of the service with the empty name, which stands for all of them.
    Grpc {
        host: Option<String>,
        headers: Vec<(HeaderName, HeaderValue)>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpAsk {
    pub path: String,
    /// `None`: the address that is connected to.
    pub host: Option<String>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub expect: StatusRanges,
    pub body: Option<String>,
    pub over_http2: bool,
}

impl Check {
    /// What an instance has to answer, and where. `None`: it is not probed.
    pub fn of(policy: &ServicePolicy, instance: &Instance, trusts: &Trusts) -> Option<(SocketAddr, Self)> {
        let (spec, probe) = (&*instance.spec, &policy.probe);
        let mut address = instance.standing.addr?;
        if let Some(port) = spec.probe.port {
            address.set_port(port.get());
        }
        // Who takes no new requests needs no verdict, and in maintenance nothing may be listening.
        if instance.standing.lifecycle != Lifecycle::Ready {
            return None;
        }
        let ask = Self::ask(spec, probe, address.port())?;
        let over_http2 = matches!(ask, Ask::Grpc { .. } | Ask::Http(HttpAsk { over_http2: true, .. }));
        let tls = spec.protocol.is_tls().then(|| {
            let trust = trusts.of(policy.tls.as_ref());
            Tls { name: trust.name(&spec.address.host), trust, over_http2 }
        });
        let pace = Pace { interval: probe.interval, rise: probe.rise, fall: probe.fall };
        let proxy_protocol = policy.proxy_protocol;
        Some((address, Self { ask, tls, proxy_protocol, timeout: probe.timeout, pace }))
    }

    fn ask(spec: &InstanceSpec, probe: &ProbePolicy, port: u16) -> Option<Ask> {
        let path = spec.probe.path.as_ref().or(probe.path.as_ref());
        let host = || match (&probe.host, &spec.address.host) {
            (Some(host), _) => Some(host.clone()),
            (None, Host::Name(name)) => Some(format!("{name}:{port}")),
            (None, Host::Ip(_)) => None,
        };
        let http = |path: &str| {
            let (expect, body, over_http2) = (probe.expect.clone(), probe.body.clone(), spec.protocol.is_http2());
            Ask::Http(HttpAsk { path: path.to_owned(), host: host(), headers: probe.headers.clone(), expect, body, over_http2 })
        };
        match (probe.kind, path) {
            (Some(ProbeKind::None), _) => None,
            (Some(ProbeKind::Tcp), _) | (None, None) => Some(Ask::Tcp),
            (Some(ProbeKind::Grpc), _) => Some(Ask::Grpc { host: host(), headers: probe.headers.clone() }),
            (Some(ProbeKind::Http), None) => Some(http("/")),
            (Some(ProbeKind::Http) | None, Some(path)) => Some(http(path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prober::subjects::tests::instance;
    use crate::wire::{parse_instance, parse_policy};
    use std::sync::LazyLock;

    /// Where an instance of this record is probed, and for what.
    fn check(policy: &str, record: &str) -> Option<(String, Check)> {
        static TRUSTS: LazyLock<Trusts> = LazyLock::new(Trusts::default);
        let policy = parse_policy(policy.as_bytes()).unwrap().value;
        let instance = instance("app", "a", parse_instance(record.as_bytes()).unwrap().value, 1);
        Check::of(&policy, &instance, &TRUSTS).map(|(address, check)| (address.to_string(), check))
    }

    fn asks(policy: &str, record: &str) -> String {
        let Some((address, check)) = check(policy, record) else { return "nothing".to_owned() };
        match check.ask {
            Ask::Tcp => format!("tcp {address}"),
            Ask::Grpc { .. } => format!("grpc {address}"),
            Ask::Http(http) => format!("http {address}{}", http.path),
        }
    }

    #[test]
    fn the_policy_says_how_and_the_instance_where() {
        let plain = "10.0.0.1:80";
        assert_eq!(asks("{}", plain), "tcp 10.0.0.1:80");
        assert_eq!(asks(r#"{"probe":{"path":"/h"}}"#, plain), "http 10.0.0.1:80/h");
        assert_eq!(asks(r#"{"probe":{"kind":"http"}}"#, plain), "http 10.0.0.1:80/");
        assert_eq!(asks(r#"{"probe":{"kind":"tcp","path":"/h"}}"#, plain), "tcp 10.0.0.1:80");
        assert_eq!(asks(r#"{"probe":{"kind":"grpc"}}"#, plain), "grpc 10.0.0.1:80");
        let own = r#"{"address":"10.0.0.1:80","probe":{"path":"/own","port":81}}"#;
        assert_eq!(asks("{}", own), "http 10.0.0.1:81/own");
        assert_eq!(asks(r#"{"probe":{"path":"/h"}}"#, own), "http 10.0.0.1:81/own");
        assert_eq!(asks(r#"{"probe":{"kind":"none"}}"#, own), "nothing");
        for state in ["draining", "maintenance"] {
            assert_eq!(asks("{}", &format!(r#"{{"address":"10.0.0.1:80","state":"{state}"}}"#)), "nothing");
        }
    }

    #[test]
    fn equal_checks_are_equal_and_what_differs_tells_them_apart() {
        let of = |policy: &str, record: &str| check(policy, record).unwrap();
        let http = r#"{"address":"10.0.0.1:80","probe":{"path":"/h"}}"#;
        assert_eq!(of("{}", http), of(r#"{"probe":{"path":"/h"},"balance":"random"}"#, "10.0.0.1:80"));
        for policy in [
            r#"{"probe":{"interval":"3s"}}"#,
            r#"{"probe":{"fall":9}}"#,
            r#"{"probe":{"host":"a"}}"#,
            r#"{"probe":{"expect":"200"}}"#,
            r#"{"probe":{"headers":{"a":"1"}}}"#,
        ] {
            assert_ne!(of("{}", http), of(policy, http), "{policy}");
        }
        let says = |headers: &str| of(&format!(r#"{{"probe":{{"headers":{{{headers}}}}}}}"#), http);
        assert_eq!(says(r#""a":"1","b":"2""#), says(r#""B":"2","A":"1""#));
        assert_ne!(says(r#""a":"1""#), says(r#""a":"2""#));
        let https = r#"{"address":"10.0.0.1:80","probe":{"path":"/h"},"protocol":"https"}"#;
        assert_ne!(of("{}", https), of(r#"{"tls":{"verify":false}}"#, https));
        assert_ne!(of("{}", http), of("{}", https));
    }
}
