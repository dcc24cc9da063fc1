//! A door to a server for a browser that is not signed in: it adds a token to each request.
//!
//! A browser has one address for a page as long as it is open. This one stays when the server is started again on
//! another port.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// The longest head of a request; browsers send some hundred bytes.
const MOST_HEAD: usize = 64 * 1024;

/// Stands before a server until it is dropped.
#[derive(Debug)]
pub struct Door {
    addr: SocketAddr,
    to: Arc<Mutex<SocketAddr>>,
    taking: AbortHandle,
}

impl Door {
    /// Opens a door to `server` for whoever has this token.
    ///
    /// # Panics
    /// There is no free port.
    #[expect(clippy::disallowed_methods, reason = "a test's own task, which ends with the door")]
    pub async fn open(server: SocketAddr, token: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let to = Arc::new(Mutex::new(server));
        let (lead, header) = (Arc::clone(&to), format!("authorization: Bearer {token}\r\n"));
        let taking = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = *lead.lock().unwrap_or_else(PoisonError::into_inner);
                let header = header.clone();
                tokio::spawn(async move { pass(client, server, &header).await });
            }
        });
        Self { addr, to, taking: taking.abort_handle() }
    }

    /// What a browser opens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Where connections lead from now on.
    pub fn lead_to(&self, server: SocketAddr) {
        *self.to.lock().unwrap_or_else(PoisonError::into_inner) = server;
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.taking.abort();
    }
}

/// Passes a connection on until one end closes it.
async fn pass(client: TcpStream, server: SocketAddr, header: &str) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = async {
        while let Some((head, body, left)) = request(&mut from_client, header).await {
            to_server.write_all(&head).await.ok()?;
            to_server.write_all(&body).await.ok()?;
            tokio::io::copy(&mut (&mut from_client).take(left), &mut to_server).await.ok()?;
        }
        Some(())
    };
    let answers = tokio::io::copy(&mut from_server, &mut to_client);
    tokio::select! {
        _ = requests => {}
        _ = answers => {}
    }
}

/// The head of the next request with the header in it, what of its body came along, and how much is yet to come.
async fn request(
    from: &mut (impl AsyncRead + Unpin),
    header: &str,
) -> Option<(Vec<u8>, Vec<u8>, u64)> {
    let mut read = Vec::new();
    let end = loop {
        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 2;
        }
        if read.len() > MOST_HEAD || from.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    };
    let body = read.split_off(end + 2);
    read.truncate(end);
    let text = String::from_utf8_lossy(&read).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: u64 = length.map_or(Some(0), |length| length.trim().parse().ok())?;
    read.extend_from_slice(header.as_bytes());
    read.extend_from_slice(b"\r\n");
    let left = length.saturating_sub(body.len() as u64);
    Some((read, body, left))
}
