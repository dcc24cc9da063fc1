//! Dials the server: TCP (through a proxy when there is one), TLS for `https`, WebSocket, Noise.
//!
//! TLS here only lets the link pass where nothing else does; who the server is, is known by its
//! pinned key inside. So a certificate that is not trusted is no reason to trust less or more:
//! it is checked as usual, because a proxy that fakes it should be noticed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, Stream, StreamExt as _};
use fw_core::link::{VERSIONS_HEADER, Versions};
use fw_proto::PublicKey;
use fw_proto::api::Problem;
use fw_proto::frame::{MAX_FRAME, MAX_TEXT};
use fw_rt::Backoff;
use fw_rt::noise::{self, Initiator, Keypair, MAX_MESSAGE, Session};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, ClientRequestBuilder, Message};

use crate::patient::Patient;

/// Where on the server agents link.
const PATH: &str = "/agent/v1/link";

/// The WebSocket library zeroes so many bytes for each read. Most frames are smaller; larger ones take more reads.
const READ_BUFFER: usize = 4 * 1024;

/// From the first packet to the end of the handshake.
const DEADLINE: Duration = Duration::from_secs(20);

/// A goodbye that takes longer is left unsaid.
const GOODBYE: Duration = Duration::from_secs(1);

/// Longest pause between tries to link: all of a fleet is back half a minute after its server.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The pauses between tries to link; to begin anew after a link that lasted longer than the longest.
#[must_use]
pub const fn pauses() -> Backoff {
    Backoff::new(Duration::from_millis(250), LONGEST_PAUSE)
}

/// A socket, whatever is in between.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// A WebSocket to the server, with a Noise session to put inside.
#[expect(missing_debug_implementations, reason = "a socket has nothing to show")]
pub struct Connection {
    socket: WebSocketStream<Patient<Box<dyn Wire>>>,
    session: Session,
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none.
    #[error("server address {0:?}: use http://HOST[:PORT] or https://HOST[:PORT]")]
    Address(String),
    /// Nobody answers there.
    #[error("connect to {to}")]
    Connect {
        /// Where.
        to: String,
        /// What the system said.
        source: io::Error,
    },
    /// The proxy refuses.
    #[error("proxy {proxy} refuses: {answer:?}")]
    Proxy {
        /// Which proxy.
        proxy: String,
        /// Its first line.
        answer: String,
    },
    /// TLS does not come about.
    #[error("TLS with {to}")]
    Tls {
        /// With whom.
        to: String,
        /// What went wrong.
        source: io::Error,
    },
    /// No WebSocket there, or it broke.
    #[error("WebSocket")]
    Socket(#[source] Box<tungstenite::Error>),
    /// The other end does not hold the pinned key, or the bytes were changed on the way.
    #[error("handshake: is this the server that the host joined?")]
    Noise(#[from] noise::Error),
    /// The server could not read what was meant for the holder of the pinned key.
    #[error(
        "handshake: the server does not hold the key that this host has pinned. If it was set up anew, remove this \
         host's state directory and enrol it with `fleetwright agent join`; else something on the way is not what it \
         seems"
    )]
    OtherKey,
    /// The server answers, but not with a link.
    #[error("the server gives no link: {0}")]
    Refused(String),
    /// The server closed the socket.
    #[error("closed by the server")]
    Closed,
    /// It took too long.
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Deadline,
}

impl From<tungstenite::Error> for Error {
    fn from(error: tungstenite::Error) -> Self {
        if let tungstenite::Error::Http(answer) = &error
            && let Some(said) = answer.body().as_deref().and_then(said)
        {
            return Self::Refused(said);
        }
        Self::Socket(Box::new(error))
    }
}

/// What a problem (RFC 9457) in an answer says, on one line. Nobody has vouched for it.
fn said(body: &[u8]) -> Option<String> {
    let problem: Problem = serde_json::from_slice(body).ok()?;
    let mut said = problem.detail.unwrap_or(problem.title).replace(char::is_control, " ");
    said.truncate(said.floor_char_boundary(MAX_TEXT));
    Some(said)
}

/// Which way to the server.
#[derive(Debug, Clone, Copy, Default)]
pub struct Route<'a> {
    /// Through this proxy: `http://HOST:PORT`.
    pub proxy: Option<&'a str>,
    /// From this address of this machine; from whichever the system chooses when `None`.
    pub source: Option<IpAddr>,
}

