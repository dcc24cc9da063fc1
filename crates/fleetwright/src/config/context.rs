//! Which server the command line talks to, and with which token.
//!
//! Flags come before the environment, that before the context in use, and that before a
//! server of this machine. A token goes only to the server it belongs to: one from a context
//! or from this machine's data directory is never sent to a server that was named otherwise.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::Environment;
use super::file::read_text;
use super::setting::{Secret, Setting};

/// Where a server of this machine is.
const LOCAL_SERVER: &str = "http://127.0.0.1:7400";

/// The token that the first start of such a server writes.
const LOCAL_TOKEN: &str = "./fleetwright-data/admin.token";

/// The context file: named servers, and which of them is in use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// The one in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    /// All of them.
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Context>,
}

/// A named server.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// Its URL.
    pub(crate) server: String,
    /// The token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// The file that holds the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    /// The session of whoever signed in (`fleetwright login`), as its cookie; used before the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<String>,
    /// Certificates to trust beside the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
}

impl std::fmt::Debug for Context {
    /// Leaves token and session out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("server", &self.server).finish_non_exhaustive()
    }
}

/// `--server`, `--token`, `--token-file`, `--context`, as far as given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TargetFlags {
    /// URL of the server.
    pub(crate) server: Option<String>,
    /// The token.
    pub(crate) token: Option<Secret>,
    /// The file that holds it.
    pub(crate) token_file: Option<PathBuf>,
    /// A context to use for this command.
    pub(crate) context: Option<String>,
}

/// Which server to talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its URL.
    pub(crate) server: Url,
    /// Where the token is.
    pub(crate) token: TokenSource,
    /// What named the server, for messages: `--server`, `context prod`.
    pub(crate) named_by: String,
    /// Certificates that the context trusts.
    pub(crate) ca_file: Option<PathBuf>,
}

/// Where a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenSource {
    /// Here.
    Given(Secret),
    /// In a file that must be there.
    File(PathBuf),
    /// In a file that may be there.
    FileIfReadable(PathBuf),
    /// Not a token but a session, by its cookie.
    Session(Secret),
    /// Nowhere.
    None,
}

