//! Waiting for a run: its output and its progress, until it ends, the time is over or Ctrl+C detaches.
//!
//! Both of the run's streams are followed across restarts of the server. The output is whole
//! when as many bytes were shown as the ended run counts.

use std::time::Duration;

use fw_proto::api::{LogEvent, Run, RunEvent, RunReport, RunSummary, Task};
use fw_proto::record::Stream;
use fw_proto::{RunId, Span};
use fw_rt::{Backoff, Tasks};
use tokio::sync::mpsc::Receiver;
use tokio::time::MissedTickBehavior;

use crate::client::{self, Client, Event, LogFilter, Patience, Signal, Started, follow};
use crate::exit;
use crate::output::{Live, Prefix, Progress, View};

/// Someone who waits without a bar is told this often what for.
const REMIND: Duration = Duration::from_secs(10);

/// The last look at a run that goes on without us must not keep anyone waiting.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// What to show while waiting.
#[derive(Debug, Clone)]
pub(crate) enum Show {
    /// Nothing.
    Nothing,
    /// How far the run is.
    Progress,
    /// Its output, line by line with hosts before the lines.
    Lines,
    /// Its output in another form, or only a part of it.
    Output(View, LogFilter),
}

/// How the waiting ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The run did.
    Ended(Box<Run>),
    /// The time was over; the run as it stood then, when the server said so in time.
    TimedOut(Option<Box<Run>>),
    /// Ctrl+C.
    Interrupted,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Watched {
    /// How it ended.
    pub(crate) end: End,
    /// Gaps in the output that were shown.
    pub(crate) gaps: u64,
}

/// Waits for a run, for at most `limit`.
///
/// # Errors
/// The server refuses, or the output cannot be written.
pub(crate) async fn watch(
    client: &Client,
    tasks: &Tasks,
    id: RunId,
    show: Show,
    limit: Option<Span>,
) -> anyhow::Result<Watched> {
    let mut watch = Watch {
        client,
        tasks,
        id,
        progress: Progress::new(matches!(show, Show::Progress)),
        reminders: !matches!(show, Show::Nothing),
        show,
        live: None,
        report: None,
        ended: None,
        lost: false,
        heard: false,
    };
    let end = tokio::select! {
        run = watch.follow() => End::Ended(Box::new(run?)),
        () = over(limit) => End::TimedOut(None),
        () = interrupted(tasks) => End::Interrupted,
    };
    let gaps = watch.finish()?;
    let end = match end {
        End::TimedOut(_) => {
            let run = tokio::time::timeout(LAST_LOOK, client.run(id)).await;
            End::TimedOut(run.ok().and_then(Result::ok).map(Box::new))
        }
        End::Ended(_) | End::Interrupted => end,
    };
    Ok(Watched { end, gaps })
}

/// Resolves when the time is over; never without one.
pub(crate) async fn over(limit: Option<Span>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit.duration()).await,
        None => std::future::pending().await,
    }
}

/// Resolves at the first Ctrl+C. The second ends the process at once, whatever it is doing.
pub(crate) async fn interrupted(tasks: &Tasks) {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without a handler, Ctrl+C ends the process as it always did.
        std::future::pending::<()>().await;
    }
    tasks.spawn("second interrupt", async {
        if tokio::signal::ctrl_c().await.is_ok() {
            leave();
        }
    });
}

#[expect(
    clippy::exit,
    reason = "a blocked write to stdout must not keep a person who pressed Ctrl+C twice"
)]
fn leave() {
    std::process::exit(exit::Code::Interrupted.number().into())
}

struct Watch<'a> {
    client: &'a Client,
    tasks: &'a Tasks,
    id: RunId,
    show: Show,
    progress: Progress,
    reminders: bool,
    live: Option<Live>,
    report: Option<RunReport>,
    ended: Option<Run>,
    lost: bool,
    /// Output came since the last reminder.
    heard: bool,
}

