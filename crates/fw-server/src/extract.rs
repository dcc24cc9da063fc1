//! What handlers take from a request. Whatever does not fit is a problem that says where.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use fw_proto::api::{Code, Problem};
use serde::de::DeserializeOwned;

use crate::problem::Failure;

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
        let bytes = Bytes::from_request(request, state).await.map_err(unreadable)?;
        let text: &[u8] = if bytes.trim_ascii().is_empty() { b"{}" } else { &bytes };
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

#[expect(clippy::needless_pass_by_value, reason = "taken by map_err")]
fn unreadable(rejection: BytesRejection) -> Failure {
    if rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
        let detail = "a body has at most 1 MiB, a job text 4 MiB; send less or in parts";
        return Problem::new(Code::TooLarge, "body is too large").detail(detail).into();
    }
    Problem::new(Code::InvalidRequest, "body could not be read")
        .detail(rejection.body_text())
        .into()
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
