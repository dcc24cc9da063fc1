//! What log files say of how jobs did, and whether that is what their schedules say.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use fw_proto::Timestamp;
use fw_server::dialects::saltpeter::history::{self, Compared, History};
use fw_server::dialects::saltpeter::native::Carried;
use serde::Serialize;

use crate::output::line;

/// What is known of a job's past.
#[derive(Debug, Serialize)]
pub(super) struct Past {
    #[serde(flatten)]
    history: History,
    /// Against the schedule; `null` when there is no such job any more.
    compared: Option<Compared>,
}

/// Reads the `*.log` of a directory; by the names of the jobs.
pub(super) fn read(dir: &Path, jobs: &[Carried]) -> anyhow::Result<BTreeMap<String, Past>> {
    let with_compared = |(name, history)| {
        let job = jobs.iter().find(|job| job.original == name);
        let compared = job.map(|job| Compared::of(&job.times, &history));
        (name, Past { history, compared })
    };
    Ok(histories(dir)?.into_iter().map(with_compared).collect())
}

/// What each `*.log` of a directory tells; by the names of the jobs.
pub(in crate::cli) fn histories(dir: &Path) -> anyhow::Result<BTreeMap<String, History>> {
    let failed = || format!("read {}", dir.display());
    let mut histories = BTreeMap::new();
    for entry in std::fs::read_dir(dir).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let name = entry.file_name();
        let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".log")) else { continue };
        let path = entry.path();
        let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        histories.insert(name.to_owned(), history::read(&String::from_utf8_lossy(&text)));
    }
    Ok(histories)
}

/// A few lines a job.
pub(super) fn page(past: &BTreeMap<String, Past>) -> String {
    let mut page = String::new();
    for (job, Past { history, compared }) in past {
        let History { runs, finished, overlaps, without_machines, longest_seconds, .. } = history;
        let longest =
            longest_seconds.map_or(String::new(), |seconds| format!(", longest {seconds}s"));
        writeln!(
            page,
            "{} before: {runs} runs, {finished} ended, {overlaps} held by overlap, {without_machines} without machines{longest}",
            line(job)
        )
        .expect("writing to memory");
        compared.iter().for_each(|compared| against(&mut page, compared));
        for (machine, of) in &history.machines {
            let code = of.last_code.map_or_else(|| "?".to_owned(), |code| code.to_string());
            let at = of.last_at.map_or(String::new(), |at| format!(" at {at}"));
            writeln!(
                page,
                "  {}: {} results, {} failed, the last with {code}{at}",
                line(machine),
                of.results,
                of.failed
            )
            .expect("writing to memory");
        }
    }
    page
}

/// What the schedule says to it.
fn against(page: &mut String, compared: &Compared) {
    let Some((from, to)) = compared.from.zip(compared.to) else { return };
    let Compared { due, came, missing, beside, .. } = compared;
    writeln!(page, "  from {from} to {to}: due {due} times, of which {came} came")
        .expect("writing to memory");
    let shown =
        |all: &[Timestamp]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if !missing.is_empty() {
        writeln!(page, "  did not come, such as: {}", shown(missing)).expect("writing to memory");
    }
    if !beside.is_empty() {
        writeln!(page, "  came beside the schedule, such as: {}", shown(beside))
            .expect("writing to memory");
    }
}
