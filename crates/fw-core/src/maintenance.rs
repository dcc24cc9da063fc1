//! Maintenance: when runs do not begin by themselves, everywhere or on some hosts.
//!
//! A maintenance begins when it is switched on, and ends at a time that is known before or when it is
//! switched off. There can be several at once, and a host is in maintenance while one of them covers
//! it. Who begins a run by hand means it: that is never held.

use std::collections::BTreeMap;

use fw_proto::{MaintenanceId, Span, Timestamp};

use crate::host::Seen;
use crate::select::Selector;

/// What a maintenance covers.
#[derive(Debug, Clone, PartialEq)]
pub enum Scope {
    /// All hosts, and jobs that have none.
    Everything,
    /// The hosts that this picks, also those that come later.
    Hosts(Selector),
}

/// A maintenance, as far as it decides about runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Maintenance {
    /// What it covers.
    pub scope: Scope,
    /// Since when.
    pub since: Timestamp,
    /// From when on it is over; `None` until it is switched off.
    pub until: Option<Timestamp>,
}

impl Maintenance {
    /// Whether it is in force then: from `since` on, and before `until`.
    #[must_use]
    pub fn in_force(&self, at: Timestamp) -> bool {
        self.since <= at && !self.is_over(at)
    }

    fn is_over(&self, at: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= at)
    }

    /// Whether it covers this host.
    #[must_use]
    pub fn covers(&self, host: Seen<'_>) -> bool {
        match &self.scope {
            Scope::Everything => true,
            Scope::Hosts(selector) => selector.matches(host),
        }
    }
}

/// All that are in force, or were.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Maintenances(BTreeMap<MaintenanceId, Maintenance>);

impl Maintenances {
    /// Adds one, or puts it in place of what was said of it before.
    pub fn put(&mut self, id: MaintenanceId, maintenance: Maintenance) {
        self.0.insert(id, maintenance);
    }

    /// Switches one off. The end of one that is over already stays.
    pub fn end(&mut self, id: MaintenanceId, at: Timestamp) {
        if let Some(ended) = self.0.get_mut(&id).filter(|ended| !ended.is_over(at)) {
            ended.until = Some(at);
        }
    }

    /// Whether there is one to forget.
    #[must_use]
    pub fn is_any_over(&self, at: Timestamp) -> bool {
        self.0.values().any(|one| one.is_over(at))
    }

    /// Forgets those that are over by then, and names them.
    pub fn forget(&mut self, at: Timestamp) -> Vec<MaintenanceId> {
        let over: Vec<_> =
            self.0.iter().filter(|(_, one)| one.is_over(at)).map(|(id, _)| *id).collect();
        over.iter().for_each(|id| drop(self.0.remove(id)));
        over
    }

    /// Those that are in force then, the earliest first.
    pub fn in_force(&self, at: Timestamp) -> impl Iterator<Item = (MaintenanceId, &Maintenance)> {
        self.0.iter().filter(move |(_, one)| one.in_force(at)).map(|(id, one)| (*id, one))
    }

    /// One of them, whether it is in force or over.
    #[must_use]
    pub fn get(&self, id: MaintenanceId) -> Option<&Maintenance> {
        self.0.get(&id)
    }

    /// The maintenance of everything that is in force then.
    #[must_use]
    pub fn everything(&self, at: Timestamp) -> Option<MaintenanceId> {
        let mut found = self.in_force(at).filter(|(_, one)| one.scope == Scope::Everything);
        found.next().map(|(id, _)| id)
    }

    /// The maintenance that a host is in then.
    #[must_use]
    pub fn of(&self, host: Seen<'_>, at: Timestamp) -> Option<MaintenanceId> {
        let mut found = self.in_force(at).filter(|(_, one)| one.covers(host));
        found.next().map(|(id, _)| id)
    }

    /// When all is in maintenance.
    #[must_use]
    pub fn spans(&self) -> Spans {
        let everything = self.0.values().filter(|one| one.scope == Scope::Everything);
        Spans::new(everything.map(|one| (one.since, one.until)).collect())
    }
}

