//! A wire that breaks in ways that nobody is told of, and one that is slow or breaks early.

#![expect(clippy::indexing_slicing, reason = "a test that reads beyond an end should say so")]

use std::net::SocketAddr;
use std::time::Duration;

use fw_agent::identity::StateDir;
use fw_proto::frame::{FromAgent, FromServer};
use fw_rt::noise::Keypair;
use fw_testkit::fleet::{Agent, Fleet, PATIENCE, wait_for};
use fw_testkit::intruder::{Insider, Intruder, hello};
use fw_testkit::proxy::Way;

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

/// Silence is noticed after three seconds instead of three quarters of a minute.
const QUICK: [&str; 2] = ["--ping-every", "1s"];

/// Prints until told to end.
const PRINTS_UNTIL_TOLD: &str = "echo began >> began; n=10000000; \
    while [ ! -e go ]; do echo $n; n=$((n+1)); sleep 0.01; done; echo $n > last";

async fn quick_fleet() -> (Fleet, Agent) {
    let fleet = Fleet::start_with(BINARY, &QUICK).await;
    let web1 = fleet.agent("web1").await;
    (fleet, web1)
}

fn address(proxy_or_server: &str) -> SocketAddr {
    proxy_or_server.trim_start_matches("http://").parse().expect("an address")
}

async fn assert_whole(fleet: &Fleet, id: &str) {
    let run = fleet.ended(id).await;
    assert_eq!(run["state"], "succeeded");
    assert_eq!(fleet.lines("began"), ["began"], "it ran once");
    let last: u64 = fleet.lines("last")[0].parse().expect("a number");
    let expected: String = (10_000_000..last).map(|n| format!("{n}\n")).collect();
    let raw = fleet.raw(id, "web1", "stdout").await.ok();
    assert!(raw.text() == expected, "{} of {} bytes", raw.stdout.len(), expected.len());
}

/// Bytes stop in one direction or both, and nobody is told. Both ends notice by the silence; the
/// command goes on; and when bytes move again nothing is lost and nothing ran twice.
async fn check_partition(ways: &[Way]) {
    let (fleet, _web1) = quick_fleet().await;
    let id = fleet.begin_shell("web1", &[], PRINTS_UNTIL_TOLD).await;
    fleet.task_is(&id, "running").await;
    ways.iter().for_each(|way| fleet.proxy.freeze_way(*way));
    fleet.host_is("web1", "offline").await;
    assert_eq!(fleet.runs_show(&id).await["tasks"][0]["state"], "running", "absent is not lost");
    fleet.proxy.resume();
    fleet.online("web1").await;
    fleet.touch("go");
    assert_whole(&fleet, &id).await;
}

#[tokio::test]
async fn a_partition_of_both_directions_heals() {
    check_partition(&[Way::ToServer, Way::ToAgent]).await;
}

#[tokio::test]
async fn a_partition_towards_the_server_heals() {
    check_partition(&[Way::ToServer]).await;
}

#[tokio::test]
async fn a_partition_towards_the_agent_heals() {
    check_partition(&[Way::ToAgent]).await;
}

/// The agent's machine vanishes without a word. The server notices by its pings; a run that is
/// asked for meanwhile waits, and is done when the host is back.
#[tokio::test]
async fn a_host_that_vanishes_is_noticed_by_pings() {
    let (fleet, mut web1) = quick_fleet().await;
    fleet.proxy.forget();
    web1.kill9().await;
    fleet.host_is("web1", "offline").await;
    let waiting = ["--offline", "wait=1h"];
    let id = fleet.begin_shell("web1", &waiting, "echo ran >> began").await;
    web1.start();
    fleet.online("web1").await;
    assert_eq!(fleet.ended(&id).await["state"], "succeeded");
    assert_eq!(fleet.lines("began"), ["ran"]);
}

/// A host that comes back before its old link was missed is not taken for a clone of itself.
#[tokio::test]
async fn a_host_that_is_back_at_once_replaces_its_dead_link() {
    let fleet = Fleet::start(BINARY).await;
    let mut web1 = fleet.agent("web1").await;
    fleet.proxy.forget();
    web1.kill9().await;
    web1.start();
    // The old link still counts as living: only the new one starts commands.
    let (_, run) = fleet.run_shell("web1", &[], "echo ran >> began").await;
    assert_eq!(run["state"], "succeeded");
    let said = web1.process.log();
    assert_eq!(said.matches("linked to").count(), 2, "{said}");
}

/// The server vanishes without a word. The agent notices by the silence, finds the new one, and the
/// run that went on meanwhile ends as it should.
#[tokio::test]
async fn a_server_that_vanishes_is_noticed_by_its_silence() {
    let (mut fleet, _web1) = quick_fleet().await;
    let id = fleet.begin_shell("web1", &[], PRINTS_UNTIL_TOLD).await;
    fleet.task_is(&id, "running").await;
    fleet.proxy.forget();
    fleet.server.kill9().await;
    fleet.start_server().await;
    fleet.online("web1").await;
    fleet.touch("go");
    assert_whole(&fleet, &id).await;
}

