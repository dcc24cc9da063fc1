//! Hosts, for people.

use std::fmt::Write as _;

use fw_proto::api::{Host, HostState};
use fw_proto::{HostName, Timestamp};

use super::line;
use super::table::{Row, Width, ago};

impl Row for Host {
    const COLUMNS: &'static [(&'static str, Width)] = &[
        ("NAME", Width::Always),
        ("STATE", Width::Always),
        ("OS", Width::Always),
        ("LABELS", Width::Always),
        ("AGENT", Width::Always),
        ("LAST SEEN", Width::Always),
        ("ARCH", Width::Wide),
        ("POLICY", Width::Wide),
        ("JOINED", Width::Wide),
        ("ID", Width::Wide),
    ];

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let at = |at: Timestamp| ago(at, now);
        vec![
            self.name.to_string(),
            state(self, now),
            format!("{} {}", fact(self, "os"), fact(self, "osrelease")).trim().to_owned(),
            labels(self),
            self.agent_version.clone().unwrap_or_default(),
            self.last_seen.map(at).unwrap_or_default(),
            fact(self, "arch"),
            self.policy.clone().unwrap_or_default(),
            at(self.joined_at),
            self.id.to_string(),
        ]
    }

    fn name(&self) -> String {
        self.name.to_string()
    }
}

impl Row for HostName {
    const COLUMNS: &'static [(&'static str, Width)] = &[("NAME", Width::Always)];

    fn cells(&self, _now: Timestamp) -> Vec<String> {
        vec![self.to_string()]
    }

    fn name(&self) -> String {
        self.to_string()
    }
}

/// A host on a page of its own.
pub(crate) fn page(host: &Host, now: Timestamp) -> String {
    let mut page = String::new();
    let mut put = |key: &str, value: &str| {
        writeln!(page, "{key:12} {}", line(if value.is_empty() { "-" } else { value }))
            .expect("writing to memory");
    };
    put("name", host.name.as_str());
    put("id", &host.id.to_string());
    put("state", &state(host, now));
    put("labels", &labels(host));
    put("agent", host.agent_version.as_deref().unwrap_or_default());
    put("policy", host.policy.as_deref().unwrap_or_default());
    put("maintenance", &host.maintenance.map(|id| id.to_string()).unwrap_or_default());
    put(
        "last seen",
        &host.last_seen.map(|at| format!("{at} ({})", ago(at, now))).unwrap_or_default(),
    );
    put("joined", &host.joined_at.to_string());
    put("facts", if host.facts.is_empty() { "" } else { "as follows" });
    for (name, value) in &host.facts {
        put(&format!("  {}", line(name)), &plain(value));
    }
    page
}

fn state(host: &Host, now: Timestamp) -> String {
    let held = if host.maintenance.is_some() { ", in maintenance" } else { "" };
    let state = match (host.state, host.offline_since) {
        (HostState::Online, _) => "online".to_owned(),
        (HostState::Offline, Some(since)) => {
            format!("offline {}", ago(since, now).trim_end_matches(" ago"))
        }
        (HostState::Offline, None) => "offline".to_owned(),
        (HostState::Revoked, _) => "revoked".to_owned(),
        (HostState::Duplicate, _) => "duplicate".to_owned(),
    };
    format!("{state}{held}")
}

