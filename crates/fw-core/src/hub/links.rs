//! Which link of each host counts: the newest, and none of a host that was sent away for good.
//!
//! A greeting may be late: the network holds it back, the host gives its connection up and links on
//! another, and then the first greeting comes in. What it says of tasks is old, and nobody is at
//! the other end. So links are numbered as their connections come in: a host begins one only when
//! it has given up the one before, hence a lower number is an older link.
//!
//! A host may be revoked while it is being let in: its key was good when the store was asked, and
//! there was no link to close yet. So who was sent away stays away, whatever was found before.

use std::collections::BTreeMap;

use fw_proto::HostId;
use fw_proto::frame::DeniedReason;

/// The links of a server; `L` is how one is reached.
#[derive(Debug)]
pub struct Links<L> {
    by_host: BTreeMap<HostId, L>,
    away: BTreeMap<HostId, DeniedReason>,
    /// The highest number of each host: eight bytes for each that ever linked.
    newest: BTreeMap<HostId, u64>,
}

/// What became of a new link.
#[derive(Debug, PartialEq, Eq)]
pub enum Came<L> {
    /// The host had none.
    First,
    /// It takes the place of this one.
    Instead(L),
    /// The host was sent away, or has a newer link: this one is to be closed, for this reason.
    Refused(L, DeniedReason),
}

impl<L> Default for Links<L> {
    fn default() -> Self {
        Self { by_host: BTreeMap::new(), away: BTreeMap::new(), newest: BTreeMap::new() }
    }
}

impl<L> Links<L> {
    /// A host was let in on a link of this number, which no other link has.
    pub fn insert(&mut self, host: HostId, number: u64, link: L) -> Came<L> {
        if let Some(why) = self.away.get(&host) {
            return Came::Refused(link, *why);
        }
        let newest = self.newest.entry(host).or_insert(number);
        if number < *newest {
            return Came::Refused(link, DeniedReason::Superseded);
        }
        *newest = number;
        self.by_host.insert(host, link).map_or(Came::First, Came::Instead)
    }

    /// A link has ended; whether it was the one that counts.
    pub fn remove(&mut self, host: HostId, is_it: impl FnOnce(&L) -> bool) -> bool {
        let counts = self.by_host.get(&host).is_some_and(is_it);
        if counts {
            self.by_host.remove(&host);
        }
        counts
    }

    /// Sends a host away for good; the link that it had.
    pub fn send_away(&mut self, host: HostId, why: DeniedReason) -> Option<L> {
        self.away.insert(host, why);
        self.by_host.remove(&host)
    }

    /// The link of a host.
    #[must_use]
    pub fn get(&self, host: HostId) -> Option<&L> {
        self.by_host.get(&host)
    }

    /// All links that count.
    pub fn iter(&self) -> impl Iterator<Item = (HostId, &L)> {
        self.by_host.iter().map(|(host, link)| (*host, link))
    }

    /// Lets go of all links; the hosts come back by themselves.
    pub fn take_all(&mut self) -> impl Iterator<Item = L> + use<L> {
        std::mem::take(&mut self.by_host).into_values()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_newest_counts_and_who_is_sent_away_stays_away() {
        let (mut links, host) = (Links::default(), HostId(Uuid::from_u128(1)));
        assert_eq!(links.insert(host, 1, 1), Came::First);
        assert_eq!(links.insert(host, 3, 2), Came::Instead(1));
        assert!(!links.remove(host, |link| *link == 1), "the older one does not count");
        assert!(links.remove(host, |link| *link == 2));
        let late = Came::Refused(9, DeniedReason::Superseded);
        assert_eq!(links.insert(host, 2, 9), late, "it was greeted before the newer one");
        assert_eq!(links.insert(host, 3, 2), Came::First);
        assert_eq!(links.send_away(host, DeniedReason::Revoked), Some(2));
        assert_eq!(links.insert(host, 4, 3), Came::Refused(3, DeniedReason::Revoked));
        assert_eq!(links.get(host), None);
    }
}
