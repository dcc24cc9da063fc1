//! Tokens, secrets and the server, for people.

use std::fmt::Write as _;

use fw_proto::Timestamp;
use fw_proto::api::{Secret, ServerInfo, Token};

use super::line;
use super::table::{Row, Width, ago};

impl Row for Token {
    const COLUMNS: &'static [(&'static str, Width)] = &[
        ("NAME", Width::Always),
        ("CREATED", Width::Always),
        ("LAST USED", Width::Always),
        ("EXPIRES", Width::Always),
    ];

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let at = |at: Timestamp| ago(at, now);
        vec![
            self.name.clone(),
            at(self.created_at),
            self.last_used.map_or_else(|| "never".to_owned(), at),
            self.expires_at.map_or_else(|| "never".to_owned(), at),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Row for Secret {
    const COLUMNS: &'static [(&'static str, Width)] =
        &[("NAME", Width::Always), ("SET", Width::Always)];

    fn cells(&self, now: Timestamp) -> Vec<String> {
        vec![self.name.clone(), ago(self.updated_at, now)]
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// The server on a page of its own.
pub(crate) fn page(info: &ServerInfo, address: &str, now: Timestamp) -> String {
    let mut page = String::new();
    let mut put = |key: &str, value: &str| {
        writeln!(page, "{key:12} {}", line(value)).expect("writing to memory");
    };
    put("address", address);
    put("version", &info.version);
    put("started", &format!("{} ({})", info.started_at, ago(info.started_at, now)));
    put("hosts online", &info.hosts_online.to_string());
    put("runs active", &info.runs_active.to_string());
    put("incarnation", &info.incarnation.to_string());
    put("epoch", &info.epoch.0.to_string());
    for key in &info.keys {
        put("key", &key.to_string());
    }
    page
}
