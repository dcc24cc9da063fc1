//! What people and jobs ask for.

use std::collections::BTreeMap;

use fw_core::change::{self, Act, Approve, Change, Node, OnFailure, Request, Undo, UndoWhen, Work};
use fw_core::command;
use fw_core::plan::{Chosen, Origin, Plan};
use fw_core::run::{Actor, Kind};
use fw_core::runbook::Expect;
use fw_proto::api::{Arm, Command, EnvValue, NewRun, Offline, OnFull, Role, RunState, TaskState};
use fw_proto::{HostId, JobName, RunId, Span, TaskKey};
use rand::RngExt as _;
use rand::seq::IndexedRandom as _;
use uuid::Uuid;

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
    plan.origin = Origin { job: Some(job.clone()), retry_of: None, change: None };
    plan
}

/// A repetition of a run that failed, on those hosts where it did.
pub(super) fn again(store: &Store) -> Option<Plan> {
    let failed = store.ended.values().rev().find(|run| run.state() == RunState::Failed)?;
    let of = failed.tasks.iter().filter(|(_, task)| task.state.is_failure());
    let hosts = of.map(|(host, _)| *host).filter(|host| !store.revoked.contains(host)).collect();
    Some(command::again(failed.id, failed.plan.clone(), chosen(hosts), store.incarnation))
}

/// Whether a run is a part of a change.
pub(super) fn is_of_change(events: &[fw_core::run::Event]) -> bool {
    match events.first().map(|event| &event.kind) {
        Some(Kind::Planned(plan)) => plan.origin.change.is_some(),
        Some(_) | None => false,
    }
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

/// Hosts of a change.
const MOST_HOSTS: usize = 12;

/// A rollout or runbook on some of the hosts; on none it is none.
pub(super) fn change(ctx: &mut Ctx, store: &Store) -> Option<change::Plan> {
    let mut hosts = active(ctx, store);
    // One after the other and back again, a large fleet would take longer than the world lasts.
    hosts.truncate(MOST_HOSTS);
    let size = ctx.rng.random_range(1..=hosts.len().max(1));
    let mut nodes = Vec::new();
    for (group, hosts) in (0..).zip(hosts.chunks(size)) {
        for n in 0..ctx.rng.random_range(1..=2_u32) {
            let gate = match ctx.rng.random_range(0..6) {
                0 => Some(gate(ctx)),
                1 => Some(Act::Wait(Span::from_secs(ctx.rng.random_range(1..20)))),
                2 => Some(Act::Confirm),
                _ => None,
            };
            let act = Act::Exec(work(ctx, store, hosts));
            let undo = ctx.rng.random_range(0..5) > 0;
            let undo =
                undo.then(|| Undo { work: undo_work(ctx, store, hosts), when: UndoWhen::Begun });
            let id = format!("wave-{group}-{n}");
            let node = |act, undo| {
                let (id, title) = (id.clone(), id.clone());
                Node { id, title, line: None, group: Some(group), act, undo }
            };
            nodes.extend(gate.map(|act| node(act, None)));
            nodes.push(node(act, undo));
        }
    }
    let on_failure = [OnFailure::Pause, OnFailure::Undo, OnFailure::Stop];
    let origin = [change::Origin::Rollout, change::Origin::Runbook];
    (!nodes.is_empty()).then(|| change::Plan {
        origin: one_of(ctx, origin),
        title: "sim".into(),
        source: String::new(),
        inputs: BTreeMap::new(),
        nodes,
        max_failures: (!ctx.one_in(3)).then(|| ctx.rng.random_range(1..4)),
        on_failure: one_of(ctx, on_failure),
        incarnation: store.incarnation,
    })
}

fn one_of<T: Copy, const N: usize>(ctx: &mut Ctx, these: [T; N]) -> T {
    *these.choose(&mut ctx.rng).expect("there is one")
}

fn gate(ctx: &mut Ctx) -> Act {
    let expires = ctx.one_in(2).then(|| Span::from_secs(ctx.rng.random_range(5..60)));
    Act::Approve(Approve { by: Role::Operator, people: ctx.rng.random_range(1..3), expires })
}

fn work(ctx: &mut Ctx, store: &Store, hosts: &[HostId]) -> Box<Work> {
    let Plan { mut exec, selector, limits, .. } = plan(ctx, store);
    // Nobody is there to cancel what goes on for ever.
    exec.timeout.get_or_insert(Span::from_secs(20));
    Box::new(Work {
        exec,
        fill: None,
        selector,
        hosts: chosen(hosts.to_vec()),
        parallel: limits.parallel,
        offline: limits.offline,
        start_within: limits.start_within,
        expect: ctx.one_in(6).then(|| Expect::Exit(vec![0, 1])),
        retries: ctx.rng.random_range(0..2),
    })
}

/// An undo is as any command, but not armed, and waits for its hosts.
fn undo_work(ctx: &mut Ctx, store: &Store, hosts: &[HostId]) -> Box<Work> {
    let mut work = work(ctx, store, hosts);
    work.exec.armed = None;
    work.offline = Offline::Wait(Span::from_secs(60));
    work.start_within = Span::from_secs(60);
    Box::new(Work { expect: None, retries: 0, ..*work })
}

/// What people want of a change. `patient`: so that it gets on.
pub(super) fn wish(ctx: &mut Ctx, change: &Change, patient: bool) -> (Request, Actor) {
    let node = change.plan.nodes.get(change.at).map(|node| node.id.clone()).unwrap_or_default();
    let helpful = if change.pause.is_some() {
        Request::Resume
    } else {
        match change.plan.nodes.get(change.at).map(|node| &node.act) {
            Some(Act::Tick | Act::Confirm) => Request::Pass { node: node.clone(), note: None },
            _ => Request::Approve,
        }
    };
    let request = match ctx.rng.random_range(0..12) {
        _ if patient => helpful,
        0 => Request::Pause,
        1 => Request::Abort,
        2 => Request::Undo,
        3 => Request::Skip { node, note: None },
        _ => helpful,
    };
    let by = one_of(ctx, ["ada", "bob", "eve"]);
    (request, Actor::User(by.to_owned()))
}

/// Ids of runs of changes have this bit.
const OF_CHANGE: u128 = 1 << 127;

/// The id of a run of a change.
pub(super) fn run_of_change(ctx: &mut Ctx) -> RunId {
    RunId(Uuid::from_u128(ctx.rng.random::<u128>() | OF_CHANGE))
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
    let of_change = run.0.as_u128() & OF_CHANGE != 0;
    let long = take(12) == 0;
    Script {
        steps: if long { None } else { Some(take(25)) },
        // In a change fewer fail, or none would ever go all the way.
        exit_code: i32::from(take(if of_change { 12 } else { 5 }) == 0),
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
