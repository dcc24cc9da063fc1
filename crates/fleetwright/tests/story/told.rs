//! What each place tells of the runs there were, in one form, so that it can be compared.

#![expect(clippy::indexing_slicing, reason = "a missing key of a JSON value reads as null")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fw_testkit::fleet::Fleet;
use serde_json::Value;

use super::page::instance;

/// What is told of one run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Told {
    /// The machines it began on.
    pub(crate) began: BTreeSet<String>,
    /// How it ended on each: the code, and all output.
    pub(crate) ended: BTreeMap<String, (i64, String)>,
    /// Whether it has ended.
    pub(crate) over: bool,
}

/// What is told of all runs, by Saltpeter's names of them.
pub(crate) type Story = BTreeMap<String, Told>;

/// The texts that stand in place of output when maintenance holds something up: no run tells them.
const HELD: [&str; 2] = ["Target under maintenance", "Global maintenance mode active"];

/// All runs of jobs, the newest first.
pub(crate) async fn runs(fleet: &Fleet) -> Option<Vec<Value>> {
    let (mut runs, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = fleet.get(&format!("/runs?limit=1000{cursor}")).await?;
        runs.extend(page["items"].as_array()?.iter().filter(|run| run["job"].is_string()).cloned());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Some(runs),
        }
    }
}

/// What our own API tells. Output that came by an agent has no words on how it was ended; Saltpeter's views
/// add them.
pub(crate) async fn by_api(fleet: &Fleet, agents: &[&str]) -> Story {
    let mut story = Story::new();
    for run in runs(fleet).await.expect("runs") {
        let id = run["id"].as_str().expect("an id");
        let mut told = Told { over: !run["finished_at"].is_null(), ..Told::default() };
        for task in fleet.runs_show(id).await["tasks"].as_array().expect("tasks") {
            let host = task["host"].as_str().expect("a name");
            let output = fleet.open(&format!("/runs/{id}/logs/text?host={host}")).await;
            let output = output.expect("output").text().await.expect("a text");
            let (code, note) = ending(task);
            let note = if agents.contains(&host) { note } else { "" };
            told.began.insert(host.to_owned());
            told.ended.insert(host.to_owned(), (code, format!("{output}{note}")));
        }
        let job = run["job"].as_str().expect("a name");
        let instance = instance(job, run["created_at"].as_str().expect("a time"));
        let twice = story.insert(instance, told);
        assert_eq!(twice, None, "two runs of one name: {run}");
    }
    story
}

/// How a task ended by its state in our words: the number and the words that users of Saltpeter were promised.
fn ending(task: &Value) -> (i64, &'static str) {
    assert!(!task["started_at"].is_null(), "nothing here keeps a task from beginning: {task}");
    let number = |key: &str| task[key].as_i64();
    match task["state"].as_str().expect("a state") {
        "succeeded" => (0, ""),
        "failed" => {
            let signal = || number("signal").map(|signal| -signal);
            (number("exit_code").or_else(signal).expect("a code"), "")
        }
        "timed_out" => (124, "\n[Job exceeded timeout of 2 seconds]\n"),
        "cancelled" => (143, "\n[Job terminated by user request]\n"),
        other => {
            assert_eq!(other, "an end that something here makes", "{task}");
            (0, "")
        }
    }
}

/// What the log files tell.
pub(crate) fn by_files(dir: &Path) -> Story {
    let mut story = Story::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let log = std::fs::read_to_string(entry.path()).expect("a log file");
        read_log(&log, &mut story);
    }
    story
}

fn read_log(log: &str, story: &mut Story) {
    let mut lines = log.split('\n');
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("###### Starting ") {
            let (what, _) = rest.rsplit_once(" at ").expect("a time");
            let (instance, machine) = what.split_once(" on ").unzip();
            let told = story.entry(instance.unwrap_or(what).to_owned()).or_default();
            let new = machine.is_none_or(|machine| told.began.insert(machine.to_owned()));
            assert!(new, "twice: {line}");
        } else if let Some(rest) = line.strip_prefix("###### Finished ") {
            let (instance, _) = rest.rsplit_once(" at ").expect("a time");
            let told = story.get_mut(instance).expect("it began first");
            assert!(!std::mem::replace(&mut told.over, true), "twice: {line}");
        } else if let Some(rest) = line.strip_prefix("########## ") {
            let (machine, rest) = rest.split_once(" from ").expect("an instance");
            let instance = rest.strip_suffix(" ################").expect("the end of a line");
            let code = lines.next().and_then(|line| line.strip_prefix("**** Exit Code "));
            let code = code.and_then(|code| code.strip_suffix(" ******")).expect("a code");
            let end = format!("####### END {machine} from {instance} at ");
            let output: Vec<_> =
                lines.by_ref().take_while(|line| !line.starts_with(&end)).collect();
            let ended = (code.parse().expect("a number"), output.join("\n"));
            ends(story, instance, machine, ended);
        } else {
            let known = ["###### Overlap detected", "!!!!!! No targets matched"];
            let known = line.is_empty() || known.iter().any(|known| line.starts_with(known));
            assert!(known, "no line of Saltpeter's: {line:?}");
        }
    }
}

fn ends(story: &mut Story, instance: &str, machine: &str, ended: (i64, String)) {
    if HELD.contains(&ended.1.as_str()) {
        return;
    }
    let told = story.get_mut(instance).expect("it began first");
    let twice = told.ended.insert(machine.to_owned(), ended);
    assert_eq!(twice, None, "{instance} ended twice on {machine}");
}

/// What the documents of a search server tell.
pub(crate) fn by_documents(documents: &[Value]) -> Story {
    let (mut story, mut ends) = (Story::new(), Vec::new());
    for document in documents {
        let text = |key: &str| document[key].as_str().expect("a text").to_owned();
        let code = document["return_code"].as_i64().expect("a number");
        let kind = text("msg_type");
        if ["maintenance", "overlap", "no_machines"].contains(&kind.as_str()) {
            continue;
        }
        let told = story.entry(text("job_instance")).or_default();
        let new = match kind.as_str() {
            "start" => true,
            "machine_start" => told.began.insert(text("machine")),
            "machine_result" => {
                told.ended.insert(text("machine"), (code, text("output"))).is_none()
            }
            "end" => {
                ends.push((text("job_instance"), code, text("output")));
                !std::mem::replace(&mut told.over, true)
            }
            other => {
                assert_eq!(other, "a kind of document", "{document}");
                false
            }
        };
        assert!(new, "twice: {document}");
    }
    for (instance, code, output) in ends {
        let ended = &story[&instance].ended;
        let good = ended.values().filter(|(code, _)| *code == 0).count();
        let said = format!("Completed: {good}/{} targets successful", ended.len());
        assert_eq!((output, code), (said, i64::from(good < ended.len())), "{instance}");
    }
    story
}

/// Fails with the first run of which the two tell something else.
pub(crate) fn same(what: &str, told: &Story, by_api: &Story) {
    for instance in told.keys().chain(by_api.keys()) {
        let (told, by_api) = (told.get(instance), by_api.get(instance));
        assert_eq!(told, by_api, "{instance}: what {what} tell, and what the API does");
    }
}
