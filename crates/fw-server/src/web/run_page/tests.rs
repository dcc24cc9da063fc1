//! What the page says of a run.

use fw_proto::HostName;
use fw_proto::api::{RunReport, RunState, TaskReason, WaitingOn};

use super::*;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + secs * 1000)
}

fn task(host: &str, state: TaskState, times: (Option<i64>, Option<i64>)) -> Task {
    Task {
        host: host.parse::<HostName>().unwrap(),
        state,
        reason: None,
        message: None,
        attempt: 1,
        exit_code: None,
        signal: None,
        started_at: times.0.map(at),
        finished_at: times.1.map(at),
        stdout_bytes: 0,
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

fn run(state: RunState, tasks: Vec<Task>, waiting_on: Vec<WaitingOn>) -> api::Run {
    let total = u32::try_from(tasks.len()).unwrap();
    let summary = RunSummary {
        id: "0198c0de-0000-7000-8000-000000000001".parse().unwrap(),
        state,
        report: RunReport { tasks: std::collections::BTreeMap::new(), total, waiting_on },
        by: "ann".to_owned(),
        by_kind: Some(fw_proto::api::ActorKind::User),
        job: None,
        retry_of: None,
        change: None,
        hosts: "web*".to_owned(),
        command: Command::Shell("uptime".to_owned()),
        created_at: at(0),
        finished_at: state.is_final().then(|| at(100)),
    };
    api::Run { summary, tasks }
}

#[test]
fn bars_lie_in_the_time_of_the_run() {
    let tasks = vec![
        task("a", TaskState::Succeeded, (Some(0), Some(50))),
        task("b", TaskState::Failed, (Some(50), Some(100))),
        task("quick", TaskState::Succeeded, (Some(100), Some(100))),
        // A clock that is behind makes the chart begin earlier, and never a bar outside of it.
        task("behind", TaskState::Succeeded, (Some(-100), Some(-90))),
        task("none", TaskState::Queued, (None, None)),
    ];
    let run = run(RunState::Failed, tasks, Vec::new());
    let chart = Chart::of(&run, at(100));
    let bars: Vec<_> = run.tasks.iter().map(|task| chart.bar(task, at(100))).collect();
    let bar = |from, width| Bar { from, width };
    assert_eq!(bars, [bar(500, 250), bar(750, 250), bar(994, 6), bar(0, 50), bar(0, 0)]);
    assert_eq!(chart.axis(), ["0", "1 m 40 s", "3 m 20 s"]);
}

#[test]
fn it_says_why_it_waits_and_why_hosts_were_left_out() {
    let waits = vec![
        WaitingOn::Running { hosts: 1 },
        WaitingOn::Offline { hosts: 2, until: at(60) },
        WaitingOn::Parallel { hosts: 3 },
        WaitingOn::Spread { hosts: 1, until: at(90) },
    ];
    let waiting = run(RunState::Running, Vec::new(), waits);
    assert_eq!(
        explain(&waiting.summary, &waiting.tasks, at(0)),
        [
            "The command runs on 1 host.",
            "2 hosts are offline, and waited for, for at most 1 min more.",
            "3 hosts wait for others to end: the run takes only so many at once.",
            "1 host waits for its turn; the last begins in 1 min.",
        ]
    );
    let mut skipped = task("a", TaskState::Skipped, (None, None));
    skipped.reason = Some(TaskReason::Budget);
    assert_eq!(why(&skipped), "not begun: too many hosts had failed");
    let ended = run(RunState::Failed, vec![skipped], Vec::new());
    let said = explain(&ended.summary, &ended.tasks, at(0));
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[1].starts_with("1 host was left out"), "{said:?}");
}

#[test]
fn what_needs_a_look_comes_first() {
    use TaskState::{Failed, Queued, Running, Skipped, Succeeded, Unknown};
    let mut states = [Succeeded, Skipped, Running, Failed, Queued, Unknown];
    states.sort_by_key(|state| std::cmp::Reverse(urgency(*state)));
    assert_eq!(states[..3], [Failed, Unknown, Running]);
    assert_eq!(states[5], Succeeded);
}
