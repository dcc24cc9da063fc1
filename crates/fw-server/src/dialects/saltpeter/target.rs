//! Salt's targets, said as selectors.
//!
//! A compound target is words between spaces: Salt puts the answer for each in its place and has
//! Python evaluate the line, so `not` binds tighter than `and`, `and` tighter than `or`, and a
//! parenthesis is one only as a word of its own. What Python would refuse is refused here.

mod leaf;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use fw_core::caret::Error;
use fw_core::select::{DEEPEST, LONGEST, Selector};

/// Half of what a selector may have: one that is printed can need a parenthesis more for each level.
const DEEPEST_TARGET: usize = DEEPEST / 2;

/// Node groups by name: each a compound target.
pub type Groups = BTreeMap<String, String>;

/// What kind of target an expression is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Glob,
    Pcre,
    List,
    Grain,
    GrainPcre,
    IpCidr,
    Compound,
    NodeGroup,
}

impl Kind {
    /// All kinds by their names in Salt.
    pub const ALL: [(&'static str, Self); 8] = [
        ("glob", Self::Glob),
        ("pcre", Self::Pcre),
        ("list", Self::List),
        ("grain", Self::Grain),
        ("grain_pcre", Self::GrainPcre),
        ("ipcidr", Self::IpCidr),
        ("compound", Self::Compound),
        ("nodegroup", Self::NodeGroup),
    ];
}

impl std::str::FromStr for Kind {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self, Error> {
        let known = Self::ALL.iter().find(|(known, _)| *known == name);
        known.map(|(_, kind)| *kind).ok_or_else(|| {
            let names = Self::ALL.map(|(name, _)| name).join(", ");
            Error::new(name, 0, format!("no such kind of target is supported; there are {names}"))
        })
    }
}

/// Says a target as a selector.
///
/// # Errors
/// It is malformed, or Salt would match nothing whatever the hosts; the error says at which character.
pub fn translate(kind: Kind, target: &str, groups: &Groups) -> Result<Selector, Error> {
    if target.len() > LONGEST {
        return Err(Error::new(target, 0, format!("a target has at most {LONGEST} bytes")));
    }
    if target.trim().is_empty() {
        return Err(Error::new(target, 0, "this target is empty; write * for all hosts"));
    }
    let selector = match kind {
        Kind::Compound => compound(target, groups, 0)?,
        Kind::NodeGroup => {
            group(target, groups, 0).map_err(|message| Error::new(target, 0, message))?
        }
        Kind::Glob | Kind::Pcre | Kind::List | Kind::Grain | Kind::GrainPcre | Kind::IpCidr => {
            leaf::read(kind, ':', target)?
        }
    };
    // A server is sent the text, so the text must be one that it takes.
    match Selector::parse(&selector.to_string()) {
        Ok(_) => Ok(selector),
        Err(error) => {
            Err(Error::new(target, 0, format!("too much for one selector: {}", error.message)))
        }
    }
}

/// A compound target that has a name.
fn group(name: &str, groups: &Groups, depth: usize) -> Result<Selector, String> {
    if depth > DEEPEST_TARGET {
        return Err(format!("the node group {name} holds itself, or too many others"));
    }
    let Some(target) = groups.get(name) else {
        return Err(if groups.is_empty() {
            "node groups are not known here; write out the hosts of the group".to_owned()
        } else {
            let known: Vec<_> = groups.keys().map(String::as_str).collect();
            format!("there is no node group {name}; there are {}", known.join(", "))
        });
    };
    compound(target, groups, depth + 1)
        .map_err(|error| format!("in the node group {name} ({target}): {}", error.message))
}

fn compound(text: &str, groups: &Groups, depth: usize) -> Result<Selector, Error> {
    let words = words(text).into_iter().peekable();
    let mut parser = Parser { text, words, groups, depth };
    let selector = parser.or()?;
    match parser.words.next() {
        None => Ok(selector),
        Some((at, ")")) => Err(Error::new(text, at, "this ')' was never opened")),
        Some((at, _)) => {
            Err(Error::new(text, at, "say how this goes with what stands before it: 'and' or 'or'"))
        }
    }
}

/// The words and where each begins, in characters.
fn words(text: &str) -> Vec<(usize, &str)> {
    let place = |word: &str| {
        let bytes = word.as_ptr().addr() - text.as_ptr().addr();
        text.get(..bytes).map_or(0, |before| before.chars().count())
    };
    text.split_whitespace().map(|word| (place(word), word)).collect()
}

struct Parser<'t> {
    text: &'t str,
    words: std::iter::Peekable<std::vec::IntoIter<(usize, &'t str)>>,
    groups: &'t Groups,
    depth: usize,
}

impl Parser<'_> {
    fn or(&mut self) -> Result<Selector, Error> {
        let mut parts = vec![self.and()?];
        while self.words.next_if(|(_, word)| *word == "or").is_some() {
            parts.push(self.and()?);
        }
        self.joined(Selector::any_of(parts))
    }

