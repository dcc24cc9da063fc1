//! Who is not who the other end expects: wrong keys, other versions, and words of another time.

#![expect(clippy::indexing_slicing, reason = "a test that reads beyond an end should say so")]

use std::net::SocketAddr;
use std::time::Duration;

use fw_agent::identity::StateDir;
use fw_proto::frame::{DeniedReason, FromAgent, FromServer};
use fw_rt::noise::Keypair;
use fw_testkit::fleet::{Agent, Fleet, PATIENCE, wait_for};
use fw_testkit::intruder::{Insider, Intruder, hello};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

fn address(fleet: &Fleet) -> SocketAddr {
    fleet.url().trim_start_matches("http://").parse().expect("an address")
}

fn keys(agent: &Agent) -> (Keypair, fw_proto::PublicKey) {
    let dir = StateDir::open(&agent.state).expect("a state directory");
    let own = dir.key().expect("readable").expect("the host has joined");
    let identity = dir.identity().expect("readable").expect("the host has joined");
    (Keypair::from_private(own), identity.server_keys[0])
}

/// What `agent status` says of the link, once it holds `word`.
async fn status_says(fleet: &Fleet, agent: &Agent, word: &str) -> String {
    let state = agent.state.display().to_string();
    let args = ["agent", "status", "--state-dir", &state];
    wait_for(&format!("{word:?} in the agent's status"), PATIENCE, async || {
        let page = fleet.cli(&args).await.text();
        let link = page.lines().find_map(|line| line.strip_prefix("link "))?;
        link.contains(word).then(|| link.trim().to_owned())
    })
    .await
}

/// An agent whose pinned key is not the server's does not link, and says what that means.
#[tokio::test]
async fn a_server_with_another_key_is_not_believed() {
    let fleet = Fleet::start(BINARY).await;
    let mut web1 = fleet.join("web1", &[]).await;
    let dir = StateDir::open(&web1.state).unwrap();
    let mut identity = dir.identity().unwrap().unwrap();
    identity.server_keys = vec![Keypair::generate().unwrap().public];
    dir.set_identity(&identity).unwrap();
    web1.start();
    let link = status_says(&fleet, &web1, "handshake").await;
    assert!(link.contains("the server does not hold the key that this host has pinned"), "{link}");
    assert!(link.contains("agent join"), "it says what to do: {link}");
    assert!(web1.process.log().contains("does not hold the key"), "{}", web1.process.log());
    fleet.host_is("web1", "offline").await;
}

/// A host that the server does not know is told so, and `agent status` keeps telling.
#[tokio::test]
async fn a_host_that_is_not_known_is_told_what_to_do() {
    let fleet = Fleet::start(BINARY).await;
    let mut web1 = fleet.join("web1", &[]).await;
    let dir = StateDir::open(&web1.state).unwrap();
    dir.set_key(&Keypair::generate().unwrap().private).unwrap();
    web1.start();
    let link = status_says(&fleet, &web1, "does not know the host's key").await;
    assert!(link.contains("enrol it with `fleetwright agent join`"), "{link}");
    fleet.host_is("web1", "offline").await;
}

/// Versions that have none in common are refused with both ranges and what to upgrade, whichever
/// end is older, at the door and inside.
#[tokio::test]
async fn versions_without_a_common_one_are_refused_by_name() {
    let fleet = Fleet::start(BINARY).await;
    let web1 = fleet.join("web1", &[]).await;
    let (own, server) = keys(&web1);
    for (first, last) in [(3, 4), (0, 0)] {
        let said = format!(
            "this server speaks protocol 1 to 2, the agent {first} to {last}: upgrade the older of the two"
        );
        let header = format!("Fleetwright-Protocol: {first}-{last}\r\n");
        let turned_away = Intruder::knock(address(&fleet), &header).await.unwrap();
        assert!(turned_away.answer.contains("400 Bad Request"), "{}", turned_away.answer);
        assert!(turned_away.answer.contains(&said), "{}", turned_away.answer);

        let mut liar = Insider::link(address(&fleet), &own, &server).await.unwrap();
        liar.speak(&FromAgent::Hello(hello((first, last)))).await.unwrap();
        let Some(FromServer::Denied(denied)) = liar.next().await else { panic!("it was let in") };
        assert_eq!(
            (denied.reason, denied.message.as_str()),
            (DeniedReason::Protocol, said.as_str())
        );
        assert_eq!(liar.next().await, None, "the link is over");
    }
    for nonsense in ["2-1", "x", "1", "-", "1-99999", ""] {
        let header = format!("Fleetwright-Protocol: {nonsense}\r\n");
        let answer = Intruder::knock(address(&fleet), &header).await.unwrap().answer;
        assert!(answer.contains("400 Bad Request"), "{nonsense:?}: {answer}");
    }
}

