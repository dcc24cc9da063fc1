//! How long a job's last runs took, as bars.

use fw_proto::Span;
use fw_store::Past;

use super::job::went_well;
use super::time::took;

/// Width and height of the drawing.
const WIDTH: u64 = 400;
const HEIGHT: u64 = 80;

#[derive(Debug)]
pub(super) struct Bar {
    pub(super) x: u64,
    pub(super) y: u64,
    pub(super) width: u64,
    pub(super) height: u64,
    pub(super) tone: &'static str,
    pub(super) title: String,
}

/// The bars, the newest at the right.
#[derive(Debug)]
pub(super) struct Trend {
    pub(super) bars: Vec<Bar>,
    pub(super) usual: String,
    pub(super) longest: String,
}

impl Trend {
    /// Of runs, the newest first; `None` before two have ended.
    pub(super) fn new(past: &[Past]) -> Option<Self> {
        let took_of = |run: &Past| Some((run.clone(), run.finished_at?.since(run.created_at)));
        let mut ended: Vec<(Past, Span)> = past.iter().filter_map(took_of).collect();
        ended.reverse();
        let longest = ended.iter().map(|(_, span)| *span).max().filter(|_| ended.len() > 1)?;
        let mut sorted: Vec<_> = ended.iter().map(|(_, span)| *span).collect();
        sorted.sort_unstable();
        let usual = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        let step = (WIDTH / ended.len() as u64).min(24);
        let bars = (0..).zip(&ended).map(|(at, (run, span))| {
            let height = (span.as_millis() * HEIGHT / longest.as_millis().max(1)).max(2);
            Bar {
                x: at * step,
                y: HEIGHT - height,
                width: step.saturating_sub(2).max(1),
                height,
                tone: if went_well(run.state) { "series" } else { "bad" },
                title: format!("{}: {}", run.created_at, took(*span)),
            }
        });
        Some(Self { bars: bars.collect(), usual: took(usual), longest: took(longest) })
    }
}
