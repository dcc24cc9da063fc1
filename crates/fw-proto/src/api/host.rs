//! Hosts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{HostId, HostName, MaintenanceId, Timestamp};

/// A host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Host {
    /// Its name.
    pub name: HostName,
    /// Its id; stays when the name changes.
    pub id: HostId,
    /// Whether its agent is linked.
    pub state: HostState,
    /// When it went offline; `null` while it is online or was never seen.
    pub offline_since: Option<Timestamp>,
    /// What the host says of itself.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub facts: serde_json::Map<String, serde_json::Value>,
    /// What the server says of it.
    pub labels: BTreeMap<String, String>,
    /// Version of its agent.
    pub agent_version: Option<String>,
    /// When it was last heard.
    pub last_seen: Option<Timestamp>,
    /// When it was enrolled.
    pub joined_at: Timestamp,
    /// What its local policy allows: `observe` or `operate`.
    pub policy: Option<String>,
    /// The maintenance that it is in, as of this answer.
    #[serde(default)]
    pub maintenance: Option<MaintenanceId>,
}

/// The state of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum HostState {
    /// Its agent is linked.
    Online,
    /// It is not.
    Offline,
    /// It may not link any more.
    Revoked,
    /// Two machines used its key; it must be enrolled again.
    Duplicate,
}

/// A new name for a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewName {
    /// The name.
    pub name: HostName,
}

/// Labels to set and to take off.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LabelChange {
    /// Set these.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Take these off.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// The hosts that a selector picks.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Selected {
    /// Their names, sorted.
    pub hosts: Vec<HostName>,
    /// Those on which a regular expression takes too many steps to say. They are not picked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undecided: Vec<HostName>,
}
