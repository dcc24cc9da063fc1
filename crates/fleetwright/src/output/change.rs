//! Rollouts and runbooks, for people.

use std::fmt::Write as _;

use fw_proto::Timestamp;
use fw_proto::api::{
    Rollout, RolloutHost, RolloutSummary, Runbook, RunbookStep, RunbookSummary, Wave,
};

use super::line;
use super::table::{Row, Width, ago, render, took};

impl Row for RolloutSummary {
    const COLUMNS: &'static [(&'static str, Width)] = &[
        ("ID", Width::Always),
        ("NAME", Width::Always),
        ("STATE", Width::Always),
        ("WAVE", Width::Number),
        ("BY", Width::Always),
        ("CREATED", Width::Always),
        ("WHY", Width::Always),
    ];

    fn cells(&self, now: Timestamp) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.name.clone(),
            self.state.as_str().to_owned(),
            self.wave.map(|wave| wave.to_string()).unwrap_or_default(),
            self.by.clone(),
            ago(self.created_at, now),
            self.why.clone().unwrap_or_default(),
        ]
    }

    fn name(&self) -> String {
        self.id.to_string()
    }
}

impl Row for Wave {
    const COLUMNS: &'static [(&'static str, Width)] = &[
        ("WAVE", Width::Always),
        ("STATE", Width::Always),
        ("HOSTS", Width::Number),
        ("BEGAN", Width::Always),
        ("TOOK", Width::Number),
    ];

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let span = self.began_at.zip(self.ended_at);
        vec![
            self.name.clone(),
            self.state.as_str().to_owned(),
            self.hosts.len().to_string(),
            self.began_at.map(|at| ago(at, now)).unwrap_or_default(),
            span.map(|(from, to)| took(from, to)).unwrap_or_default(),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Row for RolloutHost {
    const COLUMNS: &'static [(&'static str, Width)] = &[
        ("HOST", Width::Always),
        ("WAVE", Width::Number),
        ("STATE", Width::Always),
        ("PROOF", Width::Always),
    ];

    fn cells(&self, _now: Timestamp) -> Vec<String> {
        vec![
            self.host.to_string(),
            self.wave.to_string(),
            self.state.as_str().to_owned(),
            self.proof.map(|proof| proof.as_str().to_owned()).unwrap_or_default(),
        ]
    }

    fn name(&self) -> String {
        self.host.to_string()
    }
}

impl Row for RunbookSummary {
    const COLUMNS: &'static [(&'static str, Width)] = &[
        ("ID", Width::Always),
        ("TITLE", Width::Always),
        ("STATE", Width::Always),
        ("BY", Width::Always),
        ("CREATED", Width::Always),
        ("WHY", Width::Always),
    ];

    fn cells(&self, now: Timestamp) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.title.clone(),
            self.state.as_str().to_owned(),
            self.by.clone(),
            ago(self.created_at, now),
            self.why.clone().unwrap_or_default(),
        ]
    }

    fn name(&self) -> String {
        self.id.to_string()
    }
}

impl Row for RunbookStep {
    const COLUMNS: &'static [(&'static str, Width)] = &[
        ("LINE", Width::Number),
        ("STEP", Width::Always),
        ("KIND", Width::Always),
        ("STATE", Width::Always),
        ("BY", Width::Always),
        ("TOOK", Width::Number),
        ("TITLE", Width::Always),
        ("NOTE", Width::Always),
        ("RUN", Width::Wide),
    ];

    fn cells(&self, _now: Timestamp) -> Vec<String> {
        let span = self.started_at.zip(self.finished_at);
        vec![
            self.line.map(|line| line.to_string()).unwrap_or_default(),
            self.id.clone(),
            self.kind.clone(),
            self.state.as_str().to_owned(),
            self.by.clone().unwrap_or_default(),
            span.map(|(from, to)| took(from, to)).unwrap_or_default(),
            self.title.clone(),
            self.note.clone().unwrap_or_default(),
            self.output_run.map(|run| run.to_string()).unwrap_or_default(),
        ]
    }

    fn name(&self) -> String {
        self.id.clone()
    }
}

/// Facts on a page, a line for each.
struct Page(String);

impl Page {
    fn put(&mut self, key: &str, value: &str) {
        writeln!(self.0, "{key:9} {}", line(value)).expect("writing to memory");
    }

    fn times(&mut self, begun: Timestamp, ended: Option<Timestamp>, now: Timestamp) {
        self.put("begun", &format!("{begun} ({})", ago(begun, now)));
        if let Some(end) = ended {
            self.put("finished", &format!("{end} (took {})", took(begun, end)));
        }
    }
}

/// A rollout on a page of its own.
pub(crate) fn rollout_page(rollout: &Rollout, now: Timestamp) -> String {
    let summary = &rollout.summary;
    let mut page = Page(String::new());
    page.put("id", &summary.id.to_string());
    page.put("rollout", &summary.name);
    page.put("state", summary.state.as_str());
    if let Some(why) = &summary.why {
        page.put("why", why);
    }
    page.put("by", &summary.by);
    page.times(summary.created_at, summary.finished_at, now);
    let budget = &rollout.budget;
    let (failed, max, busy) = (budget.failed, budget.max, budget.in_flight);
    page.put("budget", &format!("{failed} of {max} failed, {busy} under way"));
    if let Some(rehearsal) = &rollout.rehearsal {
        page.put("rehearsal", &format!("{} on {}", rehearsal.state.as_str(), rehearsal.host));
    }
    if let Some(until) = rollout.soaks_until {
        page.put("soaks", &format!("until {until} ({})", ago(until, now)));
    }
    let (waves, hosts) = (&rollout.waves, &rollout.hosts);
    format!("{}\n{}\n{}", page.0, render(waves, true, now), render(hosts, true, now))
}

/// A runbook on a page of its own.
pub(crate) fn runbook_page(runbook: &Runbook, now: Timestamp) -> String {
    let summary = &runbook.summary;
    let mut page = Page(String::new());
    page.put("id", &summary.id.to_string());
    page.put("runbook", &summary.title);
    page.put("state", summary.state.as_str());
    if let Some(why) = &summary.why {
        page.put("why", why);
    }
    page.put("by", &summary.by);
    page.times(summary.created_at, summary.finished_at, now);
    if !runbook.rehearsed {
        page.put("undo", "unrehearsed: no undo of this text has ever run");
    }
    format!("{}\n{}", page.0, render(&runbook.steps, false, now))
}
