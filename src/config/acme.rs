//! `[acme]`: certificates that are ordered from a directory (RFC 8555), and by whom it knows us.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::model::{CertificateName, ChallengeKind, Secret};
use crate::wire::fields::{Fields, Read};
use crate::wire::node::{Node, quoted};
use crate::wire::scalar::{boolean, duration, named, number, one_of, text, word};
use crate::wire::{domain, show_duration};

use super::registry::path_in;
use super::{Layers, Listener, RegistryKind, read_authorities};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeConfig {
    /// The URL of the directory.
    pub directory: String,
    pub email: Option<String>,
    pub challenge: ChallengeKind,
    /// Who vouches for the directory; `None`: whom the system trusts.
    pub ca_file: Option<PathBuf>,
    pub external_account: Option<ExternalAccount>,
    /// Percent of a certificate's life.
    pub renew_after: u8,
    /// How long to wait after a first failure.
    pub retry: Duration,
    /// At least one.
    pub certificates: Vec<AcmeCertificate>,
}

impl AcmeConfig {
    pub const DIRECTORY_DEFAULT: &str = "https://acme-v02.api.letsencrypt.org/directory";
    pub const RENEW_AFTER_DEFAULT: u8 = 60;
    pub const RETRY_DEFAULT: Duration = Duration::from_secs(60);
}

/// One certificate with all names that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeCertificate {
    pub name: CertificateName,
    /// At least one, in lower case, each once.
    pub domains: Vec<Arc<str>>,
}

impl AcmeCertificate {
    /// As which it stands in the registry. Nobody else writes names that begin so.
    pub fn registry_name(&self) -> Result<CertificateName, String> {
        CertificateName::parse(&format!("{REGISTRY_PREFIX}{}", self.name)).map_err(|error| error.to_string())
    }
}

/// Who we are to the directory's owner already (RFC 8555 §7.3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    pub id: String,
    key: Secret,
}

impl ExternalAccount {
    pub fn key(&self) -> Vec<u8> {
        // It was looked at when it was read.
        decode(self.key.reveal()).unwrap_or_default()
    }
}

pub(super) fn acme(fields: &mut Fields<'_>, layers: &Layers) -> Option<AcmeConfig> {
    if fields.optional("terms_agreed", boolean) != Some(true) {
        fields.wrong("terms_agreed", "has to be true: an account is only for who agrees to the terms of the directory");
    }
    let external_account = fields.section("external_account").map(|section| external_account(section, layers));
    let config = AcmeConfig {
        directory: fields.or("directory", AcmeConfig::DIRECTORY_DEFAULT.to_owned(), directory),
        email: fields.optional("email", email),
        challenge: fields.or("challenge", ChallengeKind::default(), one_of(&ChallengeKind::ALL, ChallengeKind::as_str)),
        ca_file: fields.optional("ca_file", |node| {
            let path = path_in(layers)(node)?;
            read_authorities(&path).map(|_| path)
        }),
        external_account: external_account.flatten(),
        renew_after: fields.or("renew_after", AcmeConfig::RENEW_AFTER_DEFAULT, number(1..=RENEW_AFTER_MAX)),
        retry: fields.or("retry", AcmeConfig::RETRY_DEFAULT, retry),
        certificates: certificates(fields),
    };
    Some(config)
}

/// What of the rest of the configuration would keep certificates from being ordered, or kept.
pub(super) fn fits<'a>(fields: &Fields<'_>, listeners: impl Iterator<Item = &'a Listener>, registry: Option<&RegistryKind>) {
    let (secure, plain): (Vec<&Listener>, Vec<_>) = listeners.partition(|listener| listener.tls.is_some());
    if secure.is_empty() {
        fields.odd("certificate", "is offered by listeners with tls, and there is none here");
    }
    if plain.is_empty() && !fields.has("challenge") {
        fields.odd("challenge", "is \"http-01\" without being said, which is asked over plain HTTP, and no listener speaks that");
    }
    match registry {
        Some(RegistryKind::Embedded(embedded)) if embedded.data.is_none() => {
            let message = "are ordered anew at each start, as the registry is kept in memory only; directories allow few a week";
            fields.odd("domains", message);
        }
        Some(RegistryKind::Etcd(etcd)) => {
            if let Some(plain) = etcd.endpoints.iter().find(|endpoint| is_far_and_plain(endpoint)) {
                fields.odd("domains", format!("have their keys in etcd, and {plain} is not encrypted: use https:// endpoints"));
            }
        }
        _ => {}
    }
}

