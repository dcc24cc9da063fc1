//! Invitations: how hosts enter the fleet.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Span, Timestamp};

/// A request for a join string.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct NewInvitation {
    /// How many hosts may use it; 1 when absent.
    pub uses: Option<u32>,
    /// How long it is good; an hour when absent.
    pub ttl: Option<Span>,
    /// Labels that its hosts get.
    pub labels: BTreeMap<String, String>,
}

/// A join string. Shown this once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Invitation {
    /// What `fleetwright agent join` takes.
    pub join: String,
    /// Until when.
    pub expires_at: Timestamp,
    /// For how many hosts.
    pub uses: u32,
    /// Something to know, such as an address that only this machine can reach.
    pub warning: Option<String>,
}
