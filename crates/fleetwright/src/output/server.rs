//! Tokens, users, secrets, the audit and the server, for people.

use std::fmt::Write as _;

use fw_proto::Timestamp;
use fw_proto::api::{AuditEntry, Secret, ServerInfo, Token, User};

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

impl Row for User {
    const COLUMNS: &'static [(&'static str, Width)] = &[
        ("NAME", Width::Always),
        ("ROLE", Width::Always),
        ("STATE", Width::Always),
        ("ONE-TIME CODES", Width::Always),
        ("LAST SIGN-IN", Width::Always),
    ];

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let state = match (self.disabled, self.set_up) {
            (true, _) => "disabled",
            (false, true) => "active",
            (false, false) => "invited",
        };
        vec![
            self.name.clone(),
            self.role.to_string(),
            state.to_owned(),
            if self.totp { "on" } else { "off" }.to_owned(),
            self.last_sign_in.map_or_else(|| "never".to_owned(), |at| ago(at, now)),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Row for AuditEntry {
    const COLUMNS: &'static [(&'static str, Width)] = &[
        ("N", Width::Always),
        ("AT", Width::Always),
        ("BY", Width::Always),
        ("FROM", Width::Always),
        ("ACTION", Width::Always),
        ("SUBJECT", Width::Always),
    ];

    fn cells(&self, now: Timestamp) -> Vec<String> {
        vec![
            self.n.to_string(),
            ago(self.at, now),
            self.by.clone(),
            self.address.clone().unwrap_or_else(|| "the server".to_owned()),
            self.action.clone(),
            self.subject.clone(),
        ]
    }

    fn name(&self) -> String {
        self.n.to_string()
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
