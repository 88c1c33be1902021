//! The key grammar, both directions: `PREFIX/instances/SERVICE/ID` and its siblings.

use std::fmt;
use std::sync::Arc;

use crate::model::{CertificateName, ChallengeToken, InstanceId, NameError, RouteName, ServiceName};

/// What stands before every key of ours: starts with a slash, does not end with one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(Arc<str>);

/// Which record a key names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// The registry's own identity.
    Meta,
    Instance {
        service: ServiceName,
        id: InstanceId,
    },
    Override {
        service: ServiceName,
        id: InstanceId,
    },
    Policy(ServiceName),
    Route(RouteName),
    Certificate(CertificateName),
    /// What a proxy says about itself; an id as instances have it.
    Proxy(InstanceId),
    /// Who we are to an ACME directory, with the key that proves it.
    AcmeAccount,
    /// The proxy that orders certificates now.
    AcmeRenewer,
    /// What became of the last order for `/certificates/acme:NAME`.
    AcmeOrder(CertificateName),
    /// What an ACME directory may ask for now.
    AcmeChallenge(ChallengeToken),
}

/// Why a text under the prefix names none of our records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyError {
    /// A kind of record that we do not know. A newer writer may: this is odd, not wrong.
    Kind,
    /// A known kind with too few or too many parts.
    Shape {
        form: &'static str,
    },
    Name {
        part: &'static str,
        reason: NameError,
    },
    NotUtf8,
}

impl Prefix {
    pub fn new(prefix: &str) -> Self {
        Self(prefix.trim_end_matches('/').into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// First key of ours, and the first one behind all of ours.
    pub fn range(&self) -> (Vec<u8>, Vec<u8>) {
        const AFTER_SLASH: char = '0';
        (format!("{}/", self.0).into(), format!("{}{AFTER_SLASH}", self.0).into())
    }

    /// The key as etcd has it.
    pub fn key(&self, key: &Key) -> String {
        format!("{}{key}", self.0)
    }

    /// What a key that lies in `range` names.
    pub fn parse(&self, raw: &[u8]) -> Result<Key, KeyError> {
        let text = std::str::from_utf8(raw).map_err(|_| KeyError::NotUtf8)?;
        text.strip_prefix(&*self.0).ok_or(KeyError::Kind).and_then(Key::parse)
    }
}

impl Key {
    pub fn instance(service: &str, id: &str) -> Result<Self, KeyError> {
        Ok(Self::Instance { service: service_name(service)?, id: instance_id(id)? })
    }

    /// From what follows the prefix.
    pub fn parse(path: &str) -> Result<Self, KeyError> {
        let mut parts = path.strip_prefix('/').ok_or(KeyError::Kind)?.splitn(4, '/');
        let kind = parts.next().unwrap_or_default();
        match (kind, parts.next(), parts.next(), parts.next()) {
            ("meta", None, ..) => Ok(Self::Meta),
            ("instances", Some(service), Some(id), None) => Self::instance(service, id),
            ("overrides", Some(service), Some(id), None) => {
                Ok(Self::Override { service: service_name(service)?, id: instance_id(id)? })
            }
            ("services", Some(name), None, None) => service_name(name).map(Self::Policy),
            ("routes", Some(name), None, None) => named("route", RouteName::parse(name)).map(Self::Route),
            ("certificates", Some(name), None, None) => named("certificate", CertificateName::parse(name)).map(Self::Certificate),
            ("proxies", Some(id), None, None) => named("proxy", InstanceId::parse(id)).map(Self::Proxy),
            ("acme", Some("account"), None, None) => Ok(Self::AcmeAccount),
            ("acme", Some("renewer"), None, None) => Ok(Self::AcmeRenewer),
            ("acme", Some("orders"), Some(name), None) => named("order", CertificateName::parse(name)).map(Self::AcmeOrder),
            ("acme", Some("challenges"), Some(token), None) => {
                named("challenge", ChallengeToken::parse(token)).map(Self::AcmeChallenge)
            }
            _ => match FORMS.iter().find(|(known, _)| *known == kind) {
                Some((_, form)) => Err(KeyError::Shape { form }),
                None => Err(KeyError::Kind),
            },
        }
    }
}

impl fmt::Display for Key {
    /// Without the prefix.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meta => f.write_str("/meta"),
            Self::Instance { service, id } => write!(f, "/instances/{service}/{id}"),
            Self::Override { service, id } => write!(f, "/overrides/{service}/{id}"),
            Self::Policy(service) => write!(f, "/services/{service}"),
            Self::Route(name) => write!(f, "/routes/{name}"),
            Self::Certificate(name) => write!(f, "/certificates/{name}"),
            Self::Proxy(id) => write!(f, "/proxies/{id}"),
            Self::AcmeAccount => f.write_str("/acme/account"),
            Self::AcmeRenewer => f.write_str("/acme/renewer"),
            Self::AcmeOrder(name) => write!(f, "/acme/orders/{name}"),
            Self::AcmeChallenge(token) => write!(f, "/acme/challenges/{token}"),
        }
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind => f.write_str("no kind of record that this version knows"),
            Self::Shape { form } => write!(f, "the key has not the form {form}"),
            Self::Name { part, reason } => write!(f, "the {part} in the key: {reason}"),
            Self::NotUtf8 => f.write_str("the key is not UTF-8"),
        }
    }
}

