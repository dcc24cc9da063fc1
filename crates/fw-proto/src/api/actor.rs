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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Approval;

    #[test]
    fn a_name_without_a_kind_stays_alone() {
        for (kind, shown) in [(None, "ada"), (Some("token"), "token:ada"), (Some("user"), "ada")] {
            let mut written = json!({ "by": "ada", "at": "1970-01-01T00:00:00.000Z" });
            if let Some(kind) = kind {
                written["by_kind"] = json!(kind);
            }
            let read: Approval = serde_json::from_value(written.clone()).unwrap();
            assert_eq!(read.given_by(), shown);
            assert_eq!(serde_json::to_value(read).unwrap(), written);
        }
    }
}
