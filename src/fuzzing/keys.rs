//! Keys of the registry, names, addresses, and the keys of other programs.

use crate::config::KeyPattern;
use crate::model::{Address, HostPattern, ServiceName};
use crate::registry::Prefix;

/// One line each: a prefix of ours, a key, an address or host pattern, a pattern of other programs' keys.
pub fn keys(bytes: &[u8]) {
    let mut lines = bytes.splitn(4, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (prefix, key, address, pattern) = (line(), line(), line(), line());
    if let Ok(prefix) = std::str::from_utf8(prefix) {
        ours(&Prefix::new(prefix), key);
    }
    if let Ok(address) = std::str::from_utf8(address) {
        addresses(address);
    }
    if let (Ok(pattern), Ok(key)) = (std::str::from_utf8(pattern), std::str::from_utf8(key)) {
        of_others(pattern, key);
    }
}

/// A key that is accepted is written the same, lies in the range that is read, and has nothing but names in it.
fn ours(prefix: &Prefix, raw: &[u8]) {
    let Ok(key) = prefix.parse(raw) else { return };
    let written = prefix.key(&key).into_bytes();
    assert_eq!(written, raw);
    let (from, to) = prefix.range();
    assert!(from <= written && written < to);
    let names = written[prefix.as_str().len()..].split(|byte| *byte == b'/').skip(2);
    names.for_each(|name| assert!(is_name(name), "{name:?}"));
}

fn addresses(text: &str) {
    if let Ok(address) = Address::parse(text) {
        let written = address.to_string();
        assert_eq!(Address::parse(&written), Ok(address), "{written}");
    }
    if let Ok(pattern) = HostPattern::parse(text) {
        let written = pattern.to_string();
        assert_eq!(HostPattern::parse(&written), Ok(pattern), "{written}");
    }
    assert_eq!(ServiceName::parse(text).is_ok(), is_name(text.as_bytes()));
}

/// What is found in a key lies in the folder that is read.
fn of_others(pattern: &str, key: &str) {
    let Ok(pattern) = KeyPattern::parse(pattern) else { return };
    assert_eq!(KeyPattern::parse(&pattern.to_string()), Ok(pattern.clone()));
    if let Some((_, instance)) = pattern.find(key) {
        assert!(key.starts_with(pattern.folder()) && key.contains(instance));
    }
}

/// The grammar in other words than those of `model::name`.
fn is_name(bytes: &[u8]) -> bool {
    (1..=128).contains(&bytes.len()) && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._:@+-".contains(byte))
}
