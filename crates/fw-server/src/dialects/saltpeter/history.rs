//! What the log files of Saltpeter say of the past.
//!
//! They are read with patience: lines that are output of a command may look like anything, files begin in the
//! middle when they were rotated, and what was running when the scheduler died has no end.

use std::collections::BTreeMap;

use fw_proto::{Span, Timestamp};
use serde::Serialize;

use super::schedule::Times;

/// What a job did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct History {
    /// Runs that began.
    pub runs: u64,
    /// Runs whose end was written.
    pub finished: u64,
    /// Fires that came while an earlier run went on.
    pub overlaps: u64,
    /// Runs that found no machine.
    pub without_machines: u64,
    /// Of a run that ended, the longest time in seconds.
    pub longest_seconds: Option<u64>,
    /// When the last run began.
    pub last_run: Option<Timestamp>,
    /// What became of it on each machine.
    pub machines: BTreeMap<String, Machine>,
    /// When runs began, in the order of the log.
    #[serde(skip)]
    pub begun: Vec<Timestamp>,
    /// How long runs took that ended, in the order of their ends.
    #[serde(skip)]
    pub took: Vec<Span>,
    /// When fires came while an earlier run went on.
    #[serde(skip)]
    pub held: Vec<Timestamp>,
}

/// What a job did, against what its schedule says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Compared {
    /// From the first line of the log that has a time for it,
    pub from: Option<Timestamp>,
    /// to the last.
    pub to: Option<Timestamp>,
    /// Fires that were due in between.
    pub due: u64,
    /// Those of them that began a run, or were held by an earlier one.
    pub came: u64,
    /// Some of those that did not: the scheduler was down, in maintenance, or late.
    pub missing: Vec<Timestamp>,
    /// Some of the runs that began without a fire: by hand, or by another schedule.
    pub beside: Vec<Timestamp>,
}

/// A run begins so long after its fire at most: a tick, a fork and a busy machine.
const LATE: Span = Span::from_secs(5);

/// Instants that are named of a difference.
const NAMED: usize = 10;

/// Fires that are looked at: three months of a job that is due each second.
const LOOKED_AT: u64 = 8_000_000;

/// What a job did on a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Machine {
    /// Results.
    pub results: u64,
    /// Those with another code than 0.
    pub failed: u64,
    /// The last one.
    pub last_code: Option<i32>,
    /// When that was.
    pub last_at: Option<Timestamp>,
}

/// A line that is none of a command's.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Starting { instance: &'a str, at: Timestamp },
    StartingOn,
    Finished { instance: &'a str, at: Timestamp },
    Overlap { at: Timestamp },
    NoTargets,
    Begin { machine: &'a str, instance: &'a str },
    Code(i32),
    End { machine: &'a str, instance: &'a str, at: Timestamp },
}

/// Reads a log file.
#[must_use]
pub fn read(text: &str) -> History {
    let mut history = History::default();
    let mut begun: BTreeMap<&str, Timestamp> = BTreeMap::new();
    // The result that is being read, with its code once that was seen.
    let mut block: Option<(&str, &str, Option<i32>)> = None;
    for line in text.lines() {
        match (parse(line), block) {
            (Some(Line::Code(code)), Some((machine, instance, None))) => {
                block = Some((machine, instance, Some(code)));
            }
            (Some(Line::End { machine, instance, at }), Some((of, run, code)))
                if (machine, instance) == (of, run) =>
            {
                history.result(machine, code, at);
                block = None;
            }
            // A block without an end ends with its run at the latest.
            (Some(Line::Finished { instance, at }), Some((_, run, _))) if instance == run => {
                history.finished(instance, at, &mut begun);
                block = None;
            }
            // Output of the command, whatever it looks like.
            (_, Some((_, _, Some(_)))) => {}
            (Some(Line::Begin { machine, instance }), _) => block = Some((machine, instance, None)),
            (Some(Line::Starting { instance, at }), _) => {
                history.runs += 1;
                history.last_run = history.last_run.max(Some(at));
                history.begun.push(at);
                begun.insert(instance, at);
            }
            (Some(Line::Finished { instance, at }), _) => {
                history.finished(instance, at, &mut begun);
            }
            (Some(Line::Overlap { at }), _) => {
                history.overlaps += 1;
                history.held.push(at);
            }
            (Some(Line::NoTargets), _) => history.without_machines += 1,
            (Some(Line::StartingOn | Line::Code(_) | Line::End { .. }) | None, _) => {}
        }
    }
    history
}

