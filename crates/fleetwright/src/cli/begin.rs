//! What follows when a run was begun, by whatever verb: follow it, wait for it or leave it.

use fw_proto::api::{Created, Run, Task, TaskState};
use fw_proto::{RunId, Span};

use super::{Refusal, Session};
use crate::client::LogFilter;
use crate::exit::Code;
use crate::output::{self, Begun, Format, View};
use crate::watch::{End, Show, watch};

/// Flags of every verb that begins a run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Waiting {
    /// Show the output as it comes (the default of a table).
    #[arg(long, short = 'f', conflicts_with = "detach")]
    follow: bool,
    /// Wait until the run has ended, for at most DUR (the default of the other formats).
    #[arg(long, value_name = "DUR", num_args = 0..=1, require_equals = true, conflicts_with = "detach")]
    #[expect(
        clippy::option_option,
        reason = "absent, without a value and with one are three things"
    )]
    wait: Option<Option<Span>>,
    /// Begin it and leave: print its id.
    #[arg(long, short = 'd')]
    detach: bool,
    /// Exit as the command did, when it ran on one host.
    #[arg(long, conflicts_with = "detach")]
    propagate: bool,
    /// Form of the result; `jsonl` with --follow prints every piece of output.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// What to do with a run that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Follow,
    Wait,
    Detach,
}

impl Waiting {
    /// Refuses what does not go together, before anything is begun.
    ///
    /// # Errors
    /// `--follow` with a format that has no place for output.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let has_place = matches!(self.output, Format::Table | Format::Wide | Format::Jsonl);
        if self.follow && !has_place {
            return Err(Refusal::usage(
                "--follow shows output as it comes: use -o table or -o jsonl with it, or --wait with this format",
            ));
        }
        Ok(())
    }

    fn mode(&self) -> Mode {
        let people = matches!(self.output, Format::Table | Format::Wide);
        match (self.detach, self.follow, self.wait) {
            (true, _, _) => Mode::Detach,
            (false, true, _) => Mode::Follow,
            (false, false, Some(_)) => Mode::Wait,
            (false, false, None) if people => Mode::Follow,
            (false, false, None) => Mode::Wait,
        }
    }

    /// Does what the flags say with a run that was just begun.
    ///
    /// # Errors
    /// The server refuses, or the output cannot be written.
    pub(crate) async fn go_on(&self, session: &Session, created: Created) -> anyhow::Result<Code> {
        let Created { id, warning } = created;
        warning.iter().for_each(|warning| output::say(&format!("warning: {warning}")));
        let people = matches!(self.output, Format::Table | Format::Wide);
        let show = match self.mode() {
            Mode::Detach => return self.leave(id),
            Mode::Follow if people => Show::Lines,
            Mode::Follow => Show::Output(View::Events, LogFilter::default()),
            Mode::Wait if people => Show::Progress,
            Mode::Wait => Show::Nothing,
        };
        let limit = self.wait.flatten();
        let watched = watch(&session.client, &session.tasks, id, show, limit).await?;
        match watched.end {
            End::Ended(run) => {
                self.print(session, &run)?;
                Ok(outcome(&run, self.propagate))
            }
            End::TimedOut(run) => {
                if let Some(run) = run {
                    self.print(session, &run)?;
                }
                output::say(&format!("the time is over; {}", goes_on(id)));
                Ok(Code::TimedOut)
            }
            End::Interrupted => {
                output::say(&format!("\ndetached; {}", goes_on(id)));
                Ok(Code::Interrupted)
            }
        }
    }

    fn leave(&self, id: RunId) -> anyhow::Result<Code> {
        let page = || format!("{id}\n");
        output::print(&output::item(&Begun { id }, &id.to_string(), self.output, page)?)?;
        if matches!(self.output, Format::Table | Format::Wide) {
            output::say(&goes_on(id));
        }
        Ok(Code::Success)
    }

    /// The results: data, unless the output was; then they are a message beside it.
    fn print(&self, session: &Session, run: &Run) -> anyhow::Result<()> {
        let table = || output::task_table(&run.tasks, session.now());
        match (self.mode(), self.output) {
            (Mode::Follow, Format::Jsonl) => {}
            (Mode::Follow, _) => output::say(table().trim_end()),
            (Mode::Wait | Mode::Detach, format) => {
                let text = output::item(run, &run.summary.id.to_string(), format, table)?;
                output::print(&text)?;
            }
        }
        Ok(())
    }
}

