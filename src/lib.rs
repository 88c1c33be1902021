//! Pointsman: a load balancer whose upstreams live in etcd.
//!
//! The house has floors; imports go down only (`tests/it/floors.rs` reads every path). In reading order:
//!
//! | floor | room | who it is |
//! |---|---|---|
//! | 0 | `model` | the declared nouns: names, specs, policies, routes, changes |
//! | 1 | `wire` | their JSON and TOML forms, both directions |
//! | 1 | `rate` | whether one more request is within a rate |
//! | 1 | `routing` | which route a request takes |
//! | 1 | `tls` | whether a certificate and a key go together, and which one a client gets |
//! | 1 | `proxy_protocol` | the header that says who a proxy's client is |
//! | 1 | `seal` | what a client may carry, and nobody else make |
//! | 1 | `fetch` | one small HTTP question to somebody near |
//! | 1 | `system` | sockets that are passed to us and on, privileges, the service manager |
//! | 2 | `config` | file, variables and flags, resolved |
//! | 2 | `import` | configurations of nginx and confd, in our words |
//! | 2 | `pool` | services, instances, what was learned of them, ways to pick |
//! | 2 | `trust` | TLS towards instances: who vouches for them, what they are shown |
//! | 3 | `catalog` | the one writer, and the snapshot everyone reads |
//! | 3 | `telemetry` | metrics as text, logs |
//! | 4 | `registry` | etcd → events; the commands' way to etcd |
//! | 4 | `embedded` | an etcd v3 registry inside the process |
//! | 4 | `certs` | certificate files → events, again whenever they change |
//! | 4 | `resolver` | DNS names of instances, in the background |
//! | 4 | `prober` | asks every instance how it is |
//! | 5 | `acme` | certificates ordered from an ACME directory, by one proxy for all |
//! | 5 | `proxy` | client connections in, instances' answers out |
//! | 5 | `admin` | what the process knows, for people and programs |
//! | 5 | `registrar` | keeps one instance, or one proxy, registered |
//! | 6 | `app` | the wiring of the proxy process |
//! | 7 | `cli` | one file per command |
//! | 7 | `fuzzing` | what must hold for any bytes; for tests and the fuzzer only |
//!
//! `docs/architecture.md` follows an event, a request and a drain through them.

pub mod model;

pub mod fetch;
pub mod proxy_protocol;
pub mod rate;
pub mod routing;
pub mod seal;
pub mod system;
pub mod tls;
pub mod wire;

pub mod config;
pub mod import;
pub mod pool;
pub mod trust;

pub mod catalog;
pub mod telemetry;

pub mod certs;
pub mod embedded;
pub mod prober;
pub mod registry;
pub mod resolver;

pub mod acme;
pub mod admin;
pub mod proxy;
pub mod registrar;

pub mod app;
pub mod cli;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
