//! Maintenance: while it is in force, no run begins by itself.

use serde::{Deserialize, Serialize};

use crate::{MaintenanceId, Span, Timestamp};

/// A maintenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Maintenance {
    /// Its id.
    pub id: MaintenanceId,
    /// The selector of the hosts that it covers; `null` for everything.
    pub hosts: Option<String>,
    /// How many hosts it covers now; `null` when it is over.
    pub covers: Option<u32>,
    /// Why.
    pub reason: String,
    /// What people are to know.
    pub message: Option<String>,
    /// Who switched it on.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
    /// When it ends or ended; `null` until it is switched off.
    pub until: Option<Timestamp>,
    /// Whether it is in force.
    pub in_force: bool,
    /// Who switched it off; `null` while it is in force, and when it ended by itself.
    pub ended_by: Option<String>,
}

/// A maintenance to be switched on: of everything, or of the hosts of a selector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewMaintenance {
    /// A selector of hosts; those that come later are covered too.
    #[serde(default)]
    pub hosts: Option<String>,
    /// Everything: no job fires. Either this or `hosts`.
    #[serde(default)]
    pub everything: bool,
    /// Why, in a few words.
    pub reason: String,
    /// What people are to know.
    #[serde(default)]
    pub message: Option<String>,
    /// How long; without this and `until` it goes on until it is switched off.
    #[serde(default, rename = "for")]
    pub lasts: Option<Span>,
    /// Until when.
    #[serde(default)]
    pub until: Option<Timestamp>,
}
