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

impl ActorKind {
    /// A name as people read it and the audit has it: a token is `token:NAME`, a person has their name alone.
    ///
    /// So has whoever was noted without a kind, which nobody can tell any more.
    #[must_use]
    pub fn shown(kind: Option<Self>, name: &str) -> String {
        match kind {
            Some(Self::Token) => format!("token:{name}"),
            Some(Self::User | Self::Job | Self::Server) | None => name.to_owned(),
        }
    }
}
