//! FLOOR 4. The reflector: etcd → `Event`. Never knows pools, health or HTTP.
//!
//! 1. `run` takes one endpoint after the other (`rotation`) and opens a connection with every limit set (`connect`, `etcd`).
//! 2. A `session` asks for the registry's identity. Another epoch or cluster id, a revision or raft term that went back
//!    (`lineage`), or nothing known yet: everything is listed, page by page at one revision (`paging`, `merge`).
//! 3. From the next revision on it watches. One response is applied to the map (`reflector`), each record read alone
//!    (`layout`, `key`, `record`), and what changed is one `Event`, in the channel before the next response is looked at.
//!    Whose deletion may be the end of its lease is asked for before that, in one round (`departures`).
//! 4. `pulse` notices a dead connection within 2.2 seconds; `audit` compares keys once a minute and after each reconnect.
//! 5. Compaction, a message too large, drift, or a registry that is not the same any more: back to 2, on the same connection.
//!    Any other `fault`: back to 1, resuming the watch where it was.
//! 6. `keeper` writes what is in force to disk (`snapshot`), for a start while etcd is away. `status` shows all of this.
//!
//! Our own prefix and each source (keys of other programs, read as they are) has a `run` of its own, so none waits for
//! another; `layout` is all that differs.
//!
//! Beside it, for who does not follow the registry but writes in it: `hold` keeps one key under a lease (the registrar), `store`
//! asks and writes once (the commands), and `lock` is held by one at a time, who then writes only as long as that is so (ACME).
//!
//! What holds:
//! - A list is a difference: what did not change is not mentioned. Nothing is ever cleared to be filled again.
//! - A registry out of reach changes nothing.
//! - A revision is never split over two events; an event's `revision` goes back only when the registry itself did.
//! - What proxies write about themselves makes no event, or each one's report would cause the next.
//! - Every wait has a limit; a full channel is the one exception, and then etcd keeps what we do not read.
//!
//! Absent on purpose: any delay to gather changes (the catalog merges), and any judgement whether a removal is plausible.

mod applied;
mod audit;
mod certificate;
mod challenge;
mod connect;
mod departures;
mod etcd;
mod explain;
mod fault;
mod hold;
mod keeper;
mod key;
mod layout;
mod lineage;
mod lock;
mod merge;
mod paging;
mod pulse;
mod record;
mod reflector;
mod rotation;
mod run;
mod session;
mod snapshot;
mod status;
mod store;
#[cfg(test)]
mod stories;

pub use connect::{ConnectError, connect};
pub use departures::LeaseId;
pub use hold::{Held, Hold, HoldError, Notice, Opened, Sight, Written, revoke};
pub use key::{Key, KeyError, Prefix};
pub use layout::Layout;
pub use lock::{Committed, Edit as LockedEdit, Lock, Locked};
pub use record::Rejected;
pub use run::run;
pub use status::{REJECTED_LISTED_MAX, RegistryReport, RegistryStatus, RelistReason, Source};
pub use store::{Entry, Listing, Record, Store, StoreError};
