//! How many fires of a job would come while its earlier run goes on, by how long runs took in the past.

use fw_proto::{Span, Timestamp};

/// Fires that are looked at.
pub const LOOKED_AT: usize = 100;

/// Of a hundred runs this many are no longer.
const PERCENT: usize = 95;

/// What is to be expected of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecast {
    /// The shortest time between two of its next fires.
    pub every: Span,
    /// Whether all of them are so far apart.
    pub regular: bool,
    /// How long runs took: 95 of 100 were no longer.
    pub took: Span,
    /// So many runs that is of.
    pub runs: usize,
    /// So many fires were looked at.
    pub fires: usize,
    /// Of those, how many come while the run before goes on.
    pub overlapping: usize,
}

/// Looks at the next fires of a job, each later than the one before; `None` when none overlaps, as far as is
/// known. A fire that comes while a run goes on begins none.
#[must_use]
pub fn forecast(fires: impl IntoIterator<Item = Timestamp>, past: &[Span]) -> Option<Forecast> {
    let took = p95(past)?;
    let fires: Vec<_> = fires.into_iter().take(LOOKED_AT).collect();
    let gaps: Vec<_> = fires.windows(2).filter_map(gap).collect();
    let (every, longest) = (gaps.iter().min()?, gaps.iter().max()?);
    let mut over: Option<Timestamp> = None;
    let mut overlapping = 0;
    for at in &fires {
        if over.is_some_and(|over| *at < over) {
            overlapping += 1;
        } else {
            over = Some(*at + took);
        }
    }
    (overlapping > 0).then_some(Forecast {
        every: *every,
        regular: every == longest,
        took,
        runs: past.len(),
        fires: fires.len(),
        overlapping,
    })
}

fn gap(two: &[Timestamp]) -> Option<Span> {
    match two {
        [one, other] => Some(other.since(*one)),
        [] | [_] | [_, _, _, ..] => None,
    }
}

/// The nearest rank: the shortest of them that so many are not longer than.
pub(crate) fn p95(past: &[Span]) -> Option<Span> {
    let mut sorted = past.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * PERCENT).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

impl std::fmt::Display for Forecast {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { every, regular, took, runs, fires, overlapping } = self;
        let often = if *regular { "every" } else { "as often as every" };
        write!(
            f,
            "fires {often} {every} and took {took} at p95 over its last {runs} runs: {overlapping} of its next {fires} fires would overlap"
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn each(secs: u64) -> impl Iterator<Item = Timestamp> {
        (1..).map(move |n| Timestamp::EPOCH + Span::from_secs(n * secs))
    }

    #[test]
    fn a_forecast_says_how_often_and_how_long() {
        let past: Vec<_> = (1..=20).map(|n| Span::from_secs(n * 5)).collect();
        let told = forecast(each(60), &past).unwrap().to_string();
        assert_eq!(
            told,
            "fires every 1m and took 1m 35s at p95 over its last 20 runs: 50 of its next 100 fires would overlap"
        );
        let uneven =
            each(60).map(|at| if at.as_millis() == 60_000 { Timestamp::EPOCH } else { at });
        assert!(
            forecast(uneven, &past).unwrap().to_string().starts_with("fires as often as every")
        );
        assert_eq!(forecast(each(60), &[]), None, "nothing is known");
        assert_eq!(forecast(each(60), &[Span::from_secs(60)]), None, "it ends just in time");
        assert_eq!(forecast(each(60).take(1), &past), None);
        assert_eq!(forecast([], &past), None);
    }

    proptest! {
        #[test]
        fn longer_runs_overlap_no_less_and_what_ends_in_time_never(
            every in 1_u64..1000, took in 0_u64..5000, longer in 0_u64..5000,
        ) {
            let of = |secs| forecast(each(every), &[Span::from_secs(secs)]).map_or(0, |told| told.overlapping);
            let runs = took.div_ceil(every).max(1) as usize;
            prop_assert_eq!(of(took), LOOKED_AT - LOOKED_AT.div_ceil(runs));
            prop_assert!(of(took) <= of(took + longer));
            prop_assert_eq!(of(took) == 0, took <= every);
        }

        #[test]
        fn p95_is_one_of_them_and_few_are_longer(past in prop::collection::vec(0_u64..10_000, 1..200)) {
            let past: Vec<_> = past.into_iter().map(Span::from_secs).collect();
            let found = p95(&past).unwrap();
            let longer = past.iter().filter(|span| **span > found).count();
            prop_assert!(past.contains(&found) && longer * 100 <= past.len() * 5);
        }
    }
}
