//! Which bucket, and where in it.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use url::Url;

/// A request that takes longer than this has failed; a segment has at most some 150 MB.
const REQUEST: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(3);
/// Requests that failed are tried again for so long; whoever looks each second comes again by himself.
const RETRY: Duration = Duration::from_secs(5);

/// A bucket and a prefix in it.
#[derive(Clone, Debug)]
pub struct Place {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) prefix: Path,
    /// The address, without credentials.
    pub(crate) name: String,
}

/// Why an address is not one of a bucket.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Not a URL.
    #[error(
        "{text:?} is not the address of a bucket: {reason}; write s3://bucket/prefix, gs://, az:// or file:///directory"
    )]
    Address {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Credentials or options of the provider.
    #[error("the bucket {name} cannot be used")]
    Provider {
        /// The address.
        name: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
}

impl Place {
    /// Reads `s3://bucket/prefix`, `gs://…`, `az://container/…` or `file:///directory`. Credentials, region and endpoint come from
    /// the environment, under the names that the providers' own tools use (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, …).
    pub fn open(text: &str) -> Result<Place, PlaceError> {
        let wrong = |reason: String| PlaceError::Address { text: text.to_owned(), reason };
        let url = Url::parse(text).map_err(|e| wrong(e.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            // The text itself may not be repeated, as it holds a secret.
            let text = format!("{}://…", url.scheme());
            return Err(PlaceError::Address { text, reason: "credentials belong into the environment".into() });
        }
        let provider = |source| PlaceError::Provider { name: text.to_owned(), source };
        // Over plain HTTP only where the address of an endpoint says so.
        let plain = |name: &str| std::env::var(name).is_ok_and(|endpoint| endpoint.starts_with("http://"));
        let client = |plain: bool| {
            ClientOptions::new().with_timeout(REQUEST).with_connect_timeout(CONNECT).with_allow_http(plain)
        };
        let retry = RetryConfig { max_retries: 3, retry_timeout: RETRY, backoff: BackoffConfig::default() };
        let prefix = Path::from_url_path(url.path()).map_err(|e| wrong(e.to_string()))?;
        let store: Arc<dyn ObjectStore> = match url.scheme() {
            "s3" | "s3a" => {
                let is_plain =
                    ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"].iter().any(|name| plain(name));
                let builder = AmazonS3Builder::from_env().with_url(text).with_retry(retry);
                Arc::new(builder.with_client_options(client(is_plain)).build().map_err(provider)?)
            }
            "gs" => {
                let builder = GoogleCloudStorageBuilder::from_env().with_url(text).with_retry(retry);
                Arc::new(builder.with_client_options(client(false)).build().map_err(provider)?)
            }
            "az" | "azure" | "abfs" | "abfss" => {
                let builder = MicrosoftAzureBuilder::from_env().with_url(text).with_retry(retry);
                Arc::new(builder.with_client_options(client(false)).build().map_err(provider)?)
            }
            "file" => {
                let dir = url.to_file_path().map_err(|()| wrong("not an absolute path".into()))?;
                std::fs::create_dir_all(&dir).map_err(|e| wrong(e.to_string()))?;
                let store = LocalFileSystem::new_with_prefix(&dir).map_err(provider)?;
                return Ok(Place { store: Arc::new(store), prefix: Path::default(), name: text.to_owned() });
            }
            other => return Err(wrong(format!("{other}:// is not known"))),
        };
        Ok(Place { store, prefix, name: text.to_owned() })
    }
}
