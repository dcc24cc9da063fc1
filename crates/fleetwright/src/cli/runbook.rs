//! `fleetwright runbook`: Markdown that says what to do, checked, planned and run.

mod act;
mod plan;

use std::fmt::Write as _;
use std::path::PathBuf;

use fw_core::runbook::{self, Parsed};
use fw_proto::api::SourceError;
use serde::Serialize;

use super::{Connection, ask, parse, talk};
use crate::exit::Code;
use crate::output::{self, Format, line};

/// What to do with runbooks.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Check a runbook here, without a server; exit code 1 when anything is wrong.
    ///
    /// Prints its steps. Any Markdown will do: headings are phases, items with a box and blocks of
    /// code are steps.
    Check(CheckArgs),
    /// Show what a runbook would do: its phases, commands with their values, hosts, approvals, undo.
    ///
    /// Changes nothing and runs nothing. The hosts are those of a server, or of a file of facts.
    Plan(PlanArgs),
    #[command(flatten)]
    Act(act::Verb),
}

#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// The document; `-` is stdin.
    file: String,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    /// The document; `-` is stdin.
    file: String,
    /// A value that the runbook asks for; repeat for more.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse::pair)]
    input: Vec<(String, String)>,
    /// Where steps run that name no hosts.
    #[arg(long, value_name = "SELECTOR")]
    hosts: Option<String>,
    /// Pick hosts without a server, from a JSON file: an object of hosts, each an object of its facts.
    #[arg(long, value_name = "FILE")]
    facts_file: Option<PathBuf>,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// The answer of `check` as data.
#[derive(Debug, Serialize)]
struct Checked<'a> {
    steps: Vec<CheckedStep<'a>>,
    errors: &'a [SourceError],
}

/// A step of it.
#[derive(Debug, Serialize)]
struct CheckedStep<'a> {
    id: &'a str,
    line: u32,
    kind: &'static str,
}

/// Does it.
pub(super) fn run(verb: Verb, connection: &Connection) -> anyhow::Result<Code> {
    match verb {
        Verb::Check(args) => check(&args),
        Verb::Plan(args) => plan::run(&args, connection),
        Verb::Act(verb) => talk(connection, async |session| act::run(session, verb).await),
    }
}

fn check(args: &CheckArgs) -> anyhow::Result<Code> {
    let (text, name) = ask::text_of(&args.file)?;
    let parsed = runbook::parse(&name, &text);
    match args.output {
        Format::Table | Format::Wide => output::print(&page(&parsed))?,
        Format::Name => {
            let names = parsed.runbook.steps.iter().map(|step| format!("{}\n", step.id));
            output::print(&names.collect::<String>())?;
        }
        Format::Json | Format::Jsonl | Format::Yaml => {
            let steps = parsed.runbook.steps.iter().map(|step| CheckedStep {
                id: step.id.as_str(),
                line: step.line,
                kind: step.kind.name(),
            });
            let checked = Checked { steps: steps.collect(), errors: &parsed.errors };
            output::print(&output::item(&checked, "", args.output, String::new)?)?;
        }
    }
    tell(&parsed, matches!(args.output, Format::Table | Format::Wide | Format::Name));
    Ok(if parsed.errors.is_empty() { Code::Success } else { Code::Error })
}

/// Says what is wrong, unless the data says it already, and what is worth a thought.
fn tell(parsed: &Parsed, errors: bool) {
    for error in parsed.errors.iter().filter(|_| errors) {
        output::say(&format!("error: {}", output::error_text(error)));
    }
    for warning in &parsed.warnings {
        output::say(&format!("warning: {}", output::error_text(warning)));
    }
}

/// The first of some names, and how many more there are.
fn some(names: &[&str]) -> String {
    const SHOWN: usize = 8;
    let shown = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The steps, phase by phase.
fn page(parsed: &Parsed) -> String {
    let steps = &parsed.runbook.steps;
    let width = steps.iter().map(|step| step.id.as_str().len()).max().unwrap_or_default();
    let mut page = format!("{}\n", line(&parsed.runbook.title));
    let mut phase = None;
    for step in steps {
        if step.phase != phase {
            phase = step.phase;
            page.push_str(&heading(parsed, phase));
        }
        let (id, kind) = (step.id.as_str(), step.kind.name());
        let title = line(&step.title);
        writeln!(page, "  {:>5}  {id:width$}  {kind:8}  {title}", step.line)
            .expect("writing to memory");
    }
    page
}

/// The line of a phase.
fn heading(parsed: &Parsed, phase: Option<usize>) -> String {
    let phase = phase.and_then(|phase| parsed.runbook.phases.get(phase));
    phase.map_or_else(String::new, |phase| format!("{}\n", line(&phase.title)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_shown_phase_by_phase() {
        let text = "# New nginx\n\n- [ ] Tell the others\n\n## Install\n\n- [ ] Install it\n  ```sh id=install on=web* timeout=5m undo=back\n  install-nginx\n  ```\n\n```sh id=back\ninstall-nginx --previous\n```\n";
        insta::assert_snapshot!(page(&runbook::parse("x.md", text)));
    }
}
