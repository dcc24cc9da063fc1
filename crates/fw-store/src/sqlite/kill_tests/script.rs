//! What children write: each value follows from the numbers of life, writer and turn alone.

use fw_core::run::Kind;
use fw_proto::api::{FireReason, Verdict};
use fw_proto::frame::Reported;
use fw_proto::{HostId, Span, Timestamp};

use crate::NewFire;
use crate::conformance::fixture::{Story, at, ended, fire, host_id, noise, run_id};

/// Writers of runs in each child.
pub(super) const WRITERS: u32 = 12;

/// Commits of which a whole run consists.
pub(super) const STEPS: u8 = 3;

/// Runs that ended longer ago are old: those of the script ended in 2026, old ones in 1970.
pub(super) const AGE: Span = Span::from_secs(20 * 365 * 24 * 3600);

/// Set in the ids of old runs.
pub(super) const OLD: u128 = 1 << 100;

/// The first run of a pair, whose events are committed together; the second follows it.
pub(super) fn pair(life: u64, writer: u32, turn: u32) -> u128 {
    (u128::from(life) << 64) | (u128::from(writer) << 32) | (u128::from(turn) << 1)
}

/// Life, writer and turn of a run.
pub(super) fn parts(run: u128) -> (u64, u32, u32) {
    let life = u64::try_from((run >> 64) & 0xffff).unwrap();
    let writer = u32::try_from((run >> 32) & 0xffff_ffff).unwrap();
    (life, writer, u32::try_from((run & 0xffff_ffff) >> 1).unwrap())
}

/// How far a run goes: some never end.
pub(super) fn last_step(run: u128) -> u8 {
    if parts(run).2 % 8 == 7 { STEPS - 1 } else { STEPS }
}

/// The step after which a run has so many events.
pub(super) fn step_of(seq: u64) -> Option<u8> {
    match seq {
        2 => Some(1),
        4 => Some(2),
        5 => Some(3),
        _ => None,
    }
}

/// The job of a writer's runs.
pub(super) fn job_of(writer: u32) -> String {
    format!("w{writer}")
}

/// The job whose fires a writer records as missed.
pub(super) fn missed_job(writer: u32) -> String {
    format!("m{writer}")
}

/// A run after its first step, and what each further step adds.
pub(super) fn begun(run: u128) -> Story {
    let (_, writer, _) = parts(run);
    Story::begin(run, 3, Some(&job_of(writer)), at(0))
        .then(at(1), Kind::Asked { hosts: vec![host_id(1)] })
}

pub(super) fn goes_on(story: Story, step: u8) -> Story {
    let hosts: Vec<HostId> = (0..3).map(host_id).collect();
    if step == 2 {
        let started = vec![(host_id(0), Reported::Started(at(2)))];
        return story
            .then(at(2), Kind::Dispatched { hosts, not_after: at(60) })
            .then(at(3), Kind::Reported { reports: started });
    }
    let all = hosts.into_iter().map(|host| (host, Reported::Ended(ended(at(4), 0))));
    story.then(at(4), Kind::Reported { reports: all.collect() })
}

/// The run as it is after a step.
pub(super) fn after(run: u128, step: u8) -> Story {
    (2..=step).fold(begun(run), goes_on)
}

/// The fire that began a run.
pub(super) fn fire_of(run: u128) -> NewFire {
    let (life, writer, turn) = parts(run);
    let second = i64::try_from(run & 1).unwrap();
    let instant = instant(life, turn) + second;
    let began = fire(&job_of(writer), instant, Verdict::Ran, None);
    NewFire { run: Some(run_id(run)), lag_ms: Some(7), ..began }
}

/// Two fires that were missed, neighbours of all others of this life.
pub(super) fn missed(life: u64, writer: u32, turn: u32) -> Vec<NewFire> {
    let instant = instant(life, turn);
    let missed =
        |instant| fire(&missed_job(writer), instant, Verdict::Missed, Some(FireReason::Downtime));
    vec![missed(instant), missed(instant + 1)]
}

/// The instant of a turn's first fire, in seconds after the beginning of all checks.
pub(super) fn instant(life: u64, turn: u32) -> i64 {
    i64::try_from(life).unwrap() * 1_000_000 + i64::from(turn) * 2
}

/// What a run's task on host 0 prints, and where its chunks end.
pub(super) fn output(run: u128) -> (Vec<u8>, [usize; 3]) {
    let seed = u64::try_from(run & 0xffff_ffff).unwrap()
        ^ u64::try_from((run >> 32) & 0xffff_ffff).unwrap();
    let text = noise(seed, 100 + usize::try_from(seed % 6000).unwrap());
    let len = text.len();
    (text, [len / 3, len / 2, len])
}

/// A run that ended long ago.
pub(super) fn old(life: u64, turn: u32) -> Story {
    let long_ago = Timestamp::from_millis(1_000_000 + i64::from(turn));
    Story::begin(OLD | pair(life, 0, turn), 3, None, long_ago).ended(long_ago, 0)
}

/// The number of a host that is enrolled in a life.
pub(super) fn host_number(life: u64, turn: u32) -> u128 {
    1000 + u128::from(life) * 100_000 + u128::from(turn)
}
