//! `[listener.tls]`: what a listener terminates TLS with. Each pair is read and checked here, so that a wrong one is told
//! with its line; whoever serves it reads it again, whenever it changes.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;

use crate::model::{Certificate, CertificateSource};
use crate::tls::{self, Checked, Flaw, Part, Pem};
use crate::wire::fields::{Fields, Read, Report};
use crate::wire::node::Node;
use crate::wire::scalar::{boolean, duration, one_of};

use super::Layers;
use super::file::open_to_all;
use super::registry::path_in;

/// One `[listener.tls]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsConfig {
    /// They come before those of the registry; the first is for clients that name nobody we know.
    pub certificates: Vec<CertificateFiles>,
    pub client_auth: ClientAuth,
    /// Some, if clients are asked for a certificate.
    pub client_ca: Option<PathBuf>,
    pub min_version: TlsVersion,
    pub hsts: Option<Hsts>,
}

/// Two PEM files that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    pub chain: PathBuf,
    pub key: PathBuf,
}

/// What the admin endpoint terminates TLS with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminTls {
    pub pair: CertificateFiles,
    /// Who shows a certificate that these vouch for needs no token.
    pub client_ca: Option<PathBuf>,
}

/// Whether a client has to show who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    #[default]
    None,
    /// It may; what it shows has to be good.
    Request,
    Require,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersion {
    #[default]
    V1_2,
    V1_3,
}

/// What browsers are told to remember (RFC 6797).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hsts {
    pub max_age: Duration,
    pub include_subdomains: bool,
    pub preload: bool,
}

impl Hsts {
    /// The value of `Strict-Transport-Security`.
    pub fn field(&self) -> String {
        let mut field = format!("max-age={}", self.max_age.as_secs());
        for (is_said, word) in [(self.include_subdomains, "; includeSubDomains"), (self.preload, "; preload")] {
            field.push_str(if is_said { word } else { "" });
        }
        field
    }
}

impl CertificateFiles {
    /// The pair with what is odd about it, or all that is wrong; each message begins with the file it is about.
    pub fn read(&self, now: SystemTime) -> Result<(Certificate, Vec<String>), Vec<String>> {
        let (chain, key) = match (contents(&self.chain), contents(&self.key)) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
        };
        let said = |flaws: Vec<Flaw>| flaws.iter().map(|flaw| self.said(flaw)).collect::<Vec<_>>();
        let source = CertificateSource::File(Arc::from(self.chain.as_path()));
        match tls::check(source, Pem { chain: &chain, key: &key }, now) {
            Ok(Checked { certificate, warnings }) => {
                Ok((certificate, said(warnings).into_iter().chain(open_to_all(&self.key)).collect()))
            }
            Err(flaws) => Err(said(flaws)),
        }
    }

    fn said(&self, flaw: &Flaw) -> String {
        let file = match flaw.part {
            Part::Chain => &self.chain,
            Part::Key => &self.key,
        };
        format!("{} {}", file.display(), flaw.message)
    }
}

/// Those who vouch for others. `Err` begins with the file.
pub fn read_authorities(path: &Path) -> Result<Arc<RootCertStore>, String> {
    tls::authorities(&contents(path)?).map_err(|reason| format!("{} {reason}", path.display()))
}

/// A file of PEM. `Err` begins with it.
pub(super) fn contents(path: &Path) -> Result<Vec<u8>, String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes.len() as u64 > FILE_MAX => Err(format!("{} is larger than {FILE_MAX} bytes", path.display())),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

