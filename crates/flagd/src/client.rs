//! A client of `flagd.sync.v1`, for flags that another daemon serves.

use tonic::transport::Endpoint;

use crate::sync_v1::SyncFlagsRequest;
use crate::sync_v1::flag_sync_service_client::FlagSyncServiceClient;

/// The largest document.
const DOCUMENT_BYTES_MAX: usize = flags::DOCUMENT_BYTES_MAX;

/// Hands each document of the stream to `each`, until the stream ends.
pub async fn follow(address: &str, selector: &str, mut each: impl FnMut(&str)) -> Result<(), tonic::Status> {
    let address = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let unreachable = |e: tonic::transport::Error| tonic::Status::unavailable(e.to_string());
    let channel = Endpoint::from_shared(address).map_err(unreachable)?.connect().await.map_err(unreachable)?;
    let mut client = FlagSyncServiceClient::new(channel).max_decoding_message_size(DOCUMENT_BYTES_MAX);
    let asked = SyncFlagsRequest { provider_id: "seaworthy".to_owned(), selector: selector.to_owned() };
    let mut stream = client.sync_flags(asked).await?.into_inner();
    while let Some(answer) = stream.message().await? {
        each(&answer.flag_configuration);
    }
    Ok(())
}
