//! A job's definition in lines, without what is as usual.

use fw_proto::api::{CatchUp, Command, EnvValue, Hook, JobSpec, OnFull, Overlap};

/// Key and value of each thing that a job says.
pub(super) fn lines(spec: &JobSpec) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("Schedule", format!("{} ({})", spec.schedule, spec.timezone)),
        ("Hosts", spec.hosts.clone()),
    ];
    let mut put = |key, value: Option<String>| {
        lines.extend(value.filter(|value| !value.is_empty()).map(|value| (key, value)));
    };
    put("User", spec.user.clone());
    put("Directory", spec.cwd.clone());
    put("Environment", Some(env(spec)));
    put("Timeout", spec.timeout.map(|span| span.to_string()));
    put("Start within", Some(spec.start_within.to_string()));
    put("Overlap", Some(overlap(spec.overlap).to_owned()));
    put("Missed fires", Some(catch_up(spec)));
    put("Not on", Some(spec.skip_on.join(", ")));
    put("Only in", Some(spec.window.join("; ")));
    put(
        "Retries",
        (spec.retries > 0)
            .then(|| format!("{}, the first after {}", spec.retries, spec.retry_backoff)),
    );
    put("Spread", spec.spread.map(|span| format!("over {span}")));
    put("Picks", spec.pick.map(|hosts| format!("{hosts} hosts, drawn for each run")));
    put("At once", spec.max_parallel.map(|hosts| format!("{hosts} hosts")));
    put("Stops after", spec.max_failures.map(|hosts| format!("{hosts} failures")));
    put("Full spool", (spec.on_full == OnFull::Drop).then(|| "output is dropped".to_owned()));
    put("On failure", Some(hooks(&spec.on_failure)));
    put("On recovery", Some(hooks(&spec.on_recovery)));
    lines
}

/// What runs, whole.
pub(super) fn command(command: &Command) -> String {
    match command {
        Command::Shell(text) => text.clone(),
        Command::Argv(words) => {
            words.iter().map(|word| super::link::quoted(word)).collect::<Vec<_>>().join(" ")
        }
    }
}

/// Names of secrets, never what they hold.
fn env(spec: &JobSpec) -> String {
    let pair = |(key, value): (&String, &EnvValue)| match value {
        EnvValue::Value(value) => format!("{key}={value}"),
        EnvValue::Secret(name) => format!("{key} from secret {name}"),
    };
    spec.env.iter().map(pair).collect::<Vec<_>>().join(", ")
}

const fn overlap(overlap: Overlap) -> &'static str {
    match overlap {
        Overlap::Skip => "a fire is skipped while an earlier run goes on",
        Overlap::Queue => "the latest fire waits for the earlier run",
        Overlap::Replace => "the earlier run is cancelled",
        Overlap::Allow => "runs go on beside each other",
    }
}

fn catch_up(spec: &JobSpec) -> String {
    match spec.catch_up {
        CatchUp::None => "not made up for".to_owned(),
        CatchUp::Last => format!("the last within {} is made up for", spec.catch_up_window),
        CatchUp::All => format!(
            "all within {} are made up for, at most {}",
            spec.catch_up_window, spec.catch_up_max
        ),
    }
}

/// Where notices go; the rest of an address may hold a secret.
fn hooks(hooks: &[Hook]) -> String {
    let shown = |hook: &Hook| match hook {
        Hook::Webhook(url) => {
            let end = url.match_indices('/').nth(2).map_or(url.len(), |(at, _)| at);
            format!("webhook {}", url.get(..end).unwrap_or_default())
        }
        Hook::Command(words) => format!("command {}", words.first().map_or("", String::as_str)),
    };
    hooks.iter().map(shown).collect::<Vec<_>>().join("; ")
}
