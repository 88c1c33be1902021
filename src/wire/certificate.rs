//! `/certificates/NAME`: two PEM texts. Whether they are good certificates is decided where they are used.

use serde_json::{Value as Json, json};

use crate::model::{CertificateName, CertificateSpec};

use super::ParseResult;
use super::fields::Read;
use super::node::{Node, Value};
use super::record::{VERSION, read_json};

pub fn certificate_json(spec: &CertificateSpec) -> Json {
    json!({ "v": VERSION, "chain": spec.chain, "key": spec.key })
}

pub fn parse_certificate(name: &CertificateName, value: &[u8]) -> ParseResult<CertificateSpec> {
    read_json(value, BYTES_MAX, |fields| {
        let chain = fields.required("chain", chain);
        let key = fields.required("key", pem("PRIVATE KEY"));
        Some(CertificateSpec { name: name.clone(), chain: chain?, key: key? })
    })
}

/// Commands and answers show a chain, so no key may hide in it, as in a file that holds both.
fn chain(node: &Node) -> Read<String> {
    let text = pem("CERTIFICATE")(node)?;
    if begins_block(&text, "PRIVATE KEY") {
        return Err("holds a private key beside its certificates; that belongs into key, which is never shown".to_owned());
    }
    Ok(text)
}

/// A PEM text with at least one block of this kind. Its messages never repeat the text, which may be a key.
pub(super) fn pem(kind: &'static str) -> impl Fn(&Node) -> Read<String> {
    move |node| match &node.value {
        Value::Text(text) if begins_block(text, kind) => Ok(text.clone()),
        _ => Err(format!("is not a PEM text with a block of -----BEGIN {kind}-----")),
    }
}

/// Also of `RSA PRIVATE KEY` and `EC PRIVATE KEY`.
fn begins_block(text: &str, kind: &str) -> bool {
    text.lines().any(|line| {
        let label = line.trim().strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
        label.is_some_and(|label| label.ends_with(kind))
    })
}

const BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &str) -> ParseResult<CertificateSpec> {
        parse_certificate(&CertificateName::parse("shop").unwrap(), value.as_bytes())
    }

    #[test]
    fn both_texts_are_needed_and_look_like_what_they_are() {
        let good = r#"{"chain":"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
                       "key":"-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----\n"}"#;
        assert!(parse(good).unwrap().value.chain.starts_with("-----BEGIN"));
        let problems = parse(r#"{"chain":"-----BEGIN CERTIFICATE REQUEST-----"}"#).unwrap_err();
        let paths: Vec<_> = problems.iter().map(|p| p.path.as_str()).collect();
        assert_eq!(paths, ["chain", "key"], "{problems:?}");
    }

    #[test]
    fn a_key_does_not_hide_in_a_chain() {
        let block = |kind: &str| format!("-----BEGIN {kind}-----\\nAA==\\n-----END {kind}-----\\n");
        let both = block("CERTIFICATE") + &block("RSA PRIVATE KEY");
        let problems = parse(&format!(r#"{{"chain":"{both}","key":"{both}"}}"#)).unwrap_err();
        assert_eq!(problems.iter().map(|p| p.path.as_str()).collect::<Vec<_>>(), ["chain"], "{problems:?}");
    }

    #[test]
    fn a_key_is_never_repeated_in_a_message() {
        let problems = parse(r#"{"chain":"SECRET","key":"SECRET"}"#).unwrap_err();
        assert!(!format!("{problems:?}").contains("SECRET"));
        assert!(parse(r#"{"chain":{"a":"SECRET"},"key":["SECRET"], "kye":"SECRET"}"#).is_err());
        assert_eq!(
            parse(&"x".repeat(BYTES_MAX + 1)).unwrap_err()[0].message,
            "the value has 262145 bytes; at most 262144 are allowed"
        );
    }
}
