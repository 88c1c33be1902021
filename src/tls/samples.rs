//! Certificates for tests, made on the spot.

use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::{Pem, check};
use crate::model::{Certificate, CertificateName, CertificateSource};

pub struct Sample {
    params: CertificateParams,
    issuer: Option<Issuer<'static, KeyPair>>,
}

pub struct Made {
    pub chain: String,
    pub key: String,
    pub der: Vec<u8>,
    params: CertificateParams,
}

impl Sample {
    /// Good for two days around now; its subject is the first name.
    pub fn of(names: &[&str]) -> Self {
        let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = Default::default();
        params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or("nobody").to_ascii_lowercase());
        Self { params, issuer: None }.valid(-86_400, 86_400)
    }

    pub fn subject(mut self, name: &str) -> Self {
        self.params.distinguished_name = Default::default();
        self.params.distinguished_name.push(DnType::CommonName, name);
        self
    }

    /// Seconds from now.
    pub fn valid(mut self, from: i64, until: i64) -> Self {
        let at = |seconds: i64| {
            let now = std::time::SystemTime::now();
            let by = std::time::Duration::from_secs(seconds.unsigned_abs());
            if seconds < 0 { now - by } else { now + by }
        };
        (self.params.not_before, self.params.not_after) = (at(from).into(), at(until).into());
        self
    }

    pub fn authority(mut self) -> Self {
        self.params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        self
    }

    pub fn issued_by(mut self, authority: &Made) -> Self {
        let key = KeyPair::from_pem(&authority.key).unwrap();
        self.issuer = Some(Issuer::new(authority.params.clone(), key));
        self
    }

    /// As the registry's of that name.
    pub fn in_registry(self, name: &str) -> Arc<Certificate> {
        let made = self.make();
        let source = CertificateSource::Registry(CertificateName::parse(name).unwrap());
        let pem = Pem { chain: made.chain.as_bytes(), key: made.key.as_bytes() };
        Arc::new(check(source, pem, SystemTime::now()).unwrap().certificate)
    }

    pub fn make(self) -> Made {
        let key = KeyPair::generate().unwrap();
        let made = match &self.issuer {
            Some(issuer) => self.params.signed_by(&key, issuer),
            None => self.params.self_signed(&key),
        };
        let made = made.unwrap();
        Made { chain: made.pem(), key: key.serialize_pem(), der: made.der().to_vec(), params: self.params }
    }
}
