//! What `get`, `put` and `delete` are said of, and how its records are named on the command line.

use clap::ValueEnum;

use super::failure::Failure;
use crate::model::{CertificateName, InstanceId, NameError, RouteName, ServiceName};
use crate::registry::Key;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Noun {
    /// The policy of a service, by its name
    #[value(alias = "services")]
    Service,
    /// An instance, as SERVICE/ID
    #[value(alias = "instances")]
    Instance,
    /// A route, by its name
    #[value(alias = "routes")]
    Route,
    /// A certificate, by its name
    #[value(alias = "certificates")]
    Certificate,
}

impl Noun {
    pub fn key(self, name: &str) -> Result<Key, Failure> {
        let wrong = |reason: NameError| Failure::Usage(format!("{name:?}: {reason}"));
        match self {
            Self::Service => ServiceName::parse(name).map(Key::Policy).map_err(wrong),
            Self::Instance => instance(name).map(|(service, id)| Key::Instance { service, id }),
            Self::Route => RouteName::parse(name).map(Key::Route).map_err(wrong),
            Self::Certificate => CertificateName::parse(name).map(Key::Certificate).map_err(wrong),
        }
    }

    /// Where all of them stand, below the prefix.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Service => "/services/",
            Self::Instance => "/instances/",
            Self::Route => "/routes/",
            Self::Certificate => "/certificates/",
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Instance => "instance",
            Self::Route => "route",
            Self::Certificate => "certificate",
        }
    }
}

/// `SERVICE/ID`.
pub fn instance(name: &str) -> Result<(ServiceName, InstanceId), Failure> {
    let Some((service, id)) = name.split_once('/') else {
        return Err(Failure::Usage(format!("{name:?} is not the name of an instance: that is SERVICE/ID, as in orders/a1")));
    };
    let wrong = |reason: NameError| Failure::Usage(format!("{name:?}: {reason}"));
    Ok((ServiceName::parse(service).map_err(wrong)?, InstanceId::parse(id).map_err(wrong)?))
}

/// The name of a record as the command line has it.
pub fn name_of(key: &Key) -> String {
    match key {
        Key::Instance { service, id } | Key::Override { service, id } => format!("{service}/{id}"),
        Key::Policy(name) => name.to_string(),
        Key::Route(name) => name.to_string(),
        Key::Certificate(name) => name.to_string(),
        Key::Proxy(id) => id.to_string(),
        Key::AcmeOrder(name) => name.to_string(),
        Key::AcmeChallenge(token) => token.to_string(),
        Key::Meta => "meta".to_owned(),
        Key::AcmeAccount => "account".to_owned(),
        Key::AcmeRenewer => "renewer".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_keys_and_names_again() {
        for (noun, name, key) in [
            (Noun::Service, "orders", "/services/orders"),
            (Noun::Instance, "orders/10.0.0.5:80", "/instances/orders/10.0.0.5:80"),
            (Noun::Route, "shop", "/routes/shop"),
            (Noun::Certificate, "shop.example", "/certificates/shop.example"),
        ] {
            let made = noun.key(name).unwrap();
            assert_eq!((made.to_string().as_str(), name_of(&made).as_str()), (key, name));
            assert!(key.starts_with(noun.folder()));
        }
    }

    #[test]
    fn wrong_names_are_usage_errors_that_say_what_is_right() {
        for (noun, name, said) in
            [(Noun::Instance, "orders", "SERVICE/ID"), (Noun::Instance, "orders/a/b", "position 1"), (Noun::Route, "", "empty")]
        {
            let failure = noun.key(name).unwrap_err();
            assert_eq!(failure.exit_code(), 2);
            assert!(failure.to_string().contains(said), "{failure}");
        }
    }
}
