//! API tokens.

use serde::{Deserialize, Serialize};

use crate::{Span, Timestamp};

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// See what a viewer sees.
    Read,
    /// Run what an operator runs.
    Run,
    /// Change what an admin changes.
    Admin,
    /// What asks people for a password or code again: a token has nobody to ask.
    Dangerous,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Run, Self::Admin, Self::Dangerous];

    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Run => "run",
            Self::Admin => "admin",
            Self::Dangerous => "dangerous",
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no scope; use read, run, admin or dangerous")]
pub struct NoScope(String);

impl std::str::FromStr for Scope {
    type Err = NoScope;

    fn from_str(text: &str) -> Result<Self, NoScope> {
        let named = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        named.ok_or_else(|| NoScope(text.to_owned()))
    }
}

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
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The hosts that it is limited to; `null` for all.
    pub selector: Option<String>,
    /// The person it belongs to; it may no more than they. `null` when it is the server's own.
    pub user: Option<String>,
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
    /// What it may do; when absent, what you may, without `dangerous`.
    #[serde(default)]
    pub scopes: Option<Vec<Scope>>,
    /// The hosts that it is limited to, by name and labels. It is looked at with each use.
    #[serde(default)]
    pub selector: Option<String>,
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
