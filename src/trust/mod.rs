//! FLOOR 2. TLS towards instances: who may vouch for them, under which name, and what they are shown of ourselves.
//!
//! One [`Trust`] is made for each way a policy puts it, and shared by all who speak to such instances: by probes and by
//! requests, over connections of ours and of Pingora's. Nothing is parsed for a connection.
//!
//! Invariants:
//! - Two trusts that differ in anything have different numbers, so who pools connections by the number never uses one that
//!   was made under another authority, name or certificate.
//! - Sessions are resumed only under the trust they were begun under.
//! - A private key is in no message and in no `Debug`.

mod unvouched;
mod words;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use rustls::client::Resumption;
use rustls::crypto;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::model::{Host, UpstreamTls};
use crate::tls::system_authorities;
use crate::wire::pem::{authorities, certificates, private_key};
pub use unvouched::Unvouched;
pub use words::{is_refusal, words};

/// Every trust that is in use.
#[derive(Debug, Default)]
pub struct Trusts {
    made: Mutex<HashMap<UpstreamTls, Weak<Trust>>>,
    next_number: AtomicU64,
    system: OnceLock<Arc<RootCertStore>>,
}

/// One way of speaking TLS to instances.
pub struct Trust {
    /// Unique in this process.
    pub number: u64,
    policy: UpstreamTls,
    material: Result<Material, String>,
}

/// The policy's texts, read.
pub struct Material {
    /// Offers HTTP/1.1, and resumes sessions.
    http1: Arc<ClientConfig>,
    /// For probes: each is a new acquaintance, which is what it is to find out.
    probe: [Arc<ClientConfig>; 2],
    /// `None`: those that the system trusts.
    pub authorities: Option<Vec<CertificateDer<'static>>>,
    pub identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Trusts {
    /// The trust of a policy; without a `tls`, that of an empty one.
    pub fn of(&self, policy: Option<&UpstreamTls>) -> Arc<Trust> {
        let usual;
        let policy = match policy {
            Some(policy) => policy,
            None => {
                usual = UpstreamTls::default();
                &usual
            }
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(trust) = made.get(policy).and_then(Weak::upgrade) {
            return trust;
        }
        made.retain(|_, trust| trust.strong_count() > 0);
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let material = self.read(policy).map_err(|reason| format!("tls of the policy: {reason}"));
        let trust = Arc::new(Trust { number, policy: policy.clone(), material });
        made.insert(policy.clone(), Arc::downgrade(&trust));
        trust
    }

    fn read(&self, policy: &UpstreamTls) -> Result<Material, String> {
        let said = policy.ca.as_deref().map(|text| certificates(text).map_err(|e| format!("ca: {e}"))).transpose()?;
        let identity = match &policy.identity {
            None => None,
            Some(identity) => {
                let chain = certificates(&identity.chain).map_err(|e| format!("certificate: {e}"))?;
                Some((chain, private_key(identity.key.reveal()).map_err(|e| format!("key: {e}"))?))
            }
        };
        let provider = Arc::new(crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?;
        let builder = if policy.verify {
            let roots = match &said {
                Some(said) => Arc::new(authorities(said).map_err(|e| format!("ca: {e}"))?),
                None => self.system.get_or_init(system).clone(),
            };
            builder.with_root_certificates(roots)
        } else {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unvouched::anyone(&provider)))
        };
        let mut base = match &identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(|e| format!("certificate: {e}"))?
            }
        };
        base.alpn_protocols = vec![HTTP_1.to_vec()];
        let probe = [HTTP_1, HTTP_2].map(|protocol| {
            let mut config = base.clone();
            config.resumption = Resumption::disabled();
            config.alpn_protocols = vec![protocol.to_vec()];
            Arc::new(config)
        });
        Ok(Material { http1: Arc::new(base), probe, authorities: said, identity })
    }
}

impl Trust {
    pub fn verifies(&self) -> bool {
        self.policy.verify
    }

    /// Why it cannot be used, in words.
    pub fn material(&self) -> Result<&Material, String> {
        self.material.as_ref().map_err(Clone::clone)
    }

    /// For requests.
    pub fn http1(&self) -> Result<Arc<ClientConfig>, String> {
        self.material().map(|material| material.http1.clone())
    }

    pub fn probe(&self, over_http2: bool) -> Result<Arc<ClientConfig>, String> {
        self.material().map(|material| material.probe[usize::from(over_http2)].clone())
    }

    /// Under which name an instance has to be known: the policy's, or the host of its address.
    pub fn name(&self, host: &Host) -> String {
        match (&self.policy.server_name, host) {
            (Some(name), _) => name.clone(),
            (None, Host::Name(name)) => name.to_string(),
            (None, Host::Ip(ip)) => ip.to_string(),
        }
    }
}

/// The name as it is put into a handshake.
pub fn server_name(name: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| format!("{name:?} cannot be the name of a certificate; set tls.server_name"))
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("number", &self.number).field("verifies", &self.policy.verify).finish_non_exhaustive()
    }
}

/// Read once. None at all, if they cannot be read: then every handshake says so.
fn system() -> Arc<RootCertStore> {
    system_authorities().unwrap_or_else(|reason| {
        tracing::warn!(reason, "Instances over TLS need tls.ca");
        Arc::new(RootCertStore::empty())
    })
}

const HTTP_1: &[u8] = b"http/1.1";
/// What an instance has to choose where HTTP/2 is spoken over TLS.
pub const HTTP_2: &[u8] = b"h2";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Identity, Secret};

    const CA: &str = include_str!("../../tests/certificates/ca.pem");
    const CHAIN: &str = include_str!("../../tests/certificates/instance.pem");
    const KEY: &str = include_str!("../../tests/certificates/instance.key");

    #[test]
    fn what_is_said_alike_is_one_trust_and_whatever_differs_is_another() {
        let trusts = Trusts::default();
        let usual = UpstreamTls::default();
        let identity = Some(Identity { chain: CHAIN.to_owned(), key: Secret::new(KEY) });
        let others = [
            UpstreamTls { verify: false, ..usual.clone() },
            UpstreamTls { server_name: Some("a.test".to_owned()), ..usual.clone() },
            UpstreamTls { ca: Some(CA.to_owned()), ..usual.clone() },
            UpstreamTls { identity, ..usual.clone() },
        ];
        let first = trusts.of(None);
        assert_eq!(first.number, trusts.of(Some(&usual)).number);
        let all: Vec<_> = others.iter().map(|policy| trusts.of(Some(policy))).collect();
        let mut numbers: Vec<u64> = all.iter().map(|trust| trust.number).chain([first.number]).collect();
        assert!(all.iter().all(|trust| trust.material().is_ok()));
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 5);
        assert_eq!(trusts.of(Some(&others[2])).number, all[2].number);
    }

    #[test]
    fn what_nobody_uses_is_not_kept() {
        let trusts = Trusts::default();
        for n in 0..10 {
            trusts.of(Some(&UpstreamTls { verify: false, server_name: Some(format!("n{n}")), ..UpstreamTls::default() }));
        }
        assert_eq!(trusts.made.lock().unwrap().len(), 1);
    }

    #[test]
    fn an_authority_that_is_none_is_named() {
        let policy = UpstreamTls { ca: Some("nothing".to_owned()), ..UpstreamTls::default() };
        let said = Trusts::default().of(Some(&policy)).http1().unwrap_err();
        assert_eq!(said, "tls of the policy: ca: there is no certificate in it");
    }
}
