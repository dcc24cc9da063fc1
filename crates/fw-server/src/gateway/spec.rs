//! From a plan's command to what a host is sent.

use std::collections::BTreeMap;

use fw_core::plan::Exec;
use fw_proto::api;
use fw_proto::frame::{Command, OnFull, Spec};

/// What the host starts. `secrets` holds the values of those variables that the plan only names.
#[must_use]
pub(crate) fn spec(exec: &Exec, secrets: BTreeMap<String, String>, spool_bytes: u64) -> Spec {
    let plain = |(name, value): (&String, &api::EnvValue)| match value {
        api::EnvValue::Value(text) => Some((name.clone(), text.clone())),
        api::EnvValue::Secret(_) => None,
    };
    Spec {
        command: match &exec.command {
            api::Command::Argv(argv) => Command::Argv(argv.clone()),
            api::Command::Shell(text) => Command::Shell(text.clone()),
        },
        user: exec.user.clone(),
        cwd: exec.cwd.clone(),
        env: exec.env.iter().filter_map(plain).collect(),
        secrets,
        timeout: exec.timeout,
        kill_after: exec.kill_after,
        on_full: match exec.on_full {
            api::OnFull::Block => OnFull::Block,
            api::OnFull::Drop => OnFull::Drop,
        },
        spool_bytes,
        nice: exec.nice,
        umask: exec.umask,
    }
}
