//! What the agent does about a link that comes and goes, and about output in pieces.

use std::collections::BTreeMap;

use fw_proto::frame::{Cause, Command, OnFull, PolicyMode, RefusalReason, Reported};
use fw_proto::record::Offsets;
use fw_proto::{HostId, Incarnation, NodeId, RunId};
use uuid::Uuid;

use super::*;

const NOW: Now = Now { wall: Timestamp::from_millis(1_000_000), steady: Timestamp::EPOCH };

fn key(number: u128) -> TaskKey {
    TaskKey { run: RunId(Uuid::from_u128(number)), node: NodeId(0), attempt: 1 }
}

fn stdout(stdout: u64) -> Offsets {
    Offsets { stdout, ..Offsets::default() }
}

fn agent() -> Agent {
    let mut agent = Agent::new(4, 1000, Epoch(0));
    greet(&mut agent);
    welcome(&mut agent);
    agent
}

fn greet(agent: &mut Agent) {
    let hello = Hello {
        agent_version: String::new(),
        protocol: (1, 1),
        machine_id: String::new(),
        boot_id: String::new(),
        tasks: Vec::new(),
        policy: PolicyMode::Operate,
        epoch: Epoch(0),
        instance: String::new(),
    };
    let greeting = agent.greet(hello, NOW);
    assert!(matches!(greeting, FromAgent::Hello(_)));
}

fn welcome(agent: &mut Agent) -> Vec<Effect> {
    let welcome = Welcome {
        host: HostId(Uuid::nil()),
        name: "web1".parse().unwrap(),
        protocol: 1,
        incarnation: Incarnation(Uuid::nil()),
        epoch: Epoch(1),
        now: NOW.wall,
        ping_every: Span::from_secs(15),
        resume: Vec::new(),
    };
    agent.frame(FromServer::Welcome(welcome), NOW)
}

fn start(key: TaskKey) -> FromServer {
    let spec = Spec {
        command: Command::Shell("true".into()),
        user: None,
        cwd: None,
        env: BTreeMap::new(),
        secrets: BTreeMap::new(),
        timeout: None,
        kill_after: Span::from_secs(10),
        on_full: OnFull::Block,
        spool_bytes: 1 << 40,
        nice: None,
        umask: None,
        armed: None,
    };
    let (incarnation, epoch) = (Incarnation(Uuid::nil()), Epoch(1));
    FromServer::Start(vec![Start { key, not_after: NOW.wall, incarnation, epoch, spec }])
}

/// A task that runs.
fn running(agent: &mut Agent, key: TaskKey) {
    agent.frame(start(key), NOW);
    agent.journaled(key);
    agent.started(key, NOW.wall);
}

fn ended(wrote: u64) -> Ended {
    Ended {
        cause: Cause::Exited,
        exit_code: Some(0),
        signal: None,
        started_at: NOW.wall,
        finished_at: NOW.wall,
        output: stdout(wrote),
        stdout_sha256: None,
        stderr_sha256: None,
        left_behind: 0,
        armed: None,
    }
}

fn reported(effects: &[Effect]) -> Vec<(TaskKey, Reported)> {
    let frames = effects.iter().filter_map(|effect| {
        if let Effect::Send(FromAgent::Reports(reports)) = effect { Some(reports) } else { None }
    });
    frames.flatten().map(|report| (report.key, report.state.clone())).collect()
}

fn read(agent: &mut Agent) -> Look {
    match agent.ship() {
        Some(Ship::Read(look)) => look,
        other => panic!("nothing to read: {other:?}"),
    }
}

#[test]
fn a_start_is_on_the_disk_before_it_is_made() {
    let mut agent = agent();
    let journal = Effect::Journal { key: key(1), not_after: NOW.wall };
    assert_eq!(agent.frame(start(key(1)), NOW), [Effect::Epoch(Epoch(1)), journal]);
    let spawned = agent.journaled(key(1));
    let [Effect::Spawn { spec, .. }] = spawned.as_slice() else { panic!("{spawned:?}") };
    assert_eq!(spec.spool_bytes, 1000, "no more than this host allows");
    assert_eq!(agent.journaled(key(1)), [], "once");
}

#[test]
fn what_changes_between_greeting_and_welcome_is_told() {
    let mut agent = agent();
    agent.frame(start(key(1)), NOW);
    greet(&mut agent);
    let refusal = Refusal { reason: RefusalReason::Disk, message: "full".to_owned() };
    assert_eq!(agent.refused(key(1), refusal.clone(), NOW), []);
    assert_eq!(reported(&welcome(&mut agent)), [(key(1), Reported::Refused(refusal))]);
}

