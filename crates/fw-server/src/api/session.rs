//! Sessions: signing in and out, proving who one is once more, and where else one is signed in.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use fw_core::access::{Action, On, Who};
use fw_proto::api::{Me, Session, SignIn, StepUp};
use fw_store::SessionRow;

use crate::auth::{self, By, Caller, From};
use crate::extract::{Body, Path};
use crate::problem::{Failure, Result};
use crate::state::App;

/// Signs in: sets the cookie of a new session. Needs no token.
#[utoipa::path(post, path = "/session", tag = "sessions", operation_id = "session_begin",
    request_body = SignIn, security(()),
    responses((status = 200, body = Me, headers(("Set-Cookie" = String, description = "The session."))),
        (status = 401, description = "Wrong, or a one-time code is needed too.")))]
pub(super) async fn begin(
    State(app): State<App>,
    from: From,
    Body(who): Body<SignIn>,
) -> Result<Response> {
    let signed_in = auth::sign_in(&app, from, who).await?;
    Ok(answer(&app, signed_in))
}

/// Who has signed in, with the cookie.
pub(super) fn answer(app: &App, signed_in: auth::SignedIn) -> Response {
    let auth::SignedIn { caller, cookie } = signed_in;
    with_cookie(Json(me(app, &caller)).into_response(), cookie)
}

pub(super) fn with_cookie(mut response: Response, cookie: HeaderValue) -> Response {
    response.headers_mut().append(header::SET_COOKIE, cookie);
    response
}

/// Signs out: ends the session of the cookie. Whoever is signed out already is as well.
#[utoipa::path(delete, path = "/session", tag = "sessions", operation_id = "session_end",
    security(()), responses((status = 204)))]
pub(super) async fn end_own(
    State(app): State<App>,
    from: From,
    parts: axum::http::request::Parts,
) -> Result<Response> {
    let peer =
        parts.extensions.get().ok_or_else(|| Failure::invalid("it came over no connection"))?;
    if let Some(caller) = auth::identify(&app, peer, &parts.headers).await?
        && let By::Session { id, .. } = caller.by
    {
        caller.noting(&app, "session.end", &caller.name).end_session(id, None).await?;
        app.auth.forget();
    }
    Ok(with_cookie(StatusCode::NO_CONTENT.into_response(), auth::no_cookie(&from)))
}

/// Says who you are, and what you may do.
#[utoipa::path(get, path = "/session", tag = "sessions", operation_id = "session_show",
    responses((status = 200, body = Me)))]
pub(super) async fn show(State(app): State<App>, caller: Caller) -> Json<Me> {
    Json(me(&app, &caller))
}

pub(super) fn me(app: &App, caller: &Caller) -> Me {
    let (session, totp) = match &caller.by {
        By::Session { id, totp, .. } => (Some(*id), *totp),
        By::Token { .. } => (None, false),
    };
    let (role, scopes, selector, stepped_up_until) = match &caller.who {
        Who::Person { role, proved_at } => {
            let until = *proved_at + app.config.access.fresh;
            let scopes = auth::scopes(*role);
            (Some(*role), scopes, None, Some(until).filter(|until| *until > app.clock.now()))
        }
        Who::Token { scopes, owner, selector } => {
            let selector = selector.as_ref().map(ToString::to_string);
            (*owner, scopes.clone(), selector, None)
        }
    };
    Me {
        name: caller.name.clone(),
        role,
        scopes: scopes.into_iter().collect(),
        selector,
        totp,
        session,
        stepped_up_until,
        expires_at: caller.expires_at(),
    }
}

/// Proves once more who you are, with the password or a one-time code: dangerous actions are then let through for a while.
#[utoipa::path(post, path = "/session/step-up", tag = "sessions", operation_id = "session_step_up",
    request_body = StepUp, responses((status = 200, body = Me)))]
pub(super) async fn step_up(
    State(app): State<App>,
    mut caller: Caller,
    Body(proof): Body<StepUp>,
) -> Result<Json<Me>> {
    let now = auth::step_up(&app, &caller, proof).await?;
    if let Who::Person { proved_at, .. } = &mut caller.who {
        *proved_at = now;
    }
    Ok(Json(me(&app, &caller)))
}

/// Lists sessions, newest first: your own, or everybody's for an admin.
#[utoipa::path(get, path = "/sessions", tag = "sessions", operation_id = "sessions_list",
    responses((status = 200, body = Vec<Session>)))]
pub(super) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Vec<Session>>> {
    let all = caller.may(&app, Action::Grant, On::Fleet).is_ok();
    let rows = match caller.by {
        _ if all => app.store.sessions().await?,
        By::Session { .. } => app.store.sessions_of(&caller.name).await?,
        By::Token { .. } => Vec::new(),
    };
    let now = app.clock.now();
    let open =
        |row: &SessionRow| row.expires_at > now && row.used_at + app.config.session_idle > now;
    Ok(Json(rows.into_iter().filter(open).map(|row| view(row, &caller)).collect()))
}

fn view(row: SessionRow, caller: &Caller) -> Session {
    let current = matches!(caller.by, By::Session { id, .. } if id == row.id);
    let SessionRow { id, user, address, agent, created_at, used_at, expires_at, .. } = row;
    Session { id, user, address, agent, created_at, used_at, expires_at, current }
}

/// Ends a session: one of yours, or anyone's for an admin.
#[utoipa::path(delete, path = "/sessions/{id}", tag = "sessions", operation_id = "sessions_end",
    params(("id" = i64, Path)), responses((status = 204)))]
pub(super) async fn end(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<i64>,
) -> Result<StatusCode> {
    let all = caller.may(&app, Action::Grant, On::Fleet).is_ok();
    let own = match caller.by {
        By::Session { .. } => Some(caller.name.as_str()),
        By::Token { .. } => Some(""),
    };
    let missing = || Failure::not_found("session", id, "it is over, or not yours");
    let rows = app.store.sessions().await?;
    let row = rows.into_iter().find(|row| row.id == id).ok_or_else(missing)?;
    let note = caller.noting(&app, "session.end", &row.user);
    if !note.end_session(id, own.filter(|_| !all)).await? {
        return Err(missing());
    }
    app.auth.forget();
    tracing::info!(session = id, by = caller.name, "session ended");
    Ok(StatusCode::NO_CONTENT)
}

/// Signs you out everywhere else.
#[utoipa::path(delete, path = "/sessions", tag = "sessions", operation_id = "sessions_end_all",
    responses((status = 204)))]
pub(super) async fn end_all(State(app): State<App>, caller: Caller) -> Result<StatusCode> {
    let By::Session { id, .. } = caller.by else {
        return Err(Failure::invalid("a token has no sessions; sign in first"));
    };
    caller
        .noting(&app, "session.end_others", &caller.name)
        .end_sessions(&caller.name, Some(id))
        .await?;
    app.auth.forget();
    tracing::info!(user = caller.name, "signed out everywhere else");
    Ok(StatusCode::NO_CONTENT)
}
