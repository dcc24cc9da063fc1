//! Command lines that wait for a person to sign them in with a browser (RFC 8628).
//!
//! Kept in memory, and bounded: a server that is started again has forgotten them, and the command line says so. The
//! secret is the command line's alone and long; the code is short, since people compare and type it, so wrong ones slow
//! down whoever sends them, and only who is signed in may send any.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fw_proto::{Span, Timestamp};

/// The letters of codes: consonants that make no word (RFC 8628 §6.1).
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// Letters of a code: with 1,000 that wait, a guess is right once in 25 million times.
const LENGTH: usize = 8;

/// Those that wait, all together. Whoever comes then is told to come later; the password works.
const MOST: usize = 1000;

/// Those of one network: nobody uses the room of all others.
const MOST_OF_ONE: usize = 10;

/// A person sees the next page soon after they have said yes.
pub(super) const INTERVAL: Span = Span::from_secs(2);

/// Added for whoever asks sooner (RFC 8628 §3.5).
const SLOWER: Span = Span::from_secs(5);

/// Half a second of a network's delay makes nobody too early.
const TOLERATED: Span = Span::from_millis(500);

/// Those that wait. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Devices(Arc<Mutex<BTreeMap<[u8; 32], Waiting>>>);

#[derive(Debug)]
struct Waiting {
    code: String,
    asker: Asker,
    begun_at: Timestamp,
    expires_at: Timestamp,
    interval: Span,
    asked_at: Timestamp,
    answer: Answer,
}

/// Who wants to be signed in.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    pub(super) host: String,
    pub(super) address: IpAddr,
    /// What of the address is limited.
    pub(super) network: IpAddr,
    pub(super) agent: String,
}

#[derive(Debug)]
enum Answer {
    None,
    No,
    Yes(Approval),
}

/// Who said yes.
#[derive(Debug, Clone)]
pub(super) struct Approval {
    /// The person.
    pub(super) user: String,
    /// Their session: when it ends before the command line has its own, that gets none.
    pub(super) session: [u8; 32],
}

/// What came of one.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is over, or never was.
    Over,
    /// Nobody has said anything.
    Waiting(Span),
    /// They said no.
    No,
    /// They said yes.
    Yes(Approval, Asker),
}

/// One that waits, for the person who is asked.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) asker: Asker,
    pub(super) begun_at: Timestamp,
    pub(super) expires_at: Timestamp,
}

/// There is no room.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Devices {
    /// Begins one; gives its code.
    pub(super) fn begin(
        &self,
        secret: [u8; 32],
        asker: Asker,
        life: Span,
        now: Timestamp,
    ) -> Result<String, Full> {
        let mut all = self.lock();
        all.retain(|_, one| one.lasts(now));
        let of_one = all.values().filter(|one| one.asker.network == asker.network).count();
        if all.len() >= MOST || of_one >= MOST_OF_ONE {
            return Err(Full);
        }
        let code = loop {
            let code = generate();
            if all.values().all(|one| one.code != code) {
                break code;
            }
        };
        let waiting = Waiting {
            code: code.clone(),
            asker,
            begun_at: now,
            expires_at: now + life,
            interval: INTERVAL,
            asked_at: now,
            answer: Answer::None,
        };
        all.insert(secret, waiting);
        Ok(code)
    }

    /// What came of one. Once it is told yes or no, it is over.
    pub(super) fn ask(&self, secret: &[u8; 32], now: Timestamp) -> Outcome {
        let mut all = self.lock();
        let Some(one) = all.get_mut(secret).filter(|one| one.lasts(now)) else {
            return Outcome::Over;
        };
        if matches!(one.answer, Answer::None) {
            if now.since(one.asked_at) + TOLERATED < one.interval {
                one.interval = one.interval + SLOWER;
            }
            one.asked_at = now;
            return Outcome::Waiting(one.interval);
        }
        match all.remove(secret) {
            Some(Waiting { answer: Answer::Yes(approval), asker, .. }) => {
                Outcome::Yes(approval, asker)
            }
            Some(Waiting { answer: Answer::No, .. }) => Outcome::No,
            Some(Waiting { answer: Answer::None, .. }) | None => Outcome::Over,
        }
    }

    /// The one with this code that nobody has answered.
    pub(super) fn find(&self, code: &str, now: Timestamp) -> Option<Shown> {
        let all = self.lock();
        let one = all.values().find(|one| one.is(code, now))?;
        let asker = one.asker.clone();
        Some(Shown { asker, begun_at: one.begun_at, expires_at: one.expires_at })
    }

    /// Answers the one with this code: yes with an approval. Says whether there was one.
    pub(super) fn answer(&self, code: &str, approval: Option<Approval>, now: Timestamp) -> bool {
        let mut all = self.lock();
        let one = all.values_mut().find(|one| one.is(code, now));
        let answer = approval.map_or(Answer::No, Answer::Yes);
        one.map(|one| one.answer = answer).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], Waiting>> {
        // Each change is whole by itself, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// A clock that was set back must not make it last.
    fn lasts(&self, now: Timestamp) -> bool {
        self.begun_at <= now && now < self.expires_at
    }

    fn is(&self, code: &str, now: Timestamp) -> bool {
        self.code == code && self.lasts(now) && matches!(self.answer, Answer::None)
    }
}

