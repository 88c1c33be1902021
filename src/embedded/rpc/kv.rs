//! `KV`: Range, Put, DeleteRange, Txn, Compact.

use std::pin::Pin;

use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbKvService, PbPutRequest, PbPutResponse,
    PbRangeRequest, PbRangeResponse, PbRangeStreamResponse, PbTxnRequest, PbTxnResponse,
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, async_trait};

use super::{Doorway, absent, answer, parse};
use crate::embedded::fault::Fault;

#[async_trait]
impl PbKvService for Doorway {
    async fn range(&self, request: Request<PbRangeRequest>) -> Result<Response<PbRangeResponse>, Status> {
        let range = parse::range(request.into_inner())?;
        let found = self.shared.lock().range(&range)?;
        Ok(Response::new(answer::range(self.header(found.revision), found)))
    }

    type RangeStreamStream = Pin<Box<dyn Stream<Item = Result<PbRangeStreamResponse, Status>> + Send>>;

    async fn range_stream(&self, _request: Request<PbRangeRequest>) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(absent("RangeStream"))
    }

    async fn put(&self, request: Request<PbPutRequest>) -> Result<Response<PbPutResponse>, Status> {
        let put = parse::put(request.into_inner())?;
        check_size(put.size())?;
        let (done, _) = self.shared.write(|state| state.put(&put)).await?;
        Ok(Response::new(answer::put(self.header(done.revision), done)))
    }

    async fn delete_range(&self, request: Request<PbDeleteRequest>) -> Result<Response<PbDeleteResponse>, Status> {
        let delete = parse::delete(request.into_inner())?;
        check_size(delete.keys.size())?;
        let (done, _) = self.shared.write(|state| Ok(state.delete(&delete))).await?;
        Ok(Response::new(answer::delete(self.header(done.revision), done)))
    }

    async fn txn(&self, request: Request<PbTxnRequest>) -> Result<Response<PbTxnResponse>, Status> {
        let txn = parse::txn(request.into_inner())?;
        if !txn.is_read_only() {
            check_size(txn.size())?;
        }
        let (done, _) = self.shared.write(|state| state.txn(&txn)).await?;
        Ok(Response::new(answer::txn(self.header(done.revision), done)))
    }

    async fn compact(&self, request: Request<PbCompactionRequest>) -> Result<Response<PbCompactionResponse>, Status> {
        let revision = request.into_inner().revision;
        let header = {
            let mut state = self.shared.lock();
            state.compact(revision)?;
            self.header(state.revision())
        };
        Ok(Response::new(PbCompactionResponse { header }))
    }
}

fn check_size(bytes: usize) -> Result<(), Fault> {
    if bytes > REQUEST_BYTES_MAX { Err(Fault::RequestTooLarge) } else { Ok(()) }
}

/// etcd's default; we count keys and values, it counts a few bytes of framing too.
const REQUEST_BYTES_MAX: usize = 1536 << 10;
