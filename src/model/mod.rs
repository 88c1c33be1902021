//! FLOOR 0. The declared nouns: what operators and services say, already checked.
//!
//! Everything here is a plain value with `Eq`; equality decides whether a record changed anything. A `Certificate` holds the
//! key as rustls has it, which is the one form in which nobody can print it.
//! Nothing here reads JSON, TOML, a clock or a socket: each wire form lives in `wire/` and converts by hand.

mod acme;
mod address;
mod certificate;
mod change;
mod edit;
mod instance;
mod name;
mod outcome;
mod path;
mod policy;
mod probe;
mod rate_limit;
mod route;
mod secret;
mod shards;
mod verdict;

pub use acme::{AcmeOrder, AcmeOrderState, Challenge, ChallengeKind, ChallengeSpec};
pub use address::{Address, AddressError, Host};
pub use certificate::{Certificate, CertificateSource, CertificateSpec, ListenerCertificates};
pub use change::{Change, Departure, Event, Origin};
pub use edit::{
    Action, CERTIFICATE_FIELDS, CERTIFICATE_FINGERPRINT, CERTIFICATE_SUBJECT, FieldEdit, FieldEdits, Part, PathRewrite, Piece,
    Placeholder, Redirect, Respond, Rewrite, Substitution, Template,
};
pub use instance::{InstanceSpec, Lifecycle, Override, ProbeTarget, Protocol};
pub use name::{CertificateName, ChallengeToken, InstanceId, NameError, RouteName, ServiceName};
pub use outcome::Outcome;
pub use path::plain_path;
pub use policy::{
    Balance, EjectionPolicy, HashOn, Identity, LatencyOutlierPolicy, LimitPolicy, Panic, ProbeKind, ProbePolicy,
    ProtectionPolicy, ProxyProtocol, RetryPolicy, ServicePolicy, StatusRanges, StickyPolicy, TimeoutPolicy, UpstreamTls,
};
pub use probe::ProbeResult;
pub use rate_limit::{RateKey, RateLimit};
pub use route::{FieldMatch, HostPattern, PathMatch, RouteSpec, ValueMatch};
pub use secret::Secret;
pub use shards::ShardMap;
pub use verdict::Verdict;
