//! The table under hostile servers and disks.

use std::collections::BTreeMap;

use fw_proto::frame::{Cause, Command, Fate, OnFull};
use fw_proto::{Incarnation, NodeId, RunId};

use super::*;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_millis(secs * 1000)
}

fn key(number: u128) -> TaskKey {
    TaskKey { run: RunId(uuid::Uuid::from_u128(number)), node: NodeId(0), attempt: 1 }
}

fn start(number: u128, not_after: Timestamp) -> Start {
    let spec = Spec {
        command: Command::Shell("true".to_owned()),
        user: None,
        cwd: None,
        env: BTreeMap::new(),
        secrets: BTreeMap::new(),
        timeout: None,
        kill_after: Span::from_secs(5),
        on_full: OnFull::Block,
        spool_bytes: 1,
        nice: None,
        umask: None,
        armed: None,
    };
    let incarnation = Incarnation(uuid::Uuid::nil());
    Start { key: key(number), not_after, incarnation, epoch: Epoch(1), spec }
}

fn ended(exit_code: i32) -> Ended {
    Ended {
        cause: Cause::Exited,
        exit_code: Some(exit_code),
        signal: None,
        started_at: at(1),
        finished_at: at(2),
        output: Offsets { stdout: 9, ..Offsets::default() },
        stdout_sha256: None,
        stderr_sha256: None,
        left_behind: 0,
        armed: None,
    }
}

/// A table of one slot that a task holds.
fn running(number: u128) -> Table {
    let mut table = Table::new(1, Epoch(1));
    table.start(start(number, at(100)), at(0));
    table.journaled(key(number));
    table.started(key(number), at(1));
    table
}

fn reported(effects: &[Effect]) -> Vec<(TaskKey, Reported)> {
    let report = |effect: &Effect| match effect {
        Effect::Report(report) => Some((report.key, report.state.clone())),
        Effect::Journal { .. }
        | Effect::Epoch(_)
        | Effect::Spawn { .. }
        | Effect::Kill(_)
        | Effect::Keep(_)
        | Effect::Undo(_)
        | Effect::Ship(_)
        | Effect::Forget(_) => None,
    };
    effects.iter().filter_map(report).collect()
}

#[test]
fn a_queued_start_is_refused_in_time_while_all_slots_are_busy() {
    let mut table = running(1);
    table.start(start(2, at(10)), at(0));
    table.start(start(3, at(20)), at(0));
    assert_eq!(table.expire(at(10)), []);
    let told = reported(&table.expire(at(11)));
    assert!(
        matches!(&told[..], [(late, Reported::Refused(refusal))]
            if *late == key(2) && refusal.reason == RefusalReason::Expired),
        "{told:?}"
    );
    assert_eq!(table.load(), (1, 1));
}

#[test]
fn an_end_whose_output_is_damaged_is_told_as_unknown_and_settled() {
    let mut table = running(1);
    assert_eq!(table.damaged(key(1)), None, "it may write more");
    assert_eq!(table.ended(key(1), ended(3), at(2)), [Effect::Ship(key(1))]);
    let told = table.damaged(key(1)).into_iter().collect::<Vec<_>>();
    insta::assert_snapshot!(text(&reported(&told)), @"its output is no longer whole on the host; the command exited with code 3");
    assert_eq!(table.shipped(key(1)), None);
    assert_eq!(table.with_output().count(), 0);
    assert_eq!(reported(&told), digested(&table));
    assert_eq!(table.settled(key(1)), Some(Effect::Forget(key(1))));
}

#[test]
fn a_task_without_its_supervisor_is_unknown_once_its_output_is_shipped() {
    let mut table = running(1);
    table.start(start(2, at(100)), at(0));
    let effects = table.died(key(1), at(1), at(2));
    assert_eq!(effects.first(), Some(&Effect::Ship(key(1))));
    assert!(
        matches!(effects.get(1), Some(Effect::Journal { key: next, .. }) if *next == key(2)),
        "its slot is free: {effects:?}"
    );
    assert_eq!(table.extent(key(1)), Some(Extent::Rest));
    assert_eq!(digested(&table)[0].1, Reported::Started(at(1)));
    let told = table.shipped(key(1)).unwrap();
    assert_eq!(text(&[(key(1), told.state)]), "its supervisor was killed");
    let mut again = Table::new(1, Epoch(1));
    assert_eq!(again.recover(key(1), at(100), Found::Dead(at(1)), false), [Effect::Ship(key(1))]);
    assert_eq!(again.load(), (0, 0));
    assert!(again.damaged(key(1)).is_some());
    assert_eq!(again.settled(key(1)), Some(Effect::Forget(key(1))));
}

