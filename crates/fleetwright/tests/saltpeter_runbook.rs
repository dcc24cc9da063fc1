//! The runbook that moves a directory of Saltpeter to job files of ours: to its end, with its record, and back.

#![expect(clippy::indexing_slicing, reason = "a missing key of a JSON value reads as null")]

use std::path::{Path, PathBuf};

use fw_testkit::fleet::{Agent, Fleet, PATIENCE, wait_for};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

const NIGHT: &str = "sweep: {min: 30, hour: 3, dom: '*', mon: '*', dow: '*', command: 'find /tmp -mtime +7', targets: '*', target_type: glob, timeout: 60}\nreport: {min: '*/10', hour: '*', dom: '*', mon: '*', dow: 1, command: date, targets: 'web*', target_type: glob, batch_size: 2}\n";
const MAINTENANCE: &str = "saltpeter_maintenance: {global: false, machines: [db9]}\n";
const SETTINGS: &str = "saltpeter_config: {api_ws: true}\n";
const BROKEN: &str = "a: [\n";

/// A host with the directory, and what the runbook is given.
struct Move {
    fleet: Fleet,
    _host: Agent,
    dir: PathBuf,
}

impl Move {
    async fn new() -> Self {
        let fleet = Fleet::start(BINARY).await;
        let host = fleet.agent("scheduler").await;
        let dir = fleet.scratch().join("it's a place");
        std::fs::create_dir_all(dir.join("saltpeter")).expect("a directory");
        for (name, text) in [
            ("night.yaml", NIGHT),
            ("maintenance.yaml", MAINTENANCE),
            ("config.yaml", SETTINGS),
            ("broken.yaml", BROKEN),
        ] {
            std::fs::write(dir.join("saltpeter").join(name), text).expect("a new file");
        }
        Self { fleet, _host: host, dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    async fn begin(&self) -> String {
        let document =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/runbooks/saltpeter.md");
        let mut args = vec!["runbook".to_owned(), "run".to_owned(), document.display().to_string()];
        let inputs = ["directory=saltpeter", "logs=logs", "save=save", "jobs=jobs"];
        let inputs = inputs.iter().filter_map(|input| input.split_once('='));
        for input in inputs.map(|(name, path)| format!("{name}={}", self.path(path))) {
            args.extend(["--input".to_owned(), input]);
        }
        args.extend(["--input", "server=scheduler", "--detach", "-o", "json"].map(str::to_owned));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let begun = self.fleet.cli(&args).await.ok().json();
        begun["id"].as_str().expect("an id").to_owned()
    }

    async fn show(&self, id: &str) -> Value {
        self.fleet.get(&format!("/runbooks/{id}")).await.expect("it is there")
    }

    /// Waits until something is asked of a person, or it is over.
    async fn rests(&self, id: &str) -> Value {
        let rests = [
            "awaiting_approval",
            "awaiting_person",
            "paused",
            "succeeded",
            "undone",
            "undo_failed",
        ];
        wait_for("a runbook that rests", 4 * PATIENCE, async || {
            let now = self.show(id).await;
            rests.contains(&now["state"].as_str()?).then_some(now)
        })
        .await
    }

    /// Ticks and approves whatever is asked.
    async fn through(&self, id: &str) -> Value {
        loop {
            let now = self.rests(id).await;
            let steps = now["steps"].as_array().expect("steps");
            let waits = |state: &str| {
                let step = steps.iter().find(|step| step["state"] == state);
                step.and_then(|step| step["id"].as_str())
            };
            if let Some(step) = waits("awaiting_person") {
                drop(self.fleet.cli(&["runbook", "tick", id, step, "--note", "seen"]).await.ok());
            } else if waits("awaiting_approval").is_some() {
                drop(self.fleet.cli(&["runbook", "approve", id]).await.ok());
            } else {
                return now;
            }
        }
    }
}

#[tokio::test]
async fn a_directory_of_saltpeter_is_moved_and_moved_back() {
    let moved = Move::new().await;
    let id = moved.begin().await;
    let end = moved.through(&id).await;
    assert_eq!(end["state"], "succeeded", "{end:#}");
    let jobs = std::fs::read_to_string(moved.path("jobs/night.yaml")).expect("a job file");
    assert!(jobs.contains("\"sweep\"") && jobs.contains("30 3 * * *"), "{jobs}");
    assert!(!Path::new(&moved.path("jobs/fleetwright-trial.yaml")).exists());

    let record = moved.fleet.cli(&["runbook", "report", &id]).await.ok().text();
    for said in [
        "# From Saltpeter to Fleetwright",
        "not carried over",
        "host-backup create",
        "stdout SHA-256",
        "scheduler: succeeded, exit code 0",
        "note: seen",
        "unrehearsed",
    ] {
        assert!(record.contains(said), "{said} is not in the record:\n{record}");
    }
    let page = moved.fleet.cli(&["runbook", "report", &id, "--format", "html"]).await.ok().text();
    assert!(page.starts_with("<!doctype html>") && !page.contains("<script"), "{page}");

    // What somebody changes there since is not what was saved.
    std::fs::write(moved.path("saltpeter/night.yaml"), "sweep: 5\n").expect("written");
    drop(moved.fleet.cli(&["runbook", "undo", &id]).await.ok());
    let undone = moved.rests(&id).await;
    assert_eq!(undone["state"], "undone", "{undone:#}");
    assert!(!Path::new(&moved.path("jobs/night.yaml")).exists(), "the job files are gone");
    let back = std::fs::read_to_string(moved.path("saltpeter/night.yaml")).expect("a file");
    assert_eq!(back, NIGHT, "the directory is as it was saved");
    let record = moved.fleet.cli(&["runbook", "report", &id]).await.ok().text();
    assert!(record.contains("undo run") && record.contains("undo: rehearsed"), "{record}");
}
