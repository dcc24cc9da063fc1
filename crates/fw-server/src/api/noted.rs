//! What the audit keeps of jobs and runs: short, and without what may be a secret.
//!
//! Of the environment only the names, and of hooks only how many there are: their addresses often hold a secret.

use fw_core::job::JobDef;
use fw_core::plan::Plan;
use fw_proto::api::Command;
use serde_json::{Map, Value, json};

use super::run::shorten;

/// A job as it is defined; what it does not set is left out.
pub(super) fn job(def: &JobDef) -> Value {
    let mut said =
        serde_json::to_value(&def.spec).expect("a job has only texts, numbers and maps by text");
    if let Value::Object(said) = &mut said {
        said.insert("command".to_owned(), command(def.spec.command.clone()));
        said.insert("env".to_owned(), json!(def.spec.env.keys().collect::<Vec<_>>()));
        said.insert("on_failure".to_owned(), count(def.spec.on_failure.len()));
        said.insert("on_recovery".to_owned(), count(def.spec.on_recovery.len()));
        said.retain(|_, value| says_something(value));
    }
    said
}

/// What a run is to do.
pub(super) fn run(plan: &Plan) -> Value {
    let exec = &plan.exec;
    let mut said = Map::new();
    said.insert("hosts".to_owned(), json!(plan.selector));
    said.insert("command".to_owned(), command(exec.command.clone()));
    said.insert("user".to_owned(), json!(exec.user));
    said.insert("env".to_owned(), json!(exec.env.keys().collect::<Vec<_>>()));
    said.insert("retry_of".to_owned(), json!(plan.origin.retry_of));
    said.retain(|_, value| says_something(value));
    Value::Object(said)
}

/// What of a job is another than before: all of it when it is new.
pub(super) fn changed(before: Option<&JobDef>, after: &JobDef) -> (Option<Value>, Value) {
    let (mut after, before) = (job(after), before.map(job));
    let Some(mut before) = before else { return (None, after) };
    if let (Value::Object(was), Value::Object(is)) = (&mut before, &mut after) {
        let same: Vec<_> = is.iter().filter(|(key, value)| was.get(*key) == Some(value)).collect();
        let same: Vec<_> = same.into_iter().map(|(key, _)| key.clone()).collect();
        for key in same {
            was.remove(&key);
            is.remove(&key);
        }
    }
    (Some(before), after)
}

fn command(mut command: Command) -> Value {
    shorten(&mut command);
    match command {
        Command::Shell(text) => json!(text),
        Command::Argv(words) => json!(words),
    }
}

fn count(hooks: usize) -> Value {
    if hooks == 0 { Value::Null } else { json!(hooks) }
}

fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(list) => !list.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use fw_core::job::parse_jobs;

    use super::*;

    fn def(text: &str) -> JobDef {
        let parsed = parse_jobs("jobs", text);
        parsed.jobs.into_iter().next().unwrap_or_else(|| panic!("{:?}", parsed.errors))
    }

    #[test]
    fn a_change_says_what_is_other_and_no_secret() {
        let first = "jobs:\n  nightly:\n    schedule: '0 3 * * *'\n    hosts: web*\n    run: backup\n    env: {KEY: hunter2}\n    on_failure: [{webhook: 'https://hooks.example/T0/hunter2'}]\n";
        let (before, after) = changed(None, &def(first));
        assert_eq!(
            (before, &after["schedule"], &after["env"]),
            (None, &json!("0 3 * * *"), &json!(["KEY"]))
        );
        assert!(!after.to_string().contains("hunter2"), "{after}");
        let second =
            first.replace("run: backup", "run: backup --all").replace("hunter2", "hunter3");
        let (before, after) = changed(Some(&def(first)), &def(&second));
        assert_eq!(
            (before, after),
            (Some(json!({ "command": "backup" })), json!({ "command": "backup --all" }))
        );
    }
}
