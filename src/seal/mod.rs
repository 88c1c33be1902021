//! FLOOR 1. A short text, sealed, so that a client can carry it and bring it back.
//!
//! Who has it neither learns the text nor can make up another one: ChaCha20-Poly1305, under a key derived from a secret that
//! all proxies share. The nonce is made of what is sealed, so every proxy makes the same of the same text and place.
//!
//! Invariant: the keys are derived when the secret is learned, and never for a request.

use std::fmt::{self, Write};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;

use crate::model::Secret;

pub struct Seal {
    key: LessSafeKey,
    nonces: hmac::Key,
}

impl Seal {
    /// `None` only if the cipher does not take its key, which its length makes impossible.
    pub fn new(secret: &Secret) -> Option<Self> {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
        let key = UnboundKey::new(&CHACHA20_POLY1305, hmac::sign(&root, b"pointsman sticky 1: key").as_ref()).ok()?;
        Some(Self { key: LessSafeKey::new(key), nonces: root })
    }

    /// Nonce and sealed text in hexadecimal. It opens with the same `place` only.
    pub fn close(&self, text: &str, place: &str) -> Option<String> {
        let mut context = hmac::Context::with_key(&self.nonces);
        ["pointsman sticky 1: nonce", place, "/", text].iter().for_each(|part| context.update(part.as_bytes()));
        let nonce: [u8; NONCE_LEN] = context.sign().as_ref()[..NONCE_LEN].try_into().ok()?;
        let mut sealed = text.as_bytes().to_vec();
        let (nonce, shown) = (Nonce::assume_unique_for_key(nonce), nonce);
        self.key.seal_in_place_append_tag(nonce, Aad::from(place), &mut sealed).ok()?;
        Some(shown.iter().chain(&sealed).fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        }))
    }

    /// `None` for whatever was not sealed with this secret for this place.
    pub fn open(&self, sealed: &str, place: &str) -> Option<String> {
        let digits = sealed.as_bytes();
        if digits.len() > LENGTH_MAX || !digits.len().is_multiple_of(2) {
            return None;
        }
        let digit = |d: u8| char::from(d).to_digit(16).map(|d| d as u8);
        let byte = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
        let mut bytes: Vec<u8> = digits.chunks_exact(2).map(byte).collect::<Option<_>>()?;
        let (nonce, sealed) = bytes.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let text = self.key.open_in_place(nonce, Aad::from(place), sealed).ok()?;
        std::str::from_utf8(text).ok().map(str::to_owned)
    }
}

impl fmt::Debug for Seal {
    /// Keys never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

/// Of the longest instance id, in hexadecimal with its nonce and tag; whatever is longer is none of ours.
const LENGTH_MAX: usize = 2 * (NONCE_LEN + 128 + 16);

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(secret: &str) -> Seal {
        Seal::new(&Secret::new(secret)).unwrap()
    }

    #[test]
    fn it_opens_with_the_same_secret_and_place_only() {
        let sealed = seal("a").close("i1", "shop/at").unwrap();
        assert_eq!(seal("a").open(&sealed, "shop/at").as_deref(), Some("i1"));
        assert_eq!(seal("b").open(&sealed, "shop/at"), None);
        assert_eq!(seal("a").open(&sealed, "shop/as"), None);
        assert_eq!(seal("a").close("i1", "shop/at"), Some(sealed), "every proxy makes the same one");
    }
}