/// One byte at a time, both ways, from the first one on: slow is not broken.
#[tokio::test]
async fn one_byte_at_a_time_is_slow_and_nothing_else() {
    let fleet = Fleet::start(BINARY).await;
    fleet.proxy.drip();
    let _web1 = fleet.agent("web1").await;
    let text = "echo began >> began; seq 10000000 10002000; echo 10002001 > last";
    let (id, _) = fleet.run_shell("web1", &[], text).await;
    assert_whole(&fleet, &id).await;
}

/// Whoever takes longer over the handshake than it may is cut off, at each of its stages, and holds
/// no place of the server.
#[tokio::test]
async fn a_handshake_that_dawdles_is_cut_off() {
    let fleet = Fleet::start(BINARY).await;
    let web1 = fleet.join("web1", &[]).await;
    let (own, server_key) = keys(&web1);
    let to = address(&fleet.url());
    let mut silent = Intruder::knock(to, "").await.unwrap();
    let mut dripping = Intruder::knock(to, "").await.unwrap();
    let mut greetless = Insider::link(to, &own, &server_key).await.unwrap();
    // A message of 96 bytes that never gets that far: the server waits for the whole, not for a byte.
    dripping.raw(&[0x82, 0x80 | 96, 0, 0, 0, 0]).await.unwrap();
    let drips = async {
        while dripping.raw(&[0]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let began = tokio::time::Instant::now();
    let ((), heard, never) = tokio::join!(drips, silent.hear(), greetless.next());
    assert_eq!((heard, never), (None, None), "all were hung up on");
    assert!(began.elapsed() < Duration::from_secs(45), "{:?}", began.elapsed());
    wait_for("all places to be free", PATIENCE, async || {
        (connections(&fleet).await? <= 1).then_some(())
    })
    .await;
}

fn keys(agent: &Agent) -> (Keypair, fw_proto::PublicKey) {
    let dir = StateDir::open(&agent.state).expect("a state directory");
    let own = dir.key().expect("readable").expect("the host has joined");
    let identity = dir.identity().expect("readable").expect("the host has joined");
    (Keypair::from_private(own), identity.server_keys[0])
}

/// Connections that the server has, that of this question included.
async fn connections(fleet: &Fleet) -> Option<u64> {
    let page = fleet.metrics().await?;
    let line = page.lines().find_map(|line| line.strip_prefix("fleetwright_http_connections "))?;
    line.trim().parse().ok()
}

/// A reset at every stage of the handshake: before the first byte, within the request, within its
/// answer, within either Noise message, the greeting and the welcome. None of them leaves anything
/// behind, and the next link comes up.
#[tokio::test]
async fn a_reset_at_any_stage_of_the_handshake_leaves_nothing_behind() {
    let fleet = Fleet::start(BINARY).await;
    let web1 = fleet.join("web1", &[]).await;
    let (own, server_key) = keys(&web1);
    let via = fleet.proxy.addr();
    fleet.proxy.record();
    greet(via, &own, &server_key).await.expect("a whole wire");
    let tape = fleet.proxy.recorded();
    let stages = |reads: &[Vec<u8>]| {
        let ends = reads.iter().scan(0, |end, read| {
            let start = *end;
            *end += read.len();
            Some([start + 1, start + read.len() / 2, *end])
        });
        ends.flatten().collect::<Vec<_>>()
    };
    let (ups, downs) = (stages(&tape.to_server), stages(&tape.to_agent));
    let up = ups.into_iter().map(|bytes| (Way::ToServer, bytes));
    let down = downs.into_iter().map(|bytes| (Way::ToAgent, bytes));
    let stages: Vec<_> = std::iter::once((Way::ToServer, 0)).chain(up).chain(down).collect();
    assert!(stages.len() > 15, "{stages:?}");
    let whole: usize = tape.to_agent.iter().map(Vec::len).sum();
    for (way, bytes) in stages {
        fleet.proxy.reset_after(way, bytes);
        let greeted = greet(via, &own, &server_key).await;
        let told_all = way == Way::ToAgent && bytes + 64 > whole;
        assert!(greeted.is_none() || told_all, "{way:?} {bytes} of {whole}");
    }
    // A real agent that meets the same a few times, at its greeting, comes up all the same.
    let mut web1 = web1;
    let before = fleet.proxy.accepted();
    web1.start();
    wait_for("three tries that are reset", PATIENCE, async || {
        (fleet.proxy.accepted() >= before + 3).then_some(())
    })
    .await;
    fleet.proxy.resume();
    fleet.online("web1").await;
    assert!(!fleet.server.log().contains("ERROR"), "{}", fleet.server.log());
    wait_for("all places but the agent's to be free", PATIENCE, async || {
        (connections(&fleet).await? <= 2).then_some(())
    })
    .await;
}

/// Links as a host of the fleet; the welcome, if there is one.
async fn greet(to: SocketAddr, own: &Keypair, key: &fw_proto::PublicKey) -> Option<FromServer> {
    let mut link = Insider::link(to, own, key).await.ok()?;
    link.speak(&FromAgent::Hello(hello((1, 1)))).await.ok()?;
    link.next().await
}
