//! Listening, and going down without losing a request.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;

use crate::config::Config;
use crate::forward::Forwarder;
use crate::lease::Plane;
use crate::link::Link;
use crate::record::Recorder;

/// Requests under way get this long when the proxy goes down.
const DRAIN: Duration = Duration::from_secs(10);
/// Time for the head of a request.
const HEAD: Duration = Duration::from_secs(30);

/// Why a proxy cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// Serves until `stop` is ready, then drains. `started` is told the address.
pub async fn serve(
    config: Config,
    token: Option<String>,
    started: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let address = config.listen;
    let listen = |source| ServeError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    started(listener.local_addr().map_err(listen)?);
    let plane = Arc::new(Plane::new());
    let (recorder, receiver) = Recorder::new();
    match (&config.control, token) {
        (Some(control), Some(token)) => {
            // In containers every process is number 1: replicas of one name must not confirm for each other.
            let instance =
                format!("{}-{:016x}", config.name, getrandom::u64().unwrap_or(u64::from(std::process::id())));
            let link = Arc::new(Link::new(control.clone(), token, config.name.to_string(), instance, plane.clone()));
            let (follow, renew, report) = (link.clone(), link.clone(), link);
            tokio::spawn(async move { follow.follow().await });
            tokio::spawn(async move { renew.renew().await });
            tokio::spawn(async move { report.report(receiver).await });
        }
        (Some(_), None) => tracing::warn!("no token: running as a plain proxy; set SEAWORTHY_TOKEN or token_file"),
        (None, _) => tracing::info!("no control plane configured: running as a plain proxy"),
    }
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(256).build_http();
    let forwarder = Arc::new(Forwarder { config, plane, recorder, client });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(64 << 10);
    builder.http2().timer(TokioTimer::new()).max_header_list_size(64 << 10);
    let graceful = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors: the connections under way will free some.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let forwarder = forwarder.clone();
        let service = service_fn(move |request| {
            let forwarder = forwarder.clone();
            async move { Ok::<_, Infallible>(forwarder.handle(request).await) }
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
    Ok(())
}
