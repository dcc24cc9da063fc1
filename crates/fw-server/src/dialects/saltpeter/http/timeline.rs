//! The timeline: which runs began and ended where, from our own store. Saltpeter asks a search server.

use fw_proto::api::RunSummary;
use fw_proto::{Span, Timestamp};
use fw_store::RunQuery;

use super::super::json::Json;
use super::super::served::seconds;
use super::super::{codes, names, python};
use super::state::{Error, State};
use super::view;

/// The most that one timeline holds: pages draw each as a mark.
const MOST: usize = 5000;

/// Runs looked at for it: a million would take too long.
const MOST_RUNS: usize = 20_000;

/// Runs in a page of the store.
const PAGE: u32 = 200;

/// What a page asks for.
#[derive(Debug, Clone)]
pub(super) struct Query {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    pub(super) id: Json,
}

impl Query {
    /// Reads `start_date` and `end_date`; `None` when one is no time.
    pub(super) fn read(value: &serde_json::Value, now: Timestamp) -> Option<Self> {
        let text = |key: &str| value.get(key).and_then(serde_json::Value::as_str);
        let id = match value.get("id") {
            Some(serde_json::Value::String(id)) => Json::text(id),
            Some(serde_json::Value::Number(id)) => id.as_i64().map_or(Json::Null, Json::Int),
            Some(_) | None => Json::Null,
        };
        let from = instant(text("start_date")?, now)?;
        let to = text("end_date").map_or(Some(now), |text| instant(text, now))?;
        Some(Self { from, to, id })
    }
}

/// `now`, `now-5m`, `now+1d`, milliseconds, or a date.
fn instant(text: &str, now: Timestamp) -> Option<Timestamp> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix("now") {
        return moved(rest, now);
    }
    if let Ok(ms) = text.parse() {
        return Some(Timestamp::from_millis(ms));
    }
    let iso = text.replacen(' ', "T", 1);
    let forms = [iso.clone(), format!("{iso}Z"), format!("{iso}:00Z"), format!("{iso}T00:00:00Z")];
    forms.iter().find_map(|form| form.parse().ok())
}

/// Adds `-5m+1h`; `/d` rounds down, which only makes more of it, so it is not done.
fn moved(text: &str, now: Timestamp) -> Option<Timestamp> {
    let mut at = now.as_millis();
    let mut rest = text.split('/').next().unwrap_or_default();
    while !rest.is_empty() {
        let sign = match rest.chars().next()? {
            '-' => -1,
            '+' => 1,
            _ => return None,
        };
        let body = rest.get(1..)?;
        let digits = body.find(|c: char| !c.is_ascii_digit())?;
        let count: i64 = body.get(..digits)?.parse().ok()?;
        let unit: Span = match body.get(digits..=digits)? {
            "s" => Span::from_secs(1),
            "m" => Span::from_secs(60),
            "h" | "H" => Span::from_secs(3600),
            "d" => Span::from_secs(86_400),
            "w" => Span::from_secs(7 * 86_400),
            "M" => Span::from_secs(30 * 86_400),
            "y" => Span::from_secs(365 * 86_400),
            _ => return None,
        };
        let unit = i64::try_from(unit.as_millis()).ok()?;
        at = at.checked_add(count.checked_mul(unit)?.checked_mul(sign)?)?;
        rest = body.get(digits + 1..)?;
    }
    Some(Timestamp::from_millis(at))
}

/// What happened in that time: `{"content", "id", "serial"}`, the oldest first.
///
/// # Errors
/// The store cannot be read.
pub(super) async fn answer(state: &State, query: &Query) -> Result<Json, Error> {
    let served = state.served();
    let mut events: Vec<(Timestamp, Json)> = Vec::new();
    let mut cursor = None;
    let mut looked_at = 0;
    'pages: loop {
        let page = state
            .app
            .store
            .runs(RunQuery { cursor: cursor.take(), limit: PAGE, ..RunQuery::default() })
            .await?;
        for run in page.items {
            looked_at += 1;
            // A run that ended in that time may have begun a little before.
            let over = run.finished_at.is_some_and(|at| at < query.from);
            if run.created_at < query.from && over || looked_at > MOST_RUNS || events.len() > MOST {
                break 'pages;
            }
            let job = run.job.as_ref().and_then(|job| served.by_job.get(job));
            if let Some(job) = job.filter(|_| run.created_at <= query.to) {
                marks(state, job, &run, &mut events).await?;
            }
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    events.retain(|(at, _)| (query.from..=query.to).contains(at));
    events.sort_by_key(|(at, _)| *at);
    let content = events.into_iter().map(|(_, event)| event).collect();
    Ok(Json::map([
        ("content", Json::List(content)),
        ("id", query.id.clone()),
        ("serial", Json::Float(seconds(state.app.clock.now()))),
    ]))
}

async fn marks(
    state: &State,
    job: &str,
    summary: &RunSummary,
    events: &mut Vec<(Timestamp, Json)>,
) -> Result<(), Error> {
    let Some(run) = state.run(summary.id).await? else { return Ok(()) };
    let Some(plan) = state.app.store.plan(summary.id).await? else { return Ok(()) };
    let instance = names::instance(job, summary.created_at);
    let mark = |at: Timestamp, code: i32, what: &str| {
        let mark = Json::map([
            ("cron", Json::text(job)),
            ("timestamp", Json::text(python::iso_time(at))),
            ("ret_code", Json::Int(code.into())),
            ("msg_type", Json::text(what)),
            ("job_instance", Json::text(&instance)),
        ]);
        (at, mark)
    };
    for task in &run.tasks {
        events.extend(task.started_at.map(|at| mark(at, 0, "machine_start")));
        let ending = codes::ending(task, view::limits(&plan));
        let ended = task.finished_at.or(run.summary.finished_at);
        events
            .extend(ended.zip(ending).map(|(at, ending)| mark(at, ending.code, "machine_result")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_those_of_a_search_server() {
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        let at = |text: &str| instant(text, now).map(|at| at.to_string());
        for (text, want) in [
            ("now", "2026-11-20T12:00:00.000Z"),
            ("now-5m", "2026-11-20T11:55:00.000Z"),
            ("now-1d+2h", "2026-11-19T14:00:00.000Z"),
            ("now-7d/d", "2026-11-13T12:00:00.000Z"),
            ("2026-11-19", "2026-11-19T00:00:00.000Z"),
            ("2026-11-19 01:02", "2026-11-19T01:02:00.000Z"),
            ("2026-11-19T01:02:03Z", "2026-11-19T01:02:03.000Z"),
        ] {
            assert_eq!(at(text).as_deref(), Some(want), "{text}");
        }
        for wrong in
            ["", "nowhere", "now-", "now-5", "now-5q", "yesterday", "now-99999999999999999999y"]
        {
            assert_eq!(at(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_time_or_none(text in "(now)?[-+/0-9smhdwMyż ]{0,24}") {
            let _ = instant(&text, Timestamp::EPOCH);
        }
    }
}