fn generate() -> String {
    let letter = |_| LETTERS.get(rand::random_range(0..LETTERS.len())).copied().map(char::from);
    (0..LENGTH).filter_map(letter).collect()
}

/// A code however it was typed; `None` when it cannot be one.
pub(super) fn read(text: &str) -> Option<String> {
    let letters = text.chars().filter(|c| !matches!(c, '-' | ' '));
    let code: String = letters.map(|c| c.to_ascii_uppercase()).collect();
    (code.len() == LENGTH && code.bytes().all(|b| LETTERS.contains(&b))).then_some(code)
}

/// A code as people read it.
pub(super) fn shown(code: &str) -> String {
    let (first, second) = code.split_at_checked(LENGTH / 2).unwrap_or((code, ""));
    format!("{first}-{second}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Span = Span::from_secs(600);

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000_000 + secs * 1000)
    }

    fn asker(network: [u8; 4]) -> Asker {
        let address = IpAddr::from(network);
        Asker { host: "laptop".to_owned(), address, network: address, agent: "cli".to_owned() }
    }

    fn ada() -> Option<Approval> {
        Some(Approval { user: "ada".to_owned(), session: [7; 32] })
    }

    /// One that waits since second 0.
    fn waiting() -> (Devices, String) {
        let devices = Devices::default();
        let code = devices.begin([1; 32], asker([192, 0, 2, 1]), LIFE, at(0)).unwrap();
        (devices, code)
    }

    #[test]
    fn a_yes_is_told_once() {
        let (devices, code) = waiting();
        assert!(matches!(devices.ask(&[1; 32], at(2)), Outcome::Waiting(INTERVAL)));
        assert_eq!(devices.find(&code, at(3)).unwrap().expires_at, at(600));
        assert!(devices.answer(&code, ada(), at(3)));
        assert!(!devices.answer(&code, None, at(3)), "it is answered");
        assert!(devices.find(&code, at(3)).is_none());
        assert!(matches!(devices.ask(&[2; 32], at(4)), Outcome::Over), "another secret");
        let Outcome::Yes(approval, _) = devices.ask(&[1; 32], at(4)) else { panic!("no yes") };
        assert_eq!(approval.user, "ada");
        assert!(matches!(devices.ask(&[1; 32], at(6)), Outcome::Over));
    }

    #[test]
    fn a_no_is_told_once() {
        let (devices, code) = waiting();
        assert!(devices.answer(&code, None, at(3)));
        assert!(matches!(devices.ask(&[1; 32], at(4)), Outcome::No));
        assert!(matches!(devices.ask(&[1; 32], at(6)), Outcome::Over));
    }

    #[test]
    fn it_ends_by_itself_answered_or_not() {
        for answered in [false, true] {
            let (devices, code) = waiting();
            if answered {
                assert!(devices.answer(&code, ada(), at(599)));
            }
            assert!(!devices.answer(&code, ada(), at(600)));
            assert!(matches!(devices.ask(&[1; 32], at(600)), Outcome::Over));
            assert!(matches!(devices.ask(&[1; 32], at(-1)), Outcome::Over), "a clock set back");
        }
    }

    #[test]
    fn whoever_asks_too_often_is_told_to_wait_longer() {
        let (devices, _) = waiting();
        let interval = |secs| match devices.ask(&[1; 32], at(secs)) {
            Outcome::Waiting(interval) => interval.as_millis(),
            other @ (Outcome::Over | Outcome::No | Outcome::Yes(..)) => panic!("{other:?}"),
        };
        assert_eq!(
            [interval(2), interval(3), interval(9), interval(16)],
            [2000, 7000, 12_000, 17_000]
        );
        assert_eq!(interval(33), 17_000);
    }

    #[test]
    fn room_is_bounded_for_one_and_for_all() {
        let devices = Devices::default();
        let begin = |n: u32, network: [u8; 4], now| {
            let mut secret = [0; 32];
            secret[..4].copy_from_slice(&n.to_be_bytes());
            devices.begin(secret, asker(network), LIFE, now)
        };
        for n in 0..10 {
            begin(n, [192, 0, 2, 1], at(0)).unwrap();
        }
        assert_eq!(begin(10, [192, 0, 2, 1], at(0)), Err(Full));
        for n in 10_u32..1000 {
            begin(n, (n / 10).to_be_bytes(), at(0)).unwrap();
        }
        assert_eq!(begin(1000, [10, 0, 0, 1], at(0)), Err(Full));
        begin(1000, [192, 0, 2, 1], at(600)).unwrap();
        assert_eq!(devices.lock().len(), 1);
    }

    #[test]
    fn a_code_is_taken_however_it_is_typed() {
        let code = generate();
        assert_eq!(shown(&code).len(), 9);
        for typed in [code.clone(), shown(&code), format!(" {} ", shown(&code).to_lowercase())] {
            assert_eq!(read(&typed), Some(code.clone()), "{typed}");
        }
        for bad in ["", "BCDF", "BCDF-GHJA", "BCDF-GHJKL", "ＢCDF-GHJK"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
