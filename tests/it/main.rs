//! The stories: what Pointsman does, told against the built binary with a real etcd.

mod world;

/// Who may see what the proxy says about itself.
mod access;
/// Certificates ordered from an ACME directory.
mod acme;
/// What the proxy says about itself.
mod admin;
/// How requests are shared among instances.
mod balancing;
/// Bodies of any size and shape.
mod bodies;
/// What operators type.
mod commands;
/// The whole thing on one machine.
mod demo;
/// What ships beside the binary.
mod deployment;
/// What is written in the registry is what is served.
mod discovery;
/// No request fails because the registry changed.
mod draining;
/// Instances crash, hang, refuse and leave, and users notice nothing.
mod drills;
/// What clients may do has limits, and each of them acts.
mod edge;
/// What a route does to a request, and to its answer.
mod edits;
/// Real requests take an instance out, and one brings it back.
mod ejection;
/// An etcd with TLS, users and roles.
mod etcd_tls;
/// What a client of HTTP/2 may ask for without end, and how it ends.
mod floods;
/// What an instance is told of a request.
mod forwarding;
/// Where the registry may not lead requests.
mod guard;
/// What the process may do, and who opens its ports.
mod hardening;
/// What is written to be read in two ways.
mod hostile;
/// HTTP/1.1 to the byte, on both sides.
mod http1;
/// HTTP/2 to the frame.
mod http2;
/// A proxy in front says who its client is.
mod introduction;
/// Who waits, who is refused at once, and who never notices.
mod limits;
/// From nginx and confd, side by side.
mod migration;
/// What others watch us with.
mod monitoring;
/// When most instances are down, the probes are more likely wrong.
mod panic;
/// Slow and silent clients.
mod patience;
/// Every instance is asked how it is.
mod probing;
/// What vanishes from the registry is not always dead.
mod protection;
/// HTTP/1.1, HTTP/2, gRPC, WebSocket, events.
mod protocols;
/// A route takes so many requests of each client, and no more.
mod rates;
/// Whatever happens to etcd, traffic goes on.
mod registry_faults;
/// What a new process knows from the one before it.
mod restart;
/// A dead instance is not a user's error.
mod retries;
/// Which request goes to which service.
mod routing;
/// Signals.
mod shutdown;
/// Instances that other programs registered.
mod sources;
/// A client comes back to where it was.
mod sticky;
/// What systemd hears.
mod supervised;
/// TLS at the listeners, asked by clients that others wrote.
mod tls;
/// A new process takes over, and nobody notices.
mod upgrade;

/// Instances that speak TLS.
mod upstream_tls;

/// What `docs/getting-started.md` tells, told by the built binary.
mod by_hand;
/// The registry inside the process, beside a real etcd.
mod embedded;
/// An instance keeps itself registered; an operator changes the registry.
mod register;
/// The sample service by itself.
mod sample;

/// What the documents show is true.
mod docs;
/// The house: imports go down only.
mod floors;
/// What we depend on may be depended on.
mod licences;
