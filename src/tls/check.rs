//! Whether a chain and a key go together, in words that say which of the two to look at and what would be right.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::pem::{self, PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};

use super::provider;
use super::x509::{Facts, fingerprint};
use crate::model::{Certificate, CertificateSource};

/// The two texts.
#[derive(Clone, Copy)]
pub struct Pem<'a> {
    pub chain: &'a [u8],
    pub key: &'a [u8],
}

/// A pair that can be used, and what is odd about it.
#[derive(Debug)]
pub struct Checked {
    pub certificate: Certificate,
    pub warnings: Vec<Flaw>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    pub part: Part,
    /// Goes on where the name of the part ends.
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Chain,
    Key,
}

/// A pair for handshakes, or all that is wrong with it. `now` is for dates; who is out of date is served all the same,
/// since an old certificate is better than none.
pub fn check(source: CertificateSource, pem: Pem<'_>, now: SystemTime) -> Result<Checked, Vec<Flaw>> {
    let (chain, key) = (chain(pem.chain), key(pem.key));
    let (chain, key) = match (chain, key) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
    };
    let facts: Vec<Facts<'_>> = match chain.iter().enumerate().map(|(n, der)| read(n, der)).collect() {
        Ok(facts) => facts,
        Err(flaw) => return Err(vec![flaw]),
    };
    let Some(leaf) = facts.first() else { return Err(vec![flaw(Part::Chain, NO_CERTIFICATE)]) };
    let belongs = |facts: &Facts<'_>| key.public_key().is_none_or(|public| *public == *facts.public_key);
    if !belongs(leaf) {
        return Err(vec![stranger(leaf, facts.iter().position(belongs))]);
    }
    let warnings = oddities(&facts, now);
    let certificate = Certificate {
        source,
        names: leaf.names.clone(),
        subject: leaf.subject.clone(),
        issuer: leaf.issuer.clone(),
        not_before: leaf.not_before,
        not_after: leaf.not_after,
        fingerprint: fingerprint(&chain[0]),
        pair: Arc::new(CertifiedKey::new(chain, key)),
    };
    Ok(Checked { certificate, warnings })
}

fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Flaw> {
    let mut chain = Vec::new();
    for (n, certificate) in (1..).zip(CertificateDer::pem_slice_iter(pem)) {
        chain.push(certificate.map_err(|_| flaw(Part::Chain, format!("has a certificate {n} that is not valid PEM")))?);
        if n > CHAIN_MAX {
            return Err(flaw(Part::Chain, format!("has more than {CHAIN_MAX} certificates; the chain of one is meant")));
        }
    }
    match (chain.is_empty(), PrivateKeyDer::from_pem_slice(pem)) {
        (false, _) => Ok(chain),
        (true, Ok(_)) => Err(flaw(Part::Chain, "holds a private key and no certificate; are chain and key the wrong way round?")),
        (true, Err(_)) => Err(flaw(Part::Chain, NO_CERTIFICATE)),
    }
}

fn key(pem: &[u8]) -> Result<Arc<dyn SigningKey>, Flaw> {
    // Both ways to encrypt a key leave words that no other key has.
    if ENCRYPTED.iter().any(|words| pem.windows(words.len()).any(|at| at == *words)) {
        return Err(flaw(
            Part::Key,
            "is encrypted, and nobody is there to type its passphrase; write it without one: openssl pkey -in KEY -out PLAIN",
        ));
    }
    let der = match PrivateKeyDer::from_pem_slice(pem) {
        Ok(der) => der,
        Err(pem::Error::NoItemsFound) => {
            let mut sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem);
            let has_certificate = sections.any(|section| matches!(section, Ok((SectionKind::Certificate, _))));
            return Err(flaw(
                Part::Key,
                if has_certificate {
                    "holds a certificate and no private key; are chain and key the wrong way round?"
                } else {
                    "holds no private key; it is a PEM text with a block of -----BEGIN PRIVATE KEY-----"
                },
            ));
        }
        Err(_) => return Err(flaw(Part::Key, "is not valid PEM")),
    };
    // What rustls says of a bad key may show parts of it, and helps nobody.
    provider().key_provider.load_private_key(der).map_err(|_| {
        flaw(Part::Key, "is of no kind that can be used: RSA from 2048 bits on, ECDSA on P-256 or P-384, or Ed25519")
    })
}

fn read<'a>(n: usize, der: &'a CertificateDer<'static>) -> Result<Facts<'a>, Flaw> {
    Facts::read(der).map_err(|reason| flaw(Part::Chain, format!("has a certificate {} that {reason}", n + 1)))
}

/// The key is not that of the first certificate. `place`: of the one that it belongs to.
fn stranger(leaf: &Facts<'_>, place: Option<usize>) -> Flaw {
    let message = match place {
        Some(place) => format!(
            "belongs to certificate {} of the chain, but the first is to be the one that it belongs to; each of the others \
             vouches for the one before",
            place + 1
        ),
        None => format!("does not belong to the certificate of {}; it is the key of another", leaf.subject),
    };
    flaw(Part::Key, message)
}

