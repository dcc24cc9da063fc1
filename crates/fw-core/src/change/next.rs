//! What is due of a change.

use fw_proto::{HostId, RunId, Span, Timestamp};

use super::event::Kind;
use super::plan::{Act, Windows};
use super::state::{Change, Course, Progress, Stand, Way};
use crate::calendar::Calendar;

/// What is due. The shell asks again after each event, and when [`Next::Until`] has come.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// A run is to begin: first [`Kind::Began`] is committed, then the run.
    Begin(Begin),
    /// A run goes on. If there is none of that id, the server was killed before it began, and it is
    /// to begin now; when it has ended, that is recorded.
    Watch {
        /// The run, and what it is for.
        begin: Begin,
        /// The run.
        run: RunId,
        /// What of it is to be cancelled.
        stop: Stop,
    },
    /// This is to be recorded.
    Record(Kind),
    /// Nothing before this.
    Until(Timestamp),
    /// Nothing before a person says something, or this has come.
    Person(Option<Timestamp>),
    /// Nothing any more.
    Ended,
}

/// A run that is to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// Which node, by its place in the plan.
    pub node: u32,
    /// To do it, or to take it back.
    pub way: Way,
    /// On these hosts, in this order.
    pub hosts: Vec<HostId>,
    /// At most so many of them may fail; `None`: all are to be served.
    pub max_failures: Option<u32>,
}

/// What of a run is to be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Nothing.
    Nothing,
    /// Hosts that were not sent the start.
    Rest,
    /// All of it.
    All,
}

impl Change {
    /// What is due at this instant.
    #[must_use]
    pub fn next(&self, now: Timestamp) -> Next {
        if let Some(watch) = self.watch() {
            return watch;
        }
        match self.course {
            Course::Succeeded
            | Course::Failed
            | Course::Undone
            | Course::UndoFailed
            // Ends with the run that goes on, and there is none.
            | Course::Aborting => Next::Ended,
            Course::Undoing => self.to_begin(Way::Undo).map_or(Next::Ended, Next::Begin),
            Course::Forward if self.pause.is_some() => Next::Person(None),
            Course::Forward => self.forward(now),
        }
    }

    fn watch(&self) -> Option<Next> {
        let (node, way, open) = self.open_try()?;
        let stop = match (way, self.course) {
            (Way::Undo, _) => Stop::Nothing,
            (Way::Do, Course::Aborting) => Stop::All,
            (Way::Do, Course::Forward) if self.pause.is_none() => Stop::Nothing,
            (Way::Do, _) => Stop::Rest,
        };
        let hosts = open.hosts.clone();
        let begin = Begin { node, way, hosts, max_failures: self.room(way) };
        Some(Next::Watch { begin, run: open.run, stop })
    }

    /// How many of a run's hosts may fail.
    fn room(&self, way: Way) -> Option<u32> {
        match way {
            Way::Do => self.plan.max_failures.map(|_| self.failures_left().max(1)),
            Way::Undo => None,
        }
    }

    fn to_begin(&self, way: Way) -> Option<Begin> {
        let hosts = match way {
            Way::Do => self.remaining(self.at),
            Way::Undo => self.to_undo(self.at),
        };
        let node = u32::try_from(self.at).ok()?;
        (!hosts.is_empty()).then(|| Begin { node, way, hosts, max_failures: self.room(way) })
    }

    fn forward(&self, now: Timestamp) -> Next {
        let (Some(node), Some(progress), Ok(at)) =
            (self.plan.nodes.get(self.at), self.nodes.get(self.at), u32::try_from(self.at))
        else {
            return Next::Ended;
        };
        let passed = || Next::Record(Kind::Passed { node: at, note: None });
        if let Act::Exec(_) = &node.act {
            // Nothing is left when all its hosts have failed before.
            return self.to_begin(Way::Do).map_or_else(passed, Next::Begin);
        }
        if progress.stand != Stand::Open {
            return Next::Record(Kind::Opened { node: at, until: opened_until(&node.act, now) });
        }
        match &node.act {
            Act::Exec(_) | Act::Tick | Act::Confirm => Next::Person(None),
            Act::Wait(_) => waited(progress, now).map_or_else(passed, Next::Until),
            Act::Approve(_) => match progress.until {
                Some(until) if until <= now => Next::Record(Kind::Expired { node: at }),
                until => Next::Person(until),
            },
            Act::Window(windows) => closed_until(windows, now).map_or_else(passed, Next::Until),
        }
    }
}

fn opened_until(act: &Act, now: Timestamp) -> Option<Timestamp> {
    match act {
        Act::Wait(span) => Some(now + *span),
        Act::Approve(gate) => gate.expires.map(|expires| now + expires),
        Act::Window(windows) => windows.open_at(now),
        Act::Exec(_) | Act::Tick | Act::Confirm => None,
    }
}

fn waited(progress: &Progress, now: Timestamp) -> Option<Timestamp> {
    progress.until.filter(|until| now < *until)
}

impl Windows {
    /// The instant at which they come; `None` when they have, or when none are near.
    #[must_use]
    pub fn open_at(&self, now: Timestamp) -> Option<Timestamp> {
        let calendar = Calendar::parse(&[], &self.windows, &self.timezone).ok().flatten()?;
        calendar.refuses(now)?;
        let changes =
            std::iter::successors(calendar.same_until(now), |at| calendar.same_until(*at));
        changes.take(MOST_CHANGES).find(|at| calendar.refuses(*at).is_none())
    }

    /// Whether a change may go on now.
    #[must_use]
    pub fn are_open(&self, now: Timestamp) -> bool {
        closed_until(self, now).is_none()
    }
}

/// Hours come back within a week; each day has a few changes.
const MOST_CHANGES: usize = 1000;

/// When to look at the hours again; `None` when they have come.
fn closed_until(hours: &Windows, now: Timestamp) -> Option<Timestamp> {
    let calendar = Calendar::parse(&[], &hours.windows, &hours.timezone).ok().flatten()?;
    calendar.refuses(now)?;
    Some(calendar.same_until(now).unwrap_or(now + LOOK_AGAIN))
}

/// Beyond the calendar's own reach, it is asked again after this.
const LOOK_AGAIN: Span = Span::from_secs(60);