fn labels(host: &Host) -> String {
    let pairs: Vec<_> = host.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

fn fact(host: &Host, name: &str) -> String {
    host.facts.get(name).map(plain).unwrap_or_default()
}

/// A string without its quotes, anything else as JSON.
fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fw_proto::HostId;

    use super::super::{Format, list};
    use super::*;

    fn host(name: &str, state: HostState) -> Host {
        let facts = serde_json::json!({"os": "Debian", "osrelease": "13", "arch": "x86_64", "evil": "\u{1b}[2J"});
        Host {
            name: name.parse().unwrap(),
            id: HostId(uuid::Uuid::from_u128(7)),
            state,
            offline_since: (state == HostState::Offline).then(|| Timestamp::from_millis(60_000)),
            facts: facts.as_object().unwrap().clone(),
            labels: BTreeMap::from([("role".into(), "web".into()), ("x".into(), "\u{7}".into())]),
            agent_version: Some("0.1.0".into()),
            last_seen: Some(Timestamp::from_millis(60_000)),
            joined_at: Timestamp::EPOCH,
            policy: None,
            maintenance: None,
        }
    }

    fn shown(format: Format) -> String {
        let hosts = [host("web1", HostState::Online), host("db-2", HostState::Offline)];
        list(&hosts, format, Timestamp::from_millis(3_600_000)).unwrap()
    }

    #[test]
    fn tables_are_for_people() {
        insta::assert_snapshot!(shown(Format::Table), @r"
            NAME  STATE        OS         LABELS            AGENT  LAST SEEN
            web1  online       Debian 13  role=web,x=\u{7}  0.1.0  59m ago
            db-2  offline 59m  Debian 13  role=web,x=\u{7}  0.1.0  59m ago
            ");
        insta::assert_snapshot!(shown(Format::Wide), @r"
            NAME  STATE        OS         LABELS            AGENT  LAST SEEN  ARCH    POLICY  JOINED  ID
            web1  online       Debian 13  role=web,x=\u{7}  0.1.0  59m ago    x86_64  -       1h ago  00000000-0000-0000-0000-000000000007
            db-2  offline 59m  Debian 13  role=web,x=\u{7}  0.1.0  59m ago    x86_64  -       1h ago  00000000-0000-0000-0000-000000000007
            ");
        insta::assert_snapshot!(page(&host("web1", HostState::Online), Timestamp::EPOCH), @r"
        name         web1
        id           00000000-0000-0000-0000-000000000007
        state        online
        labels       role=web,x=\u{7}
        agent        0.1.0
        policy       -
        maintenance  -
        last seen    1970-01-01T00:01:00.000Z (in 1m)
        joined       1970-01-01T00:00:00.000Z
        facts        as follows
          arch       x86_64
          evil       \u{1b}[2J
          os         Debian
          osrelease  13
        ");
    }

    #[test]
    fn lines_are_for_pipes() {
        insta::assert_snapshot!(shown(Format::Name), @"
            web1
            db-2
            ");
        insta::assert_snapshot!(shown(Format::Jsonl), @r#"
        {"name":"web1","id":"00000000-0000-0000-0000-000000000007","state":"online","offline_since":null,"facts":{"arch":"x86_64","evil":"\u001b[2J","os":"Debian","osrelease":"13"},"labels":{"role":"web","x":"\u0007"},"agent_version":"0.1.0","last_seen":"1970-01-01T00:01:00.000Z","joined_at":"1970-01-01T00:00:00.000Z","policy":null,"maintenance":null}
        {"name":"db-2","id":"00000000-0000-0000-0000-000000000007","state":"offline","offline_since":"1970-01-01T00:01:00.000Z","facts":{"arch":"x86_64","evil":"\u001b[2J","os":"Debian","osrelease":"13"},"labels":{"role":"web","x":"\u0007"},"agent_version":"0.1.0","last_seen":"1970-01-01T00:01:00.000Z","joined_at":"1970-01-01T00:00:00.000Z","policy":null,"maintenance":null}
        "#);
    }

    #[test]
    fn json_is_what_the_api_gives() {
        insta::assert_snapshot!(shown(Format::Json), @r#"
        [
          {
            "name": "web1",
            "id": "00000000-0000-0000-0000-000000000007",
            "state": "online",
            "offline_since": null,
            "facts": {
              "arch": "x86_64",
              "evil": "\u001b[2J",
              "os": "Debian",
              "osrelease": "13"
            },
            "labels": {
              "role": "web",
              "x": "\u0007"
            },
            "agent_version": "0.1.0",
            "last_seen": "1970-01-01T00:01:00.000Z",
            "joined_at": "1970-01-01T00:00:00.000Z",
            "policy": null,
            "maintenance": null
          },
          {
            "name": "db-2",
            "id": "00000000-0000-0000-0000-000000000007",
            "state": "offline",
            "offline_since": "1970-01-01T00:01:00.000Z",
            "facts": {
              "arch": "x86_64",
              "evil": "\u001b[2J",
              "os": "Debian",
              "osrelease": "13"
            },
            "labels": {
              "role": "web",
              "x": "\u0007"
            },
            "agent_version": "0.1.0",
            "last_seen": "1970-01-01T00:01:00.000Z",
            "joined_at": "1970-01-01T00:00:00.000Z",
            "policy": null,
            "maintenance": null
          }
        ]
        "#);
    }

    #[test]
    fn yaml_has_the_keys_of_the_json() {
        insta::assert_snapshot!(shown(Format::Yaml), @r#"
        - agent_version: "0.1.0"
          facts:
            arch: x86_64
            evil: "\e[2J"
            os: Debian
            osrelease: "13"
          id: 00000000-0000-0000-0000-000000000007
          joined_at: "1970-01-01T00:00:00.000Z"
          labels:
            role: web
            x: "\a"
          last_seen: "1970-01-01T00:01:00.000Z"
          maintenance: null
          name: web1
          offline_since: null
          policy: null
          state: online
        - agent_version: "0.1.0"
          facts:
            arch: x86_64
            evil: "\e[2J"
            os: Debian
            osrelease: "13"
          id: 00000000-0000-0000-0000-000000000007
          joined_at: "1970-01-01T00:00:00.000Z"
          labels:
            role: web
            x: "\a"
          last_seen: "1970-01-01T00:01:00.000Z"
          maintenance: null
          name: db-2
          offline_since: "1970-01-01T00:01:00.000Z"
          policy: null
          state: offline
        "#);
    }
}
