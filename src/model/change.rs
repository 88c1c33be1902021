//! What a source of declarations tells the catalog.

use std::sync::Arc;

use super::{
    AcmeOrder, Certificate, CertificateName, Challenge, ChallengeToken, InstanceId, InstanceSpec, ListenerCertificates, Override,
    RouteName, RouteSpec, Secret, ServiceName, ServicePolicy,
};

/// What one source learned at one moment: one event is one new snapshot, or none.
#[derive(Debug, Clone)]
pub struct Event {
    pub origin: Origin,
    /// The registry's revision once this is applied; 0 from a source that has none.
    pub revision: u64,
    pub changes: Vec<Change>,
}

/// Who declared it, in the order in which they win. What one declares never overwrites what another does: it lies
/// beneath, and is in force again once the other is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    File,
    /// Our own prefix.
    Registry,
    /// Keys of other programs, by their place in the configuration from 0. They declare instances only.
    Source(u8),
}

/// One record that is new, different or gone. A list arrives as the changes it makes.
#[derive(Debug, Clone)]
pub enum Change {
    Instance {
        service: ServiceName,
        id: InstanceId,
        spec: InstanceSpec,
    },
    InstanceGone {
        service: ServiceName,
        id: InstanceId,
        departure: Departure,
    },
    Override {
        service: ServiceName,
        id: InstanceId,
        value: Option<Override>,
    },
    Policy {
        service: ServiceName,
        policy: Option<Box<ServicePolicy>>,
    },
    Route {
        name: RouteName,
        route: Option<Box<RouteSpec>>,
    },
    Certificate {
        name: CertificateName,
        certificate: Option<Arc<Certificate>>,
    },
    /// What an ACME directory may ask for now.
    Challenge {
        token: ChallengeToken,
        challenge: Option<Arc<Challenge>>,
    },
    /// What became of the last ACME order for the certificate of that name.
    AcmeOrder {
        name: CertificateName,
        order: Option<Arc<AcmeOrder>>,
    },
    /// What the file gives its listener of that number.
    ListenerCertificates {
        listener: usize,
        certificates: Arc<ListenerCertificates>,
    },
    /// Which registry this is: something all who follow it know, and nobody else.
    Epoch(Secret),
}

/// How an instance's record went away, as far as the source can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// Somebody deleted it: its lease lives on, or it had none.
    Deleted,
    /// Its lease ended, or nobody could say that it did not.
    Expired,
    /// It was missing from a list.
    Unlisted,
}

impl Departure {
    /// Somebody wanted it.
    pub fn is_clean(self) -> bool {
        self == Self::Deleted
    }
}
