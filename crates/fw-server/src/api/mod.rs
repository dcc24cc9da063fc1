//! The HTTP API: one file a noun, and in it, top to bottom, each route's query, answer and handler.
//!
//! Router and `OpenAPI` document come from one list, so a route cannot be missing from the document.

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::extract::BodyLimit;
use crate::state::App;
use crate::{auth, gateway, metrics, problem, web};

mod audit;
pub(crate) mod change;
mod device;
mod events;
mod health;
mod host;
pub(crate) mod invite;
mod job;
mod log;
mod log_lines;
pub(crate) mod maintenance;
mod noted;
mod openapi;
mod page;
mod proof;
pub(crate) mod rollout;
pub(crate) mod run;
mod run_events;
pub(crate) mod runbook;
mod runbook_report;
mod secret;
mod server;
mod session;
mod setup;
pub(crate) mod token;
mod user;

/// Where the API is.
pub(crate) const ROOT: &str = "/api/v1";

/// The largest body of a request.
const MAX_BODY: BodyLimit = BodyLimit { mebibytes: 1 };

/// The largest body that carries a job text.
const MAX_JOBS: BodyLimit = BodyLimit { mebibytes: 4 };

/// The largest body that carries a runbook or a rollout: a text of 1 MiB, with what JSON and values add.
const MAX_DOCUMENT: BodyLimit = BodyLimit { mebibytes: 3 };

/// The header that names the maintenances in force.
const MAINTENANCE: header::HeaderName = header::HeaderName::from_static("fleetwright-maintenance");

/// So many are named there, the earliest.
const TOLD: usize = 20;

/// As the layer knows it.
fn limit_of(limit: BodyLimit) -> DefaultBodyLimit {
    DefaultBodyLimit::max(usize::try_from(limit.bytes()).unwrap_or(usize::MAX))
}

/// All routes, those of the agents' links too, ready to be served.
pub(crate) fn router(app: App) -> Router {
    let (routes, guarded) = documented().split_for_parts();
    let (open, mut document) = open().split_for_parts();
    document.merge(guarded);
    let routes = routes
        .route_layer(axum::middleware::from_fn_with_state(app.clone(), told))
        .route_layer(axum::middleware::from_fn_with_state(app.clone(), auth::require));
    let hardened = ServiceBuilder::new()
        .layer(header_layer(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(header_layer(header::X_FRAME_OPTIONS, "DENY"))
        .layer(header_layer(header::REFERRER_POLICY, "no-referrer"))
        .layer(header_layer(
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ))
        .layer(header_layer(header::CACHE_CONTROL, "no-store"))
        .layer(axum::middleware::from_fn(metrics::observe))
        .layer(CatchPanicLayer::custom(problem::panicked));
    Router::new()
        .merge(routes)
        .merge(openapi::route(ROOT, document))
        .merge(open)
        .merge(health::routes())
        .merge(gateway::router())
        .merge(web::router(&app))
        .with_state(app)
        .fallback(problem::unknown_route)
        .method_not_allowed_fallback(problem::unknown_method)
        .layer(limit_of(MAX_BODY))
        .layer(hardened)
}

/// A header that answers carry unless their handler set it.
fn header_layer(
    name: header::HeaderName,
    value: &'static str,
) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

/// Tells with every answer which maintenances are in force. Costs a look at those that are on.
async fn told(State(app): State<App>, request: Request, next: Next) -> Response {
    let mut answer = next.run(request).await;
    let (held, now) = (app.jobs.held(), app.clock.now());
    let ids: Vec<_> = held.in_force(now).take(TOLD).map(|(id, _)| id.to_string()).collect();
    if let Ok(ids) = HeaderValue::from_str(&ids.join(", "))
        && !ids.is_empty()
    {
        answer.headers_mut().insert(MAINTENANCE, ids);
    }
    answer
}

/// The routes that nobody has to be let in for: who uses them cannot be yet, or not any more.
fn open() -> OpenApiRouter<App> {
    let api = OpenApiRouter::new()
        .routes(routes!(session::begin, session::end_own))
        .routes(routes!(device::begin))
        .routes(routes!(device::answer))
        .routes(routes!(setup::state, setup::set_up));
    OpenApiRouter::with_openapi(openapi::head()).nest(ROOT, api)
}

/// The routes that need a token, and their document.
fn documented() -> OpenApiRouter<App> {
    let texts = OpenApiRouter::new()
        .routes(routes!(job::check))
        .routes(routes!(job::apply))
        .layer(axum::Extension(MAX_JOBS))
        .layer(limit_of(MAX_JOBS));
    let documents = OpenApiRouter::new()
        .routes(routes!(rollout::plan))
        .routes(routes!(rollout::begin, rollout::list))
        .routes(routes!(runbook::begin, runbook::list))
        .routes(routes!(runbook::rehearsal))
        .layer(axum::Extension(MAX_DOCUMENT))
        .layer(limit_of(MAX_DOCUMENT));
    let api = OpenApiRouter::new()
        .routes(routes!(events::follow))
        .routes(routes!(host::list))
        .routes(routes!(host::select))
        .routes(routes!(host::events))
        .routes(routes!(host::show, host::rename, host::remove))
        .routes(routes!(host::label))
        .routes(routes!(host::revoke))
        .routes(routes!(invite::invite))
        .routes(routes!(run::begin, run::list))
        .routes(routes!(run::show))
        .routes(routes!(run::cancel))
        .routes(routes!(run::retry))
        .routes(routes!(run_events::events))
        .routes(routes!(log::follow))
        .routes(routes!(log::raw))
        .routes(routes!(log_lines::lines))
        .routes(routes!(log_lines::search))
        .routes(routes!(log_lines::text))
        .routes(routes!(job::list))
        .routes(routes!(job::errors))
        .merge(texts)
        .routes(routes!(job::show, job::delete))
        .routes(routes!(job::run))
        .routes(routes!(job::pause))
        .routes(routes!(job::resume))
        .routes(routes!(job::ledger))
        .merge(documents)
        .routes(routes!(rollout::show))
        .routes(routes!(rollout::ask))
        .routes(routes!(runbook::show))
        .routes(routes!(runbook_report::report))
        .routes(routes!(runbook::ask))
        .routes(routes!(runbook::step))
        .routes(routes!(maintenance::list, maintenance::begin))
        .routes(routes!(maintenance::show))
        .routes(routes!(maintenance::end))
        .routes(routes!(token::list, token::create))
        .routes(routes!(token::remove))
        .routes(routes!(session::show))
        .routes(routes!(session::step_up))
        .routes(routes!(device::show))
        .routes(routes!(device::approve))
        .routes(routes!(device::refuse))
        .routes(routes!(proof::password))
        .routes(routes!(proof::begin_totp, proof::remove_totp))
        .routes(routes!(proof::confirm_totp))
        .routes(routes!(audit::list))
        .routes(routes!(audit::verify))
        .routes(routes!(user::list, user::add))
        .routes(routes!(user::change, user::remove))
        .routes(routes!(user::reset))
        .routes(routes!(session::list, session::end_all))
        .routes(routes!(session::end))
        .routes(routes!(secret::list))
        .routes(routes!(secret::set, secret::remove))
        .routes(routes!(server::show))
        .routes(routes!(server::rotate))
        .routes(routes!(server::backup));
    OpenApiRouter::with_openapi(openapi::head()).nest(ROOT, api)
}

/// The `OpenAPI` document, as it is served.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = open().into_openapi();
    document.merge(documented().into_openapi());
    openapi::complete(ROOT, document)
}
