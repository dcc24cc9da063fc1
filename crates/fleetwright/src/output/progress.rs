//! How far a run is: a bar on a terminal, a line every ten seconds elsewhere. Always on stderr.

use fw_proto::api::{RunReport, WaitingOn};
use indicatif::{ProgressBar, ProgressStyle};

/// Shows how far a run is.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    said: String,
}

impl Progress {
    /// A bar when stderr is a terminal and `bar` wants one; else lines.
    pub(crate) fn new(bar: bool) -> Self {
        let on_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        Self { bar: (bar && on_terminal).then(ProgressBar::new_spinner), said: String::new() }
    }

    /// The run has come this far.
    pub(crate) fn update(&self, report: &RunReport) {
        let Some(bar) = &self.bar else { return };
        if bar.length() != Some(u64::from(report.total)) {
            let style = ProgressStyle::with_template("{bar:24} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_length(u64::from(report.total));
        }
        bar.set_position(u64::from(done(report)));
        bar.set_message(waiting(report));
    }

    /// Ten seconds have passed without anything else to read.
    pub(crate) fn remind(&mut self, report: &RunReport) {
        let line = waiting(report);
        if self.bar.is_none() && line != self.said {
            super::say(&line);
            self.said = line;
        }
    }

    /// Says something without breaking the bar.
    pub(crate) fn say(&self, message: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| super::say(message)),
            None => super::say(message),
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn done(report: &RunReport) -> u32 {
    report.tasks.iter().filter(|(state, _)| state.is_final()).map(|(_, count)| count).sum()
}

/// One line: `12/40 hosts done, waiting on 26 running, 2 offline until 2026-11-20T09:30:00.000Z`.
pub(crate) fn waiting(report: &RunReport) -> String {
    let mut line = format!("{}/{} hosts done", done(report), report.total);
    for (n, reason) in report.waiting_on.iter().enumerate() {
        line.push_str(if n == 0 { ", waiting on " } else { ", " });
        line.push_str(&reason_text(reason));
    }
    line
}

fn reason_text(reason: &WaitingOn) -> String {
    match reason {
        WaitingOn::Running { hosts } => format!("{hosts} running"),
        WaitingOn::Starting { hosts } => format!("{hosts} starting"),
        WaitingOn::Offline { hosts, until } => format!("{hosts} offline until {until}"),
        WaitingOn::Spread { hosts, until } => format!("{hosts} to begin one by one until {until}"),
        WaitingOn::Parallel { hosts } => format!("{hosts} held back by --parallel"),
        WaitingOn::Budget { hosts } => format!("{hosts} held back by --max-failures"),
        WaitingOn::Restored { hosts } => {
            format!("{hosts} to say what they remember from before the restore")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fw_proto::Timestamp;
    use fw_proto::api::TaskState;

    use super::*;

    #[test]
    fn a_run_says_what_it_waits_on() {
        let report = RunReport {
            tasks: BTreeMap::from([
                (TaskState::Running, 26),
                (TaskState::Succeeded, 11),
                (TaskState::Lost, 1),
            ]),
            total: 40,
            waiting_on: vec![
                WaitingOn::Running { hosts: 26 },
                WaitingOn::Offline { hosts: 2, until: Timestamp::EPOCH },
            ],
        };
        insta::assert_snapshot!(waiting(&report), @"12/40 hosts done, waiting on 26 running, 2 offline until 1970-01-01T00:00:00.000Z");
    }
}
