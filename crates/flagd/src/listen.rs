//! Listening: TCP, TLS over TCP, or a unix socket; HTTP/1.1 and HTTP/2 on each.
//!
//! What a connection holds while nothing happens counts: of those who watch for changes there are thousands. So the table of routes
//! is shared, and over TCP the version is read off the first bytes without taking them, for then HTTP/1.1 is read into one buffer
//! of 8 KiB. Another buffer of 8 KiB is for writing.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tower::Service;

/// A handshake takes no longer.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why there is no listening.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is taken or not ours.
    #[error("cannot listen on {place}")]
    Listen {
        /// Address or path.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("{path}: {detail}")]
    Tls {
        /// Which file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
}

/// Certificate chain and key, read once.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads PEM files.
    pub fn load(certificate: &Path, key: &Path) -> Result<Tls, ListenError> {
        let wrong = |path: &Path, detail: String| ListenError::Tls { path: path.to_owned(), detail };
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| wrong(certificate, e.to_string()))?;
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| wrong(key, e.to_string()))?;
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, secret)
            .map_err(|e| wrong(certificate, e.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Tls(TlsAcceptor::from(Arc::new(config))))
    }
}

/// Binds an address.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError::Listen { place: address.to_string(), source })
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, tls: Option<Tls>, router: Router) {
    serve_until(listener, tls, router, std::future::pending()).await;
}

/// Serves until `stop` is ready, and then until what is under way is answered.
pub async fn serve_until(listener: TcpListener, tls: Option<Tls>, router: Router, stop: impl Future<Output = ()>) {
    // Once here, not at every connection: it copies the table of routes.
    let router = router.with_state(());
    let (stopping, stopped) = watch::channel(false);
    tokio::pin!(stop);
    loop {
        let (stream, from) = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = &mut stop => break,
        };
        let (router, stopped) = (router.clone(), stopped.clone());
        match tls.clone() {
            None => drop(tokio::spawn(plain(stream, from, router, stopped))),
            Some(tls) => drop(tokio::spawn(encrypted(stream, tls, from, router, stopped))),
        }
    }
    drop((listener, stopped));
    stopping.send_replace(true);
    stopping.closed().await;
}

/// Serves on a unix socket; a socket file that an earlier process left is replaced.
pub async fn serve_unix(path: &Path, router: Router) -> Result<(), ListenError> {
    let wrong = |source| ListenError::Listen { place: path.display().to_string(), source };
    if std::os::unix::net::UnixStream::connect(path).is_err() {
        let _ = std::fs::remove_file(path);
    }
    let listener = UnixListener::bind(path).map_err(wrong)?;
    axum::serve(listener, router.into_make_service()).await.map_err(wrong)
}

/// Where a request comes from; requests on unix sockets have none.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let _ = stream.set_nodelay(true);
                return (stream, from);
            }
            Err(error) => {
                // Out of file descriptors: the connections under way will free some.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// How a connection speaks.
#[derive(Clone, Copy, Debug)]
enum Version {
    First,
    Second,
    /// It is to be found out while reading, which costs a connection over HTTP/1.1 twice the buffer.
    Unknown,
}

/// Until the first bytes are there, a connection holds nothing but its socket.
async fn plain(stream: TcpStream, from: SocketAddr, router: Router, mut stopped: watch::Receiver<bool>) {
    let mut first = [0; 4];
    let seen = tokio::select! {
        seen = stream.peek(&mut first) => seen,
        _ = stopped.changed() => return,
    };
    let version = match seen {
        Ok(4) if first == *b"PRI " => Version::Second,
        Ok(4) => Version::First,
        _ => Version::Unknown,
    };
    answer(stream, version, from, router, stopped).await;
}

/// Handshakes run beside each other, so that a slow client holds up nobody.
async fn encrypted(stream: TcpStream, tls: Tls, from: SocketAddr, router: Router, stopped: watch::Receiver<bool>) {
    match tokio::time::timeout(HANDSHAKE, tls.0.accept(stream)).await {
        Ok(Ok(stream)) => {
            let is_second = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let version = if is_second { Version::Second } else { Version::Unknown };
            answer(stream, version, from, router, stopped).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "no TLS handshake"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn answer<Io: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: Io,
    version: Version,
    from: SocketAddr,
    router: Router,
    mut stopped: watch::Receiver<bool>,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(Peer(from)));
        router.clone().call(request.map(Body::new))
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let builder = match version {
        Version::First => builder.http1_only(),
        Version::Second => builder.http2_only(),
        Version::Unknown => builder,
    };
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}
