//! The gRPC doorway: reads etcd's messages into plain values, calls the state under its lock, and puts the answer
//! back into etcd's messages. It decides nothing about keys, leases or watches itself.

mod absent;
mod answer;
mod cluster;
mod kv;
mod lease;
mod parse;
mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::proto::{PbClusterServer, PbKvServer, PbLeaseServer, PbMaintenanceServer, PbResponseHeader, PbWatchServer};
use tokio::sync::watch as channel;
use tonic::Status;
use tonic::service::Routes;

use super::shared::Shared;

/// One for all connections; cloning it is cloning three pointers.
#[derive(Clone)]
pub struct Doorway {
    pub shared: Arc<Shared>,
    /// What `MemberList` says to dial.
    pub client_url: Arc<str>,
    pub progress_every: Duration,
    /// Turns true when the registry stops: streams end then.
    pub stopping: channel::Receiver<bool>,
}

impl Doorway {
    pub fn routes(self) -> Routes {
        Routes::new(PbKvServer::new(self.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX))
            .add_service(PbLeaseServer::new(self.clone()))
            .add_service(PbWatchServer::new(self.clone()))
            .add_service(PbClusterServer::new(self.clone()))
            .add_service(PbMaintenanceServer::new(self))
            .add_service(absent::Auth)
    }

    fn header(&self, revision: i64) -> Option<PbResponseHeader> {
        let identity = self.shared.identity;
        Some(PbResponseHeader {
            cluster_id: identity.cluster_id,
            member_id: identity.member_id,
            revision,
            raft_term: identity.term,
        })
    }

    fn header_now(&self) -> Option<PbResponseHeader> {
        self.header(self.shared.lock().revision())
    }
}

/// tokio's clock, so that tests may pause it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn absent(what: &str) -> Status {
    Status::unimplemented(format!("the embedded registry is one process and has no {what}; for that, use etcd"))
}

/// More than the 1.5 MiB a request may have, so that one somewhat too large is told so in etcd's words.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
