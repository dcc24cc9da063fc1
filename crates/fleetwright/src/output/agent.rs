//! An agent's own account of itself, for people.

use std::fmt::Write as _;

use fw_agent::status::Status;
use serde::Serialize;

use super::line;

/// An agent's last account, and whether it still holds.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    /// Whether the agent runs now; else the rest is what it last said.
    pub(crate) is_running: bool,
    /// Its account.
    #[serde(flatten)]
    pub(crate) status: Status,
}

/// The agent on a page of its own.
pub(crate) fn status(Shown { is_running, status }: &Shown) -> String {
    let mut page = String::new();
    let mut put = |key: &str, value: &str| {
        writeln!(page, "{key:12} {}", line(value)).expect("writing to memory");
    };
    put("host", status.name.as_str());
    put("id", &status.host.to_string());
    put("server", &status.server);
    let link = match (status.linked_since, &status.last_error) {
        (Some(since), _) => format!("up since {since}"),
        (None, Some(error)) => format!("down: {error}"),
        (None, None) => "down".to_owned(),
    };
    put("link", &if *is_running { link } else { format!("not running (last: {link})") });
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

#[cfg(test)]
mod tests {
    use fw_proto::{HostId, Timestamp};

    use super::*;

    #[test]
    fn an_agent_that_stopped_is_not_shown_as_linked() {
        let status = Status {
            name: "web1".parse().unwrap(),
            host: HostId(uuid::Uuid::nil()),
            server: "http://x".to_owned(),
            pid: 7,
            version: "0.1.0".to_owned(),
            started_at: Timestamp::EPOCH,
            linked_since: Some(Timestamp::EPOCH),
            last_error: None,
            clock_skew_ms: 0,
            running: 0,
            queued: 0,
            policy: "operate".to_owned(),
            containment: "cgroup".to_owned(),
            at: Timestamp::EPOCH,
        };
        let link = |is_running| {
            let page = super::status(&Shown { is_running, status: status.clone() });
            page.lines().find(|line| line.starts_with("link")).unwrap().to_owned()
        };
        assert_eq!(link(true), "link         up since 1970-01-01T00:00:00.000Z");
        assert_eq!(
            link(false),
            "link         not running (last: up since 1970-01-01T00:00:00.000Z)"
        );
    }
}
