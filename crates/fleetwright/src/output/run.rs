//! Runs and their tasks, for people.

use std::fmt::Write as _;

use fw_proto::Timestamp;
use fw_proto::api::{Armed, Command, Run, RunSummary, Task, TaskReason, TaskState};
use serde::Serialize;

use super::line;
use super::progress::waiting;
use super::table::{Row, Width, ago, bytes, render, took};

impl Row for RunSummary {
    const COLUMNS: &'static [(&'static str, Width)] = &[
        ("ID", Width::Always),
        ("STATE", Width::Always),
        ("DONE", Width::Number),
        ("HOSTS", Width::Always),
        ("COMMAND", Width::Always),
        ("BY", Width::Always),
        ("CREATED", Width::Always),
        ("TOOK", Width::Always),
        ("RETRY OF", Width::Wide),
    ];

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let ok = self.report.tasks.get(&TaskState::Succeeded).copied().unwrap_or(0);
        vec![
            self.id.to_string(),
            self.state.as_str().to_owned(),
            format!("{ok}/{}", self.report.total),
            self.hosts.clone(),
            command(&self.command),
            self.begun_by(),
            ago(self.created_at, now),
            self.finished_at.map(|end| took(self.created_at, end)).unwrap_or_default(),
            self.retry_of.map(|id| id.to_string()).unwrap_or_default(),
        ]
    }

    fn name(&self) -> String {
        self.id.to_string()
    }
}

impl Row for Task {
    const COLUMNS: &'static [(&'static str, Width)] = &[
        ("HOST", Width::Always),
        ("STATE", Width::Always),
        ("EXIT", Width::Number),
        ("TOOK", Width::Number),
        ("STDOUT", Width::Number),
        ("STDERR", Width::Number),
        ("WHY", Width::Always),
    ];

    fn cells(&self, _now: Timestamp) -> Vec<String> {
        let span = self.started_at.zip(self.finished_at);
        vec![
            self.host.to_string(),
            self.state.as_str().to_owned(),
            exit(self),
            span.map(|(from, to)| took(from, to)).unwrap_or_default(),
            bytes(self.stdout_bytes),
            bytes(self.stderr_bytes),
            why(self),
        ]
    }

    fn name(&self) -> String {
        self.host.to_string()
    }
}

/// The results of a run: a line for each host. Reasons are never cut.
pub(crate) fn task_table(tasks: &[Task], now: Timestamp) -> String {
    render(tasks, true, now)
}

/// A run on a page of its own.
pub(crate) fn page(run: &Run, now: Timestamp) -> String {
    let summary = &run.summary;
    let mut page = String::new();
    let mut put = |key: &str, value: &str| {
        writeln!(page, "{key:9} {}", line(value)).expect("writing to memory");
    };
    put("id", &summary.id.to_string());
    put("state", summary.state.as_str());
    if !summary.state.is_final() {
        put("progress", &waiting(&summary.report));
    }
    put("by", &summary.begun_by());
    if let Some(id) = summary.retry_of {
        put("retry of", &id.to_string());
    }
    if let Some(id) = summary.change {
        put("part of", &id.to_string());
    }
    put("hosts", &summary.hosts);
    put("command", &command(&summary.command));
    put("created", &format!("{} ({})", summary.created_at, ago(summary.created_at, now)));
    if let Some(end) = summary.finished_at {
        put("finished", &format!("{end} (took {})", took(summary.created_at, end)));
    }
    page.push('\n');
    page.push_str(&task_table(&run.tasks, now));
    page
}

fn exit(task: &Task) -> String {
    match (task.exit_code, task.signal) {
        (Some(code), _) => code.to_string(),
        (None, Some(signal)) => format!("SIG {signal}"),
        (None, None) => String::new(),
    }
}

