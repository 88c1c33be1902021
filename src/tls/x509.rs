//! What one X.509 certificate says, in our words.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ring::digest;
use x509_parser::der_parser::asn1_rs::{Any, Oid, ToDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

/// One certificate, read.
#[derive(Debug)]
pub struct Facts<'a> {
    pub names: Vec<Arc<str>>,
    /// It has a list of names, and not just a common name.
    pub lists_names: bool,
    pub subject: String,
    pub issuer: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    subject_der: &'a [u8],
    issuer_der: &'a [u8],
    /// `SubjectPublicKeyInfo`.
    pub public_key: &'a [u8],
}

impl<'a> Facts<'a> {
    /// `Err` says why it is no certificate.
    pub fn read(der: &'a [u8]) -> Result<Self, String> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| "is not an X.509 certificate".to_owned())?;
        if !rest.is_empty() {
            return Err("has bytes behind its X.509 certificate".to_owned());
        }
        let validity = certificate.validity();
        let (names, lists_names) = names_of(&certificate);
        Ok(Self {
            names,
            lists_names,
            subject: written(certificate.subject()),
            issuer: written(certificate.issuer()),
            not_before: moment(validity.not_before.timestamp()),
            not_after: moment(validity.not_after.timestamp()),
            subject_der: certificate.tbs_certificate.subject.as_raw(),
            issuer_der: certificate.tbs_certificate.issuer.as_raw(),
            public_key: certificate.tbs_certificate.subject_pki.raw,
        })
    }

    pub fn is_issued_by(&self, issuer: &Self) -> bool {
        self.issuer_der == issuer.subject_der
    }
}

/// Who a client has shown to be, as instances are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// As RFC 4514 writes it, in ASCII.
    pub subject: String,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
}

impl ClientCertificate {
    /// `None` of what cannot be read; verification has read it before.
    pub fn read(der: &[u8]) -> Option<Self> {
        let facts = Facts::read(der).ok()?;
        Some(Self { subject: facts.subject, fingerprint: fingerprint_text(&fingerprint(der)) })
    }
}

pub fn fingerprint(der: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
    bytes
}

pub fn fingerprint_text(fingerprint: &[u8; 32]) -> String {
    hex(fingerprint)
}

/// The names it vouches for, in lower case, and whether it lists them. The common name counts where it lists none.
fn names_of(certificate: &X509Certificate<'_>) -> (Vec<Arc<str>>, bool) {
    let listed = certificate.subject_alternative_name().ok().flatten().map(|list| &list.value.general_names);
    let mut names: Vec<Arc<str>> = Vec::new();
    let mut add = |name: &str| {
        let name: Arc<str> = name.to_ascii_lowercase().into();
        // What no client can ask for is left out, and nobody's terminal has to bear it.
        let is_plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.*".contains(&b));
        if is_plain && !names.contains(&name) {
            names.push(name);
        }
    };
    for name in listed.into_iter().flatten() {
        if let GeneralName::DNSName(name) = name {
            add(name);
        }
    }
    if listed.is_none() {
        certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).filter(|n| n.contains('.')).for_each(add);
    }
    (names, listed.is_some())
}

/// RFC 4514: the last part first, in ASCII, so that it fits into a field of HTTP and nobody can end that with it.
fn written(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    for (n, part) in name.iter_rdn().collect::<Vec<_>>().into_iter().rev().enumerate() {
        for (m, attribute) in part.iter().enumerate() {
            if m > 0 {
                text.push('+');
            } else if n > 0 {
                text.push(',');
            }
            match (short_name(attribute.attr_type()), attribute.as_str()) {
                (Some(short), Ok(value)) => {
                    text.push_str(short);
                    text.push('=');
                    escape(value, &mut text);
                }
                _ => {
                    text.push_str(&attribute.attr_type().to_id_string());
                    text.push_str("=#");
                    text.push_str(&hex(&encoded(attribute.attr_value())));
                }
            }
        }
    }
    text
}

/// Those of RFC 4514 §3, and what authorities use beside them.
fn short_name(oid: &Oid<'_>) -> Option<&'static str> {
    Some(match oid.to_id_string().as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.25" => "DC",
        "0.9.2342.19200300.100.1.1" => "UID",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

fn escape(value: &str, text: &mut String) {
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        let is_special = matches!(byte, b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\');
        let is_edge = (at == 0 && matches!(byte, b' ' | b'#')) || (at == last && byte == b' ');
        if is_special || is_edge {
            text.push('\\');
            text.push(char::from(byte));
        } else if (b' '..=b'~').contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(text, "\\{byte:02X}");
        }
    }
}

fn encoded(value: &Any<'_>) -> Vec<u8> {
    value.to_der_vec().unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Seconds since 1970; what lies before counts as then.
fn moment(timestamp: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(timestamp.max(0).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::tls::samples::Sample;

    #[test]
    fn names_are_in_lower_case_and_once() {
        let sample = Sample::of(&["Shop.Example", "*.shop.example", "shop.example", "x\u{1b}[31m.example"]).make();
        let facts = Facts::read(&sample.der).unwrap();
        assert_eq!(facts.names.iter().map(|n| &**n).collect::<Vec<_>>(), ["shop.example", "*.shop.example"]);
        assert!(facts.lists_names && facts.not_before < facts.not_after);
    }

    #[test]
    fn a_subject_cannot_end_the_field_it_is_told_in() {
        let sample = Sample::of(&[]).subject(" O, \r\nX-Admin: yes\u{fc}").make();
        let ClientCertificate { subject, fingerprint } = ClientCertificate::read(&sample.der).unwrap();
        assert_eq!(subject, r"CN=\ O\, \0D\0AX-Admin: yes\C3\BC");
        assert_eq!(fingerprint.len(), 64);
    }

    proptest! {
        #[test]
        fn no_bytes_bring_the_reader_down(at in prop::collection::vec((0..600usize, any::<u8>()), 0..6), cut in 0..600usize) {
            let mut der = DER.clone();
            for (at, byte) in at {
                let at = at % der.len();
                der[at] = byte;
            }
            let _ = Facts::read(&der);
            let _ = Facts::read(&der[..cut % der.len()]);
            if let Some(client) = ClientCertificate::read(&der) {
                prop_assert!(client.subject.bytes().all(|b| (b' '..=b'~').contains(&b)), "{:?}", client.subject);
            }
        }
    }

    static DER: LazyLock<Vec<u8>> =
        LazyLock::new(|| Sample::of(&["shop.example", "*.shop.example"]).subject("O, \u{fc}").make().der);

    #[test]
    fn what_is_no_certificate_is_told_from_one() {
        for bytes in [&b""[..], b"\x30\x00", b"hello"] {
            assert!(Facts::read(bytes).is_err());
        }
        let mut long = Sample::of(&["a.example"]).make().der;
        long.push(0);
        assert!(Facts::read(&long).unwrap_err().contains("behind"));
    }
}
