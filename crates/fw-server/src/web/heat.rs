//! A job's last days as a table: a row a day, a column an hour of the wall clock of its time zone.

use std::collections::BTreeMap;

use fw_core::schedule::Schedule;
use fw_proto::api::{RunState, Verdict};
use fw_proto::{Span, Timestamp};
use fw_store::Quarter;

/// Days of a heat map.
pub(super) const DAYS: u64 = 14;

/// What an hour shows: the worst that became of its fires. The order is from bad to good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    Failed,
    Missed,
    Late,
    Running,
    Skipped,
    Succeeded,
    Planned,
    None,
}

impl Fate {
    /// As the style sheet calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Failed => "bad",
            Self::Missed => "miss",
            Self::Late => "late",
            Self::Running => "run",
            Self::Skipped => "skip",
            Self::Succeeded => "ok",
            Self::Planned => "plan",
            Self::None => "none",
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Missed => "missed",
            Self::Late => "succeeded late",
            Self::Running => "running",
            Self::Skipped => "skipped",
            Self::Succeeded => "succeeded",
            Self::Planned => "planned",
            Self::None => "not due",
        }
    }

    fn of(quarter: &Quarter) -> Self {
        match (quarter.verdict, quarter.state) {
            (Verdict::Missed, _) => Self::Missed,
            (Verdict::Skipped | Verdict::Coalesced, _) => Self::Skipped,
            (Verdict::Pending, _) => Self::Running,
            (Verdict::Shadow, _) => Self::Planned,
            (Verdict::Ran | Verdict::CaughtUp, Some(RunState::Failed)) => Self::Failed,
            (Verdict::CaughtUp, Some(RunState::Succeeded) | None) => Self::Late,
            (Verdict::Ran, Some(RunState::Succeeded) | None) => Self::Succeeded,
            (_, Some(RunState::Cancelled)) => Self::Skipped,
            (_, Some(RunState::Planned | RunState::Running | RunState::Cancelling)) => {
                Self::Running
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Cell {
    pub(super) fate: Fate,
    pub(super) title: String,
}

#[derive(Debug)]
pub(super) struct Day {
    pub(super) name: String,
    pub(super) cells: Vec<Cell>,
}

/// The table; the last day is today.
#[derive(Debug)]
pub(super) struct Heat {
    pub(super) days: Vec<Day>,
}

type Hours = BTreeMap<(String, usize), BTreeMap<Fate, u64>>;

impl Heat {
    pub(super) fn new(schedule: &Schedule, now: Timestamp, quarters: &[Quarter]) -> Self {
        let mut hours = Hours::new();
        for quarter in quarters {
            put(&mut hours, schedule, quarter);
        }
        let today = place(schedule, now);
        let until = now + Span::from_secs(24 * 60 * 60);
        for fire in schedule.between(now, until).take(1500) {
            let at = place(schedule, fire.nominal);
            if at.0 == today.0 {
                *hours.entry(at).or_default().entry(Fate::Planned).or_default() += 1;
            }
        }
        let days = (0..DAYS).rev().map(|back| now - Span::from_secs(back * 24 * 60 * 60));
        let mut names: Vec<_> = days.map(|at| place(schedule, at).0).collect();
        names.dedup();
        Self { days: names.into_iter().map(|name| day(&name, &hours)).collect() }
    }

    /// The hours of a day.
    pub(super) fn hours(&self) -> std::ops::Range<usize> {
        0..24
    }
}

/// Fires that share a row of the ledger lie in all hours from the first to the last.
fn put(hours: &mut Hours, schedule: &Schedule, quarter: &Quarter) {
    const HOUR: Span = Span::from_secs(60 * 60);
    let fate = Fate::of(quarter);
    let last = place(schedule, quarter.to);
    let mut at = quarter.from;
    for _ in 0..=DAYS * 24 {
        let here = place(schedule, at);
        let ends = here == last || at >= quarter.to;
        *hours.entry(here).or_default().entry(fate).or_default() += quarter.count;
        if ends {
            return;
        }
        at = at + HOUR;
    }
}

/// Day and hour on the wall.
fn place(schedule: &Schedule, at: Timestamp) -> (String, usize) {
    let wall = schedule.wall(at);
    let hour = wall.get(11..13).and_then(|hour| hour.parse().ok()).unwrap_or(0);
    (wall.get(..10).unwrap_or_default().to_owned(), hour)
}

fn day(name: &str, hours: &Hours) -> Day {
    let cell = |hour: usize| {
        let fates = hours.get(&(name.to_owned(), hour));
        let fate = fates.and_then(|fates| fates.keys().next()).copied().unwrap_or(Fate::None);
        let words = fates.map(|fates| {
            let words = fates.iter().map(|(fate, count)| format!("{count} {}", fate.word()));
            words.collect::<Vec<_>>().join(", ")
        });
        let words = words.unwrap_or_else(|| fate.word().to_owned());
        Cell { fate, title: format!("{name} {hour:02}:00, {words}") }
    };
    let cells = (0..24).map(cell).collect();
    Day { cells, name: name.get(5..).unwrap_or_default().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_shows_its_worst_in_the_time_zone_of_the_job() {
        let schedule = Schedule::parse("*/30 * * * *", "Asia/Kolkata").unwrap();
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let quarter = |text: &str, verdict, state| Quarter {
            from: at(text),
            to: at(text),
            verdict,
            state,
            count: 1,
        };
        let heat = Heat::new(
            &schedule,
            now,
            &[
                quarter("2026-11-20T10:00:00Z", Verdict::Ran, Some(RunState::Succeeded)),
                quarter("2026-11-20T10:15:00Z", Verdict::Ran, Some(RunState::Failed)),
                quarter("2026-11-20T10:30:00Z", Verdict::Ran, Some(RunState::Succeeded)),
            ],
        );
        assert_eq!(heat.days.len(), 14);
        let today = heat.days.last().unwrap();
        assert_eq!(today.name, "11-20");
        // 10:15 UTC is 15:45 there, and 10:30 is 16:00; now it is 17:30.
        assert_eq!(today.cells[15].fate, Fate::Failed);
        assert_eq!(today.cells[15].title, "2026-11-20 15:00, 1 failed, 1 succeeded");
        assert_eq!(today.cells[16].fate, Fate::Succeeded);
        assert_eq!(today.cells[18].fate, Fate::Planned);
        assert_eq!(today.cells[3].fate, Fate::None);
    }

    #[test]
    fn fires_that_share_a_row_fill_their_hours() {
        let schedule = Schedule::parse("* * * * *", "UTC").unwrap();
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        let missed = Quarter {
            from: "2026-11-19T22:50:00Z".parse().unwrap(),
            to: "2026-11-20T01:10:00Z".parse().unwrap(),
            verdict: Verdict::Missed,
            state: None,
            count: 141,
        };
        let heat = Heat::new(&schedule, now, &[missed]);
        let missed: Vec<_> = heat
            .days
            .iter()
            .map(|day| day.cells.iter().filter(|cell| cell.fate == Fate::Missed).count())
            .collect();
        assert_eq!(missed[12..], [2, 2]);
    }
}
