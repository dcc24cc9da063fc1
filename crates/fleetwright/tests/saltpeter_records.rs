//! `serve --saltpeter` with an agent, killed in the middle: log files and documents tell each run once.

#![expect(clippy::indexing_slicing, reason = "a missing key of a JSON value reads as null")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use fw_rt::Tasks;
use fw_testkit::fleet::{Fleet, PATIENCE, wait_for};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

/// A search server that is away until it is let in, and then takes each document once.
#[derive(Debug, Clone, Default)]
struct Search {
    here: Arc<AtomicBool>,
    documents: Arc<Mutex<BTreeMap<String, Value>>>,
    tasks: Tasks,
}

impl Search {
    async fn listen(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let search = self.clone();
        self.tasks.spawn("search", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let one = search.clone();
                search.tasks.spawn("search.one", async move { one.serve(stream).await });
            }
        });
        format!("http://{address}")
    }

    /// One request, and the connection ends.
    async fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut request = Vec::new();
        let body = loop {
            stream.read_buf(&mut request).await.ok().filter(|read| *read > 0)?;
            let text = String::from_utf8_lossy(&request).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
            });
            if body.len() >= length.unwrap_or(0_usize) {
                break body.to_owned();
            }
        };
        let answer = if self.here.load(Ordering::SeqCst) {
            let answer = self.take(&body).to_string();
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
                answer.len()
            )
        } else {
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                .to_owned()
        };
        stream.write_all(answer.as_bytes()).await.ok()
    }

    fn take(&self, body: &str) -> Value {
        let lines: Vec<Value> =
            body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let mut documents = self.documents.lock().expect("nobody panicked");
        let mut items = Vec::new();
        for pair in lines.chunks(2) {
            let id = pair[0]["create"]["_id"].as_str().expect("an id").to_owned();
            let there = documents.contains_key(&id);
            documents.entry(id).or_insert_with(|| pair[1].clone());
            items.push(json!({"create": {"status": if there { 409 } else { 201 }}}));
        }
        json!({"errors": false, "items": items})
    }

    /// How many documents tell of each kind of thing.
    fn count(&self, what: &str) -> usize {
        let documents = self.documents.lock().expect("nobody panicked");
        documents.values().filter(|document| document["msg_type"] == what).count()
    }
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
    wait_for("all documents", PATIENCE, async || (search.count("end") == runs.len()).then_some(()))
        .await;
    assert_eq!(search.count("start"), runs.len());
    assert_eq!((search.count("machine_start"), search.count("machine_result")), (began, began));
}