impl Compared {
    /// Compares what a log says with when the job was due, as its schedule is now.
    #[must_use]
    pub fn of(times: &Times, history: &History) -> Self {
        let mut came: Vec<_> = history.begun.iter().chain(&history.held).copied().collect();
        came.sort_unstable();
        let mut compared =
            Self { from: came.first().copied(), to: came.last().copied(), ..Self::default() };
        let (Some(first), Some(last)) = (compared.from, compared.to) else { return compared };
        let mut came = came.into_iter().peekable();
        // The first one in the log may have been late already.
        let mut at = first - LATE;
        while compared.due < LOOKED_AT
            && let Some(due) = times.next_after(at).filter(|due| *due <= last)
        {
            at = due;
            while let Some(beside) = came.next_if(|came| *came < due) {
                name(&mut compared.beside, beside);
            }
            let until = times.next_after(due).map_or(due + LATE, |next| next.min(due + LATE));
            if came.next_if(|came| *came < until).is_some() {
                compared.came += 1;
            } else if due < first {
                // It belongs to what was before the log.
                continue;
            } else {
                name(&mut compared.missing, due);
            }
            compared.due += 1;
        }
        came.for_each(|beside| name(&mut compared.beside, beside));
        compared
    }
}

fn name(named: &mut Vec<Timestamp>, at: Timestamp) {
    if named.len() < NAMED {
        named.push(at);
    }
}

impl History {
    fn finished<'a>(
        &mut self,
        instance: &'a str,
        at: Timestamp,
        begun: &mut BTreeMap<&'a str, Timestamp>,
    ) {
        self.finished += 1;
        let Some(took) = begun.remove(instance).map(|begun| at.since(begun)) else { return };
        self.took.push(took);
        self.longest_seconds = self.longest_seconds.max(Some(took.as_millis() / 1000));
    }

    fn result(&mut self, machine: &str, code: Option<i32>, at: Timestamp) {
        // Without a machine everything was in maintenance.
        if machine.is_empty() {
            return;
        }
        let of = self.machines.entry(machine.to_owned()).or_default();
        of.results += 1;
        of.failed += u64::from(code.is_some_and(|code| code != 0));
        if of.last_at.is_none_or(|last| last <= at) {
            (of.last_at, of.last_code) = (Some(at), code);
        }
    }
}

fn parse(line: &str) -> Option<Line<'_>> {
    if let Some(rest) = line.strip_prefix("###### Starting ") {
        let (what, at) = timed(rest.strip_suffix(" ################")?)?;
        return Some(match what.split_once(" on ") {
            Some(_) => Line::StartingOn,
            None => Line::Starting { instance: what, at },
        });
    }
    if let Some(rest) = line.strip_prefix("###### Finished ") {
        let (instance, at) = timed(rest.strip_suffix(" ################")?)?;
        return Some(Line::Finished { instance, at });
    }
    if let Some(rest) = line.strip_prefix("###### Overlap detected on ") {
        let (_, at) = timed(rest.strip_suffix(" ################")?)?;
        return Some(Line::Overlap { at });
    }
    if line.starts_with("!!!!!! No targets matched for ") {
        return Some(Line::NoTargets);
    }
    if let Some(rest) = line.strip_prefix("####### END ") {
        let (what, at) = timed(rest.strip_suffix(" #########")?)?;
        let (machine, instance) = what.split_once(" from ")?;
        return Some(Line::End { machine, instance, at });
    }
    if let Some(rest) = line.strip_prefix("########## ") {
        let (machine, instance) = rest.strip_suffix(" ################")?.split_once(" from ")?;
        return Some(Line::Begin { machine, instance });
    }
    let code = line.strip_prefix("**** Exit Code ")?.strip_suffix(" ******")?;
    code.parse().ok().map(Line::Code)
}

