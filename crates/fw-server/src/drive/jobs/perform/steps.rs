//! The order in which verdicts are recorded and runs begin.

use std::collections::BTreeMap;

use fw_proto::JobName;
use fw_store::NewFire;

use super::Ready;

/// What is done in one go: first the rows, then all runs at once.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) rows: Vec<NewFire>,
    pub(super) begins: Vec<Ready>,
}

/// Steps in which no row of a job comes before a run of it that was due earlier.
#[derive(Default)]
pub(super) struct Steps {
    pub(super) steps: Vec<Step>,
    /// Where each job has come to, and whether it begins a run there.
    at: BTreeMap<JobName, (usize, bool)>,
}

impl Steps {
    pub(super) fn row(&mut self, row: NewFire) {
        let (at, begins) = self.at.get(&row.job).copied().unwrap_or_default();
        let at = if begins { at + 1 } else { at };
        self.at.insert(row.job.clone(), (at, false));
        self.step(at).rows.push(row);
    }

    pub(super) fn begin(&mut self, ready: Ready) {
        let name = &ready.due.job.name;
        let (at, _) = self.at.get(name).copied().unwrap_or_default();
        self.at.insert(name.clone(), (at, true));
        self.step(at).begins.push(ready);
    }

    fn step(&mut self, at: usize) -> &mut Step {
        if self.steps.len() <= at {
            self.steps.resize_with(at + 1, Step::default);
        }
        self.steps.get_mut(at).expect("grown above")
    }
}