/// Opens a link to a server that holds one of its keys.
///
/// # Errors
/// See [`Error`].
pub async fn connect(
    server: &str,
    server_key: &PublicKey,
    own: &Keypair,
    route: &Route<'_>,
) -> Result<Connection, Error> {
    tokio::time::timeout(DEADLINE, dial(server, server_key, own, route))
        .await
        .map_err(|_| Error::Deadline)?
}

/// A socket to the host of a URL (`http`, `ws`, or `https` and `wss` with TLS), for whoever speaks something else
/// than a link.
///
/// # Errors
/// See [`Error`].
pub async fn socket(url: &str) -> Result<Box<dyn Wire>, Error> {
    let reach = async { Target::parse(url)?.wire(&Route::default()).await };
    tokio::time::timeout(DEADLINE, reach).await.map_err(|_| Error::Deadline)?
}

async fn dial(
    server: &str,
    server_key: &PublicKey,
    own: &Keypair,
    route: &Route<'_>,
) -> Result<Connection, Error> {
    let target = Target::parse(server)?;
    let wire = target.wire(route).await?;
    let mut config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    config.read_buffer_size = READ_BUFFER;
    config.write_buffer_size = 0;
    let versions = Versions::OURS;
    let request = ClientRequestBuilder::new(target.link_uri()?)
        .with_header(VERSIONS_HEADER, versions.to_string());
    let (mut socket, _) =
        tokio_tungstenite::client_async_with_config(request, Patient::new(wire), Some(config))
            .await?;
    let (initiator, first) = Initiator::start(own, server_key, &versions.prologue())?;
    socket.send(Message::Binary(first.into())).await?;
    let answer = binary(&mut socket).await?;
    let session = initiator.finish(&answer)?;
    Ok(Connection { socket, session })
}

async fn binary(
    socket: &mut (impl Stream<Item = Result<Message, tungstenite::Error>> + Unpin),
) -> Result<tungstenite::Bytes, Error> {
    loop {
        match socket.next().await.ok_or(Error::Closed)?? {
            Message::Binary(bytes) => return Ok(bytes),
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Close(Some(close)) if close.code == CloseCode::Policy => {
                return Err(Error::OtherKey);
            }
            Message::Text(_) | Message::Close(_) | Message::Frame(_) => return Err(Error::Closed),
        }
    }
}

impl Connection {
    /// Its two directions. Each may be used while the other waits.
    #[must_use]
    pub fn split(self) -> (Sender, Receiver) {
        let (sink, stream) = self.socket.split();
        let session = Arc::new(Mutex::new(self.session));
        (Sender { sink, session: Arc::clone(&session) }, Receiver { stream, session })
    }
}

/// Sends frames.
#[expect(missing_debug_implementations, reason = "a socket has nothing to show")]
pub struct Sender {
    sink: SplitSink<WebSocketStream<Patient<Box<dyn Wire>>>, Message>,
    session: Arc<Mutex<Session>>,
}

/// Receives frames.
#[expect(missing_debug_implementations, reason = "a socket has nothing to show")]
pub struct Receiver {
    stream: SplitStream<WebSocketStream<Patient<Box<dyn Wire>>>>,
    session: Arc<Mutex<Session>>,
}

impl Sender {
    /// Sends a frame.
    ///
    /// # Errors
    /// The link broke.
    pub async fn send(&mut self, frame: &[u8]) -> Result<(), Error> {
        let messages = self.session.lock().unwrap_or_else(PoisonError::into_inner).seal(frame)?;
        for message in messages {
            self.sink.send(Message::Binary(message.into())).await?;
        }
        Ok(())
    }
}

impl Sender {
    /// Says goodbye (RFC 6455 §7), so that the server need not wonder.
    pub async fn close(mut self) {
        // The server may have closed first.
        drop(tokio::time::timeout(GOODBYE, self.sink.close()).await);
    }
}

impl Receiver {
    /// The next frame. Cancel-safe: what was read of a frame stays in the session.
    ///
    /// # Errors
    /// The link broke or was closed.
    pub async fn recv(&mut self) -> Result<Vec<u8>, Error> {
        loop {
            let message = binary(&mut self.stream).await?;
            let opened = self
                .session
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .open(&message, MAX_FRAME)?;
            if let Some(frame) = opened {
                return Ok(frame);
            }
        }
    }
}

