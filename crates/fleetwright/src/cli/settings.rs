//! Flags that are configuration: each lays over the key of the same name (`docs/configuration.md`).

use std::path::PathBuf;

use crate::config::Flags;

/// Where configuration is read from, and how logs are written.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Configuration")]
pub(crate) struct General {
    /// Configuration file; /etc/fleetwright/fleetwright.toml when it exists [env: `FLEETWRIGHT_CONFIG`].
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Log lines to write, such as `info` or `info,fw_server=debug`.
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Form of log lines: text or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

/// Flags of a server.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct Server {
    /// Directory of the store, the keys and the first admin token; ./fleetwright-data when absent.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Address to listen on; 127.0.0.1:7400 when absent.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// How hosts and people reach this server; goes into join strings and links.
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Directory of job files.
    #[arg(long, value_name = "DIR")]
    jobs: Option<String>,
    /// Certificate chain (PEM); read again when it changes.
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// Private key of the certificate (PEM); read again when it changes.
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// Network of proxies that end TLS and whose X-Forwarded-For is believed.
    #[arg(long, value_name = "CIDR")]
    trusted_proxy: Vec<String>,
    /// Serve plain HTTP on an address that others can reach.
    #[arg(long)]
    insecure_http: bool,
    /// File with the first admin token; made up when absent.
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<String>,
    /// How long ended runs and their output are kept.
    #[arg(long, value_name = "DUR")]
    retention_age: Option<String>,
    /// How much output is kept.
    #[arg(long, value_name = "SIZE")]
    retention_size: Option<String>,
    /// Where scheduled backups go.
    #[arg(long, value_name = "DIR")]
    backup_dir: Option<String>,
    /// How often a backup is made; 0 for never.
    #[arg(long, value_name = "DUR")]
    backup_every: Option<String>,
    /// How many scheduled backups are kept.
    #[arg(long, value_name = "N")]
    backup_keep: Option<String>,
    /// Silence of a started task's host, beyond its timeout, after which the task is lost.
    #[arg(long, value_name = "DUR")]
    lost_after: Option<String>,
    /// After a start, how long hosts may take to link before a run gives up on one that is away.
    #[arg(long, value_name = "DUR")]
    reconnect_grace: Option<String>,
    /// How often each agent is pinged; three missed intervals end its link.
    #[arg(long, value_name = "DUR")]
    ping_every: Option<String>,
    /// Links of agents at once.
    #[arg(long, value_name = "N")]
    max_agents: Option<String>,
    /// New links from one address in one second.
    #[arg(long, value_name = "N")]
    handshake_rate: Option<String>,
    /// A session ends after so long without use.
    #[arg(long, value_name = "DUR")]
    session_idle: Option<String>,
    /// And after so long in any case.
    #[arg(long, value_name = "DUR")]
    session_life: Option<String>,
    /// How long a password or code counts for dangerous actions.
    #[arg(long, value_name = "DUR")]
    proof_life: Option<String>,
    /// To run as root on more hosts than this is dangerous.
    #[arg(long, value_name = "N")]
    dangerous_hosts: Option<String>,
}

/// Flags of the dialect of Saltpeter, for a server.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Saltpeter")]
pub(crate) struct Saltpeter {
    /// Directory of Saltpeter to serve: its jobs, settings and maintenance.
    #[arg(long, value_name = "DIR")]
    saltpeter: Option<String>,
    /// Only say what would be started, beside a Saltpeter that runs the same directory.
    #[arg(long)]
    saltpeter_shadow: bool,
    /// How its commands reach hosts: agent, or salt for hosts without our agent.
    #[arg(long, value_name = "HOW")]
    saltpeter_dispatch: Option<String>,
    /// The program salt.
    #[arg(long, value_name = "FILE")]
    saltpeter_salt: Option<String>,
    /// Address of Saltpeter's API; where `saltpeter_config` says when absent.
    #[arg(long, value_name = "ADDR:PORT")]
    saltpeter_api: Option<String>,
    /// Address that wrappers connect to; where `saltpeter_config` says when absent.
    #[arg(long, value_name = "ADDR:PORT")]
    saltpeter_machines: Option<String>,
    /// File with the token that Saltpeter's API asks for; none when absent.
    #[arg(long, value_name = "FILE")]
    saltpeter_token_file: Option<String>,
    /// File with the key that wrappers must show; none when absent.
    #[arg(long, value_name = "FILE")]
    saltpeter_key_file: Option<String>,
    /// The most disk that records may take which log files and search servers have not got yet.
    #[arg(long, value_name = "SIZE")]
    saltpeter_queue_bytes: Option<String>,
}

