//! `serve --saltpeter` with an agent, killed in the middle: log files and documents tell each run once.

#[path = "story/search.rs"]
mod search;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;

use fw_testkit::fleet::{Fleet, PATIENCE, wait_for};
use search::Search;

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

/// How many documents tell of this kind of thing.
fn count(search: &Search, what: &str) -> usize {
    search.documents().iter().filter(|document| document["msg_type"] == what).count()
}

fn write(dir: &Path, logs: &Path, search: &str, year: &str) {
    let text = format!(
        "tick: {{sec: '*/2', min: '*', hour: '*', dom: '*', mon: '*', dow: '*', year: '{year}', command: 'echo out; echo err >&2; exit 3', targets: 'web*', target_type: glob, timeout: 60}}
saltpeter_config: {{logdir: '{}', elasticsearch: '{search}', elasticsearch_index: sp}}
",
        logs.display()
    );
    std::fs::write(dir.join("fast.yaml"), text).expect("written");
}

fn log(logs: &Path) -> String {
    std::fs::read_to_string(logs.join("tick.log")).unwrap_or_default()
}

/// The lines that begin with this, each of them once.
fn lines_of<'l>(log: &'l str, begin: &str) -> BTreeSet<&'l str> {
    let all: Vec<_> = log.lines().filter(|line| line.starts_with(begin)).collect();
    let once: BTreeSet<_> = all.iter().copied().collect();
    assert_eq!(all.len(), once.len(), "something is told twice: {log}");
    once
}

#[tokio::test]
async fn each_run_is_told_once_though_the_server_is_killed_and_the_search_server_away() {
    let place = tempfile::tempdir().expect("a directory");
    let (dir, logs) = (place.path().join("sp"), place.path().join("logs"));
    std::fs::create_dir(&dir).expect("a new directory");
    let search = Search::default();
    let url = search.listen().await;
    write(&dir, &logs, &url, "2099");
    let mut fleet =
        Fleet::start_with(BINARY, &["--saltpeter", dir.to_str().expect("a text")]).await;
    let _agent = fleet.agent("web1").await;
    // Not before: a fire that finds no host is told, too, and begins no run.
    write(&dir, &logs, &url, "*");
    let finished = async |count: usize| {
        wait_for("runs in the log", PATIENCE, async || {
            (log(&logs).matches("###### Finished").count() >= count).then_some(())
        })
        .await;
    };
    finished(2).await;
    fleet.server.kill9().await;
    fleet.start_server().await;
    finished(5).await;
    fleet.server.kill9().await;
    fleet.start_server().await;
    finished(7).await;
    write(&dir, &logs, &url, "2099");
    let runs = wait_for("the last run, and all of it in the log", PATIENCE, async || {
        // In this order: no run begins any more when the job is due in 2099.
        let job = fleet.cli(&["jobs", "show", "tick", "-o", "json"]).await.ok().json();
        let over = job["next_fire"].as_str().is_none_or(|at| at.starts_with("2099"));
        let listed = fleet.cli(&["runs", "list", "--job", "tick", "-o", "json"]).await.ok().json();
        let runs = listed.as_array().cloned().expect("a list");
        let done = runs.iter().all(|run| !run["finished_at"].is_null());
        let told = log(&logs).matches("###### Finished").count() == runs.len();
        (over && done && told).then_some(runs)
    })
    .await;
    let began = runs.iter().filter(|run| run["report"]["tasks"]["failed"] == 1).count();
    let text = log(&logs);
    assert!(
        text.contains("**** Exit Code 3 ******\nout\nerr\n\n####### END web1 from tick_"),
        "{text}"
    );
    let starts = lines_of(&text, "###### Starting");
    let (on, whole): (Vec<&str>, Vec<&str>) =
        starts.iter().copied().partition(|line| line.contains(" on web1 at "));
    assert_eq!((whole.len(), on.len()), (runs.len(), began), "{text}");
    assert_eq!(lines_of(&text, "####### END web1 from ").len(), began, "{text}");
    assert_eq!(lines_of(&text, "###### Finished").len(), runs.len(), "{text}");
    search.here.store(true, Ordering::SeqCst);
    wait_for("all documents", PATIENCE, async || {
        (count(&search, "end") == runs.len()).then_some(())
    })
    .await;
    assert_eq!(count(&search, "start"), runs.len());
    assert_eq!((count(&search, "machine_start"), count(&search, "machine_result")), (began, began));
}