/// A newer agent that still speaks version 2 links, as one of the next release will.
#[tokio::test]
async fn a_newer_agent_that_speaks_the_old_version_too_is_let_in() {
    let fleet = Fleet::start(BINARY).await;
    let web1 = fleet.join("web1", &[]).await;
    let (own, server) = keys(&web1);
    let knocking = Intruder::knock(address(&fleet), "Fleetwright-Protocol: 2-3\r\n").await.unwrap();
    let prologue = b"fleetwright agent link 2-3";
    let mut newer = knocking.handshake(&own, &server, prologue).await.unwrap();
    newer.speak(&FromAgent::Hello(hello((2, 3)))).await.unwrap();
    let Some(FromServer::Welcome(welcome)) = newer.next().await else { panic!("no welcome") };
    assert_eq!((welcome.protocol, welcome.name.as_str()), (2, "web1"));
}

/// Versions that something on the way has changed do not pass: the handshake binds what each said.
#[tokio::test]
async fn versions_changed_on_the_way_break_the_handshake() {
    let fleet = Fleet::start(BINARY).await;
    let web1 = fleet.join("web1", &[]).await;
    let (own, server) = keys(&web1);
    for (header, prologue) in [("1-1", "1-2"), ("1-2", "1-1"), ("0-1", "1-1")] {
        let header = format!("Fleetwright-Protocol: {header}\r\n");
        let knocking = Intruder::knock(address(&fleet), &header).await.unwrap();
        let prologue = format!("fleetwright agent link {prologue}");
        assert!(knocking.handshake(&own, &server, prologue.as_bytes()).await.is_err(), "{header}");
    }
    fleet.host_is("web1", "offline").await;
}

/// A real agent behind a proxy that changes the versions it speaks does not link, and says why.
#[tokio::test]
async fn an_agent_whose_versions_are_changed_on_the_way_says_so() {
    let fleet = Fleet::start(BINARY).await;
    let mut web1 = fleet.join("web1", &[]).await;
    let meddler = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = address(&fleet);
    fleet.proxy.lead_to(meddler.local_addr().unwrap());
    let meddling = async {
        while let Ok((mut agent, _)) = meddler.accept().await {
            let mut head = vec![0; 4096];
            let read = agent.read(&mut head).await.unwrap();
            let text = String::from_utf8_lossy(&head[..read]);
            let changed = text.replace("fleetwright-protocol: 1-2", "fleetwright-protocol: 3-3");
            assert_ne!(changed, text, "the agent says what it speaks");
            let mut to = TcpStream::connect(server).await.unwrap();
            to.write_all(changed.as_bytes()).await.unwrap();
            tokio::io::copy_bidirectional(&mut agent, &mut to).await.ok();
        }
    };
    web1.start();
    let said = tokio::select! {
        () = meddling => unreachable!("the listener stays"),
        said = status_says(&fleet, &web1, "upgrade the older") => said,
    };
    assert!(said.contains("this server speaks protocol 1 to 2, the agent 3 to 3"), "{said}");
}

