//! `fleetwright dialects`: what other programs speak, tried against a server that speaks it; and what they did,
//! compared with what we would have done.

mod compare;

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use super::parse::Dialect;
use crate::exit::Code;
use crate::output::{self, Format, line};
use crate::wrapper::Whose;
use crate::wrapper::checks::{self, Check, Outcome};

/// What to do with dialects.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Try every message of a dialect against a server, ours or another.
    ///
    /// For Saltpeter that is the port where wrappers connect. A server hears only wrappers that it
    /// has started; without --instance and --machine what needs one is left out. The exit code is 1 when
    /// a check fails.
    Test(TestArgs),
    /// Compare what Saltpeter did with what this server would have done in its place.
    ///
    /// The server runs beside it in shadow mode (`serve --saltpeter DIR --saltpeter-shadow`). Saltpeter tells of each job
    /// the last run, and of older ones when it has a search server; --follow watches it for a while. The exit code is 6 when
    /// the two differ, and 3 when nothing could be compared.
    Compare(compare::Args),
}

#[derive(Debug, clap::Args)]
pub(crate) struct TestArgs {
    /// Which dialect.
    #[arg(value_enum)]
    dialect: Dialect,
    /// Where the server listens, such as `ws://host:8889`.
    url: String,
    /// Instance that the server has started, as its wrapper reads it in `SP_JOB_INSTANCE`.
    #[arg(long, value_name = "INSTANCE", requires = "machine")]
    instance: Option<String>,
    /// Machine that it was started on. The test speaks in the place of its wrapper.
    #[arg(long, value_name = "NAME", requires = "instance")]
    machine: Option<String>,
    /// Wait so many seconds for someone to cancel the run.
    #[arg(long, value_name = "SECONDS", requires = "instance")]
    kill: Option<u64>,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// The answer as data.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    url: &'a str,
    checks: &'a [Check],
    passed: usize,
    failed: usize,
    left_out: usize,
}

/// Does it.
pub(crate) fn run(verb: &Verb, connection: &super::Connection) -> anyhow::Result<Code> {
    match verb {
        Verb::Test(args) => test(args),
        Verb::Compare(args) => {
            super::talk(connection, async |session| compare::run(session, args).await)
        }
    }
}

fn test(args: &TestArgs) -> anyhow::Result<Code> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("start the runtime")?;
    let whose = args.instance.clone().zip(args.machine.clone());
    let whose = whose.map(|(instance, machine)| Whose { instance, machine });
    let kill = args.kill.map(Duration::from_secs);
    let checks = match args.dialect {
        Dialect::Saltpeter => runtime.block_on(checks::all(&args.url, whose.as_ref(), kill)),
    };
    let count = |outcome| checks.iter().filter(|check| check.outcome == outcome).count();
    let answer = Answer {
        url: &args.url,
        checks: &checks,
        passed: count(Outcome::Passed),
        failed: count(Outcome::Failed),
        left_out: count(Outcome::LeftOut),
    };
    output::print(&output::item(&answer, &args.url, args.output, || page(&answer))?)?;
    Ok(if answer.failed == 0 { Code::Success } else { Code::Error })
}

fn page(answer: &Answer<'_>) -> String {
    let mut page = String::new();
    for check in answer.checks {
        let word = check.outcome.word();
        writeln!(page, "{word:<9} {} ({})", check.name, line(&check.detail))
            .expect("writing to memory");
    }
    let Answer { passed, failed, left_out, .. } = answer;
    writeln!(page, "\n{passed} passed, {failed} failed, {left_out} left out")
        .expect("writing to memory");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_what_was_heard_instead() {
        let check =
            |name, outcome, detail: &str| Check { name, outcome, detail: detail.to_owned() };
        let checks = [
            check("connect is acknowledged", Outcome::Passed, "3 ms"),
            check("output is acknowledged", Outcome::Failed, "no answer within 1s\u{1b}[2J"),
            check("a kill comes", Outcome::LeftOut, "needs --kill"),
        ];
        let answer = Answer { url: "ws://x", checks: &checks, passed: 1, failed: 1, left_out: 1 };
        insta::assert_snapshot!(page(&answer));
    }
}
