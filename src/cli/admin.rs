//! What a running proxy says of itself, for `status`, `top` and `explain`.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value as Json;

use super::admin_tls;
use super::failure::Failure;
use super::global::Global;
use crate::config::{reachable, read_tokens};
use crate::fetch::{self, Secure};
use crate::model::Secret;

/// The admin endpoint of a proxy, and what it wants to be shown.
pub struct Admin {
    pub address: String,
    token: Option<Secret>,
    secure: Option<Secure>,
}

impl Admin {
    /// The one that a flag or a variable names, else that of the configuration.
    pub fn of(global: &Global) -> Result<Self, Failure> {
        let (address, token_file, secure) = match &global.admin {
            Some(said) => match said.strip_prefix("https://").map(|address| address.trim_end_matches('/')) {
                Some(address) => {
                    let secure = admin_tls::named(address, global).map_err(Failure::Usage)?;
                    (address.to_owned(), global.token_file.clone(), Some(secure))
                }
                None => (said.strip_prefix("http://").unwrap_or(said).to_owned(), global.token_file.clone(), None),
            },
            None => {
                let admin = global.config(&[])?.admin;
                let address = reachable(admin.address);
                let secure = admin.tls.map(|tls| admin_tls::own(address, &tls, global)).transpose().map_err(Failure::Usage)?;
                (address.to_string(), admin.token_file, secure)
            }
        };
        let tokens = token_file.map(|file| read_tokens(&file).map_err(Failure::Usage)).transpose()?;
        // Of several the first: that is the one that stays.
        Ok(Self { address, secure, token: tokens.and_then(|tokens| tokens.into_iter().next()) })
    }

    pub async fn ask(&self, path: &str) -> Result<Json, Failure> {
        let url = format!("{}://{}", if self.secure.is_some() { "https" } else { "http" }, self.address);
        let at = |source| Failure::Admin { address: url.clone(), source };
        let token = self.token.as_ref().map(Secret::reveal);
        let answer = fetch::get(&self.address, path, token, self.secure.as_ref(), ANSWER_TIMEOUT).await.map_err(at)?;
        let text = String::from_utf8_lossy(&answer.body);
        match serde_json::from_str(&text) {
            Ok(json) if answer.status.is_success() => Ok(json),
            _ if answer.status == StatusCode::UNAUTHORIZED => Err(Failure::Unauthorized { address: url, shown: token.is_some() }),
            _ => Err(Failure::AdminRefused {
                address: url,
                status: answer.status.as_u16(),
                body: text.trim().chars().take(BODY_SHOWN).collect(),
            }),
        }
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
