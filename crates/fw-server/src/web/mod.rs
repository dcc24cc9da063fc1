//! The dashboard: pages for people, one file a noun.
//!
//! Pages show, and change nothing: what a person does on one goes to the API, with the session's cookie, so that one
//! place decides what is allowed. Templates are in `templates/`, styles, scripts and fonts in `assets/`. No page has a
//! script or a style of its own in it, so the content security policy allows neither.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use tower::ServiceBuilder;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::auth;
use crate::state::App;

mod account;
mod assets;
mod audit;
mod banner;
mod command;
mod device;
mod error;
mod heat;
mod host;
mod host_page;
mod job;
mod link;
mod maintenance;
mod may;
mod overview;
mod page;
mod rollout;
mod rollout_page;
mod run;
mod run_page;
mod runbook;
mod runbook_page;
mod settings;
mod sign_in;
mod spec;
mod strip;
mod time;
mod trend;
mod words;

/// What pages may load and where from: this server alone, and nothing that stands inside of a page.
const POLICY: &str = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; \
                      frame-ancestors 'none'";

/// All pages and what they load.
pub(crate) fn router(app: &App) -> Router<App> {
    let pages = Router::new()
        .route("/", get(overview::show))
        .route("/hosts", get(host::list))
        .route("/hosts/{host}", get(host_page::show))
        .route("/jobs", get(job::list))
        .route("/jobs/{name}", get(job::show))
        .route("/runs", get(run::list))
        .route("/runs/{id}", get(run_page::show))
        .route("/run", get(command::form))
        .route("/run/preview", get(command::preview))
        .route("/rollouts", get(rollout::list))
        .route("/rollouts/new", get(rollout::form))
        .route("/rollouts/{id}", get(rollout_page::show))
        .route("/runbooks", get(runbook::list))
        .route("/runbooks/new", get(runbook::form))
        .route("/runbooks/{id}", get(runbook_page::show))
        .route("/maintenance", get(maintenance::list))
        .route("/banner", get(banner::show))
        .route("/audit", get(audit::list))
        .route("/device", get(device::show))
        .route("/settings", get(settings::first))
        .route("/settings/account", get(account::show))
        .route("/settings/enrolment", get(settings::enrolment))
        .route("/settings/users", get(settings::users))
        .route("/settings/sessions", get(settings::sessions))
        .route("/settings/tokens", get(settings::tokens))
        .route("/settings/about", get(settings::about))
        .route_layer(from_fn_with_state(app.clone(), auth::require_page))
        .route_layer(from_fn(sign_in::come_back));
    let policy = HeaderValue::from_static(POLICY);
    let hardened = ServiceBuilder::new()
        .layer(SetResponseHeaderLayer::if_not_present(header::CONTENT_SECURITY_POLICY, policy));
    pages.merge(sign_in::routes()).merge(assets::routes()).layer(hardened)
}
