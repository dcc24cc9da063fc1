//! What people and jobs ask for.

use std::collections::BTreeMap;

use fw_core::command;
use fw_core::plan::{Chosen, Origin, Plan};
use fw_core::run::{Actor, Kind};
use fw_proto::api::{Arm, Command, EnvValue, NewRun, Offline, OnFull, RunState, TaskState};
use fw_proto::{HostId, JobName, RunId, Span, TaskKey};
use rand::RngExt as _;

use super::armed::Outlook;
use super::server::Message;
use super::spool::Script;
use super::store::Store;
use super::world::Ctx;

/// Silence of a host after which its task is lost.
pub(super) const LOST_AFTER: Span = Span::from_secs(90);

/// A run of some of the hosts.
pub(super) fn plan(ctx: &mut Ctx, store: &Store) -> Plan {
    let share = ctx.rng.random_range(1..=3);
    let hosts = active(ctx, store).into_iter().filter(|_| ctx.rng.random_range(0..3) < share);
    let hosts: Vec<_> = hosts.collect();
    let offline = match ctx.rng.random_range(0..4) {
        0 => Offline::Fail,
        1 => Offline::Skip,
        _ => Offline::Wait(Span::from_secs(ctx.rng.random_range(1..40))),
    };
    let env = if ctx.one_in(8) {
        BTreeMap::from([("SECRET".to_owned(), EnvValue::Secret("s".to_owned()))])
    } else {
        BTreeMap::new()
    };
    let start_within = Span::from_secs(ctx.rng.random_range(5..60));
    let new = NewRun {
        hosts: "*".into(),
        command: Command::Shell("true".into()),
        user: None,
        cwd: None,
        env,
        timeout: ctx.one_in(3).then(|| Span::from_secs(ctx.rng.random_range(1..30))),
        kill_after: Some(Span::from_secs(1)),
        start_within: Some(start_within),
        offline: Some(offline),
        parallel: ctx.one_in(2).then(|| ctx.rng.random_range(1..4)),
        max_failures: ctx.one_in(2).then(|| ctx.rng.random_range(1..4)),
        spread: spread(start_within),
        on_full: if ctx.one_in(2) { OnFull::Block } else { OnFull::Drop },
        nice: None,
        umask: None,
        armed: arm(ctx),
    };
    let hosts = chosen(hosts);
    command::compile(new, hosts, store.incarnation, LOST_AFTER).expect("a request in order")
}

/// A quarter of runs is armed.
fn arm(ctx: &mut Ctx) -> Option<Arm> {
    let text = |text: &str| Command::Shell(text.into());
    let within = Span::from_secs(ctx.rng.random_range(2..60));
    let probe = ctx.one_in(2).then(|| text("probe"));
    ctx.one_in(4).then(|| Arm { undo: text("undo"), within, probe })
}

/// A quarter of runs is spread, over less time than each of their hosts has.
fn spread(start_within: Span) -> Option<Span> {
    let ms = start_within.as_millis();
    (ms / 1000).is_multiple_of(4).then(|| Span::from_millis(ms / 2))
}

/// The run of a job: on all hosts that are not revoked, short.
pub(super) fn plan_of_job(ctx: &mut Ctx, store: &Store, job: &JobName) -> Plan {
    let mut plan = plan(ctx, store);
    plan.hosts = chosen(active(ctx, store).into_iter().take(3).collect());
    plan.limits.max_failures = None;
    plan.origin = Origin { job: Some(job.clone()), retry_of: None };
    plan
}

/// A repetition of a run that failed, on those hosts where it did.
pub(super) fn again(store: &Store) -> Option<Plan> {
    let failed = store.ended.values().rev().find(|run| run.state() == RunState::Failed)?;
    let of = failed.tasks.iter().filter(|(_, task)| task.state.is_failure());
    let hosts = of.map(|(host, _)| *host).filter(|host| !store.revoked.contains(host)).collect();
    Some(command::again(failed.id, failed.plan.clone(), chosen(hosts), store.incarnation))
}

/// The end of a run: of each third, told by its id, on one of its hosts alone.
pub(super) fn cancel(run: RunId, store: &Store) -> Message {
    let by = Actor::Token("admin".to_owned());
    let lot = run.0.as_u128();
    let first = store.open.get(&run).and_then(|events| events.first()).map(|event| &event.kind);
    match first {
        Some(Kind::Planned(plan)) if lot.is_multiple_of(3) && !plan.hosts.is_empty() => {
            let at = usize::try_from(lot / 3 % plan.hosts.len() as u128).unwrap_or(0);
            let host = plan.hosts.get(at).map(|host| host.id);
            Message::CancelHosts(run, host.into_iter().collect(), by)
        }
        Some(_) | None => Message::Cancel(run, by),
    }
}

/// The next try of a job's run that failed, where there is a host for it.
pub(super) fn next_try(store: &Store, of: RunId) -> Option<Plan> {
    let failed = store.ended.get(&of)?;
    let done = [TaskState::Succeeded, TaskState::Cancelled];
    let again = failed.tasks.iter().filter(|(_, task)| !done.contains(&task.state));
    let hosts = again.map(|(host, _)| *host).filter(|host| !store.revoked.contains(host));
    let hosts = chosen(hosts.collect());
    let plan = command::next_try(of, failed.plan.clone(), hosts, store.incarnation);
    (!plan.hosts.is_empty()).then_some(plan)
}

fn active(ctx: &Ctx, store: &Store) -> Vec<HostId> {
    ctx.hosts.iter().filter(|host| !store.revoked.contains(*host)).copied().collect()
}

fn chosen(hosts: Vec<HostId>) -> Vec<Chosen> {
    hosts.into_iter().map(|id| Chosen { id, name: "sim".parse().expect("a name") }).collect()
}

/// What a task's command does: the same at every look, whoever asks.
pub(super) fn script(run: RunId, host: HostId) -> Script {
    let mut bits = run.0.as_u128() ^ host.0.as_u128().wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c);
    bits = (bits ^ (bits >> 61)).wrapping_mul(0xff51_afd7_ed55_8ccd_c4ce_b9fe_1a85);
    let mut take = |below: u32| {
        bits = bits.rotate_right(23).wrapping_mul(0x2545_f491_4f6c_dd1d_0000_0001);
        u32::try_from((bits >> 64) % u128::from(below)).unwrap_or(0)
    };
    let long = take(12) == 0;
    Script {
        steps: if long { None } else { Some(take(25)) },
        exit_code: i32::from(take(5) == 0),
        bytes: match take(10) {
            0 => 0,
            1 => 60_000,
            _ => 60,
        },
        stubborn: take(4),
        outlook: Outlook {
            proof: (take(6) > 0).then(|| take(4)),
            failing: if take(4) == 0 { take(7) } else { 0 },
            steps: take(3),
        },
    }
}

/// The task of a host in a run.
pub(super) fn key(run: RunId) -> TaskKey {
    TaskKey { run, node: fw_core::plan::ONLY_NODE, attempt: 1 }
}
