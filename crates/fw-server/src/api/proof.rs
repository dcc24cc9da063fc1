//! What one proves with who one is: the own password and one-time codes.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fw_core::access::{Action, On};
use fw_proto::api::{NewPassword, RecoveryCodes, TotpCode, TotpSecret};
use fw_store::Changed;

use crate::auth::{self, By, Caller};
use crate::extract::Body;
use crate::problem::{Failure, Result, fault};
use crate::state::App;

/// Sets another password, and signs you out everywhere else. Asks for a fresh proof.
#[utoipa::path(post, path = "/session/password", tag = "sessions", operation_id = "session_password",
    request_body = NewPassword, responses((status = 204)))]
pub(super) async fn password(
    State(app): State<App>,
    caller: Caller,
    Body(new): Body<NewPassword>,
) -> Result<StatusCode> {
    let session = person(&app, &caller)?;
    let hash = auth::hash_password(&app, new.password, Some(&caller.name)).await?;
    caller
        .noting(&app, "user.password", &caller.name)
        .set_password(&caller.name, hash, session)
        .await?;
    app.auth.forget();
    tracing::info!(user = caller.name, "password changed");
    Ok(StatusCode::NO_CONTENT)
}

/// The session of a person who has just proved who they are.
fn person(app: &App, caller: &Caller) -> Result<i64> {
    let By::Session { id, .. } = caller.by else {
        return Err(Failure::invalid("a token has neither password nor codes; sign in first"));
    };
    caller.may(app, Action::Weaken, On::Nothing)?;
    Ok(id)
}

/// Begins to set up one-time codes: gives the secret for your app. Asks for a fresh proof.
#[utoipa::path(post, path = "/session/totp", tag = "sessions", operation_id = "session_totp_begin",
    responses((status = 200, body = TotpSecret)))]
pub(super) async fn begin_totp(State(app): State<App>, caller: Caller) -> Result<Json<TotpSecret>> {
    person(&app, &caller)?;
    let (secret, address, picture) = auth::new_totp(&caller.name);
    let kept = app.secrets.encrypt(&secret).map_err(|error| fault(&error))?;
    app.store.begin_totp(&caller.name, kept).await?;
    Ok(Json(TotpSecret { secret, address, picture }))
}

/// Takes one-time codes into use, with the first code of your app. Gives recovery codes, this once.
#[utoipa::path(post, path = "/session/totp/confirm", tag = "sessions", operation_id = "session_totp_confirm",
    request_body = TotpCode, responses((status = 200, body = RecoveryCodes)))]
pub(super) async fn confirm_totp(
    State(app): State<App>,
    caller: Caller,
    Body(code): Body<TotpCode>,
) -> Result<Json<RecoveryCodes>> {
    person(&app, &caller)?;
    let pending = app.store.user(&caller.name).await?.and_then(|user| user.totp_pending);
    let pending =
        pending.ok_or_else(|| Failure::invalid("begin first: POST /api/v1/session/totp"))?;
    let secret = app.secrets.decrypt(&pending).map_err(|error| fault(&error))?;
    let wrong = "code: it is wrong; is the clock of your phone right?";
    let step = auth::totp_step(&secret, &code.code, app.clock.now());
    let step = step.ok_or_else(|| Failure::invalid(wrong))?;
    let (codes, hashes) = auth::recovery_codes();
    let store = caller.noting(&app, "user.totp_on", &caller.name);
    match store.confirm_totp(&caller.name, pending, step, hashes).await? {
        Changed::Done => {}
        Changed::Unknown | Changed::Taken => {
            return Err(Failure::invalid("another secret was made meanwhile; confirm that one"));
        }
    }
    tracing::info!(user = caller.name, "one-time codes taken into use");
    Ok(Json(RecoveryCodes { codes }))
}

/// Switches one-time codes off. Asks for a fresh proof.
#[utoipa::path(delete, path = "/session/totp", tag = "sessions", operation_id = "session_totp_remove",
    responses((status = 204)))]
pub(super) async fn remove_totp(State(app): State<App>, caller: Caller) -> Result<StatusCode> {
    person(&app, &caller)?;
    caller.noting(&app, "user.totp_off", &caller.name).remove_totp(&caller.name).await?;
    tracing::info!(user = caller.name, "one-time codes switched off");
    Ok(StatusCode::NO_CONTENT)
}
