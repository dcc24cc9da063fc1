//! What is answered to a request: the paths of the code, those that only its documents name, and its
//! headers.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequestParts as _, Path, Query, Request, WebSocketUpgrade};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::super::json::Json;
use super::state::{Error, Snapshot, State};
use super::view::{self, Details};
use super::{kill, output, run_now, socket};
use crate::problem::Chain;

/// The version that Saltpeter's own API says, whatever its version is.
const VERSION: &str = "3.5.1";

/// In one answer at most so many bytes of output stand; a socket gives all of it.
const MOST_OUTPUT: usize = 1024 * 1024;

/// And of one machine so many.
const MOST_OF_ONE: usize = 64 * 1024;

/// A request to kill has a name.
const MOST_BODY: usize = 64 * 1024;

const ALLOWED_HEADERS: &str =
    "DNT,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range";

/// All routes.
pub(super) fn router(state: State) -> Router {
    Router::new()
        .route("/version", get(version))
        .route("/config", get(config))
        .route("/running", get(running))
        .route("/timeline", get(timeline))
        .route("/state", get(all_state))
        .route("/status", get(status))
        .route("/runnow/{job}", post(run))
        .route("/kill", post(kill_job))
        .route("/ws", get(follow))
        .method_not_allowed_fallback(not_allowed)
        .fallback(not_allowed)
        .layer(axum::extract::DefaultBodyLimit::max(MOST_BODY))
        .layer(from_fn_with_state(state.clone(), guard))
        .with_state(state)
}

/// Asks for the token where there is one. A page asks beforehand whether it may ask at all, without it.
async fn guard(
    axum::extract::State(state): axum::extract::State<State>,
    request: Request,
    next: Next,
) -> Response {
    if request.method() == Method::OPTIONS {
        return with_cors(StatusCode::NO_CONTENT.into_response());
    }
    let in_head = bearer(request.headers());
    let in_path = || {
        let Query(query) = Query::<Token>::try_from_uri(request.uri()).ok()?;
        query.token
    };
    if state.admits(in_head.or_else(in_path).as_deref()) {
        return next.run(request).await;
    }
    let mut refused = plain(StatusCode::UNAUTHORIZED, "401: Unauthorized");
    refused.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    refused
}

