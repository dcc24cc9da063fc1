//! What comes of a rollout, and what is in its way, before anything happens.

use std::collections::BTreeSet;

use fw_proto::api::{ChangeState, Conflict, ConflictKind, Offline, PlannedWave, RolloutPlan};
use fw_proto::{ChangeId, HostName, Span, Timestamp};

use super::compile::checks_take;
use super::waves::{Wave, Waves, hosts};
use super::{Approve, Rollout};
use crate::overlaps::p95;

/// What is known of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Hosts that are offline.
    pub offline: BTreeSet<HostName>,
    /// Hosts of which it cannot be told whether a selector means them.
    pub undecided: BTreeSet<HostName>,
    /// Maintenances that are in force.
    pub maintenances: Vec<Held>,
    /// Changes that have not ended.
    pub others: Vec<Other>,
    /// How long the command took on single hosts, in the past.
    pub took: Vec<Span>,
}

/// A maintenance that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its hosts; all that there are when `None`.
    pub hosts: Option<BTreeSet<HostName>>,
    /// Why.
    pub reason: String,
    /// When it ends; `None` until it is switched off.
    pub until: Option<Timestamp>,
}

/// A change that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    /// Its id.
    pub id: ChangeId,
    /// What it is called.
    pub title: String,
    /// Where it stands.
    pub state: ChangeState,
    /// Its hosts.
    pub hosts: BTreeSet<HostName>,
}

/// Says what a rollout would do now.
#[must_use]
pub fn foresee(rollout: &Rollout, waves: &Waves, facts: &Facts, now: Timestamp) -> RolloutPlan {
    let planned = |(at, wave): (usize, &Wave)| PlannedWave {
        name: wave.name(),
        hosts: wave.hosts.clone(),
        words: wave.words.clone(),
        gates: gates(rollout, waves, at),
    };
    let (predicted, predicted_words) = predicted(rollout, waves, &facts.took);
    RolloutPlan {
        name: rollout.name.to_string(),
        waves: waves.waves.iter().enumerate().map(planned).collect(),
        budget: waves.budget,
        budget_words: waves.budget_words.clone(),
        max_in_flight: waves.max_in_flight,
        max_in_flight_words: waves.max_in_flight_words.clone(),
        conflicts: conflicts(rollout, waves, facts, now),
        predicted_s: predicted.map(|span| span.as_millis().div_ceil(1000)),
        predicted_words,
    }
}

/// What the wave at this place waits for before it begins.
fn gates(rollout: &Rollout, waves: &Waves, at: usize) -> Vec<String> {
    let mut gates = Vec::new();
    let number = waves.waves.get(at).map_or(0, |wave| wave.number);
    if let Some(Approve { before, by, people, expires }) = &rollout.approve
        && before.holds(number)
    {
        let people = if *people == 1 { "1 person".to_owned() } else { format!("{people} people") };
        let not_own = if people == "1 person" { "" } else { ", not by who begins it" };
        let within = expires.map_or_else(String::new, |span| format!(", within {span}"));
        gates.push(format!("approval of {people} by role {by}{not_own}{within}"));
    }
    if let Some(windows) = &rollout.windows {
        gates.push(format!("hours {} {}", windows.windows.join(", "), windows.timezone));
    }
    if at == 0 && rollout.rehearse {
        let canary = waves.waves.first().and_then(|wave| wave.hosts.first());
        let canary = canary.map_or("", HostName::as_str);
        gates.push(format!("rehearsal of the undo on {canary}"));
    }
    gates
}

/// How long it takes when nobody is waited for, and what that is taken from.
fn predicted(rollout: &Rollout, waves: &Waves, took: &[Span]) -> (Option<Span>, String) {
    let soaks = rollout.soak.unwrap_or_default();
    let checks = checks_take(&rollout.verify);
    let (each, again, words) = match (p95(took), rollout.act.timeout) {
        (Some(each), _) => {
            let words = format!("{each} a host, by the last {} times that it ran", took.len());
            (each, Span::ZERO, words)
        }
        (None, Some(timeout)) => {
            let each = timeout + checks;
            let words = format!("at most: {each} a host by its timeouts, for it never ran before");
            (each, checks, words)
        }
        (None, None) => {
            return (None, "it has no timeout and never ran before".to_owned());
        }
    };
    let mut all = Span::ZERO;
    for wave in &waves.waves {
        let at_once = u64::from(waves.max_in_flight.max(1));
        let rounds = u64::try_from(wave.hosts.len()).unwrap_or(u64::MAX).div_ceil(at_once);
        all = all + times(each, rounds) + soaks;
        if rollout.soak.is_some() && !rollout.verify.is_empty() {
            all = all + times(again, rounds);
        }
    }
    if rollout.rehearse {
        all = all + each + each;
    }
    let soak = rollout.soak.map_or_else(String::new, |span| format!(", and {span} of soak a wave"));
    (Some(all), format!("{words}{soak}"))
}

