//! The `tls` of a policy. A certificate, a key or an authority that cannot be used is found here, so that the policy in
//! force stays.

use super::certificate::pem;
use super::fields::{Fields, Read};
use super::node::{Node, quoted};
use super::pem::{authorities, certificates, check_pair, private_key};
use super::scalar::{boolean, text};
use crate::model::{Identity, Secret, UpstreamTls};

pub(super) fn upstream_tls(fields: &mut Fields<'_>) -> UpstreamTls {
    let verify = fields.or("verify", true, boolean);
    let server_name = fields.optional("server_name", server_name);
    let ca = fields.optional("ca", authority);
    let identity = identity(fields);
    if !verify {
        fields.odd("verify", "is false: any certificate is taken, so whoever is in between can read and change everything");
        if ca.is_some() {
            fields.odd("ca", "is not used while verify is false");
        }
    }
    UpstreamTls { verify, server_name, ca, identity }
}

/// Both, or neither.
fn identity(fields: &mut Fields<'_>) -> Option<Identity> {
    let said = ["certificate", "key"].map(|key| fields.has(key));
    let chain = fields.optional("certificate", |node| {
        let text = pem("CERTIFICATE")(node)?;
        certificates(&text).map(|chain| (text, chain))
    });
    let key = fields.optional("key", |node| {
        let text = pem("PRIVATE KEY")(node)?;
        private_key(&text).map(|key| (text, key))
    });
    match said {
        [true, false] => fields.wrong("key", "is missing; it belongs to the certificate (and is never shown, so put it back)"),
        [false, true] => fields.wrong("certificate", "is missing; it belongs to the key"),
        _ => {}
    }
    let ((chain, certificates), (key, der)) = (chain?, key?);
    if let Err(problem) = check_pair(&certificates, &der) {
        fields.wrong("key", problem);
        return None;
    }
    Some(Identity { chain, key: Secret::new(&key) })
}

fn authority(node: &Node) -> Read<String> {
    let text = pem("CERTIFICATE")(node)?;
    authorities(&certificates(&text)?)?;
    Ok(text)
}

/// The name a certificate has to have.
fn server_name(node: &Node) -> Read<String> {
    let said = text(node)?;
    let letters = |l: &str| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let is_name = said.len() <= 253 && said.split('.').all(letters);
    if is_name || said.parse::<std::net::IpAddr>().is_ok() {
        return Ok(said.to_owned());
    }
    Err(format!("{} is neither a DNS name nor an IP address", quoted(said)))
}

#[cfg(test)]
mod tests {
    use crate::wire::parse_policy;

    const CA: &str = include_str!("../../tests/certificates/ca.pem");
    const CHAIN: &str = include_str!("../../tests/certificates/instance.pem");
    const KEY: &str = include_str!("../../tests/certificates/instance.key");
    const OTHER_KEY: &str = include_str!("../../tests/certificates/another.key");

    fn problems(tls: serde_json::Value) -> Vec<String> {
        let policy = serde_json::json!({ "tls": tls }).to_string();
        parse_policy(policy.as_bytes()).err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_certificate_and_its_key_belong_together() {
        assert!(problems(serde_json::json!({"certificate": CHAIN, "key": KEY, "ca": CA})).is_empty());
        let wrong = problems(serde_json::json!({"certificate": CHAIN, "key": OTHER_KEY}));
        assert_eq!(wrong, ["tls.key: is not the key of the certificate"]);
        assert!(problems(serde_json::json!({"certificate": CHAIN}))[0].starts_with("tls.key: is missing"));
        assert!(problems(serde_json::json!({"key": KEY}))[0].starts_with("tls.certificate: is missing"));
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_repeating_it() {
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(problems(serde_json::json!({"ca": broken})), ["tls.ca: certificate 1 of it cannot be read"]);
        assert_eq!(problems(serde_json::json!({"ca": format!("{CA}{broken}")})), ["tls.ca: certificate 2 of it cannot be read"]);
        let key = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
        let said = problems(serde_json::json!({"certificate": CHAIN, "key": key})).join("\n");
        assert!(said.starts_with("tls.key: ") && !said.contains("c2VjcmV0"), "{said}");
    }

    #[test]
    fn an_unverified_service_is_pointed_at() {
        let parsed = parse_policy(br#"{"tls":{"verify":false}}"#).unwrap();
        assert!(parsed.warnings[0].to_string().starts_with("tls.verify: is false"), "{:?}", parsed.warnings);
    }

    #[test]
    fn a_key_is_not_in_what_debug_says() {
        let policy = serde_json::json!({"tls": {"certificate": CHAIN, "key": KEY}}).to_string();
        let said = format!("{:?}", parse_policy(policy.as_bytes()).unwrap().value);
        assert!(!said.contains("PRIVATE"), "{said}");
    }
}
