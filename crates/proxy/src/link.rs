//! The link to the control plane: receive snapshots, renew the lease and confirm, send events. Each on its own, so that a
//! slow one does not hold up the others; the proxy serves whether or not any of them works.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rows::{Row, codec};
use tokio::sync::{Notify, mpsc};

use crate::lease::Plane;
use crate::record::next_batch;
use crate::snapshot::{Renewal, RenewalAnswer, Snapshot};

/// Six renewals fit into one lease.
const RENEW: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(2);
/// The control plane answers a waiting snapshot call within 10 s.
const LONG_POLL: Duration = Duration::from_secs(15);
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// A batch is tried this often before its rows are given up.
const SEND_TRIES: u32 = 50;

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) control: String,
    pub(crate) token: String,
    pub(crate) name: String,
    pub(crate) instance: String,
    pub(crate) plane: Arc<Plane>,
    /// Told when a snapshot was taken: confirm at once.
    pub(crate) taken: Notify,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Link {
    pub(crate) fn new(control: String, token: String, name: String, instance: String, plane: Arc<Plane>) -> Link {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Link { control, token, name, instance, plane, taken: Notify::new(), client }
    }

    async fn call(&self, method: Method, path: &str, body: Vec<u8>, patience: Duration) -> Result<Bytes, String> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.control.trim_end_matches('/')))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/octet-stream")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| e.to_string())?;
        let whole = async {
            let response = self.client.request(request).await.map_err(|e| e.to_string())?;
            let status = response.status();
            let body =
                Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|e| e.to_string())?;
            if status == StatusCode::OK || status == StatusCode::NO_CONTENT {
                Ok(body.to_bytes())
            } else {
                Err(format!("the control plane answered {status}"))
            }
        };
        tokio::time::timeout(patience, whole).await.unwrap_or_else(|_| Err("the control plane did not answer".into()))
    }

    /// Receives snapshots for ever.
    pub(crate) async fn follow(&self) {
        let mut told = false;
        loop {
            let version = self.plane.ready().version;
            let path = format!("/api/v1/proxy/snapshot?after={version}");
            let answer = self.call(Method::GET, &path, Vec::new(), LONG_POLL).await;
            match answer.and_then(|b| serde_json::from_slice::<Snapshot>(&b).map_err(|e| e.to_string())) {
                Ok(snapshot) => {
                    told = false;
                    if snapshot.version != version {
                        self.plane.take(snapshot);
                        self.taken.notify_one();
                    }
                }
                Err(reason) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%reason, control = %self.control, "no snapshot; routing goes on, faults end with the lease");
                    }
                    tokio::time::sleep(RENEW).await;
                }
            }
        }
    }

    /// Renews the lease and confirms the snapshot in force, for ever.
    pub(crate) async fn renew(&self) {
        loop {
            let version = self.plane.ready().version;
            let renewal = Renewal { name: self.name.clone(), instance: self.instance.clone(), version };
            let body = serde_json::to_vec(&renewal).unwrap_or_default();
            let sent = Instant::now();
            let answer = self.call(Method::POST, "/api/v1/proxy/renew", body, PATIENCE).await;
            if let Some(_known) = answer.ok().and_then(|b| serde_json::from_slice::<RenewalAnswer>(&b).ok()) {
                self.plane.renewed(sent);
            }
            // A new snapshot is confirmed at once.
            let _ = tokio::time::timeout(RENEW, self.taken.notified()).await;
        }
    }

    /// Sends events for ever.
    pub(crate) async fn report(&self, mut receiver: mpsc::Receiver<Row>) {
        while let Some(batch) = next_batch(&mut receiver).await {
            let body = codec::encode(&batch);
            for attempt in 1..=SEND_TRIES {
                match self.call(Method::POST, "/api/v1/proxy/events", body.clone(), PATIENCE).await {
                    Ok(_) => break,
                    Err(reason) if attempt == SEND_TRIES => {
                        tracing::warn!(%reason, rows = batch.len(), "events given up");
                    }
                    Err(_) => tokio::time::sleep(RENEW).await,
                }
            }
        }
    }
}