impl Watch<'_> {
    async fn follow(&mut self) -> anyhow::Result<Run> {
        let run = patiently(self.client, self.id).await?;
        let filter = self.begin(&run);
        let connect = |what| Some(follow(self.tasks, self.client, what, Patience::Always));
        let mut events = connect(Started::Events(self.id));
        let logs =
            filter.clone().map(|filter| Started::Logs { run: self.id, filter, follow: true });
        let mut logs = logs.and_then(connect);
        let mut tick = tokio::time::interval(REMIND);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.tick().await;
        self.take_summary(&run.summary).await?;
        loop {
            if self.ended.is_some() {
                events = None;
                // Asked when nothing waits to be shown: it looks at every task.
                let idle = logs.as_ref().is_none_or(Receiver::is_empty);
                if logs.is_none() || (idle && self.is_whole(filter.as_ref())) {
                    break;
                }
            }
            tokio::select! {
                signal = next(&mut events) => if self.event(signal).await? { events = None },
                signal = next(&mut logs) => if self.output(signal)? { logs = None },
                _ = tick.tick() => self.remind(),
            }
        }
        self.ended.take().ok_or_else(|| anyhow::anyhow!("the run has not ended"))
    }

    /// Prepares what the run is shown with; which output is wanted, if any.
    fn begin(&mut self, run: &Run) -> Option<LogFilter> {
        let (view, filter) = match &self.show {
            Show::Nothing | Show::Progress => return None,
            Show::Lines => {
                let prefix = Prefix::fitting(run.tasks.iter().map(|task| &task.host));
                (View::Lines { prefix, timestamps: false }, LogFilter::default())
            }
            Show::Output(view, filter) => (*view, filter.clone()),
        };
        self.live = Some(Live::new(view));
        Some(filter)
    }

    /// Takes a signal of the events; true when there are no more.
    async fn event(&mut self, signal: Signal) -> anyhow::Result<bool> {
        match signal {
            Signal::Event(event) => match parse(&event)? {
                RunEvent::Run(summary) => self.take_summary(&summary).await?,
                RunEvent::Task(_) => {}
            },
            Signal::Lost(why) => self.lost(&why),
            Signal::Back => self.back(),
            Signal::End => {
                self.ended = Some(patiently(self.client, self.id).await?);
                return Ok(true);
            }
            Signal::Failed(error) => return Err(error.into()),
        }
        Ok(false)
    }

    async fn take_summary(&mut self, summary: &RunSummary) -> anyhow::Result<()> {
        self.progress.update(&summary.report);
        self.report = Some(summary.report.clone());
        if summary.state.is_final() && self.ended.is_none() {
            self.ended = Some(patiently(self.client, self.id).await?);
        }
        Ok(())
    }

    /// Takes a signal of the output; true when there is no more.
    fn output(&mut self, signal: Signal) -> anyhow::Result<bool> {
        match signal {
            Signal::Event(event) => {
                self.heard = true;
                let event: LogEvent = parse(&event)?;
                if let Some(live) = &mut self.live {
                    live.take(&event)?;
                }
            }
            Signal::Lost(why) => self.lost(&why),
            Signal::Back => self.back(),
            Signal::End => return Ok(true),
            Signal::Failed(error) => return Err(error.into()),
        }
        Ok(false)
    }

    /// Whether all output that the ended run counts was shown.
    fn is_whole(&self, filter: Option<&LogFilter>) -> bool {
        match (&self.ended, &self.live, filter) {
            (Some(run), Some(live), Some(filter)) => is_whole(run, live, filter),
            _ => true,
        }
    }

    fn lost(&mut self, why: &str) {
        if !std::mem::replace(&mut self.lost, true) {
            self.progress.say(&format!("{why}; trying again, the run goes on (Ctrl+C detaches)"));
        }
    }

    fn back(&mut self) {
        if std::mem::take(&mut self.lost) {
            self.progress.say("connected again");
        }
    }

    fn remind(&mut self) {
        let heard = std::mem::take(&mut self.heard);
        if let Some(report) = self.report.as_ref().filter(|_| self.reminders && !heard) {
            self.progress.remind(report);
        }
    }

    fn finish(&mut self) -> anyhow::Result<u64> {
        self.progress.clear();
        let Some(live) = &mut self.live else { return Ok(0) };
        live.finish()?;
        Ok(live.gaps())
    }
}

fn is_whole(run: &Run, live: &Live, filter: &LogFilter) -> bool {
    let wanted = |task: &&Task| filter.host.as_ref().is_none_or(|host| *host == task.host);
    run.tasks.iter().filter(wanted).all(|task| {
        let all = |stream, bytes: u64, dropped: u64| {
            let reached = live.reached(&task.host, stream);
            let unwanted = filter.stream.is_some_and(|only| only != stream);
            unwanted || (reached.bytes >= bytes && reached.dropped >= dropped)
        };
        // Who was lost never said how much it wrote: then only the stream itself knows its end.
        let known = task.started_at.is_none() || task.stdout_sha256.is_some();
        known
            && all(Stream::Stdout, task.stdout_bytes, task.stdout_dropped_bytes)
            && all(Stream::Stderr, task.stderr_bytes, task.stderr_dropped_bytes)
    })
}

