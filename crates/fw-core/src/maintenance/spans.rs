//! Stretches of time: when all is in maintenance.

use fw_proto::{Span, Timestamp};

use super::Recurring;

/// Stretches of time, each from its first instant to before its end: some that are known one by one, and
/// windows that recur.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Spans {
    /// They neither touch nor overlap.
    whole: Vec<Ends>,
    recurring: Vec<Recurring>,
}

/// The first instant and the first after it; for ever when there is none.
type Ends = (Timestamp, Option<Timestamp>);

/// Instants after one and until another, all of them within a span or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// It begins after this.
    pub after: Timestamp,
    /// The last instant.
    pub until: Timestamp,
    /// Whether it is within a span.
    pub held: bool,
}

impl Spans {
    /// All instants that lie in one of these; without an end it goes on for ever.
    #[must_use]
    pub fn new(spans: Vec<(Timestamp, Option<Timestamp>)>) -> Self {
        Self { whole: joined(spans), recurring: Vec::new() }
    }

    /// And these that recur.
    #[must_use]
    pub fn with(self, recurring: Vec<Recurring>) -> Self {
        Self { recurring, ..self }
    }

    /// Whether this instant lies in one.
    #[must_use]
    pub fn covers(&self, at: Timestamp) -> bool {
        lies_in(&self.whole, at) || self.recurring.iter().any(|one| one.covers(at))
    }

    /// Cuts the instants after one and until another where a span begins or ends, in order. Of windows that
    /// recur the last thousand are known: what is longer ago counts as if there were none.
    #[must_use]
    pub fn cut(&self, after: Timestamp, until: Timestamp) -> Vec<Stretch> {
        let windows = self.recurring.iter().flat_map(|one| one.between(after, until));
        let windows = windows.map(|window| (window.from, Some(window.until)));
        let spans = joined(self.whole.iter().copied().chain(windows).collect());
        let edges = spans.iter().flat_map(|(since, end)| [Some(*since), *end]).flatten();
        let last_before = edges.map(|edge| edge - Span::from_millis(1));
        let cuts = last_before.filter(|cut| after < *cut && *cut < until).chain([until]);
        let mut begin = after;
        let stretch = |cut| {
            let after = std::mem::replace(&mut begin, cut);
            Stretch { after, until: cut, held: lies_in(&spans, cut) }
        };
        cuts.map(stretch).collect()
    }
}

/// The same instants, in spans that neither touch nor overlap.
fn joined(mut spans: Vec<Ends>) -> Vec<Ends> {
    spans.retain(|(since, until)| until.is_none_or(|until| *since < until));
    spans.sort();
    let mut joined: Vec<Ends> = Vec::new();
    for (since, until) in spans {
        match joined.last_mut() {
            Some((_, end)) if end.is_none_or(|end| since <= end) => {
                *end = end.zip(until).map(|(one, other)| one.max(other));
            }
            Some(_) | None => joined.push((since, until)),
        }
    }
    joined
}

fn lies_in(joined: &[Ends], at: Timestamp) -> bool {
    let begun = joined.partition_point(|(since, _)| *since <= at);
    let last = begun.checked_sub(1).and_then(|last| joined.get(last));
    last.is_some_and(|(_, until)| until.is_none_or(|until| at < until))
}
