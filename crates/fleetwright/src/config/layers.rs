//! Laying the layers over each other. Pure: what there is to read was read before.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::error::{Error, Place, Problem, nearest};
use super::keys::{KEYS, Key};
use super::setting::Shape;
use super::types::Config;
use super::{Environment, Flags};

/// All layers over the defaults, the weakest first.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    /// The configuration file and its text.
    pub(crate) file: Option<(&'a Path, &'a str)>,
    /// Files that the service manager placed, by name (`server.tls_key`, `agent.join`).
    pub(crate) credentials: BTreeMap<String, PathBuf>,
    /// The environment.
    pub(crate) env: &'a Environment,
    /// Flags that were given.
    pub(crate) flags: &'a Flags,
    /// Whether this process is root: defaults differ.
    pub(crate) root: bool,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody set it.
    Default,
    /// A line of the configuration file.
    File(PathBuf, usize),
    /// `$CREDENTIALS_DIRECTORY`.
    Credential(PathBuf),
    /// An environment variable.
    Env(String),
    /// A flag.
    Flag(String),
    /// A file that holds the secret, and what named it.
    SecretFile(PathBuf, Box<Self>),
}

/// Configuration, and where each value came from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Loaded {
    /// The values.
    pub(crate) config: Config,
    /// Where they came from, by key; a key that is not here has its default.
    pub(crate) origins: BTreeMap<&'static str, Origin>,
    /// Things to log: nothing is wrong enough to refuse.
    pub(crate) warnings: Vec<String>,
    /// Secrets that are still in files.
    secret_files: BTreeMap<&'static str, PathBuf>,
}

/// Variables of ours that are no keys: the command line reads them.
const OTHER_VARIABLES: [&str; 5] = [
    "FLEETWRIGHT_CONFIG",
    "FLEETWRIGHT_SERVER",
    "FLEETWRIGHT_TOKEN",
    "FLEETWRIGHT_TOKEN_FILE",
    "FLEETWRIGHT_CONTEXT",
];

/// Lays all layers over the defaults.
///
/// # Errors
/// All that is wrong in any layer.
pub(crate) fn resolve(inputs: &Inputs<'_>) -> Result<Loaded, Error> {
    let home = inputs.env.get("HOME").map(String::as_str);
    let mut layers = Layers {
        loaded: Loaded {
            config: Config::defaults(inputs.root, home),
            origins: BTreeMap::new(),
            warnings: Vec::new(),
            secret_files: BTreeMap::new(),
        },
        problems: Vec::new(),
        seen: BTreeSet::new(),
    };
    if let Some((path, text)) = inputs.file {
        layers.lay_file(path, text);
    }
    layers.lay_credentials(&inputs.credentials);
    layers.lay_environment(inputs.env);
    layers.lay_flags(inputs.flags);
    Error::unless_empty(layers.problems).map(|()| layers.loaded)
}

impl Loaded {
    /// Where the value of a key came from.
    pub(crate) fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }

    /// Does without a secret that is in a file.
    pub(crate) fn leave_secret(&mut self, key: &str) {
        self.secret_files.remove(key);
    }

    /// Fetches the secrets that are in files.
    ///
    /// # Errors
    /// Those that cannot be read or are empty.
    pub(crate) fn read_secrets(
        mut self,
        read: impl Fn(&Path) -> Result<String, Problem>,
    ) -> Result<Self, Error> {
        let mut problems = Vec::new();
        for (name, path) in std::mem::take(&mut self.secret_files) {
            let key = Key::named(name).expect("only keys are put into secret_files");
            let origin = Origin::SecretFile(path.clone(), Box::new(self.origin(name).clone()));
            let set = |text: String| {
                (key.set)(&mut self.config, &text).map_err(|why| invalid(&origin, name, why))
            };
            match read(&path).and_then(set) {
                Ok(()) => drop(self.origins.insert(key.name, origin)),
                Err(problem) => problems.push(problem),
            }
        }
        Error::unless_empty(problems).map(|()| self)
    }
}

fn invalid(origin: &Origin, key: &str, why: String) -> Problem {
    Problem::Invalid { origin: origin.clone(), key: key.to_owned(), why }
}

