//! The API of Saltpeter: what its users' scripts ask for, and the socket that its pages follow.
//!
//! `state` is what is asked for, looked up at most once a second for all who ask; `view` writes it as
//! Saltpeter does; `routes` answers requests, `socket` those who follow.

mod output;
mod routes;
mod socket;
mod state;
#[cfg(test)]
mod tests;
mod timeline;
mod view;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use fw_core::run::Actor;
use fw_proto::RunId;
use fw_proto::api::{Code, Problem};
use fw_rt::Tasks;
use tracing::{info, warn};

pub(super) use state::State;

use super::served::Watch;
use super::{Error, Options, names, translate};
use crate::serve;
use crate::state::App;

/// People and their pages, not agents.
const MOST_CONNECTIONS: usize = 1024;

/// Listens, when the options or `saltpeter_config` say so; gives the address.
///
/// # Errors
/// The address is taken.
pub(super) async fn start(
    options: &Options,
    served: Watch,
    app: &App,
    tasks: &Tasks,
) -> Result<Option<SocketAddr>, Error> {
    let Some(address) = address(options, &served) else { return Ok(None) };
    let failed = |source: serve::Error| Error::Listen { what: "its API", address, source };
    let bound = serve::bind(address, None, MOST_CONNECTIONS).await.map_err(failed)?;
    let bound_to = bound.address().map_err(|source| Error::Listen {
        what: "its API",
        address,
        source: serve::Error::Bind { address, source },
    })?;
    if options.token.is_none() && !address.ip().to_canonical().is_loopback() {
        warn!(
            "Saltpeter's API on {bound_to} asks for no token: whoever reaches it may run and kill jobs; set \
             dialects.saltpeter.token, or let it listen on 127.0.0.1"
        );
    }
    info!(saltpeter.api = %bound_to, "Saltpeter's API listens on {bound_to}");
    let state = State::new(app.clone(), served, options.token.as_deref(), tasks.token());
    bound.serve(routes::router(state), tasks);
    Ok(Some(bound_to))
}

/// Where to listen. Without a token only this machine is served, unless someone names an address.
fn address(options: &Options, served: &Watch) -> Option<SocketAddr> {
    let served = served.borrow();
    let settings = &served.settings;
    let by_settings = || {
        let open =
            if options.token.is_some() { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
        let ip = settings.api_ws_bind_addr.unwrap_or(IpAddr::V4(open));
        settings.api_ws.then(|| SocketAddr::new(ip, settings.api_ws_port))
    };
    options.api.or_else(by_settings)
}

/// Begins a run of a job.
///
/// # Errors
/// There is no such job, or it cannot run now.
async fn run_now(state: &State, job: &str) -> Result<RunId, Problem> {
    let served = state.served();
    if served.directory.maintenance.global {
        let detail = "saltpeter_maintenance says global: true; ask again when it is over";
        return Err(Problem::new(
            Code::Conflict,
            "maintenance mode is active, so nothing is begun",
        )
        .detail(detail));
    }
    if !served.directory.jobs.contains_key(job) {
        return Err(Problem::new(Code::NotFound, format!("there is no job {job}")));
    }
    state.app.jobs.run_now(&names::job_name(job), actor()).await
}

/// Ends all runs of a job; gives how many.
///
/// # Errors
/// The server is stopping, or the store could not commit.
async fn kill(state: &State, job: &str) -> Result<usize, crate::hub::Error> {
    let name = names::job_name(job);
    let active = state.app.hub.active().await?;
    let mut killed = 0;
    for (run, _) in active.into_iter().filter(|(_, of)| of.as_ref() == Some(&name)) {
        killed += usize::from(state.app.hub.cancel(run, actor()).await?);
    }
    Ok(killed)
}

/// Ends what a job runs on one machine: all of it, or what one instance does; the other machines go on. Says
/// whether there was such.
///
/// # Errors
/// It cannot be looked up, or the store could not commit.
async fn kill_machine(
    state: &State,
    job: &str,
    machine: &str,
    instance: Option<&str>,
) -> Result<bool, state::Error> {
    let rows = state.app.store.hosts();
    let Some(host) = rows.iter().find(|row| row.name.as_str() == machine).map(|row| row.id) else {
        return Ok(false);
    };
    let (snapshot, mut killed) = (state.now(true).await?, false);
    for (_, run) in snapshot.running.iter().filter(|(of, _)| of == job) {
        if instance.is_none_or(|instance| instance == view::instance(job, run)) {
            let id = run.summary.id;
            let open = state.app.hub.cancel_hosts(id, vec![host], actor()).await?;
            killed |= open.is_some_and(|open| open > 0);
        }
    }
    Ok(killed)
}

/// Who asks: this API knows no names.
fn actor() -> Actor {
    Actor::Token(translate::NAME.to_owned())
}
