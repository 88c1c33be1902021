//! What stands in the registry about ACME: what a directory may ask any proxy now, and what became of each order.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rustls::sign::CertifiedKey;

use crate::model::{AcmeOrder, CertificateName, Challenge, ChallengeKind, ChallengeToken};

/// The ground state.
#[derive(Debug, Default)]
pub struct AcmeBook {
    challenges: BTreeMap<ChallengeToken, Arc<Challenge>>,
    orders: BTreeMap<CertificateName, Arc<AcmeOrder>>,
    has_changed: bool,
}

/// All of it at one moment. Challenges are there for seconds in a month.
#[derive(Debug, Clone, Default)]
pub struct Acme {
    pub orders: BTreeMap<CertificateName, Arc<AcmeOrder>>,
    by_token: HashMap<ChallengeToken, Arc<Challenge>>,
    by_domain: HashMap<Arc<str>, Arc<CertifiedKey>>,
}

impl AcmeBook {
    pub fn set_challenge(&mut self, token: ChallengeToken, challenge: Option<Arc<Challenge>>) {
        self.has_changed = true;
        match challenge {
            Some(challenge) => drop(self.challenges.insert(token, challenge)),
            None => drop(self.challenges.remove(&token)),
        }
    }

    pub fn set_order(&mut self, name: CertificateName, order: Option<Arc<AcmeOrder>>) {
        self.has_changed = true;
        match order {
            Some(order) => drop(self.orders.insert(name, order)),
            None => drop(self.orders.remove(&name)),
        }
    }

    /// `None` if nothing has changed since the last call.
    pub fn changed(&mut self) -> Option<Acme> {
        if !std::mem::take(&mut self.has_changed) {
            return None;
        }
        let of_kind = |kind| self.challenges.values().filter(move |challenge| challenge.spec.kind == kind);
        let http = of_kind(ChallengeKind::Http01).map(|challenge| (challenge.spec.token.clone(), challenge.clone()));
        let tls = of_kind(ChallengeKind::TlsAlpn01);
        let tls = tls.filter_map(|challenge| Some((challenge.spec.domain.clone(), challenge.proof.clone()?)));
        Some(Acme { orders: self.orders.clone(), by_token: http.collect(), by_domain: tls.collect() })
    }
}

impl Acme {
    /// What HTTP-01 is answered; `None` if this is none of ours.
    pub fn key_authorization(&self, token: &str) -> Option<&Arc<str>> {
        Some(&self.by_token.get(token)?.spec.key_authorization)
    }

    /// Whether any request may be one of HTTP-01.
    pub fn awaits_requests(&self) -> bool {
        !self.by_token.is_empty()
    }

    /// Whether any handshake may be one of TLS-ALPN-01.
    pub fn awaits_handshakes(&self) -> bool {
        !self.by_domain.is_empty()
    }

    /// What TLS-ALPN-01 is answered.
    pub fn proof(&self, domain: &str) -> Option<&Arc<CertifiedKey>> {
        self.by_domain.get(domain.to_ascii_lowercase().as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ChallengeSpec;

    fn challenge(token: &str, kind: ChallengeKind) -> (ChallengeToken, Arc<Challenge>) {
        let token = ChallengeToken::parse(token).unwrap();
        let spec = ChallengeSpec {
            token: token.clone(),
            kind,
            domain: "shop.example".into(),
            key_authorization: format!("{token}.print").into(),
        };
        let proof = (kind == ChallengeKind::TlsAlpn01).then(|| crate::tls::proof("shop.example", "x").unwrap());
        (token, Arc::new(Challenge { spec, proof }))
    }

    #[test]
    fn each_kind_is_answered_where_it_is_asked_and_only_while_it_is_there() {
        let mut book = AcmeBook::default();
        let (http, tls) = (challenge("h", ChallengeKind::Http01), challenge("t", ChallengeKind::TlsAlpn01));
        for (token, challenge) in [&http, &tls] {
            book.set_challenge(token.clone(), Some(challenge.clone()));
        }
        let acme = book.changed().unwrap();
        assert_eq!(acme.key_authorization("h").map(|said| &**said), Some("h.print"));
        assert!(acme.key_authorization("t").is_none() && acme.key_authorization("other").is_none());
        assert!(acme.proof("Shop.Example").is_some() && acme.proof("other.example").is_none());
        assert!(book.changed().is_none());
        book.set_challenge(http.0, None);
        book.set_challenge(tls.0, None);
        let acme = book.changed().unwrap();
        assert!(!acme.awaits_requests() && !acme.awaits_handshakes());
    }
}
