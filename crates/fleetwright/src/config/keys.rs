//! The one table of all keys. A new key is a field in `types.rs` and a row here.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use fw_proto::Span;
use ipnet::IpNet;
use reqwest::Url;

use super::setting::{
    Bytes, Dispatch, Lifetime, LogFilter, LogFormat, PingEvery, Proxy, Secret, Setting, Shape,
    SpoolBytes,
};
use super::types::Config;

/// A key, and how it is read into a [`Config`] and out of it.
#[derive(Debug)]
pub(crate) struct Key {
    /// Table and key as in the file: `server.listen`.
    pub(crate) name: &'static str,
    /// What it is in the file.
    pub(crate) shape: Shape,
    /// Whether its value is never shown and may be in a file of its own.
    pub(crate) secret: bool,
    /// Whether its value is a path, which means something in one directory only unless it is absolute.
    pub(crate) path: bool,
    /// What it means, for the documentation.
    pub(crate) doc: &'static str,
    /// Reads it from text.
    pub(crate) set: fn(&mut Config, &str) -> Result<(), String>,
    /// Writes it; `None` when unset.
    pub(crate) get: fn(&Config) -> Option<String>,
}

macro_rules! key {
    ($table:ident . $field:ident : $type:ty, $doc:literal) => {
        key!(concat!(stringify!($table), ".", stringify!($field)); $table.$field: $type, $doc)
    };
    (dialects.$table:ident . $field:ident : $type:ty, $doc:literal) => {
        key!(
            concat!("dialects.", stringify!($table), ".", stringify!($field));
            $table.$field: $type, $doc
        )
    };
    ($name:expr; $table:ident . $field:ident : $type:ty, $doc:literal) => {
        Key {
            name: $name,
            shape: <$type as Setting>::SHAPE,
            secret: <$type as Setting>::SECRET,
            path: <$type as Setting>::PATH,
            doc: $doc,
            set: |config, text| {
                config.$table.$field = <$type as Setting>::parse(text)?;
                Ok(())
            },
            get: |config| config.$table.$field.show(),
        }
    };
}

