//! The last runs of a host or a job as a strip of bars, the newest at the right.

use fw_proto::api::{RunState, TaskState};

use super::words::{Status, Tone};

/// Bars of a strip.
pub(super) const BARS: u32 = 20;

/// One bar: quiet when all went well, tall when it did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bar {
    pub(super) tone: &'static str,
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) height: u32,
}

/// A strip, and what it says in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Strip {
    pub(super) bars: Vec<Bar>,
    pub(super) words: String,
}

impl Strip {
    /// Of states, the newest first.
    pub(super) fn new(states: impl IntoIterator<Item = Status>) -> Self {
        let states: Vec<_> = states.into_iter().take(BARS as usize).collect();
        let bad = states.iter().filter(|status| status.tone == Tone::Bad).count();
        let words = match states.len() {
            0 => "no runs yet".to_owned(),
            count => format!("last {count} runs: {bad} failed"),
        };
        let free = BARS - u32::try_from(states.len()).unwrap_or(BARS);
        let bars = (free..).zip(states.iter().rev()).map(|(at, status)| bar(at, status.tone));
        Self { bars: bars.collect(), words }
    }

    pub(super) fn of_tasks(states: &[TaskState]) -> Self {
        Self::new(states.iter().map(|state| Status::from(*state)))
    }

    pub(super) fn of_runs(states: impl IntoIterator<Item = RunState>) -> Self {
        Self::new(states.into_iter().map(Status::from))
    }
}

fn bar(at: u32, tone: Tone) -> Bar {
    let height = match tone {
        Tone::Bad => 15,
        Tone::Ok | Tone::Run => 13,
        Tone::Warn | Tone::Hold => 9,
        Tone::Queued | Tone::Idle => 4,
    };
    Bar { tone: tone.name(), x: at * 6, y: 16 - height, height: height - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_at_the_right() {
        let strip = Strip::of_runs([RunState::Failed, RunState::Succeeded]);
        let shown: Vec<_> = strip.bars.iter().map(|bar| (bar.tone, bar.x)).collect();
        assert_eq!(shown, [("ok", 108), ("bad", 114)]);
        assert_eq!(strip.words, "last 2 runs: 1 failed");
        assert_eq!(Strip::of_tasks(&[TaskState::Skipped; 30]).bars.len(), 20);
    }
}
