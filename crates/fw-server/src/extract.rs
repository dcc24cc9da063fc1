//! What handlers take from a request. Whatever does not fit is a problem that says where.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use axum::http::request::Parts;
use futures_util::StreamExt as _;
use fw_proto::api::{Code, Problem};
use serde::de::DeserializeOwned;

use crate::problem::Failure;

/// A whole body is here by then: the largest, 4 MiB, needs 140 kB/s.
const BODY_WITHIN: Duration = Duration::from_secs(30);

/// So many times its bound, and so long, a body that is too large is taken to let its sender read the answer.
const DISCARDED: u64 = 4;
const DISCARD_WITHIN: Duration = Duration::from_secs(2);

/// A JSON body. An empty one counts as `{}`, so that requests with defaults only need none.
/// The content type is not asked for: only a bearer token lets a request act, and no browser adds one by itself.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

/// The parameters of a query string.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

/// The parameters of a path.
#[derive(Debug)]
pub(crate) struct Path<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = read(request, state).await?;
        let text: &[u8] = if bytes.trim_ascii().is_empty() { b"{}" } else { &bytes };
        // serde would read an array as the fields of a struct in their order.
        if !text.trim_ascii_start().starts_with(b"{") {
            let why = "a JSON object should stand here; begin it with '{'";
            return Err(Problem::new(Code::InvalidRequest, "invalid body").detail(why).into());
        }
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let read = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let place = error.path().to_string();
            let why = error.into_inner();
            // A path of "." is the whole body; text that is no JSON has no path at all.
            let why = if place == "." || !why.is_data() {
                why.to_string()
            } else {
                format!("{place}: {why}")
            };
            Problem::new(Code::InvalidRequest, "invalid body").detail(why)
        })?;
        let whole = deserializer.end().map_err(|error| {
            Problem::new(Code::InvalidRequest, "invalid body").detail(error.to_string())
        });
        whole.map(|()| Self(read)).map_err(Failure::from)
    }
}

/// Reads a body, within its bound and in time.
async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Failure> {
    let most = request.extensions().get::<BodyLimit>().copied().unwrap_or_default();
    let announced = request.headers().get(CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > most.bytes()) {
        // Who waits for a `100 Continue` (RFC 9110 §10.1.1) has not begun, and need not.
        if !request.headers().contains_key(EXPECT) {
            discard(request, most).await;
        }
        return Err(most.exceeded());
    }
    match tokio::time::timeout(BODY_WITHIN, Bytes::from_request(request, state)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Err(most.exceeded())
        }
        Ok(Err(rejection)) => Err(Problem::new(Code::InvalidRequest, "body could not be read")
            .detail(rejection.body_text())
            .into()),
        Err(_) => {
            let detail = format!("all of it must be here within {} s", BODY_WITHIN.as_secs());
            let problem = Problem::new(Code::InvalidRequest, "body came too slowly").detail(detail);
            // RFC 9110 §15.5.9. For programs it is a request like no other.
            Err(Problem { status: 408, ..problem }.into())
        }
    }
}

/// Takes what a client sends before it reads: a connection that is closed while data waits is reset, and the
/// answer lost (RFC 9112 §9.6).
async fn discard(request: Request, most: BodyLimit) {
    let mut data = request.into_body().into_data_stream();
    let discard = async {
        let mut left = most.bytes().saturating_mul(DISCARDED);
        while let Some(Ok(bytes)) = data.next().await {
            left = left.saturating_sub(bytes.len() as u64);
            if left == 0 {
                return;
            }
        }
    };
    // Too late or not, the answer is the same.
    let _ = tokio::time::timeout(DISCARD_WITHIN, discard).await;
}

/// The largest body of a route in MiB; a request extension.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimit {
    pub(crate) mebibytes: u16,
}

impl Default for BodyLimit {
    fn default() -> Self {
        Self { mebibytes: 1 }
    }
}

impl BodyLimit {
    pub(crate) fn bytes(self) -> u64 {
        u64::from(self.mebibytes) * 1024 * 1024
    }

    fn exceeded(self) -> Failure {
        let detail = format!("this body has at most {} MiB; send less or in parts", self.mebibytes);
        Problem::new(Code::TooLarge, "body is too large").detail(detail).into()
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        query.map(|query| Self(query.0)).map_err(|rejection| {
            let why = std::error::Error::source(&rejection)
                .map_or_else(|| rejection.body_text(), |cause| cause.to_string());
            Problem::new(Code::InvalidRequest, "invalid query").detail(why).into()
        })
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0)).map_err(|rejection| {
            Problem::new(Code::InvalidRequest, "invalid path").detail(rejection.body_text()).into()
        })
    }
}