/// Stretches of time, each from its first instant to before its end; they neither touch nor overlap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spans(Vec<(Timestamp, Option<Timestamp>)>);

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
    pub fn new(mut spans: Vec<(Timestamp, Option<Timestamp>)>) -> Self {
        spans.retain(|(since, until)| until.is_none_or(|until| *since < until));
        spans.sort();
        let mut joined: Vec<(Timestamp, Option<Timestamp>)> = Vec::new();
        for (since, until) in spans {
            match joined.last_mut() {
                Some((_, end)) if end.is_none_or(|end| since <= end) => {
                    *end = end.zip(until).map(|(one, other)| one.max(other));
                }
                Some(_) | None => joined.push((since, until)),
            }
        }
        Self(joined)
    }

    /// Whether this instant lies in one.
    #[must_use]
    pub fn covers(&self, at: Timestamp) -> bool {
        let begun = self.0.partition_point(|(since, _)| *since <= at);
        let last = begun.checked_sub(1).and_then(|last| self.0.get(last));
        last.is_some_and(|(_, until)| until.is_none_or(|until| at < until))
    }

    /// Cuts the instants after one and until another where a span begins or ends, in order.
    #[must_use]
    pub fn cut(&self, after: Timestamp, until: Timestamp) -> Vec<Stretch> {
        let edges = self.0.iter().flat_map(|(since, end)| [Some(*since), *end]).flatten();
        let last_before = edges.map(|edge| edge - Span::from_millis(1));
        let cuts = last_before.filter(|cut| after < *cut && *cut < until).chain([until]);
        let mut begin = after;
        let stretch = |cut| {
            let after = std::mem::replace(&mut begin, cut);
            Stretch { after, until: cut, held: self.covers(cut) }
        };
        cuts.map(stretch).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fw_proto::HostName;
    use proptest::prelude::*;
    use serde_json::Map;

    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn of(selector: Option<&str>, since: i64, until: Option<i64>) -> Maintenance {
        let hosts = |text: &str| Scope::Hosts(Selector::parse(text).unwrap());
        let scope = selector.map_or(Scope::Everything, hosts);
        Maintenance { scope, since: at(since), until: until.map(at) }
    }

    fn in_maintenance(all: &Maintenances, host: &str, now: i64) -> Option<u32> {
        let name: HostName = host.parse().unwrap();
        let seen = Seen { name: &name, labels: &BTreeMap::new(), facts: &Map::new() };
        all.of(seen, at(now)).map(|id| id.0)
    }

    #[test]
    fn a_host_is_in_maintenance_while_one_covers_it() {
        let mut all = Maintenances::default();
        all.put(MaintenanceId(1), of(Some("web*"), 10, Some(20)));
        all.put(MaintenanceId(2), of(Some("web1"), 10, None));
        all.put(MaintenanceId(3), of(None, 30, None));
        let seen = |all: &Maintenances, now| {
            ["web1", "web2", "db1"].map(|host| in_maintenance(all, host, now))
        };
        assert_eq!(seen(&all, 9), [None, None, None]);
        assert_eq!(seen(&all, 10), [Some(1), Some(1), None]);
        assert_eq!(seen(&all, 19), [Some(1), Some(1), None]);
        assert_eq!(seen(&all, 20), [Some(2), None, None]);
        assert_eq!(seen(&all, 30), [Some(2), Some(3), Some(3)]);
        assert_eq!(
            (all.everything(at(29)), all.everything(at(30))),
            (None, Some(MaintenanceId(3)))
        );
        all.end(MaintenanceId(3), at(40));
        all.end(MaintenanceId(3), at(50));
        all.end(MaintenanceId(1), at(50));
        assert_eq!(seen(&all, 40), [Some(2), None, None]);
        assert_eq!(all.spans(), Spans::new(vec![(at(30), Some(at(40)))]));
        assert_eq!((all.is_any_over(at(19)), all.is_any_over(at(20))), (false, true));
        assert_eq!(all.forget(at(39)), [MaintenanceId(1)]);
        assert_eq!((all.is_any_over(at(39)), all.get(MaintenanceId(1))), (false, None));
        assert_eq!(all.forget(at(40)), [MaintenanceId(3)]);
        assert_eq!(all.in_force(at(40)).map(|(id, _)| id.0).collect::<Vec<_>>(), [2]);
    }

    fn spans() -> impl Strategy<Value = Vec<(Timestamp, Option<Timestamp>)>> {
        let span = (0_i64..60, proptest::option::weighted(0.9, 0_i64..60));
        proptest::collection::vec(span.prop_map(|(from, to)| (at(from), to.map(at))), 0..6)
    }

    proptest! {
        /// Joined or not, an instant lies in the spans when it lies in one of those that were given.
        #[test]
        fn spans_cover_what_one_of_them_covers(given in spans(), now in -5_i64..70) {
            let one = given.iter().any(|(since, until)| {
                *since <= at(now) && until.is_none_or(|until| at(now) < until)
            });
            prop_assert_eq!(Spans::new(given).covers(at(now)), one);
        }

        /// A cut loses no instant and has none twice, and says of each whether it is held.
        #[test]
        fn a_cut_is_the_whole_in_pieces(given in spans(), after in 0_i64..60, length in 1_i64..60) {
            let spans = Spans::new(given);
            let until = after + length;
            let pieces = spans.cut(at(after), at(until));
            let mut end = at(after);
            for piece in &pieces {
                prop_assert!(piece.after == end && piece.after < piece.until, "{:?}", pieces);
                end = piece.until;
            }
            prop_assert_eq!(end, at(until));
            for now in (after + 1..=until).map(at) {
                let piece = pieces.iter().find(|piece| piece.after < now && now <= piece.until);
                prop_assert_eq!(piece.map(|piece| piece.held), Some(spans.covers(now)));
            }
            let alternate = pieces.windows(2).all(|two| two[0].held != two[1].held);
            prop_assert!(alternate, "{:?}", pieces);
        }
    }
}
