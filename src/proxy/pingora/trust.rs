//! A trust in the form that Pingora takes.
//!
//! Pingora makes a configuration of it for each connection and resumes no session. Its connections are shared by many
//! requests (HTTP/2), or are those of HTTP/2 clients to HTTP/1.1 instances.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use pingora_core::upstreams::peer::PeerOptions;
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};

use crate::trust::{Material, Trust};

/// Of each trust in use, by its number.
#[derive(Debug, Default)]
pub struct Forms(HashMap<u64, Form>);

#[derive(Debug)]
struct Form {
    trust: Weak<Trust>,
    authorities: Option<Arc<[WrappedX509]>>,
    pub identity: Option<Arc<CertKey>>,
}

impl Forms {
    /// What a peer shows of us; who may vouch for it goes into its options.
    pub fn apply(&mut self, trust: &Arc<Trust>, options: &mut PeerOptions) -> Option<Arc<CertKey>> {
        options.verify_cert = trust.verifies();
        options.verify_hostname = trust.verifies();
        let form = self.0.entry(trust.number).or_insert_with(|| Form::of(trust));
        options.ca.clone_from(&form.authorities);
        form.identity.clone()
    }

    pub fn forget(&mut self) {
        self.0.retain(|_, form| form.trust.strong_count() > 0);
    }
}

impl Form {
    /// A trust that cannot be used is one that trusts nobody.
    fn of(trust: &Arc<Trust>) -> Self {
        let (authorities, identity) = match trust.material() {
            Ok(Material { authorities, identity, .. }) => (authorities.as_deref(), identity.as_ref()),
            Err(_) => (Some(&[][..]), None),
        };
        // What cannot be parsed has been refused by `wire::pem`.
        let authorities = authorities.map(|all| all.iter().map(|c| WrappedX509::new(c.to_vec(), parse_x509)).collect());
        let identity = identity.map(|(chain, key)| {
            let chain = chain.iter().map(|certificate| certificate.to_vec()).collect();
            Arc::new(CertKey::new(chain, key.secret_der().to_vec()))
        });
        Self { trust: Arc::downgrade(trust), authorities, identity }
    }
}
