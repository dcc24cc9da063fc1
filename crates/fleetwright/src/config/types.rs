//! What configuration amounts to: typed values, their defaults, and whether they make sense together.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;

use fw_proto::Span;
use ipnet::IpNet;
use reqwest::Url;

use super::error::{Error, Problem};
use super::setting::{
    Bytes, Dispatch, Lifetime, LogFilter, LogFormat, PingEvery, Proxy, Secret, SpoolBytes,
};

/// All configuration of one process.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// `[log]`.
    pub(crate) log: LogConfig,
    /// `[server]`.
    pub(crate) server: ServerConfig,
    /// `[agent]`.
    pub(crate) agent: AgentConfig,
    /// `[dialects.saltpeter]`.
    pub(crate) saltpeter: SaltpeterConfig,
}

/// What is logged and how.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LogConfig {
    /// Which lines.
    pub(crate) filter: LogFilter,
    /// In which form.
    pub(crate) format: LogFormat,
}

/// What a server needs to know.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ServerConfig {
    /// Where the store lives.
    pub(crate) data_dir: PathBuf,
    /// Address of the API and of the agents' links.
    pub(crate) listen: SocketAddr,
    /// How hosts and people reach the server; made from `listen` when absent.
    pub(crate) public_url: Option<Url>,
    /// Directory of job files.
    pub(crate) jobs: Option<PathBuf>,
    /// Certificate chain, PEM.
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its key, PEM.
    pub(crate) tls_key: Option<PathBuf>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub(crate) trusted_proxy: Vec<IpNet>,
    /// Serve without TLS on an address that others can reach.
    pub(crate) insecure_http: bool,
    /// The first admin token; made at first start when absent.
    pub(crate) admin_token: Option<Secret>,
    /// How long ended runs and their output are kept.
    pub(crate) retention_age: Span,
    /// How much output is kept.
    pub(crate) retention_size: Bytes,
    /// Where scheduled backups go; `backups` in the data directory when absent.
    pub(crate) backup_dir: Option<PathBuf>,
    /// How often one is made; zero is never.
    pub(crate) backup_every: Span,
    /// How many are kept.
    pub(crate) backup_keep: u32,
    /// Beyond its timeout, how long a started task's host may be silent.
    pub(crate) lost_after: Span,
    /// How long hosts may take to link after a start.
    pub(crate) reconnect_grace: Span,
    /// How often each agent is pinged.
    pub(crate) ping_every: PingEvery,
    /// Links at once.
    pub(crate) max_agents: NonZeroU32,
    /// New links from one address in one second.
    pub(crate) handshake_rate: NonZeroU32,
    /// After so long without use a session ends.
    pub(crate) session_idle: Lifetime,
    /// And after so long in any case.
    pub(crate) session_life: Lifetime,
    /// For so long a proof counts for what is dangerous.
    pub(crate) proof_life: Lifetime,
    /// To run as root on more hosts than this is dangerous.
    pub(crate) dangerous_hosts: u32,
}

/// What an agent needs to know.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AgentConfig {
    /// Its key, its pins and the spool.
    pub(crate) state_dir: PathBuf,
    /// Directory of custom facts.
    pub(crate) facts_dir: PathBuf,
    /// The local policy.
    pub(crate) policy: PathBuf,
    /// Join string for a host that is not enrolled yet.
    pub(crate) join: Option<Secret>,
    /// Tasks at once.
    pub(crate) max_tasks: NonZeroU32,
    /// The bound of one task's spool.
    pub(crate) spool_bytes: SpoolBytes,
    /// What it goes through.
    pub(crate) proxy: Proxy,
}

/// What the dialect of Saltpeter needs to know.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SaltpeterConfig {
    /// The directory; the dialect is off when absent.
    pub(crate) dir: Option<PathBuf>,
    /// Whether it is only said what would be started.
    pub(crate) shadow: bool,
    /// How commands reach hosts.
    pub(crate) dispatch: Dispatch,
    /// The program `salt`.
    pub(crate) salt: PathBuf,
    /// Address of its API.
    pub(crate) api: Option<SocketAddr>,
    /// Address for wrappers.
    pub(crate) machines: Option<SocketAddr>,
    /// Token of its API.
    pub(crate) token: Option<Secret>,
    /// Key of wrappers.
    pub(crate) key: Option<Secret>,
    /// Disk for records that wait.
    pub(crate) queue_bytes: Bytes,
}

