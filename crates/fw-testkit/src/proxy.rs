//! A wire that a test can cut, slow down, break or listen to: it stands between agents and their server.
//!
//! It listens on one port for as long as the test lives, also while the server behind it is away,
//! so a server may come back on another port and agents never notice.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use fw_rt::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A direction on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From agents to the server.
    ToServer,
    /// From the server to agents.
    ToAgent,
}

/// What becomes of the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// They pass.
    Open,
    /// They wait, and so does the news that a side has closed: a partition, which TCP sits out.
    Frozen,
    /// They pass one by one.
    Dripping,
}

/// What the wire does with connections.
#[derive(Debug, Clone, Copy)]
struct Faults {
    /// It has dropped all of them and drops new ones at once.
    cut: bool,
    to_server: Flow,
    to_agent: Flow,
    /// It has forgotten the connections with lower numbers: it takes what they send and never says a word.
    forgotten: u64,
    /// New connections are reset once so many bytes have gone this way.
    reset: Option<(Way, usize)>,
}

impl Faults {
    const NONE: Self =
        Self { cut: false, to_server: Flow::Open, to_agent: Flow::Open, forgotten: 0, reset: None };

    const fn flow(&self, way: Way) -> Flow {
        match way {
            Way::ToServer => self.to_server,
            Way::ToAgent => self.to_agent,
        }
    }
}

/// All bytes of one connection, as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recording {
    /// What the agent sent, read by read.
    pub to_server: Vec<Vec<u8>>,
    /// What the server sent, read by read.
    pub to_agent: Vec<Vec<u8>>,
}

/// A recording, and whether it waits for a connection to be of.
#[derive(Debug, Default)]
struct Recorder {
    waits: bool,
    recording: Recording,
}

type Tape = Arc<Mutex<Recorder>>;

