//! Whether the server lives, can do its work, and what it has counted. At the root, without token.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use fw_proto::api::Readiness;

use crate::metrics::{ASYNC_TASKS, HOSTS_ONLINE, MAINTENANCES, RUNS_ACTIVE};
use crate::problem::Result;
use crate::state::App;

/// The routes of this file.
pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

/// The process answers; nothing more is said.
async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether all work can be done. A store that is open has been migrated; that it can write is tried.
async fn readyz(State(app): State<App>) -> Response {
    let mut reasons = app.health.reasons();
    reasons.extend(app.health.cannot_write(&app.store, &app.clock).await);
    if app.tasks.token().is_cancelled() {
        reasons.push("server is stopping".to_owned());
    }
    let ready = reasons.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, reasons })).into_response()
}

/// The text format of Prometheus, version 0.0.4.
async fn metrics(State(app): State<App>) -> Result<Response> {
    let counts = app.hub.counts().await?;
    gauge(HOSTS_ONLINE, counts.hosts_online);
    gauge(RUNS_ACTIVE, counts.runs_active);
    gauge(MAINTENANCES, app.jobs.held().in_force(app.clock.now()).count());
    gauge(ASYNC_TASKS, tokio::runtime::Handle::current().metrics().num_alive_tasks());
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((kind, app.metrics.render()).into_response())
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn gauge(name: &'static str, value: usize) {
    ::metrics::gauge!(name).set(value as f64);
}
