//! The listener: plain or TLS, bounded, and stopped without cutting off an answer.
//!
//! Our own instead of `axum::serve`, because that neither bounds connections nor ends slow ones, and TLS files are
//! reloaded when they change.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::Request;
use axum::http::request::Parts;
use fw_rt::Tasks;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;
use tracing::{debug, info, warn};

use crate::metrics::{CONNECTIONS, Counted};
use crate::problem::{Chain, Failure};

/// A client that has not sent the head of a request by then is cut off; also how long an idle connection is kept.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// A TLS handshake takes two round trips; whoever needs longer than this is no client.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// At the end, answers under way have this long.
const GRACE: Duration = Duration::from_secs(5);

/// How often the TLS files are looked at.
const RELOAD_EVERY: Duration = Duration::from_secs(3);

/// After an error of `accept` (too many open files, mostly), so long until the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Open files beside the connections: databases, job files, backups, hooks.
const OTHER_FILES: usize = 256;

/// The largest request head; our clients send less than a tenth of it.
const MAX_HEAD: usize = 16 * 1024;

/// Certificate chain and private key, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address.
    #[error("listen on {address}; is another server running? choose another address with --listen")]
    Bind {
        /// Which address.
        address: SocketAddr,
        /// What happened.
        source: std::io::Error,
    },
    /// A TLS file.
    #[error("tls file {path}")]
    Pem {
        /// Which.
        path: String,
        /// What happened.
        source: rustls::pki_types::pem::Error,
    },
    /// A certificate file without certificate.
    #[error("{0} holds no certificate")]
    NoCertificate(String),
    /// Certificate and key do not fit, or cannot be used.
    #[error("tls certificate and key")]
    Tls(#[from] rustls::Error),
}

/// The other end of a connection; a request extension.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address; a proxy's, when one is between.
    pub address: SocketAddr,
    /// Whether the connection is encrypted up to this process.
    pub tls: bool,
    /// The place of the connection among those that the server admits. Whoever takes the connection over (a
    /// WebSocket) keeps this, so that it stays counted.
    _place: Option<Arc<Place>>,
}

#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
    _counted: Counted,
}

impl Peer {
    /// A peer that takes no place.
    #[must_use]
    pub const fn new(address: SocketAddr, tls: bool) -> Self {
        Self { address, tls, _place: None }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Peer {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let missing = || Failure::invalid("the request came over no connection");
        parts.extensions.get::<Self>().cloned().ok_or_else(missing)
    }
}

/// A listener that is bound but does not accept yet.
#[derive(Debug)]
pub(crate) struct Bound {
    listener: TcpListener,
    tls: Option<Reloaded>,
    places: Arc<Semaphore>,
    watchful: bool,
}

#[derive(Debug)]
struct Reloaded {
    files: TlsFiles,
    seen: Seen,
    config: watch::Sender<Arc<ServerConfig>>,
}

/// Asks for as many open files as the system grants, and admits no more connections than these can be: beyond it
/// accepting fails, and with it whatever else opens a file.
pub(crate) fn within_open_files(wanted: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit = raised,
            Err(error) => debug!(error = %error, "limit of open files not raised"),
        }
    }
    let admitted = admitted(wanted, limit.current);
    if admitted < wanted {
        warn!(
            "only {admitted} connections are admitted instead of {wanted}, for the system allows this process too few \
             open files; raise `LimitNOFILE` of its unit (`ulimit -n`)"
        );
    }
    admitted
}

/// How many connections fit into so many open files; no number is no limit.
fn admitted(wanted: usize, files: Option<u64>) -> usize {
    let Some(files) = files else { return wanted };
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    wanted.min(files.saturating_sub(OTHER_FILES).max(1))
}

/// Binds the address and reads the TLS files.
///
/// # Errors
/// Either cannot be had.
pub(crate) async fn bind(
    address: SocketAddr,
    tls: Option<TlsFiles>,
    most: usize,
) -> Result<Bound, Error> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| Error::Bind { address, source })?;
    let tls = match tls {
        None => None,
        Some(files) => {
            let seen = Seen::look(&files).await;
            let config = watch::Sender::new(load(&files)?);
            Some(Reloaded { files, seen, config })
        }
    };
    let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
    Ok(Bound { listener, tls, places, watchful: false })
}

impl Bound {
    /// The address, with the port that the system chose.
    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Lets the kernel notice machines that are gone: for clients that may be silent for long.
    pub(crate) fn watchful(self) -> Self {
        Self { watchful: true, ..self }
    }

    /// Serves the routes until the tasks end.
    pub(crate) fn serve(self, routes: Router, tasks: &Tasks) {
        let config = self.tls.as_ref().map(|tls| tls.config.subscribe());
        if let Some(tls) = self.tls {
            tasks.spawn("tls.reload", reload(tls));
        }
        let accepting = Accepting {
            listener: self.listener,
            config,
            places: self.places,
            watchful: self.watchful,
            routes,
            tasks: tasks.clone(),
        };
        tasks.spawn("http.accept", accepting.run());
    }
}

