//! Signing a command line in with a browser: it asks and waits, and a person who is signed in says yes or no.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use fw_proto::api::{
    Device, DeviceAnswer, DeviceBegun, DeviceCode, DeviceSecret, DeviceState, NewDevice,
};

use super::session;
use crate::auth::{self, Caller, Collected, From};
use crate::extract::Body;
use crate::problem::{Failure, Result};
use crate::state::App;

/// The longest name of a host.
const MAX_HOST: usize = 64;

/// Begins to sign a command line in: gives the code that a person confirms in a browser. Needs no token.
#[utoipa::path(post, path = "/session/device", tag = "sessions", operation_id = "session_device_begin",
    request_body = NewDevice, security(()), responses((status = 200, body = DeviceBegun),
        (status = 429, description = "Too many wait.")))]
pub(super) async fn begin(
    State(app): State<App>,
    from: From,
    Body(new): Body<NewDevice>,
) -> Result<Json<DeviceBegun>> {
    let fits = !new.host.is_empty() && new.host.chars().count() <= MAX_HOST;
    if !fits || new.host.chars().any(char::is_control) {
        return Err(Failure::invalid(format!("host: use 1 to {MAX_HOST} characters")));
    }
    auth::begin_device(&app, from, new.host).map(Json)
}

/// Says what came of it. When the person said yes, the answer sets the cookie of a session, once. Needs no token.
#[utoipa::path(post, path = "/session/device/answer", tag = "sessions", operation_id = "session_device_answer",
    request_body = DeviceSecret, security(()),
    responses((status = 200, body = DeviceAnswer, headers(("Set-Cookie" = String, description = "The session, when there is one."))),
        (status = 404, description = "It is over.")))]
pub(super) async fn answer(
    State(app): State<App>,
    from: From,
    Body(asked): Body<DeviceSecret>,
) -> Result<Response> {
    let said = |state, interval| DeviceAnswer { state, interval, me: None };
    match auth::collect(&app, from, &asked.secret).await? {
        Collected::Waiting(interval) => {
            Ok(Json(said(DeviceState::Waiting, interval)).into_response())
        }
        Collected::Refused => {
            Ok(Json(said(DeviceState::Refused, fw_proto::Span::ZERO)).into_response())
        }
        Collected::SignedIn(signed_in) => {
            let me = Some(session::me(&app, &signed_in.caller));
            let answer = DeviceAnswer { me, ..said(DeviceState::SignedIn, fw_proto::Span::ZERO) };
            Ok(session::with_cookie(Json(answer).into_response(), signed_in.cookie))
        }
    }
}

/// Shows the command line that has this code, for the person who is to say yes or no.
#[utoipa::path(post, path = "/session/device/show", tag = "sessions", operation_id = "session_device_show",
    request_body = DeviceCode, responses((status = 200, body = Device)))]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Body(typed): Body<DeviceCode>,
) -> Result<Json<Device>> {
    auth::find_device(&app, &caller, &typed.code).await.map(Json)
}

/// Signs the command line that has this code in, as you. Asks for a fresh proof.
#[utoipa::path(post, path = "/session/device/approve", tag = "sessions", operation_id = "session_device_approve",
    request_body = DeviceCode, responses((status = 204)))]
pub(super) async fn approve(
    State(app): State<App>,
    caller: Caller,
    Body(typed): Body<DeviceCode>,
) -> Result<StatusCode> {
    auth::approve_device(&app, &caller, &typed.code).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Refuses the command line that has this code.
#[utoipa::path(post, path = "/session/device/refuse", tag = "sessions", operation_id = "session_device_refuse",
    request_body = DeviceCode, responses((status = 204)))]
pub(super) async fn refuse(
    State(app): State<App>,
    caller: Caller,
    Body(typed): Body<DeviceCode>,
) -> Result<StatusCode> {
    auth::refuse_device(&app, &caller, &typed.code).await?;
    Ok(StatusCode::NO_CONTENT)
}
