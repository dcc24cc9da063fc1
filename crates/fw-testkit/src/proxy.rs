//! A wire that a test can cut: it stands between agents and their server.
//!
//! It listens on one port for as long as the test lives, also while the server behind it is away,
//! so a server may come back on another port and agents never notice.

use std::net::SocketAddr;

use fw_rt::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the wire does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// It forwards.
    Open,
    /// It has dropped all of them and drops new ones at once.
    Cut,
    /// It keeps them and moves nothing: neither side is told.
    Frozen,
}

/// A TCP proxy on a port of its own. Dropping it cuts it.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    mode: watch::Sender<Mode>,
    target: watch::Sender<Option<SocketAddr>>,
    tasks: Tasks,
}

impl Proxy {
    /// Listens on loopback. It leads nowhere yet.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let (mode, target, tasks) =
            (watch::Sender::new(Mode::Open), watch::Sender::new(None), Tasks::new());
        let accept = accept(listener, mode.subscribe(), target.subscribe(), tasks.clone());
        tasks.spawn("accept", accept);
        Ok(Self { addr, mode, target, tasks })
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// New connections lead here from now on.
    pub fn lead_to(&self, target: SocketAddr) {
        self.target.send_replace(Some(target));
    }

    /// Drops all connections, and new ones as they come.
    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// Moves no byte any more and tells nobody, as a firewall that forgot a connection.
    pub fn freeze(&self) {
        self.mode.send_replace(Mode::Frozen);
    }

    /// Forwards again. What was cut stays dropped; what was frozen goes on.
    pub fn resume(&self) {
        self.mode.send_replace(Mode::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    mode: watch::Receiver<Mode>,
    target: watch::Receiver<Option<SocketAddr>>,
    tasks: Tasks,
) {
    // An accept that does not work, for lack of descriptors say, ends the wire: the test will tell.
    while let Ok((client, _)) = listener.accept().await {
        let to = *target.borrow();
        if let (Some(to), Mode::Open | Mode::Frozen) = (to, *mode.borrow()) {
            tasks.spawn("connection", forward(client, to, mode.clone()));
        }
    }
}

/// Forwards until one side closes or the wire is cut, then closes both.
async fn forward(client: TcpStream, to: SocketAddr, mode: watch::Receiver<Mode>) {
    let Ok(server) = TcpStream::connect(to).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut cut = mode.clone();
    tokio::select! {
        () = pump(from_client, to_server, mode.clone()) => {}
        () = pump(from_server, to_client, mode) => {}
        _ = cut.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mode: watch::Receiver<Mode>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if mode.wait_for(|mode| *mode != Mode::Frozen).await.is_err()
            || to.write_all(buffer.get(..read).unwrap_or_default()).await.is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> (SocketAddr, Tasks) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (addr, tasks) = (listener.local_addr().unwrap(), Tasks::new());
        let inner = tasks.clone();
        tasks.spawn("echo", async move {
            while let Ok((stream, _)) = listener.accept().await {
                inner.spawn("echo one", async move {
                    let (mut from, mut to) = stream.into_split();
                    tokio::io::copy(&mut from, &mut to).await.ok();
                });
            }
        });
        (addr, tasks)
    }

    async fn answers(stream: &mut TcpStream) -> bool {
        let mut answer = [0; 2];
        stream.write_all(b"hi").await.is_ok() && stream.read_exact(&mut answer).await.is_ok()
    }

    #[tokio::test]
    async fn a_cut_wire_drops_what_there_is_and_what_comes() {
        let (server, _tasks) = echo().await;
        let proxy = Proxy::start().await.unwrap();
        proxy.lead_to(server);
        let mut before = TcpStream::connect(proxy.addr()).await.unwrap();
        assert!(answers(&mut before).await);
        proxy.cut();
        assert!(!answers(&mut before).await);
        let mut meanwhile = TcpStream::connect(proxy.addr()).await.unwrap();
        assert!(!answers(&mut meanwhile).await);
        proxy.resume();
        let mut after = TcpStream::connect(proxy.addr()).await.unwrap();
        assert!(answers(&mut after).await);
    }

    #[tokio::test]
    async fn a_frozen_wire_goes_on_where_it_stopped() {
        let (server, _tasks) = echo().await;
        let proxy = Proxy::start().await.unwrap();
        proxy.lead_to(server);
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        proxy.freeze();
        stream.write_all(b"held").await.unwrap();
        let mut answer = [0; 4];
        let early = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(early, stream.read_exact(&mut answer)).await.is_err());
        proxy.resume();
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"held");
    }
}
