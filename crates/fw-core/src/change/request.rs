//! What a person may ask of a change.

use fw_proto::api::Role;

use super::event::Kind;
use super::plan::Act;
use super::state::{Cause, Change, Course, Stand};
use crate::run::Actor;

/// What a person wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Begin nothing more for now.
    Pause,
    /// Go on; what failed is tried again.
    Resume,
    /// End it; what is done stays.
    Abort,
    /// Take it back.
    Undo,
    /// The gate that waits may be passed.
    Approve,
    /// What the node asks of a person is done, or the step that asks may run.
    Pass {
        /// The node by its id.
        node: String,
        /// What they want to say.
        note: Option<String>,
    },
    /// Go on without the node that waits for a person, or has failed.
    Skip {
        /// The node by its id.
        node: String,
        /// Why.
        note: Option<String>,
    },
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It has ended.
    #[error("it has ended; begin a new one")]
    Ended,
    /// It is paused.
    #[error("it is paused already")]
    Paused,
    /// It is not paused.
    #[error("it is not paused")]
    NotPaused,
    /// It is on its way to its end or back.
    #[error("it is being ended; wait until it has")]
    Ending,
    /// It is being taken back, or was.
    #[error("it is being taken back or was; an undo cannot be undone")]
    Undoing,
    /// Nothing in it can be taken back.
    #[error("nothing in it says how it is taken back; begin another one that does")]
    NoUndo,
    /// No gate waits for an approval.
    #[error("it does not wait for an approval")]
    NoGate,
    /// Two people are asked, and this is the one who began it.
    #[error("whoever began it cannot approve when {0} people are asked; ask somebody else")]
    OwnChange(u32),
    /// Two people are asked, and a token is nobody.
    #[error("{0} people are asked, and a token is no person; sign in to approve")]
    NotAPerson(u32),
    /// The role is not enough.
    #[error("an approval takes the role {0}")]
    Role(Role),
    /// This person has approved.
    #[error("you have approved it already; somebody else has to as well")]
    Again,
    /// It is not this node's turn.
    #[error("step {0:?} does not wait for a person")]
    NotItsTurn(String),
}

impl Change {
    /// What a person wants, as the event to record.
    ///
    /// # Errors
    /// It cannot be, and why.
    pub fn ask(&self, request: &Request, by: &Actor, role: Role) -> Result<Kind, Refused> {
        match request {
            Request::Pause => self.may_pause(),
            Request::Resume => self.may_resume(),
            Request::Abort => self.is_forward().map(|()| Kind::AbortRequested),
            Request::Undo => self.may_undo(),
            Request::Approve => self.may_approve(by, role),
            Request::Pass { node, note } => self.may_pass(node, note.clone()),
            Request::Skip { node, note } => self.may_skip(node, note.clone()),
        }
    }

    fn is_forward(&self) -> Result<(), Refused> {
        match self.course {
            Course::Forward => Ok(()),
            Course::Aborting => Err(Refused::Ending),
            Course::Undoing => Err(Refused::Undoing),
            Course::Succeeded | Course::Failed | Course::Undone | Course::UndoFailed => {
                Err(Refused::Ended)
            }
        }
    }

    fn may_pause(&self) -> Result<Kind, Refused> {
        self.is_forward()?;
        if self.pause.is_some() { Err(Refused::Paused) } else { Ok(Kind::PauseRequested) }
    }

    fn may_resume(&self) -> Result<Kind, Refused> {
        self.is_forward()?;
        self.pause.as_ref().map(|_| Kind::Resumed).ok_or(Refused::NotPaused)
    }

    fn may_undo(&self) -> Result<Kind, Refused> {
        match self.course {
            Course::Forward | Course::Aborting | Course::Succeeded | Course::Failed => {
                let can = self.plan.nodes.iter().any(|node| node.undo.is_some());
                if can { Ok(Kind::UndoRequested) } else { Err(Refused::NoUndo) }
            }
            Course::Undoing | Course::Undone | Course::UndoFailed => Err(Refused::Undoing),
        }
    }

    fn may_approve(&self, by: &Actor, role: Role) -> Result<Kind, Refused> {
        self.is_forward()?;
        let (Some(node), Some(progress), Ok(at)) =
            (self.plan.nodes.get(self.at), self.nodes.get(self.at), u32::try_from(self.at))
        else {
            return Err(Refused::NoGate);
        };
        let Act::Approve(gate) = &node.act else { return Err(Refused::NoGate) };
        if progress.stand != Stand::Open || self.pause.is_some() {
            return Err(Refused::NoGate);
        }
        if role < gate.by {
            return Err(Refused::Role(gate.by));
        }
        if gate.people > 1 && !matches!(by, Actor::User(_)) {
            return Err(Refused::NotAPerson(gate.people));
        }
        if gate.people > 1 && *by == self.by {
            return Err(Refused::OwnChange(gate.people));
        }
        if progress.approvals.iter().any(|(who, _)| who == by) {
            return Err(Refused::Again);
        }
        Ok(Kind::Approved { node: at })
    }

    fn may_pass(&self, id: &str, note: Option<String>) -> Result<Kind, Refused> {
        self.is_forward()?;
        let not = || Refused::NotItsTurn(id.to_owned());
        let node = self.plan.nodes.get(self.at).filter(|node| node.id == id).ok_or_else(not)?;
        let open = self.nodes.get(self.at).is_some_and(|one| one.stand == Stand::Open);
        let asks = match &node.act {
            Act::Tick | Act::Confirm => open && self.pause.is_none(),
            Act::Exec(_) | Act::Wait(_) | Act::Approve(_) | Act::Window(_) => false,
        };
        let at = u32::try_from(self.at).map_err(|_| not())?;
        if asks { Ok(Kind::Passed { node: at, note }) } else { Err(not()) }
    }

    fn may_skip(&self, id: &str, note: Option<String>) -> Result<Kind, Refused> {
        self.is_forward()?;
        let not = || Refused::NotItsTurn(id.to_owned());
        let node = self.plan.nodes.get(self.at).filter(|node| node.id == id).ok_or_else(not)?;
        let at = u32::try_from(self.at).map_err(|_| not())?;
        let open = self.nodes.get(self.at).is_some_and(|one| one.stand == Stand::Open);
        let failed = self.pause.as_ref().is_some_and(|pause| pause.cause == Cause::Failed(at));
        let may = match &node.act {
            Act::Tick | Act::Confirm => open && self.pause.is_none(),
            Act::Exec(_) => failed,
            Act::Wait(_) | Act::Approve(_) | Act::Window(_) => false,
        };
        if may && self.open_try().is_none() {
            Ok(Kind::Skipped { node: at, note })
        } else {
            Err(not())
        }
    }
}
