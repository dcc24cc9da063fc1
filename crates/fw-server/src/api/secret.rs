//! Secrets: set and removed here, and never given out.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fw_core::command::MAX_SECRET;
use fw_proto::HostName;
use fw_proto::api::{NewSecret, Secret};

use crate::auth::Caller;
use crate::extract::{Body, Path};
use crate::problem::{Failure, Result};
use crate::state::App;

/// Lists the names of secrets.
#[utoipa::path(get, path = "/secrets", tag = "secrets", operation_id = "secrets_list",
    responses((status = 200, body = Vec<Secret>)))]
pub(super) async fn list(State(app): State<App>) -> Result<Json<Vec<Secret>>> {
    Ok(Json(app.store.secrets().await?))
}

/// Sets a secret; what was there before is gone.
#[utoipa::path(put, path = "/secrets/{name}", tag = "secrets", operation_id = "secrets_set",
    params(("name" = String, Path)), request_body = NewSecret, responses((status = 200, body = Secret)))]
pub(super) async fn set(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Body(new): Body<NewSecret>,
) -> Result<Json<Secret>> {
    check_name(&name)?;
    if new.value.is_empty() || new.value.len() > MAX_SECRET || new.value.contains('\0') {
        let rule = format!("value: a secret has 1 to {MAX_SECRET} bytes and no NUL");
        return Err(Failure::invalid(rule));
    }
    let sealed = app.secrets.encrypt(&new.value).map_err(|error| crate::problem::fault(&error))?;
    let updated_at = app.clock.now();
    caller.noting(&app, "secret.set", &name).put_secret(&name, sealed, updated_at).await?;
    tracing::info!(secret = name, by = caller.name, "secret set");
    Ok(Json(Secret { name, updated_at }))
}

/// One rule for all names: what can name a host can name a secret.
fn check_name(name: &str) -> Result<()> {
    let checked = name.parse::<HostName>();
    checked.map(drop).map_err(|error| Failure::invalid(format!("name: {error}")))
}

/// Removes a secret. What needs it is refused from then on.
#[utoipa::path(delete, path = "/secrets/{name}", tag = "secrets", operation_id = "secrets_remove",
    params(("name" = String, Path)), responses((status = 204)))]
pub(super) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode> {
    if !caller.noting(&app, "secret.remove", &name).remove_secret(&name).await? {
        let shown: String = name.chars().take(80).collect();
        let hint = "`fleetwright secrets list` shows those that there are";
        return Err(Failure::not_found("secret", format!("{shown:?}"), hint));
    }
    tracing::info!(secret = name, by = caller.name, "secret removed");
    Ok(StatusCode::NO_CONTENT)
}