/// What can be wrong with contexts.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file of ours cannot be read or written.
    #[error("{doing} {}", path.display())]
    File { doing: &'static str, path: PathBuf, source: std::io::Error },
    /// The context file is not what it should be.
    #[error("{}: {why}", path.display())]
    Malformed { path: PathBuf, why: String },
    /// Other users could read the tokens.
    #[error("{0} holds tokens and others can read it; run: chmod 600 {0}", path.display())]
    Readable { path: PathBuf },
    /// There is no such context.
    #[error("there is no context {name:?}; known: {}; add one with `fleetwright context add`", known.join(", "))]
    Unknown { name: String, known: Vec<String> },
    /// A server's URL is none.
    #[error("{named_by}: {why}")]
    Server { named_by: String, why: String },
    /// A token and a file for it.
    #[error("{one} and {other} are both given; keep one of them")]
    GivenTwice { one: &'static str, other: &'static str },
    /// A token that is none.
    #[error("the token {place} {why}")]
    Token { place: String, why: &'static str },
}

/// The context file: under `XDG_CONFIG_HOME`, or `~/.config`; `None` without a home.
pub(crate) fn path(env: &Environment) -> Option<PathBuf> {
    let base = env.get("XDG_CONFIG_HOME").filter(|base| !base.is_empty()).map(PathBuf::from);
    let base = base.or_else(|| env.get("HOME").map(|home| Path::new(home).join(".config")))?;
    Some(base.join("fleetwright/contexts.toml"))
}

impl Contexts {
    /// Reads the file; no file means no contexts.
    ///
    /// # Errors
    /// It cannot be read, is malformed, or others can read it.
    pub(crate) fn load(path: &Path) -> Result<Self, Error> {
        let text = match read_text(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(source) => {
                return Err(Error::File { doing: "read", path: path.to_owned(), source });
            }
        };
        let metadata = std::fs::metadata(path);
        if metadata.is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0) {
            return Err(Error::Readable { path: path.to_owned() });
        }
        toml::from_str(&text)
            .map_err(|error| Error::Malformed { path: path.to_owned(), why: error.to_string() })
    }

    /// Writes the file so that only its owner can read it, and whole or not at all.
    ///
    /// # Errors
    /// The directory or the file cannot be written.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Error> {
        let text = toml::to_string(self).expect("strings and tables are TOML");
        let failed = |source| Error::File { doing: "write", path: path.to_owned(), source };
        write_private(path, &text).map_err(failed)
    }

    /// A context by name.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn get(&self, name: &str) -> Result<&Context, Error> {
        let unknown = || Error::Unknown {
            name: name.to_owned(),
            known: self.contexts.keys().cloned().collect(),
        };
        self.contexts.get(name).ok_or_else(unknown)
    }

    /// Adds a context, or replaces it; the first one is taken into use.
    pub(crate) fn add(&mut self, name: &str, context: Context) {
        self.contexts.insert(name.to_owned(), context);
        self.current.get_or_insert_with(|| name.to_owned());
    }

    /// Takes a context into use.
    ///
    /// # Errors
    /// There is none of this name.
    pub(crate) fn choose(&mut self, name: &str) -> Result<(), Error> {
        self.get(name)?;
        self.current = Some(name.to_owned());
        Ok(())
    }

    /// Removes a context; none is in use when it was the one.
    ///
    /// # Errors
    /// There is none of this name.
    pub(crate) fn remove(&mut self, name: &str) -> Result<(), Error> {
        self.get(name)?;
        self.contexts.remove(name);
        self.current.take_if(|current| current == name);
        Ok(())
    }
}

/// Decides which server to talk to. The contexts are read only when they decide it: a broken file
/// of them stops no command that names its server otherwise.
///
/// # Errors
/// The contexts cannot be read, two tokens are given at once, the context does not exist, or a URL is none.
pub(crate) fn target(
    flags: &TargetFlags,
    env: &Environment,
    contexts: impl FnOnce() -> Result<Contexts, Error>,
) -> Result<Target, Error> {
    let explicit = explicit_token(flags, env)?;
    let Named { server, token, ca_file, by } = server_of(flags, env, contexts)?;
    let server = <Url as Setting>::parse(&server)
        .map_err(|why| Error::Server { named_by: by.clone(), why })?;
    Ok(Target { server, token: explicit.unwrap_or(token), named_by: by, ca_file })
}

/// The context that decides which server it is; `None` when a flag or a variable names the server itself.
pub(crate) fn deciding(
    flags: &TargetFlags,
    env: &Environment,
    contexts: &Contexts,
) -> Option<String> {
    if flags.server.is_some() {
        return None;
    }
    let from_env = || match env.get("FLEETWRIGHT_SERVER") {
        Some(_) => None,
        None => env.get("FLEETWRIGHT_CONTEXT").or(contexts.current.as_ref()).cloned(),
    };
    flags.context.clone().or_else(from_env)
}

/// A server, what belongs to it, and what named it.
struct Named {
    server: String,
    token: TokenSource,
    ca_file: Option<PathBuf>,
    by: String,
}

