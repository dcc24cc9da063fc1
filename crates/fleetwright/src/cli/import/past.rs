//! What log files say of how jobs did.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use fw_server::dialects::saltpeter::history::{self, History};

use crate::output::line;

/// Reads the `*.log` of a directory; by the names of the jobs.
pub(super) fn read(dir: &Path) -> anyhow::Result<BTreeMap<String, History>> {
    let failed = || format!("read {}", dir.display());
    let mut past = BTreeMap::new();
    for entry in std::fs::read_dir(dir).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let name = entry.file_name();
        let Some(job) = name.to_str().and_then(|name| name.strip_suffix(".log")) else { continue };
        let path = entry.path();
        let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        past.insert(job.to_owned(), history::read(&String::from_utf8_lossy(&text)));
    }
    Ok(past)
}

/// A few lines a job.
pub(super) fn page(past: &BTreeMap<String, History>) -> String {
    let mut page = String::new();
    for (job, history) in past {
        let History { runs, finished, overlaps, without_machines, longest_seconds, .. } = history;
        let longest =
            longest_seconds.map_or(String::new(), |seconds| format!(", longest {seconds}s"));
        writeln!(
            page,
            "{} before: {runs} runs, {finished} ended, {overlaps} held by overlap, {without_machines} without machines{longest}",
            line(job)
        )
        .expect("writing to memory");
        for (machine, of) in &history.machines {
            let code = of.last_code.map_or("?".to_owned(), |code| code.to_string());
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
