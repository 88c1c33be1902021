//! What a running proxy says of itself, for `status`, `top` and `explain`.

use std::time::Duration;

use serde_json::Value as Json;

use super::failure::Failure;
use super::global::Global;
use crate::fetch;

/// Where the admin endpoint is.
pub fn address(global: &Global) -> Result<String, Failure> {
    match &global.admin {
        Some(address) => Ok(address.clone()),
        None => Ok(global.config(&[])?.admin.address.to_string()),
    }
}

pub async fn ask(address: &str, path: &str) -> Result<Json, Failure> {
    let at = |source| Failure::Admin { address: address.to_owned(), source };
    let answer = fetch::get(address, path, ANSWER_TIMEOUT).await.map_err(at)?;
    let text = String::from_utf8_lossy(&answer.body);
    match serde_json::from_str(&text) {
        Ok(json) if answer.status.is_success() => Ok(json),
        _ => Err(Failure::AdminRefused {
            address: address.to_owned(),
            status: answer.status.as_u16(),
            body: text.trim().chars().take(BODY_SHOWN).collect(),
        }),
    }
}

/// As one part of a path or one value of a query.
pub fn escaped(text: &str) -> String {
    let byte = |b: u8| match b {
        b if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// A proxy answers in milliseconds; one with 100,000 instances on a busy machine takes a second for all of them.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Enough of an unexpected answer to see who answered.
const BODY_SHOWN: usize = 300;
