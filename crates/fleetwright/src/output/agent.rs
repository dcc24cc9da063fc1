//! An agent's own account of itself, for people.

use std::fmt::Write as _;

use fw_agent::status::Status;

use super::line;

/// The agent on a page of its own.
pub(crate) fn status(status: &Status) -> String {
    let mut page = String::new();
    let mut put = |key: &str, value: &str| {
        writeln!(page, "{key:12} {}", line(value)).expect("writing to memory");
    };
    put("host", status.name.as_str());
    put("id", &status.host.to_string());
    put("server", &status.server);
    match (status.linked_since, &status.last_error) {
        (Some(since), _) => put("link", &format!("up since {since}")),
        (None, Some(error)) => put("link", &format!("down: {error}")),
        (None, None) => put("link", "down"),
    }
    put("tasks", &format!("{} run, {} wait", status.running, status.queued));
    put("policy", &status.policy);
    put("containment", &status.containment);
    put("clock skew", &format!("{} ms", status.clock_skew_ms));
    put(
        "process",
        &format!("{} (version {}, started {})", status.pid, status.version, status.started_at),
    );
    put("as of", &status.at.to_string());
    page
}
