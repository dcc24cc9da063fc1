//! A server on this machine.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use fw_core::access::Rules;
use fw_rt::Clock;
use fw_server::dialects::saltpeter;
use fw_server::{BackupConfig, Running, TlsFiles};
use fw_store::Retention;
use tracing::info;

use super::told_to_stop;
use crate::config::{Config, SaltpeterConfig, Secret};

/// Runs a server until it is told to stop.
pub(crate) fn serve(config: &Config) -> anyhow::Result<()> {
    config.server.check()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let running = start(config).await?;
        info!(server.addr = %running.addr, "server listens on {}", running.url);
        if running.first_token.is_some() {
            info!(
                "first admin token written to {}",
                config.server.data_dir.join("admin.token").display()
            );
        }
        if let Some(link) = &running.set_up_link {
            announce(link, &config.server.data_dir.join("setup.link"))?;
        }
        info!("{}: stopping", told_to_stop().await?);
        running.stop().await;
        Ok(())
    })
}

/// Says how the first person signs in. The link itself is for whoever looks on, and not for logs that others read.
fn announce(link: &str, file: &Path) -> std::io::Result<()> {
    info!("nobody can sign in yet: open the link in {}", file.display());
    let mut out = std::io::stdout().lock();
    if out.is_terminal() {
        writeln!(out, "Open once, to sign in: {link}")?;
    }
    Ok(())
}

/// Starts a server.
pub(super) async fn start(config: &Config) -> Result<Running, fw_server::Error> {
    fw_server::start(settings(config), Clock::system()).await
}

/// The server's part of the configuration, as the server takes it.
fn settings(config: &Config) -> fw_server::Config {
    let Config { server: config, saltpeter, .. } = config;
    let mut settings = fw_server::Config::new(config.data_dir.clone(), config.listen);
    settings.saltpeter = dialect(saltpeter);
    settings.public_url = config.public_url.as_ref().map(ToString::to_string);
    settings.jobs.clone_from(&config.jobs);
    settings.tls = config
        .tls_cert
        .clone()
        .zip(config.tls_key.clone())
        .map(|(cert, key)| TlsFiles { cert, key });
    settings.trusted_proxy.clone_from(&config.trusted_proxy);
    settings.insecure_http = config.insecure_http;
    settings.admin_token = config.admin_token.as_ref().map(|token| token.0.clone());
    settings.retention = Retention { age: config.retention_age, bytes: config.retention_size.0 };
    settings.backup = BackupConfig {
        dir: config.backup_dir.clone().unwrap_or_else(|| config.data_dir.join("backups")),
        every: (config.backup_every.as_millis() > 0).then_some(config.backup_every),
        keep: config.backup_keep,
    };
    settings.lost_after = config.lost_after;
    settings.grace = config.reconnect_grace;
    settings.ping_every = config.ping_every.0;
    settings.handshake_rate = config.handshake_rate.get();
    settings.session_idle = config.session_idle.0;
    settings.session_life = config.session_life.0;
    settings.access = Rules { fresh: config.proof_life.0, root_hosts: config.dangerous_hosts };
    // Pages, API and command lines have room beside the agents.
    settings.max_connections =
        usize::try_from(config.max_agents.get()).unwrap_or(usize::MAX).saturating_add(1024);
    settings
}

/// The dialect as the server takes it; `None` when it is off.
fn dialect(config: &SaltpeterConfig) -> Option<saltpeter::Options> {
    let text = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.0.clone());
    Some(saltpeter::Options {
        dir: config.dir.clone()?,
        shadow: config.shadow,
        dispatch: config.dispatch.0,
        salt: config.salt.clone(),
        api: config.api,
        machines: config.machines,
        token: text(&config.token),
        key: text(&config.key),
        queue_bytes: config.queue_bytes.0,
    })
}
