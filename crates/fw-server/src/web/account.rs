//! My account: the own password and one-time codes.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::error::{Result, render};
use super::page::{Nav, Page, Visit};
use super::settings::Frame;
use crate::auth::By;
use crate::state::App;

#[derive(Template)]
#[template(path = "account.html")]
struct Account {
    page: Page,
    frame: Frame,
    /// Whether one-time codes are set up; `None` when it is a token that looks.
    totp: Option<bool>,
    role: String,
}

/// What somebody proves with who they are. Secrets come from the API, when they are made.
pub(super) async fn show(State(app): State<App>, visit: Visit) -> Result<Response> {
    let caller = visit.caller();
    let totp = match caller.by {
        By::Session { totp, .. } => Some(totp),
        By::Token { .. } => None,
    };
    Ok(render(&Account {
        role: caller.role().map(|role| role.to_string()).unwrap_or_default(),
        page: Page::new(&app, &visit, Nav::Settings, "My account"),
        frame: Frame { here: "/settings/account" },
        totp,
    }))
}