fn applied() -> Applied {
    Applied { started_at: at(1), at: at(2), until: at(62) }
}

#[test]
fn a_word_counts_only_for_a_change_that_waits() {
    let mut table = running(1);
    assert_eq!(table.keep(key(1)), None, "it came before the change was made");
    let told: Vec<_> = table.applied(key(1), applied()).into_iter().collect();
    assert_eq!(reported(&told), [(key(1), Reported::Applied(applied()))]);
    assert_eq!(table.applied(key(1), applied()), None, "once");
    assert_eq!(digested(&table)[0].1, Reported::Started(at(1)), "any server reads a greeting");
    assert_eq!(table.waiting().collect::<Vec<_>>(), [key(1)]);
    assert_eq!(table.keep(key(1)), Some(Effect::Keep(key(1))));
    assert_eq!(table.cancel(key(1), at(3)), [Effect::Kill(key(1))]);
    table.ended(key(1), Ended { armed: Some(Fate::Kept), ..ended(0) }, at(3));
    assert_eq!((table.keep(key(1)), table.load()), (None, (0, 0)));
    let told: Vec<_> = table.damaged(key(1)).into_iter().collect();
    insta::assert_snapshot!(text(&reported(&told)), @"its output is no longer whole on the host; the command exited with code 0, and the change was kept");
}

#[test]
fn a_change_without_its_supervisor_is_undone_and_no_word_saves_it() {
    let mut table = running(1);
    table.applied(key(1), applied());
    assert_eq!(table.abandoned(key(1), at(1)), Some(Effect::Undo(key(1))));
    assert_eq!((table.keep(key(1)), table.load()), (None, (1, 0)));
    let mut again = Table::new(1, Epoch(1));
    assert_eq!(again.recover(key(1), at(100), Found::Abandoned(at(1)), false), []);
    assert_eq!(again.supervised().collect::<Vec<_>>(), [key(1)]);
    assert_eq!(again.abandoned(key(1), at(1)), Some(Effect::Undo(key(1))));
    assert_eq!(again.ended(key(1), ended(0), at(3)), [Effect::Ship(key(1))]);
    assert_eq!(again.abandoned(key(1), at(1)), None, "it has ended");
}

#[test]
fn a_digest_fits_in_a_frame_whatever_became_of_the_tasks() {
    let mut table = running(100_000);
    let refusal = Refusal { reason: RefusalReason::Policy, message: "é".repeat(2000) };
    for number in 0..20_000 {
        table.recover(key(number), at(100), Found::Refused(refusal.clone()), true);
    }
    assert_eq!(text(&[(key(1), table.query(key(1)).state)]).len(), MAX_TEXT);
    let digest = table.digest();
    assert!(digest.len() > 1000 && size(&digest) < MAX_FRAME / 2);
    assert_eq!(digest[0].key, key(100_000), "what runs comes first");
    assert!(Table::new(1, Epoch(1)).digest().is_empty() && digested(&running(1)).len() == 1);
}

fn size(reports: &[Report]) -> usize {
    fw_proto::frame::encode(&fw_proto::frame::FromAgent::Reports(reports.to_vec())).len()
}

fn digested(table: &Table) -> Vec<(TaskKey, Reported)> {
    table.digest().into_iter().map(|report| (report.key, report.state)).collect()
}

fn text(reports: &[(TaskKey, Reported)]) -> String {
    let text = |state: &Reported| match state {
        Reported::Refused(refusal) => refusal.message.clone(),
        Reported::Unknown(why) => why.clone(),
        Reported::NotKnown
        | Reported::Queued
        | Reported::Started(_)
        | Reported::Applied(_)
        | Reported::Ended(_) => {
            format!("{state:?}")
        }
    };
    reports.iter().map(|(_, state)| text(state)).collect::<Vec<_>>().join("\n")
}