/// Flags of an agent.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Agent")]
pub(crate) struct Agent {
    /// Directory of the host's key, the server's pinned keys and the spool.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<String>,
    /// Directory of custom facts.
    #[arg(long, value_name = "DIR")]
    facts_dir: Option<String>,
    /// The local policy.
    #[arg(long, value_name = "FILE")]
    policy: Option<String>,
    /// Tasks at once; the rest wait.
    #[arg(long, value_name = "N")]
    max_tasks: Option<String>,
    /// Output that one task may leave unsent on the disk.
    #[arg(long, value_name = "SIZE")]
    spool_bytes: Option<String>,
    /// HTTP proxy to go through, or none; that of `ALL_PROXY` when absent.
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
}

impl General {
    /// As configuration.
    pub(crate) fn flags(&self) -> Flags {
        given([("log.filter", &self.log), ("log.format", &self.log_format)])
    }
}

impl Server {
    /// As configuration.
    pub(crate) fn flags(&self) -> Flags {
        let mut flags = given([
            ("server.data_dir", &self.data_dir),
            ("server.listen", &self.listen),
            ("server.public_url", &self.public_url),
            ("server.jobs", &self.jobs),
            ("server.tls_cert", &self.tls_cert),
            ("server.tls_key", &self.tls_key),
            ("server.admin_token_file", &self.admin_token_file),
            ("server.retention_age", &self.retention_age),
            ("server.retention_size", &self.retention_size),
            ("server.backup_dir", &self.backup_dir),
            ("server.backup_every", &self.backup_every),
            ("server.backup_keep", &self.backup_keep),
            ("server.lost_after", &self.lost_after),
            ("server.reconnect_grace", &self.reconnect_grace),
            ("server.ping_every", &self.ping_every),
            ("server.max_agents", &self.max_agents),
            ("server.handshake_rate", &self.handshake_rate),
            ("server.session_idle", &self.session_idle),
            ("server.session_life", &self.session_life),
            ("server.proof_life", &self.proof_life),
            ("server.dangerous_hosts", &self.dangerous_hosts),
        ]);
        if !self.trusted_proxy.is_empty() {
            flags.insert("server.trusted_proxy", self.trusted_proxy.join(","));
        }
        if self.insecure_http {
            flags.insert("server.insecure_http", "true".to_owned());
        }
        flags
    }
}

impl Saltpeter {
    /// As configuration.
    pub(crate) fn flags(&self) -> Flags {
        let mut flags = given([
            ("dialects.saltpeter.dir", &self.saltpeter),
            ("dialects.saltpeter.dispatch", &self.saltpeter_dispatch),
            ("dialects.saltpeter.salt", &self.saltpeter_salt),
            ("dialects.saltpeter.api", &self.saltpeter_api),
            ("dialects.saltpeter.machines", &self.saltpeter_machines),
            ("dialects.saltpeter.token_file", &self.saltpeter_token_file),
            ("dialects.saltpeter.key_file", &self.saltpeter_key_file),
            ("dialects.saltpeter.queue_bytes", &self.saltpeter_queue_bytes),
        ]);
        if self.saltpeter_shadow {
            flags.insert("dialects.saltpeter.shadow", "true".to_owned());
        }
        flags
    }
}

impl Agent {
    /// As configuration.
    pub(crate) fn flags(&self) -> Flags {
        given([
            ("agent.state_dir", &self.state_dir),
            ("agent.facts_dir", &self.facts_dir),
            ("agent.policy", &self.policy),
            ("agent.max_tasks", &self.max_tasks),
            ("agent.spool_bytes", &self.spool_bytes),
            ("agent.proxy", &self.proxy),
        ])
    }
}

/// Those that were given.
fn given<const N: usize>(flags: [(&'static str, &Option<String>); N]) -> Flags {
    flags.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        general: General,
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        saltpeter: Saltpeter,
        #[command(flatten)]
        agent: Agent,
    }

    #[test]
    fn every_flag_lays_over_its_key() {
        use clap::CommandFactory as _;
        let command = Line::command();
        let named = command
            .get_arguments()
            .filter(|arg| !matches!(arg.get_id().as_str(), "config" | "help"));
        for arg in named {
            let flag = format!("--{}", arg.get_long().unwrap());
            let takes_value = arg.get_action().takes_values();
            let words = ["x", &flag, "1"].into_iter().take(if takes_value { 3 } else { 2 });
            let line = Line::parse_from(words);
            let laid = [
                line.general.flags(),
                line.server.flags(),
                line.saltpeter.flags(),
                line.agent.flags(),
            ];
            let flags: Vec<_> = laid.into_iter().flatten().map(|(key, _)| key).collect();
            let plain = flag.trim_start_matches("--").replace('-', "_");
            let key = flags.first().unwrap_or_else(|| panic!("{flag} lays over no key"));
            let shown = match plain.as_str() {
                "log" => "filter".to_owned(),
                "saltpeter" => "dir".to_owned(),
                plain => plain.replace("log_", "").replace("saltpeter_", ""),
            };
            assert_eq!(
                (key.rsplit_once('.').unwrap().1, flags.len()),
                (shown.as_str(), 1),
                "{flag}"
            );
        }
    }
}