impl std::error::Error for KeyError {}

fn service_name(text: &str) -> Result<ServiceName, KeyError> {
    named("service", ServiceName::parse(text))
}

fn instance_id(text: &str) -> Result<InstanceId, KeyError> {
    named("instance", InstanceId::parse(text))
}

fn named<T>(part: &'static str, name: Result<T, NameError>) -> Result<T, KeyError> {
    name.map_err(|reason| KeyError::Name { part, reason })
}

const FORMS: [(&str, &str); 8] = [
    ("meta", "/meta"),
    ("instances", "/instances/SERVICE/ID"),
    ("overrides", "/overrides/SERVICE/ID"),
    ("services", "/services/SERVICE"),
    ("routes", "/routes/NAME"),
    ("certificates", "/certificates/NAME"),
    ("proxies", "/proxies/ID"),
    ("acme", "/acme/account, /acme/renewer, /acme/orders/NAME or /acme/challenges/TOKEN"),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> impl Strategy<Value = Key> {
        let name = || "[A-Za-z0-9._:@+-]{1,128}";
        prop_oneof![
            Just(Key::Meta),
            (name(), name()).prop_map(|(s, i)| Key::instance(&s, &i).unwrap()),
            (name(), name())
                .prop_map(|(s, i)| Key::Override { service: service_name(&s).unwrap(), id: instance_id(&i).unwrap() }),
            name().prop_map(|n| Key::Policy(service_name(&n).unwrap())),
            name().prop_map(|n| Key::Route(RouteName::parse(&n).unwrap())),
            name().prop_map(|n| Key::Certificate(CertificateName::parse(&n).unwrap())),
            name().prop_map(|n| Key::Proxy(instance_id(&n).unwrap())),
            prop_oneof![Just(Key::AcmeAccount), Just(Key::AcmeRenewer)],
            name().prop_map(|n| Key::AcmeOrder(CertificateName::parse(&n).unwrap())),
            name().prop_map(|n| Key::AcmeChallenge(ChallengeToken::parse(&n).unwrap())),
        ]
    }

    proptest! {
        #[test]
        fn a_key_written_is_the_key_read(key in keys(), prefix in "(/[a-z0-9]{1,9}){0,3}") {
            let prefix = Prefix::new(&prefix);
            let raw = prefix.key(&key).into_bytes();
            let (from, to) = prefix.range();
            prop_assert!(from <= raw && raw < to);
            prop_assert_eq!(prefix.parse(&raw), Ok(key));
        }

        #[test]
        fn whatever_is_accepted_is_written_back_the_same(raw in "/pointsman(/[a-z]{0,3}|/instances|/meta|/routes|/x y){0,4}") {
            let prefix = Prefix::new("/pointsman");
            if let Ok(key) = prefix.parse(raw.as_bytes()) {
                prop_assert_eq!(prefix.key(&key), raw);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(raw in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Prefix::new("").parse(&raw);
        }
    }

    #[test]
    fn what_is_no_key_of_ours_says_why() {
        let said = |raw: &[u8]| Prefix::new("/p/").parse(raw).unwrap_err().to_string();
        assert_eq!(said(b"/p/instances/orders"), "the key has not the form /instances/SERVICE/ID");
        assert_eq!(said(b"/p/instances/orders/a/b"), "the key has not the form /instances/SERVICE/ID");
        assert_eq!(said(b"/p/meta/x"), "the key has not the form /meta");
        assert!(said(b"/p/routes/a b").starts_with("the route in the key: the name has ' ' at position 1"));
        assert!(said(b"/p/instances//a").starts_with("the service in the key: the name is empty"));
        assert_eq!(said(b"/p/\xff"), "the key is not UTF-8");
        for unknown in [&b"/p/future/x"[..], b"/p/", b"/p", b"/other"] {
            assert_eq!(Prefix::new("/p").parse(unknown), Err(KeyError::Kind));
        }
    }
}
