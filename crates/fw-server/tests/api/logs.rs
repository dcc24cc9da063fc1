//! Output: in order, whole, resumable at every event, and raw.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fw_proto::record::{Body, Offsets, Record, Stream};
use fw_proto::{HostId, RunId};
use fw_server::live::LogChange;
use fw_store::NewChunk;
use serde_json::{Value, json};

use crate::server::{Event, SOME_TIME, TestServer, key};

type Part<'a> = (Stream, Body<'a>);

/// Stores one chunk with these records, and tells those who follow.
async fn store(
    server: &TestServer,
    run: RunId,
    host: HostId,
    from: Offsets,
    parts: &[Part<'_>],
) -> Offsets {
    let (mut raw, mut to) = (Vec::new(), from);
    for (stream, body) in parts {
        let record = Record { stream: *stream, at: SOME_TIME, body: *body };
        record.write(&mut raw);
        to = to.after(&record);
    }
    let data = zstd::bulk::compress(&raw, 1).unwrap();
    let raw_len = u32::try_from(raw.len()).unwrap();
    let chunk = NewChunk { host, key: key(run), from, to, raw_len, data };
    server.running.app.store.append_chunk(chunk).await.unwrap();
    server.running.app.live.log_grew(LogChange { run, host, attempt: 1 });
    to
}

fn bytes(event: &Event) -> Vec<u8> {
    STANDARD.decode(event.data["data"].as_str().unwrap()).unwrap()
}

const OUT: Stream = Stream::Stdout;
const ERR: Stream = Stream::Stderr;

/// A run on two hosts with three chunks between them.
async fn with_output() -> (TestServer, RunId) {
    let server = TestServer::start().await;
    let (web1, web2) = (server.host("web1", &[]).await, server.host("web2", &[]).await);
    let run = server.waiting_run("web*").await;
    let parts =
        [(OUT, Body::Bytes(b"one\n")), (ERR, Body::Bytes(b"oops\n")), (OUT, Body::Bytes(b"two\n"))];
    let at = store(&server, run, web1, Offsets::default(), &parts).await;
    store(&server, run, web2, Offsets::default(), &[(OUT, Body::Bytes(b"other\n"))]).await;
    store(&server, run, web1, at, &[(OUT, Body::Gap(7)), (OUT, Body::Bytes(b"three\xff"))]).await;
    (server, run)
}

#[tokio::test]
async fn output_comes_in_the_order_it_was_stored() {
    let (server, run) = with_output().await;
    let events = server.events(&format!("/runs/{run}/logs"), None).await.through("end").await;
    let lines: Vec<_> = events
        .iter()
        .filter(|event| event.name == "log")
        .map(|event| {
            let data = &event.data;
            let text =
                data["data"].as_str().map(|_| String::from_utf8_lossy(&bytes(event)).into_owned());
            format!(
                "{} {} {} {:?} gap {}",
                data["host"],
                data["stream"],
                data["offset"],
                text.unwrap_or_default(),
                data["gap"]
            )
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    "web1" "stdout" 0 "one\n" gap 0
    "web1" "stderr" 0 "oops\n" gap 0
    "web1" "stdout" 4 "two\n" gap 0
    "web2" "stdout" 0 "other\n" gap 0
    "web1" "stdout" 8 "" gap 7
    "web1" "stdout" 8 "three�" gap 0
    "#);
    assert_eq!(events[0].data["at"], SOME_TIME.to_string());
}

#[tokio::test]
async fn output_resumes_at_every_event_with_nothing_twice_and_nothing_missing() {
    let (server, run) = with_output().await;
    for query in ["", "?stream=stdout", "?host=web1", "?host=web1&stream=stderr"] {
        let path = format!("/runs/{run}/logs{query}");
        let whole = server.events(&path, None).await.through("end").await;
        for cut in 0..whole.len() {
            let rest = server.events(&path, whole[cut].id.as_deref()).await.through("end").await;
            let logs = |events: &[Event]| -> Vec<Event> {
                events.iter().filter(|event| event.name == "log").cloned().collect()
            };
            assert_eq!(logs(&rest), logs(&whole[cut + 1..]), "{query} after {cut}");
        }
    }
}

#[tokio::test]
async fn output_is_followed_until_the_run_has_ended() {
    let server = TestServer::start().await;
    let host = server.host("web1", &[]).await;
    let run = server.waiting_run("web1").await;
    let mut events = server.events(&format!("/runs/{run}/logs?follow=true"), None).await;
    let mut at = Offsets::default();
    for text in [&b"a"[..], b"b", b"c"] {
        at = store(&server, run, host, at, &[(OUT, Body::Bytes(text))]).await;
        let event = events.next().await.unwrap();
        assert_eq!((event.name.as_str(), bytes(&event)), ("log", text.to_vec()));
    }
    // Stored just before the end: it must still come.
    at = store(&server, run, host, at, &[(OUT, Body::Bytes(b"last"))]).await;
    server.ended(run, host, 0, at).await;
    let rest = events.through("end").await;
    assert_eq!(
        rest.iter().filter(|event| event.name == "log").map(bytes).collect::<Vec<_>>(),
        [b"last"]
    );
    assert_eq!(events.next().await, None);
    let (_, shown) = server.get(&format!("/runs/{run}")).await;
    assert_eq!(shown["tasks"][0]["stdout_bytes"], 7);
}

#[tokio::test]
async fn raw_output_is_the_exact_bytes_and_names_the_gaps() {
    let (server, run) = with_output().await;
    let raw =
        |query: &str| server.request("GET", &format!("/api/v1/runs/{run}/logs/raw?{query}")).send();
    let out = raw("host=web1&stream=stdout").await.unwrap();
    let headers = out.headers().clone();
    assert_eq!(headers["content-type"], "application/octet-stream");
    assert_eq!(headers["content-length"], "14");
    assert_eq!(headers["fleetwright-dropped-bytes"], "7");
    assert_eq!(headers["fleetwright-gaps"], "8:7");
    assert_eq!(out.bytes().await.unwrap(), &b"one\ntwo\nthree\xff"[..]);
    let err = raw("host=web1&stream=stderr").await.unwrap();
    assert_eq!(err.headers()["fleetwright-dropped-bytes"], "0");
    assert!(!err.headers().contains_key("fleetwright-gaps"));
    assert_eq!(err.bytes().await.unwrap(), "oops\n");
    assert_eq!(raw("host=web2&stream=stderr").await.unwrap().bytes().await.unwrap(), "");
    for (query, status) in
        [("host=web3&stream=stdout", 404), ("host=web1", 400), ("host=web1&stream=x", 400)]
    {
        assert_eq!(raw(query).await.unwrap().status(), status, "{query}");
    }
}

#[tokio::test]
async fn much_output_is_streamed_whole() {
    let server = TestServer::start().await;
    let host = server.host("web1", &[]).await;
    let run = server.waiting_run("web1").await;
    let (mut at, mut expected) = (Offsets::default(), Vec::new());
    for n in 0..100_u8 {
        let block = vec![n; 60_000];
        at = store(&server, run, host, at, &[(OUT, Body::Bytes(&block)), (ERR, Body::Bytes(b"!"))])
            .await;
        expected.extend_from_slice(&block);
    }
    let path = format!("/api/v1/runs/{run}/logs/raw?host=web1&stream=stdout");
    let got = server.request("GET", &path).send().await.unwrap().bytes().await.unwrap();
    assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
    let mut events = server.events(&format!("/runs/{run}/logs?stream=stdout"), None).await;
    let events = events.through("end").await;
    let followed: Vec<u8> =
        events.iter().filter(|event| event.name == "log").flat_map(bytes).collect();
    assert!(followed == expected);
    let (_, shown) = server.get(&format!("/runs/{run}")).await;
    assert_eq!(shown["state"], Value::from("planned"));
    assert_eq!(json!(at.stdout), json!(expected.len()));
}

#[tokio::test]
async fn a_renamed_host_is_found_by_both_names() {
    let (server, run) = with_output().await;
    server.send("PATCH", "/hosts/web2", json!({ "name": "www" })).await;
    for name in ["web2", "www"] {
        let path = format!("/api/v1/runs/{run}/logs/raw?host={name}&stream=stdout");
        let got = server.request("GET", &path).send().await.unwrap();
        assert_eq!(got.bytes().await.unwrap(), "other\n", "{name}");
    }
}
