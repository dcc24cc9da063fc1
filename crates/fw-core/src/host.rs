//! Hosts as a selector sees them.

use std::collections::BTreeMap;

use fw_proto::{HostId, HostName};
use serde_json::{Map, Value};

/// What there is to choose a host by.
///
/// Name and labels are the server's; facts are the host's own claims, so nothing that grants a
/// right may look at them.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// Its id.
    pub id: HostId,
    /// Its name.
    pub name: HostName,
    /// What the server says of it.
    pub labels: BTreeMap<String, String>,
    /// What the host says of itself.
    pub facts: Map<String, Value>,
}
