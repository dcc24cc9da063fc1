//! A client of the agent link that keeps no rule: it says what a test wants, at any layer.
//!
//! The WebSocket (RFC 6455) is written out by hand, because a library would not send what is wrong.

use std::io;
use std::net::SocketAddr;

use fw_core::link::Versions;
use fw_proto::frame::{self, Decoded, FromAgent, FromServer, Hello, MAX_FRAME, PolicyMode};
use fw_proto::{Epoch, PublicKey};
use fw_rt::noise::{self, Initiator, Keypair, Session};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// WebSocket messages of bytes (RFC 6455 §5.2).
pub const BINARY: u8 = 2;

/// The longest answer that is read: no server of ours says more in one message.
const LONGEST: u64 = 1 << 20;

/// A connection to the place where agents link.
#[derive(Debug)]
pub struct Intruder {
    stream: TcpStream,
    /// What the server answered to the upgrade: its head, and what of its body came along.
    pub answer: String,
}

impl Intruder {
    /// Connects and asks for the upgrade, with more header lines (each ends with CR LF).
    ///
    /// # Errors
    /// The server cannot be reached, or closes before its answer's head is there.
    pub async fn knock(server: SocketAddr, headers: &str) -> io::Result<Self> {
        let mut stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET /agent/v1/link HTTP/1.1\r\nHost: {server}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            // One by one, so that no message behind the head is swallowed.
            answer.push(stream.read_u8().await?);
        }
        let mut answer = String::from_utf8_lossy(&answer).into_owned();
        if !answer.starts_with("HTTP/1.1 101 ") {
            let length = answer.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.and_then(|length| length.parse().ok()).unwrap_or(0)];
            stream.read_exact(&mut body).await?;
            answer.push_str(&String::from_utf8_lossy(&body));
        }
        Ok(Self { stream, answer })
    }

    /// Whether the server took the upgrade.
    #[must_use]
    pub fn is_in(&self) -> bool {
        self.answer.starts_with("HTTP/1.1 101 ")
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The server has closed.
    pub async fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Sends a WebSocket message of this kind.
    ///
    /// # Errors
    /// The server has closed.
    pub async fn say(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        // A mask of zeros is a mask (§5.3), and leaves the bytes as they are.
        let mut message = vec![0x80 | opcode];
        match u16::try_from(payload.len()) {
            Ok(length @ ..126) => message.push(0x80 | length.to_le_bytes()[0]),
            Ok(length) => {
                message.push(0x80 | 126);
                message.extend(length.to_be_bytes());
            }
            Err(_) => {
                message.push(0x80 | 127);
                message.extend((payload.len() as u64).to_be_bytes());
            }
        }
        message.extend([0; 4]);
        message.extend(payload);
        self.raw(&message).await
    }

    /// Says that nothing more will come, as a peer does that goes in good order.
    ///
    /// # Errors
    /// The server has closed.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// The next message of bytes; `None` when the server closes.
    pub async fn hear(&mut self) -> Option<Vec<u8>> {
        loop {
            let [kind, length] =
                [self.stream.read_u8().await.ok()?, self.stream.read_u8().await.ok()?];
            let length = match length & 0x7f {
                126 => u64::from(self.stream.read_u16().await.ok()?),
                127 => self.stream.read_u64().await.ok()?,
                short => u64::from(short),
            };
            let mut payload = vec![0; usize::try_from(length.min(LONGEST)).ok()?];
            self.stream.read_exact(&mut payload).await.ok()?;
            match kind & 0x0f {
                BINARY => return Some(payload),
                8 => return None,
                _ => {}
            }
        }
    }

    /// Does the handshake as an agent does, over versions and with keys of the test's choice.
    ///
    /// # Errors
    /// The server closes or does not hold the key.
    pub async fn handshake(
        mut self,
        own: &Keypair,
        server: &PublicKey,
        prologue: &[u8],
    ) -> io::Result<Insider> {
        let (initiator, first) =
            Initiator::start(own, server, prologue).map_err(io::Error::other)?;
        self.say(BINARY, &first).await?;
        let answer = self.hear().await.ok_or(io::ErrorKind::UnexpectedEof)?;
        let session = initiator.finish(&answer).map_err(io::Error::other)?;
        Ok(Insider { wire: self, session })
    }
}

/// An intruder with a session: one who holds a host's key, or made up a key.
#[derive(Debug)]
pub struct Insider {
    /// Below the session.
    pub wire: Intruder,
    /// What encrypts.
    pub session: Session,
}

impl Insider {
    /// Connects, and does the handshake as an agent of this build does.
    ///
    /// # Errors
    /// The server cannot be reached, refuses, or does not hold the key.
    pub async fn link(server: SocketAddr, own: &Keypair, key: &PublicKey) -> io::Result<Self> {
        let intruder = Intruder::knock(server, "").await?;
        intruder.handshake(own, key, &Versions::OURS.prologue()).await
    }

    /// Sends bytes as a frame, encrypted as they should be.
    ///
    /// # Errors
    /// The server has closed.
    pub async fn frame(&mut self, bytes: &[u8]) -> io::Result<()> {
        for message in self.session.seal(bytes).map_err(io::Error::other)? {
            self.wire.say(BINARY, &message).await?;
        }
        Ok(())
    }

    /// Says what an agent would say.
    ///
    /// # Errors
    /// The server has closed.
    pub async fn speak(&mut self, frame: &FromAgent<'_>) -> io::Result<()> {
        self.frame(&frame::encode(frame)).await
    }

    /// The server's next frame; `None` when it closes.
    pub async fn next(&mut self) -> Option<FromServer> {
        loop {
            let message = self.wire.hear().await?;
            let opened: Result<_, noise::Error> = self.session.open(&message, MAX_FRAME);
            let Some(frame) = opened.ok()? else { continue };
            if let Decoded::Frame(frame) = frame::decode(&frame).ok()? {
                return Some(frame);
            }
        }
    }
}

/// How an agent greets that speaks these versions.
#[must_use]
pub fn hello(protocol: (u16, u16)) -> Hello {
    Hello {
        agent_version: "0.0.0-intruder".to_owned(),
        protocol,
        machine_id: "intruder".to_owned(),
        boot_id: "intruder".to_owned(),
        tasks: Vec::new(),
        policy: PolicyMode::Operate,
        epoch: Epoch(0),
        instance: "intruder".to_owned(),
    }
}
