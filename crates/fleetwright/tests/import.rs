//! `fleetwright import saltpeter`: over to job files, proved, and back.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const NIGHT: &str = "sweep: {min: 30, hour: 3, dom: L, mon: '*', dow: '*', command: sweep --all, targets: 'web*', target_type: glob}\n";
const DAY: &str = "poll: {sec: '*/15', min: '*', hour: '*', dom: '*', mon: '*', dow: '*', command: poll, targets: 'G@os:Debian', target_type: compound, timeout: 0}\n";
const ODD: &str = "some: {min: 0, hour: 0, dom: 1, mon: 1, dow: '*', command: 'true', targets: '*', target_type: glob, batch_size: 2}\nbad: {min: 0, hour: 0, dom: 1, mon: 1, dow: '*', command: 'true', targets: 'G@', target_type: compound}\n";

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        let place = Self { dir: tempfile::tempdir().expect("a directory") };
        std::fs::create_dir(place.path("sp")).expect("a directory");
        for (name, text) in files {
            std::fs::write(place.path("sp").join(name), text).expect("written");
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("it is there")
    }

    fn names(&self, dir: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(dir)).expect("a directory");
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.expect("an entry").file_name().to_string_lossy().into_owned()
        };
        let mut names: Vec<_> = entries.map(name).collect();
        names.sort();
        names
    }

    fn import(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleetwright"));
        command.current_dir(self.dir.path()).args(["import", "saltpeter"]).args(args);
        command.output().expect("the binary starts")
    }

    /// Checks the exit code, and gives what was said.
    fn ends(&self, args: &[&str], code: i32) -> String {
        let output = self.import(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        said
    }
}

fn machines() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fw-server/tests/data/salt/machines.json")
}

#[test]
fn a_directory_is_carried_over_and_taken_back() {
    let place = Place::new(&[("night.yaml", NIGHT), ("day.yaml", DAY)]);
    place.ends(&["sp", "--to", "jobs"], 0);
    assert_eq!(place.names("jobs"), [".fleetwright-import.json", "day.yaml", "night.yaml"]);
    let check = Command::new(env!("CARGO_BIN_EXE_fleetwright"))
        .current_dir(place.dir.path())
        .args(["jobs", "check", "jobs/day.yaml", "jobs/night.yaml", "-o", "name"])
        .output()
        .expect("the binary starts");
    assert_eq!(String::from_utf8_lossy(&check.stdout), "poll\nsweep\n", "{check:?}");
    let said = place.ends(&["sp", "--to", "jobs"], 6);
    assert!(said.contains("--force") && said.contains("--undo"), "{said}");
    place.ends(&["--undo", "--to", "jobs"], 0);
    assert_eq!(place.names("jobs"), Vec::<String>::new());
    let said = place.ends(&["--undo", "--to", "jobs"], 5);
    assert!(said.contains("no import is noted"), "{said}");
}

#[test]
fn what_was_changed_since_stays_and_what_was_there_comes_back() {
    let place = Place::new(&[("night.yaml", NIGHT), ("day.yaml", DAY)]);
    std::fs::create_dir(place.path("jobs")).expect("a directory");
    std::fs::write(place.path("jobs/night.yaml"), "jobs: {}\n").expect("written");
    place.ends(&["sp", "--to", "jobs"], 6);
    assert_eq!(place.names("jobs"), ["night.yaml"]);
    place.ends(&["sp", "--to", "jobs", "--force"], 0);
    place.ends(&["sp", "--to", "jobs", "--force"], 0);
    std::fs::write(place.path("jobs/day.yaml"), "jobs: {} # mine\n").expect("written");
    let said = place.ends(&["--undo", "--to", "jobs"], 6);
    assert!(said.contains("day.yaml was changed since and stays"), "{said}");
    assert_eq!(place.read("jobs/night.yaml"), "jobs: {}\n");
    assert_eq!(place.names("jobs"), [".fleetwright-import.json", "day.yaml", "night.yaml"]);
}

#[test]
fn one_file_takes_all() {
    let place = Place::new(&[("night.yaml", NIGHT), ("day.yaml", DAY)]);
    place.ends(&["sp", "--to", "all.yaml"], 0);
    assert!(place.read("all.yaml").contains("sweep") && place.read("all.yaml").contains("poll"));
    place.ends(&["--undo", "--to", "all.yaml"], 0);
    assert_eq!(place.names("."), ["sp"]);
}

#[test]
fn a_dry_run_writes_nothing_and_tells_all() {
    let place = Place::new(&[("odd.yaml", ODD), ("day.yaml", DAY)]);
    std::fs::create_dir(place.path("logs")).expect("a directory");
    let log = "###### Starting poll_1 at 2026-11-20 13:54:45.05+00:00 ################\n";
    std::fs::write(place.path("logs/poll.log"), log).expect("written");
    let facts = machines();
    let facts = facts.to_str().expect("a text");
    let args = ["sp", "--dry-run", "--facts-file", facts, "--logs", "logs", "-o", "json"];
    let output = place.import(&args);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["written"], false);
    assert_eq!(answer["past"]["poll"]["runs"], 1);
    assert_eq!(answer["past"]["poll"]["compared"]["came"], 1);
    let jobs: Vec<_> = answer["jobs"].as_array().expect("jobs").iter().collect();
    assert_eq!((&jobs[0]["name"], &jobs[1]["name"]), (&"poll".into(), &"some".into()));
    assert!(jobs.iter().all(|job| job["hosts"].as_u64() > Some(0)), "{answer}");
    assert!(jobs.iter().all(|job| job["differences"] == serde_json::json!([])), "{answer}");
    let left = answer["left"].to_string();
    assert!(left.contains("odd.yaml:1: batch_size"), "{left}");
    assert!(left.contains("odd.yaml:2"), "{left}");
    assert_eq!(place.names("."), ["logs", "sp"]);
}
