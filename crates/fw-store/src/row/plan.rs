//! Plans in rows, format 1.

use std::collections::BTreeMap;

use fw_core::plan::{Armed, Chosen, Exec, Limits, Origin, Plan, Retries};
use fw_proto::api::{Command, EnvValue, Offline, OnFull};
use fw_proto::{HostId, HostName, Incarnation, JobName, RunId, Span};
use serde::{Deserialize, Serialize};

use super::Text;

#[derive(Serialize, Deserialize)]
pub(super) struct PlanRow {
    exec: ExecRow,
    selector: String,
    hosts: Vec<(HostId, HostName)>,
    limits: LimitsRow,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    job: Option<JobName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_of: Option<RunId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retries: Option<RetriesRow>,
    incarnation: Incarnation,
}

#[derive(Serialize, Deserialize)]
struct ExecRow {
    command: CommandRow,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cwd: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    env: BTreeMap<String, EnvRow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    kill_after_ms: u64,
    on_full: Text<OnFull>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nice: Option<i8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    umask: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    armed: Option<ArmedRow>,
}

#[derive(Serialize, Deserialize)]
struct ArmedRow {
    undo: CommandRow,
    within_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    probe: Option<CommandRow>,
}

/// A command.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CommandRow {
    Argv(Vec<String>),
    Shell(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EnvRow {
    Value(String),
    Secret(String),
}

#[derive(Serialize, Deserialize)]
struct RetriesRow {
    left: u32,
    pause_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct LimitsRow {
    start_within_ms: u64,
    offline: OfflineRow,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parallel: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_failures: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spread_ms: Option<u64>,
    lost_after_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OfflineRow {
    WaitMs(u64),
    Fail,
    Skip,
}

impl From<&Plan> for PlanRow {
    fn from(plan: &Plan) -> Self {
        Self {
            exec: ExecRow::from(&plan.exec),
            selector: plan.selector.clone(),
            hosts: plan.hosts.iter().map(|host| (host.id, host.name.clone())).collect(),
            limits: LimitsRow::from(&plan.limits),
            job: plan.origin.job.clone(),
            retry_of: plan.origin.retry_of,
            retries: plan.retries.as_ref().map(RetriesRow::from),
            incarnation: plan.incarnation,
        }
    }
}

impl From<PlanRow> for Plan {
    fn from(row: PlanRow) -> Self {
        Self {
            exec: row.exec.into(),
            selector: row.selector,
            hosts: row.hosts.into_iter().map(|(id, name)| Chosen { id, name }).collect(),
            limits: row.limits.into(),
            origin: Origin { job: row.job, retry_of: row.retry_of },
            retries: row
                .retries
                .and_then(|row| Retries::new(row.left, Span::from_millis(row.pause_ms))),
            incarnation: row.incarnation,
        }
    }
}

impl From<&Retries> for RetriesRow {
    fn from(retries: &Retries) -> Self {
        Self { left: retries.left, pause_ms: retries.pause.as_millis() }
    }
}

impl From<&Exec> for ExecRow {
    fn from(exec: &Exec) -> Self {
        let env = exec.env.iter().map(|(name, value)| (name.clone(), EnvRow::from(value)));
        Self {
            command: CommandRow::from(&exec.command),
            user: exec.user.clone(),
            cwd: exec.cwd.clone(),
            env: env.collect(),
            timeout_ms: exec.timeout.map(Span::as_millis),
            kill_after_ms: exec.kill_after.as_millis(),
            on_full: Text(exec.on_full),
            nice: exec.nice,
            umask: exec.umask,
            armed: exec.armed.as_ref().map(ArmedRow::from),
        }
    }
}

impl From<ExecRow> for Exec {
    fn from(row: ExecRow) -> Self {
        Self {
            command: row.command.into(),
            user: row.user,
            cwd: row.cwd,
            env: row.env.into_iter().map(|(name, value)| (name, value.into())).collect(),
            timeout: row.timeout_ms.map(Span::from_millis),
            kill_after: Span::from_millis(row.kill_after_ms),
            on_full: row.on_full.0,
            nice: row.nice,
            umask: row.umask,
            armed: row.armed.map(Armed::from),
        }
    }
}

impl From<&Armed> for ArmedRow {
    fn from(armed: &Armed) -> Self {
        Self {
            undo: CommandRow::from(&armed.undo),
            within_ms: armed.within.as_millis(),
            probe: armed.probe.as_ref().map(CommandRow::from),
        }
    }
}

impl From<ArmedRow> for Armed {
    fn from(row: ArmedRow) -> Self {
        Self {
            undo: row.undo.into(),
            within: Span::from_millis(row.within_ms),
            probe: row.probe.map(Command::from),
        }
    }
}

impl From<&Command> for CommandRow {
    fn from(command: &Command) -> Self {
        match command {
            Command::Argv(argv) => Self::Argv(argv.clone()),
            Command::Shell(text) => Self::Shell(text.clone()),
        }
    }
}

impl From<CommandRow> for Command {
    fn from(row: CommandRow) -> Self {
        match row {
            CommandRow::Argv(argv) => Self::Argv(argv),
            CommandRow::Shell(text) => Self::Shell(text),
        }
    }
}

impl From<&EnvValue> for EnvRow {
    fn from(value: &EnvValue) -> Self {
        match value {
            EnvValue::Value(text) => Self::Value(text.clone()),
            EnvValue::Secret(name) => Self::Secret(name.clone()),
        }
    }
}

impl From<EnvRow> for EnvValue {
    fn from(row: EnvRow) -> Self {
        match row {
            EnvRow::Value(text) => Self::Value(text),
            EnvRow::Secret(name) => Self::Secret(name),
        }
    }
}

impl From<&Limits> for LimitsRow {
    fn from(limits: &Limits) -> Self {
        Self {
            start_within_ms: limits.start_within.as_millis(),
            offline: match limits.offline {
                Offline::Wait(wait) => OfflineRow::WaitMs(wait.as_millis()),
                Offline::Fail => OfflineRow::Fail,
                Offline::Skip => OfflineRow::Skip,
            },
            parallel: limits.parallel,
            max_failures: limits.max_failures,
            spread_ms: limits.spread.map(Span::as_millis),
            lost_after_ms: limits.lost_after.as_millis(),
        }
    }
}

impl From<LimitsRow> for Limits {
    fn from(row: LimitsRow) -> Self {
        Self {
            start_within: Span::from_millis(row.start_within_ms),
            offline: match row.offline {
                OfflineRow::WaitMs(ms) => Offline::Wait(Span::from_millis(ms)),
                OfflineRow::Fail => Offline::Fail,
                OfflineRow::Skip => Offline::Skip,
            },
            parallel: row.parallel,
            max_failures: row.max_failures,
            spread: row.spread_ms.map(Span::from_millis),
            lost_after: Span::from_millis(row.lost_after_ms),
        }
    }
}
