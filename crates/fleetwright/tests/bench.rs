//! The benchmarks run to their end and measure what they say. What they find is nothing to test.

use fw_testkit::fleet::Fleet;

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

#[tokio::test]
async fn a_fleet_on_a_server_of_its_own_is_measured_whole() {
    let fleet = Fleet::start(BINARY).await;
    let dir = fleet.scratch().display().to_string();
    let line = ["bench", "fleet", "--agents", "20", "--duration", "1", "--jobs", "40"];
    let more = ["--output-mb", "2", "-o", "json", "--dir", &dir];
    // Outside of the fleet's environment, for that names a server.
    let found = fleet.plain(&[&line[..], &more].concat()).await.ok().json();
    let figures = found.as_object().expect("an object");
    for (name, value) in figures {
        assert!(!value.is_null(), "{name} was not measured: {}", found["why"]);
    }
    assert_eq!(found["why"], serde_json::json!({}));
    assert_eq!((&found["agents"], found["bars"].as_array().map(Vec::len)), (&20.into(), Some(7)));
    let left = std::fs::read_dir(fleet.scratch()).expect("a directory").count();
    assert_eq!(left, 0, "its files are gone with it");
}

#[tokio::test]
async fn a_server_that_is_there_keeps_neither_hosts_nor_jobs() {
    let fleet = Fleet::start(BINARY).await;
    let (dir, url) = (fleet.scratch().display().to_string(), fleet.url());
    let line = ["bench", "fleet", "--server", &url, "--agents", "5", "--duration", "1"];
    let more = ["--jobs", "5", "--output-mb", "0", "-o", "json", "--dir", &dir];
    let found = fleet.cli(&[&line[..], &more].concat()).await.ok().json();
    assert!(found["task_starts_per_s"].as_f64().expect("a rate") > 0.0);
    for unknown in ["rss_per_agent_bytes", "reconnect_all_s", "output_mb_per_s"] {
        assert!(
            found[unknown].is_null() && found["why"][unknown].is_string(),
            "{unknown}: {found}"
        );
    }
    for left in ["/hosts", "/jobs"] {
        let list = fleet.get(left).await.expect("a list");
        let items = list.get("items").unwrap_or(&list);
        assert_eq!(items.as_array().map(Vec::len), Some(0), "{left}: {list}");
    }
}

/// Wrappers of Saltpeter on a server of its own: all connect, nothing acknowledged is lost, all end.
#[tokio::test]
async fn wrappers_on_a_server_of_its_own_are_measured_whole() {
    let fleet = Fleet::start(BINARY).await;
    let dir = fleet.scratch().display().to_string();
    let args =
        ["bench", "saltpeter", "--wrappers", "40", "--duration", "1", "--dir", &dir, "-o", "json"];
    let figures = fleet.plain(&args).await.ok().json();
    assert_eq!(figures["lost_messages"], 0, "{figures}");
    assert!(figures["messages_per_s"].as_f64() > Some(1.0), "{figures}");
    assert_eq!(figures["bars"].as_array().map(Vec::len), Some(4));
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "it leaves no files behind");
}

/// A server with a small history and a few viewers: every list answers, and each viewer hears of each change.
#[tokio::test]
async fn viewers_of_a_server_of_its_own_are_measured_whole() {
    let fleet = Fleet::start(BINARY).await;
    let dir = fleet.scratch().display().to_string();
    let line = ["bench", "api", "--viewers", "20", "--hosts", "10", "--runs", "100"];
    let more = ["--ledger", "1000", "--dir", &dir, "-o", "json"];
    let figures = fleet.plain(&[&line[..], &more].concat()).await.ok().json();
    for (name, value) in figures.as_object().expect("an object") {
        assert!(!value.is_null(), "{name} was not measured: {}", figures["why"]);
    }
    assert_eq!(figures["lists_ms"].as_object().map(serde_json::Map::len), Some(18), "{figures}");
    assert_eq!(
        (&figures["viewers"], figures["bars"].as_array().map(Vec::len)),
        (&20.into(), Some(3))
    );
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "it leaves no files behind");
}
