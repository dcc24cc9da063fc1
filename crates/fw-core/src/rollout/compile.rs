//! From a rollout and its waves to the plan of a change.

use std::collections::BTreeMap;

use fw_proto::api::{Command, EnvValue};
use fw_proto::{HostId, HostName, Incarnation, Span, Timestamp};

use super::script::{self, Kept};
use super::waves::{Wave, Waves};
use super::{Approve, Check, Error, Rollout, What};
use crate::change::{self, Act, Node, Origin, Plan, Undo, UndoWhen, Work};
use crate::command as commands;
use crate::plan::{Armed, Chosen, Exec};

/// How long a check may take that says nothing of that.
const CHECK_TAKES: Span = Span::from_secs(10);

/// How long it may take to look at the state of a host once.
const STATE_TAKES: Span = Span::from_secs(60);

/// The id of the node that rehearses.
pub(super) const REHEARSAL: &str = "rehearsal";

/// The nodes of a wave, by what follows its name in their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// People are asked.
    Approve,
    /// Its hours are waited for.
    Window,
    /// Its hosts are changed.
    Act,
    /// Time passes.
    Soak,
    /// It is proved again.
    Verify,
}

impl Part {
    const ALL: [Self; 5] = [Self::Approve, Self::Window, Self::Act, Self::Soak, Self::Verify];

    const fn suffix(self) -> &'static str {
        match self {
            Self::Approve => "-approve",
            Self::Window => "-window",
            Self::Act => "",
            Self::Soak => "-soak",
            Self::Verify => "-verify",
        }
    }

    /// The wave and the part that an id means; `None` for the rehearsal.
    pub(super) fn of(id: &str) -> Option<(u32, Self)> {
        let rest = id.strip_prefix("wave-")?;
        let digits = rest.find('-').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(digits);
        let part = Self::ALL.into_iter().find(|part| part.suffix() == suffix)?;
        Some((number.parse().ok()?, part))
    }
}

/// Makes the plan of a rollout. `source` is its text, `ids` the hosts that there are, `planned` when
/// it is begun.
///
/// # Errors
/// It asks for what is not there yet, a host is gone, or what would run on a host is too large.
pub fn compile(
    rollout: &Rollout,
    source: &str,
    waves: &Waves,
    ids: &BTreeMap<HostName, HostId>,
    planned: Timestamp,
    incarnation: Incarnation,
) -> Result<Plan, Error> {
    not_there_yet(rollout)?;
    let key = format!("{}-{}", rollout.name, planned.as_millis());
    let making = Making { rollout, ids, key };
    let mut nodes = Vec::new();
    for (at, wave) in waves.waves.iter().enumerate() {
        let group = u32::try_from(at).unwrap_or(u32::MAX);
        making.wave(wave, group, &mut nodes)?;
    }
    Ok(Plan {
        origin: Origin::Rollout,
        title: rollout.name.to_string(),
        source: source.to_owned(),
        inputs: BTreeMap::new(),
        nodes,
        max_failures: Some(waves.budget),
        on_failure: rollout.on_failure,
        incarnation,
    })
}

/// What a rollout runs on each host, by which its runs of the past are found.
#[must_use]
pub fn command(rollout: &Rollout) -> Command {
    script::act(&rollout.act.command, proved_within(rollout), kept(rollout).as_ref())
}

/// What its command proves itself. Of an armed change the host proves it, before it keeps it.
fn proved_within(rollout: &Rollout) -> &[Check] {
    if rollout.armed.is_some() { &[] } else { &rollout.verify }
}

/// Without an undo there is nothing to compare.
fn kept(rollout: &Rollout) -> Option<Kept<'_>> {
    rollout.undo.as_ref()?;
    rollout.state.as_ref().map(|state| Kept { state })
}

/// What a file may say, and nothing can do yet.
fn not_there_yet(rollout: &Rollout) -> Result<(), Error> {
    for Check { what, line, .. } in &rollout.verify {
        match what {
            What::Metric(metric) => {
                return Err(Error::Metric { line: *line, metric: metric.clone() });
            }
            What::Run(..) | What::Http { .. } | What::Tcp(_) | What::File { .. } => {}
        }
    }
    Ok(())
}

struct Making<'a> {
    rollout: &'a Rollout,
    ids: &'a BTreeMap<HostName, HostId>,
    key: String,
}

