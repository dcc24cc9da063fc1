//! Errors as people and programs get them: RFC 9457 problem details, whatever went wrong.

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fw_proto::api::{Code, Problem};

/// The media type of problem details (RFC 9457 §3).
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A problem on its way out; what every handler fails with.
#[derive(Debug)]
pub struct Failure(Box<Problem>);

/// What a handler gives.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// The problem.
    #[must_use]
    pub fn into_problem(self) -> Problem {
        *self.0
    }

    /// There is no such thing; `hint` says how to find those that there are.
    #[must_use]
    pub fn not_found(what: &str, name: impl std::fmt::Display, hint: &str) -> Self {
        Problem::new(Code::NotFound, format!("no {what} {name}")).detail(hint).into()
    }

    /// The request breaks a rule; `why` says which and what to do.
    #[must_use]
    pub fn invalid(why: impl Into<String>) -> Self {
        Problem::new(Code::InvalidRequest, "invalid request").detail(why).into()
    }
}

impl Failure {
    /// What the store says: the caller's mistake, a state that will pass, or a fault.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whatever else it says is a fault, whose text is for the log"
    )]
    fn of_store(error: &fw_store::Error) -> Self {
        use fw_store::Error;
        let unavailable = |detail: &str| {
            Problem::new(Code::Unavailable, "server cannot write").detail(detail).into()
        };
        match error {
            Error::BadCursor => Self::invalid(format!("cursor: {error}")),
            Error::Full { .. } | Error::ReadOnly { .. } => unavailable(&error.to_string()),
            Error::Closed => stopping(),
            _ => fault(error),
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl From<fw_store::Error> for Failure {
    fn from(error: fw_store::Error) -> Self {
        Self::of_store(&error)
    }
}

impl From<crate::hub::Error> for Failure {
    fn from(error: crate::hub::Error) -> Self {
        match error {
            crate::hub::Error::Stopped => stopping(),
            crate::hub::Error::Store(error) => Self::of_store(&error),
        }
    }
}

impl From<fw_core::command::Invalid> for Failure {
    fn from(invalid: fw_core::command::Invalid) -> Self {
        Self::invalid(invalid.to_string())
    }
}

/// The server is on its way down.
fn stopping() -> Failure {
    let detail = "the server is stopping; try again when it is back";
    Problem::new(Code::Unavailable, "server is stopping").detail(detail).into()
}

/// A fault of ours: the log has all of it, the caller learns only that.
pub(crate) fn fault(error: &(dyn std::error::Error + 'static)) -> Failure {
    tracing::error!(error = %Chain(error), "request could not be served");
    internal().into()
}

/// A fault of the server, without its cause.
fn internal() -> Problem {
    Problem::new(Code::Internal, "internal error")
        .detail("the server's log says more; the same request may work when tried again")
}

/// An error with all its causes on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        respond(&self.0)
    }
}

/// A problem as a response.
fn respond(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(problem)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
    match problem.code {
        Code::Unauthenticated => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Code::RateLimited | Code::Unavailable => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
        }
        Code::InvalidRequest
        | Code::InvalidSelector
        | Code::InvalidJob
        | Code::Forbidden
        | Code::TotpRequired
        | Code::StepUpRequired
        | Code::NotFound
        | Code::NoHosts
        | Code::NameTaken
        | Code::Conflict
        | Code::OwnedByFile
        | Code::NoSecret
        | Code::TooLarge
        | Code::Internal => {}
    }
    response
}

/// Answers a path that is nowhere in the router.
pub(crate) async fn unknown_route(request: Request) -> Failure {
    let path: String = request.uri().path().chars().take(200).collect();
    let detail = "GET /api/v1/openapi.json lists what there is";
    Problem::new(Code::NotFound, format!("nothing at {path}")).detail(detail).into()
}

/// Answers a method that a path does not take.
pub(crate) async fn unknown_method(request: Request) -> Failure {
    let title = format!("{} is not possible here", request.method());
    let detail = "the header Allow says what is; GET /api/v1/openapi.json has it all";
    // RFC 9110 §15.5.6. There is no code of its own: for programs it is a request like no other.
    Problem { status: 405, ..Problem::new(Code::InvalidRequest, title).detail(detail) }.into()
}

/// Answers for a handler that panicked: a bug, so a person must look.
#[expect(clippy::needless_pass_by_value, reason = "the signature is that of the panic layer")]
pub(crate) fn panicked(payload: Box<dyn std::any::Any + Send>) -> Response {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
    tracing::error!(error = text, "a handler panicked; please report this");
    respond(&internal())
}
