//! What happens in a run, as an event stream: first how it stands, then what changes, then its end.
//!
//! The hub publishes a change before it answers later questions. So when the answer with the present state is
//! here, every change before it waits in the channel already: these are folded into that state, and what
//! comes after is news. Nothing is missed, and nothing goes back.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use fw_core::access::Action;
use fw_proto::RunId;
use fw_proto::api::{self, RunEvent};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::run;
use crate::auth::Caller;
use crate::extract::Path;
use crate::live::RunChange;
use crate::problem::{Failure, Result};
use crate::sse::{self, Ended, Gone, LastEventId, Out};
use crate::state::App;

/// Changes are hints: this often the present state is looked at without one.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Follows a run: `run` and `task` events, and `end` with the run when it has ended.
///
/// Each has the id `RUN/NUMBER`, with the number of the run's event that it shows. A client that comes back with the header
/// `Last-Event-ID` gets the present state, or nothing when that is what it has seen.
#[utoipa::path(get, path = "/runs/{id}/events", tag = "runs", operation_id = "runs_events",
    params(("id" = RunId, Path), ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event seen.")),
    responses((status = 200, body = RunEvent, content_type = "text/event-stream")))]
pub(super) async fn events(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<RunId>,
    last: LastEventId,
) -> Result<Response> {
    let seen = last.0.as_deref().map(|text| parse(id, text)).transpose()?;
    // Before the stream begins, so that what is not there is a 404.
    run::read(&app, id).await?;
    run::within(&app, &caller, Action::See, id).await?;
    let following = app.clone();
    Ok(sse::respond(&app, caller, move |out| async move {
        let follower = Follower { app: following, id, out, seen };
        if let Err(Ended::Failed(error)) = follower.follow().await {
            tracing::debug!(run.id = %id, error = %error.into_problem(), "run events ended");
        }
    }))
}

fn parse(id: RunId, text: &str) -> Result<u64> {
    let number = text.split_once('/').filter(|(run, _)| *run == id.to_string());
    let number = number.and_then(|(_, number)| number.parse().ok());
    number.ok_or_else(|| {
        Failure::invalid(format!(
            "Last-Event-ID: give an id of this stream, {id}/NUMBER, or leave it out"
        ))
    })
}

struct Follower {
    app: App,
    id: RunId,
    out: Out,
    /// The number of the state that the client has seen.
    seen: Option<u64>,
}

/// A run, and the number of its event that this is the state after; 0 when no change has told it.
struct Snapshot {
    run: api::Run,
    seq: u64,
}

impl Follower {
    async fn follow(mut self) -> std::result::Result<(), Ended> {
        let mut changes = self.app.live.runs();
        loop {
            let Some(snapshot) = self.snapshot(&mut changes).await? else { continue };
            self.show(&snapshot).await?;
            if snapshot.run.summary.state.is_final() {
                return self.end(snapshot.run.summary, snapshot.seq).await;
            }
            if self.news(&mut changes).await? == News::Ended {
                return Ok(());
            }
        }
    }

    /// How the run stands; `None` when so much came meanwhile that it must be asked again.
    async fn snapshot(&self, changes: &mut Receiver<Arc<RunChange>>) -> Result<Option<Snapshot>> {
        let run = run::read(&self.app, self.id).await?;
        let mut snapshot = Snapshot { run, seq: 0 };
        loop {
            match changes.try_recv() {
                Ok(change) if change.summary.id == self.id => snapshot.fold(&change),
                Ok(_) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return Ok(Some(snapshot)),
                Err(TryRecvError::Lagged(_)) => return Ok(None),
            }
        }
    }

    async fn show(&mut self, snapshot: &Snapshot) -> std::result::Result<(), Ended> {
        if self.seen.take().is_some_and(|seen| seen == snapshot.seq && seen > 0) {
            return Ok(());
        }
        self.send_run(&snapshot.run.summary, snapshot.seq).await?;
        for task in &snapshot.run.tasks {
            self.send_task(task, snapshot.seq).await?;
        }
        Ok(())
    }

    /// Sends what changes, until that is the end, or too much was missed.
    async fn news(
        &mut self,
        changes: &mut Receiver<Arc<RunChange>>,
    ) -> std::result::Result<News, Ended> {
        loop {
            let change = tokio::select! {
                change = changes.recv() => change,
                _ = self.out.gone() => return Err(Ended::Gone),
                () = tokio::time::sleep(LOOK_EVERY) => return Ok(News::LookAgain),
            };
            match change {
                Ok(change) if change.summary.id == self.id => {
                    for task in &change.tasks {
                        self.send_task(task, change.seq).await?;
                    }
                    self.send_run(&change.summary, change.seq).await?;
                    if change.summary.state.is_final() {
                        self.end(change.summary.clone(), change.seq).await?;
                        return Ok(News::Ended);
                    }
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => return Ok(News::LookAgain),
                Err(RecvError::Closed) => return Err(Ended::Gone),
            }
        }
    }

    async fn end(&self, run: api::RunSummary, seq: u64) -> std::result::Result<(), Ended> {
        Ok(self.out.send("end", Some(self.event_id(seq)), &RunEvent::Run(run)).await?)
    }

    async fn send_run(&self, run: &api::RunSummary, seq: u64) -> std::result::Result<(), Gone> {
        self.out.send("run", Some(self.event_id(seq)), &RunEvent::Run(run.clone())).await
    }

    async fn send_task(&self, task: &api::Task, seq: u64) -> std::result::Result<(), Gone> {
        self.out.send("task", Some(self.event_id(seq)), &RunEvent::Task(task.clone())).await
    }

    fn event_id(&self, seq: u64) -> String {
        format!("{}/{seq}", self.id)
    }
}

#[derive(PartialEq, Eq)]
enum News {
    /// The end was sent.
    Ended,
    /// The present state is to be asked for.
    LookAgain,
}

impl Snapshot {
    fn fold(&mut self, change: &RunChange) {
        self.seq = change.seq;
        self.run.summary = change.summary.clone();
        for changed in &change.tasks {
            if let Some(task) = self.run.tasks.iter_mut().find(|task| task.host == changed.host) {
                *task = changed.clone();
            }
        }
    }
}
