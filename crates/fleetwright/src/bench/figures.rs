//! What a benchmark found, for programs and for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::output::bytes;

/// Half of all were no slower than `p50`, 99 of 100 no slower than `p99`. Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Quantiles {
    /// Of these times, in milliseconds; `None` of none.
    pub(crate) fn of(mut times: Vec<f64>) -> Option<Self> {
        times.sort_unstable_by(f64::total_cmp);
        let at = |part: f64| {
            let rank = (times.len() as f64 * part).ceil() as usize;
            times.get(rank.saturating_sub(1)).copied().map(|time| (time * 1000.0).round() / 1000.0)
        };
        Some(Self { p50: at(0.5)?, p99: at(0.99)? })
    }
}

/// How fast one run reaches all hosts, milliseconds from the request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Fanout {
    /// Until the server has committed that every host has started it.
    pub(crate) all_started_ms: Option<u64>,
    /// Until the server has committed every result.
    pub(crate) all_durable_ms: Option<u64>,
}

/// A bar of the design, and whether it was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Bar {
    /// Which figure.
    pub(crate) figure: &'static str,
    /// What it should be.
    pub(crate) bar: &'static str,
    /// `None` when it was not measured, or on a fleet smaller than the bar's.
    pub(crate) met: Option<bool>,
}

/// Why figures are `null`.
pub(crate) type Why = BTreeMap<&'static str, String>;

/// What `bench fleet` found. A figure that was not measured is `null`, and `why` says why.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Fleet {
    pub(crate) agents: u32,
    /// What stood in for hosts.
    pub(crate) agent_kind: &'static str,
    pub(crate) connect_per_s: Option<f64>,
    pub(crate) rss_per_agent_bytes: Option<u64>,
    pub(crate) fanout: Fanout,
    pub(crate) task_starts_per_s: Option<f64>,
    pub(crate) output_mb_per_s: Option<f64>,
    pub(crate) output_random_mb_per_s: Option<f64>,
    /// From the second in which jobs were due to the write of each run, inside its commit.
    pub(crate) fire_lag_ms: Option<Quantiles>,
    /// And to the start of its command on its host.
    pub(crate) fire_start_ms: Option<Quantiles>,
    pub(crate) reconnect_all_s: Option<f64>,
    pub(crate) api_ms: Option<Quantiles>,
    pub(crate) server_cpu_s: Option<f64>,
    pub(crate) server_rss_bytes: Option<u64>,
    pub(crate) disk_sync_us: Option<u64>,
    pub(crate) cpu: Option<String>,
    pub(crate) why: Why,
    pub(crate) bars: Vec<Bar>,
}

/// Agents for which the design's bars of a whole fleet are meant.
const BAR_AGENTS: u32 = 10_000;

impl Fleet {
    /// Holds the figures against the bars.
    pub(crate) fn judge(&mut self, jobs: u32) {
        let whole = self.agents >= BAR_AGENTS;
        let most = |value: Option<f64>, most: f64| value.map(|value| value <= most);
        let least = |value: Option<f64>, least: f64| value.map(|value| value >= least);
        // What only a whole fleet can reach, any fleet can miss.
        let large = |met: Option<bool>, is_large: bool| met.filter(|met| is_large || !met);
        let memory = self.rss_per_agent_bytes.map(|bytes| bytes as f64);
        let durable = self.fanout.all_durable_ms.map(|ms| ms as f64);
        let bar = |figure, bar, met| Bar { figure, bar, met };
        self.bars = vec![
            bar(
                "rss_per_agent_bytes",
                "at most 12 KiB",
                // What a server has once, caches and threads, weighs on few agents.
                most(memory, 12.0 * 1024.0).filter(|met| *met || whole),
            ),
            bar(
                "fanout.all_durable_ms",
                "at most 5,000 with 10,000 agents",
                large(most(durable, 5000.0), whole),
            ),
            bar("task_starts_per_s", "at least 10,000", least(self.task_starts_per_s, 10_000.0)),
            bar(
                "fire_lag_ms.p99",
                "at most 250 with 10,000 jobs",
                large(most(self.fire_lag_ms.map(|lag| lag.p99), 250.0), jobs >= 10_000),
            ),
            bar(
                "reconnect_all_s",
                "at most 30 with 10,000 agents",
                large(most(self.reconnect_all_s, 30.0), whole),
            ),
            bar(
                "api_ms.p99",
                "under 200 while 10,000 agents reconnect",
                large(self.api_ms.map(|api| api.p99 < 200.0), whole),
            ),
            bar("output_mb_per_s", "at least 100", least(self.output_mb_per_s, 100.0)),
        ];
    }

