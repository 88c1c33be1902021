//! `Lease`: grant, revoke, keep alive, time to live, list.

use std::pin::Pin;

use etcd_client::proto::{
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse, PbLeaseLeasesRequest,
    PbLeaseLeasesResponse, PbLeaseRevokeRequest, PbLeaseRevokeResponse, PbLeaseService, PbLeaseStatus, PbLeaseTimeToLiveRequest,
    PbLeaseTimeToLiveResponse,
};
use futures_util::StreamExt;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{Doorway, now};

#[async_trait]
impl PbLeaseService for Doorway {
    async fn lease_grant(&self, request: Request<PbLeaseGrantRequest>) -> Result<Response<PbLeaseGrantResponse>, Status> {
        let asked = request.into_inner();
        let ((id, ttl), revision) = self.shared.write(|state| state.grant(now(), asked.id, asked.ttl)).await?;
        let header = self.header(revision);
        Ok(Response::new(PbLeaseGrantResponse { header, id, ttl: seconds(ttl), error: String::new() }))
    }

    async fn lease_revoke(&self, request: Request<PbLeaseRevokeRequest>) -> Result<Response<PbLeaseRevokeResponse>, Status> {
        let id = request.into_inner().id;
        let ((), revision) = self.shared.write(|state| state.revoke(id)).await?;
        Ok(Response::new(PbLeaseRevokeResponse { header: self.header(revision) }))
    }

    type LeaseKeepAliveStream = Pin<Box<dyn Stream<Item = Result<PbLeaseKeepAliveResponse, Status>> + Send>>;

    /// One answer per request, in order; the next request is read when the answer has gone.
    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<PbLeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let doorway = self.clone();
        let renewals = request.into_inner().map(move |asked| asked.map(|asked| doorway.renew(asked.id)));
        let mut stopping = self.stopping.clone();
        let stopped = async move {
            // An error means that who could stop us is gone, and so are we.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        };
        Ok(Response::new(Box::pin(renewals.take_until(Box::pin(stopped)))))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<PbLeaseTimeToLiveRequest>,
    ) -> Result<Response<PbLeaseTimeToLiveResponse>, Status> {
        let asked = request.into_inner();
        let state = self.shared.lock();
        let mut told = PbLeaseTimeToLiveResponse {
            header: self.header(state.revision()),
            id: asked.id,
            ttl: NO_SUCH_LEASE,
            ..PbLeaseTimeToLiveResponse::default()
        };
        if let Ok(remaining) = state.leases().remaining(now(), asked.id) {
            told.ttl = seconds(remaining.left);
            told.granted_ttl = seconds(remaining.granted);
            if asked.keys {
                told.keys = remaining.keys.iter().map(|key| key.to_vec()).collect();
            }
        }
        Ok(Response::new(told))
    }

    async fn lease_leases(&self, _request: Request<PbLeaseLeasesRequest>) -> Result<Response<PbLeaseLeasesResponse>, Status> {
        let state = self.shared.lock();
        let leases = state.leases().ids().map(|id| PbLeaseStatus { id }).collect();
        Ok(Response::new(PbLeaseLeasesResponse { header: self.header(state.revision()), leases }))
    }
}

impl Doorway {
    /// A lease that is gone is not an error but a time to live of 0.
    fn renew(&self, id: i64) -> PbLeaseKeepAliveResponse {
        let mut state = self.shared.lock();
        let ttl = state.renew(now(), id).map_or(0, seconds);
        PbLeaseKeepAliveResponse { header: self.header(state.revision()), id, ttl }
    }
}

fn seconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

const NO_SUCH_LEASE: i64 = -1;
