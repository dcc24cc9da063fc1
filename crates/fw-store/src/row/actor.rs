//! Who began something, in one column: `token:NAME`, `user:NAME`, `job:NAME` or `server`.
//!
//! Rows from before the kind was kept have the bare name of a token or person, and nobody can tell which.

use fw_proto::api::ActorKind;

/// What the column holds.
pub(crate) fn column(by: &str, kind: Option<ActorKind>) -> String {
    match kind {
        Some(ActorKind::Token) => format!("token:{by}"),
        Some(ActorKind::User) => format!("user:{by}"),
        Some(ActorKind::Job | ActorKind::Server) | None => by.to_owned(),
    }
}

/// The name and the kind that a column holds.
pub(crate) fn read(column: String) -> (String, Option<ActorKind>) {
    match column.split_once(':') {
        Some(("token", name)) => (name.to_owned(), Some(ActorKind::Token)),
        Some(("user", name)) => (name.to_owned(), Some(ActorKind::User)),
        Some(("job", _)) => (column, Some(ActorKind::Job)),
        Some(_) => (column, None),
        // Nobody else may be called that.
        None if column == "server" => (column, Some(ActorKind::Server)),
        None => (column, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for (by, kind) in [
            ("ci", Some(ActorKind::Token)),
            ("ada", Some(ActorKind::User)),
            ("job:nightly", Some(ActorKind::Job)),
            ("server", Some(ActorKind::Server)),
            ("from-before", None),
        ] {
            assert_eq!(read(column(by, kind)), (by.to_owned(), kind));
        }
    }
}
