//! Who is answered where a token is asked for.
//!
//! Open to everybody are the page, which shows nothing by itself, and what orchestrators ask before they have a token:
//! `/livez` and `/readyz`, which say whether and why not, and name no one. `/metrics` is, if it is said so.
//!
//! Invariants:
//! - A token is compared in the same time whatever is wrong with it, and is not kept itself, only its keyed digest.
//! - The file is looked at with each question, so a token that was taken out of it opens nothing any more. A file that went
//!   bad leaves the tokens it had in force.
//! - A wrong token is counted, and answered late; a right one never waits.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::hmac;
use tracing::{info, warn};

use super::reply::Refusal;
use super::tls::Tls;
use crate::config::{AdminConfig, FileStamp, read_tokens};
use crate::model::Secret;

/// What the configuration says of it.
#[derive(Debug)]
pub struct Access {
    /// `None`: whoever reaches the address is answered.
    tokens: Option<TokenFile>,
    /// Where it speaks TLS; and whether a client's certificate opens what a token does.
    pub(super) tls: Option<Tls>,
    certificates: bool,
    open_metrics: bool,
    n_missing: AtomicU64,
    n_wrong: AtomicU64,
}

impl Access {
    /// `Err` says what is wrong with the file of the tokens.
    pub fn new(config: &AdminConfig) -> Result<Self, String> {
        Ok(Self {
            tokens: config.token_file.as_deref().map(TokenFile::open).transpose()?,
            tls: config.tls.as_ref().map(Tls::open).transpose()?,
            certificates: config.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()),
            open_metrics: config.open_metrics,
            ..Self::open()
        })
    }

    /// To everybody.
    pub fn open() -> Self {
        let (tls, certificates) = (None, false);
        Self { tokens: None, tls, certificates, open_metrics: true, n_missing: AtomicU64::new(0), n_wrong: AtomicU64::new(0) }
    }

    /// `path` as the client wrote it: what is not plainly one of the open ones is not open. `certified`: the client has shown
    /// a certificate, which was verified.
    pub fn check(&self, path: &str, fields: &HeaderMap, certified: bool) -> Result<(), Refusal> {
        if certified || self.tokens.is_none() && !self.certificates {
            return Ok(());
        }
        if OPEN.contains(&path) || self.open_metrics && path == "/metrics" {
            return Ok(());
        }
        let Some(said) = fields.get(AUTHORIZATION) else {
            self.n_missing.fetch_add(1, Ordering::Relaxed);
            return Err(Refusal::Unauthorized { wrong: false });
        };
        if bearer(said.as_bytes()).is_some_and(|token| self.tokens.as_ref().is_some_and(|tokens| tokens.hold(token))) {
            return Ok(());
        }
        let n = self.n_wrong.fetch_add(1, Ordering::Relaxed) + 1;
        if n.is_power_of_two() {
            warn!(n, path, "A wrong token was shown at the admin endpoint");
        }
        Err(Refusal::Unauthorized { wrong: true })
    }

    /// Requests that were refused for want of a token, by why.
    pub fn refused(&self) -> [(&'static str, u64); 2] {
        [("missing", &self.n_missing), ("wrong", &self.n_wrong)].map(|(why, n)| (why, n.load(Ordering::Relaxed)))
    }
}

/// RFC 6750 §2.1. The scheme's name is written in any case.
fn bearer(said: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = said.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(token.trim_ascii())
}

#[derive(Debug)]
struct TokenFile {
    path: PathBuf,
    known: Mutex<Known>,
}

/// What was found when the file was like this.
#[derive(Debug)]
struct Known {
    stamp: Option<FileStamp>,
    digests: Vec<hmac::Tag>,
    key: hmac::Key,
}

