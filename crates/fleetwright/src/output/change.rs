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
            self.begun_by(),
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
            self.begun_by(),
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
            self.done_by().unwrap_or_default(),
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
    page.put("by", &summary.begun_by());
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
    page.put("by", &summary.begun_by());
    page.times(summary.created_at, summary.finished_at, now);
    if !runbook.rehearsed {
        page.put("undo", "unrehearsed: no undo of this text has ever succeeded");
    }
    format!("{}\n{}", page.0, render(&runbook.steps, false, now))
}

#[cfg(test)]
mod tests {
    use fw_proto::api::{ActorKind, ChangeState, StepState};
    use uuid::Uuid;

    use super::super::{Format, list};
    use super::*;

    fn runbook(by: &str, by_kind: ActorKind) -> RunbookSummary {
        RunbookSummary {
            id: fw_proto::ChangeId(Uuid::nil()),
            title: "Move".to_owned(),
            state: ChangeState::Succeeded,
            why: None,
            by: by.to_owned(),
            by_kind: Some(by_kind),
            created_at: Timestamp::EPOCH,
            finished_at: Some(Timestamp::from_millis(61_000)),
        }
    }

    fn step(by: Option<(&str, ActorKind)>) -> RunbookStep {
        RunbookStep {
            id: "look".to_owned(),
            line: Some(7),
            kind: "manual".to_owned(),
            title: "Look".to_owned(),
            phase: None,
            state: if by.is_some() { StepState::Done } else { StepState::AwaitingPerson },
            hosts: Vec::new(),
            failed: Vec::new(),
            output_run: None,
            runs: Vec::new(),
            undo_run: None,
            has_undo: false,
            by: by.map(|(by, _)| by.to_owned()),
            by_kind: by.map(|(_, kind)| kind),
            started_at: Some(Timestamp::EPOCH),
            finished_at: by.map(|_| Timestamp::from_millis(2000)),
            gate: None,
            note: None,
        }
    }

    #[test]
    fn a_token_is_told_from_a_person_of_the_same_name() {
        let now = Timestamp::from_millis(120_000);
        let runbooks = [runbook("ada", ActorKind::Token), runbook("ada", ActorKind::User)];
        insta::assert_snapshot!(list(&runbooks, Format::Table, now).unwrap(), @r"
            ID                                    TITLE  STATE      BY         CREATED  WHY
            00000000-0000-0000-0000-000000000000  Move   succeeded  token:ada  2m ago   -
            00000000-0000-0000-0000-000000000000  Move   succeeded  ada        2m ago   -
            ");
        let [summary, _] = runbooks;
        let steps = [Some(ActorKind::Token), Some(ActorKind::User), None];
        let runbook = Runbook {
            summary,
            rehearsed: true,
            phases: Vec::new(),
            steps: steps.map(|kind| step(kind.map(|kind| ("ada", kind)))).to_vec(),
            source: String::new(),
        };
        insta::assert_snapshot!(runbook_page(&runbook, now), @r"
            id        00000000-0000-0000-0000-000000000000
            runbook   Move
            state     succeeded
            by        token:ada
            begun     1970-01-01T00:00:00.000Z (2m ago)
            finished  1970-01-01T00:01:01.000Z (took 1m 1s)

            LINE  STEP  KIND    STATE            BY         TOOK  TITLE  NOTE
               7  look  manual  done             token:ada  2.0s  Look   -
               7  look  manual  done             ada        2.0s  Look   -
               7  look  manual  awaiting_person  -             -  Look   -
            ");
    }
}
