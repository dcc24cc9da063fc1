//! Selectors: which hosts are meant.
//!
//! ```text
//! web*                          a glob over names: * ? [a-z] [!a-z], case counts
//! web1,web2,db*                 a list: each item a name or a glob
//! ~^web\d+$                     a regular expression, anywhere in the name
//! ~"^(web|db) ?\d+$"            quoted, where it has spaces or parentheses
//! label:stage=canary            a label; the value is a glob
//! fact:os=Debian*               a fact; the value is a glob
//! fact:os~^(Deb|Ubu)            a fact; the value is a regular expression
//! os:Debian                     a fact; never a label
//! ifact:os:debian               a fact, whatever the case; ifact~os:^deb by regular expression
//! net:10.0.0.0/8                an address in a network, by the facts ipv4 and ipv6
//! web* and not (os:Debian or label:stage=canary)
//! ```
//!
//! `not` binds tighter than `and`, `and` tighter than `or`. Text goes through three steps with a
//! file each: words (`token`), the tree (`parse`), and what a word can mean (`matcher`).
//! A further kind of target is one more [`Matcher`], recognised in one place.

mod fold;
mod glob;
mod matcher;
mod net;
mod parse;
mod pattern;
mod token;

use std::collections::BTreeSet;
use std::fmt;

pub use crate::caret::Error;
use crate::host::{Host, Seen};
pub use fold::Fold;
pub use glob::Glob;
pub use matcher::{Fact, Label, Matcher, Names};
pub use net::Net;
pub use pattern::Regex;

/// The longest expression, in bytes. A list of a thousand host names fits.
pub const LONGEST: usize = 16 * 1024;

/// The deepest nesting of parentheses and `not`.
pub const DEEPEST: usize = 64;

/// An expression that picks hosts.
#[derive(Debug, Clone, PartialEq)]
pub struct Selector {
    root: Expr,
}

/// A node of the expression.
#[derive(Debug, Clone, PartialEq)]
enum Expr {
    /// A word.
    Match(Matcher),
    /// Not this.
    Not(Box<Self>),
    /// All of these, two or more.
    And(Vec<Self>),
    /// Any of these, two or more.
    Or(Vec<Self>),
}

impl Selector {
    /// Reads an expression.
    ///
    /// # Errors
    /// The text is no selector; the error says why and at which character.
    pub fn parse(text: &str) -> Result<Self, Error> {
        parse::expression(text).map(|root| Self { root })
    }

    /// All of these; `None` when there are none.
    #[must_use]
    pub fn all_of(parts: Vec<Self>) -> Option<Self> {
        Self::joined(parts, Expr::And)
    }

    /// Any of these; `None` when there are none.
    #[must_use]
    pub fn any_of(parts: Vec<Self>) -> Option<Self> {
        Self::joined(parts, Expr::Or)
    }

    /// All other hosts.
    #[must_use]
    pub fn negated(self) -> Self {
        Self { root: Expr::Not(Box::new(self.root)) }
    }

    fn joined(mut parts: Vec<Self>, join: fn(Vec<Expr>) -> Expr) -> Option<Self> {
        if parts.len() < 2 {
            return parts.pop();
        }
        Some(Self { root: join(parts.into_iter().map(|part| part.root).collect()) })
    }

    /// Whether the host is meant. One for which it is [undecided](Self::decide) is not.
    #[must_use]
    pub fn matches(&self, host: Seen<'_>) -> bool {
        self.decide(host) == Some(true)
    }

    /// Whether the host is meant; `None` when a regular expression took too many steps to say. Such a
    /// host is never picked, not even by `not`.
    #[must_use]
    pub fn decide(&self, host: Seen<'_>) -> Option<bool> {
        self.root.matches(host)
    }

    /// Whether it looks at names and labels only. What hosts say of themselves must grant no right.
    #[must_use]
    pub fn is_by_name_and_label(&self) -> bool {
        self.root.is_by_name_and_label()
    }

    /// The only names that hosts who are meant can have; `None` when it takes a look at each host.
    /// With it, a job for one host of ten thousand costs one look-up.
    #[must_use]
    pub fn names(&self) -> Option<BTreeSet<&str>> {
        self.root.names()
    }
}

impl Expr {
    fn is_by_name_and_label(&self) -> bool {
        match self {
            Self::Match(Matcher::Names(_) | Matcher::Regex(_) | Matcher::Label(_)) => true,
            Self::Match(Matcher::Fact(_) | Matcher::Fold(_) | Matcher::Net(_)) => false,
            Self::Not(part) => part.is_by_name_and_label(),
            Self::And(parts) | Self::Or(parts) => parts.iter().all(Self::is_by_name_and_label),
        }
    }
}

/// The hosts that are meant, sorted by name.
pub fn select<'h>(selector: &Selector, hosts: impl IntoIterator<Item = &'h Host>) -> Vec<&'h Host> {
    let mut chosen: Vec<_> =
        hosts.into_iter().filter(|host| selector.matches(host.seen())).collect();
    chosen.sort_by(|a, b| a.name.cmp(&b.name));
    chosen
}

/// Whether any answer is yes; `None` when none is and one is unknown.
fn any(answers: impl IntoIterator<Item = Option<bool>>) -> Option<bool> {
    let mut found = Some(false);
    for answer in answers {
        match answer {
            Some(true) => return Some(true),
            Some(false) => {}
            None => found = None,
        }
    }
    found
}

impl Expr {
    fn names(&self) -> Option<BTreeSet<&str>> {
        match self {
            Self::Match(Matcher::Names(names)) => names.plain(),
            Self::Match(
                Matcher::Regex(_)
                | Matcher::Label(_)
                | Matcher::Fact(_)
                | Matcher::Fold(_)
                | Matcher::Net(_),
            )
            | Self::Not(_) => None,
            Self::And(parts) => parts.iter().find_map(Self::names),
            Self::Or(parts) => {
                let names: Option<Vec<_>> = parts.iter().map(Self::names).collect();
                names.map(|names| names.into_iter().flatten().collect())
            }
        }
    }

    fn matches(&self, host: Seen<'_>) -> Option<bool> {
        match self {
            Self::Match(matcher) => matcher.matches(host),
            Self::Not(inner) => inner.matches(host).map(|meant| !meant),
            Self::And(parts) => {
                let others = parts.iter().map(|part| part.matches(host).map(|meant| !meant));
                any(others).map(|other| !other)
            }
            Self::Or(parts) => any(parts.iter().map(|part| part.matches(host))),
        }
    }

    /// Writes an operand: in parentheses when it binds less tightly than what it stands in.
    fn operand(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Match(_) | Self::Not(_) => write!(f, "{self}"),
            Self::And(_) | Self::Or(_) => write!(f, "({self})"),
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |parts: &[Self], word: &str, f: &mut fmt::Formatter<'_>| {
            parts.iter().enumerate().try_for_each(|(i, part)| {
                if i > 0 {
                    f.write_str(word)?;
                }
                part.operand(f)
            })
        };
        match self {
            Self::Match(matcher) => matcher.fmt(f),
            Self::Not(inner) => {
                f.write_str("not ")?;
                inner.operand(f)
            }
            Self::And(parts) => list(parts, " and ", f),
            Self::Or(parts) => list(parts, " or ", f),
        }
    }
}

impl fmt::Display for Selector {
    /// The expression in its plainest form; it parses to the same selector.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root.fmt(f)
    }
}

impl std::str::FromStr for Selector {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests;