struct Accepting {
    listener: TcpListener,
    config: Option<watch::Receiver<Arc<ServerConfig>>>,
    places: Arc<Semaphore>,
    watchful: bool,
    routes: Router,
    tasks: Tasks,
}

impl Accepting {
    async fn run(self) {
        loop {
            // When all places are taken, new connections wait in the kernel's queue (`listen(2)`).
            let Ok(permit) = Arc::clone(&self.places).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, address)) => self.connected(stream, address, permit),
                Err(error) => {
                    warn!(error = %error, "connection not accepted; are there too many open files?");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn connected(&self, stream: TcpStream, address: SocketAddr, permit: OwnedSemaphorePermit) {
        // Frames and events are small and wanted at once (`tcp(7)`); without it they only come later.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(error = %error, "connection keeps Nagle's delay");
        }
        if self.watchful
            && let Err(error) = keep_alive(&stream)
        {
            debug!(error = %error, "connection is not watched");
        }
        let place = Arc::new(Place { _permit: permit, _counted: Counted::new(CONNECTIONS) });
        let config = self.config.as_ref().map(|config| Arc::clone(&config.borrow()));
        let peer = Peer { address, tls: config.is_some(), _place: Some(place) };
        let (routes, token) = (self.routes.clone(), self.tasks.token());
        self.tasks.spawn_graceful("http.connection", async move {
            let Some(config) = config else { return exchange(stream, peer, routes, token).await };
            let handshake = TlsAcceptor::from(config).accept(stream);
            match tokio::time::timeout(HANDSHAKE_WITHIN, handshake).await {
                Ok(Ok(stream)) => exchange(stream, peer, routes, token).await,
                Ok(Err(error)) => debug!(error = %error, "tls handshake ended"),
                Err(_) => debug!("tls handshake took too long"),
            }
        });
    }
}

/// A peer that does not answer for 30 seconds is gone (`tcp(7)`).
fn keep_alive(stream: &TcpStream) -> rustix::io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(15))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(5))?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, 30_000)?;
    Ok(())
}

async fn exchange<I>(io: I, peer: Peer, routes: Router, token: tokio_util::sync::CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = routes.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        request.map(axum::body::Body::new)
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(MAX_HEAD);
    let connection =
        http.serve_connection(TokioIo::new(io), TowerToHyperService::new(service)).with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = token.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(GRACE, connection).await {
                Ok(ended) => ended,
                Err(_) => return debug!("connection cut off at shutdown"),
            }
        }
    };
    if let Err(error) = ended {
        debug!(error = %Chain(&error), "connection ended early");
    }
}

/// What a change of the TLS files is recognised by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen([Option<(SystemTime, u64)>; 2]);

impl Seen {
    async fn look(files: &TlsFiles) -> Self {
        let mut seen = [None; 2];
        for (seen, path) in seen.iter_mut().zip([&files.cert, &files.key]) {
            // The metadata of what the path leads to: certificates are often renewed by moving a link.
            let metadata = tokio::fs::metadata(path).await.ok();
            *seen = metadata.and_then(|m| m.modified().ok().map(|modified| (modified, m.len())));
        }
        Self(seen)
    }
}

/// Takes up new TLS files; the old ones stay in force as long as the new ones are no good.
async fn reload(mut tls: Reloaded) {
    loop {
        tokio::time::sleep(RELOAD_EVERY).await;
        let seen = Seen::look(&tls.files).await;
        if seen == tls.seen {
            continue;
        }
        tls.seen = seen;
        match load(&tls.files) {
            Ok(config) => {
                tls.config.send_replace(config);
                info!(tls.cert = %tls.files.cert.display(), "tls certificate reloaded");
            }
            // Between the writes of the two files they do not fit; the next look then finds another change.
            Err(error) => warn!(
                tls.cert = %tls.files.cert.display(), error = %Chain(&error),
                "tls certificate not reloaded; the one before stays in force"
            ),
        }
    }
}

fn load(files: &TlsFiles) -> Result<Arc<ServerConfig>, Error> {
    let pem = |path: &PathBuf| {
        let path = path.display().to_string();
        move |source| Error::Pem { path, source }
    };
    let chain = CertificateDer::pem_file_iter(&files.cert).map_err(pem(&files.cert))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(pem(&files.cert))?;
    if chain.is_empty() {
        return Err(Error::NoCertificate(files.cert.display().to_string()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(pem(&files.key))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = config.with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_other_files() {
        assert_eq!(admitted(20_000, None), 20_000);
        assert_eq!(admitted(20_000, Some(65_536)), 20_000);
        assert_eq!(admitted(20_000, Some(4096)), 3840);
        assert_eq!(admitted(20_000, Some(100)), 1);
    }

    #[test]
    fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
        let admitted_now = within_open_files(usize::MAX);
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(admitted_now, admitted(usize::MAX, limit.maximum));
    }
}
