//! `/acme/challenges/TOKEN` → what an ACME directory is answered, or why not.

use crate::model::{Challenge, ChallengeKind, ChallengeToken};
use crate::tls;
use crate::wire::{self, ParseResult, Parsed, Problem};

pub fn read(token: &ChallengeToken, value: &[u8]) -> ParseResult<Challenge> {
    let Parsed { value: spec, warnings } = wire::parse_challenge(token, value)?;
    let proof = match spec.kind {
        ChallengeKind::Http01 => None,
        ChallengeKind::TlsAlpn01 => Some(tls::proof(&spec.domain, &spec.key_authorization).map_err(problem)?),
    };
    Ok(Parsed { value: Challenge { spec, proof }, warnings })
}

fn problem(message: String) -> Vec<Problem> {
    vec![Problem { path: "domain".to_owned(), line: None, message }]
}
