//! Errors: RFC 9457 problem details with a stable code.

use serde::{Deserialize, Serialize};

/// An error, as `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("{title}{}", detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default())]
pub struct Problem {
    /// The HTTP status code.
    pub status: u16,
    /// Stable, for programs.
    pub code: Code,
    /// What went wrong, in a few words.
    pub title: String,
    /// Where, why, and what to do; may span lines (a caret under an expression).
    pub detail: Option<String>,
}

/// Stable codes of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request breaks a rule of this API.
    InvalidRequest,
    /// A selector that does not parse.
    InvalidSelector,
    /// A job text that does not parse.
    InvalidJob,
    /// No token, or one that is not known.
    Unauthenticated,
    /// The token or user may not do this.
    Forbidden,
    /// The password is right, and a one-time code has to come with it.
    TotpRequired,
    /// This needs a fresh proof of who asks, or a token with the scope `dangerous`.
    StepUpRequired,
    /// No such thing.
    NotFound,
    /// The selector matched no host.
    NoHosts,
    /// The name is taken.
    NameTaken,
    /// The thing is not in a state that allows this.
    Conflict,
    /// A job that belongs to a file cannot be changed over the API.
    OwnedByFile,
    /// A secret that a command names does not exist.
    NoSecret,
    /// The body is too large.
    TooLarge,
    /// Too many requests; come back later.
    RateLimited,
    /// The server is starting, stopping or cannot write.
    Unavailable,
    /// A fault of the server; its log says more.
    Internal,
}

impl Code {
    /// The HTTP status that goes with it.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidRequest | Self::InvalidSelector | Self::InvalidJob => 400,
            Self::Unauthenticated | Self::TotpRequired => 401,
            Self::Forbidden | Self::StepUpRequired => 403,
            Self::NotFound => 404,
            Self::NameTaken | Self::Conflict | Self::OwnedByFile => 409,
            Self::TooLarge => 413,
            Self::NoHosts | Self::NoSecret => 422,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
        }
    }
}

impl Problem {
    /// A problem with the status of its code.
    #[must_use]
    pub fn new(code: Code, title: impl Into<String>) -> Self {
        Self { status: code.status(), code, title: title.into(), detail: None }
    }

    /// Adds where, why and what to do.
    #[must_use]
    pub fn detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }
}