impl TokenFile {
    fn open(path: &Path) -> Result<Self, String> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new());
        let key = key.map_err(|_| "the system has no random numbers".to_owned())?;
        let stamp = FileStamp::of(path);
        let digests = digests(&key, &read_tokens(path)?);
        Ok(Self { path: path.to_owned(), known: Mutex::new(Known { stamp, digests, key }) })
    }

    fn hold(&self, token: &[u8]) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = FileStamp::of(&self.path);
        if known.stamp != stamp {
            known.stamp = stamp;
            match read_tokens(&self.path) {
                Ok(tokens) => {
                    known.digests = digests(&known.key, &tokens);
                    info!(file = %self.path.display(), n_tokens = tokens.len(), "Tokens of the admin endpoint read again");
                }
                Err(reason) => warn!(reason, "The tokens of the admin endpoint stay as they were"),
            }
        }
        // All of them, so that the time does not tell which one it was.
        known.digests.iter().fold(false, |is_one, digest| hmac::verify(&known.key, token, digest.as_ref()).is_ok() | is_one)
    }
}

fn digests(key: &hmac::Key, tokens: &[Secret]) -> Vec<hmac::Tag> {
    tokens.iter().map(|token| hmac::sign(key, token.reveal().as_bytes())).collect()
}

const OPEN: [&str; 3] = ["/", "/livez", "/readyz"];
const SCHEME: &[u8] = b"bearer ";
/// How late a wrong token is answered. A place among the few connections is held meanwhile, so guessing is slow.
pub const WRONG_TOKEN_PAUSE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    struct World {
        file: tempfile::NamedTempFile,
        access: Access,
    }

    fn world(open_metrics: bool) -> World {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), TOKEN).unwrap();
        let config = AdminConfig { token_file: Some(file.path().to_owned()), open_metrics, ..AdminConfig::default() };
        World { access: Access::new(&config).unwrap(), file }
    }

    impl World {
        fn check(&self, path: &str, authorization: Option<&str>) -> Result<(), Refusal> {
            let value = authorization.map(|value| (AUTHORIZATION, value.parse().unwrap()));
            self.access.check(path, &HeaderMap::from_iter(value), false)
        }
    }

    #[test]
    fn only_who_has_a_token_sees_what_is_not_open() {
        let (world, wrong) = (world(false), Err(Refusal::Unauthorized { wrong: true }));
        for path in ["/", "/livez", "/readyz"] {
            assert_eq!(world.check(path, None), Ok(()));
        }
        for path in ["/metrics", "/api/v1/status", "/livez/", "//", "/nothing"] {
            assert_eq!(world.check(path, None), Err(Refusal::Unauthorized { wrong: false }), "{path}");
            assert_eq!(world.check(path, Some("Bearer 0123456789abcdef")), Ok(()), "{path}");
        }
        assert_eq!(world.check("/metrics", Some("bearer  0123456789abcdef ")), Ok(()));
        for said in [
            "Bearer 0123456789abcdeF",
            "Bearer 0123456789abcde",
            "Bearer ",
            "Bearer",
            "0123456789abcdef",
            "Basic 0123456789abcdef",
        ] {
            assert_eq!(world.check("/metrics", Some(said)), wrong, "{said}");
        }
        assert_eq!(world.access.refused(), [("missing", 5), ("wrong", 6)]);
        assert_eq!(self::world(true).check("/metrics", None), Ok(()));
    }

    #[test]
    fn a_changed_file_holds_at_once_and_a_bad_one_changes_nothing() {
        let world = world(false);
        let is_in = |token: &str| world.check("/metrics", Some(&format!("Bearer {token}"))).is_ok();
        std::fs::write(world.file.path(), "fedcba9876543210fedc\n").unwrap();
        assert!(is_in("fedcba9876543210fedc") && !is_in(TOKEN));
        std::fs::write(world.file.path(), "short").unwrap();
        assert!(is_in("fedcba9876543210fedc"));
        std::fs::remove_file(world.file.path()).unwrap();
        assert!(is_in("fedcba9876543210fedc") && !is_in(TOKEN) && !is_in("short"));
        assert!(!format!("{:?}", world.access).contains("fedcba"));
    }
}