    /// The page for people.
    pub(crate) fn page(&self) -> String {
        let number =
            |value: Option<f64>, unit: &str| value.map(|value| format!("{} {unit}", short(value)));
        let size = |value: Option<u64>| value.map(bytes);
        let quantiles = |value: Option<Quantiles>| {
            value.map(|q| format!("p50 {} ms, p99 {} ms", short(q.p50), short(q.p99)))
        };
        let ms = |value: Option<u64>| value.map(|ms| format!("{ms} ms"));
        let rows = [
            ("agents", "agents", Some(format!("{} ({})", self.agents, self.agent_kind))),
            ("connect", "connect_per_s", number(self.connect_per_s, "agents/s")),
            ("server's memory per agent", "rss_per_agent_bytes", size(self.rss_per_agent_bytes)),
            ("one run on all: started", "fanout.all_started_ms", ms(self.fanout.all_started_ms)),
            ("one run on all: durable", "fanout.all_durable_ms", ms(self.fanout.all_durable_ms)),
            ("task starts committed", "task_starts_per_s", number(self.task_starts_per_s, "/s")),
            ("output durable, log text", "output_mb_per_s", number(self.output_mb_per_s, "MB/s")),
            (
                "output durable, random bytes",
                "output_random_mb_per_s",
                number(self.output_random_mb_per_s, "MB/s"),
            ),
            ("fire lag", "fire_lag_ms.p99", quantiles(self.fire_lag_ms)),
            ("fire to start on the host", "fire_start_ms", quantiles(self.fire_start_ms)),
            ("reconnect of all", "reconnect_all_s", number(self.reconnect_all_s, "s")),
            ("API meanwhile", "api_ms.p99", quantiles(self.api_ms)),
            ("server's processor time", "server_cpu_s", number(self.server_cpu_s, "s")),
            ("server's memory", "server_rss_bytes", size(self.server_rss_bytes)),
            ("disk sync", "disk_sync_us", self.disk_sync_us.map(|us| format!("{us} µs"))),
            ("processors", "cpu", self.cpu.clone()),
        ];
        page(&rows, &self.why, &self.bars)
    }
}

/// What `bench saltpeter` found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Wrappers {
    pub(crate) wrappers: u32,
    /// Connected, with their start acknowledged.
    pub(crate) connect_per_s: Option<f64>,
    /// Outputs of 100 bytes, each acknowledged when it is durable; one under way for each wrapper.
    pub(crate) messages_per_s: Option<f64>,
    pub(crate) ack_ms: Option<Quantiles>,
    /// Acknowledged, and not in the store.
    pub(crate) lost_messages: u64,
    /// The server's.
    pub(crate) cpu_us_per_message: Option<f64>,
    /// When all are connected, with their start acknowledged, and have written nothing: more than before the
    /// run was begun. So the original's was measured.
    pub(crate) rss_per_wrapper_bytes: Option<u64>,
    /// The same after their output, with the caches that this has filled.
    pub(crate) rss_per_busy_wrapper_bytes: Option<u64>,
    /// Of one processor, in percent, while wrappers are connected and only show that they live.
    pub(crate) rest_cpu_percent: Option<f64>,
    /// From the first complete to the end of the run.
    pub(crate) complete_all_s: Option<f64>,
    pub(crate) disk_sync_us: Option<u64>,
    pub(crate) cpu: Option<String>,
    pub(crate) why: Why,
    pub(crate) bars: Vec<Bar>,
}

impl Wrappers {
    /// Holds the figures against the bars: 100 times the original, which reports healthy machines as failed
    /// beyond 250 that start together.
    pub(crate) fn judge(&mut self) {
        let bar = |figure, bar, met| Bar { figure, bar, met };
        self.bars = vec![
            bar(
                "messages_per_s",
                "at least 28,200",
                self.messages_per_s.map(|rate| rate >= 28_200.0),
            ),
            bar("lost_messages", "0", Some(self.lost_messages == 0)),
            bar("rest_cpu_percent", "at most 1", self.rest_cpu_percent.map(|rest| rest <= 1.0)),
            bar(
                "rss_per_wrapper_bytes",
                "under 20 kB",
                self.rss_per_wrapper_bytes.map(|bytes| bytes < 20_000),
            ),
        ];
    }

