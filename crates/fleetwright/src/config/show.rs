//! What `config show` prints: every key, its value, and where it came from.

use std::fmt::Write as _;

use super::keys::{KEYS, Key};
use super::layers::Loaded;

/// One key as it stands. Secrets are `***`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Row {
    /// Table and key.
    pub(crate) key: &'static str,
    /// Its value; `None` when unset.
    pub(crate) value: Option<String>,
    /// Where it came from.
    pub(crate) origin: String,
    /// What it means.
    pub(crate) meaning: &'static str,
}

/// All keys as they stand.
pub(crate) fn rows(loaded: &Loaded) -> Vec<Row> {
    let row = |key: &Key| Row {
        key: key.name,
        value: (key.get)(&loaded.config),
        origin: loaded.origin(key.name).to_string(),
        meaning: key.doc,
    };
    KEYS.iter().map(row).collect()
}

/// The rows in columns, for people.
pub(crate) fn show(loaded: &Loaded) -> String {
    let rows = rows(loaded);
    let value = |row: &Row| row.value.clone().unwrap_or_else(|| "-".to_owned());
    let keys = rows.iter().map(|row| row.key.len()).max().unwrap_or_default();
    let values = rows.iter().map(|row| value(row).chars().count()).max().unwrap_or_default();
    rows.iter().fold(String::new(), |mut text, row| {
        writeln!(text, "{:keys$}  {:values$}  {}", row.key, value(row), row.origin)
            .expect("writing to memory");
        text
    })
}
