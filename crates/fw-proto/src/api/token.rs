//! API tokens.

use serde::{Deserialize, Serialize};

use crate::{Span, Timestamp};

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Token {
    /// Its name; the actor (`by`) of what it does.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; `null` for never.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used: Option<Timestamp>,
}

/// A request for a token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// Its name.
    pub name: String,
    /// How long it is good; for ever when absent.
    #[serde(default)]
    pub ttl: Option<Span>,
}

/// A new token. Shown this once; stored hashed.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenMade {
    /// Its name.
    pub name: String,
    /// What goes after `Authorization: Bearer`.
    pub token: String,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

impl std::fmt::Debug for TokenMade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenMade").field("name", &self.name).finish_non_exhaustive()
    }
}
