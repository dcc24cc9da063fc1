//! What was changed, by whom.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Something that was changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditEntry {
    /// Its number; each is one more than the one before.
    pub n: i64,
    /// When.
    pub at: Timestamp,
    /// Who: a user by name, a token as `token:NAME`, or `server`.
    pub by: String,
    /// From where; `null` when it was the server itself. With `server` as who, nobody had proved who they are.
    pub address: Option<String>,
    /// What was done, such as `host.revoke`.
    pub action: String,
    /// To what: a host's name, a job's, a run's id.
    pub subject: String,
    /// On which hosts.
    pub hosts: Vec<String>,
    /// What it was before.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub before: Option<serde_json::Value>,
    /// What it is after.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub after: Option<serde_json::Value>,
    /// SHA-256 of the entry before and this one, in hexadecimal.
    pub sha256: String,
}

/// Whether the audit is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditCheck {
    /// Entries that were looked at.
    pub entries: i64,
    /// What is wrong, and with which entry first; `null` when all is well.
    pub broken: Option<String>,
    /// The hash of the newest entry. Who keeps it elsewhere can tell later whether entries were cut off.
    pub head: Option<String>,
}
