//! Settings: how hosts come in, tokens, and what this server is.

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use fw_core::access::{Action, On};

use super::error::{Result, render};
use super::link::{encode, quoted};
use super::page::{Nav, Page, Visit};
use super::time::When;
use crate::api::token as api;
use crate::state::App;

/// A tab of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tab {
    pub(super) href: &'static str,
    pub(super) label: &'static str,
}

const TABS: &[Tab] = &[
    Tab { href: "/settings/enrolment", label: "Enrolment" },
    Tab { href: "/settings/users", label: "Users" },
    Tab { href: "/settings/account", label: "My account" },
    Tab { href: "/settings/sessions", label: "Sessions" },
    Tab { href: "/settings/tokens", label: "Tokens" },
    Tab { href: "/settings/about", label: "About" },
];

/// What all tabs have.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) here: &'static str,
}

impl Frame {
    /// The tabs that lead somewhere for who looks.
    pub(super) fn tabs(&self, page: &Page) -> impl Iterator<Item = &'static Tab> {
        let hidden = |href| match href {
            "/settings/enrolment" => !page.may.change.is(),
            "/settings/users" => !page.may.grant.is(),
            _ => false,
        };
        TABS.iter().filter(move |tab| !hidden(tab.href))
    }
}

/// The first tab of who looks.
pub(super) async fn first(State(app): State<App>, visit: Visit) -> Result<Response> {
    let may = visit.caller().asked(&app, Action::Change, On::Fleet).is_ok();
    let to = if may { "/settings/enrolment" } else { "/settings/account" };
    Ok(Redirect::to(to).into_response())
}

#[derive(Template)]
#[template(path = "enrolment.html")]
struct Enrolment {
    page: Page,
    frame: Frame,
}

/// How hosts come in.
pub(super) async fn enrolment(State(app): State<App>, visit: Visit) -> Result<Response> {
    visit.caller().may(&app, Action::Change, On::Fleet)?;
    let page = Page::new(&app, &visit, Nav::Settings, "Enrolment");
    Ok(render(&Enrolment { page, frame: Frame { here: "/settings/enrolment" } }))
}

#[derive(Template)]
#[template(path = "users.html")]
struct Users {
    page: Page,
    frame: Frame,
}

/// Who may sign in.
pub(super) async fn users(State(app): State<App>, visit: Visit) -> Result<Response> {
    visit.caller().may(&app, Action::Grant, On::Fleet)?;
    let page = Page::new(&app, &visit, Nav::Settings, "Users");
    Ok(render(&Users { page, frame: Frame { here: "/settings/users" } }))
}

#[derive(Template)]
#[template(path = "sessions.html")]
struct Sessions {
    page: Page,
    frame: Frame,
}

/// In which browsers somebody is signed in.
pub(super) async fn sessions(State(app): State<App>, visit: Visit) -> Result<Response> {
    let page = Page::new(&app, &visit, Nav::Settings, "Sessions");
    Ok(render(&Sessions { page, frame: Frame { here: "/settings/sessions" } }))
}

#[derive(Debug)]
struct Token {
    name: String,
    scopes: String,
    selector: Option<String>,
    user: Option<String>,
    api: String,
    created: When,
    expires: Option<When>,
    over: bool,
    used: Option<When>,
    cli: String,
}

#[derive(Template)]
#[template(path = "tokens.html")]
struct Tokens {
    page: Page,
    frame: Frame,
    rows: Vec<Token>,
}

/// Tokens of the API.
pub(super) async fn tokens(State(app): State<App>, visit: Visit) -> Result<Response> {
    let now = app.clock.now();
    let mut tokens = app.store.tokens().await?;
    tokens.retain(|token| api::concerns(&app, visit.caller(), token));
    tokens.sort_by(|a, b| a.name.cmp(&b.name));
    let row = |token: fw_proto::api::Token| Token {
        api: format!("DELETE /api/v1/tokens/{}", encode(&token.name)),
        created: When::new(now, token.created_at),
        expires: token.expires_at.map(|at| When::new(now, at)),
        over: token.expires_at.is_some_and(|at| at <= now),
        used: token.last_used.map(|at| When::new(now, at)),
        cli: format!("fleetwright tokens revoke {}", quoted(&token.name)),
        scopes: token.scopes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        selector: token.selector,
        user: token.user,
        name: token.name,
    };
    Ok(render(&Tokens {
        page: Page::new(&app, &visit, Nav::Settings, "Tokens"),
        frame: Frame { here: "/settings/tokens" },
        rows: tokens.into_iter().map(row).collect(),
    }))
}

#[derive(Template)]
#[template(path = "about.html")]
struct About {
    page: Page,
    frame: Frame,
    version: &'static str,
    url: String,
    started: When,
    online: usize,
    active: usize,
    reasons: Vec<String>,
    age: String,
    bytes: String,
    backup: String,
    keys: Vec<String>,
    warning: bool,
}

/// What this server is, and how long it keeps what.
pub(super) async fn about(State(app): State<App>, visit: Visit) -> Result<Response> {
    let counts = app.hub.counts().await?;
    let config = &app.config;
    let backup = match config.backup.every {
        Some(every) => format!("every {every}, the last {} are kept", config.backup.keep),
        None => "never by itself".to_owned(),
    };
    let warning = config.listen.ip().is_loopback() && config.public_url.is_none();
    Ok(render(&About {
        page: Page::new(&app, &visit, Nav::Settings, "About"),
        frame: Frame { here: "/settings/about" },
        version: env!("CARGO_PKG_VERSION"),
        url: config.url(),
        started: When::new(app.clock.now(), app.started_at),
        online: counts.hosts_online,
        active: counts.runs_active,
        reasons: app.health.reasons(),
        age: config.retention.age.to_string(),
        bytes: format!("{} GB", config.retention.bytes / 1_000_000_000),
        backup,
        keys: vec![app.keys.newest().to_string()],
        warning,
    }))
}
