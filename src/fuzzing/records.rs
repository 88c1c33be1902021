//! Records of the registry, ours and those of other programs.

use serde_json::Value as Json;

use crate::model::{CertificateName, ChallengeToken, RouteName};
use crate::wire::*;

/// The first byte says which record the rest is: `i`nstance, `o`verride, `p`olicy, `r`oute, `c`ertificate, pro`x`y, `f`oreign,
/// `a`n order, a c`h`allenge.
pub fn records(bytes: &[u8]) {
    let Some((kind, value)) = bytes.split_first() else { return };
    match kind {
        b'i' => survives(value, parse_instance, instance_json),
        b'o' => survives(value, parse_override, override_json),
        b'p' => survives(value, parse_policy, policy_json),
        b'r' => {
            let Ok(name) = RouteName::parse("r") else { return };
            survives(value, |value| parse_route(&name, value), route_json);
        }
        b'c' => {
            let Ok(name) = CertificateName::parse("c") else { return };
            let _ = accepted(parse_certificate(&name, value));
        }
        b'a' => survives(value, parse_acme_order, acme_order_json),
        b'h' => {
            let Ok(token) = ChallengeToken::parse("t") else { return };
            survives(value, |value| parse_challenge(&token, value), challenge_json);
        }
        b'x' => survives(value, parse_presence, presence_json),
        b'f' => {
            // What another program registered is an instance as any other.
            if let Some(spec) = accepted(parse_foreign_instance(value)) {
                let written = instance_json(&spec).to_string();
                assert_eq!(accepted(parse_instance(written.as_bytes())), Some(spec), "{written}");
            }
        }
        _ => {}
    }
}

/// What is accepted can be written, and is read again as the same.
fn survives<T: PartialEq + std::fmt::Debug>(value: &[u8], parse: impl Fn(&[u8]) -> ParseResult<T>, json: impl Fn(&T) -> Json) {
    let Some(spec) = accepted(parse(value)) else { return };
    let written = json(&spec).to_string();
    let again = accepted(parse(written.as_bytes()));
    assert_eq!(again.as_ref(), Some(&spec), "{written}");
}

/// Whoever is refused is told why.
fn accepted<T>(parsed: ParseResult<T>) -> Option<T> {
    match parsed {
        Ok(Parsed { value, warnings }) => {
            told(&warnings);
            Some(value)
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            told(&problems);
            None
        }
    }
}

fn told(problems: &[Problem]) {
    for problem in problems {
        let said = problem.to_string();
        assert!(!said.is_empty() && !said.contains('\n'), "not one line: {said:?}");
    }
}
