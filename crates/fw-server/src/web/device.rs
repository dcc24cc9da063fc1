//! Where a person says whether a command line may be signed in as them.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::error::{Result, render};
use super::page::{Nav, Page, Visit};
use crate::auth::By;
use crate::state::App;

#[derive(Template)]
#[template(path = "device.html")]
struct Device {
    page: Page,
    /// A token signs nobody in.
    person: bool,
    role: String,
}

/// The page knows no code: the script asks the API, which counts wrong ones.
pub(super) async fn show(State(app): State<App>, visit: Visit) -> Result<Response> {
    let caller = visit.caller();
    Ok(render(&Device {
        person: matches!(caller.by, By::Session { .. }),
        role: caller.role().map(|role| role.to_string()).unwrap_or_default(),
        page: Page::new(&app, &visit, Nav::Settings, "Sign in a command line"),
    }))
}
