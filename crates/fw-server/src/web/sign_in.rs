//! Who is not signed in goes to sign in, and comes back to where he was.

use askama::Template;
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use serde::Deserialize;

use super::assets::SET;
use super::error::render;
use super::link::link;
use super::page::Theme;
use crate::extract::Query;
use crate::state::App;

/// Says that a request is for a part of a page.
const HX_REQUEST: HeaderName = HeaderName::from_static("hx-request");

/// Makes whoever asked for a part load another page.
const HX_REDIRECT: HeaderName = HeaderName::from_static("hx-redirect");

/// The routes of this file.
pub(super) fn routes() -> Router<App> {
    Router::new().route("/sign-in", get(sign_in)).route("/setup", get(set_up))
}

/// Sends whoever is not signed in to the page where that is done.
pub(super) async fn come_back(request: Request, next: Next) -> Response {
    let (uri, reading) = (request.uri().clone(), request.method() == Method::GET);
    let part = request.headers().contains_key(HX_REQUEST);
    let bearer = request.headers().contains_key(axum::http::header::AUTHORIZATION);
    let response = next.run(request).await;
    if response.status() != StatusCode::UNAUTHORIZED || !reading || bearer {
        return response;
    }
    let here = uri.path_and_query().map_or("/", |path| path.as_str());
    let to = link("/sign-in", &[("next", here)]);
    if !part {
        return Redirect::to(&to).into_response();
    }
    match HeaderValue::from_str(&to) {
        Ok(to) => (StatusCode::UNAUTHORIZED, [(HX_REDIRECT, to)]).into_response(),
        Err(_) => response,
    }
}

/// Where to go after.
#[derive(Debug, Deserialize)]
struct SignInQuery {
    #[serde(default)]
    next: String,
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignIn {
    set: &'static str,
    theme: Theme,
    next: String,
}

async fn sign_in(headers: HeaderMap, Query(query): Query<SignInQuery>) -> Response {
    render(&SignIn { set: SET, theme: Theme::of(&headers), next: local(query.next) })
}

#[derive(Template)]
#[template(path = "setup.html")]
struct SetUp {
    set: &'static str,
    theme: Theme,
}

/// Where a set-up link leads. Its secret is behind `#`, so it never comes here.
async fn set_up(headers: HeaderMap) -> Response {
    render(&SetUp { set: SET, theme: Theme::of(&headers) })
}

/// A place on this server: a link must not lead elsewhere through the page of sign-in.
fn local(next: String) -> String {
    let here = next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains(['\\', '\n', '\r', '\t']);
    if here { next } else { "/".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_stays_on_this_server() {
        for good in ["/", "/hosts?q=os:Debian", "/runs/1#L2"] {
            assert_eq!(local(good.to_owned()), good);
        }
        for bad in [
            "",
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "/\t/evil.example",
            "javascript:alert(1)",
        ] {
            assert_eq!(local(bad.to_owned()), "/");
        }
    }
}
