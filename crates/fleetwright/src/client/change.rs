//! Rollouts and runbooks.

use fw_proto::ChangeId;
use fw_proto::api::{
    ChangeBegun, ChangeVerb, NewRunbook, ReportFormat, Rollout, RolloutPlan, RolloutSummary,
    RolloutText, Runbook, RunbookRehearsal, RunbookSummary, RunbookText, StepNote, StepVerb,
};
use reqwest::Method;

use super::{Client, Result};

impl Client {
    /// What a rollout would do.
    pub(crate) async fn plan_rollout(&self, text: &RolloutText) -> Result<RolloutPlan> {
        self.post(&["rollouts", "plan"], text).await
    }

    /// Begins a rollout.
    pub(crate) async fn begin_rollout(&self, text: &RolloutText) -> Result<ChangeBegun> {
        self.post(&["rollouts"], text).await
    }

    /// Rollouts, newest first.
    pub(crate) async fn rollouts(&self, limit: Option<usize>) -> Result<Vec<RolloutSummary>> {
        self.list(&["rollouts"], &[], limit).await
    }

    /// One rollout.
    pub(crate) async fn rollout(&self, id: ChangeId) -> Result<Rollout> {
        self.get(&["rollouts", &id.to_string()]).await
    }

    /// Wants something of a rollout.
    pub(crate) async fn ask_rollout(&self, id: ChangeId, verb: ChangeVerb) -> Result<Rollout> {
        let path = ["rollouts", &id.to_string(), verb.as_str()];
        self.json(self.request(Method::POST, &path)).await
    }

    /// Begins a runbook.
    pub(crate) async fn begin_runbook(&self, new: &NewRunbook) -> Result<ChangeBegun> {
        self.post(&["runbooks"], new).await
    }

    /// What is known of the undo of a text.
    pub(crate) async fn rehearsal(&self, text: &RunbookText) -> Result<RunbookRehearsal> {
        self.post(&["runbooks", "rehearsal"], text).await
    }

    /// Runbooks that were begun, newest first.
    pub(crate) async fn runbooks(&self, limit: Option<usize>) -> Result<Vec<RunbookSummary>> {
        self.list(&["runbooks"], &[], limit).await
    }

    /// One of them.
    pub(crate) async fn runbook(&self, id: ChangeId) -> Result<Runbook> {
        self.get(&["runbooks", &id.to_string()]).await
    }

    /// The record of a runbook.
    pub(crate) async fn runbook_report(
        &self,
        id: ChangeId,
        format: ReportFormat,
    ) -> Result<String> {
        let path = ["runbooks", &id.to_string(), "report"];
        let query = [("format", format.as_str().to_owned())];
        self.body(self.request_with(Method::GET, &path, &query)).await
    }

    /// Wants something of a runbook.
    pub(crate) async fn ask_runbook(&self, id: ChangeId, verb: ChangeVerb) -> Result<Runbook> {
        let path = ["runbooks", &id.to_string(), verb.as_str()];
        self.json(self.request(Method::POST, &path)).await
    }

    /// Says something of a step that waits for a person.
    pub(crate) async fn say_of_step(
        &self,
        id: ChangeId,
        step: &str,
        verb: StepVerb,
        note: &StepNote,
    ) -> Result<Runbook> {
        self.post(&["runbooks", &id.to_string(), "steps", step, verb.as_str()], note).await
    }
}