impl Config {
    /// The defaults on a host where `home` is the user's home, if any.
    pub(crate) fn defaults(root: bool, home: Option<&str>) -> Self {
        Self {
            log: LogConfig { filter: LogFilter::default(), format: LogFormat::Text },
            server: ServerConfig::default(),
            agent: AgentConfig::defaults(root, home),
            saltpeter: SaltpeterConfig::default(),
        }
    }
}

impl Default for SaltpeterConfig {
    fn default() -> Self {
        Self {
            dir: None,
            shadow: false,
            dispatch: Dispatch(fw_server::dialects::saltpeter::Dispatch::Agent),
            salt: PathBuf::from("salt"),
            api: None,
            machines: None,
            token: None,
            key: None,
            queue_bytes: Bytes(fw_server::dialects::saltpeter::QUEUE_BYTES),
        }
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./fleetwright-data"),
            listen: SocketAddr::from(([127, 0, 0, 1], 7400)),
            public_url: None,
            jobs: None,
            tls_cert: None,
            tls_key: None,
            trusted_proxy: Vec::new(),
            insecure_http: false,
            admin_token: None,
            retention_age: Span::from_secs(30 * 24 * 3600),
            retention_size: Bytes(20_000_000_000),
            backup_dir: None,
            backup_every: Span::from_secs(24 * 3600),
            backup_keep: 7,
            lost_after: fw_core::plan::LOST_AFTER,
            reconnect_grace: fw_core::hub::GRACE,
            ping_every: PingEvery(fw_core::link::PING_EVERY),
            // A quarter more than the 20,000 that one server is measured with.
            max_agents: whole(25_000),
            // A whole fleet may come back through one NAT: 10,000 hosts then need 20 s.
            handshake_rate: whole(500),
            session_idle: Lifetime(fw_server::SESSION_IDLE),
            session_life: Lifetime(fw_server::SESSION_LIFE),
            proof_life: Lifetime(fw_core::access::FRESH),
            dangerous_hosts: fw_core::access::ROOT_HOSTS,
        }
    }
}

/// A number of a default.
const fn whole(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("defaults are not zero")
}

impl AgentConfig {
    fn defaults(root: bool, home: Option<&str>) -> Self {
        let state_dir = match home {
            Some(home) if !root => PathBuf::from(home).join(".local/state/fleetwright/agent"),
            Some(_) | None => PathBuf::from("/var/lib/fleetwright-agent"),
        };
        Self {
            state_dir,
            facts_dir: PathBuf::from("/etc/fleetwright/facts.d"),
            policy: PathBuf::from("/etc/fleetwright/policy.toml"),
            join: None,
            max_tasks: whole(64),
            spool_bytes: SpoolBytes(Bytes(64 * 1024 * 1024)),
            proxy: Proxy::Unset,
        }
    }
}

impl ServerConfig {
    /// Whether a server may start with this.
    ///
    /// # Errors
    /// Half a TLS pair; an address that others can reach without TLS, trusted proxy or
    /// `insecure_http`; backups of which none is kept.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let mut problems = Vec::new();
        match (&self.tls_cert, &self.tls_key) {
            (Some(_), None) => problems.push(Problem::HalfTls { missing: "server.tls_key" }),
            (None, Some(_)) => problems.push(Problem::HalfTls { missing: "server.tls_cert" }),
            (Some(_), Some(_)) | (None, None) => {}
        }
        if self.is_exposed() {
            problems.push(Problem::Exposed { listen: self.listen });
        }
        if self.backup_keep == 0 && self.backup_every > Span::ZERO {
            problems.push(Problem::NoBackupKept);
        }
        Error::unless_empty(problems)
    }

    /// Passwords and tokens would cross a network in the clear.
    fn is_exposed(&self) -> bool {
        let private =
            self.tls_cert.is_some() || !self.trusted_proxy.is_empty() || self.insecure_http;
        !private && !is_loopback(self.listen.ip())
    }
}

/// Also true of `::ffff:127.0.0.1`, which is the same interface.
fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
