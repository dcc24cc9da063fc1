//! What is different between two states, in words.

use std::collections::{BTreeMap, BTreeSet};

use super::{Entry, Kind, Outcome, State};

/// Each difference as a line; none when the states are the same.
pub(crate) fn differences(before: &State, now: &State) -> Vec<String> {
    let mut found = Vec::new();
    for (path, before, now) in pairs(&before.files, &now.files) {
        let told = match (before, now) {
            (Some(before), Some(now)) => changes(before, now),
            (before, now) => vec![format!("{} before, {} now", name(before), name(now))],
        };
        found.extend(told.into_iter().map(|what| format!("{path}: {what}")));
    }
    for (command, before, now) in pairs(&before.commands, &now.commands) {
        found.extend(outcomes(before, now).map(|what| format!("command {command:?}: {what}")));
    }
    found
}

/// What either has, in order.
fn pairs<'a, T: PartialEq>(
    before: &'a BTreeMap<String, T>,
    now: &'a BTreeMap<String, T>,
) -> impl Iterator<Item = (&'a String, Option<&'a T>, Option<&'a T>)> {
    let keys: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let both = keys.into_iter().map(|key| (key, before.get(key), now.get(key)));
    both.filter(|(_, before, now)| before != now)
}

fn name(entry: Option<&Entry>) -> &'static str {
    entry.map_or("absent", |entry| entry.kind.name())
}

/// What is different between two things at one path.
pub(crate) fn changes(before: &Entry, now: &Entry) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(kinds(&before.kind, &now.kind));
    if before.mode != now.mode {
        found.push(format!("mode {} before, {} now", before.mode, now.mode));
    }
    if (before.uid, before.gid) != (now.uid, now.gid) {
        let (uid, gid) = (before.uid, before.gid);
        found.push(format!("owner {uid}:{gid} before, {}:{} now", now.uid, now.gid));
    }
    found
}

fn kinds(before: &Kind, now: &Kind) -> Option<String> {
    match (before, now) {
        (before, now) if before == now => None,
        (Kind::File { bytes: a, sha256: x }, Kind::File { bytes: b, sha256: y }) => {
            Some(if a == b {
                format!("other bytes (sha256 {} before, {} now)", short(x), short(y))
            } else {
                format!("{a} bytes before, {b} now")
            })
        }
        (Kind::Symlink { target: a }, Kind::Symlink { target: b }) => {
            Some(format!("leads to {a} before, {b} now"))
        }
        (Kind::Device { number: a }, Kind::Device { number: b }) => {
            Some(format!("device {a} before, {b} now"))
        }
        (
            Kind::File { .. }
            | Kind::Directory
            | Kind::Symlink { .. }
            | Kind::Fifo
            | Kind::Socket
            | Kind::Device { .. },
            now,
        ) => Some(format!("{} before, {} now", before.name(), now.name())),
    }
}

fn outcomes(before: Option<&Outcome>, now: Option<&Outcome>) -> Option<String> {
    match (before, now) {
        (Some(before), Some(now)) if before.exit_code != now.exit_code => {
            Some(format!("exit code {} before, {} now", before.exit_code, now.exit_code))
        }
        (Some(before), Some(now)) => {
            let (a, b) = (short(&before.stdout_sha256), short(&now.stdout_sha256));
            Some(format!("other output (sha256 {a} before, {b} now)"))
        }
        (Some(_), None) => Some("not run now".to_owned()),
        (None, Some(_)) => Some("not run before".to_owned()),
        (None, None) => None,
    }
}

