//! Which hosts each wave serves, and how they were counted.
//!
//! A number is so many further hosts. A percentage says how many of all hosts have the change
//! after its wave, those of earlier waves among them: it is rounded up, and brings at least one
//! further host while one is left. A selector picks among what is left. Hosts are counted by name.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use fw_proto::HostName;

use super::{Amount, Error, Picks, Rollout, Share};

/// The hosts of a rollout, wave by wave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waves {
    /// The waves that have hosts; never empty.
    pub waves: Vec<Wave>,
    /// How many hosts there are.
    pub all: usize,
    /// Waves for which no host is left, counted from 1.
    pub left_out: Vec<u32>,
    /// So many failed hosts end it.
    pub budget: u32,
    /// How that was counted.
    pub budget_words: String,
    /// At most so many hosts are under way at once.
    pub max_in_flight: u32,
    /// How that was counted.
    pub max_in_flight_words: String,
}

/// A wave, and its hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wave {
    /// Its place in the file, counted from 1.
    pub number: u32,
    /// Its hosts, by name; never empty.
    pub hosts: Vec<HostName>,
    /// How they were counted.
    pub words: String,
}

impl Wave {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        name(self.number)
    }
}

/// The name of a wave, counted from 1.
pub(super) fn name(number: u32) -> String {
    format!("wave-{number}")
}

impl Rollout {
    /// Puts hosts into waves. `picks` holds the hosts of each of [`Self::selectors`].
    ///
    /// # Errors
    /// There are no hosts, a wave's selector picks none of those that are left, or hosts are in no
    /// wave.
    pub fn waves(&self, picks: &Picks) -> Result<Waves, Error> {
        let none = BTreeSet::new();
        let mut left = picks.get(&self.hosts.text).unwrap_or(&none).clone();
        let all = left.len();
        if all == 0 {
            return Err(Error::NoHosts(self.hosts.text.clone()));
        }
        let (mut waves, mut left_out) = (Vec::new(), Vec::new());
        for (number, share) in (1..).zip(&self.waves) {
            let (hosts, words) = take(number, share, all, &left, picks)?;
            left.retain(|host| !hosts.contains(host));
            if hosts.is_empty() {
                left_out.push(number);
            } else {
                waves.push(Wave { number, hosts, words });
            }
        }
        if !left.is_empty() {
            let names: Vec<_> = left.iter().take(SHOWN).map(HostName::as_str).collect();
            let more = if left.len() > SHOWN { ", …" } else { "" };
            let names = format!("{}{more}", names.join(", "));
            return Err(Error::LeftOver { left: left.len(), all, names });
        }
        Ok(self.counted(waves, all, left_out))
    }

    fn counted(&self, waves: Vec<Wave>, all: usize, left_out: Vec<u32>) -> Waves {
        let (budget, budget_words) = self.budget(all);
        let most = self.max_parallel.unwrap_or(u32::MAX);
        let widest = waves.iter().map(|wave| wave.hosts.len()).max().unwrap_or_default();
        let widest = u32::try_from(widest).unwrap_or(u32::MAX);
        let max_in_flight = budget.min(most).min(widest);
        let max_in_flight_words = if max_in_flight == widest {
            format!("the largest wave has {}", hosts(widest))
        } else if max_in_flight == most {
            format!("max_parallel is {most}")
        } else {
            format!("each of them could fail, and {budget} may")
        };
        Waves { waves, all, left_out, budget, budget_words, max_in_flight, max_in_flight_words }
    }

    /// How many failed hosts end it. A share is rounded down, for a budget is a promise.
    fn budget(&self, all: usize) -> (u32, String) {
        match self.max_failures {
            Amount::Count(count) => (count, format!("max_failures is {count}")),
            Amount::Percent(percent) => {
                let share = u64::try_from(all).unwrap_or(u64::MAX).saturating_mul(percent.into());
                let budget = u32::try_from(share / 100).unwrap_or(u32::MAX).max(1);
                let rounded = match (share / 100, share % 100) {
                    (0, _) => ", at least 1",
                    (_, 0) => "",
                    (_, _) => ", rounded down",
                };
                (budget, format!("{percent}% of {all} is {}{rounded}", exactly(share)))
            }
        }
    }
}

/// Names that are shown of hosts that are in no wave.
const SHOWN: usize = 5;

/// The hosts of a wave, and how they were counted.
fn take(
    number: u32,
    share: &Share,
    all: usize,
    left: &BTreeSet<HostName>,
    picks: &Picks,
) -> Result<(Vec<HostName>, String), Error> {
    match share {
        Share::Count(count) => {
            let wanted = usize::try_from(*count).unwrap_or(usize::MAX);
            let words = if wanted > left.len() {
                format!("{count} of {all}, and {} are left", left.len())
            } else {
                format!("{count} of {all}")
            };
            Ok((left.iter().take(wanted).cloned().collect(), words))
        }
        Share::Percent(percent) => {
            let before = all - left.len();
            let share = all.saturating_mul(usize::try_from(*percent).unwrap_or(100));
            let up_to = share.div_ceil(100);
            let wanted = up_to.saturating_sub(before).max(1);
            let words = percent_words(*percent, all, up_to, before);
            Ok((left.iter().take(wanted).cloned().collect(), words))
        }
        Share::Picked(picked) => {
            let none = BTreeSet::new();
            let meant = picks.get(&picked.text).unwrap_or(&none);
            let hosts: Vec<_> = left.intersection(meant).cloned().collect();
            if hosts.is_empty() {
                let (wave, selector) = (usize::try_from(number), picked.text.clone());
                let wave = wave.unwrap_or(usize::MAX);
                return Err(Error::EmptyWave { wave, left: left.len(), selector });
            }
            let words =
                format!("{} of {} that are left match {}", hosts.len(), left.len(), picked.text);
            Ok((hosts, words))
        }
    }
}

/// Such as `10% of 42 is 4.2, rounded up 5; less the 1 before, 4`.
fn percent_words(percent: u32, all: usize, up_to: usize, before: usize) -> String {
    let share = u64::try_from(all).unwrap_or(u64::MAX).saturating_mul(percent.into());
    let mut words = format!("{percent}% of {all} is {}", exactly(share));
    if !share.is_multiple_of(100) {
        write!(words, ", rounded up {up_to}").expect("writing to memory");
    }
    if before > 0 {
        let further = up_to.saturating_sub(before);
        write!(words, "; less the {before} before, {further}").expect("writing to memory");
        if further == 0 {
            words.push_str(", and at least 1");
        }
    }
    words
}

/// Hundredths as people write them: `4.2`, `5`.
fn exactly(hundredths: u64) -> String {
    let (whole, rest) = (hundredths / 100, hundredths % 100);
    match rest {
        0 => whole.to_string(),
        rest if rest % 10 == 0 => format!("{whole}.{}", rest / 10),
        rest => format!("{whole}.{rest:02}"),
    }
}

/// `1 host`, `2 hosts`.
pub(super) fn hosts(count: u32) -> String {
    if count == 1 { "1 host".to_owned() } else { format!("{count} hosts") }
}