/// What stands before ` at `, and the time after it as Python writes it.
fn timed(text: &str) -> Option<(&str, Timestamp)> {
    let (what, at) = text.rsplit_once(" at ")?;
    let (date, time) = at.split_once(' ')?;
    // A time of ours has three places, one of Python six or none.
    let (clock, zone) = time.split_at_checked(time.find(['+', '-'])?)?;
    let (seconds, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let fraction: String = fraction.chars().chain("000".chars()).take(3).collect();
    Some((what, format!("{date}T{seconds}.{fraction}{zone}").parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::records::record::{Record, What, lines, tests::record};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_log_says_how_often_and_how_well() {
        let text = "\
rest of a block that was rotated away
####### END m1 from job_1 at 2026-11-20 13:00:00+00:00 #########
###### Starting job_2 at 2026-11-20 13:54:46.143765+00:00 ################
###### Starting job_2 on m1 at 2026-11-20 13:54:46.2+00:00 ################
###### Overlap detected on job_2 at 2026-11-20 13:55:00+00:00 ################
########## m1 from job_2 ################
**** Exit Code -15 ******
###### Starting job_9 at 2026-11-20 13:54:46.143765+00:00 ################
########## m2 from job_2 ################
**** Exit Code 0 ******

####### END m1 from job_2 at 2026-11-20 13:56:00+00:00 #########
###### Finished job_2 at 2026-11-20 13:56:46.143765+00:00 ################
###### Starting job_3 at 2026-11-20 14:54:46+00:00 ################
!!!!!! No targets matched for job_3 !!!!!!
###### Finished job_3 at 2026-11-20 14:54:47+00:00 ################
##########  from job_4 ################
**** Exit Code 0 ******
Global maintenance mode active
####### END  from job_4 at 2026-11-20 13:56:00+00:00 #########
########## m1 from job_3 ################
**** Exit Code 9 ******
###### Finished job_3 at 2026-11-20 14:54:48+00:00 ################
###### Starting job_5 at 2026-11-20 15:54:46+00:00 ################
";
        insta::assert_json_snapshot!(read(text));
    }

    #[test]
    fn a_log_is_compared_with_the_schedule() {
        let fields = [("min", "*/5"), ("hour", "*"), ("dom", "*"), ("mon", "*"), ("dow", "*")];
        let fields = fields.map(|(name, text)| (name.parse().unwrap(), text.to_owned()));
        let times = super::super::schedule::read(&fields.into()).unwrap();
        let begin =
            |at: &str| format!("###### Starting j_1 at 2026-11-20 {at}+00:00 ################\n");
        let held =
            "###### Overlap detected on j_1 at 2026-11-20 10:10:00.05+00:00 ################\n";
        let log = begin("10:05:00.1")
            + held
            + &begin("10:12:30")
            + &begin("10:20:04")
            + &begin("10:25:07");
        let compared = Compared::of(&times, &read(&log));
        let at = |clock: &str| format!("2026-11-20T{clock}Z").parse::<Timestamp>().unwrap();
        assert_eq!((compared.due, compared.came), (5, 3));
        assert_eq!(compared.missing, [at("10:15:00"), at("10:25:00")]);
        assert_eq!(compared.beside, [at("10:12:30"), at("10:25:07")]);
        assert_eq!(Compared::of(&times, &History::default()), Compared::default());
    }

    proptest! {
        #[test]
        fn what_we_write_is_read(output in "[#* a-z\n]{0,60}", code in any::<i32>()) {
            let result = Record { output, code, ..record(What::MachineResult) };
            let all = [record(What::Start), record(What::MachineStart), result, record(What::End)];
            let text: String = all.iter().map(lines).collect();
            let history = read(&text);
            prop_assert_eq!((history.runs, history.finished), (1, 1));
            let machine = &history.machines["web-1"];
            prop_assert_eq!((machine.results, machine.last_code), (1, Some(code)));
            prop_assert_eq!(machine.last_at, Some(record(What::End).at));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in any::<String>()) {
            drop(read(&text));
        }
    }
}
