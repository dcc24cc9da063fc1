//! How fast someone may guess: by account and by address, with a delay that grows.
//!
//! Whoever guesses a stranger's password slows down only those who come from where that person never signed in
//! from: from known addresses, only failures from there count. Kept in memory, for a restart gives an attacker
//! a handful of tries.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use fw_proto::{Span, Timestamp};

/// Failures of one account, or of one account from one address, that cost nothing: people mistype.
const FREE: u32 = 5;

/// Likewise of one address, behind which a whole office may be.
const FREE_BY_ADDRESS: u32 = 20;

/// The first delay; each failure doubles it.
const FIRST: Span = Span::from_secs(1);

/// The longest: 100 tries a day.
const LONGEST: Span = Span::from_secs(15 * 60);

/// Failures are forgotten after so long without another one.
const FORGOTTEN: Span = Span::from_secs(24 * 60 * 60);

/// Accounts and addresses that are remembered; beyond it the ones that were quiet for longest are forgotten.
const REMEMBERED: usize = 20_000;

/// Counts failures. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Limits(Arc<Mutex<BTreeMap<Key, Failures>>>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Account(String),
    Address(IpAddr),
    Both(String, IpAddr),
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Timestamp,
}

/// A try that is under way; it counts as failed until it is told otherwise.
#[derive(Debug)]
pub(crate) struct Try {
    limits: Limits,
    keys: Vec<Key>,
}

impl Limits {
    /// Begins a try, or says how long to wait. Of tries at the same time each counts for the next.
    pub(crate) fn begin(
        &self,
        account: &str,
        address: IpAddr,
        known: bool,
        now: Timestamp,
    ) -> Result<Try, Span> {
        let account = account.to_owned();
        let keys = if known {
            vec![Key::Both(account, address)]
        } else {
            vec![Key::Account(account), Key::Address(address)]
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = keys
            .iter()
            .filter_map(|key| all.get(key).and_then(|failures| failures.wait(key, now)))
            .max();
        if let Some(wait) = wait {
            return Err(wait);
        }
        make_room(&mut all, now);
        for key in &keys {
            let failures = all.entry(key.clone()).or_insert(Failures { count: 0, last: now });
            if now.since(failures.last) >= FORGOTTEN {
                failures.count = 0;
            }
            *failures = Failures { count: failures.count.saturating_add(1), last: now };
        }
        drop(all);
        Ok(Try { limits: self.clone(), keys })
    }
}

impl Try {
    /// It was right: it does not count. What others failed at still does.
    pub(crate) fn right(self) {
        let mut all = self.limits.0.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &self.keys {
            if let Some(failures) = all.get_mut(key) {
                failures.count = match key {
                    Key::Account(_) | Key::Address(_) => failures.count.saturating_sub(1),
                    Key::Both(..) => 0,
                };
            }
        }
    }
}

impl Failures {
    /// How long until the next try.
    fn wait(self, key: &Key, now: Timestamp) -> Option<Span> {
        let free = match key {
            Key::Account(_) | Key::Both(..) => FREE,
            Key::Address(_) => FREE_BY_ADDRESS,
        };
        let beyond = self.count.checked_sub(free)?;
        let delay = Span::from_millis(FIRST.as_millis().saturating_mul(1 << beyond.min(16)));
        let end = self.last + delay.min(LONGEST);
        // A clock that was set back must not shut anyone out.
        (end > now && self.last <= now).then(|| end.since(now))
    }
}

fn make_room(all: &mut BTreeMap<Key, Failures>, now: Timestamp) {
    if all.len() < REMEMBERED {
        return;
    }
    all.retain(|_, failures| now.since(failures.last) < FORGOTTEN);
    if all.len() >= REMEMBERED {
        let mut ages: Vec<_> = all.values().map(|failures| failures.last).collect();
        ages.sort_unstable();
        let middle = ages.get(ages.len() / 2).copied().unwrap_or(now);
        all.retain(|_, failures| failures.last > middle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000_000 + secs * 1000)
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn the_delay_grows_and_ends() {
        let limits = Limits::default();
        for _ in 0..5 {
            limits.begin("alice", ip(1), false, at(0)).unwrap();
        }
        let waits = |secs| limits.begin("alice", ip(1), false, at(secs)).err().map(Span::as_millis);
        assert_eq!(waits(0), Some(1000));
        assert_eq!(waits(1), None);
        assert_eq!(waits(1), Some(2000));
        assert_eq!(waits(3), None);
        assert_eq!(waits(4), Some(3000));
        assert_eq!(waits(100_000), None);
    }

    #[test]
    fn a_stranger_does_not_lock_out_who_comes_from_home() {
        let limits = Limits::default();
        while limits.begin("alice", ip(66), false, at(0)).is_ok() {}
        assert!(
            limits.begin("alice", ip(2), false, at(0)).is_err(),
            "the account is slow elsewhere"
        );
        limits.begin("alice", ip(1), true, at(0)).unwrap().right();
        assert!(limits.begin("bob", ip(66), false, at(0)).is_ok());
    }

    #[test]
    fn an_address_that_tries_many_accounts_is_slowed_down() {
        let limits = Limits::default();
        let tries =
            (0..100).take_while(|n| limits.begin(&format!("user{n}"), ip(1), false, at(0)).is_ok());
        assert_eq!(tries.count(), 20);
        assert!(limits.begin("user", ip(2), false, at(0)).is_ok());
    }

    #[test]
    fn what_was_right_does_not_count() {
        let limits = Limits::default();
        for _ in 0..100 {
            limits.begin("alice", ip(1), false, at(0)).unwrap().right();
        }
    }

    #[test]
    fn memory_is_bounded() {
        let limits = Limits::default();
        for n in 0..60_000_u32 {
            let address = IpAddr::from(n.to_be_bytes());
            limits.begin(&format!("u{n}"), address, false, at(i64::from(n))).unwrap();
        }
        assert!(limits.0.lock().unwrap().len() <= REMEMBERED + 2);
    }
}
