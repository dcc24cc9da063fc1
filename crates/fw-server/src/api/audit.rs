//! The audit: what was changed, by whom, and whether that is still what was written.

use axum::Json;
use axum::extract::State;
use fw_proto::api::{AuditCheck, AuditEntry, Page};
use fw_store::AuditQuery;
use serde::Deserialize;
use utoipa::IntoParams;

use super::page;
use crate::extract::Query;
use crate::problem::Result;
use crate::state::App;

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only by this user, or by a token as `token:NAME`.
    by: Option<String>,
    /// Only of this action, such as `host.revoke`.
    action: Option<String>,
    /// Only to this: a host's name, a job's, a run's id.
    subject: Option<String>,
    /// Only on the host of this name.
    host: Option<String>,
    /// Where the page begins: `next` of the one before.
    cursor: Option<String>,
    /// How many, 1 to 1000; 100 when absent.
    limit: Option<u32>,
}

/// Lists what was changed, newest first.
#[utoipa::path(get, path = "/audit", tag = "audit", operation_id = "audit_list", params(ListQuery),
    responses((status = 200, body = Page<AuditEntry>)))]
pub(super) async fn list(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<AuditEntry>>> {
    let ListQuery { by, action, subject, host, cursor, limit } = query;
    let limit = page::limit(limit)?;
    Ok(Json(app.store.audit(AuditQuery { cursor, limit, by, action, subject, host }).await?))
}

/// Looks whether all entries are what they were when they were written, and none is missing.
#[utoipa::path(get, path = "/audit/verify", tag = "audit", operation_id = "audit_verify",
    responses((status = 200, body = AuditCheck)))]
pub(super) async fn verify(State(app): State<App>) -> Result<Json<AuditCheck>> {
    Ok(Json(app.store.verify_audit().await?))
}