fn is_far_and_plain(endpoint: &str) -> bool {
    let host = endpoint.strip_prefix("http://").and_then(|rest| rest.rsplit_once(':')).map(|(host, _)| host);
    host.is_some_and(|host| {
        let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
        host != "localhost" && !ip.is_ok_and(|ip| ip.is_loopback())
    })
}

/// `domains` makes one of each name; `[[acme.certificate]]` one of several.
fn certificates(fields: &mut Fields<'_>) -> Vec<AcmeCertificate> {
    let mut certificates = Vec::new();
    for domain in fields.list("domains", domain).unwrap_or_default() {
        match CertificateName::parse(&domain) {
            Ok(name) => certificates.push(AcmeCertificate { name, domains: vec![domain] }),
            Err(error) => {
                fields.wrong("domains", format!("{}: {error}; give it a name in [[acme.certificate]]", quoted(&domain)))
            }
        }
    }
    for mut section in fields.sections("certificate") {
        let name = section.optional("name", named(CertificateName::parse));
        let Some(domains) = section.list("domains", domain) else {
            section.wrong("domains", "is missing; it lists the names that the certificate is for");
            continue;
        };
        let Some(first) = domains.first() else {
            section.wrong("domains", "has no usable name in it");
            continue;
        };
        if domains.len() > DOMAINS_MAX {
            section.wrong("domains", format!("has {} names; at most {DOMAINS_MAX} go into one certificate", domains.len()));
        }
        match name.map_or_else(|| CertificateName::parse(first), Ok) {
            Ok(name) => certificates.push(AcmeCertificate { name, domains: once_each(domains) }),
            Err(error) => section.wrong("name", format!("is needed, as the first name is none: {error}")),
        }
    }
    let mut named: BTreeMap<&CertificateName, &AcmeCertificate> = BTreeMap::new();
    for certificate in &certificates {
        if named.insert(&certificate.name, certificate).is_some() {
            fields.wrong("certificate", format!("there are two of the name {}", certificate.name));
        }
        if let Err(error) = certificate.registry_name() {
            fields.wrong("certificate", format!("{} stands as {REGISTRY_PREFIX}… in the registry: {error}", certificate.name));
        }
    }
    match certificates.len() {
        0 => fields.wrong("domains", "names nobody; list the names, or have an [[acme.certificate]]"),
        n if n > CERTIFICATES_MAX => fields.wrong("domains", format!("{n} certificates; at most {CERTIFICATES_MAX} are allowed")),
        _ => {}
    }
    certificates
}

fn once_each(domains: Vec<Arc<str>>) -> Vec<Arc<str>> {
    let mut once: Vec<Arc<str>> = Vec::new();
    for domain in domains {
        if !once.contains(&domain) {
            once.push(domain);
        }
    }
    once
}

fn external_account(mut fields: Fields<'_>, layers: &Layers) -> Option<ExternalAccount> {
    let id = fields.required("id", word);
    let key = fields.required("key_file", |node| {
        let path = path_in(layers)(node)?;
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        match decode(text.trim()) {
            Some(key) if !key.is_empty() => Ok(Secret::new(text.trim())),
            _ => Err(format!("{} does not hold one key in base64url, as the directory's owner hands it out", path.display())),
        }
    });
    Some(ExternalAccount { id: id?, key: key? })
}

/// Some owners pad it.
fn decode(key: &str) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(key.trim_end_matches('=')).ok()
}

fn directory(node: &Node) -> Read<String> {
    let said = text(node)?;
    match said.parse::<http::Uri>() {
        Ok(uri) if uri.scheme_str() == Some("https") && uri.host().is_some_and(|host| !host.is_empty()) => Ok(said.to_owned()),
        _ => Err(format!(
            "{} is not the https:// URL of a directory, as in {}",
            quoted(said),
            quoted(AcmeConfig::DIRECTORY_DEFAULT)
        )),
    }
}

/// With or without `mailto:`.
fn email(node: &Node) -> Read<String> {
    let said = text(node)?;
    let address = said.strip_prefix("mailto:").unwrap_or(said);
    let is_plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic() && !b"@,?".contains(&b));
    match address.split_once('@') {
        Some((user, host)) if is_plain(user) && is_plain(host) => Ok(address.to_owned()),
        _ => Err(format!("{} is not an address such as \"ops@shop.example\"", quoted(said))),
    }
}

fn retry(node: &Node) -> Read<Duration> {
    match duration(node)? {
        time if time >= RETRY_MIN => Ok(time),
        _ => Err(format!("{} is shorter than {}", node.shown(), show_duration(RETRY_MIN))),
    }
}

