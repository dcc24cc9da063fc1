//! What a node does on hosts: the run that is begun, and what its end amounts to.

use std::collections::BTreeMap;

use fw_proto::api::{self, Offline, RunState};
use fw_proto::{Incarnation, RunId, Span};

use super::event::Kind;
use super::next::{Begin, Stop};
use super::part::Part;
use super::plan::Work;
use super::state::{Change, Way};
use crate::plan::{self, Chosen, Exec, Limits};

impl Change {
    /// What a node does on hosts, or what takes it back.
    #[must_use]
    pub fn work(&self, begin: &Begin) -> Option<&Work> {
        let node = usize::try_from(begin.node).ok().and_then(|at| self.plan.nodes.get(at))?;
        match begin.way {
            Way::Do => node.work(),
            Way::Undo => node.undo.as_ref().map(|undo| &*undo.work),
        }
    }

    /// The plan of a run. `exec` is the command of its work with all values in it, `life` that of the store in
    /// which the run was announced. A host is lost after `lost_after` of silence.
    #[must_use]
    pub fn run_plan(
        &self,
        begin: &Begin,
        exec: Exec,
        life: Incarnation,
        lost_after: Span,
    ) -> Option<plan::Plan> {
        let work = self.work(begin)?;
        let chosen: BTreeMap<_, _> = work.hosts.iter().map(|host| (host.id, host)).collect();
        let hosts = begin.hosts.iter().filter_map(|host| chosen.get(host).copied());
        // Who waits for a host an hour wants it to start then, too.
        let start_within = match work.offline {
            Offline::Wait(wait) => work.start_within.max(wait),
            Offline::Fail | Offline::Skip => work.start_within,
        };
        Some(plan::Plan {
            exec,
            selector: work.selector.clone(),
            hosts: hosts.map(Chosen::clone).collect(),
            limits: Limits {
                start_within,
                offline: work.offline,
                parallel: work.parallel,
                max_failures: begin.max_failures,
                spread: None,
                lost_after,
            },
            origin: plan::Origin { job: None, retry_of: None, change: Some(self.id) },
            retries: None,
            incarnation: life,
        })
    }
}

impl Begin {
    /// The end of a run that was announced and is not begun any more.
    #[must_use]
    pub fn never(&self, run: RunId, part: Part) -> Kind {
        self.end(run, |_| part, false)
    }

    /// The end of a run. `expected` is what [`judge`](super::judge) says of each task, in their order; `stopped`
    /// what the change itself has cancelled of it.
    #[must_use]
    pub fn ended(&self, run: &api::Run, expected: &[Option<bool>], stopped: Stop) -> Kind {
        // A run's tasks are in the order of its plan, which has the hosts in this order.
        let part = |at: usize| {
            let expected = expected.get(at).copied().flatten();
            run.tasks.get(at).map_or(Part::Unknown, |task| Part::of(task, expected))
        };
        let cancelled = run.summary.state == RunState::Cancelled && stopped == Stop::Nothing;
        self.end(run.summary.id, part, cancelled)
    }

    fn end(&self, run: RunId, part: impl Fn(usize) -> Part, cancelled: bool) -> Kind {
        let parts = self.hosts.iter().enumerate().map(|(at, host)| (*host, part(at))).collect();
        let Self { node, way, .. } = *self;
        Kind::Ended { node, way, run, parts, cancelled }
    }
}