fn times(span: Span, times: u64) -> Span {
    Span::from_millis(span.as_millis().saturating_mul(times))
}

fn conflicts(rollout: &Rollout, waves: &Waves, facts: &Facts, now: Timestamp) -> Vec<Conflict> {
    let all: BTreeSet<&HostName> = waves.waves.iter().flat_map(|wave| &wave.hosts).collect();
    let of = |some: &BTreeSet<HostName>| -> Vec<HostName> {
        some.iter().filter(|host| all.contains(host)).cloned().collect()
    };
    let mut found = Vec::new();
    found.extend(facts.maintenances.iter().filter_map(|held| maintenance(held, of)));
    found.extend(closed(rollout, now));
    found.extend(facts.others.iter().filter_map(|other| overlap(other, of(&other.hosts))));
    found.extend(offline(rollout, waves, of(&facts.offline)));
    if !facts.undecided.is_empty() {
        let message = "a regular expression takes too many steps on them; they are not picked";
        let hosts = facts.undecided.iter().cloned().collect();
        found.push(conflict(ConflictKind::Undecided, message.to_owned(), hosts));
    }
    found
}

fn conflict(kind: ConflictKind, message: String, hosts: Vec<HostName>) -> Conflict {
    Conflict { kind, message, hosts, until: None, change: None }
}

fn maintenance(held: &Held, of: impl Fn(&BTreeSet<HostName>) -> Vec<HostName>) -> Option<Conflict> {
    let hosts = held.hosts.as_ref().map(of);
    if hosts.as_ref().is_some_and(Vec::is_empty) {
        return None;
    }
    let message =
        format!("maintenance ({}) is in force; begun by hand, it runs all the same", held.reason);
    let found = conflict(ConflictKind::Maintenance, message, hosts.unwrap_or_default());
    Some(Conflict { until: held.until, ..found })
}

/// That these are not its hours.
fn closed(rollout: &Rollout, now: Timestamp) -> Option<Conflict> {
    let windows = rollout.windows.as_ref()?;
    if windows.are_open(now) {
        return None;
    }
    let opens = windows.open_at(now);
    let message = match opens {
        Some(at) => format!("these are not its hours; the first wave waits until {at}"),
        None => "these are not its hours, and none are near; the first wave waits".to_owned(),
    };
    let found = conflict(ConflictKind::Window, message, Vec::new());
    Some(Conflict { until: opens, ..found })
}

fn overlap(other: &Other, on: Vec<HostName>) -> Option<Conflict> {
    let count = u32::try_from(on.len()).unwrap_or(u32::MAX);
    if count == 0 {
        return None;
    }
    let (title, state) = (&other.title, other.state.as_str());
    let message = format!("{title} ({}) is {state} on {}", other.id, hosts(count));
    let found = conflict(ConflictKind::Overlap, message, on);
    Some(Conflict { change: Some(other.id), ..found })
}

fn offline(rollout: &Rollout, waves: &Waves, on: Vec<HostName>) -> Option<Conflict> {
    let count = u32::try_from(on.len()).unwrap_or(u32::MAX);
    if count == 0 {
        return None;
    }
    let enough = if count >= waves.budget { ", which ends it" } else { "" };
    let comes = match rollout.offline {
        Offline::Wait(wait) => {
            format!("each is waited for {wait} and has failed then{enough}")
        }
        Offline::Fail => format!("each has failed{enough}"),
        Offline::Skip => "they are left out".to_owned(),
    };
    let is = if count == 1 { "is" } else { "are" };
    let message = format!("{} {is} offline; {comes}", hosts(count));
    Some(conflict(ConflictKind::Offline, message, on))
}
