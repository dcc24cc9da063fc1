//! The jobs of a directory as job files of ours: what `fleetwright import` writes, and the proof that it means
//! the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fw_core::job::JobDef;
use fw_core::select::Selector;
use fw_proto::{JobName, Timestamp};

use super::files::{Directory, Job, Timeout};
use super::names;
use super::schedule::Times;
use super::target::{Groups, translate};

/// A job that is carried over.
#[derive(Debug, Clone)]
pub struct Carried {
    /// Its name there.
    pub original: String,
    /// Its name here.
    pub name: JobName,
    /// Its group, which names its file.
    pub group: String,
    /// Where it stands: `file:line`.
    pub place: String,
    /// Its part of a job file.
    pub text: String,
    /// When it is due there.
    pub times: Times,
    /// Where it runs there.
    pub selector: Selector,
}

/// What becomes of a directory.
#[derive(Debug, Clone, Default)]
pub struct Native {
    /// The jobs that are carried over, by group and name.
    pub jobs: Vec<Carried>,
    /// What is not, as `file:line: what, and what to do`.
    pub left: Vec<String>,
}

/// Says the jobs of a directory in our language.
#[must_use]
pub fn native(directory: &Directory) -> Native {
    let mut native = Native::default();
    for job in directory.jobs.values() {
        let place = format!("{}:{}", job.file, job.place.line);
        match carry(job, &place) {
            Ok((carried, left)) => {
                native.left.extend(left.into_iter().map(|what| format!("{place}: {what}")));
                native.jobs.push(carried);
            }
            Err(why) => native.left.push(format!("{place}: job {:?} is left out: {why}", job.name)),
        }
    }
    native.jobs.sort_by(|a, b| (&a.group, &a.name).cmp(&(&b.group, &b.name)));
    native.left.extend(settings(directory));
    native
}

/// What of the directory itself has another place here.
fn settings(directory: &Directory) -> Vec<String> {
    let mut left = Vec::new();
    if !directory.config.is_empty() {
        let keys: Vec<_> = directory.config.keys().map(String::as_str).collect();
        left.push(format!(
            "saltpeter_config is not carried over ({}): `fleetwright serve --saltpeter` goes by it, job files do not",
            keys.join(", ")
        ));
    }
    if directory.maintenance.global {
        left.push("saltpeter_maintenance: everything is in maintenance there; here run `fleetwright maintenance on --everything --reason WHY`".to_owned());
    }
    if !directory.maintenance.machines.is_empty() {
        let machines = directory.maintenance.machines.join(",");
        left.push(format!(
            "saltpeter_maintenance: machines are in maintenance there; here run `fleetwright maintenance on '{machines}' --reason WHY`"
        ));
    }
    left
}

fn carry(job: &Job, place: &str) -> Result<(Carried, Vec<String>), String> {
    if job.times.schedule.is_none() {
        return Err("it is never due; in Saltpeter it ends the scheduler".to_owned());
    }
    let selector = job
        .target_type
        .parse()
        .and_then(|kind| translate(kind, &job.targets, &Groups::new()))
        .map_err(|error| format!("its targets: {}", error.message))?;
    let mut left = Vec::new();
    if job.batch_size > 0 {
        left.push(format!(
            "batch_size: {} becomes max_parallel: here the next host begins as soon as one has ended",
            job.batch_size
        ));
    }
    let name = names::job_name(&job.name);
    if name.as_str() != job.name {
        left.push(format!("job {:?} is called {name} here", job.name));
    }
    let carried = Carried {
        text: text(job, place, &name, &selector),
        original: job.name.clone(),
        name,
        group: job.group.clone(),
        place: place.to_owned(),
        times: job.times.clone(),
        selector,
    };
    Ok((carried, left))
}

/// A job as it stands below `jobs:`.
fn text(job: &Job, place: &str, name: &JobName, selector: &Selector) -> String {
    let mut text =
        format!("  # {place}, {} {}\n", one_line(&job.target_type), one_line(&job.targets));
    if name.as_str() != job.name {
        writeln!(text, "  # There it is called {}.", one_line(&job.name))
            .expect("writing to memory");
    }
    writeln!(text, "  {}:", quoted(name.as_str())).expect("writing to memory");
    let mut key = |key: &str, value: String| {
        writeln!(text, "    {key}: {value}").expect("writing to memory");
    };
    key("schedule", quoted(&job.times.text));
    key("hosts", quoted(&selector.to_string()));
    key("run", quoted(&job.command));
    if let Some(user) = &job.user {
        key("user", quoted(user));
    }
    if let Some(cwd) = &job.cwd {
        key("cwd", quoted(cwd));
    }
    match job.timeout {
        Timeout::Seconds(seconds) => key("timeout", format!("{seconds}s")),
        Timeout::Unlimited => {}
    }
    if job.allow_overlap {
        key("overlap", "allow".to_owned());
    }
    if job.batch_size > 0 {
        key("max_parallel", job.batch_size.to_string());
    }
    if job.number_of_targets > 0 {
        key("pick", job.number_of_targets.to_string());
    }
    if !job.env.is_empty() {
        writeln!(text, "    env:").expect("writing to memory");
        for (name, value) in &job.env {
            writeln!(text, "      {}: {}", quoted(name), quoted(value)).expect("writing to memory");
        }
    }
    text
}

