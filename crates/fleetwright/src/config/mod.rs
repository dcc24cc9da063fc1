//! Configuration in layers: defaults, one TOML file, credentials, environment, flags; the later wins.
//!
//! [`resolve`] is a pure function over what [`Config::load`] reads. Every value remembers
//! where it came from, so that `config show` can say so and an error can point there.
//! The keys are one table, [`keys::KEYS`]; `docs/configuration.md` prints it.

pub(crate) mod context;
mod error;
mod file;
mod keys;
mod layers;
mod service;
mod setting;
mod show;
mod types;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(crate) use error::{Error, Problem};
pub(crate) use file::{read_bytes, read_text};
pub(crate) use layers::{Inputs, Loaded, Origin, resolve};
pub(crate) use service::service_arguments;
pub(crate) use setting::{LogFormat, Proxy, Secret, http_proxy};
pub(crate) use show::{rows, show};
pub(crate) use types::{AgentConfig, Config, LogConfig, SaltpeterConfig};

/// The environment, or a part of it.
pub(crate) type Environment = BTreeMap<String, String>;

/// Values of flags by key, such as `server.listen`; only those that were given.
pub(crate) type Flags = BTreeMap<&'static str, String>;

/// Where a file is looked for when neither `--config` nor `FLEETWRIGHT_CONFIG` names one.
const SYSTEM_FILE: &str = "/etc/fleetwright/fleetwright.toml";

/// The environment of this process. Nothing else reads it; variables that are not UTF-8 are left out.
pub(crate) fn environment() -> Environment {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// The configuration file to read: `--config`, `FLEETWRIGHT_CONFIG`, or the system's when it exists.
pub(crate) fn find(flag: Option<&Path>, env: &Environment) -> Option<PathBuf> {
    let named =
        flag.map(Path::to_owned).or_else(|| env.get("FLEETWRIGHT_CONFIG").map(PathBuf::from));
    named.or_else(|| Some(PathBuf::from(SYSTEM_FILE)).filter(|path| path.exists()))
}

impl Config {
    /// Reads `file` and the files that secrets are in, and resolves all layers.
    ///
    /// # Errors
    /// Every problem of every layer at once: files that cannot be read, unknown keys, wrong
    /// types, values that no key takes. Whether the whole makes sense for a server is asked
    /// by `ServerConfig::check`.
    pub(crate) fn load(
        file: Option<&Path>,
        env: &Environment,
        flags: &Flags,
    ) -> Result<Loaded, Error> {
        let text = file.map(read).transpose().map_err(Error::from)?;
        let credentials = env.get("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let inputs = Inputs {
            file: file.zip(text.as_deref()),
            credentials: credentials.as_deref().map(credentials_in).unwrap_or_default(),
            env,
            flags,
            root: rustix::process::geteuid().is_root(),
        };
        let mut loaded = resolve(&inputs)?;
        if has_joined(&loaded.config.agent.state_dir) {
            loaded.leave_secret("agent.join");
        }
        loaded.read_secrets(read)
    }
}

/// Whether the agent of this directory needs its join string no more: a service goes on naming the
/// file, and people remove it, as they should. A directory that cannot be read says nothing.
fn has_joined(state_dir: &Path) -> bool {
    let identity = || fw_agent::identity::StateDir::open(state_dir)?.identity();
    state_dir.is_dir() && identity().is_ok_and(|identity| identity.is_some())
}

/// Reads a text file that is named by configuration.
fn read(path: &Path) -> Result<String, Problem> {
    read_text(path)
        .map_err(|error| Problem::Unreadable { path: path.to_owned(), why: error.to_string() })
}

/// The files that systemd placed for us (`systemd.exec(5)`, `LoadCredential=`), by name.
fn credentials_in(directory: &Path) -> BTreeMap<String, PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return BTreeMap::new() };
    let named =
        |entry: std::fs::DirEntry| Some((entry.file_name().into_string().ok()?, entry.path()));
    entries.flatten().filter_map(named).collect()
}

#[cfg(test)]
mod tests;
