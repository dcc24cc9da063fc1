//! API tokens.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fw_core::access::{Action, On, Who};
use fw_proto::api::{Code, NewToken, Problem, Scope, Token, TokenMade};
use fw_proto::{Span, Timestamp};
use fw_store::{Changed, NewAudit, TokenRow};

use crate::auth::{self, By, Caller};
use crate::extract::{Body, Path};
use crate::fleet;
use crate::problem::{Failure, Result};
use crate::state::App;

/// The longest name.
const MAX_NAME: usize = 64;

/// The longest that a token with an end may last; longer is a slip of the keyboard.
const LONGEST: Span = Span::from_secs(10 * 366 * 24 * 60 * 60);

/// Lists tokens by name: your own, or all for an admin.
#[utoipa::path(get, path = "/tokens", tag = "tokens", operation_id = "tokens_list",
    responses((status = 200, body = Vec<Token>)))]
pub(super) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Vec<Token>>> {
    let mut tokens = app.store.tokens().await?;
    tokens.retain(|token| concerns(&app, &caller, token));
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
    let selector = new.selector.as_deref().map(limit).transpose()?;
    let scopes = new.scopes.map_or_else(|| usual(&caller), |scopes| scopes.into_iter().collect());
    may_give(&app, &caller, &scopes)?;
    let row = TokenRow {
        name: name.clone(),
        sha256,
        created_at: now,
        expires_at,
        scopes,
        selector,
        user: caller.person().map(str::to_owned),
    };
    let note = NewAudit {
        after: Some(
            serde_json::json!({ "scopes": row.scopes, "selector": row.selector, "user": row.user, "expires_at": expires_at }),
        ),
        ..caller.note(&app, "token.create", &name)
    };
    match app.store.noting(note).put_token(row).await? {
        Changed::Done => {}
        Changed::Taken | Changed::Unknown => {
            let title = format!("there is a token {name} already");
            let detail =
                "choose another name, or delete that one first (`fleetwright tokens revoke`)";
            return Err(Problem::new(Code::NameTaken, title).detail(detail).into());
        }
    }
    tracing::info!(token = name, by = caller.name, "token made");
    Ok((StatusCode::CREATED, Json(TokenMade { name, token, expires_at })))
}

/// Whether a token is a caller's to see and remove.
pub(crate) fn concerns(app: &App, caller: &Caller, token: &Token) -> bool {
    let own = token.user.is_some() && token.user.as_deref() == caller.person();
    let itself = matches!(caller.by, By::Token { .. }) && token.name == caller.name;
    own || itself || caller.may(app, Action::Grant, On::Fleet).is_ok()
}

/// Nobody gives what they have not. What is dangerous takes a fresh proof.
fn may_give(app: &App, caller: &Caller, scopes: &BTreeSet<Scope>) -> Result<()> {
    if scopes.is_empty() {
        return Err(Failure::invalid("scopes: name at least one of read, run, admin"));
    }
    if caller.is_limited() {
        caller.may(app, Action::Grant, On::Fleet)?;
    }
    let own = match &caller.who {
        Who::Person { role, .. } => auth::scopes(*role),
        Who::Token { scopes, .. } => scopes.clone(),
    };
    if scopes.contains(&Scope::Dangerous) {
        caller.may(app, Action::Weaken, On::Nothing)?;
    }
    let beyond = |scope: &&Scope| {
        **scope != Scope::Dangerous
            && !own.iter().any(|has| has >= *scope && *has != Scope::Dangerous)
    };
    match scopes.iter().find(beyond) {
        None => Ok(()),
        Some(scope) => {
            let detail = "a token may at most what you may yourself";
            Err(Problem::new(Code::Forbidden, format!("the scope {scope} is not yours to give"))
                .detail(detail)
                .into())
        }
    }
}

/// A selector that may limit a token: by what the server says of hosts, not by what they say of themselves.
fn limit(text: &str) -> Result<String> {
    if fleet::selector(text)?.is_by_name_and_label() {
        return Ok(text.to_owned());
    }
    let detail = "use names and labels: facts and addresses are what hosts say of themselves";
    Err(Problem::new(Code::InvalidSelector, "facts cannot limit a token").detail(detail).into())
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
    let mine = |token: &&Token| token.name == name && concerns(&app, &caller, token);
    let token = tokens.iter().find(mine).ok_or_else(missing)?;
    if !tokens.iter().any(|token| token.name != name && good(token, now)) {
        let detail = "without it nobody could use this API; make another one first (`fleetwright tokens create`)";
        return Err(Problem::new(Code::Conflict, "this is the last token").detail(detail).into());
    }
    let note = NewAudit { before: Some(noted(token)), ..caller.note(&app, "token.remove", &name) };
    app.store.noting(note).remove_token(&name).await?;
    app.auth.forget();
    tracing::info!(token = name, by = caller.name, "token deleted");
    Ok(StatusCode::NO_CONTENT)
}

fn noted(token: &Token) -> serde_json::Value {
    let Token { scopes, selector, user, expires_at, .. } = token;
    serde_json::json!({ "scopes": scopes, "selector": selector, "user": user, "expires_at": expires_at })
}

fn good(token: &Token, now: Timestamp) -> bool {
    token.expires_at.is_none_or(|end| end > now)
}