    /// The page for people.
    pub(crate) fn page(&self) -> String {
        let number =
            |value: Option<f64>, unit: &str| value.map(|value| format!("{} {unit}", short(value)));
        let ack = self.ack_ms.map(|q| format!("p50 {} ms, p99 {} ms", short(q.p50), short(q.p99)));
        let rows = [
            ("wrappers", "wrappers", Some(self.wrappers.to_string())),
            ("connect and start", "connect_per_s", number(self.connect_per_s, "wrappers/s")),
            ("outputs acknowledged", "messages_per_s", number(self.messages_per_s, "/s")),
            ("output to acknowledgement", "ack_ms", ack),
            ("acknowledged and lost", "lost_messages", Some(self.lost_messages.to_string())),
            (
                "server's processor time for each",
                "cpu_us_per_message",
                number(self.cpu_us_per_message, "µs"),
            ),
            (
                "server's memory per wrapper",
                "rss_per_wrapper_bytes",
                self.rss_per_wrapper_bytes.map(bytes),
            ),
            (
                "the same after its output",
                "rss_per_busy_wrapper_bytes",
                self.rss_per_busy_wrapper_bytes.map(bytes),
            ),
            ("server's processor at rest", "rest_cpu_percent", number(self.rest_cpu_percent, "%")),
            ("end of all", "complete_all_s", number(self.complete_all_s, "s")),
            ("disk sync", "disk_sync_us", self.disk_sync_us.map(|us| format!("{us} µs"))),
            ("processors", "cpu", self.cpu.clone()),
        ];
        page(&rows, &self.why, &self.bars)
    }
}

/// What `bench agent` found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Agent {
    /// From the request to the start of the process on the host.
    pub(crate) request_to_exec_ms: Option<Quantiles>,
    /// From the request to the first byte of output at a follower.
    pub(crate) request_to_output_ms: Option<Quantiles>,
    /// Commands started and ended on one host, each start durable there and its result here.
    pub(crate) starts_per_s: Option<f64>,
    /// Memory that one more running command takes beside its own.
    pub(crate) supervisor_bytes: Option<u64>,
    pub(crate) agent_rss_bytes: Option<u64>,
    /// Memory that the process which forks supervisors has for itself.
    pub(crate) fork_server_bytes: Option<u64>,
    /// Of one processor, in percent, while nothing runs.
    pub(crate) agent_rest_cpu_percent: Option<f64>,
    pub(crate) disk_sync_us: Option<u64>,
    pub(crate) cpu: Option<String>,
    pub(crate) why: Why,
    pub(crate) bars: Vec<Bar>,
}

impl Agent {
    /// Holds the figures against the bars.
    pub(crate) fn judge(&mut self) {
        let most = |value: Option<f64>, most: f64| value.map(|value| value <= most);
        let bar = |figure, bar, met| Bar { figure, bar, met };
        let memory = self.agent_rss_bytes.map(|own| own + self.fork_server_bytes.unwrap_or(0));
        self.bars = vec![
            bar(
                "request_to_exec_ms.p50",
                "at most 5",
                most(self.request_to_exec_ms.map(|q| q.p50), 5.0),
            ),
            bar(
                "request_to_output_ms.p99",
                "at most 50",
                most(self.request_to_output_ms.map(|q| q.p99), 50.0),
            ),
            bar("starts_per_s", "at least 500", self.starts_per_s.map(|rate| rate >= 500.0)),
            bar(
                "agent_rss_bytes",
                "at most 15 MB with its fork server",
                most(memory.map(|bytes| bytes as f64), 15e6),
            ),
            bar("agent_rest_cpu_percent", "at most 0.1", most(self.agent_rest_cpu_percent, 0.1)),
        ];
    }

    /// The page for people.
    pub(crate) fn page(&self) -> String {
        let quantiles = |value: Option<Quantiles>| {
            value.map(|q| format!("p50 {} ms, p99 {} ms", short(q.p50), short(q.p99)))
        };
        let rows = [
            ("request to exec", "request_to_exec_ms.p50", quantiles(self.request_to_exec_ms)),
            (
                "request to first output",
                "request_to_output_ms.p99",
                quantiles(self.request_to_output_ms),
            ),
            ("starts", "starts_per_s", self.starts_per_s.map(|rate| format!("{} /s", short(rate)))),
            ("supervisor's memory", "supervisor_bytes", self.supervisor_bytes.map(bytes)),
            ("agent's memory", "agent_rss_bytes", self.agent_rss_bytes.map(bytes)),
            ("its fork server's memory", "fork_server_bytes", self.fork_server_bytes.map(bytes)),
            (
                "agent at rest",
                "agent_rest_cpu_percent",
                self.agent_rest_cpu_percent.map(|part| format!("{part:.2}% of a processor")),
            ),
            ("disk sync", "disk_sync_us", self.disk_sync_us.map(|us| format!("{us} µs"))),
            ("processors", "cpu", self.cpu.clone()),
        ];
        page(&rows, &self.why, &self.bars)
    }
}