/// The next signal; a stream that is over has none, and one whose task is gone has ended.
async fn next(signals: &mut Option<Receiver<Signal>>) -> Signal {
    match signals {
        Some(signals) => signals.recv().await.unwrap_or(Signal::End),
        None => std::future::pending().await,
    }
}

fn parse<T: serde::de::DeserializeOwned>(event: &Event) -> Result<T, client::Error> {
    serde_json::from_str(&event.data).map_err(|error| client::Error::Stream(error.to_string()))
}

/// Fetches a run from a server that was there a moment ago, however long it takes to come back.
async fn patiently(client: &Client, id: RunId) -> Result<Run, client::Error> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let mut told = false;
    loop {
        match client.run(id).await {
            Err(error) if error.may_pass() => {
                if !std::mem::replace(&mut told, true) {
                    let why = error.told();
                    crate::output::say(&format!(
                        "{why}; trying again, the run goes on (Ctrl+C detaches)"
                    ));
                }
                tokio::time::sleep(backoff.next_wait()).await;
            }
            answer => return answer,
        }
    }
}

/// Shows the output of a run that is there now, and ends.
///
/// # Errors
/// The server refuses, or the output cannot be written.
pub(crate) async fn show_logs(
    client: &Client,
    tasks: &Tasks,
    id: RunId,
    view: View,
    filter: LogFilter,
) -> anyhow::Result<u64> {
    let mut live = Live::new(view);
    let what = Started::Logs { run: id, filter, follow: false };
    let mut signals = follow(tasks, client, what, Patience::FirstMustWork);
    while let Some(signal) = signals.recv().await {
        match signal {
            Signal::Event(event) => live.take(&parse(&event)?)?,
            Signal::Lost(why) => crate::output::say(&format!("{why}; trying again")),
            Signal::Back => crate::output::say("connected again"),
            Signal::End => break,
            Signal::Failed(error) => return Err(error.into()),
        }
    }
    live.finish()?;
    Ok(live.gaps())
}

#[cfg(test)]
mod tests {
    use fw_proto::record::Stream::{Stderr, Stdout};
    use serde_json::json;

    use super::*;

    fn run(bytes: [u64; 2], dropped: u64) -> Run {
        let run = json!({
            "id": "00000000-0000-0000-0000-000000000001", "state": "failed", "by": "admin", "hosts": "*",
            "report": {"tasks": {}, "total": 1, "waiting_on": []}, "command": {"shell": "x"},
            "created_at": "2026-11-20T09:30:00Z",
            "tasks": [{
                "host": "a", "state": "failed", "attempt": 1, "stdout_bytes": bytes[0], "stderr_bytes": bytes[1],
                "stdout_dropped_bytes": dropped, "stderr_dropped_bytes": 0, "left_behind": 0,
            }],
        });
        serde_json::from_value(run).unwrap()
    }

    /// Whether all is shown when these events were, and no others.
    fn check(ended: &Run, filter: &LogFilter, events: &[(Stream, u64, u64)]) -> bool {
        let view = View::Lines { prefix: Prefix::None, timestamps: false };
        let mut live = Live::to_nowhere(view);
        for (stream, bytes, gap) in events {
            let data = vec![b'x'; usize::try_from(*bytes).unwrap()];
            live.take(&crate::output::sample_event("a", *stream, &data, *gap)).unwrap();
        }
        is_whole(ended, &live, filter)
    }

    #[test]
    fn output_is_whole_when_all_counted_bytes_were_shown() {
        let all = LogFilter::default();
        assert!(check(&run([0, 0], 0), &all, &[]));
        assert!(!check(&run([3, 0], 0), &all, &[(Stdout, 2, 0)]));
        assert!(check(&run([3, 0], 0), &all, &[(Stdout, 3, 0)]));
        assert!(!check(&run([3, 1], 0), &all, &[(Stdout, 3, 0)]));
        assert!(check(&run([3, 1], 0), &all, &[(Stderr, 1, 0), (Stdout, 3, 0)]));
        assert!(!check(&run([3, 0], 9), &all, &[(Stdout, 3, 0)]));
        assert!(check(&run([3, 0], 9), &all, &[(Stdout, 3, 0), (Stdout, 0, 9)]));
        let only_stderr = LogFilter { stream: Some(Stderr), ..LogFilter::default() };
        assert!(check(&run([3, 1], 0), &only_stderr, &[(Stderr, 1, 0)]));
        let elsewhere = LogFilter { host: Some("b".parse().unwrap()), ..LogFilter::default() };
        assert!(check(&run([3, 1], 0), &elsewhere, &[]));
    }
}
