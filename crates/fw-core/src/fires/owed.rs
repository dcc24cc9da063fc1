//! Stretches of time whose fires are lost: how many there were, and which are to be caught up.
//!
//! A stretch is counted by its ends, never fire by fire: a job that is due each second owes some
//! thirty million fires after a year. Only those that are caught up are looked at one by one.

use std::collections::BTreeMap;
use std::sync::Arc;

use fw_proto::api::{FireReason, Verdict};
use fw_proto::{JobName, Span, Timestamp};

use super::decision::{Decision, push};
use super::{CatchUp, Job};
use crate::calendar::Calendar;
use crate::maintenance::{Spans, Stretch};
use crate::schedule::{self, Schedule};

/// A stretch of time whose fires are known to be lost, but not yet counted.
#[derive(Debug, Clone)]
pub(super) struct Owed {
    schedule: Schedule,
    calendar: Option<Arc<Calendar>>,
    after: Timestamp,
    until: Timestamp,
    verdict: Verdict,
    reason: FireReason,
    catch_up: CatchUp,
}

/// A part of it in which the calendar says the same of all fires.
struct Piece {
    after: Timestamp,
    until: Timestamp,
    refused: Option<FireReason>,
}

/// What is longer ago is counted as if there were no calendar: its days are cut one by one.
const LONGEST_LOOK: Span = Span::from_secs(3 * 366 * 24 * 60 * 60);

impl Owed {
    /// The fires of a stretch, which a pause, a maintenance or else `lost` keeps from running.
    pub(super) fn all(
        job: &Job,
        (after, until): (Timestamp, Timestamp),
        paused: bool,
        held: &Spans,
        lost: FireReason,
    ) -> Vec<Self> {
        if paused {
            return vec![Self::new(job, (after, until), Some(FireReason::Paused), lost)];
        }
        let owed = |stretch: Stretch| {
            let refused = stretch.held.then_some(FireReason::Maintenance);
            Self::new(job, (stretch.after, stretch.until), refused, lost)
        };
        held.cut(after, until).into_iter().map(owed).collect()
    }

    fn new(
        job: &Job,
        (after, until): (Timestamp, Timestamp),
        refused: Option<FireReason>,
        lost: FireReason,
    ) -> Self {
        let (verdict, reason, catch_up) = match refused {
            Some(refused) => (Verdict::Skipped, refused, CatchUp::NONE),
            None => (Verdict::Missed, lost, job.catch_up),
        };
        let (schedule, calendar) = (job.schedule.clone(), job.calendar.clone());
        Self { schedule, calendar, after, until, verdict, reason, catch_up }
    }

    /// Decides the stretch. What is to be caught up is `Pending` and comes to `behind`, which holds
    /// at most so many: the oldest give way.
    pub(super) fn settle(
        self,
        name: &JobName,
        behind: &mut BTreeMap<Timestamp, FireReason>,
        out: &mut Vec<Decision>,
    ) {
        let pieces = self.pieces();
        let kept = self.kept(&pieces);
        let most = self.catch_up.most as usize;
        while !kept.is_empty() && behind.len() + kept.len() > most {
            let Some((oldest, reason)) = behind.pop_first() else { break };
            out.push(Decision::last(name, oldest, Verdict::Missed, Some(reason)));
        }
        let mut kept = kept.into_iter().peekable();
        for Piece { after, until, refused } in pieces {
            let (verdict, reason) = match refused {
                Some(reason) => (Verdict::Skipped, reason),
                None => (self.verdict, self.reason),
            };
            let first = kept.peek().copied().filter(|first| *first <= until && refused.is_none());
            let lost_until = first.map_or(until, |first| first - Span::from_millis(1));
            if let Some(tally) = self.schedule.tally(after, lost_until) {
                let schedule::Tally { from, to, count } = tally;
                let (job, reason) = (name.clone(), Some(reason));
                push(out, Decision { job, verdict, reason, from, to, count, waited: false });
            }
            while first.is_some()
                && let Some(nominal) = kept.next_if(|nominal| *nominal <= until)
            {
                let fire = schedule::Fire { nominal, dst_gap: false };
                out.push(Decision::new(name, fire, Verdict::Pending, Some(reason)));
                behind.insert(nominal, reason);
            }
        }
    }

    /// The stretch, cut where the calendar changes its mind; pieces without a fire are left out.
    fn pieces(&self) -> Vec<Piece> {
        let whole = Piece { after: self.after, until: self.until, refused: None };
        // A pause or a maintenance keeps all of them from running, whatever the calendar says.
        let lost = self.verdict == Verdict::Missed;
        let Some(calendar) = self.calendar.as_deref().filter(|_| lost) else { return vec![whole] };
        let mut pieces = Vec::new();
        let mut after = self.after.max(self.until - LONGEST_LOOK);
        if self.after < after {
            pieces.push(Piece { until: after, ..whole });
        }
        while let Some(fire) = self.schedule.next_after(after).map(|fire| fire.nominal)
            && fire <= self.until
        {
            let refused = calendar.refuses(fire);
            let end = calendar.same_until(fire).map(|end| end - Span::from_millis(1));
            let until = end.map_or(self.until, |end| end.min(self.until));
            pieces.push(Piece { after, until, refused });
            after = until;
        }
        pieces
    }

    /// The instants that are to be caught up: the last ones, oldest first.
    fn kept(&self, pieces: &[Piece]) -> Vec<Timestamp> {
        let mut most = self.catch_up.most as usize;
        let begin = self.after.max(self.until - self.catch_up.within);
        let mut kept = Vec::new();
        for piece in pieces.iter().rev().filter(|piece| piece.refused.is_none()) {
            let earliest = piece.after.max(begin);
            if most == 0 || earliest >= piece.until {
                break;
            }
            let last = self.schedule.last(most as u64, earliest, piece.until);
            most = most.saturating_sub(last.len());
            kept.extend(last.into_iter().rev().map(|fire| fire.nominal));
        }
        kept.reverse();
        kept
    }
}