impl Origin {
    /// For the head of an error: a place in a file as compilers write it.
    pub(crate) fn brief(&self) -> String {
        match self {
            Self::File(path, line) => format!("{}:{line}", path.display()),
            Self::Default
            | Self::Credential(_)
            | Self::Env(_)
            | Self::Flag(_)
            | Self::SecretFile(..) => self.to_string(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "file {}:{line}", path.display()),
            Self::Credential(path) => write!(f, "credential {}", path.display()),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::SecretFile(path, by) => write!(f, "file {}, named by {by}", path.display()),
        }
    }
}

/// The layers so far.
struct Layers {
    loaded: Loaded,
    problems: Vec<Problem>,
    /// Keys that the layer at hand has set.
    seen: BTreeSet<&'static str>,
}

impl Layers {
    fn lay_file(&mut self, path: &Path, text: &str) {
        self.seen.clear();
        let document = match DeTable::parse(text) {
            Ok(document) => document.into_inner(),
            Err(error) => {
                let at = Place::of(path, text, error.span().map_or(0, |span| span.start));
                return self.problems.push(Problem::Syntax { at, why: error.message().to_owned() });
            }
        };
        let source = Source { path, text };
        for (table, content) in in_order(&document) {
            if !is_table(table.get_ref()) {
                self.problems.push(source.unknown(table.get_ref(), table.span().start));
                continue;
            }
            self.lay_table(&source, table.get_ref(), content);
        }
    }

    fn lay_table(&mut self, source: &Source<'_>, table: &str, content: &Spanned<DeValue<'_>>) {
        let Some(entries) = content.get_ref().as_table() else {
            return self.problems.push(source.wrong_type(table, "a table", content));
        };
        for (name, value) in in_order(entries) {
            let full = format!("{table}.{}", name.get_ref());
            if is_table(&full) {
                self.lay_table(source, &full, value);
            } else {
                self.lay_entry(source, &full, name, value);
            }
        }
    }

    fn lay_entry(
        &mut self,
        source: &Source<'_>,
        full: &str,
        name: &Spanned<Text<'_>>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let Some((key, is_file)) = lookup(full) else {
            return self.problems.push(source.unknown(full, name.span().start));
        };
        let shape = if is_file { Shape::Text } else { key.shape };
        match text_of(shape, value.get_ref()) {
            Some(text) => self.offer(key, is_file, &text, source.origin(name.span().start)),
            None => self.problems.push(source.wrong_type(full, shape.wanted(), value)),
        }
    }

    fn lay_credentials(&mut self, credentials: &BTreeMap<String, PathBuf>) {
        self.seen.clear();
        for (key, path) in KEYS.iter().filter_map(|key| Some((key, credentials.get(key.name)?))) {
            let origin = Origin::Credential(path.clone());
            if key.secret {
                self.offer(key, true, &path.display().to_string(), origin);
            } else if matches!(key.name, "server.tls_cert" | "server.tls_key") {
                self.offer(key, false, &path.display().to_string(), origin);
            }
        }
    }

    fn lay_environment(&mut self, env: &Environment) {
        self.seen.clear();
        for (variable, text) in env.iter().filter(|(name, _)| name.starts_with("FLEETWRIGHT_")) {
            let found = KEYS
                .iter()
                .find_map(|key| is_variable_of(key, variable).map(|is_file| (key, is_file)));
            match found {
                Some((key, is_file)) => {
                    self.offer(key, is_file, text, Origin::Env(variable.clone()));
                }
                None if OTHER_VARIABLES.contains(&variable.as_str()) => {}
                None => self.loaded.warnings.push(unknown_variable(variable)),
            }
        }
    }

    fn lay_flags(&mut self, flags: &Flags) {
        self.seen.clear();
        for (name, text) in flags {
            let (key, is_file) = lookup(name).expect("flags are named for keys");
            self.offer(key, is_file, text, Origin::Flag(key.flag()));
        }
    }

    /// One value of the layer at hand.
    fn offer(&mut self, key: &'static Key, is_file: bool, text: &str, origin: Origin) {
        if !self.seen.insert(key.name) {
            return self.problems.push(Problem::GivenTwice { origin, key: key.name.to_owned() });
        }
        self.loaded.secret_files.remove(key.name);
        if is_file {
            self.loaded.secret_files.insert(key.name, PathBuf::from(text));
        } else if let Err(why) = (key.set)(&mut self.loaded.config, text) {
            self.problems.push(invalid(&origin, key.name, why));
        }
        self.loaded.origins.insert(key.name, origin);
    }
}