#[derive(Debug, Deserialize)]
struct Token {
    token: Option<String>,
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

type Shared = axum::extract::State<State>;

async fn version(axum::extract::State(state): Shared) -> Response {
    let now = state.app.clock.now().to_string();
    let today = now.split('T').next().unwrap_or_default();
    json(&Json::map([("version", Json::text(VERSION)), ("last_build", Json::text(today))]))
}

async fn config(axum::extract::State(state): Shared) -> Response {
    json(&view::config(&state.served()))
}

async fn timeline(axum::extract::State(state): Shared) -> Response {
    json(&state.last_timeline())
}

async fn running(axum::extract::State(state): Shared) -> Response {
    match state.now(true).await {
        Ok(snapshot) => json(&view::running(&snapshot)),
        Err(error) => failed(&error),
    }
}

async fn all_state(axum::extract::State(state): Shared) -> Response {
    match jobs(&state).await {
        Ok((_, jobs)) => json(&jobs),
        Err(error) => failed(&error),
    }
}

async fn status(axum::extract::State(state): Shared) -> Response {
    match jobs(&state).await {
        Ok((snapshot, jobs)) => {
            json(&Json::map([("running", view::running(&snapshot)), ("state", jobs)]))
        }
        Err(error) => failed(&error),
    }
}

/// The state of every job, with as much of its last output as fits.
async fn jobs(state: &State) -> Result<(std::sync::Arc<Snapshot>, Json), Error> {
    let snapshot = state.now(true).await?;
    let mut left = MOST_OUTPUT;
    let mut jobs = Vec::new();
    for job in snapshot.served.directory.jobs.values() {
        let last = match snapshot.last.get(&job.name) {
            Some(summary) => {
                state.run(summary.id).await?.zip(state.app.store.plan(summary.id).await?)
            }
            None => None,
        };
        let (mut texts, mut lengths) = (BTreeMap::new(), BTreeMap::new());
        if let Some((run, plan)) = &last {
            for task in &run.tasks {
                let Some(host) = plan.hosts.iter().find(|host| host.name == task.host) else {
                    continue;
                };
                let mut cursor = output::Cursor::new(run.summary.id, host.id, task.attempt);
                let (mut text, most) = (String::new(), left.min(MOST_OF_ONE));
                while text.len() < most
                    && let Some(more) = cursor.next(&state.app.store).await?
                {
                    text.push_str(&more);
                }
                text.truncate(text.floor_char_boundary(most));
                if let Some(ending) = super::super::codes::ending(task, view::limits(plan)) {
                    text.push_str(&cursor.end(&ending.note));
                }
                left = left.saturating_sub(text.len());
                lengths.insert(task.host.to_string(), output::units(&text));
                texts.insert(task.host.to_string(), text);
            }
        }
        let details = Details {
            job,
            next_run: view::next_run(&snapshot.served, job, state.app.clock.now()),
            last: last.as_ref().map(|(run, plan)| (run, plan)),
            overlap: last.is_some() && state.overlapped(&job.name).await?,
            output: &texts,
            lengths: &lengths,
        };
        jobs.push((job.name.clone(), view::details(&details)));
    }
    Ok((snapshot, Json::Map(jobs)))
}

async fn run(axum::extract::State(state): Shared, Path(job): Path<String>) -> Response {
    match run_now(&state, &job).await {
        Ok(_) => said(StatusCode::OK, "ok", &format!("Run signal sent to job: {job}")),
        Err(problem) => {
            let status = StatusCode::from_u16(problem.code.status())
                .unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            said(status, "error", &problem.to_string())
        }
    }
}

async fn kill_job(axum::extract::State(state): Shared, body: Bytes) -> Response {
    let body: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    let job = body.as_ref().and_then(|body| body.get("job")?.as_str());
    let Some(job) = job else {
        return said(StatusCode::BAD_REQUEST, "error", "send {\"job\": NAME} as JSON");
    };
    if !state.served().directory.jobs.contains_key(job) {
        return said(StatusCode::NOT_FOUND, "error", &format!("there is no job {job}"));
    }
    match kill(&state, job).await {
        Ok(_) => said(StatusCode::OK, "ok", &format!("Kill signal sent to job: {job}")),
        Err(error) => {
            let why = Chain(&error).to_string();
            said(StatusCode::SERVICE_UNAVAILABLE, "error", &why)
        }
    }
}

/// The socket; a request that wants no socket is told in the words of Saltpeter's library.
async fn follow(axum::extract::State(state): Shared, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let Some(upgrade) = parts.headers.get(header::UPGRADE).cloned() else {
        let text = "No WebSocket UPGRADE hdr: None\n Can \"Upgrade\" only to \"WebSocket\".";
        return plain(StatusCode::BAD_REQUEST, text);
    };
    let peer = parts.extensions.get::<crate::serve::Peer>().cloned();
    match WebSocketUpgrade::from_request_parts(&mut parts, &state).await {
        Ok(socket) => socket::upgrade(socket, state, peer),
        Err(rejection) => {
            tracing::debug!(?upgrade, %rejection, "no socket");
            plain(StatusCode::BAD_REQUEST, "400: Bad Request")
        }
    }
}

/// Whatever else is asked for: there a path for OPTIONS matches all, so nothing is not found.
async fn not_allowed(request: Request) -> Response {
    let allow = match request.uri().path() {
        "/version" | "/config" | "/running" | "/timeline" | "/state" | "/status" | "/ws" => {
            "GET,HEAD,OPTIONS"
        }
        path if path == "/kill" || path.starts_with("/runnow/") => "OPTIONS,POST",
        _ => "OPTIONS",
    };
    let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    answer
}

fn said(status: StatusCode, outcome: &str, message: &str) -> Response {
    let body = Json::map([("status", Json::text(outcome)), ("message", Json::text(message))]);
    let mut answer = json(&body);
    *answer.status_mut() = status;
    answer
}

fn json(body: &Json) -> Response {
    let kind = HeaderValue::from_static("application/json; charset=utf-8");
    with_cors(([(header::CONTENT_TYPE, kind)], body.to_string()).into_response())
}

fn with_cors(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    let all = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, OPTIONS"),
    ];
    for (name, value) in all {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// Without CORS headers, as there.
fn plain(status: StatusCode, text: &'static str) -> Response {
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    (status, [(header::CONTENT_TYPE, kind)], text).into_response()
}

fn failed(error: &Error) -> Response {
    tracing::warn!(error = %Chain(error), "Saltpeter's API cannot answer");
    plain(
        StatusCode::INTERNAL_SERVER_ERROR,
        "500 Internal Server Error\n\nServer got itself in trouble",
    )
}
