//! The server itself.

use serde::{Deserialize, Serialize};

use super::MaintenanceNow;
use crate::{Epoch, Incarnation, PublicKey, Timestamp};

/// What a server is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerInfo {
    /// Version of the build.
    pub version: String,
    /// When it started.
    pub started_at: Timestamp,
    /// Its store's life: new after each restore.
    pub incarnation: Incarnation,
    /// Its fencing number.
    pub epoch: Epoch,
    /// Its keys; hosts pin all of them, new links use the first.
    pub keys: Vec<PublicKey>,
    /// Agents linked now.
    pub hosts_online: u64,
    /// Runs not ended.
    pub runs_active: u64,
    /// The maintenances in force, the earliest first.
    #[serde(default)]
    pub maintenance: Vec<MaintenanceNow>,
}

/// The result of a key rotation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyRotation {
    /// The keys in force, newest first.
    pub keys: Vec<PublicKey>,
    /// Hosts that were told at once; the others are told when they link.
    pub told: u64,
}

/// A backup that was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackupMade {
    /// The file, on the server's machine.
    pub file: String,
    /// Its bytes.
    pub bytes: u64,
}

/// Whether the server can do its work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Readiness {
    /// All is well.
    pub ready: bool,
    /// What is not, in plain words. `clock went back 93s` is such a one.
    pub reasons: Vec<String>,
}
