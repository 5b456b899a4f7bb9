//! Listening: TCP, TLS over TCP, or a unix socket; HTTP/1.1 and HTTP/2 on each.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

/// A handshake takes no longer.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections that wait to be taken.
const BACKLOG: usize = 128;

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
pub async fn serve(listener: TcpListener, tls: Option<Tls>, router: Router) -> io::Result<()> {
    match tls {
        None => axum::serve(NoDelay(listener), router.into_make_service_with_connect_info::<Peer>()).await,
        Some(tls) => {
            let listener = Handshaking::start(listener, tls)?;
            axum::serve(listener, router.into_make_service_with_connect_info::<Peer>()).await
        }
    }
}

/// Serves on a unix socket; a socket file that an earlier process left is replaced.
pub async fn serve_unix(path: &Path, router: Router) -> Result<(), ListenError> {
    let wrong = |source| ListenError::Listen { place: path.display().to_string(), source };
    if std::os::unix::net::UnixStream::connect(path).is_err() {
        let _ = std::fs::remove_file(path);
    }
    let listener = UnixListener::bind(path).map_err(wrong)?;
    axum::serve(listener, router).await.map_err(wrong)
}

/// Where a request comes from; requests on unix sockets have none.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

impl Connected<IncomingStream<'_, NoDelay>> for Peer {
    fn connect_info(stream: IncomingStream<'_, NoDelay>) -> Peer {
        Peer(*stream.remote_addr())
    }
}

impl Connected<IncomingStream<'_, Handshaking>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Handshaking>) -> Peer {
        Peer(*stream.remote_addr())
    }
}

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

struct NoDelay(TcpListener);

impl axum::serve::Listener for NoDelay {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        accept(&self.0).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Handshakes run beside each other, so that a slow client holds up nobody.
struct Handshaking {
    done: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl Handshaking {
    fn start(listener: TcpListener, tls: Tls) -> io::Result<Handshaking> {
        let address = listener.local_addr()?;
        let (sender, done) = mpsc::channel(BACKLOG);
        tokio::spawn(async move {
            while !sender.is_closed() {
                let (stream, from) = accept(&listener).await;
                let (tls, sender) = (tls.clone(), sender.clone());
                tokio::spawn(async move {
                    match tokio::time::timeout(HANDSHAKE, tls.0.accept(stream)).await {
                        Ok(Ok(stream)) => {
                            let _ = sender.send((stream, from)).await;
                        }
                        Ok(Err(error)) => tracing::debug!(%error, "no TLS handshake"),
                        Err(_) => tracing::debug!("a TLS handshake took too long"),
                    }
                });
            }
        });
        Ok(Handshaking { done, address })
    }
}

impl axum::serve::Listener for Handshaking {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TlsStream<TcpStream>, SocketAddr) {
        match self.done.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
