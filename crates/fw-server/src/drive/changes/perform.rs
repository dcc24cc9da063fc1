//! Runs of changes: begun, watched, cancelled, and what their ends amount to.

use std::collections::BTreeMap;

use fw_core::change::{Begin, Change, Kind, Part, Stop, Way, Work, judge};
use fw_core::plan::{Chosen, Exec, Limits, Origin, Plan};
use fw_core::run::Actor;
use fw_core::runbook::Expect;
use fw_proto::api::{self, Offline, RunState};
use fw_proto::{ChangeId, HostId, Incarnation, RunId, Span};

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
        let never = |part| {
            let parts = begin.hosts.iter().map(|host| (*host, part)).collect();
            let Begin { node, way, .. } = *begin;
            Ok(Some(Kind::Ended { node, way, run, parts, cancelled: false }))
        };
        if stop != Stop::Nothing {
            return never(Part::NotBegun);
        }
        let Ok(exec) = self.exec(id, begin).await? else { return never(Part::Refused) };
        let Some((held, work)) =
            self.held(id).and_then(|held| Some((held, work(&held.change, begin)?)))
        else {
            return never(Part::Refused);
        };
        let plan = run_plan(id, begin, work, exec, held.life, self.parts.lost_after);
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
        let Begin { node, way, ref hosts, .. } = *begin;
        let run = report.summary.id;
        let held = self.held(id);
        let expect = held.and_then(|held| work(&held.change, begin)).and_then(|w| w.expect.clone());
        let mut parts = Vec::with_capacity(hosts.len());
        for (at, host) in hosts.iter().enumerate() {
            // A run's tasks are in the order of its plan, which has the hosts in this order.
            let part = match report.tasks.get(at) {
                Some(task) => {
                    let expected = self.expected(run, *host, task, expect.as_ref()).await?;
                    Part::of(task, expected)
                }
                None => Part::Unknown,
            };
            parts.push((*host, part));
        }
        let ours = held.and_then(|held| held.stopped).is_some_and(|(of, _)| of == run);
        let cancelled = report.summary.state == RunState::Cancelled && !ours;
        Ok(Kind::Ended { node, way, run, parts, cancelled })
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
            self.held(id).and_then(|held| Some((held, work(&held.change, begin)?)))
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

/// What a node does on hosts, or what takes it back.
fn work<'c>(change: &'c Change, begin: &Begin) -> Option<&'c Work> {
    let node = usize::try_from(begin.node).ok().and_then(|at| change.plan.nodes.get(at))?;
    match begin.way {
        Way::Do => node.work(),
        Way::Undo => node.undo.as_ref().map(|undo| &*undo.work),
    }
}

fn run_plan(
    id: ChangeId,
    begin: &Begin,
    work: &Work,
    exec: Exec,
    incarnation: Incarnation,
    lost_after: Span,
) -> Plan {
    let names: BTreeMap<_, _> = work.hosts.iter().map(|host| (host.id, &host.name)).collect();
    let chosen =
        |host: &HostId| names.get(host).map(|name| Chosen { id: *host, name: (*name).clone() });
    // Who waits for a host an hour wants it to start then, too.
    let start_within = match work.offline {
        Offline::Wait(wait) => work.start_within.max(wait),
        Offline::Fail | Offline::Skip => work.start_within,
    };
    Plan {
        exec,
        selector: work.selector.clone(),
        hosts: begin.hosts.iter().filter_map(chosen).collect(),
        limits: Limits {
            start_within,
            offline: work.offline,
            parallel: work.parallel,
            max_failures: begin.max_failures,
            spread: None,
            lost_after,
        },
        origin: Origin { job: None, retry_of: None, change: Some(id) },
        retries: None,
        incarnation,
    }
}
