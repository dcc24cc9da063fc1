//! The forms of data: tables for people, the others for programs.

use std::io;

use anyhow::Context as _;
use fw_proto::Timestamp;
use serde::Serialize;

use super::table::{self, Row};

/// In which form data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// JSON, as the API gives it.
    Json,
    /// One JSON value a line.
    Jsonl,
    /// YAML, with the keys of the JSON.
    Yaml,
    /// Names or ids only, one a line.
    Name,
}

/// The text of a list.
///
/// # Errors
/// The list cannot be written in this form.
pub(crate) fn list<T: Row + Serialize>(
    items: &[T],
    format: Format,
    now: Timestamp,
) -> anyhow::Result<String> {
    match format {
        Format::Table => Ok(table::render(items, false, now)),
        Format::Wide => Ok(table::render(items, true, now)),
        Format::Json => json(items),
        Format::Jsonl => items.iter().map(json_line).collect(),
        Format::Yaml => yaml(items),
        Format::Name => {
            Ok(items.iter().map(|item| format!("{}\n", super::line(&item.name()))).collect())
        }
    }
}

/// The text of one thing; `page` makes the one for people.
///
/// # Errors
/// The thing cannot be written in this form.
pub(crate) fn item<T: Serialize>(
    item: &T,
    name: &str,
    format: Format,
    page: impl FnOnce() -> String,
) -> anyhow::Result<String> {
    match format {
        Format::Table | Format::Wide => Ok(page()),
        Format::Json => json(item),
        Format::Jsonl => json_line(item),
        Format::Yaml => yaml(item),
        Format::Name => Ok(format!("{}\n", super::line(name))),
    }
}

fn json<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<String> {
    let mut text = serde_json::to_string_pretty(value).context("write JSON")?;
    text.push('\n');
    Ok(text)
}

fn json_line<T: Serialize>(value: &T) -> anyhow::Result<String> {
    let mut text = serde_json::to_string(value).context("write JSON")?;
    text.push('\n');
    Ok(text)
}

/// YAML by way of JSON values, so that both have the same keys and forms.
fn yaml<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<String> {
    let value = serde_json::to_value(value).context("write YAML")?;
    let mut text = serde_saphyr::to_string(&value).context("write YAML")?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Whether the error is that nobody reads stdout any more (`| head`): a reason to stop, not to complain.
pub(crate) fn reader_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}
