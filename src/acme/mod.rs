//! FLOOR 5. Certificates ordered from an ACME directory (RFC 8555), for all proxies of a registry, by one of them at a time.
//!
//! 1. Every proxy with `[acme]` waits for the lock `/acme/renewer`; whoever has it is the renewer (`run`) until it ends or
//!    loses its lease, and then the next one is.
//! 2. `plan` says when an order is due, from the certificate as it stands in the registry and from what became of the
//!    last order; so a new renewer goes on where the one before it stopped, its waits after failures too.
//! 3. `order` asks the directory (`directory`), as the account of the registry (`account`). What the directory wants to see
//!    goes into the registry; `catalog` brings it to every proxy, and `proxy/challenge` answers there.
//! 4. The directory is told to look once all proxies have it. The certificate goes into the registry together with how the
//!    order ended, in one transaction, and is served like any other certificate there.
//!
//! Invariants:
//! - Every write checks that the lock is still ours; challenges are under its lease, so none outlives its renewer.
//! - Keys are made here and go to the registry alone: no log, message or answer has them.
//! - Whatever fails is told in words, counted, and tried again later, each time after a longer wait.
//!
//! Absent on purpose: DNS-01 (and so wildcards), revocation, ARI.

mod account;
mod directory;
mod order;
mod plan;
mod renewer;
mod run;
mod trouble;

pub use run::{Status, start};
