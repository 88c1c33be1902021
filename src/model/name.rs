//! Names of services, instances, routes and certificates: 1 to 128 of `[A-Za-z0-9._:@+-]`.

use std::fmt;
use std::sync::Arc;

/// Why a text cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameError {
    Empty,
    TooLong { length: usize },
    Character { found: char, at: usize },
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the name is empty; 1 to {LENGTH_MAX} characters of [A-Za-z0-9._:@+-] are allowed"),
            Self::TooLong { length } => write!(f, "the name has {length} characters; at most {LENGTH_MAX} are allowed"),
            Self::Character { found, at } => {
                write!(f, "the name has {found:?} at position {at}; only [A-Za-z0-9._:@+-] are allowed")
            }
        }
    }
}

impl std::error::Error for NameError {}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The only way to make one.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check(text).map(|()| Self(text.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

name!(
    /// What a route names.
    ServiceName
);
name!(
    /// One instance within its service.
    InstanceId
);
name!(
    /// One route of the registry or the file.
    RouteName
);
name!(
    /// One certificate of the registry.
    CertificateName
);
name!(
    /// What an ACME directory calls one challenge: base64url, which is part of what names may hold.
    ChallengeToken
);

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > LENGTH_MAX {
        return Err(NameError::TooLong { length: text.chars().count() });
    }
    match text.chars().enumerate().find(|(_, c)| !(c.is_ascii_alphanumeric() || "._:@+-".contains(*c))) {
        Some((at, found)) => Err(NameError::Character { found, at }),
        None => Ok(()),
    }
}

const LENGTH_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_alphabet() {
        for good in ["a", "orders", "Orders-2.eu:8080", "x@y+z", &"n".repeat(128)] {
            assert_eq!(ServiceName::parse(good).map(|n| n.as_str().to_owned()), Ok(good.to_owned()));
        }
        assert_eq!(ServiceName::parse(""), Err(NameError::Empty));
        assert_eq!(ServiceName::parse("a/b"), Err(NameError::Character { found: '/', at: 1 }));
        assert_eq!(ServiceName::parse("a b"), Err(NameError::Character { found: ' ', at: 1 }));
        assert_eq!(ServiceName::parse(&"n".repeat(129)), Err(NameError::TooLong { length: 129 }));
    }
}