/// Where to dial.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    tls: bool,
    host: String,
    port: u16,
    prefix: String,
}

impl Target {
    fn parse(server: &str) -> Result<Self, Error> {
        let invalid = || Error::Address(server.to_owned());
        let uri: Uri = server.parse().map_err(|_| invalid())?;
        let tls = match uri.scheme_str() {
            Some("https" | "wss") => true,
            Some("http" | "ws") => false,
            Some(_) | None => return Err(invalid()),
        };
        let host = uri.host().ok_or_else(invalid)?.to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { tls, host, port, prefix: uri.path().trim_end_matches('/').to_owned() })
    }

    fn link_url(&self) -> String {
        let scheme = if self.tls { "wss" } else { "ws" };
        format!("{scheme}://{}:{}{}{PATH}", self.host, self.port, self.prefix)
    }

    fn link_uri(&self) -> Result<Uri, Error> {
        self.link_url().parse().map_err(|_| Error::Address(self.link_url()))
    }

    fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    async fn wire(&self, route: &Route<'_>) -> Result<Box<dyn Wire>, Error> {
        let stream = self.reach(route).await?;
        if self.tls {
            Ok(Box::new(secure(&self.host, stream).await?))
        } else {
            Ok(Box::new(stream))
        }
    }

    async fn reach(&self, route: &Route<'_>) -> Result<TcpStream, Error> {
        match route.proxy {
            None => tcp(&self.authority(), route.source).await,
            Some(proxy) => {
                let via = Self::parse(proxy)?.authority();
                tunnel(tcp(&via, route.source).await?, &via, &self.authority()).await
            }
        }
    }
}

async fn tcp(to: &str, source: Option<IpAddr>) -> Result<TcpStream, Error> {
    let failed = |source| Error::Connect { to: to.to_owned(), source };
    let stream = match source {
        None => TcpStream::connect(to).await,
        Some(source) => connect_from(source, to).await,
    };
    let stream = stream.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

async fn connect_from(source: IpAddr, to: &str) -> io::Result<TcpStream> {
    let mut unreachable = io::Error::other("it has no address of this kind");
    let targets = tokio::net::lookup_host(to).await?;
    for target in targets.filter(|target| target.is_ipv4() == source.is_ipv4()) {
        let socket = if source.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(source, 0))?;
        match socket.connect(target).await {
            Ok(stream) => return Ok(stream),
            Err(error) => unreachable = error,
        }
    }
    Err(unreachable)
}

/// Asks a proxy for a tunnel (RFC 9110 §9.3.6).
async fn tunnel(stream: TcpStream, proxy: &str, to: &str) -> Result<TcpStream, Error> {
    let failed = |source| Error::Connect { to: proxy.to_owned(), source };
    let mut stream = BufReader::new(stream);
    stream
        .write_all(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes())
        .await
        .map_err(failed)?;
    let mut answer = String::new();
    stream.read_line(&mut answer).await.map_err(failed)?;
    if !answer.split(' ').nth(1).is_some_and(|status| status.starts_with('2')) {
        return Err(Error::Proxy {
            proxy: proxy.to_owned(),
            answer: answer.trim().chars().take(200).collect(),
        });
    }
    let mut line = String::new();
    while stream.read_line(&mut line).await.map_err(failed)? > 2 {
        line.clear();
    }
    Ok(stream.into_inner())
}

async fn secure(
    host: &str,
    stream: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Error> {
    let failed = |source| Error::Tls { to: host.to_owned(), source };
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config
        .map_err(|error| failed(io::Error::other(error)))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => rustls::pki_types::ServerName::from(address),
        Err(_) => host.to_owned().try_into().map_err(|error| failed(io::Error::other(error)))?,
    };
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let check =
            |text: &str, url: &str| assert_eq!(Target::parse(text).unwrap().link_url(), url);
        check("http://127.0.0.1:7400", "ws://127.0.0.1:7400/agent/v1/link");
        check("https://fleet.example/", "wss://fleet.example:443/agent/v1/link");
        check("https://fleet.example/under/", "wss://fleet.example:443/under/agent/v1/link");
        check("http://[::1]:80", "ws://[::1]:80/agent/v1/link");
        for bad in ["fleet.example", "ftp://x", "http://", ""] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }
}
