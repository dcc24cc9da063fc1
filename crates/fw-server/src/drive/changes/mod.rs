//! Changes: rollouts and runbooks that were begun, and everything that happens in them by itself.
//!
//! One task (`owner`) holds all that have not ended, asks each what is next ([`Change::next`]) and does it:
//! an event is committed before anything comes of it. `perform` makes runs of nodes and hears how they ended,
//! `output` reads what they printed. Nothing is remembered here that the store does not say as well, so
//! whoever starts next goes on where this one was: a run that was announced and never begun is begun under
//! its id, and one that ended meanwhile is heard.
//!
//! The task is woken by the ends of runs, by requests and by time, and looks at the runs that it waits for
//! each second without a hint; a change that waits for a person costs nothing.

mod output;
mod owner;
mod perform;
#[cfg(test)]
mod tests;

use std::time::Duration;

use fw_core::change::{Change, Plan, Refused, Request};
use fw_core::run::Actor;
use fw_proto::api::{Code, Problem, Role};
use fw_proto::{ChangeId, Span};
use fw_rt::{Clock, Tasks};
use fw_store::Store;
use tokio::sync::{mpsc, oneshot};

use crate::live::Live;
use crate::{hub, ids};

/// Requests that may wait; whoever asks more waits.
const INBOX: usize = 256;

/// A request waits while the store cannot write. After so long whoever asked is told.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The most changes that have not ended: each is held in memory with its text and its hosts.
pub const MOST: usize = 1000;

/// What changes need.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Where events are committed.
    pub store: Store,
    /// Who begins runs.
    pub hub: hub::Handle,
    /// Where ends of runs are heard, and changes told.
    pub live: Live,
    /// The time of day.
    pub clock: Clock,
    /// After this silence of its host a started task is lost.
    pub lost_after: Span,
}

/// How others reach the changes. Clones ask the same task.
#[derive(Debug, Clone)]
pub struct Handle {
    inbox: mpsc::Sender<Message>,
    store: Store,
    clock: Clock,
}

type Reply<T> = oneshot::Sender<Result<T, Problem>>;

#[derive(Debug)]
enum Message {
    Start { id: ChangeId, plan: Box<Plan>, by: Actor, store: Store, reply: Reply<()> },
    Ask { id: ChangeId, request: Request, by: Actor, role: Role, store: Store, reply: Reply<()> },
}

/// Takes up the changes that have not ended, and starts the task that owns them.
///
/// # Errors
/// The store cannot be read.
pub async fn start(parts: Parts, tasks: &Tasks) -> Result<Handle, fw_store::Error> {
    let (inbox, messages) = mpsc::channel(INBOX);
    let (store, clock) = (parts.store.clone(), parts.clock.clone());
    let runs = parts.live.runs();
    let owner = owner::Owner::load(parts).await?;
    tasks.spawn("changes", owner.run(messages, runs));
    Ok(Handle { inbox, store, clock })
}

impl Handle {
    /// An id for a change that begins now. It sorts by time (RFC 9562, version 7).
    #[must_use]
    pub fn new_id(&self) -> ChangeId {
        ChangeId(ids::v7(self.clock.now()))
    }

    /// Begins a change; it is committed when this returns. `store` may carry a note for the audit.
    ///
    /// # Errors
    /// [`Code::Conflict`] when there are too many, [`Code::Unavailable`].
    pub async fn start(
        &self,
        id: ChangeId,
        plan: Plan,
        by: Actor,
        store: Store,
    ) -> Result<(), Problem> {
        let plan = Box::new(plan);
        self.send(|reply| Message::Start { id, plan, by, store, reply }).await
    }

    /// Does what a person wants of a change, if it can be; it is committed when this returns. `store` may
    /// carry a note for the audit.
    ///
    /// # Errors
    /// [`Code::NotFound`], [`Code::Conflict`] and [`Code::Forbidden`] with the reason,
    /// [`Code::Unavailable`].
    pub async fn ask(
        &self,
        id: ChangeId,
        request: Request,
        by: Actor,
        role: Role,
        store: Store,
    ) -> Result<(), Problem> {
        self.send(|reply| Message::Ask { id, request, by, role, store, reply }).await
    }

    /// A change as it is committed.
    ///
    /// # Errors
    /// What the store says.
    pub async fn get(&self, id: ChangeId) -> Result<Option<Change>, fw_store::Error> {
        Ok(self.store.change(id).await?.map(|stored| stored.change))
    }

    async fn send(&self, message: impl FnOnce(Reply<()>) -> Message) -> Result<(), Problem> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.inbox.send(message(reply)).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(ANSWER_WITHIN, asked).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => Err(unavailable("the server is stopping; try again when it is back")),
            Err(_) => Err(unavailable(
                "the store cannot write, see /readyz; the request waits and may still be granted",
            )),
        }
    }
}

fn unavailable(detail: &str) -> Problem {
    Problem::new(Code::Unavailable, "rollouts and runbooks cannot be changed").detail(detail)
}

fn missing(id: ChangeId) -> Problem {
    let detail = "`fleetwright rollouts list` and `fleetwright runbook list` show those that there \
                  are; old ones are removed in time";
    Problem::new(Code::NotFound, format!("no rollout or runbook {id}")).detail(detail)
}

fn refused(id: ChangeId, why: &Refused) -> Problem {
    let code = match why {
        Refused::OwnChange(_) | Refused::NotAPerson(_) | Refused::Role(_) => Code::Forbidden,
        Refused::Ended
        | Refused::Paused
        | Refused::NotPaused
        | Refused::Ending
        | Refused::Undoing
        | Refused::NoUndo
        | Refused::NoGate
        | Refused::Again
        | Refused::NotItsTurn(_) => Code::Conflict,
    };
    Problem::new(code, why.to_string()).detail(format!("it is about {id}"))
}
