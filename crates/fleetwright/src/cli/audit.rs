//! `fleetwright audit`: what was changed, by whom.

use std::fmt::Write as _;

use fw_proto::api::AuditEntry;

use super::Session;
use crate::exit::Code;
use crate::output::{self, Format};

/// What to do with the audit.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// List what was changed, newest first.
    List(ListArgs),
    /// Look whether all entries are what they were when they were written, and none is missing.
    Verify(VerifyArgs),
    /// Write all entries to stdout, newest first.
    Export(ExportArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Filter {
    /// Only by this user, or by a token as `token:NAME`.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Only of this action, such as `host.revoke`.
    #[arg(long)]
    action: Option<String>,
    /// Only about this: a host's name, a job's, a run's id.
    #[arg(long)]
    subject: Option<String>,
    /// Only on this host.
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
}

impl Filter {
    fn query(self) -> Vec<(&'static str, String)> {
        let Self { by, action, subject, host } = self;
        let all = [("by", by), ("action", action), ("subject", subject), ("host", host)];
        all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    filter: Filter,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Form of the list.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    filter: Filter,
    /// One JSON object a line, or comma-separated values (RFC 4180).
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: ExportFormat,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum ExportFormat {
    #[default]
    Jsonl,
    Csv,
}

/// Does it.
pub(crate) async fn run(session: &Session, verb: Verb) -> anyhow::Result<Code> {
    match verb {
        Verb::List(args) => {
            let entries = session.client.audit(&args.filter.query(), Some(args.limit)).await?;
            output::print(&output::list(&entries, args.output, session.now())?)?;
            Ok(Code::Success)
        }
        Verb::Verify(args) => {
            let check = session.client.verify_audit().await?;
            let head = check.head.as_deref().unwrap_or("none");
            let page = || match &check.broken {
                Some(broken) => format!("broken: {}\n", output::line(broken)),
                None => format!("{} entries, all whole; the newest is {head}\n", check.entries),
            };
            output::print(&output::item(&check, head, args.output, page)?)?;
            Ok(if check.broken.is_none() { Code::Success } else { Code::Error })
        }
        Verb::Export(args) => {
            let entries = session.client.audit(&args.filter.query(), None).await?;
            output::print(&export(&entries, args.format)?)?;
            Ok(Code::Success)
        }
    }
}

fn export(entries: &[AuditEntry], format: ExportFormat) -> anyhow::Result<String> {
    let mut text = String::new();
    if format == ExportFormat::Csv {
        text.push_str("n,at,by,address,action,subject,hosts,before,after,sha256\r\n");
    }
    for entry in entries {
        match format {
            ExportFormat::Jsonl => {
                writeln!(text, "{}", serde_json::to_string(entry)?).expect("writing to memory");
            }
            ExportFormat::Csv => text.push_str(&row(entry)),
        }
    }
    Ok(text)
}

fn row(entry: &AuditEntry) -> String {
    let json = |value: &Option<serde_json::Value>| {
        value.as_ref().map(ToString::to_string).unwrap_or_default()
    };
    let cells = [
        entry.n.to_string(),
        entry.at.to_string(),
        entry.by.clone(),
        entry.address.clone().unwrap_or_default(),
        entry.action.clone(),
        entry.subject.clone(),
        entry.hosts.join(" "),
        json(&entry.before),
        json(&entry.after),
        entry.sha256.clone(),
    ];
    format!("{}\r\n", cells.map(|cell| quoted(&cell)).join(","))
}

/// A cell that a spreadsheet takes for a text and not for a formula.
fn quoted(cell: &str) -> String {
    let formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let plain = !cell.contains(['"', ',', '\r', '\n']);
    if plain && !formula {
        return cell.to_owned();
    }
    let mark = if formula { "'" } else { "" };
    format!("\"{mark}{}\"", cell.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_stays_one_cell_and_a_text() {
        for (cell, expected) in [
            ("web1", "web1"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"\nthere", "\"say \"\"hi\"\"\nthere\""),
            ("=1+1", "\"'=1+1\""),
            ("", ""),
        ] {
            assert_eq!(quoted(cell), expected);
        }
    }
}