impl Making<'_> {
    /// The nodes of a wave.
    fn wave(&self, wave: &Wave, group: u32, nodes: &mut Vec<Node>) -> Result<(), Error> {
        let node = |part: Part, title: String, act: Act| Node {
            id: format!("{}{}", wave.name(), part.suffix()),
            title,
            line: Some(self.rollout.line),
            group: Some(group),
            act,
            undo: None,
        };
        let number = wave.number;
        if let Some(approve) = self.approve(number) {
            let title = format!("approval before wave {number}");
            nodes.push(node(Part::Approve, title, Act::Approve(approve)));
        }
        if let Some(windows) = &self.rollout.windows {
            let title = format!("hours of wave {number}");
            nodes.push(node(Part::Window, title, Act::Window(windows.clone())));
        }
        if group == 0 && self.rollout.rehearse {
            nodes.extend(self.rehearsal(wave)?);
        }
        let mut act = node(Part::Act, format!("wave {number}"), self.act(wave)?);
        act.undo = self.undo(wave)?;
        nodes.push(act);
        let Some(soak) = self.rollout.soak else { return Ok(()) };
        nodes.push(node(Part::Soak, format!("soak of wave {number}"), Act::Wait(soak)));
        if !self.rollout.verify.is_empty() {
            let title = format!("proof of wave {number} after its soak");
            nodes.push(node(Part::Verify, title, self.prove(wave)?));
        }
        Ok(())
    }

    fn approve(&self, wave: u32) -> Option<change::Approve> {
        let asked = self.rollout.approve.as_ref().filter(|asked| asked.before.holds(wave))?;
        let Approve { by, people, expires, .. } = *asked;
        Some(change::Approve { by, people, expires })
    }

    fn act(&self, wave: &Wave) -> Result<Act, Error> {
        let act = &self.rollout.act;
        let kept = kept(self.rollout);
        let command = command(self.rollout);
        let checks = checks_take(proved_within(self.rollout));
        let more = checks + kept.map_or(Span::ZERO, |_| STATE_TAKES);
        let exec = Exec { armed: self.armed(), ..with(act, command, more) };
        let mut work = self.work("do", wave, exec)?;
        work.retries = self.rollout.retries;
        Ok(Act::Exec(Box::new(work)))
    }

    /// What the host does by itself, when the file says so: it proves the change and keeps it, or undoes it.
    fn armed(&self) -> Option<Armed> {
        let (within, undo) = (self.rollout.armed?, self.rollout.undo.as_ref()?);
        let checks = &self.rollout.verify;
        Some(Armed {
            undo: script::undo(&undo.command, kept(self.rollout).is_some()),
            within,
            probe: (!checks.is_empty()).then(|| script::prove(checks)),
        })
    }

    fn prove(&self, wave: &Wave) -> Result<Act, Error> {
        let checks = &self.rollout.verify;
        let command = script::prove(checks);
        let exec = Exec { command, timeout: Some(checks_take(checks)), ..self.rollout.act.clone() };
        Ok(Act::Exec(Box::new(self.work("verify", wave, exec)?)))
    }

    fn undo(&self, wave: &Wave) -> Result<Option<Undo>, Error> {
        let Some(undo) = &self.rollout.undo else { return Ok(None) };
        let kept = kept(self.rollout);
        let command = script::undo(&undo.command, kept.is_some());
        let more = kept.map_or(Span::ZERO, |_| STATE_TAKES);
        let work = Box::new(self.work("undo", wave, with(undo, command, more))?);
        Ok(Some(Undo { work, when: UndoWhen::Begun }))
    }

    /// On the first host alone. What it has done it has taken back itself, unless it failed.
    fn rehearsal(&self, wave: &Wave) -> Result<Option<Node>, Error> {
        let (Some(undo), Some(kept)) = (&self.rollout.undo, kept(self.rollout)) else {
            return Ok(None);
        };
        let first = wave.hosts.iter().take(1).cloned().collect();
        let canary = Wave { hosts: first, ..wave.clone() };
        let act = &self.rollout.act;
        let command = script::rehearsal(&act.command, &undo.command, &kept);
        let more = undo.timeout.map(|timeout| timeout + STATE_TAKES + STATE_TAKES);
        let exec = Exec {
            command,
            timeout: act.timeout.zip(more).map(|(act, more)| act + more),
            ..act.clone()
        };
        let work = self.work("rehearsal", &canary, exec)?;
        // What was found left behind is no undo only because a command exits with 0.
        let back = with(undo, script::undo(&undo.command, true), STATE_TAKES);
        let back = Box::new(self.work("undo", &canary, back)?);
        let host = canary.hosts.first().map_or("", HostName::as_str);
        Ok(Some(Node {
            id: REHEARSAL.to_owned(),
            title: format!("rehearsal of the undo on {host}"),
            line: Some(self.rollout.line),
            group: None,
            act: Act::Exec(Box::new(work)),
            undo: Some(Undo { work: back, when: UndoWhen::Failed }),
        }))
    }

    fn work(&self, what: &'static str, wave: &Wave, mut exec: Exec) -> Result<Work, Error> {
        exec.env.insert(script::KEY.to_owned(), EnvValue::Value(self.key.clone()));
        commands::check(&exec).map_err(|why| Error::Command { what, why })?;
        Ok(Work {
            exec,
            fill: None,
            selector: self.rollout.hosts.text.clone(),
            hosts: self.chosen(&wave.hosts)?,
            parallel: self.rollout.max_parallel,
            offline: self.rollout.offline,
            start_within: self.rollout.start_within,
            expect: None,
            retries: 0,
        })
    }

    fn chosen(&self, names: &[HostName]) -> Result<Vec<Chosen>, Error> {
        let chosen = |name: &HostName| match self.ids.get(name) {
            Some(id) => Ok(Chosen { id: *id, name: name.clone() }),
            None => Err(Error::Gone(name.clone())),
        };
        names.iter().map(chosen).collect()
    }
}

/// A command in place of another, with more time.
fn with(base: &Exec, command: Command, more: Span) -> Exec {
    Exec { command, timeout: base.timeout.map(|timeout| timeout + more), ..base.clone() }
}

/// How long all checks may take, one after the other.
pub(super) fn checks_take(checks: &[Check]) -> Span {
    let each = checks.iter().map(|check| check.within.unwrap_or_default() + CHECK_TAKES);
    each.fold(Span::ZERO, |all, one| all + one)
}