#[test]
fn an_end_follows_its_output_and_is_told_once_a_link() {
    let mut agent = agent();
    running(&mut agent, key(1));
    assert_eq!(agent.ended(key(1), ended(5), NOW), []);
    let look = read(&mut agent);
    assert!(agent.piece(&look, stdout(5), 5, b"hello").is_some());
    let end = Reported::Ended(ended(5));
    for _ in 0..2 {
        let Some(Ship::Sent(_, effects)) = agent.ship() else { panic!("an end") };
        assert_eq!(reported(&effects), [(key(1), end.clone())]);
        assert_eq!(agent.ship(), None, "told once a link");
        greet(&mut agent);
        welcome(&mut agent);
        let look = read(&mut agent);
        assert!(agent.piece(&look, stdout(5), 5, b"hello").is_some());
    }
}

#[test]
fn what_was_read_for_a_former_link_is_not_sent() {
    let mut agent = agent();
    running(&mut agent, key(1));
    agent.has_output([key(1)]);
    let look = read(&mut agent);
    assert!(agent.is_current(&look));
    greet(&mut agent);
    welcome(&mut agent);
    assert!(!agent.is_current(&look));
    assert_eq!(agent.piece(&look, stdout(5), 5, b"hello"), None);
    assert_eq!(agent.nothing_more(&look, stdout(0)), []);
}

#[test]
fn an_end_without_its_output_is_unknown() {
    let mut agent = agent();
    running(&mut agent, key(1));
    agent.ended(key(1), ended(5), NOW);
    let look = read(&mut agent);
    let told = reported(&agent.nothing_more(&look, stdout(0)));
    assert!(matches!(told.as_slice(), [(_, Reported::Unknown(_))]), "{told:?}");
}

#[test]
fn a_supervisor_is_told_to_end_until_it_knows() {
    let mut agent = agent();
    running(&mut agent, key(1));
    let kill = Effect::Kill(key(1));
    assert_eq!(agent.frame(FromServer::Cancel(vec![key(1)]), NOW), [kill]);
    assert_eq!(agent.tick(NOW), [Effect::Kill(key(1))]);
    agent.told_to_end(key(1));
    assert_eq!(agent.tick(NOW), []);
}

#[test]
fn many_reports_go_out_in_few_frames() {
    let mut agent = agent();
    let asked: Vec<_> = (0..1000).map(key).collect();
    let effects = agent.frame(FromServer::Query(asked), NOW);
    assert_eq!((effects.len(), reported(&effects).len()), (4, 1000));
}

#[test]
fn a_clock_that_is_set_does_not_hide_silence() {
    let mut agent = agent();
    let back = |secs: i64| Now {
        wall: Timestamp::from_millis(0),
        steady: Timestamp::from_millis(secs * 1000),
    };
    assert_eq!(agent.tick(back(45)), []);
    assert_eq!(agent.tick(back(46)), [Effect::Close]);
    assert!(!agent.is_live() && !agent.down());
}

#[test]
fn an_idle_agent_is_small() {
    let size = std::mem::size_of::<Agent>();
    assert!(size <= 512, "thousands share a process: {size} bytes");
}

fn welcome_by(agent: &mut Agent, protocol: u16) -> Vec<Effect> {
    let welcome = Welcome {
        host: HostId(Uuid::nil()),
        name: "web1".parse().unwrap(),
        protocol,
        incarnation: Incarnation(Uuid::nil()),
        epoch: Epoch(1),
        now: NOW.wall,
        ping_every: Span::from_secs(15),
        resume: Vec::new(),
    };
    agent.frame(FromServer::Welcome(welcome), NOW)
}

#[test]
fn a_change_that_waits_is_told_on_each_link_that_can_hear_it() {
    let mut agent = agent();
    running(&mut agent, key(1));
    let applied = Applied { started_at: NOW.wall, at: NOW.wall, until: NOW.wall };
    assert_eq!(agent.applied(key(1), applied), [], "this server speaks the first version");
    for (protocol, told) in [(1, false), (fw_proto::ARMED, true), (fw_proto::ARMED, true)] {
        greet(&mut agent);
        let said = reported(&welcome_by(&mut agent, protocol));
        assert_eq!(said == [(key(1), Reported::Applied(applied))], told, "{said:?}");
    }
    let keep = [Effect::Keep(key(1))];
    assert_eq!(agent.frame(FromServer::Keep(vec![key(1), key(2)]), NOW), keep);
    assert_eq!(agent.tick(NOW), keep, "until the supervisor knows");
    agent.told_to_keep(key(1));
    assert_eq!(agent.tick(NOW), []);
    assert_eq!(agent.frame(FromServer::Cancel(vec![key(1)]), NOW), [Effect::Kill(key(1))]);
    assert_eq!(agent.frame(FromServer::Keep(vec![key(1)]), NOW), [], "its end is asked for");
}
