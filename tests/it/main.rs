//! The stories: what Pointsman does, told against the built binary with a real etcd.

mod world;

/// How requests are shared among instances.
mod balancing;
/// What is written in the registry is what is served.
mod discovery;
/// No request fails because the registry changed.
mod draining;
/// Whatever happens to etcd, traffic goes on.
mod registry_faults;
/// A dead instance is not a user's error.
mod retries;
/// Which request goes to which service.
mod routing;

/// An instance keeps itself registered; an operator changes the registry.
mod register;
/// The sample service by itself.
mod sample;

/// The house: imports go down only.
mod floors;
/// What we depend on may be depended on.
mod licences;
