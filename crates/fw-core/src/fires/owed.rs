//! Stretches of time whose fires are lost: how many there were, and which are to be caught up.
//!
//! A stretch is counted by its ends, never fire by fire: a job that is due each second owes some
//! thirty million fires after a year. Only those that are caught up are looked at one by one.

use std::collections::BTreeMap;

use fw_proto::api::{FireReason, Verdict};
use fw_proto::{JobName, Span, Timestamp};

use super::decision::{Decision, push};
use super::{CatchUp, Job};
use crate::schedule::{self, Schedule};

/// A stretch of time whose fires are known to be lost, but not yet counted.
#[derive(Debug, Clone)]
pub(super) struct Owed {
    schedule: Schedule,
    after: Timestamp,
    until: Timestamp,
    verdict: Verdict,
    reason: FireReason,
    catch_up: CatchUp,
}

impl Owed {
    /// The fires of a stretch, which a pause or else `lost` keeps from running.
    pub(super) fn new(
        job: &Job,
        (after, until): (Timestamp, Timestamp),
        paused: bool,
        lost: FireReason,
    ) -> Self {
        let (verdict, reason, catch_up) = if paused {
            (Verdict::Skipped, FireReason::Paused, CatchUp::NONE)
        } else {
            (Verdict::Missed, lost, job.catch_up)
        };
        Self { schedule: job.schedule.clone(), after, until, verdict, reason, catch_up }
    }

    /// Decides the stretch. What is to be caught up is `Pending` and comes to `behind`, which holds
    /// at most so many: the oldest give way.
    pub(super) fn settle(
        self,
        name: &JobName,
        behind: &mut BTreeMap<Timestamp, FireReason>,
        out: &mut Vec<Decision>,
    ) {
        let kept = self.kept();
        let most = self.catch_up.most as usize;
        while !kept.is_empty() && behind.len() + kept.len() > most {
            let Some((oldest, reason)) = behind.pop_first() else { break };
            out.push(Decision::last(name, oldest, Verdict::Missed, Some(reason)));
        }
        let until = kept.first().map_or(self.until, |first| *first - Span::from_millis(1));
        let reason = Some(self.reason);
        if let Some(schedule::Tally { from, to, count }) = self.schedule.tally(self.after, until) {
            let (job, verdict) = (name.clone(), self.verdict);
            push(out, Decision { job, verdict, reason, from, to, count, waited: false });
        }
        for nominal in kept {
            let fire = schedule::Fire { nominal, dst_gap: false };
            out.push(Decision::new(name, fire, Verdict::Pending, reason));
            behind.insert(nominal, self.reason);
        }
    }

    /// The instants that are to be caught up: the last ones, oldest first.
    fn kept(&self) -> Vec<Timestamp> {
        let most = u64::from(self.catch_up.most);
        let earliest = self.after.max(self.until - self.catch_up.within);
        if most == 0 || earliest >= self.until {
            return Vec::new();
        }
        let after = self.last_with(earliest, most);
        let fires: Vec<_> =
            self.schedule.between(after, self.until).map(|fire| fire.nominal).collect();
        let surplus = fires.len().saturating_sub(self.catch_up.most as usize);
        fires.into_iter().skip(surplus).collect()
    }

    /// After which instant, `earliest` or later, there are just about `most` fires: halves the
    /// stretch until a second is left, in which lie few.
    fn last_with(&self, earliest: Timestamp, most: u64) -> Timestamp {
        let (mut low, mut high) = (earliest, self.until);
        while high.since(low) > Span::from_secs(1) {
            let middle = low + Span::from_millis(high.since(low).as_millis() / 2);
            if self.schedule.count(middle, self.until) >= most {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }
}