pub(super) fn tls(mut fields: Fields<'_>, layers: &Layers) -> TlsConfig {
    let certificates = fields.each("certificates", |node, path, report| certificate(node, path, report, layers));
    let auths = [ClientAuth::None, ClientAuth::Request, ClientAuth::Require];
    let client_auth = fields.or("client_auth", ClientAuth::default(), one_of(&auths, client_auth));
    let client_ca = fields.optional("client_ca", |node| {
        let path = path_in(layers)(node)?;
        read_authorities(&path).map(|_| path)
    });
    match client_auth {
        ClientAuth::None if fields.has("client_ca") => fields.odd("client_ca", "is not used while client_auth is \"none\""),
        ClientAuth::Request | ClientAuth::Require if !fields.has("client_ca") => fields
            .wrong("client_ca", "is missing; clients are asked for a certificate, and this PEM file says who may vouch for one"),
        _ => {}
    }
    TlsConfig {
        certificates: certificates.unwrap_or_default(),
        client_auth,
        client_ca: client_ca.filter(|_| client_auth != ClientAuth::None),
        min_version: fields.or("min_version", TlsVersion::default(), one_of(&[TlsVersion::V1_2, TlsVersion::V1_3], version)),
        hsts: fields.section("hsts").and_then(hsts),
    }
}

/// `{ certificate = "admin.pem", key = "admin.key", client_ca = "ops.pem" }`.
pub(super) fn admin(mut fields: Fields<'_>, layers: &Layers) -> Option<AdminTls> {
    let (chain, key) = (fields.required("certificate", path_in(layers)), fields.required("key", path_in(layers)));
    let client_ca = fields.optional("client_ca", |node| {
        let path = path_in(layers)(node)?;
        read_authorities(&path).map(|_| path)
    });
    let pair = CertificateFiles { chain: chain?, key: key? };
    match pair.read(SystemTime::now()) {
        Ok((_, warnings)) => warnings.into_iter().for_each(|warning| fields.odd("certificate", warning)),
        Err(problems) => problems.into_iter().for_each(|problem| fields.wrong("certificate", problem)),
    }
    Some(AdminTls { pair, client_ca })
}

/// `{ chain = "a.pem", key = "a.key" }`.
fn certificate(node: &Node, path: String, report: &Report, layers: &Layers) -> Option<CertificateFiles> {
    let mut fields = Fields::of(node, path.clone(), report)?;
    let (chain, key) = (fields.required("chain", path_in(layers)), fields.required("key", path_in(layers)));
    let files = CertificateFiles { chain: chain?, key: key? };
    match files.read(SystemTime::now()) {
        Ok((_, warnings)) => warnings.into_iter().for_each(|warning| report.warning(path.clone(), &node.place, warning)),
        Err(problems) => {
            problems.into_iter().for_each(|problem| report.problem(path.clone(), &node.place, problem));
            return None;
        }
    }
    Some(files)
}

fn hsts(mut fields: Fields<'_>) -> Option<Hsts> {
    let hsts = Hsts {
        max_age: fields.required("max_age", whole_seconds)?,
        include_subdomains: fields.or("include_subdomains", false, boolean),
        preload: fields.or("preload", false, boolean),
    };
    if hsts.preload && !hsts.include_subdomains {
        fields.wrong("preload", "needs include_subdomains = true; the lists of browsers take no other");
    }
    Some(hsts)
}

fn whole_seconds(node: &Node) -> Read<Duration> {
    match duration(node)? {
        time if time.subsec_nanos() == 0 => Ok(time),
        _ => Err(format!("{} is not a whole number of seconds", node.shown())),
    }
}

fn client_auth(auth: ClientAuth) -> &'static str {
    match auth {
        ClientAuth::None => "none",
        ClientAuth::Request => "request",
        ClientAuth::Require => "require",
    }
}

fn version(version: TlsVersion) -> &'static str {
    match version {
        TlsVersion::V1_2 => "1.2",
        TlsVersion::V1_3 => "1.3",
    }
}

