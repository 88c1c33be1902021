//! FLOOR 1. What the operating system gives this process and takes from it: sockets that were passed, privileges, and the
//! ear of a service manager.
//!
//! 1. `passed` adopts the sockets of systemd's socket activation (`LISTEN_FDS`).
//! 2. `privileges` gives up whatever is not needed once the sockets are there: the user, every capability, and the way to
//!    any of it.
//! 3. `handover` passes listening sockets on to the process that comes after this one.
//! 4. `orphan` starts that process, as one that is not our child.
//! 5. `notify` tells the service manager how the process is (`sd_notify`).
//!
//! Invariants: nothing here knows listeners, registries or requests; `privileges` is for a process with one thread, since
//! capabilities belong to threads. All the `unsafe` of these things stands here.

pub mod handover;
pub mod notify;
pub mod orphan;
pub mod passed;
pub mod privileges;
