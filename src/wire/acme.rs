//! `/acme/challenges/TOKEN` and `/acme/orders/NAME`, both directions.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use crate::model::{AcmeOrder, AcmeOrderState, ChallengeKind, ChallengeSpec, ChallengeToken};

use super::ParseResult;
use super::fields::Read;
use super::node::{Node, quoted};
use super::record::{VERSION, read_json};
use super::scalar::{number, one_of, text, word};
use super::time::{moment, show_moment};

pub fn challenge_json(challenge: &ChallengeSpec) -> Json {
    json!({
        "v": VERSION,
        "kind": challenge.kind.as_str(),
        "domain": &*challenge.domain,
        "key_authorization": &*challenge.key_authorization,
    })
}

pub fn parse_challenge(token: &ChallengeToken, value: &[u8]) -> ParseResult<ChallengeSpec> {
    read_json(value, CHALLENGE_BYTES_MAX, |fields| {
        let kind = fields.required("kind", one_of(&ChallengeKind::ALL, ChallengeKind::as_str));
        let domain = fields.required("domain", domain);
        let key_authorization = fields.required("key_authorization", |node| key_authorization(token, node));
        Some(ChallengeSpec { token: token.clone(), kind: kind?, domain: domain?, key_authorization: key_authorization? })
    })
}

pub fn acme_order_json(order: &AcmeOrder) -> Json {
    json!({
        "v": VERSION,
        "state": order.state.as_str(),
        "domains": order.domains.iter().map(|domain| &**domain).collect::<Json>(),
        "directory": order.directory,
        "proxy": order.proxy,
        "at": show_moment(order.at),
        "next": order.next.map(show_moment),
        "failed": order.n_failed,
        "error": order.error,
    })
}

pub fn parse_acme_order(value: &[u8]) -> ParseResult<AcmeOrder> {
    read_json(value, ORDER_BYTES_MAX, |fields| {
        let state = fields.required("state", one_of(&AcmeOrderState::ALL, AcmeOrderState::as_str));
        let domains = fields.list("domains", domain).unwrap_or_default();
        let directory = fields.required("directory", word);
        let proxy = fields.required("proxy", word);
        let at = fields.required("at", moment);
        let next = fields.optional("next", moment);
        let n_failed = fields.or("failed", 0, number(0..=u32::MAX));
        let error = fields.optional("error", word);
        Some(AcmeOrder { state: state?, domains, directory: directory?, proxy: proxy?, at: at?, next, n_failed, error })
    })
}

/// A name that a certificate can be ordered for, in lower case. A star cannot be proved by the challenges we know.
pub(crate) fn domain(node: &Node) -> Read<Arc<str>> {
    let said = text(node)?;
    let name = said.to_ascii_lowercase();
    let is_label = |label: &str| {
        let is_plain = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        (1..=63).contains(&label.len()) && is_plain && !label.starts_with('-') && !label.ends_with('-')
    };
    let wrong = if name.starts_with("*.") {
        "needs a challenge in DNS, which is not spoken here; put such a certificate in the registry or name its files"
    } else if name.parse::<std::net::IpAddr>().is_ok() {
        "is an address; certificates are ordered for names"
    } else if name.len() > 253 || !name.split('.').all(is_label) {
        "is not a name such as \"shop.example\"; write one that is not ASCII in its xn-- form, without a final dot"
    } else {
        return Ok(name.into());
    };
    Err(format!("{} {wrong}", quoted(said)))
}

/// What is answered to anybody who asks, so it cannot be just any text.
fn key_authorization(token: &ChallengeToken, node: &Node) -> Read<Arc<str>> {
    let said = text(node)?;
    let print = said.strip_prefix(token.as_str()).and_then(|rest| rest.strip_prefix('.'));
    let is_base64url = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    match print {
        Some(print) if !print.is_empty() && is_base64url(print) => Ok(said.into()),
        _ => Err(format!("{} is not the token of the key, a dot, and the fingerprint of a key in base64url", quoted(said))),
    }
}

const CHALLENGE_BYTES_MAX: usize = 8 * 1024;
const ORDER_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_challenge_survives_its_record() {
        let token = ChallengeToken::parse("to-ken_1").unwrap();
        for kind in ChallengeKind::ALL {
            let challenge = ChallengeSpec {
                token: token.clone(),
                kind,
                domain: "shop.example".into(),
                key_authorization: "to-ken_1.print-1".into(),
            };
            let parsed = parse_challenge(&token, challenge_json(&challenge).to_string().as_bytes()).unwrap();
            assert_eq!((parsed.value, parsed.warnings), (challenge, vec![]));
        }
    }

    #[test]
    fn an_order_survives_its_record() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        for (state, next, error) in [
            (AcmeOrderState::Pending, None, None),
            (AcmeOrderState::Issued, Some(at), None),
            (AcmeOrderState::Failed, Some(at), Some("shop.example: no answer".to_owned())),
        ] {
            let domains = vec!["shop.example".into(), "www.shop.example".into()];
            let (directory, proxy) = ("https://ca.example/directory".to_owned(), "edge-1".to_owned());
            let order = AcmeOrder { state, domains, directory, proxy, at, next, n_failed: 3, error };
            let parsed = parse_acme_order(acme_order_json(&order).to_string().as_bytes()).unwrap();
            assert_eq!((parsed.value, parsed.warnings), (order, vec![]));
        }
    }

    #[test]
    fn nobody_has_us_say_what_is_no_key_authorization() {
        let token = ChallengeToken::parse("abc").unwrap();
        for text in ["", "abc", "abc.", "abd.x", "abc.<script>", "abc.x\\r\\nSet-Cookie: a=b", "abc.x y"] {
            let record = format!(r#"{{"kind":"http-01","domain":"a.example","key_authorization":"{text}"}}"#);
            let problems = parse_challenge(&token, record.as_bytes()).unwrap_err();
            assert_eq!(problems.iter().map(|p| p.path.as_str()).collect::<Vec<_>>(), ["key_authorization"], "{text}");
        }
    }

    #[test]
    fn a_name_that_cannot_be_ordered_says_why() {
        let read = |name: &str| domain(&Node::of_json(name.into()));
        assert_eq!(read("Shop.Example").as_deref(), Ok("shop.example"));
        for (name, why) in [
            ("*.shop.example", "needs a challenge in DNS"),
            ("10.0.0.1", "is an address"),
            ("::1", "is an address"),
            ("", "is not a name"),
            ("shop.example.", "without a final dot"),
            ("-a.example", "is not a name"),
            ("b\u{fc}cher.example", "xn--"),
            ("https://shop.example", "is not a name"),
        ] {
            assert!(read(name).is_err_and(|said| said.contains(why)), "{name}");
        }
    }
}
