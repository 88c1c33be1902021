//! `Cluster` and `Maintenance`: a cluster of one that is always its own leader. What would change or copy it is absent.

use std::pin::Pin;

use etcd_client::proto::{
    PbAlarmRequest, PbAlarmResponse, PbClusterService, PbDefragmentRequest, PbDefragmentResponse, PbDowngradeRequest,
    PbDowngradeResponse, PbHashKvRequest, PbHashKvResponse, PbHashRequest, PbHashResponse, PbMaintenanceService, PbMember,
    PbMemberAddRequest, PbMemberAddResponse, PbMemberListRequest, PbMemberListResponse, PbMemberPromoteRequest,
    PbMemberPromoteResponse, PbMemberRemoveRequest, PbMemberRemoveResponse, PbMemberUpdateRequest, PbMemberUpdateResponse,
    PbMoveLeaderRequest, PbMoveLeaderResponse, PbSnapshotRequest, PbSnapshotResponse, PbStatusRequest, PbStatusResponse,
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, async_trait};

use super::{Doorway, absent};

#[async_trait]
impl PbClusterService for Doorway {
    async fn member_list(&self, _request: Request<PbMemberListRequest>) -> Result<Response<PbMemberListResponse>, Status> {
        let member = PbMember {
            id: self.shared.identity.member_id,
            name: MEMBER_NAME.into(),
            peer_ur_ls: Vec::new(),
            client_ur_ls: vec![self.client_url.to_string()],
            is_learner: false,
        };
        Ok(Response::new(PbMemberListResponse { header: self.header_now(), members: vec![member] }))
    }

    async fn member_add(&self, _: Request<PbMemberAddRequest>) -> Result<Response<PbMemberAddResponse>, Status> {
        Err(absent("other members"))
    }

    async fn member_remove(&self, _: Request<PbMemberRemoveRequest>) -> Result<Response<PbMemberRemoveResponse>, Status> {
        Err(absent("other members"))
    }

    async fn member_update(&self, _: Request<PbMemberUpdateRequest>) -> Result<Response<PbMemberUpdateResponse>, Status> {
        Err(absent("other members"))
    }

    async fn member_promote(&self, _: Request<PbMemberPromoteRequest>) -> Result<Response<PbMemberPromoteResponse>, Status> {
        Err(absent("other members"))
    }
}

#[async_trait]
impl PbMaintenanceService for Doorway {
    async fn status(&self, _: Request<PbStatusRequest>) -> Result<Response<PbStatusResponse>, Status> {
        let (revision, bytes) = {
            let state = self.shared.lock();
            (state.revision(), i64::try_from(state.bytes()).unwrap_or(i64::MAX))
        };
        let identity = self.shared.identity;
        Ok(Response::new(PbStatusResponse {
            header: self.header(revision),
            version: ETCD_VERSION.into(),
            db_size: i64::try_from(self.shared.file_bytes()).unwrap_or(i64::MAX),
            db_size_in_use: bytes,
            leader: identity.member_id,
            raft_index: revision.unsigned_abs(),
            raft_applied_index: revision.unsigned_abs(),
            raft_term: identity.term,
            ..PbStatusResponse::default()
        }))
    }

    /// There are no alarms to list or to disarm.
    async fn alarm(&self, request: Request<PbAlarmRequest>) -> Result<Response<PbAlarmResponse>, Status> {
        if request.into_inner().action == ALARM_ACTIVATE {
            return Err(absent("alarms to raise"));
        }
        Ok(Response::new(PbAlarmResponse { header: self.header_now(), alarms: Vec::new() }))
    }

    /// `redb` keeps its file in order by itself.
    async fn defragment(&self, _: Request<PbDefragmentRequest>) -> Result<Response<PbDefragmentResponse>, Status> {
        Ok(Response::new(PbDefragmentResponse { header: self.header_now() }))
    }

    async fn hash(&self, _: Request<PbHashRequest>) -> Result<Response<PbHashResponse>, Status> {
        Err(absent("hash"))
    }

    async fn hash_kv(&self, _: Request<PbHashKvRequest>) -> Result<Response<PbHashKvResponse>, Status> {
        Err(absent("hash"))
    }

    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<PbSnapshotResponse, Status>> + Send>>;

    async fn snapshot(&self, _: Request<PbSnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(absent("snapshots"))
    }

    async fn move_leader(&self, _: Request<PbMoveLeaderRequest>) -> Result<Response<PbMoveLeaderResponse>, Status> {
        Err(absent("other members"))
    }

    async fn downgrade(&self, _: Request<PbDowngradeRequest>) -> Result<Response<PbDowngradeResponse>, Status> {
        Err(absent("downgrades"))
    }
}

const MEMBER_NAME: &str = "embedded";
/// The etcd whose answers ours are compared with in the tests; clients choose what they use by it.
const ETCD_VERSION: &str = "3.4.23";
const ALARM_ACTIVATE: i32 = 1;
