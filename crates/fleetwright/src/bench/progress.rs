//! How far a benchmark is: a bar on a terminal, a line a step elsewhere. Always on stderr.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// How often the bar moves by itself.
const TICK: Duration = Duration::from_millis(120);

/// Shows what is being measured.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A bar when stderr is a terminal; else lines.
    pub(crate) fn new() -> Self {
        let on_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let bar = on_terminal.then(ProgressBar::new_spinner);
        bar.iter().for_each(|bar| bar.enable_steady_tick(TICK));
        Self { bar }
    }

    /// The next step begins.
    pub(crate) fn step(&self, what: &str) {
        match &self.bar {
            None => output::say(what),
            Some(bar) => {
                bar.set_style(style("{spinner} {msg}"));
                bar.set_message(what.to_owned());
            }
        }
    }

    /// It has come so far.
    pub(crate) fn at(&self, done: u64, of: u64) {
        let Some(bar) = &self.bar else { return };
        if bar.length() != Some(of) {
            bar.set_style(style("{spinner} {bar:24} {pos}/{len} {msg}"));
            bar.set_length(of);
        }
        bar.set_position(done);
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
