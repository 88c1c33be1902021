//! Which keys one reflector follows, and what they mean: ours under the prefix, or instances of other programs.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::key::{Key, KeyError, Prefix};
use super::record::{self, Readable};
use crate::config::KeyPattern;
use crate::model::Origin;

#[derive(Debug, Clone)]
pub enum Layout {
    Own(Prefix),
    /// `number` is its place in the configuration, from 0.
    Source {
        number: u8,
        keys: KeyPattern,
        own: Prefix,
    },
}

/// What a key is to the reflector.
pub enum Kind {
    /// Kept, compared and handed on.
    Record(Key),
    /// Identity of the registry: looked at, not kept.
    Meta,
    /// What proxies write about themselves or keep for themselves, and kinds that only a newer version knows: passed over.
    Foreign,
    /// A key in the folder of a source that does not fit its pattern. Others keep settings beside their instances: passed
    /// over, and said once.
    Stray,
    Malformed(KeyError),
}

impl Layout {
    /// In the order of the configuration.
    pub fn sources(prefix: &str, sources: &[KeyPattern]) -> impl Iterator<Item = Self> {
        let own = Prefix::new(prefix);
        (0..=u8::MAX).zip(sources).map(move |(number, keys)| Self::Source { number, keys: keys.clone(), own: own.clone() })
    }

    pub fn origin(&self) -> Origin {
        match self {
            Self::Own(_) => Origin::Registry,
            Self::Source { number, .. } => Origin::Source(*number),
        }
    }

    /// The first key that is followed, and the first one behind all that are.
    pub(super) fn range(&self) -> (Vec<u8>, Vec<u8>) {
        match self {
            Self::Own(prefix) => prefix.range(),
            Self::Source { keys, .. } => Prefix::new(keys.folder()).range(),
        }
    }

    /// Where the registry's identity stands. A source has none of its own: nothing is written among the keys of others.
    pub(super) fn meta(&self) -> String {
        let (Self::Own(prefix) | Self::Source { own: prefix, .. }) = self;
        prefix.key(&Key::Meta)
    }

    pub(super) fn kind(&self, key: &[u8]) -> Kind {
        match self {
            Self::Own(prefix) => match prefix.parse(key) {
                Ok(Key::Meta) => Kind::Meta,
                Ok(Key::Proxy(_) | Key::AcmeAccount | Key::AcmeRenewer) | Err(KeyError::Kind) => Kind::Foreign,
                Ok(key) => Kind::Record(key),
                Err(error) => Kind::Malformed(error),
            },
            Self::Source { keys, .. } => {
                let Ok(text) = std::str::from_utf8(key) else { return Kind::Malformed(KeyError::NotUtf8) };
                match keys.find(text) {
                    Some((service, id)) => Key::instance(service, id).map_or_else(Kind::Malformed, Kind::Record),
                    None => Kind::Stray,
                }
            }
        }
    }

    /// The change that putting `value` under `key` makes, or what is wrong with it.
    pub(super) fn read(&self, key: Key, value: &[u8]) -> Result<Readable, String> {
        match self {
            Self::Own(_) => record::read(key, value),
            Self::Source { .. } => record::read_foreign(key, value),
        }
    }

    /// The file of a source lies beside our own: `registry.snapshot.source-1`.
    pub(super) fn snapshot(&self, own: &Path) -> PathBuf {
        match self {
            Self::Own(_) => own.to_owned(),
            Self::Source { number, .. } => {
                let mut path = OsString::from(own);
                path.push(format!(".source-{}", u16::from(*number) + 1));
                path.into()
            }
        }
    }
}

impl Kind {
    /// Whether the reflector has an entry for such a key.
    pub fn is_kept(&self) -> bool {
        matches!(self, Self::Record(_) | Self::Malformed(_))
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(prefix) => f.write_str(prefix.as_str()),
            Self::Source { keys, .. } => keys.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_reads_its_folder_and_writes_nothing_in_it() {
        let pattern = KeyPattern::parse("/services/{service}/{instance}").unwrap();
        let sources: Vec<Layout> = Layout::sources("/p", &[pattern.clone(), pattern]).collect();
        let source = &sources[0];
        assert_eq!((source.origin(), sources[1].origin()), (Origin::Source(0), Origin::Source(1)));
        assert_eq!((source.range(), source.meta().as_str()), ((b"/services/".to_vec(), b"/services0".to_vec()), "/p/meta"));
        assert_eq!(source.snapshot(Path::new("/var/p.snapshot")), Path::new("/var/p.snapshot.source-1"));

        assert!(matches!(source.kind(b"/services/a/b"), Kind::Record(Key::Instance { .. })));
        assert!(matches!(source.kind(b"/services/a/b c"), Kind::Malformed(KeyError::Name { part: "instance", .. })));
        assert!(matches!(source.kind(b"/services/a/\xff"), Kind::Malformed(KeyError::NotUtf8)));
        assert!(matches!(source.kind(b"/services/subdomain"), Kind::Stray));
    }
}