/// A key by its name in the file, and whether the name means the file of a secret.
pub(super) fn lookup(name: &str) -> Option<(&'static Key, bool)> {
    let secret = || Key::named(name.strip_suffix("_file")?).filter(|key| key.secret);
    Key::named(name).map(|key| (key, false)).or_else(|| secret().map(|key| (key, true)))
}

/// Whether `variable` sets this key; `Some(true)` when it names the file of a secret.
fn is_variable_of(key: &Key, variable: &str) -> Option<bool> {
    let own = key.variable();
    if variable == own {
        return Some(false);
    }
    (key.secret && variable.strip_suffix("_FILE") == Some(own.as_str())).then_some(true)
}

fn unknown_variable(variable: &str) -> String {
    let names: Vec<String> = KEYS.iter().map(Key::variable).collect();
    let hint = nearest(variable, names.iter().map(String::as_str));
    let hint = hint.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
    format!("environment variable {variable} means nothing here{hint}")
}

type Text<'a> = std::borrow::Cow<'a, str>;

/// A configuration file, to say where something is in it.
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn place(&self, byte: usize) -> Place {
        Place::of(self.path, self.text, byte)
    }

    fn origin(&self, byte: usize) -> Origin {
        Origin::File(self.path.to_owned(), self.place(byte).line)
    }

    fn wrong_type(&self, key: &str, wanted: &'static str, value: &Spanned<DeValue<'_>>) -> Problem {
        let (at, found) = (self.place(value.span().start), type_of(value.get_ref()));
        Problem::WrongType { at, key: key.to_owned(), wanted, found }
    }

    fn unknown(&self, key: &str, byte: usize) -> Problem {
        let names: Vec<String> = KEYS.iter().flat_map(file_names).collect();
        let tables = ["log", "server", "agent", "dialects", "dialects.saltpeter"];
        let candidates = names.iter().map(String::as_str);
        let hint = nearest(key, candidates.chain(tables)).or_else(|| in_some_table(key));
        Problem::UnknownKey { at: self.place(byte), key: key.to_owned(), nearest: hint }
    }
}

/// The full name of a key that was written without its table.
fn in_some_table(key: &str) -> Option<String> {
    let bare = key.rsplit('.').next()?;
    let found =
        KEYS.iter().find(|key| key.name.rsplit_once('.').is_some_and(|(_, name)| name == bare));
    found.map(|key| key.name.to_owned())
}

/// The names that a key has in a file.
fn file_names(key: &Key) -> Vec<String> {
    let mut names = vec![key.name.to_owned()];
    names.extend(key.secret.then(|| key.file_name()));
    names
}

/// Whether a table of this name exists.
fn is_table(name: &str) -> bool {
    KEYS.iter().any(|key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// The entries of a table as the file has them, so that errors come from top to bottom.
fn in_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(&'t Spanned<Text<'i>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

/// A value as the text that [`Key::set`] takes; `None` when the key takes another type.
fn text_of(shape: Shape, value: &DeValue<'_>) -> Option<String> {
    match (shape, value) {
        (Shape::Text | Shape::Number, DeValue::String(text)) => Some(text.to_string()),
        (Shape::Number, DeValue::Integer(number)) => decimal(number),
        (Shape::Switch, DeValue::Boolean(on)) => Some(on.to_string()),
        (Shape::List, DeValue::Array(items)) => {
            let texts: Option<Vec<&str>> =
                items.iter().map(|item| item.get_ref().as_str()).collect();
            texts.map(|texts| texts.join(","))
        }
        (Shape::Text | Shape::Number | Shape::Switch | Shape::List, _) => None,
    }
}

fn decimal(number: &DeInteger<'_>) -> Option<String> {
    i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number.to_string())
}

fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
