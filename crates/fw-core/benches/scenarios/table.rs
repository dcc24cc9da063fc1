//! One host's table of tasks under churn.

use std::collections::BTreeMap;
use std::hint::black_box;

use fw_core::tasks::Table;
use fw_proto::frame::{Cause, Command, Ended, OnFull, Spec, Start};
use fw_proto::record::Offsets;
use fw_proto::{Epoch, Incarnation, NodeId, RunId, Span, TaskKey};
use uuid::Uuid;

use super::at;
use crate::scenario::{Scenario, Size};

/// Tasks that start and end in one turn.
const TASKS: u32 = 1000;

/// Settled tasks of the last day that the host remembers.
const REMEMBERED: u32 = 10_000;

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario::once("table-churn-1000", Size::Items(u64::from(TASKS)), || {
            let mut table = table();
            let starts: Vec<Start> = (0..TASKS).map(|n| start(key(n))).collect();
            move || {
                for start in starts {
                    black_box(life(&mut table, start));
                }
                table
            }
        }),
        Scenario::once("table-queue-1000", Size::Items(u64::from(TASKS)), || {
            let mut table = table();
            let starts: Vec<Start> = (0..TASKS).map(|n| start(key(n))).collect();
            move || {
                for start in starts {
                    black_box(table.start(start, at(0)));
                }
                for n in 0..TASKS {
                    black_box(end(&mut table, key(n)));
                }
                table
            }
        }),
        Scenario::again("table-expire-idle", Size::Items(1), || {
            let mut table = table();
            move || table.expire(black_box(at(1)))
        }),
    ]
}

fn life(table: &mut Table, start: Start) -> bool {
    let key = start.key;
    table.start(start, at(0));
    end(table, key)
}

/// From its place in the journal to its end.
fn end(table: &mut Table, key: TaskKey) -> bool {
    table.journaled(key);
    table.started(key, at(0));
    table.ended(key, ended(), at(1));
    table.shipped(key).is_some() && table.settled(key).is_some()
}

fn table() -> Table {
    let mut table = Table::new(64, Epoch(1));
    (0..REMEMBERED).for_each(|n| table.remember(key(TASKS + n), at(60)));
    table
}

fn key(n: u32) -> TaskKey {
    TaskKey { run: RunId(Uuid::from_u128(u128::from(n))), node: NodeId(0), attempt: 1 }
}

fn start(key: TaskKey) -> Start {
    let spec = Spec {
        command: Command::Shell("true".to_owned()),
        user: None,
        cwd: None,
        env: BTreeMap::new(),
        secrets: BTreeMap::new(),
        timeout: Some(Span::from_secs(60)),
        kill_after: Span::from_secs(10),
        on_full: OnFull::Block,
        spool_bytes: 64 * 1024 * 1024,
        nice: None,
        umask: None,
        armed: None,
    };
    let incarnation = Incarnation(Uuid::from_u128(2));
    Start { key, not_after: at(60), incarnation, epoch: Epoch(1), spec }
}

fn ended() -> Ended {
    Ended {
        cause: Cause::Exited,
        exit_code: Some(0),
        signal: None,
        started_at: at(0),
        finished_at: at(1),
        output: Offsets { stdout: 9, ..Offsets::default() },
        stdout_sha256: None,
        stderr_sha256: None,
        left_behind: 0,
        armed: None,
    }
}