    fn and(&mut self) -> Result<Selector, Error> {
        let mut parts = vec![self.not()?];
        // Salt itself puts an 'and' before a 'not' that follows hosts.
        while self.words.next_if(|(_, word)| *word == "and").is_some()
            || self.words.peek().is_some_and(|(_, word)| *word == "not")
        {
            parts.push(self.not()?);
        }
        self.joined(Selector::all_of(parts))
    }

    fn joined(&self, selector: Option<Selector>) -> Result<Selector, Error> {
        selector.ok_or_else(|| Error::new(self.text, 0, "this target is empty"))
    }

    fn not(&mut self) -> Result<Selector, Error> {
        if self.words.next_if(|(_, word)| *word == "not").is_none() {
            return self.one();
        }
        if let Some((at, _)) = self.words.peek().copied().filter(|(_, word)| *word == "not") {
            return Err(self.error(at, "Salt takes no 'not' after 'not'; leave out both"));
        }
        Ok(self.one()?.negated())
    }

    fn one(&mut self) -> Result<Selector, Error> {
        let Some((at, word)) = self.words.next() else {
            return Err(
                self.error(self.text.chars().count(), "the target ends where hosts should follow")
            );
        };
        match word {
            "(" => self.parenthesis(at),
            ")" | "and" | "or" | "not" => {
                Err(self.error(at, format!("hosts should stand before this '{word}'")))
            }
            word => self.word(at, word),
        }
    }

    fn parenthesis(&mut self, open: usize) -> Result<Selector, Error> {
        self.depth += 1;
        if self.depth > DEEPEST_TARGET {
            return Err(self.error(open, format!("nested deeper than {DEEPEST_TARGET} levels")));
        }
        let inner = self.or()?;
        self.depth -= 1;
        match self.words.next() {
            Some((_, ")")) => Ok(inner),
            Some((at, _)) => {
                Err(self.error(at, "say how this goes with what stands before it: 'and' or 'or'"))
            }
            None => Err(self.error(open, "this '(' is never closed")),
        }
    }

    fn word(&mut self, at: usize, word: &str) -> Result<Selector, Error> {
        let Some((engine, pattern)) = word.split_once('@') else {
            if let Some(index) = word.chars().position(|c| matches!(c, '(' | ')')) {
                return Err(self.error(at + index, "put spaces around each parenthesis"));
            }
            return self.leaf(Kind::Glob, ':', at, word);
        };
        let from = at + engine.chars().count() + 1;
        if pattern.is_empty() {
            return Err(self.error(from, "a target should follow '@' directly"));
        }
        let mut letters = engine.chars();
        let (letter, separator) = (letters.next(), letters.next());
        if letters.next().is_some() {
            return Err(self.error(at, UNKNOWN));
        }
        let kind = match (letter, separator) {
            (Some('G'), _) => Kind::Grain,
            (Some('P'), _) => Kind::GrainPcre,
            (Some('E'), None) => Kind::Pcre,
            (Some('L'), None) => Kind::List,
            (Some('S'), None) => Kind::IpCidr,
            (Some('N'), None) => {
                return group(pattern, self.groups, self.depth)
                    .map_err(|message| self.error(from, message));
            }
            (_, _) => return Err(self.error(at, UNKNOWN)),
        };
        self.leaf(kind, separator.unwrap_or(':'), from, pattern)
    }

    fn leaf(&self, kind: Kind, separator: char, at: usize, word: &str) -> Result<Selector, Error> {
        leaf::read(kind, separator, word)
            .map_err(|error| self.error(at + error.offset, error.message))
    }

    fn error(&self, at: usize, message: impl Into<String>) -> Error {
        Error::new(self.text, at, message)
    }
}

const UNKNOWN: &str =
    "before '@' stands G, P, E, L, S or N here; G and P may have a separator after them";