/// Enough of a hash for people.
fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Mode;
    use super::*;

    fn entry(kind: Kind) -> Entry {
        Entry { kind, mode: Mode(0o644), uid: 0, gid: 0 }
    }

    fn file(bytes: u64, sha256: &str) -> Entry {
        entry(Kind::File { bytes, sha256: sha256.to_owned() })
    }

    fn told(before: Option<Entry>, now: Option<Entry>) -> String {
        let state = |entry: Option<Entry>| State {
            files: entry.into_iter().map(|entry| ("/x".to_owned(), entry)).collect(),
            ..State::default()
        };
        differences(&state(before), &state(now)).join("\n")
    }

    #[test]
    fn differences_are_said_in_words() {
        let check = |before, now, expected| assert_eq!(told(before, now), expected);
        let a = || Some(file(3, "aaaaaaaaaaaaaaaa"));
        check(a(), a(), "");
        check(None, a(), "/x: absent before, a file now");
        check(a(), None, "/x: a file before, absent now");
        check(a(), Some(file(4, "b")), "/x: 3 bytes before, 4 now");
        check(
            a(),
            Some(file(3, "bbbbbbbbbbbbbbbb")),
            "/x: other bytes (sha256 aaaaaaaaaaaa before, bbbbbbbbbbbb now)",
        );
        check(a(), Some(entry(Kind::Directory)), "/x: a file before, a directory now");
        let link = |to: &str| Some(entry(Kind::Symlink { target: to.to_owned() }));
        check(link("/a"), link("/b"), "/x: leads to /a before, /b now");
        let other =
            Some(Entry { mode: Mode(0o4600), uid: 7, gid: 8, ..file(3, "aaaaaaaaaaaaaaaa") });
        check(a(), other, "/x: mode 0644 before, 4600 now\n/x: owner 0:0 before, 7:8 now");
    }

    #[test]
    fn outcomes_of_commands_are_compared() {
        let state = |exit_code, sum: &str| State {
            commands: [(
                "nginx -v".to_owned(),
                Outcome { exit_code, stdout_bytes: 1, stdout_sha256: sum.to_owned() },
            )]
            .into(),
            ..State::default()
        };
        let check = |before: &State, now: &State, expected: &str| {
            assert_eq!(differences(before, now).join("\n"), expected);
        };
        check(&state(0, "a"), &state(0, "a"), "");
        check(&state(0, "a"), &state(1, "a"), "command \"nginx -v\": exit code 0 before, 1 now");
        let other = "command \"nginx -v\": other output (sha256 a before, b now)";
        check(&state(0, "a"), &state(0, "b"), other);
        check(&state(0, "a"), &State::default(), "command \"nginx -v\": not run now");
    }

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![
            (0_u64..3, "[ab]").prop_map(|(bytes, sha256)| Kind::File { bytes, sha256 }),
            Just(Kind::Directory),
            "[ab]".prop_map(|target| Kind::Symlink { target }),
            Just(Kind::Fifo),
            Just(Kind::Socket),
            (0_u64..2).prop_map(|number| Kind::Device { number }),
        ]
    }

    fn state() -> impl Strategy<Value = State> {
        let entry = (kind(), 0_u32..3, 0_u32..2, 0_u32..2);
        let entry =
            entry.prop_map(|(kind, mode, uid, gid)| Entry { kind, mode: Mode(mode), uid, gid });
        let outcome = (0_i32..2, 0_u64..2, "[ab]").prop_map(|(exit_code, stdout_bytes, sha)| {
            Outcome { exit_code, stdout_bytes, stdout_sha256: sha }
        });
        let files = prop::collection::btree_map("/[a-c]", entry, 0..3);
        let commands = prop::collection::btree_map("[a-c]", outcome, 0..3);
        (files, commands).prop_map(|(files, commands)| State {
            files,
            commands,
            ..State::default()
        })
    }

    proptest! {
        /// Nothing that differs goes unsaid, and nothing is said of what is the same.
        #[test]
        fn a_difference_is_said_exactly_when_there_is_one(a in state(), b in state()) {
            let same = a.files == b.files && a.commands == b.commands;
            prop_assert_eq!(differences(&a, &b).is_empty(), same);
        }

        #[test]
        fn a_state_survives_its_text(a in state()) {
            let text = serde_json::to_string(&a).unwrap();
            prop_assert_eq!(State::parse(&text).unwrap(), a);
        }
    }
}
