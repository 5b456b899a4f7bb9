//! `flagd.sync.v1`: whole documents for clients that evaluate in process.

use std::pin::Pin;

use flags::Context;
use futures_util::{Stream, StreamExt};
use http::HeaderMap;
use tonic::{Request, Response, Status};

use crate::face::{Face, now};
use crate::hub::Selector;
use crate::sync_v1::flag_sync_service_server::FlagSyncService;
use crate::sync_v1::{
    FetchAllFlagsRequest, FetchAllFlagsResponse, GetMetadataRequest, GetMetadataResponse, SyncFlagsRequest,
    SyncFlagsResponse,
};
use crate::value::to_struct;

fn parts<T>(request: Request<T>) -> (HeaderMap, T) {
    let (metadata, _, message) = request.into_parts();
    (metadata.into_headers(), message)
}

#[tonic::async_trait]
impl FlagSyncService for Face {
    type SyncFlagsStream = Pin<Box<dyn Stream<Item = Result<SyncFlagsResponse, Status>> + Send>>;

    async fn sync_flags(&self, request: Request<SyncFlagsRequest>) -> Result<Response<Self::SyncFlagsStream>, Status> {
        let (headers, asked) = parts(request);
        let selector = self.selector(&headers, &asked.selector)?;
        let context = to_struct(self.hub.context());
        let hub = self.hub.clone();
        let documents = self.documents(selector).map(move |document| {
            // Who evaluates in process asks for everything, and tells us nothing of his users.
            hub.view(&Selector::Everything).snapshot.note_all(&Context::default(), now());
            Ok(SyncFlagsResponse { flag_configuration: document?.to_string(), sync_context: Some(context.clone()) })
        });
        Ok(Response::new(Box::pin(documents)))
    }

    async fn fetch_all_flags(
        &self,
        request: Request<FetchAllFlagsRequest>,
    ) -> Result<Response<FetchAllFlagsResponse>, Status> {
        let (headers, asked) = parts(request);
        let view = self.hub.view(&self.selector(&headers, &asked.selector)?);
        view.snapshot.note_all(&Context::default(), now());
        Ok(Response::new(FetchAllFlagsResponse { flag_configuration: view.document.to_string() }))
    }

    async fn get_metadata(&self, _: Request<GetMetadataRequest>) -> Result<Response<GetMetadataResponse>, Status> {
        if !self.sync_metadata {
            return Err(Status::unimplemented("metadata is disabled; SyncFlags carries it as sync_context"));
        }
        Ok(Response::new(GetMetadataResponse { metadata: Some(to_struct(self.hub.context())) }))
    }
}
