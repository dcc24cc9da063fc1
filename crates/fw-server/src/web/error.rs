//! What a page says when it cannot be shown.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use fw_proto::api::{Code, Problem};

use super::assets::SET;
use crate::problem::Failure;

/// What a handler of a page gives.
pub(super) type Result<T> = std::result::Result<T, Wrong>;

/// Why there is no page.
#[derive(Debug)]
pub(super) struct Wrong(Failure);

impl<E: Into<Failure>> From<E> for Wrong {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct Page {
    set: &'static str,
    status: u16,
    title: String,
    detail: String,
}

impl IntoResponse for Wrong {
    fn into_response(self) -> Response {
        let problem = self.0.into_problem();
        // The layer of sign-in looks for it, and an API client of a page gets what it knows.
        if problem.code == Code::Unauthenticated {
            return Failure::from(problem).into_response();
        }
        respond(problem)
    }
}

fn respond(problem: Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let detail = problem.detail.unwrap_or_default();
    let page = Page { set: SET, status: problem.status, title: problem.title, detail };
    (status, render(&page)).into_response()
}

/// A page as a response.
pub(super) fn render(page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => crate::problem::fault(&error).into_response(),
    }
}
