//! Serves and drives: the HTTP API, the agents' links, and what happens by itself.
//!
//! [`start`] opens the data directory and puts the parts together; [`Running::stop`] takes
//! them down. What the parts share is in [`state::App`].

pub mod api;
pub mod auth;
pub mod dialects;
pub mod drive;
mod extract;
mod feed;
pub mod fleet;
pub mod gateway;
pub mod hub;
mod ids;
pub mod keys;
mod lines;
pub mod live;
pub mod metrics;
mod output;
mod private_file;
pub mod problem;
pub mod secrets;
pub mod serve;
mod sse;
mod start;
pub mod state;
mod web;

use std::net::SocketAddr;
use std::path::PathBuf;

use fw_proto::Span;
use fw_store::Retention;
use ipnet::IpNet;

pub use serve::TlsFiles;
pub use start::{Error, Running, start};

/// How a server is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything is kept; made with mode 0700 when it is not there.
    pub data_dir: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// What others call this server: in join strings and links.
    pub public_url: Option<String>,
    /// A directory of job files.
    pub jobs: Option<PathBuf>,
    /// A directory of Saltpeter.
    pub saltpeter: Option<dialects::saltpeter::Options>,
    /// Certificate and key; plain HTTP without.
    pub tls: Option<TlsFiles>,
    /// Proxies whose `X-Forwarded-For` is believed, and that may bring tokens over plain HTTP.
    pub trusted_proxy: Vec<IpNet>,
    /// Tokens may come over plain HTTP from anywhere.
    pub insecure_http: bool,
    /// How long and how much is kept.
    pub retention: Retention,
    /// Backups by night.
    pub backup: BackupConfig,
    /// Beyond its timeout, so long may a started task's host be unheard of before the task is lost.
    pub lost_after: Span,
    /// After a start, so long may hosts take to link before any is ruled on for being away.
    pub grace: Span,
    /// The bound of a task's spool on its host, bytes.
    pub spool_bytes: u64,
    /// The first admin token; made up when absent.
    pub admin_token: Option<String>,
    /// How often each agent is pinged; three missed intervals end its link. Not zero.
    pub ping_every: Span,
    /// Handshakes a second from one address.
    pub handshake_rate: u32,
    /// When people have to prove again who they are.
    pub access: fw_core::access::Rules,
    /// A session ends after so long without use.
    pub session_idle: Span,
    /// And after so long whatever happens.
    pub session_life: Span,
    /// How long a command line waits for a person to sign it in with a browser.
    pub device_life: Span,
    /// Connections at one time, links of agents included. Further ones wait.
    pub max_connections: usize,
}

/// Backups by night.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupConfig {
    /// Where to.
    pub dir: PathBuf,
    /// How often; `None` for never.
    pub every: Option<Span>,
    /// How many are kept.
    pub keep: u32,
}

/// Room for the 20,000 hosts that one server is made for, and as many again while they all come back at once.
const MAX_CONNECTIONS: usize = 40_000;

/// A month of history: long enough to compare with the last month's end.
const KEEP: Span = Span::from_secs(30 * 24 * 60 * 60);

/// 20 GB of it.
const KEEP_BYTES: u64 = 20_000_000_000;

/// A quarter of an hour of a command that writes 64 KiB a second while the server is away.
const SPOOL_BYTES: u64 = 64 * 1024 * 1024;

/// Thousands of hosts may stand behind one address translator; one core does many more.
const HANDSHAKE_RATE: u32 = 500;

/// Over lunch, and through a meeting after it.
pub const SESSION_IDLE: Span = Span::from_secs(8 * 60 * 60);

/// To find the browser, sign in there and compare a code (RFC 8628 §3.2 shows half an hour); a page that is left open is
/// of no use then.
const DEVICE_LIFE: Span = Span::from_secs(10 * 60);

/// A working week: on Monday one signs in.
pub const SESSION_LIFE: Span = Span::from_secs(7 * 24 * 60 * 60);

impl Config {
    /// A server with the usual settings.
    #[must_use]
    pub fn new(data_dir: PathBuf, listen: SocketAddr) -> Self {
        let backup = BackupConfig {
            dir: data_dir.join("backups"),
            every: Some(Span::from_secs(24 * 60 * 60)),
            keep: 7,
        };
        Self {
            data_dir,
            listen,
            public_url: None,
            jobs: None,
            saltpeter: None,
            tls: None,
            trusted_proxy: Vec::new(),
            insecure_http: false,
            retention: Retention { age: KEEP, bytes: KEEP_BYTES },
            backup,
            lost_after: fw_core::plan::LOST_AFTER,
            grace: fw_core::hub::GRACE,
            spool_bytes: SPOOL_BYTES,
            admin_token: None,
            ping_every: fw_core::link::PING_EVERY,
            handshake_rate: HANDSHAKE_RATE,
            access: fw_core::access::Rules::default(),
            session_idle: SESSION_IDLE,
            session_life: SESSION_LIFE,
            device_life: DEVICE_LIFE,
            max_connections: MAX_CONNECTIONS,
        }
    }

    /// Where others find this server: the public URL, or where it listens. `start` puts the port that
    /// the system chose into `listen`.
    #[must_use]
    pub fn url(&self) -> String {
        match &self.public_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => {
                let scheme = if self.tls.is_some() { "https" } else { "http" };
                format!("{scheme}://{}", self.listen)
            }
        }
    }
}