/// All keys, in the order in which they are shown.
pub(crate) const KEYS: &[Key] = &[
    key!(log.filter: LogFilter, "Which log lines are written, such as `info` or `info,fw_server=debug`."),
    key!(log.format: LogFormat, "`text` for people, `json` for one object a line."),
    key!(server.data_dir: PathBuf, "Where the store, the keys and the first admin token are."),
    key!(server.listen: SocketAddr, "Address and port of the API and of the agents' links."),
    key!(server.public_url: Option<Url>, "How hosts and people reach the server; goes into join strings and links. Made from `listen` when unset."),
    key!(server.jobs: Option<PathBuf>, "Directory of job files."),
    key!(server.tls_cert: Option<PathBuf>, "Certificate chain (PEM); read again when it changes."),
    key!(server.tls_key: Option<PathBuf>, "Private key of the certificate (PEM); read again when it changes."),
    key!(server.trusted_proxy: Vec<IpNet>, "Networks of the proxies that end TLS and whose `X-Forwarded-For` is believed."),
    key!(server.insecure_http: bool, "Serve plain HTTP on an address that others can reach."),
    key!(server.admin_token: Option<Secret>, "The first admin token, used when the store is made. Made up and written to `admin.token` when unset."),
    key!(server.retention_age: Span, "How long ended runs and their output are kept."),
    key!(server.retention_size: Bytes, "How much output is kept; the oldest ended runs go first."),
    key!(server.backup_dir: Option<PathBuf>, "Where scheduled backups go; `backups` in the data directory when unset."),
    key!(server.backup_every: Span, "How often a backup is made; `0` for never."),
    key!(server.backup_keep: u32, "How many scheduled backups are kept."),
    key!(server.lost_after: Span, "Beyond its timeout, a started task's host may be unheard of for so long before the task counts as lost."),
    key!(server.reconnect_grace: Span, "After a start, hosts may take so long to link before a run gives up on any that is away."),
    key!(server.ping_every: PingEvery, "How often each agent is pinged, `1s` to `10m`; three missed intervals end its link. Less than what a firewall on the way takes to forget a quiet connection."),
    key!(server.max_agents: NonZeroU32, "Links of agents at once; further ones are told to come back later."),
    key!(server.handshake_rate: NonZeroU32, "New links taken from one address in one second, before any key arithmetic."),
    key!(server.session_idle: Lifetime, "A session of someone who signed in ends after so long without use, `1m` to `366d`."),
    key!(server.session_life: Lifetime, "And after so long in any case."),
    key!(server.proof_life: Lifetime, "A password or a one-time code counts for so long for dangerous actions."),
    key!(server.dangerous_hosts: u32, "To run as root on more hosts than this is dangerous: it asks for a fresh proof."),
    key!(agent.state_dir: PathBuf, "The host's key, the server's pinned keys and the spool. For root; other users have `~/.local/state/fleetwright/agent`."),
    key!(agent.facts_dir: PathBuf, "Directory of custom facts."),
    key!(agent.policy: PathBuf, "The local policy."),
    key!(agent.join: Option<Secret>, "Join string, used while the host is not enrolled."),
    key!(agent.max_tasks: NonZeroU32, "Tasks that run at once; the rest wait."),
    key!(agent.spool_bytes: SpoolBytes, "The most output that one task may leave unsent on the disk."),
    key!(agent.proxy: Proxy, "HTTP proxy to go through: `http://HOST:PORT`, or `none`. That of `ALL_PROXY` when unset."),
    key!(dialects.saltpeter.dir: Option<PathBuf>, "Directory of Saltpeter to serve."),
    key!(dialects.saltpeter.shadow: bool, "Only say what would be started, beside a Saltpeter that runs the same directory."),
    key!(dialects.saltpeter.dispatch: Dispatch, "How its commands reach hosts: `agent`, or `salt` for hosts without our agent."),
    key!(dialects.saltpeter.salt: PathBuf, "The program `salt`, for `dispatch = \"salt\"`."),
    key!(dialects.saltpeter.api: Option<SocketAddr>, "Address of Saltpeter's API. When unset, `saltpeter_config` says whether and where."),
    key!(dialects.saltpeter.machines: Option<SocketAddr>, "Address that wrappers connect to. As `saltpeter_config` says when unset."),
    key!(dialects.saltpeter.token: Option<Secret>, "Token that Saltpeter's API asks for; none when unset."),
    key!(dialects.saltpeter.key: Option<Secret>, "Key that wrappers must show; none when unset."),
    key!(dialects.saltpeter.queue_bytes: Bytes, "The most disk that records may take which log files and search servers have not got yet."),
];

impl Key {
    /// The key called `name`, such as `server.listen`.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Its environment variable: `FLEETWRIGHT_LISTEN`, `FLEETWRIGHT_AGENT_STATE_DIR`, `FLEETWRIGHT_LOG`.
    pub(crate) fn variable(&self) -> String {
        let plain = match self.name {
            "log.filter" => "log",
            "dialects.saltpeter.dir" => "saltpeter",
            name => ["server.", "dialects."]
                .iter()
                .find_map(|table| name.strip_prefix(table))
                .unwrap_or(name),
        };
        format!("FLEETWRIGHT_{}", plain.replace('.', "_").to_uppercase())
    }

    /// Its flag: `--listen`; for a secret the flag that names its file, since other users can read
    /// arguments. The flags of the agent's commands have no prefix either.
    pub(crate) fn flag(&self) -> String {
        let plain = match self.name {
            "log.filter" => "log",
            "log.format" => "log_format",
            "dialects.saltpeter.dir" => "saltpeter",
            name => name.split_once('.').map_or(name, |(_, key)| key),
        };
        let file = if self.secret { "-file" } else { "" };
        format!("--{}{file}", plain.replace(['_', '.'], "-"))
    }

    /// The key in a configuration file that names the file of the secret.
    pub(crate) fn file_name(&self) -> String {
        format!("{}_file", self.name)
    }
}