/// Three digits that count.
pub(crate) fn short(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// Figures with their bars, for people.
pub(crate) fn page(rows: &[(&str, &str, Option<String>)], why: &Why, bars: &[Bar]) -> String {
    let mut page = String::new();
    for (label, figure, value) in rows {
        let root = figure.split('.').next().unwrap_or(figure);
        let value = value.clone().unwrap_or_else(|| {
            format!(
                "not measured: {}",
                why.get(root).map_or("it was not asked for", String::as_str)
            )
        });
        let bar = bars.iter().find(|bar| bar.figure == *figure);
        let verdict = match bar.map(|bar| (bar.met, bar.bar)) {
            Some((Some(true), bar)) => format!("   reaches the bar: {bar}"),
            Some((Some(false), bar)) => format!("   MISSES the bar: {bar}"),
            Some((None, _)) | None => String::new(),
        };
        writeln!(page, "{label:30} {value}{verdict}").expect("writing to memory");
    }
    let said = rows.iter().filter(|row| row.2.is_none()).map(|row| row.1);
    let said: Vec<_> = said.map(|figure| figure.split('.').next().unwrap_or(figure)).collect();
    for (_, reason) in why.iter().filter(|(figure, _)| !said.contains(*figure)) {
        writeln!(page, "note: {reason}").expect("writing to memory");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_times_that_there_are() {
        let times = |n: u32| (1..=n).map(f64::from).collect();
        assert_eq!(Quantiles::of(Vec::new()), None);
        assert_eq!(Quantiles::of(times(1)), Some(Quantiles { p50: 1.0, p99: 1.0 }));
        assert_eq!(Quantiles::of(times(200)), Some(Quantiles { p50: 100.0, p99: 198.0 }));
    }

    #[test]
    fn the_page_says_what_is_missed_and_what_was_not_measured() {
        let mut fleet = Fleet {
            agents: 10_000,
            agent_kind: "simulated",
            connect_per_s: Some(1234.5),
            rss_per_agent_bytes: Some(13 * 1024),
            fanout: Fanout { all_started_ms: Some(1200), all_durable_ms: Some(2400) },
            fire_lag_ms: Some(Quantiles { p50: 20.0, p99: 300.25 }),
            ..Fleet::default()
        };
        fleet.why.insert(
            "reconnect_all_s",
            "a server that was not started here is not restarted".to_owned(),
        );
        fleet.judge(100);
        insta::assert_snapshot!(fleet.page(), @"
        agents                         10000 (simulated)
        connect                        1234 agents/s
        server's memory per agent      13 kB   MISSES the bar: at most 12 KiB
        one run on all: started        1200 ms
        one run on all: durable        2400 ms   reaches the bar: at most 5,000 with 10,000 agents
        task starts committed          not measured: it was not asked for
        output durable, log text       not measured: it was not asked for
        output durable, random bytes   not measured: it was not asked for
        fire lag                       p50 20.0 ms, p99 300 ms   MISSES the bar: at most 250 with 10,000 jobs
        fire to start on the host      not measured: it was not asked for
        reconnect of all               not measured: a server that was not started here is not restarted
        API meanwhile                  not measured: it was not asked for
        server's processor time        not measured: it was not asked for
        server's memory                not measured: it was not asked for
        disk sync                      not measured: it was not asked for
        processors                     not measured: it was not asked for
        ");
    }

    #[test]
    fn a_small_fleet_can_miss_a_bar_but_not_reach_it() {
        let met = |agents, ms| {
            let fanout = Fanout { all_started_ms: None, all_durable_ms: Some(ms) };
            let mut fleet = Fleet { agents, fanout, ..Fleet::default() };
            fleet.judge(0);
            fleet.bars.into_iter().find(|bar| bar.figure.starts_with("fanout")).unwrap().met
        };
        assert_eq!(met(10_000, 4000), Some(true));
        assert_eq!(met(100, 4000), None);
        assert_eq!(met(100, 6000), Some(false));
    }
}