/// The token that a flag or the environment names.
fn explicit_token(flags: &TargetFlags, env: &Environment) -> Result<Option<TokenSource>, Error> {
    let from_env = env.get("FLEETWRIGHT_TOKEN").map(|token| Secret(token.clone()));
    let file_from_env = env.get("FLEETWRIGHT_TOKEN_FILE").map(PathBuf::from);
    match (flags.token.clone(), flags.token_file.clone()) {
        (Some(_), Some(_)) => {
            return Err(Error::GivenTwice { one: "--token", other: "--token-file" });
        }
        (Some(token), None) => return Ok(Some(TokenSource::Given(token))),
        (None, Some(file)) => return Ok(Some(TokenSource::File(file))),
        (None, None) => {}
    }
    match (from_env, file_from_env) {
        (Some(_), Some(_)) => {
            Err(Error::GivenTwice { one: "FLEETWRIGHT_TOKEN", other: "FLEETWRIGHT_TOKEN_FILE" })
        }
        (Some(token), None) => Ok(Some(TokenSource::Given(token))),
        (None, Some(file)) => Ok(Some(TokenSource::File(file))),
        (None, None) => Ok(None),
    }
}

/// The server. A context that is named for this command comes before the variable
/// `FLEETWRIGHT_SERVER`, which is set for many commands.
fn server_of(
    flags: &TargetFlags,
    env: &Environment,
    contexts: impl FnOnce() -> Result<Contexts, Error>,
) -> Result<Named, Error> {
    let bare = |server: &str, by: &str| Named {
        server: server.to_owned(),
        token: TokenSource::None,
        ca_file: None,
        by: by.to_owned(),
    };
    if let Some(server) = &flags.server {
        return Ok(bare(server, "--server"));
    }
    if let Some(name) = &flags.context {
        return Ok(from_context(name, contexts()?.get(name)?));
    }
    if let Some(server) = env.get("FLEETWRIGHT_SERVER") {
        return Ok(bare(server, "FLEETWRIGHT_SERVER"));
    }
    let contexts = contexts()?;
    if let Some(name) = env.get("FLEETWRIGHT_CONTEXT").or(contexts.current.as_ref()) {
        return Ok(from_context(name, contexts.get(name)?));
    }
    let token = TokenSource::FileIfReadable(PathBuf::from(LOCAL_TOKEN));
    Ok(Named { token, ..bare(LOCAL_SERVER, "the default, a server of this machine") })
}

fn from_context(name: &str, context: &Context) -> Named {
    let token = match (&context.session, &context.token, &context.token_file) {
        (Some(session), _, _) => TokenSource::Session(Secret(session.clone())),
        (None, Some(token), _) => TokenSource::Given(Secret(token.clone())),
        (None, None, Some(file)) => TokenSource::File(file.clone()),
        (None, None, None) => TokenSource::None,
    };
    let (server, ca_file) = (context.server.clone(), context.ca_file.clone());
    Named { server, token, ca_file, by: format!("context {name}") }
}

/// A token as it goes into a header, without the white space around it.
fn token(text: &str, place: impl FnOnce() -> String) -> Result<Secret, Error> {
    let text = text.trim();
    let why = match text {
        "" => "is empty; leave it out, or give the whole token",
        _ if text.lines().count() > 1 => "has several lines; a token is one line",
        _ if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            "has characters that no token has"
        }
        _ => return Ok(Secret(text.to_owned())),
    };
    Err(Error::Token { place: place(), why })
}

impl TokenSource {
    /// Fetches the token; `None` when there is none.
    ///
    /// # Errors
    /// A file that must be there cannot be read, or what it holds is no token.
    pub(crate) fn read(&self) -> Result<Option<Secret>, Error> {
        let (path, must) = match self {
            Self::Given(Secret(text)) => {
                return token(text, || "that is given".to_owned()).map(Some);
            }
            Self::Session(Secret(text)) => {
                return token(text, || "of the session".to_owned()).map(Some);
            }
            Self::None => return Ok(None),
            Self::File(path) => (path, true),
            Self::FileIfReadable(path) => (path, false),
        };
        match read_text(path) {
            Ok(text) => token(&text, || format!("in {}", path.display())).map(Some),
            Err(source) if must => Err(Error::File { doing: "read", path: path.clone(), source }),
            Err(_) => Ok(None),
        }
    }
}

/// Writes beside the file and moves it over, so that a crash leaves the old or the new one.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(directory)?;
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests;