/// Why a task is in its state, and what else is to be known of it.
fn why(task: &Task) -> String {
    let dropped = task.stdout_dropped_bytes + task.stderr_dropped_bytes;
    let reason = task.reason.map(reason_text);
    // Many messages begin with what the reason says.
    let said = |reason: &&str| task.message.as_ref().is_some_and(|text| text.starts_with(*reason));
    let waits = task.armed == Some(Armed::Waiting);
    let parts = [
        waits.then(|| "changed, and undone unless it is confirmed in time".to_owned()),
        reason.filter(|reason| !said(reason)).map(str::to_owned),
        task.message.clone(),
        (dropped > 0).then(|| format!("{} not kept", bytes(dropped))),
        (task.left_behind > 0).then(|| left_behind(task.left_behind)),
        task.late.as_ref().map(|late| format!("later: {late}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn left_behind(processes: u32) -> String {
    match processes {
        1 => "left 1 process behind".to_owned(),
        _ => format!("left {processes} processes behind"),
    }
}

/// A command as a person would type it.
pub(crate) fn command(command: &Command) -> String {
    match command {
        Command::Shell(text) => text.clone(),
        Command::Argv(argv) => argv.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

const fn reason_text(reason: TaskReason) -> &'static str {
    match reason {
        TaskReason::Offline => "the host was offline",
        TaskReason::Budget => "too many failures before",
        TaskReason::Revoked => "the host was revoked",
        TaskReason::Expired => "the start came too late",
        TaskReason::Fenced => "a newer server has this host",
        TaskReason::Policy => "the host's policy",
        TaskReason::QueueFull => "too many tasks on the host",
        TaskReason::User => "not as this user",
        TaskReason::Spawn => "it could not be begun",
        TaskReason::Disk => "the host's disk",
        TaskReason::NoSecret => "a secret is gone",
        TaskReason::Overlap => "the earlier run went on",
        TaskReason::Replaced => "the job's next fire took its place",
        TaskReason::AgentOld => "its agent is too old to undo a change by itself: upgrade it",
        TaskReason::Kept => "kept",
        TaskReason::Undone => "undone by the host",
        TaskReason::UndoFailed => {
            "THE UNDO FAILED: the change is still there, wholly or in part; look at the host"
        }
    }
}

/// What `-o json` prints of a run that was only begun.
#[derive(Debug, Serialize)]
pub(crate) struct Begun {
    /// Its id.
    pub(crate) id: fw_proto::RunId,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fw_proto::RunId;
    use fw_proto::api::{RunReport, RunState};
    use uuid::Uuid;

    use super::*;

    fn task(host: &str, state: TaskState) -> Task {
        Task {
            host: host.parse().unwrap(),
            state,
            reason: None,
            message: None,
            attempt: 1,
            exit_code: (state == TaskState::Succeeded).then_some(0),
            signal: None,
            started_at: Some(Timestamp::EPOCH),
            finished_at: Some(Timestamp::from_millis(1250)),
            stdout_bytes: 52_428_800,
            stderr_bytes: 0,
            stdout_sha256: None,
            stderr_sha256: None,
            stdout_dropped_bytes: 0,
            stderr_dropped_bytes: 0,
            left_behind: 0,
            armed: None,
            late: None,
        }
    }

    fn run() -> Run {
        let mut killed = task("db", TaskState::TimedOut);
        (killed.signal, killed.stdout_dropped_bytes) = (Some(9), 4096);
        let mut refused = task("web-10.example.com", TaskState::Refused);
        (refused.reason, refused.started_at) = (Some(TaskReason::Policy), None);
        refused.message = Some("mode is observe\u{1b}[2J".into());
        Run {
            summary: RunSummary {
                id: RunId(Uuid::from_u128(1)),
                state: RunState::Failed,
                report: RunReport {
                    tasks: BTreeMap::from([
                        (TaskState::Succeeded, 1),
                        (TaskState::TimedOut, 1),
                        (TaskState::Refused, 1),
                    ]),
                    total: 3,
                    waiting_on: Vec::new(),
                },
                by: "admin".into(),
                by_kind: Some(fw_proto::api::ActorKind::Token),
                job: None,
                retry_of: None,
                change: None,
                hosts: "*".into(),
                command: Command::Argv(vec!["echo".into(), "it's".into()]),
                created_at: Timestamp::EPOCH,
                finished_at: Some(Timestamp::from_millis(61_000)),
            },
            tasks: vec![killed, task("web1", TaskState::Succeeded), refused],
        }
    }

    #[test]
    fn a_reason_is_said_once() {
        let mut refused = task("web1", TaskState::Refused);
        refused.reason = Some(TaskReason::Policy);
        refused.message = Some("the host's policy does not list the user \"root\"".to_owned());
        refused.left_behind = 1;
        assert_eq!(
            why(&refused),
            "the host's policy does not list the user \"root\"; left 1 process behind"
        );
        (refused.message, refused.left_behind) = (None, 2);
        assert_eq!(why(&refused), "the host's policy; left 2 processes behind");
    }

    #[test]
    fn an_armed_change_says_what_became_of_it() {
        let say = |state, armed, reason| {
            let mut changed = task("web1", state);
            (changed.armed, changed.reason) = (Some(armed), reason);
            why(&changed)
        };
        let texts = [
            say(TaskState::Running, Armed::Waiting, None),
            say(TaskState::Succeeded, Armed::Kept, Some(TaskReason::Kept)),
            say(TaskState::Failed, Armed::Undone, Some(TaskReason::Undone)),
            say(TaskState::Failed, Armed::UndoFailed, Some(TaskReason::UndoFailed)),
        ];
        insta::assert_snapshot!(texts.join("\n"), @r"
            changed, and undone unless it is confirmed in time
            kept
            undone by the host
            THE UNDO FAILED: the change is still there, wholly or in part; look at the host
            ");
    }

    #[test]
    fn a_run_is_a_page_and_a_line() {
        insta::assert_snapshot!(page(&run(), Timestamp::from_millis(120_000)), @r"
            id        00000000-0000-0000-0000-000000000001
            state     failed
            by        token:admin
            hosts     *
            command   echo 'it'\''s'
            created   1970-01-01T00:00:00.000Z (2m ago)
            finished  1970-01-01T00:01:01.000Z (took 1m 1s)

            HOST                STATE       EXIT  TOOK  STDOUT  STDERR  WHY
            db                  timed_out  SIG 9  1.2s   52 MB     0 B  4.0 kB not kept
            web1                succeeded      0  1.2s   52 MB     0 B  -
            web-10.example.com  refused        -     -   52 MB     0 B  the host's policy; mode is observe\u{1b}[2J
            ");
        let line = super::super::list(
            &[run().summary],
            super::super::Format::Table,
            Timestamp::from_millis(120_000),
        );
        insta::assert_snapshot!(line.unwrap(), @r"
            ID                                    STATE   DONE  HOSTS  COMMAND         BY           CREATED  TOOK
            00000000-0000-0000-0000-000000000001  failed   1/3  *      echo 'it'\''s'  token:admin  2m ago   1m 1s
            ");
    }
}
