//! Users: added, changed, removed, given a new link.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fw_core::access::{Action, On};
use fw_proto::Span;
use fw_proto::api::{Code, NewUser, Problem, SetUpLink, User, UserChange, UserMade};
use fw_store::{Changed, NewAudit, Store, UserChanged, UserRow};

use super::token::check_name;
use crate::auth::{self, Caller};
use crate::extract::{Body, Path};
use crate::problem::{Failure, Result};
use crate::state::App;

/// A link that nobody has used by then is forgotten in some mailbox.
const LINK_TTL: Span = Span::from_secs(3 * 24 * 60 * 60);

/// Lists users by name.
#[utoipa::path(get, path = "/users", tag = "users", operation_id = "users_list",
    responses((status = 200, body = Vec<User>)))]
pub(super) async fn list(State(app): State<App>) -> Result<Json<Vec<User>>> {
    Ok(Json(app.store.users().await?.into_iter().map(view).collect()))
}

fn view(row: UserRow) -> User {
    User {
        set_up: row.hash.is_some(),
        totp: row.totp.is_some(),
        name: row.name,
        role: row.role,
        disabled: row.disabled,
        created_at: row.created_at,
        last_sign_in: row.last_sign_in,
    }
}

/// Adds a user, who sets a password with the link. Dangerous: whoever has the link becomes that user.
#[utoipa::path(post, path = "/users", tag = "users", operation_id = "users_add",
    request_body = NewUser, responses((status = 201, body = UserMade)))]
pub(super) async fn add(
    State(app): State<App>,
    caller: Caller,
    Body(new): Body<NewUser>,
) -> Result<(StatusCode, Json<UserMade>)> {
    caller.may(&app, Action::Weaken, On::Fleet)?;
    check_name(&new.name)?;
    if new.hash.as_deref().is_some_and(|hash| !auth::is_known_hash(hash)) {
        let why = "hash: use argon2id or bcrypt as they write it, or $sha256-salted$SALT$HEX";
        return Err(Failure::invalid(why));
    }
    let row = UserRow {
        name: new.name,
        role: new.role,
        hash: new.hash,
        disabled: false,
        totp: None,
        totp_pending: None,
        created_at: app.clock.now(),
        last_sign_in: None,
    };
    let note = NewAudit {
        after: Some(serde_json::json!({ "role": row.role })),
        ..caller.note(&app, "user.add", &row.name)
    };
    match app.store.noting(note).add_user(row.clone()).await? {
        Changed::Done => {}
        Changed::Taken | Changed::Unknown => {
            let title = format!("there is a user {} already", row.name);
            let detail = "choose another name, or change that one (`fleetwright users role`)";
            return Err(Problem::new(Code::NameTaken, title).detail(detail).into());
        }
    }
    tracing::info!(user = row.name, user.role = %row.role, by = caller.name, "user added");
    let link = match row.hash {
        Some(_) => None,
        None => Some(new_link(&app, &app.store, &row.name).await?),
    };
    Ok((StatusCode::CREATED, Json(UserMade { user: view(row), link })))
}

async fn new_link(app: &App, store: &Store, name: &str) -> Result<SetUpLink> {
    let (secret, expires_at) = (auth::link_secret(), app.clock.now() + LINK_TTL);
    let put =
        store.put_setup_link(auth::hash_link(&secret), Some(name.to_owned()), Some(expires_at));
    match put.await? {
        Changed::Done => {}
        Changed::Unknown | Changed::Taken => return Err(missing(name)),
    }
    app.auth.forget();
    Ok(SetUpLink { name: name.to_owned(), link: auth::link(&app.config, &secret), expires_at })
}

fn missing(name: &str) -> Failure {
    Failure::not_found("user", format!("{name:?}"), "`fleetwright users list` shows them")
}

/// Changes a role, or lets a user in no more: their sessions end and their tokens stop.
#[utoipa::path(patch, path = "/users/{name}", tag = "users", operation_id = "users_change",
    params(("name" = String, Path)), request_body = UserChange,
    responses((status = 200, body = User), (status = 409, description = "It is the last admin.")))]
pub(super) async fn change(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Body(change): Body<UserChange>,
) -> Result<Json<User>> {
    caller.may(&app, Action::Weaken, On::Fleet)?;
    let before = app.store.user(&name).await?;
    let note = NewAudit {
        before: before.as_ref().map(noted),
        after: Some(serde_json::json!(change)),
        ..caller.note(&app, "user.change", &name)
    };
    done(app.store.noting(note).change_user(&name, change.role, change.disabled).await?, &name)?;
    app.auth.forget();
    let row = app.store.user(&name).await?.ok_or_else(|| missing(&name))?;
    tracing::info!(user = name, user.role = %row.role, user.disabled = row.disabled, by = caller.name, "user changed");
    Ok(Json(view(row)))
}

fn noted(row: &UserRow) -> serde_json::Value {
    serde_json::json!({ "role": row.role, "disabled": row.disabled })
}

fn done(changed: UserChanged, name: &str) -> Result<()> {
    match changed {
        UserChanged::Done => Ok(()),
        UserChanged::Unknown => Err(missing(name)),
        UserChanged::LastAdmin => {
            let detail = "nobody could change users any more; make another admin first (`fleetwright users role`)";
            Err(Problem::new(Code::Conflict, "this is the last admin").detail(detail).into())
        }
    }
}

/// Removes a user with their sessions and tokens. What they did stays.
#[utoipa::path(delete, path = "/users/{name}", tag = "users", operation_id = "users_remove",
    params(("name" = String, Path)),
    responses((status = 204), (status = 409, description = "It is the last admin.")))]
pub(super) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode> {
    caller.may(&app, Action::Weaken, On::Fleet)?;
    let before = app.store.user(&name).await?;
    let note =
        NewAudit { before: before.as_ref().map(noted), ..caller.note(&app, "user.remove", &name) };
    done(app.store.noting(note).remove_user(&name).await?, &name)?;
    app.auth.forget();
    tracing::info!(user = name, by = caller.name, "user removed");
    Ok(StatusCode::NO_CONTENT)
}

/// Takes password, one-time codes and sessions from a user, and gives a link for a new password. Dangerous, as adding one.
#[utoipa::path(post, path = "/users/{name}/reset", tag = "users", operation_id = "users_reset",
    params(("name" = String, Path)), responses((status = 200, body = SetUpLink)))]
pub(super) async fn reset(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<SetUpLink>> {
    caller.may(&app, Action::Weaken, On::Fleet)?;
    let link = new_link(&app, &caller.noting(&app, "user.reset", &name), &name).await?;
    tracing::info!(user = name, by = caller.name, "user reset");
    Ok(Json(link))
}
