//! What the fleet is put through, until the time is up.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use fw_testkit::fleet::{Agent, Fleet};
use rand::RngExt as _;
use tokio::time::{Instant, sleep, timeout};

/// Jobs that are due every second.
const JOBS: &str = "\
jobs:
  every-second: {schedule: \"* * * * * *\", hosts: steady1, run: \"true\"}
  on-all: {schedule: \"@every 1s\", hosts: \"*\", run: \"echo tick\", overlap: skip, start_within: 2s}
";

/// What was done, for the report.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Runs that were asked for, jobs apart.
    pub(crate) runs: Cell<u64>,
    /// Times that the wire was cut, frozen or forgot.
    pub(crate) cuts: Cell<u64>,
    /// Agents that were stopped or killed.
    pub(crate) ends: Cell<u64>,
}

fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

/// The load on one fleet.
pub(crate) struct Load<'a> {
    fleet: &'a Fleet,
    jobs: &'a Path,
    until: Instant,
    counts: Counts,
}

impl<'a> Load<'a> {
    pub(crate) fn new(fleet: &'a Fleet, jobs: &'a Path, time: Duration) -> Self {
        Self { fleet, jobs, until: Instant::now() + time, counts: Counts::default() }
    }

    pub(crate) const fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(crate) fn into_counts(self) -> Counts {
        self.counts
    }

    /// Everything at once; ends when the time is up and nothing of it is under way any more.
    pub(crate) async fn run(&self, fleeting: &mut [Agent]) {
        std::fs::write(self.jobs.join("soak.yaml"), JOBS).expect("a job file");
        tokio::join!(
            self.come_and_go(fleeting),
            self.break_links(),
            self.short_runs(),
            self.long_outputs(),
            self.follow_slowly(),
            self.leave_in_the_middle(),
        );
        std::fs::remove_file(self.jobs.join("soak.yaml")).expect("the job file");
    }

    fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }

    async fn pause(&self, ms: std::ops::Range<u64>) {
        let ms = rand::rng().random_range(ms);
        sleep(Duration::from_millis(ms).min(self.until.duration_since(Instant::now()))).await;
    }

    /// Agents end in good order or by `kill -9`, and come back.
    async fn come_and_go(&self, agents: &mut [Agent]) {
        while self.goes_on() {
            self.pause(500..3000).await;
            let agent = rand::rng().random_range(0..agents.len());
            let Some(agent) = agents.get_mut(agent) else { continue };
            if rand::rng().random() {
                agent.kill9().await;
            } else {
                agent.term().await;
            }
            count(&self.counts.ends);
            self.pause(0..2000).await;
            agent.start();
        }
    }

    /// All links are cut, or stand still, or are forgotten.
    async fn break_links(&self) {
        while self.goes_on() {
            self.pause(4000..10_000).await;
            match rand::rng().random_range(0..3) {
                0 => self.fleet.proxy.cut(),
                1 => self.fleet.proxy.freeze(),
                _ => self.fleet.proxy.forget(),
            }
            count(&self.counts.cuts);
            self.pause(100..2000).await;
            self.fleet.proxy.resume();
        }
    }

    /// Short commands on whoever is there.
    async fn short_runs(&self) {
        while self.goes_on() {
            self.begin(&["*", "--offline", "skip", "--shell", "echo hello; echo there >&2"]).await;
            self.pause(200..800).await;
        }
    }

    /// Some megabytes now and then.
    async fn long_outputs(&self) {
        while self.goes_on() {
            self.begin(&["steady2", "--shell", "seq 1 300000"]).await;
            self.pause(2000..5000).await;
        }
    }

    /// Begins a run; its id. A server is not always quick, and a refusal is an answer.
    async fn begin(&self, args: &[&str]) -> Option<String> {
        let mut line = vec!["run", "--detach", "-o", "json"];
        line.extend(args);
        let begun = self.fleet.cli(&line).await;
        count(&self.counts.runs);
        let id = serde_json::from_slice::<serde_json::Value>(&begun.stdout).ok()?;
        id.get("id")?.as_str().map(str::to_owned)
    }

    /// Followers that read so slowly that what they are told piles up before them.
    async fn follow_slowly(&self) {
        while self.goes_on() {
            let text = "for i in $(seq 1 40); do seq 1 2000; sleep 0.1; done";
            let Some(id) = self.begin(&["steady3", "--shell", text]).await else { continue };
            let (events, logs) = (format!("/runs/{id}/events"), format!("/runs/{id}/logs"));
            tokio::join!(
                self.read("/hosts/events", 10, 500),
                self.read(&events, 10, 500),
                self.read(&logs, 10, 500),
            );
        }
    }

    /// Followers that go away after a few words.
    async fn leave_in_the_middle(&self) {
        while self.goes_on() {
            let text = "for i in $(seq 1 20); do echo $i; sleep 0.1; done";
            let Some(id) = self.begin(&["steady3", "--shell", text]).await else { continue };
            let (events, logs) = (format!("/runs/{id}/events"), format!("/runs/{id}/logs"));
            tokio::join!(
                self.read("/hosts/events", 1, 0),
                self.read(&events, 2, 0),
                self.read(&logs, 2, 0),
            );
            self.pause(100..1000).await;
        }
    }

    /// Reads some pieces of a stream, with pauses of so many ms, and hangs up.
    async fn read(&self, path: &str, pieces: usize, pause_ms: u64) {
        let Some(mut stream) = self.fleet.open(path).await else { return };
        for _ in 0..pieces {
            // A quiet stream is left after a while.
            let piece = timeout(Duration::from_secs(3), stream.chunk()).await;
            if !matches!(piece, Ok(Ok(Some(_)))) {
                return;
            }
            sleep(Duration::from_millis(pause_ms)).await;
        }
    }
}
