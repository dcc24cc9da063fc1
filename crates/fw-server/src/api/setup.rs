//! Set-up links: the first user, and everyone's first password.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use fw_proto::api::{self, Code, Me, Problem, SetupState};
use fw_store::{NewAudit, SetUp};

use super::session;
use super::token::check_name;
use crate::auth::{self, From};
use crate::extract::Body;
use crate::problem::{Failure, Result};
use crate::state::App;

/// Says whether there is no user yet. Needs no token.
#[utoipa::path(get, path = "/setup", tag = "sessions", operation_id = "setup_show",
    security(()), responses((status = 200, body = SetupState)))]
pub(super) async fn state(State(app): State<App>) -> Result<Json<SetupState>> {
    Ok(Json(SetupState { needed: app.store.users().await?.is_empty() }))
}

/// Uses a link up: makes the first user, or sets the password of the link's. They are signed in then. Needs no token.
#[utoipa::path(post, path = "/setup", tag = "sessions", operation_id = "setup_use",
    request_body = api::SetUp, security(()),
    responses((status = 200, body = Me, headers(("Set-Cookie" = String, description = "The session.")))))]
pub(super) async fn set_up(
    State(app): State<App>,
    from: From,
    Body(new): Body<api::SetUp>,
) -> Result<Response> {
    let (sha256, now) = (auth::hash_link(&new.secret), app.clock.now());
    auth::begin_link(&app, &from)?;
    // Looked at first: hashing is work, and not to be had for nothing.
    if !app.store.is_setup_link(sha256, now).await? {
        return Err(no_link());
    }
    if let Some(name) = &new.name {
        check_name(name)?;
    }
    let hash = auth::hash_password(&app, new.password, new.name.as_deref()).await?;
    let whose = app.store.setup_link_user(sha256).await?.or_else(|| new.name.clone());
    let whose = whose.unwrap_or_default();
    let note = NewAudit { by: whose.clone(), ..from.note(&app, "user.set_up", &whose) };
    let name = match app.store.noting(note).set_up(sha256, new.name, hash, now).await? {
        SetUp::Done(name) => name,
        SetUp::NoLink => return Err(no_link()),
        SetUp::NoName => return Err(Failure::invalid("name: choose one for the first user")),
        SetUp::OtherName => return Err(Failure::invalid("name: this link is for somebody else")),
    };
    auth::forget_link(&app.config);
    app.auth.forget();
    tracing::info!(user = name, client.address = %from.address, "set up by link");
    let user = app.store.user(&name).await?.filter(|user| !user.disabled).ok_or_else(no_link)?;
    Ok(session::answer(&app, auth::begin(&app, from, user, auth::Proof::Now).await?))
}

fn no_link() -> Failure {
    let detail = "it was used, replaced or is too old; ask an admin for another one (`fleetwright users reset`), or for the \
                  first user start the server again and read setup.link in its data directory";
    Problem::new(Code::NotFound, "this set-up link is not good").detail(detail).into()
}