fn goes_on(id: RunId) -> String {
    format!(
        "the run goes on\n  follow it: fleetwright runs logs -f {id}\n  cancel it: fleetwright runs cancel {id}"
    )
}

/// The exit code for a run that has ended.
fn outcome(run: &Run, propagate: bool) -> Code {
    if let ([task], true) = (run.tasks.as_slice(), propagate)
        && let Some(code) = remote(task)
    {
        return code;
    }
    let good = |task: &Task| matches!(task.state, TaskState::Succeeded | TaskState::Skipped);
    let some = run.tasks.iter().any(|task| task.state == TaskState::Succeeded);
    match (run.tasks.iter().all(good), some) {
        (true, _) => Code::Success,
        (false, true) => Code::Partial,
        (false, false) => Code::NoneSucceeded,
    }
}

/// How the command ended on its host, as a shell would say it.
fn remote(task: &Task) -> Option<Code> {
    match (task.exit_code, task.signal) {
        (Some(0), _) if task.state == TaskState::Succeeded => Some(Code::Success),
        (Some(code), _) if code > 0 => u8::try_from(code).ok().map(Code::Remote),
        (None, Some(signal)) => u8::try_from(signal.saturating_add(128)).ok().map(Code::Remote),
        (Some(_) | None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(tasks: &[(&str, Option<i32>, Option<i32>)]) -> Run {
        let task = |(state, exit_code, signal): &(&str, Option<i32>, Option<i32>)| {
            json!({
                "host": "a", "state": state, "attempt": 1, "exit_code": exit_code, "signal": signal,
                "stdout_bytes": 0, "stderr_bytes": 0, "stdout_dropped_bytes": 0,
                "stderr_dropped_bytes": 0, "left_behind": 0,
            })
        };
        let run = json!({
            "id": "00000000-0000-0000-0000-000000000001", "state": "failed", "by": "admin", "hosts": "*",
            "report": {"tasks": {}, "total": 1, "waiting_on": []}, "command": {"shell": "x"},
            "created_at": "2026-11-20T09:30:00Z",
            "tasks": tasks.iter().map(task).collect::<Vec<_>>(),
        });
        serde_json::from_value(run).unwrap()
    }

    #[test]
    fn runs_have_their_exit_codes() {
        let check = |states: &[&str], expected: u8| {
            let tasks: Vec<_> = states.iter().map(|state| (*state, None, None)).collect();
            assert_eq!(outcome(&run(&tasks), false).number(), expected, "{states:?}");
        };
        check(&["succeeded", "succeeded"], 0);
        check(&["succeeded", "skipped"], 0);
        check(&["skipped"], 0);
        check(&["succeeded", "failed"], 3);
        check(&["succeeded", "cancelled"], 3);
        check(&["failed"], 100);
        check(&["failed", "skipped"], 100);
        check(&["lost", "unknown", "refused", "timed_out"], 100);
        check(&["cancelled"], 100);
    }

    #[test]
    fn the_command_may_speak_for_itself() {
        let check = |state: &str, exit, signal, expected: u8| {
            assert_eq!(outcome(&run(&[(state, exit, signal)]), true).number(), expected, "{state}");
        };
        check("succeeded", Some(0), None, 0);
        check("failed", Some(7), None, 7);
        check("failed", None, Some(9), 137);
        check("timed_out", None, Some(15), 143);
        check("lost", None, None, 100);
        check("timed_out", Some(0), None, 100);
        let two = run(&[("failed", Some(7), None), ("succeeded", Some(0), None)]);
        assert_eq!(outcome(&two, true), Code::Partial);
    }
}
