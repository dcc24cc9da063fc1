//! Puts the parts of a server together, and takes them down in the right order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fw_proto::Span;
use fw_rt::{Clock, Tasks};
use fw_store::Store;

use crate::api::invite;
use crate::dialects::saltpeter;
use crate::feed::{self, Feed};
use crate::gateway::admit::Admission;
use crate::lines::Lines;
use crate::live::Live;
use crate::state::{App, Health};
use crate::{Config, api, auth, drive, hub, keys, metrics, private_file, secrets, serve};

/// Answers under way have five seconds at the end; this is a little more, for what follows them.
const SERVING_ENDS_WITHIN: Duration = Duration::from_secs(8);

/// Drivers end at their next await; what they wait for is the store, mostly.
const DRIVING_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Histograms are drained, and quiet addresses forgotten, this often.
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// The join string for the agent of this machine is used at once.
const LOCAL_TTL: Span = Span::from_secs(10 * 60);

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Tokens would travel in the clear.
    #[error(
        "{0} can be reached from other machines, and tokens would travel there in the clear: give --tls-cert and \
         --tls-key, or --trusted-proxy when one ends TLS before this server, or --insecure-http if the network is yours"
    )]
    Exposed(SocketAddr),
    /// The data directory.
    #[error("data directory {path}")]
    Directory {
        /// Which.
        path: String,
        /// What happened.
        source: std::io::Error,
    },
    /// The store.
    #[error("open store")]
    Store(#[from] fw_store::Error),
    /// The keys.
    #[error("open server keys")]
    Keys(#[from] keys::Error),
    /// The secrets.
    #[error("open secrets")]
    Secrets(#[from] secrets::Error),
    /// The jobs.
    #[error("take up jobs")]
    Jobs(#[from] drive::jobs::Error),
    /// The notices.
    #[error("take up notices")]
    Notices(#[from] drive::notices::Error),
    /// The directory of Saltpeter.
    #[error(transparent)]
    Saltpeter(#[from] saltpeter::Error),
    /// The first token.
    #[error("make first token")]
    FirstToken(#[from] auth::FirstTokenError),
    /// The listener.
    #[error(transparent)]
    Serve(#[from] serve::Error),
    /// The address that the system gave.
    #[error("ask for the own address")]
    Address(#[source] std::io::Error),
}

/// A server that runs.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What others call it.
    pub url: String,
    /// The first token, when this start made it.
    pub first_token: Option<String>,
    /// The link that makes the first user, while there is none.
    pub set_up_link: Option<String>,
    /// What its parts share.
    pub app: App,
    /// The directory of Saltpeter that it serves.
    pub saltpeter: Option<saltpeter::Running>,
    serving: Tasks,
    driving: Tasks,
}

/// Starts a server. It serves when this returns.
///
/// # Errors
/// The configuration is unsafe, the data directory is in use or cannot be read, or the address is taken.
pub async fn start(mut config: Config, clock: Clock) -> Result<Running, Error> {
    refuse_exposed(&config)?;
    let metrics = metrics::Metrics::open();
    config.max_connections = serve::within_open_files(config.max_connections);
    let bound = serve::bind(config.listen, config.tls.clone(), config.max_connections).await?;
    config.listen = bound.address().map_err(Error::Address)?;
    // The store's lock keeps a second server out of the directory, so it comes before all other files there.
    let store = Store::open(&config.data_dir, clock.clone()).await?;
    let (keys, secrets) = open_keys(&config)?;
    let first_token = auth::first_token(&store, &config, clock.now()).await?;
    let set_up_link = auth::set_up_link(&store, &config, clock.now()).await?;
    let (serving, driving) = (Tasks::new(), Tasks::new());
    let live = Live::default();
    let parts = hub::Parts {
        store: store.clone(),
        live: live.clone(),
        clock: clock.clone(),
        secrets: secrets.clone(),
        grace: config.grace,
        spool_bytes: config.spool_bytes,
    };
    let hub = hub::start(parts, &driving).await?;
    let health = Health::default();
    let prepared = match config.saltpeter.clone() {
        Some(options) => Some(saltpeter::prepare(options, clock.now())?),
        None => None,
    };
    let parts = drive::jobs::Parts {
        dialect: prepared.as_ref().map(saltpeter::Prepared::dialect),
        store: store.clone(),
        hub: hub.clone(),
        live: live.clone(),
        clock: clock.clone(),
        health: health.clone(),
        dir: config.jobs.clone(),
        lost_after: config.lost_after,
    };
    let jobs = drive::jobs::start(parts, &driving).await?;
    let changes = drive::changes::Parts {
        store: store.clone(),
        hub: hub.clone(),
        live: live.clone(),
        clock: clock.clone(),
        lost_after: config.lost_after,
    };
    let changes = drive::changes::start(changes, &driving).await?;
    let (addr, url, handshake_rate) = (config.listen, config.url(), config.handshake_rate);
    let app = App {
        store,
        hub,
        live,
        feed: Feed::new(clock.now()),
        started_at: clock.now(),
        clock,
        tasks: serving.clone(),
        config: Arc::new(config),
        secrets,
        jobs,
        changes,
        keys,
        lines: Lines::default(),
        auth: auth::Guard::default(),
        admission: Admission::new(handshake_rate),
        metrics: metrics.clone(),
        health,
    };
    driving.spawn("tidy", tidy(metrics, app.admission.clone()));
    drive::notices::start(drive::notices::Parts::of(&app), &driving).await?;
    let saltpeter = match prepared {
        Some(prepared) => Some(saltpeter::start(prepared, app.clone(), &driving).await?),
        None => None,
    };
    feed::start(app.clone(), &driving);
    driving.spawn("access.prune", auth::prune(app.clone()));
    bound.serve(api::router(app.clone()), &serving);
    drive::upkeep::start(drive::upkeep::Parts::of(&app), &driving);
    Ok(Running { addr, url, first_token, set_up_link, app, saltpeter, serving, driving })
}

/// Keeps what grows with use from growing on.
async fn tidy(metrics: metrics::Metrics, admission: Admission) {
    loop {
        tokio::time::sleep(TIDY_EVERY).await;
        metrics.upkeep();
        admission.tidy();
    }
}

fn refuse_exposed(config: &Config) -> Result<(), Error> {
    let safe = config.listen.ip().is_loopback()
        || config.tls.is_some()
        || !config.trusted_proxy.is_empty()
        || config.insecure_http;
    if safe { Ok(()) } else { Err(Error::Exposed(config.listen)) }
}

fn open_keys(config: &Config) -> Result<(keys::ServerKeys, secrets::Vault), Error> {
    let dir = config.data_dir.join("keys");
    let path = dir.display().to_string();
    private_file::create_dir(&dir).map_err(|source| Error::Directory { path, source })?;
    Ok((keys::ServerKeys::open(&dir)?, secrets::Vault::open(&dir)?))
}

impl Running {
    /// Where an agent on this machine reaches the server. The link is encrypted by itself, so over loopback it needs no
    /// TLS; a server with TLS is named by its certificate, so by its public URL.
    #[must_use]
    pub fn local_url(&self) -> String {
        let port = self.addr.port();
        match (self.app.config.tls.is_some(), self.addr.ip()) {
            (true, _) => self.url.clone(),
            (false, IpAddr::V4(ip)) if ip.is_unspecified() => {
                format!("http://{}", SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            }
            (false, IpAddr::V6(ip)) if ip.is_unspecified() => {
                format!("http://{}", SocketAddr::from((Ipv6Addr::LOCALHOST, port)))
            }
            (false, _) => format!("http://{}", self.addr),
        }
    }

    /// A join string for an agent on this machine, good for one use within ten minutes.
    ///
    /// # Errors
    /// It cannot be recorded.
    pub async fn invite_local(&self) -> Result<String, fw_proto::api::Problem> {
        let url = self.local_url();
        let labels = std::collections::BTreeMap::new();
        let made = invite::make(&self.app, url, 1, LOCAL_TTL, labels, "server").await;
        made.map(|invitation| invitation.join).map_err(crate::problem::Failure::into_problem)
    }

    /// Stops: answers under way end, then what drives by itself, then the store. Commands on hosts go on.
    pub async fn stop(self) {
        if !self.serving.shutdown(SERVING_ENDS_WITHIN).await {
            tracing::warn!("some connections were cut off");
        }
        if !self.driving.shutdown(DRIVING_ENDS_WITHIN).await {
            tracing::warn!("some of the server's own tasks were cut off");
        }
        self.app.store.close().await;
    }
}
