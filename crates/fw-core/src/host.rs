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

/// A host as a selector looks at it: thousands of them, one after the other, so nothing is copied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen<'h> {
    /// Its name.
    pub name: &'h HostName,
    /// What the server says of it.
    pub labels: &'h BTreeMap<String, String>,
    /// What the host says of itself.
    pub facts: &'h Map<String, Value>,
}

impl Host {
    /// The host as a selector looks at it.
    #[must_use]
    pub const fn seen(&self) -> Seen<'_> {
        Seen { name: &self.name, labels: &self.labels, facts: &self.facts }
    }
}
