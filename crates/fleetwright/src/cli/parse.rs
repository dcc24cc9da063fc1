//! Values of flags, parsed where they come in.

use fw_proto::api::Offline;
use fw_proto::{RunId, Span};

/// Another program whose forms are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Dialect {
    /// Saltpeter, the scheduler for Salt.
    Saltpeter,
}

/// A run as one names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunName {
    /// By its id.
    Id(RunId),
    /// The one that was begun last.
    Latest,
}

/// `latest`, or an id.
pub(crate) fn run_name(text: &str) -> Result<RunName, String> {
    if text == "latest" {
        return Ok(RunName::Latest);
    }
    let id = text.parse().map(RunName::Id);
    id.map_err(|_| "give the id of a run (see `fleetwright runs list`) or `latest`".to_owned())
}

/// `NAME=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("write it as NAME=VALUE".to_owned()),
    }
}

/// `wait=DUR`, `fail` or `skip`.
pub(crate) fn offline(text: &str) -> Result<Offline, String> {
    match (text, text.strip_prefix("wait=")) {
        ("fail", _) => Ok(Offline::Fail),
        ("skip", _) => Ok(Offline::Skip),
        (_, Some(span)) => {
            span.parse::<Span>().map(Offline::Wait).map_err(|error| error.to_string())
        }
        (_, None) => Err("write it as wait=5m, fail or skip".to_owned()),
    }
}

/// A file mode creation mask, in octal.
pub(crate) fn umask(text: &str) -> Result<u16, String> {
    let mask = u16::from_str_radix(text, 8).ok().filter(|mask| *mask <= 0o777);
    mask.ok_or_else(|| "write it in octal, from 000 to 777".to_owned())
}

/// A label to set (`key=value`) or to take off (`key-`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Label {
    /// Set it.
    Set(String, String),
    /// Take it off.
    Remove(String),
}

/// `key=value` or `key-`.
pub(crate) fn label(text: &str) -> Result<Label, String> {
    if let Ok((key, value)) = pair(text) {
        return Ok(Label::Set(key, value));
    }
    match text.strip_suffix('-') {
        Some(key) if !key.is_empty() => Ok(Label::Remove(key.to_owned())),
        Some(_) | None => Err("write key=value to set a label, key- to take it off".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_are_meant() {
        assert_eq!(pair("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(pair("A="), Ok(("A".into(), String::new())));
        assert!(pair("=b").is_err());
        assert_eq!(offline("wait=90"), Ok(Offline::Wait(Span::from_secs(90))));
        assert_eq!(umask("027"), Ok(0o27));
        assert!(umask("1777").is_err());
        assert_eq!(label("role=web"), Ok(Label::Set("role".into(), "web".into())));
        assert_eq!(label("role-"), Ok(Label::Remove("role".into())));
        assert!(label("-").is_err());
        assert_eq!(run_name("latest"), Ok(RunName::Latest));
    }
}
