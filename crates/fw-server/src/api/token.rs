//! API tokens.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fw_core::access::Who;
use fw_proto::api::{Code, NewToken, Problem, Scope, Token, TokenMade};
use fw_proto::{Span, Timestamp};
use fw_store::{Changed, TokenRow};

use crate::auth::{self, Caller};
use crate::extract::{Body, Path};
use crate::problem::{Failure, Result};
use crate::state::App;

/// The longest name.
const MAX_NAME: usize = 64;

/// The longest that a token with an end may last; longer is a slip of the keyboard.
const LONGEST: Span = Span::from_secs(10 * 366 * 24 * 60 * 60);

/// Lists tokens by name.
#[utoipa::path(get, path = "/tokens", tag = "tokens", operation_id = "tokens_list",
    responses((status = 200, body = Vec<Token>)))]
pub(super) async fn list(State(app): State<App>) -> Result<Json<Vec<Token>>> {
    let mut tokens = app.store.tokens().await?;
    tokens.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(tokens))
}

/// Makes a token, which is shown this once.
#[utoipa::path(post, path = "/tokens", tag = "tokens", operation_id = "tokens_create",
    request_body = NewToken, responses((status = 201, body = TokenMade)))]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(new): Body<NewToken>,
) -> Result<(StatusCode, Json<TokenMade>)> {
    check_name(&new.name)?;
    if new.ttl == Some(Span::ZERO) {
        return Err(Failure::invalid("ttl: with 0 it would be of no use; leave it out for no end"));
    }
    if new.ttl.is_some_and(|ttl| ttl > LONGEST) {
        return Err(Failure::invalid("ttl: it is longer than 10 years; leave it out for no end"));
    }
    let now = app.clock.now();
    let token = auth::generate();
    let sha256 = auth::hash(&token).expect("what we generate is a token");
    let expires_at = new.ttl.map(|ttl| now + ttl);
    let name = new.name;
    let scopes = new.scopes.map_or_else(|| usual(&caller), |scopes| scopes.into_iter().collect());
    let row = TokenRow {
        name: name.clone(),
        sha256,
        created_at: now,
        expires_at,
        scopes,
        selector: new.selector,
        user: None,
    };
    match app.store.put_token(row).await? {
        Changed::Done => {}
        Changed::Taken | Changed::Unknown => {
            let title = format!("there is a token {name} already");
            let detail =
                "choose another name, or delete that one first (`fleetwright tokens remove`)";
            return Err(Problem::new(Code::NameTaken, title).detail(detail).into());
        }
    }
    tracing::info!(token = name, by = caller.name, "token made");
    Ok((StatusCode::CREATED, Json(TokenMade { name, token, expires_at })))
}

/// What a token may do when nobody says: as much as whoever makes it, without what is dangerous.
fn usual(caller: &Caller) -> BTreeSet<Scope> {
    match &caller.who {
        Who::Person { role, .. } => auth::scopes(*role),
        Who::Token { scopes, .. } => {
            scopes.iter().copied().filter(|scope| *scope != Scope::Dangerous).collect()
        }
    }
}

/// Names stand beside those of jobs (`job:NAME`) and of the server as the actor of a run.
pub(super) fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(fits) {
        let rule = format!("name: use 1 to {MAX_NAME} letters, digits, '.', '_', '-' and '@'");
        return Err(Failure::invalid(rule));
    }
    if name == "server" {
        return Err(Failure::invalid(
            "name: \"server\" is what the server calls itself; choose another",
        ));
    }
    Ok(())
}

/// Deletes a token; it is refused from then on.
#[utoipa::path(delete, path = "/tokens/{name}", tag = "tokens", operation_id = "tokens_remove",
    params(("name" = String, Path)), responses((status = 204), (status = 409, description = "It is the last one.")))]
pub(super) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode> {
    let tokens = app.store.tokens().await?;
    let now = app.clock.now();
    let missing =
        || Failure::not_found("token", format!("{name:?}"), "`fleetwright tokens list` shows them");
    tokens.iter().find(|token| token.name == name).ok_or_else(missing)?;
    if !tokens.iter().any(|token| token.name != name && good(token, now)) {
        let detail = "without it nobody could use this API; make another one first (`fleetwright tokens create`)";
        return Err(Problem::new(Code::Conflict, "this is the last token").detail(detail).into());
    }
    app.store.remove_token(&name).await?;
    app.auth.forget();
    tracing::info!(token = name, by = caller.name, "token deleted");
    Ok(StatusCode::NO_CONTENT)
}

fn good(token: &Token, now: Timestamp) -> bool {
    token.expires_at.is_none_or(|end| end > now)
}