const REGISTRY_PREFIX: &str = "acme:";
/// Two thirds of its life are over then.
const RENEW_AFTER_MAX: u8 = 66;
const RETRY_MIN: Duration = Duration::from_secs(1);
/// What Let's Encrypt takes.
const DOMAINS_MAX: usize = 100;
/// They are ordered one after the other; beyond that, other ways of keeping them are better.
const CERTIFICATES_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{Config, Flags, load};

    /// A file with a listener of each kind and these lines below `[acme]`; `eab.key` and `bad.key` lie beside it.
    fn told(lines: &str) -> Result<(Config, Vec<String>), Vec<String>> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("eab.key"), "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W\n")
            .unwrap();
        fs::write(directory.path().join("bad.key"), "no key!").unwrap();
        let listeners = "[[listener]]\naddress = '127.0.0.1:0'\n[[listener]]\naddress = '127.0.0.1:0'\n[listener.tls]\n";
        let file = directory.path().join("p.toml");
        fs::write(&file, format!("{listeners}[registry]\nendpoints = ['http://127.0.0.1:2379']\n[acme]\n{lines}\n")).unwrap();
        let lines = |problems: &crate::config::Problems| problems.lines().collect::<Vec<_>>();
        let loaded = load(&Layers { file: Some(file), variables: Vec::new(), flags: Flags::default() });
        loaded.map(|(config, warnings)| (config, lines(&warnings))).map_err(|problems| lines(&problems))
    }

    fn problem(lines: &str, words: &str) {
        let problems = told(lines).expect_err("nothing was wrong");
        assert!(problems.len() == 1 && problems[0].contains(words), "{problems:#?}");
    }

    #[test]
    fn what_is_said_is_read() {
        let (config, warnings) = told(
            "terms_agreed = true\nemail = 'mailto:ops@shop.example'\nchallenge = 'tls-alpn-01'\ndomains = ['Blog.Example']\n\
             directory = 'https://ca.example/dir'\nexternal_account = { id = 'kid-1', key_file = 'eab.key' }\n\
             [[acme.certificate]]\nname = 'shop'\ndomains = ['shop.example', 'www.shop.example', 'shop.example']",
        )
        .unwrap();
        let acme = config.acme.unwrap();
        assert_eq!(warnings, [""; 0]);
        assert_eq!((acme.email.as_deref(), acme.challenge), (Some("ops@shop.example"), ChallengeKind::TlsAlpn01));
        let names: Vec<String> = acme.certificates.iter().map(|c| format!("{} {}", c.name, c.domains.join(","))).collect();
        assert_eq!(names, ["blog.example blog.example", "shop shop.example,www.shop.example"]);
        assert_eq!(acme.certificates[1].registry_name().unwrap().as_str(), "acme:shop");
        assert_eq!(acme.external_account.unwrap().key().len(), 48);
    }

    #[test]
    fn what_would_fail_later_is_told_at_once() {
        let rest = "terms_agreed = true\ndomains = ['a.example']\n";
        problem("domains = ['a.example']", "p.toml:8: acme.terms_agreed: has to be true");
        problem("terms_agreed = true", "acme.domains: names nobody");
        problem("terms_agreed = true\ndomains = ['a.example', '*.a.example']", "needs a challenge in DNS");
        problem(&format!("{rest}directory = 'http://ca.example'"), "is not the https:// URL");
        problem(&format!("{rest}email = 'ops'"), "is not an address");
        problem(&format!("{rest}renew_after = 70"), "70 is not in 1..=66");
        problem(&format!("{rest}retry = '1ms'"), "is shorter than 1s");
        problem(&format!("{rest}ca_file = 'eab.key'"), "holds no certificate");
        problem(&format!("{rest}challenge = 'dns-01'"), "is not one of http-01, tls-alpn-01");
        problem(&format!("{rest}[[acme.certificate]]\ndomains = ['a.example', 'b.example']"), "two of the name a.example");
        problem(&format!("{rest}external_account = {{ id = 'k', key_file = 'bad.key' }}"), "bad.key does not hold one key");
        let long = format!("{}.example", vec!["a".repeat(60); 3].join("."));
        problem(&format!("{rest}[[acme.certificate]]\ndomains = ['{long}']"), "acme.certificate[0].name: is needed");
    }

    #[test]
    fn a_registry_that_shows_or_forgets_the_keys_is_a_warning() {
        assert!(is_far_and_plain("http://10.0.0.1:2379") && is_far_and_plain("http://etcd:2379"));
        for near in ["http://127.0.0.1:2379", "http://[::1]:2379", "http://localhost:2379", "https://10.0.0.1:2379"] {
            assert!(!is_far_and_plain(near), "{near}");
        }
    }
}