/// What was recorded of a genuine link is worth nothing to whoever plays it again.
#[tokio::test]
async fn a_recorded_link_cannot_be_played_again() {
    let fleet = Fleet::start(BINARY).await;
    let mut web1 = fleet.join("web1", &[]).await;
    fleet.proxy.record();
    web1.start();
    fleet.online("web1").await;
    let (_, run) = fleet.run_shell("web1", &[], "echo ran >> began").await;
    assert_eq!(run["state"], "succeeded");
    let online = fleet.get("/hosts/web1").await.unwrap();
    web1.term().await;
    // It is offline a moment before that is written down.
    let before = wait_for("the end of the link on record", PATIENCE, async || {
        let host = fleet.get("/hosts/web1").await?;
        let written = host["last_seen"].as_str() > online["last_seen"].as_str();
        (host["state"] == "offline" && written).then_some(host)
    })
    .await;
    let tape = fleet.proxy.recorded();
    assert!(tape.to_server.len() > 4, "a request, a handshake, a greeting and more");

    let (request, messages) = tape.to_server.split_first().unwrap();
    let all = messages.concat();
    let reversed: Vec<u8> = messages.iter().rev().flatten().copied().collect();
    let [whole, twice] = [all.clone(), [all.clone(), all.clone()].concat()];
    let no_handshake = messages[1..].concat();
    let handshake_twice = [messages[0].clone(), all.clone()].concat();
    let cut = all[..all.len() / 2].to_vec();
    for bytes in [whole, twice, no_handshake, handshake_twice, reversed, cut] {
        play(&fleet, request, &bytes).await;
    }
    assert_eq!(fleet.get("/hosts/web1").await.unwrap(), before, "nobody was taken for web1");
    assert_eq!(fleet.lines("began"), ["ran"]);

    // What the server said then starts nothing on the host either.
    let impostor = TcpListener::bind("127.0.0.1:0").await.unwrap();
    fleet.proxy.lead_to(impostor.local_addr().unwrap());
    web1.start();
    let mut tries = 0;
    while tries < 3 {
        let (mut agent, _) = impostor.accept().await.unwrap();
        let mut heard = [0; 4096];
        // A client that gives up may have closed.
        if agent.read(&mut heard).await.is_ok() {
            agent.write_all(&with_accept(&tape.to_agent.concat(), &heard)).await.ok();
            tries += 1;
            agent.read_to_end(&mut Vec::new()).await.ok();
        }
    }
    assert_eq!(fleet.lines("began"), ["ran"]);
    fleet.proxy.lead_to(address(&fleet));
    fleet.online("web1").await;
    let (_, run) = fleet.run_shell("web1", &[], "echo ran >> began").await;
    assert_eq!((run["state"].as_str(), fleet.lines("began").len()), (Some("succeeded"), 2));
}

/// Plays an agent's bytes to the server, and waits until it has hung up.
async fn play(fleet: &Fleet, request: &[u8], bytes: &[u8]) {
    let mut stream = TcpStream::connect(address(fleet)).await.expect("the server listens");
    stream.write_all(request).await.expect("the server listens");
    let mut answer = [0; 1024];
    let read = stream.read(&mut answer).await.expect("the server listens");
    assert!(answer[..read].starts_with(b"HTTP/1.1 101 "), "the door is open to all");
    // The server may hang up while it is still spoken to.
    stream.write_all(bytes).await.ok();
    stream.shutdown().await.ok();
    let rest = async { stream.read_to_end(&mut Vec::new()).await };
    let over = tokio::time::timeout(Duration::from_secs(20), rest).await;
    assert!(over.is_ok(), "the server does not hang up");
}

/// The recorded answer, made to fit the upgrade that is asked for now: all else is as it was.
fn with_accept(recorded: &[u8], request: &[u8]) -> Vec<u8> {
    let request = String::from_utf8_lossy(request);
    let key = request
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
        .expect("an upgrade has a key");
    let accept = derive_accept_key(key.trim().as_bytes());
    let end = recorded.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
    let (head, messages) = recorded.split_at(end);
    let head = String::from_utf8_lossy(head);
    let lines =
        head.lines().map(|line| match line.to_lowercase().starts_with("sec-websocket-accept:") {
            true => format!("sec-websocket-accept: {accept}\r\n"),
            false => format!("{line}\r\n"),
        });
    [lines.collect::<String>().as_bytes(), messages].concat()
}