/// Bundles of every public authority have a quarter of it.
const FILE_MAX: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::{Config, Flags, Problems, load};
    use crate::tls::samples::Sample;

    /// A listener with these lines under `[listener.tls]`, beside `a.pem`, `a.key`, `b.pem`, `b.key` and `old.pem`, `old.key`.
    fn told(lines: &str) -> Result<(Config, Vec<String>), Vec<String>> {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let samples =
            [("a", Sample::of(&["a.example"])), ("b", Sample::of(&["b.example"])), ("old", Sample::of(&["c"]).valid(-9, -1))];
        for (name, sample) in samples {
            let made = sample.make();
            fs::write(path(&format!("{name}.pem")), made.chain).unwrap();
            let key = path(&format!("{name}.key"));
            fs::write(&key, made.key).unwrap();
            // `b`'s is open to all.
            fs::set_permissions(&key, fs::Permissions::from_mode(if name == "b" { 0o644 } else { 0o640 })).unwrap();
        }
        let text = format!("[[listener]]\naddress = '127.0.0.1:0'\n[listener.tls]\n{lines}\n[registry]\ndata = ''\n");
        fs::write(path("p.toml"), text).unwrap();
        let layers = Layers { file: Some(path("p.toml")), variables: Vec::new(), flags: Flags::default() };
        let there = format!("{}/", directory.path().display());
        let shown = |problems: &Problems| problems.lines().map(|line| line.replace(&there, "")).collect::<Vec<_>>();
        load(&layers).map(|(config, warnings)| (config, shown(&warnings))).map_err(|problems| shown(&problems))
    }

    fn problem(lines: &str, words: &str) {
        let problems = told(lines).expect_err("nothing was wrong");
        assert!(problems.len() == 1 && problems[0].contains(words), "{problems:#?}");
    }

    #[test]
    fn what_is_said_of_tls_is_read() {
        let (config, warnings) = told(
            "certificates = [{ chain = 'a.pem', key = 'a.key' }, { chain = 'b.pem', key = 'b.key' }]\nclient_auth = 'require'\n\
             client_ca = 'a.pem'\nmin_version = '1.3'\nhsts = { max_age = '365d', include_subdomains = true, preload = true }",
        )
        .unwrap();
        assert!(warnings.len() == 1 && warnings[0].contains("b.key can be read by everybody"), "{warnings:?}");
        let Some(tls) = &config.listeners[0].tls else { panic!("no TLS") };
        assert_eq!((tls.certificates.len(), tls.client_auth, tls.min_version), (2, ClientAuth::Require, TlsVersion::V1_3));
        assert!(tls.client_ca.as_ref().is_some_and(|path| path.ends_with("a.pem")));
        assert_eq!(tls.hsts.unwrap().field(), "max-age=31536000; includeSubDomains; preload");
    }

    #[test]
    fn a_wrong_pair_is_told_with_its_line_and_its_file() {
        let pair = |chain: &str, key: &str| format!("certificates = [{{ chain = '{chain}', key = '{key}' }}]");
        problem(
            &pair("a.pem", "b.key"),
            "p.toml:4: listener[0].tls.certificates[0]: b.key does not belong to the certificate of CN=a",
        );
        problem(&pair("a.pem", "none.key"), "none.key: No such file");
        problem(&pair("a.key", "a.key"), "a.key holds a private key and no certificate");
        problem("certificates = [{ chain = 'a.pem' }]", "p.toml:4: listener[0].tls.certificates[0].key: is missing");
        let (_, warnings) = told(&pair("old.pem", "old.key")).unwrap();
        assert!(
            warnings.len() == 1 && warnings[0].contains("p.toml:4: listener[0].tls.certificates[0]: old.pem has expired"),
            "{warnings:?}"
        );
    }

    #[test]
    fn settings_that_need_each_other_say_so() {
        problem("client_auth = 'require'", "client_ca: is missing");
        problem("client_auth = 'request'\nclient_ca = 'a.key'", "a.key holds no certificate");
        problem("hsts = { max_age = '1d', preload = true }", "needs include_subdomains");
        problem("hsts = { max_age = '1500ms' }", "whole number of seconds");
        problem("min_version = '1.1'", "min_version");
        problem("[[listener]]\naddress = '127.0.0.1:0'\nredirect_to_https = 443\n[listener.tls]", "is for listeners without tls");
        assert_eq!(told("client_ca = 'a.pem'").unwrap().1.len(), 1);
    }
}
