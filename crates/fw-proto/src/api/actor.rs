//! What somebody or something is that makes things happen.

use serde::{Deserialize, Serialize};

/// What somebody or something is that makes things happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// An API token.
    Token,
    /// A person.
    User,
    /// A job's schedule.
    Job,
    /// The server's own rules.
    Server,
}
