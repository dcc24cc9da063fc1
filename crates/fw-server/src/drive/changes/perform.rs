//! Runs of changes: begun, watched, cancelled, and what their ends amount to.

use std::collections::BTreeMap;

use fw_core::change::{Begin, Kind, Part, Stop, judge};
use fw_core::plan::Exec;
use fw_core::run::Actor;
use fw_core::runbook::Expect;
use fw_proto::api;
use fw_proto::{ChangeId, HostId, RunId};

use super::output;
use super::owner::{Error, Owner};
use crate::output::Task;
use crate::{hub, ids};

impl Owner {
    /// A run that is to begin, as the event to commit before it does.
    pub(super) async fn announce(&self, id: ChangeId, begin: Begin) -> Result<Kind, Error> {
        let Begin { node, way, hosts, .. } = begin.clone();
        Ok(match self.exec(id, &begin).await? {
            Ok(_) => {
                let run = RunId(ids::v7(self.parts.clock.now()));
                Kind::Began { node, way, run, hosts }
            }
            Err(why) => Kind::NotBegun { node, way, why },
        })
    }

    /// Looks at a run: begins it if it is nowhere, cancels of it what is to be cancelled. Gives its end, as
    /// the event to commit, when it has ended.
    pub(super) async fn watch(
        &mut self,
        id: ChangeId,
        begin: &Begin,
        run: RunId,
        stop: Stop,
    ) -> Result<Option<Kind>, Error> {
        if !self.parts.hub.summaries([run].into()).await?.is_empty() {
            self.stop(id, run, stop).await?;
            return Ok(None);
        }
        match self.parts.store.run(run).await? {
            Some(report) if report.summary.state.is_final() => {
                self.ended(id, begin, &report).await.map(Some)
            }
            // The hub reads it anew at this moment.
            Some(_) => Ok(None),
            None => self.begin_run(id, begin, run, stop).await,
        }
    }

    /// Begins a run that was announced. If it is to end already, or can be begun no more, its end is given
    /// instead.
    async fn begin_run(
        &self,
        id: ChangeId,
        begin: &Begin,
        run: RunId,
        stop: Stop,
    ) -> Result<Option<Kind>, Error> {
        if stop != Stop::Nothing {
            return Ok(Some(begin.never(run, Part::NotBegun)));
        }
        let (Ok(exec), Some(held)) = (self.exec(id, begin).await?, self.held(id)) else {
            return Ok(Some(begin.never(run, Part::Refused)));
        };
        let plan = held.change.run_plan(begin, exec, held.life, self.parts.lost_after);
        let Some(plan) = plan else { return Ok(Some(begin.never(run, Part::Refused))) };
        let by = held.change.by.clone();
        self.parts.hub.begin(hub::Begin { run, plan, by, fire: None }).await?;
        Ok(None)
    }

    /// Cancels of a run what is to be cancelled, once.
    async fn stop(&mut self, id: ChangeId, run: RunId, stop: Stop) -> Result<(), Error> {
        let Some(held) = self.held(id) else { return Ok(()) };
        if stop == Stop::Nothing || held.stopped == Some((run, stop)) {
            return Ok(());
        }
        let asked = held.change.pause.as_ref().map(|pause| pause.by.clone());
        let by = asked.unwrap_or(Actor::Server);
        if stop == Stop::All {
            self.parts.hub.cancel(run, by).await?;
        } else {
            self.parts.hub.cancel_unsent(run, by).await?;
        }
        self.stopped(id, run, stop);
        Ok(())
    }

    /// What the end of a run amounts to.
    async fn ended(&self, id: ChangeId, begin: &Begin, report: &api::Run) -> Result<Kind, Error> {
        let held = self.held(id);
        let expect = held.and_then(|held| held.change.work(begin)?.expect.as_ref());
        let mut expected = Vec::with_capacity(report.tasks.len());
        for (host, task) in begin.hosts.iter().zip(&report.tasks) {
            expected.push(self.expected(report.summary.id, *host, task, expect).await?);
        }
        let stopped = held.and_then(|held| held.stopped);
        let stopped = stopped.filter(|(of, _)| *of == report.summary.id);
        Ok(begin.ended(report, &expected, stopped.map_or(Stop::Nothing, |(_, stop)| stop)))
    }

    async fn expected(
        &self,
        run: RunId,
        host: HostId,
        task: &api::Task,
        expect: Option<&Expect>,
    ) -> Result<Option<bool>, Error> {
        let stdout = match expect {
            Some(Expect::Text(_) | Expect::Pattern(_)) => {
                let task = Task { run, host, attempt: task.attempt };
                output::to_judge(&self.parts.store, task).await?
            }
            Some(Expect::Exit(_)) | None => String::new(),
        };
        Ok(judge(expect, task.exit_code, &stdout))
    }

    /// The command of a node with all values in it, or why there is none.
    async fn exec(&self, id: ChangeId, begin: &Begin) -> Result<Result<Exec, String>, Error> {
        let Some((held, work)) =
            self.held(id).and_then(|held| Some((held, held.change.work(begin)?)))
        else {
            return Ok(Err("there is no such step".to_owned()));
        };
        let outputs = match &work.fill {
            None => Ok(BTreeMap::new()),
            Some(_) => {
                output::of_earlier(&self.parts.store, &held.change, begin.node, begin.way, work)
                    .await?
            }
        };
        Ok(outputs.and_then(|outputs| work.filled(&outputs)))
    }
}