/// A TCP proxy on a port of its own. Dropping it cuts it.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    faults: watch::Sender<Faults>,
    target: watch::Sender<Option<SocketAddr>>,
    accepted: watch::Receiver<u64>,
    tape: Tape,
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
        let (faults, target) = (watch::Sender::new(Faults::NONE), watch::Sender::new(None));
        let (counter, accepted) = watch::channel(0);
        let (tape, tasks) = (Tape::default(), Tasks::new());
        let accepting = Accepting {
            faults: faults.subscribe(),
            target: target.subscribe(),
            counter,
            tape: Arc::clone(&tape),
            tasks: tasks.clone(),
        };
        tasks.spawn("accept", accepting.run(listener));
        Ok(Self { addr, faults, target, accepted, tape, tasks })
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
        self.faults.send_modify(|faults| faults.cut = true);
    }

    /// Moves no byte any more, either way, and tells nobody.
    pub fn freeze(&self) {
        self.freeze_way(Way::ToServer);
        self.freeze_way(Way::ToAgent);
    }

    /// Moves no byte this way any more and tells nobody; the other way goes on.
    pub fn freeze_way(&self, way: Way) {
        self.set_flow(way, Flow::Frozen);
    }

    /// Passes bytes one by one, either way.
    pub fn drip(&self) {
        self.set_flow(Way::ToServer, Flow::Dripping);
        self.set_flow(Way::ToAgent, Flow::Dripping);
    }

    /// Forgets the connections there are, as a firewall does that was restarted: what they send is
    /// lost, and neither end ever learns that the other has gone. New connections are not touched.
    pub fn forget(&self) {
        let next = *self.accepted.borrow();
        self.faults.send_modify(|faults| faults.forgotten = next);
    }

    /// Resets (RST, RFC 9293 §3.5.2) each new connection once so many bytes have gone this way; with 0 as
    /// soon as it is accepted.
    pub fn reset_after(&self, way: Way, bytes: usize) {
        self.faults.send_modify(|faults| faults.reset = Some((way, bytes)));
    }

    /// Forwards again. What was cut or forgotten stays so; what was frozen goes on.
    pub fn resume(&self) {
        self.faults.send_modify(|faults| {
            *faults = Faults { forgotten: faults.forgotten, ..Faults::NONE };
        });
    }

    /// Records the next connection.
    pub fn record(&self) {
        let recorder = Recorder { waits: true, ..Recorder::default() };
        *self.tape.lock().unwrap_or_else(PoisonError::into_inner) = recorder;
    }

    /// What was recorded so far.
    #[must_use]
    pub fn recorded(&self) -> Recording {
        self.tape.lock().unwrap_or_else(PoisonError::into_inner).recording.clone()
    }

    /// Connections that were accepted so far, whatever became of them.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        *self.accepted.borrow()
    }

    fn set_flow(&self, way: Way, flow: Flow) {
        self.faults.send_modify(|faults| match way {
            Way::ToServer => faults.to_server = flow,
            Way::ToAgent => faults.to_agent = flow,
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

struct Accepting {
    faults: watch::Receiver<Faults>,
    target: watch::Receiver<Option<SocketAddr>>,
    counter: watch::Sender<u64>,
    tape: Tape,
    tasks: Tasks,
}

impl Accepting {
    async fn run(self, listener: TcpListener) {
        // An accept that does not work, for lack of descriptors say, ends the wire: the test will tell.
        while let Ok((client, _)) = listener.accept().await {
            let number = *self.counter.borrow();
            self.counter.send_replace(number + 1);
            let (to, faults) = (*self.target.borrow(), *self.faults.borrow());
            let Some(to) = to.filter(|_| !faults.cut) else { continue };
            let mut recorder = self.tape.lock().unwrap_or_else(PoisonError::into_inner);
            let tape = std::mem::take(&mut recorder.waits).then(|| Arc::clone(&self.tape));
            drop(recorder);
            let wire = Wire { number, faults: self.faults.clone(), reset: faults.reset, tape };
            self.tasks.spawn("connection", wire.forward(client, to));
        }
    }
}

/// One connection, on both sides of the proxy.
#[derive(Clone)]
struct Wire {
    number: u64,
    faults: watch::Receiver<Faults>,
    reset: Option<(Way, usize)>,
    tape: Option<Tape>,
}

impl Wire {
    /// Forwards until one side closes or the wire is cut, then closes both.
    async fn forward(self, mut client: TcpStream, to: SocketAddr) {
        if self.reset == Some((Way::ToServer, 0)) {
            // Closing with a linger of zero is what sends a reset (`socket(7)`).
            client.set_zero_linger().ok();
            return;
        }
        let Ok(mut server) = TcpStream::connect(to).await else { return };
        for socket in [&client, &server] {
            socket.set_nodelay(true).ok();
            if self.reset.is_some() {
                socket.set_zero_linger().ok();
            }
        }
        // Halves that are owned would close in good order when they go, and nothing would be reset.
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let mut faults = self.faults.clone();
        let (mut one, mut other) = (self.clone(), self.clone());
        let to_server = one.pump(Way::ToServer, from_client, to_server);
        let to_client = other.pump(Way::ToAgent, from_server, to_client);
        tokio::select! {
            () = to_server => {}
            () = to_client => {}
            _ = faults.wait_for(|faults| faults.cut) => {}
        }
    }

    async fn pump(&mut self, way: Way, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) {
        let mut buffer = vec![0; 64 * 1024];
        let mut left = self.reset.filter(|(reset, _)| *reset == way).map(|(_, bytes)| bytes);
        loop {
            // A connection that was reset is one that has ended.
            let read = from.read(&mut buffer).await.unwrap_or_default();
            let Some(flow) = self.passes(way).await else { return self.swallow(from).await };
            let bytes = buffer.get(..read).unwrap_or_default();
            self.write_down(way, bytes);
            let passing = bytes.get(..left.unwrap_or(read).min(read)).unwrap_or_default();
            left = left.map(|left| left - passing.len());
            let over = read == 0 || left == Some(0);
            if give(&mut to, passing, flow).await.is_err() || over {
                return;
            }
        }
    }

    /// Waits until bytes may pass this way, and says how; `None` once the connection is forgotten.
    async fn passes(&mut self, way: Way) -> Option<Flow> {
        let number = self.number;
        let settled =
            |faults: &Faults| faults.forgotten > number || faults.flow(way) != Flow::Frozen;
        let faults = *self.faults.wait_for(settled).await.ok()?;
        (faults.forgotten <= number).then(|| faults.flow(way))
    }

    /// Takes what comes and says nothing, not even that the other side has gone.
    async fn swallow(&self, mut from: ReadHalf<'_>) {
        tokio::io::copy(&mut from, &mut tokio::io::sink()).await.ok();
        std::future::pending::<()>().await;
    }

    fn write_down(&self, way: Way, bytes: &[u8]) {
        let Some(tape) = self.tape.as_ref().filter(|_| !bytes.is_empty()) else { return };
        let mut tape = tape.lock().unwrap_or_else(PoisonError::into_inner);
        let recording = &mut tape.recording;
        match way {
            Way::ToServer => recording.to_server.push(bytes.to_vec()),
            Way::ToAgent => recording.to_agent.push(bytes.to_vec()),
        }
    }
}

async fn give(to: &mut WriteHalf<'_>, bytes: &[u8], flow: Flow) -> std::io::Result<()> {
    match flow {
        Flow::Open | Flow::Frozen => to.write_all(bytes).await,
        Flow::Dripping => {
            for byte in bytes {
                to.write_all(&[*byte]).await?;
                // The reader is to find them one by one, if it is quick enough.
                tokio::task::yield_now().await;
            }
            Ok(())
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

    async fn held_until_resumed(proxy: &Proxy, mut stream: TcpStream) {
        stream.write_all(b"held").await.unwrap();
        let mut answer = [0; 4];
        let early = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(early, stream.read_exact(&mut answer)).await.is_err());
        proxy.resume();
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"held");
    }

    #[tokio::test]
    async fn a_frozen_wire_goes_on_where_it_stopped() {
        let (server, _tasks) = echo().await;
        let proxy = Proxy::start().await.unwrap();
        proxy.lead_to(server);
        let stream = TcpStream::connect(proxy.addr()).await.unwrap();
        proxy.freeze();
        held_until_resumed(&proxy, stream).await;
    }

    #[tokio::test]
    async fn one_way_may_be_frozen_alone() {
        let (server, _tasks) = echo().await;
        let proxy = Proxy::start().await.unwrap();
        proxy.lead_to(server);
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        assert!(answers(&mut stream).await);
        proxy.freeze_way(Way::ToAgent);
        held_until_resumed(&proxy, stream).await;
    }

    #[tokio::test]
    async fn a_forgotten_connection_never_ends_and_new_ones_pass() {
        let (server, _tasks) = echo().await;
        let proxy = Proxy::start().await.unwrap();
        proxy.lead_to(server);
        let mut before = TcpStream::connect(proxy.addr()).await.unwrap();
        assert!(answers(&mut before).await);
        proxy.forget();
        let early = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(early, answers(&mut before)).await.is_err());
        let mut after = TcpStream::connect(proxy.addr()).await.unwrap();
        assert!(answers(&mut after).await);
        proxy.resume();
        assert!(tokio::time::timeout(early, answers(&mut before)).await.is_err());
    }

    #[tokio::test]
    async fn connections_are_reset_where_it_was_asked_for() {
        let (server, _tasks) = echo().await;
        let proxy = Proxy::start().await.unwrap();
        proxy.lead_to(server);
        for (way, bytes, heard) in
            [(Way::ToServer, 0, 0), (Way::ToServer, 3, 3), (Way::ToAgent, 2, 2)]
        {
            proxy.reset_after(way, bytes);
            let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
            // A reset may be there before anything is written.
            stream.write_all(b"hello").await.ok();
            let mut all = Vec::new();
            let end = stream.read_to_end(&mut all).await.map_err(|error| error.kind());
            assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset), "{way:?} {bytes}: {all:?}");
            assert!(all.len() <= heard, "{way:?} {bytes}: {all:?}");
        }
        proxy.resume();
        assert!(answers(&mut TcpStream::connect(proxy.addr()).await.unwrap()).await);
    }

    #[tokio::test]
    async fn a_dripping_wire_passes_all_and_a_tape_holds_it() {
        let (server, _tasks) = echo().await;
        let proxy = Proxy::start().await.unwrap();
        proxy.lead_to(server);
        proxy.drip();
        proxy.record();
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        let sent: Vec<u8> = (0..=255).cycle().take(3000).collect();
        stream.write_all(&sent).await.unwrap();
        let mut back = vec![0; sent.len()];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(back, sent);
        assert_eq!(proxy.recorded().to_server.concat(), sent);
        assert_eq!(proxy.recorded().to_agent.concat(), sent);
    }
}
