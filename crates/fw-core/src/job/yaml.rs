//! YAML as a tree that knows its places. The only module that knows the YAML crate.
//!
//! The tree is untyped so that one bad job spoils no other; scalars keep the text that was
//! written, so that `08` and `yes` mean what each key says they mean.

use std::fmt;

use fw_proto::api::SourceError;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Budget, Location, Options, Spanned};

use crate::caret::caret;

/// The deepest nesting that a job file may have; the format itself needs 6.
const DEEPEST: usize = 32;

/// The most events of the parser that aliases may add. Aliases are for a handful of common keys;
/// a text that has more is better written out, and a small one must not become a large tree.
const MOST_ALIASED: usize = 5000;

/// Where something stands: line and column in characters, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

/// A node and where it is defined.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What stands there.
    pub value: Value,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub enum Value {
    /// Nothing.
    Null,
    /// A single value.
    Scalar {
        /// The value of a text; of anything else the text that was written.
        text: String,
        /// How many characters after the node's place the text begins, if it stands there as
        /// it is, on one line.
        shift: Option<u32>,
        /// It stands in no quotes and in no block, so that YAML may read it as more than a text.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// Keys and values in the order of the text.
    Map(Vec<(Node, Node)>),
}

/// A text that is no YAML, or not one document.
#[derive(Debug)]
pub struct Malformed {
    /// Line; 0 when not known.
    pub line: u32,
    /// Column; 0 when not known.
    pub column: u32,
    /// What is wrong.
    pub message: String,
}

/// A document, and the first key that stands twice in a map of it.
#[derive(Debug)]
pub struct Document {
    /// All of it.
    pub root: Node,
    /// The first key that stands twice.
    pub duplicate: Option<Malformed>,
}

/// Reads a document. Keys that stand twice are kept where possible: whoever reads the map reports
/// them in its own words.
///
/// # Errors
/// It is no YAML.
pub fn document(text: &str) -> Result<Document, Malformed> {
    let (raw, duplicate) = match parse(text, DuplicateKeyPolicy::Error) {
        Ok(raw) => (raw, None),
        Err(error) => {
            let serde_saphyr::Error::DuplicateMappingKey { .. } = error.without_snippet() else {
                return Err(malformed(&error));
            };
            let again = parse(text, DuplicateKeyPolicy::LastWins);
            (again.map_err(|error| malformed(&error))?, Some(malformed(&error)))
        }
    };
    Ok(Document { root: node(text, raw), duplicate })
}

fn parse(text: &str, duplicates: DuplicateKeyPolicy) -> Result<Spanned<Raw>, serde_saphyr::Error> {
    let mut budget = Budget::default();
    budget.max_depth = DEEPEST;
    let mut options = Options::default();
    options.budget = Some(budget);
    options.alias_limits.max_total_replayed_events = MOST_ALIASED;
    options.duplicate_keys = duplicates;
    options.non_finite_float_policy = NonFiniteFloatPolicy::AsString;
    options.with_snippet = false;
    serde_saphyr::from_str_with_options(text, options)
}

fn malformed(error: &serde_saphyr::Error) -> Malformed {
    let place = error.location().map(place_of);
    let (line, column) = place.map_or((0, 0), |place| (place.line, place.column));
    let several = matches!(error.without_snippet(), serde_saphyr::Error::MultipleDocuments { .. });
    let message = if several {
        "a second document begins here; a file holds one".to_owned()
    } else {
        let said = error.without_snippet().to_string();
        let said = said.lines().next().unwrap_or_default();
        format!("not YAML: {}", said.split(" at line ").next().unwrap_or_default())
    };
    Malformed { line, column, message }
}

fn place_of(location: Location) -> Place {
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Place { line: number(location.line()), column: number(location.column()) }
}

/// A node as the crate gives it.
#[derive(Debug)]
enum Raw {
    Null,
    /// A bool or a number: only how it is written counts.
    Plain,
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

fn node(text: &str, raw: Spanned<Raw>) -> Node {
    let written = source(text, raw.defined);
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Plain => {
            Value::Scalar { text: written.trim().to_owned(), shift: Some(0), plain: true }
        }
        Raw::Text(value) => {
            // An infinite number comes as a text that is not what was written.
            let number = matches!(value.as_str(), ".inf" | "-.inf" | ".nan");
            let value = if number { written.trim().to_owned() } else { value };
            let one_line = !value.is_empty() && !value.contains('\n');
            let before = written.find(&value).filter(|_| one_line);
            let before = before.and_then(|byte| written.get(..byte));
            // A text that was folded may begin on a later line.
            let before = before.filter(|before| !before.contains(['\n', '\r']));
            let shift = before.and_then(|before| u32::try_from(before.chars().count()).ok());
            let plain = !written.trim_start().starts_with(['"', '\'', '|', '>']);
            Value::Scalar { text: value, shift, plain }
        }
        Raw::List(items) => Value::List(items.into_iter().map(|item| node(text, item)).collect()),
        Raw::Map(entries) => {
            let entry = |(key, value)| (node(text, key), node(text, value));
            Value::Map(entries.into_iter().map(entry).collect())
        }
    };
    Node { place: place_of(raw.defined), value }
}

/// The text of a node as it is written.
fn source(text: &str, location: Location) -> &str {
    let span = location.span();
    let range = || {
        let from = usize::try_from(span.byte_offset()?).ok()?;
        text.get(from..from.checked_add(usize::try_from(span.byte_len()?).ok()?)?)
    };
    range().unwrap_or_default()
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyNode)
    }
}

struct AnyNode;

impl<'de> Visitor<'de> for AnyNode {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }
    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}

/// The lines of a text as YAML counts them (YAML 1.2.2, section 5.4): a lone carriage return ends one too.
#[must_use]
pub fn lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some((line, after)) = rest.split_once(['\n', '\r']) {
        lines.push(line);
        let both = rest.get(line.len()..).is_some_and(|end| end.starts_with("\r\n"));
        rest = if both { after.get(1..).unwrap_or_default() } else { after };
    }
    lines.push(rest);
    lines
}

/// An error at a place of a file, with the line and a caret. `lines` are those of the file.
#[must_use]
pub fn error(
    file: &str,
    lines: &[&str],
    place: Place,
    job: Option<&str>,
    message: String,
) -> SourceError {
    let index = usize::try_from(place.line).ok().and_then(|line| line.checked_sub(1));
    let line = index.and_then(|index| lines.get(index));
    let column = usize::try_from(place.column.saturating_sub(1)).unwrap_or_default();
    SourceError {
        file: file.to_owned(),
        line: place.line,
        column: place.column,
        job: job.map(str::to_owned),
        message,
        snippet: line.map(|line| caret(line.trim_end(), column)),
    }
}