/// In double quotes, as JSON has them and YAML reads them.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            // What a line may not hold, or an editor would not show.
            letter
                if letter.is_control()
                    || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{feff}') =>
            {
                write!(quoted, "\\u{:04x}", u32::from(letter)).expect("writing to memory");
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// For a comment.
fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// A job file of these jobs.
#[must_use]
pub fn file(from: &str, jobs: &[&Carried]) -> String {
    let mut text = format!(
        "# Carried over from {} by `fleetwright import saltpeter`. Times are in UTC.\n\njobs:\n",
        one_line(from)
    );
    for (n, job) in jobs.iter().enumerate() {
        if n > 0 {
            text.push('\n');
        }
        text.push_str(&job.text);
    }
    text
}

/// The jobs by the file that they go to.
#[must_use]
pub fn by_group(jobs: &[Carried]) -> BTreeMap<String, Vec<&Carried>> {
    let mut groups: BTreeMap<String, Vec<&Carried>> = BTreeMap::new();
    for job in jobs {
        groups.entry(job.group.clone()).or_default().push(job);
    }
    groups
}

/// The first of the next fires that are not the same under both readings.
#[must_use]
pub fn differing_fire(
    there: &Times,
    here: &JobDef,
    from: Timestamp,
    count: usize,
) -> Option<(Option<Timestamp>, Option<Timestamp>)> {
    let mut at = from;
    for _ in 0..count {
        let fires = (there.next_after(at), here.next_run(at));
        match fires {
            (Some(one), Some(other)) if one == other => at = one,
            (None, None) => return None,
            (Some(_) | None, Some(_) | None) => return Some(fires),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::files;
    use super::*;
    use fw_core::job::parse_jobs;
    use proptest::prelude::*;

    const NIGHT: &str = "
sweep:
  min: 30
  hour: 3
  dom: L
  mon: '*'
  dow: '*'
  command: \"sweep --all && echo 'it is' \\\"done\\\"\\n\"
  targets: 'G@role:db and web*'
  target_type: compound
  user: backup
  cwd: /
  env: {A: 1, B: 'x: y'}
night sweep: {min: '*/5', hour: '*', dom: '*', mon: '*', dow: 1-5, command: 'true', targets: 'a,b', target_type: list, timeout: 0, batch_size: 2, allow_overlap: i know what i am doing!}
one: {sec: 10, min: 0, hour: 0, dom: 1, mon: 1, dow: '*', command: 'true', targets: '*', target_type: glob, number_of_targets: 1}
never: {min: 0, hour: 0, dom: 30, mon: 2, dow: '*', command: 'true', targets: '*', target_type: glob}
bad: {min: 0, hour: 0, dom: 1, mon: 2, dow: '*', command: 'true', targets: 'N@group', target_type: compound}
saltpeter_maintenance: {global: true, machines: [web-1]}
saltpeter_config: {logdir: /var/log/x}
";

    fn read(text: &str) -> Native {
        native(&files::of_texts(&BTreeMap::from([("night.yaml".to_owned(), Ok(text.to_owned()))])))
    }

    #[test]
    fn a_directory_becomes_job_files_and_a_list_of_what_does_not() {
        let native = read(NIGHT);
        let groups = by_group(&native.jobs);
        insta::assert_snapshot!(file("/etc/saltpeter", &groups["night"]));
        insta::assert_snapshot!(native.left.join("\n"));
    }

    #[test]
    fn what_is_written_reads_back_with_the_same_fires_and_hosts() {
        let native = read(NIGHT);
        let groups = by_group(&native.jobs);
        let parsed = parse_jobs("night.yaml", &file("/etc/saltpeter", &groups["night"]));
        assert_eq!(parsed.errors, []);
        assert_eq!(parsed.jobs.len(), native.jobs.len());
        let from = "2026-11-20T00:00:00Z".parse().unwrap();
        for (there, here) in native.jobs.iter().zip(&parsed.jobs) {
            assert_eq!(there.name, here.name);
            assert_eq!(differing_fire(&there.times, here, from, 1000), None, "{}", there.name);
            assert_eq!(there.selector.to_string(), here.selector.to_string());
        }
    }

    #[test]
    fn fires_that_differ_are_found() {
        let there = &read(NIGHT).jobs[0].times;
        let text = "jobs:\n  x: {schedule: '1 0 0 1 1 *', hosts: '*', run: 'true'}\n";
        let here = parse_jobs("x.yaml", text).jobs.remove(0);
        assert!(differing_fire(there, &here, Timestamp::EPOCH, 10).is_some());
    }

    proptest! {
        #[test]
        fn any_command_and_environment_reads_back(command in ".*[^ ].*", value in any::<String>()) {
            let job = read("x: {min: 0, hour: 0, dom: 1, mon: 1, dow: '*', command: 'true', targets: '*', target_type: glob}");
            let text = file("x", &by_group(&job.jobs)["night"]);
            let text = text.replace("run: \"true\"", &format!("run: {}\n    env: {{\"A\": {}}}", quoted(&command), quoted(&value)));
            let parsed = parse_jobs("x.yaml", &text);
            // A value that no environment can hold is refused, not changed.
            prop_assume!(!command.contains('\0') && !value.contains('\0'));
            // Nor is white space a command.
            prop_assume!(!command.trim().is_empty());
            prop_assert_eq!(&parsed.errors, &[]);
            let spec = &parsed.jobs[0].spec;
            prop_assert_eq!(&spec.command, &fw_proto::api::Command::Shell(command));
            prop_assert_eq!(&spec.env["A"], &fw_proto::api::EnvValue::Value(value));
        }
    }
}
