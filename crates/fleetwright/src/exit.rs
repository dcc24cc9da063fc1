//! Exit codes: what a script learns from a command without reading its output.
//!
//! They are a promise. A new meaning gets a new number; no number changes its meaning.

use std::fmt;
use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// All of it was done.
    Success,
    /// It went wrong in a way that no other code names.
    Error,
    /// The command line, or an expression in it, is wrong.
    Usage,
    /// Some hosts did it and some did not; or output has gaps.
    Partial,
    /// No token, or one that may not do this.
    Authentication,
    /// No such thing.
    NotFound,
    /// The thing is not in a state that allows this, or the name is taken.
    Conflict,
    /// The waiting ended first; what was waited for goes on.
    TimedOut,
    /// It waits for someone's approval.
    Approval,
    /// The selector matched no host.
    NothingMatched,
    /// No host did it.
    NoneSucceeded,
    /// Ctrl+C ended the waiting; what was waited for goes on.
    Interrupted,
    /// The exit code of the command on the host (`--propagate`).
    Remote(u8),
}

impl Code {
    /// Every code with a meaning of its own.
    pub(crate) const ALL: [Self; 12] = [
        Self::Success,
        Self::Error,
        Self::Usage,
        Self::Partial,
        Self::Authentication,
        Self::NotFound,
        Self::Conflict,
        Self::TimedOut,
        Self::Approval,
        Self::NothingMatched,
        Self::NoneSucceeded,
        Self::Interrupted,
    ];

    /// The number.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Error => 1,
            Self::Usage => 2,
            Self::Partial => 3,
            Self::Authentication => 4,
            Self::NotFound => 5,
            Self::Conflict => 6,
            Self::TimedOut => 7,
            Self::Approval => 8,
            Self::NothingMatched => 9,
            Self::NoneSucceeded => 100,
            Self::Interrupted => 130,
            Self::Remote(code) => code,
        }
    }

    /// What it means, for `help exit-codes`.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Success => "Success.",
            Self::Error => "It went wrong; the message on stderr says how.",
            Self::Usage => "The command line, or an expression in it, is wrong.",
            Self::Partial => "Some hosts did it and some did not; or raw output has gaps.",
            Self::Authentication => "No token, or one that may not do this.",
            Self::NotFound => "No such thing.",
            Self::Conflict => "A name is taken, or the thing is not in a state that allows this.",
            Self::TimedOut => "The time given with --wait or --timeout is over; what runs goes on.",
            Self::Approval => "It waits for someone's approval.",
            Self::NothingMatched => "The selector matched no host.",
            Self::NoneSucceeded => "No host did it.",
            Self::Interrupted => "Interrupted with Ctrl+C; what runs goes on.",
            Self::Remote(_) => "The exit code of the command on the host.",
        }
    }

    /// The page that `fleetwright help exit-codes` prints.
    pub(crate) fn page() -> String {
        let lines = Self::ALL.iter().map(|code| format!("{code:>5}  {}\n", code.meaning()));
        let mut page: String = lines.collect();
        page.push_str(
            "\nWith --propagate, `run` on one host exits as the command did there \
             (128 + N when signal N ended it).\n",
        );
        page
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.number(), f)
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_lists_every_code() {
        insta::assert_snapshot!(Code::page(), @"
                0  Success.
                1  It went wrong; the message on stderr says how.
                2  The command line, or an expression in it, is wrong.
                3  Some hosts did it and some did not; or raw output has gaps.
                4  No token, or one that may not do this.
                5  No such thing.
                6  A name is taken, or the thing is not in a state that allows this.
                7  The time given with --wait or --timeout is over; what runs goes on.
                8  It waits for someone's approval.
                9  The selector matched no host.
              100  No host did it.
              130  Interrupted with Ctrl+C; what runs goes on.

            With --propagate, `run` on one host exits as the command did there (128 + N when signal N ended it).
            ");
    }
}
