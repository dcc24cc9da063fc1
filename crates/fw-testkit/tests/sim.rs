//! Thousands of simulated worlds, each from its seed.
//!
//! They are split so that all cores work. A seed that breaks a rule is named with the rule, and
//! `cargo xtask sim --seed N` shows its history.

use std::collections::BTreeSet;

use fw_proto::api::{TaskState, Verdict};
use fw_testkit::sim::{self, ALL_FAULTS, Fault, Mark, Sight};

/// Worlds of each part.
const SEEDS: u64 = 700;

/// Runs a part of the seeds; gives what was seen.
fn check(part: u64) -> BTreeSet<Mark> {
    let mut seen = BTreeSet::new();
    for seed in part * SEEDS..(part + 1) * SEEDS {
        let report = sim::run(seed, false);
        assert!(report.broken.is_none(), "{}", told(seed));
        seen.extend(report.seen.into_keys());
    }
    seen
}

/// The end of a world, to be read.
fn told(seed: u64) -> String {
    let report = sim::run(seed, true);
    let from = report.lines.len().saturating_sub(40);
    let last = report.lines.get(from..).unwrap_or_default().join("\n");
    format!("{last}\nseed {seed} breaks a rule: {:?}", report.broken)
}

#[test]
fn worlds_keep_the_rules_3() {
    check(3);
}

#[test]
fn worlds_keep_the_rules_2() {
    check(2);
}

#[test]
fn worlds_keep_the_rules_0() {
    check(0);
}

/// All that should be seen over the seeds of a part: a rule that is never near to be broken shows nothing.
#[test]
fn worlds_keep_the_rules_and_are_rich() {
    let mut seen = check(1);
    // What comes about once in hundreds of worlds is looked for in further ones, which keep the rules as well.
    for part in 5..10 {
        if unseen(&seen).is_empty() {
            return;
        }
        seen.extend(check(part));
    }
    let unseen = unseen(&seen);
    assert!(unseen.is_empty(), "never seen: {unseen:?}");
}

fn unseen(seen: &BTreeSet<Mark>) -> Vec<Mark> {
    let faults = ALL_FAULTS.map(Mark::Fault);
    let states = [
        TaskState::Succeeded,
        TaskState::Failed,
        TaskState::TimedOut,
        TaskState::Cancelled,
        TaskState::Skipped,
        TaskState::Refused,
        TaskState::Lost,
        TaskState::Unknown,
    ];
    let verdicts = [
        Verdict::Pending,
        Verdict::Ran,
        Verdict::Skipped,
        Verdict::Coalesced,
        Verdict::CaughtUp,
        Verdict::Missed,
    ];
    let mut wanted: Vec<Mark> = faults.to_vec();
    wanted.extend(states.map(Mark::Task));
    wanted.extend(verdicts.map(Mark::Fire));
    wanted.extend(Sight::ALL.map(Mark::Sight));
    // Whatever happens, a task that is in flight meanwhile may end in each of these ways.
    for fault in ALL_FAULTS.into_iter().filter(|fault| !is_of_agents_end(*fault)) {
        let ways = [TaskState::Succeeded, TaskState::Failed, TaskState::Cancelled];
        wanted.extend(ways.map(|state| Mark::Both(fault, state)));
    }
    let ends = [
        (Fault::PowerCut, TaskState::Unknown),
        (Fault::SupervisorKill, TaskState::Unknown),
        (Fault::SpoolDamage, TaskState::Unknown),
        (Fault::Restore, TaskState::Unknown),
        (Fault::HalfOpen, TaskState::Lost),
        (Fault::Partition, TaskState::Lost),
        (Fault::Revoke, TaskState::Lost),
        (Fault::Stall, TaskState::Refused),
        (Fault::DiskFull, TaskState::Refused),
        (Fault::Policy, TaskState::Refused),
        (Fault::HostClock, TaskState::Refused),
        (Fault::ServerClock, TaskState::Refused),
    ];
    wanted.extend(ends.map(|(fault, state)| Mark::Both(fault, state)));
    wanted.retain(|mark| !seen.contains(mark));
    wanted
}

/// After these a host says nothing more of its tasks.
fn is_of_agents_end(fault: Fault) -> bool {
    fault == Fault::Revoke
}

#[test]
fn a_seed_replays_bit_for_bit() {
    for seed in [3, 7, 40] {
        let (first, second) = (sim::run(seed, false), sim::run(seed, true));
        assert!(first.events > 100, "much happens");
        assert_eq!((first.hash, first.events), (second.hash, second.events));
        assert_eq!(first.seen, second.seen);
        assert_ne!(first.hash, sim::run(seed + 1, false).hash);
    }
}