/// What clients may stumble over.
fn oddities(chain: &[Facts<'_>], now: SystemTime) -> Vec<Flaw> {
    let mut found = Vec::new();
    let mut odd = |message: String| found.push(flaw(Part::Chain, message));
    for (n, pair) in (1..).zip(chain.windows(2)) {
        let [one, next] = pair else { continue };
        if !one.is_issued_by(next) {
            odd(format!(
                "is out of order: certificate {} ({}) does not vouch for certificate {n}, which {} has signed",
                n + 1,
                next.subject,
                one.issuer
            ));
        }
    }
    let date = |at: SystemTime| humantime::format_rfc3339_seconds(at);
    for (n, facts) in (1..).zip(chain) {
        if facts.not_after <= now {
            odd(format!("has expired: certificate {n} ({}) was good until {}", facts.subject, date(facts.not_after)));
        } else if facts.not_before > now {
            odd(format!("is not good yet: certificate {n} ({}) is from {} on", facts.subject, date(facts.not_before)));
        }
    }
    if let Some(leaf) = chain.first().filter(|leaf| !leaf.lists_names) {
        odd(format!("names nobody by subjectAltName ({}); browsers do not look at the common name", leaf.subject));
    }
    found
}

fn flaw(part: Part, message: impl Into<String>) -> Flaw {
    Flaw { part, message: message.into() }
}

const NO_CERTIFICATE: &str = "holds no certificate; it is a PEM text with blocks of -----BEGIN CERTIFICATE-----";
const ENCRYPTED: [&[u8]; 2] = [b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED"];
/// Real chains have two or three.
const CHAIN_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::CertificateName;
    use crate::tls::samples::{Made, Sample};

    fn source() -> CertificateSource {
        CertificateSource::Registry(CertificateName::parse("shop").unwrap())
    }

    /// `Ok` with all warnings, or all flaws.
    fn said(chain: &str, key: &str) -> Result<String, String> {
        let all = |flaws: Vec<Flaw>| flaws.iter().map(|f| format!("{:?} {}", f.part, f.message)).collect::<Vec<_>>().join("; ");
        let pem = Pem { chain: chain.as_bytes(), key: key.as_bytes() };
        check(source(), pem, SystemTime::now()).map(|checked| all(checked.warnings)).map_err(all)
    }

    fn refused(chain: &str, key: &str, words: &str) {
        let said = said(chain, key).unwrap_err();
        assert!(said.contains(words), "{said}");
        assert!(!key.lines().any(|line| line.len() > 8 && said.contains(line)), "{said}");
    }

    #[test]
    fn a_good_pair_is_good_and_known_by_its_names() {
        let Made { chain, key, .. } = Sample::of(&["shop.example", "*.shop.example"]).make();
        let pem = Pem { chain: chain.as_bytes(), key: key.as_bytes() };
        let Checked { certificate, warnings } = check(source(), pem, SystemTime::now()).unwrap();
        assert_eq!((warnings, certificate.names.len()), (vec![], 2));
        assert!(!format!("{certificate:?}").contains("PRIVATE"));
    }

    #[test]
    fn each_way_to_be_wrong_is_told_apart() {
        let (a, b) = (Sample::of(&["a.example"]).make(), Sample::of(&["b.example"]).make());
        refused(&a.chain, &b.key, "Key does not belong to the certificate of CN=a.example");
        refused(&format!("{}{}", b.chain, a.chain), &a.key, "Key belongs to certificate 2 of the chain");
        refused(&a.key, &a.chain, "Chain holds a private key and no certificate");
        refused(&a.key, &a.chain, "Key holds a certificate and no private key");
        refused("", &a.key, "Chain holds no certificate");
        refused(&a.chain, "", "Key holds no private key");
        refused(
            &a.chain,
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "Key is encrypted",
        );
        let old =
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES\n\nAA==\n-----END RSA PRIVATE KEY-----\n";
        refused(&a.chain, old, "Key is encrypted");
        refused(&a.chain, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "of no kind that can be used");
        refused("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &a.key, "certificate 1 that is not an X.509");
        refused(&a.chain.repeat(CHAIN_MAX + 1), &a.key, "more than 20");
    }

    #[test]
    fn what_clients_may_stumble_over_is_served_with_a_warning() {
        let day = Duration::from_secs(86_400);
        let warned = |made: &Made, words: &str| {
            let said = said(&made.chain, &made.key).unwrap();
            assert!(said.contains(words), "{said}");
        };
        warned(&Sample::of(&["a.example"]).valid(-2 * 86_400, -86_400).make(), "has expired: certificate 1 (CN=a.example)");
        warned(&Sample::of(&["a.example"]).valid(86_400, 2 * 86_400).make(), "is not good yet");
        warned(&Sample::of(&[]).subject("a.example").make(), "names nobody by subjectAltName");
        let (mut leaf, other) = (Sample::of(&["a.example"]).make(), Sample::of(&["b.example"]).make());
        leaf.chain += &other.chain;
        warned(&leaf, "is out of order: certificate 2 (CN=b.example) does not vouch for certificate 1");
        let ca = Sample::of(&[]).subject("Root").authority().make();
        let mut issued = Sample::of(&["a.example"]).issued_by(&ca).make();
        issued.chain += &ca.chain;
        let pem = Pem { chain: issued.chain.as_bytes(), key: issued.key.as_bytes() };
        assert_eq!(check(source(), pem, SystemTime::now() + day / 24).unwrap().warnings, []);
    }
}
