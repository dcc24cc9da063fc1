//! Lines of a log: a page of them from anywhere, what is found in them, and all of it as text.
//!
//! Nobody has to take a log as a whole to look at it: each answer has a bound, and says how much there is.

use std::collections::{BTreeMap, VecDeque};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use fw_core::access::Action;
use fw_core::log::{End, Group, Index, Line, Only, Pattern, Search, Splitter};
use fw_proto::api::{LineEnd, LogGroup, LogLine, LogLines, LogMatch, LogMatches, OnlyLines};
use fw_proto::record::{self, Body as Content};
use fw_proto::{HostId, HostName, RunId};
use serde::Deserialize;
use utoipa::IntoParams;

use super::log::host_of;
use super::run;
use crate::auth::Caller;
use crate::extract::{Path, Query};
use crate::lines::{self, Enough, Log, Taken};
use crate::problem::{Failure, Result};
use crate::state::App;

/// The most lines of an answer, and how many when nothing is said.
const MOST_LINES: u32 = 2000;
const LINES: u32 = 500;

/// An answer ends with the line that reaches so many bytes of text.
const MOST_BYTES: usize = 1 << 20;

/// Which lines.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LinesQuery {
    /// Only of this host (name or id); else of all, in the order in which they came.
    host: Option<String>,
    /// The first row, counted from 1; the last rows when absent.
    from: Option<u64>,
    /// Only lines behind the one of this number; instead of `from`.
    after: Option<u64>,
    /// How many, 1 to 2000; 500 when absent.
    count: Option<u32>,
    /// All lines, or those that tell of errors; rows are counted among them.
    #[serde(default)]
    #[param(inline)]
    only: OnlyLines,
}

/// Gives lines of a run's output, from any row on.
///
/// A line is counted when it ends, and keeps its number. A log that has just been opened is counted for a while with each
/// request; until `complete` the lines so far are given.
#[utoipa::path(get, path = "/runs/{id}/logs/lines", tag = "logs", operation_id = "logs_lines",
    params(("id" = RunId, Path), LinesQuery), responses((status = 200, body = LogLines)))]
pub(super) async fn lines(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<RunId>,
    Query(query): Query<LinesQuery>,
) -> Result<Json<LogLines>> {
    let most = query.count.unwrap_or(LINES);
    if most == 0 || most > MOST_LINES {
        return Err(Failure::invalid(format!("count: give a number from 1 to {MOST_LINES}")));
    }
    let (log, hosts) = find(&app, &caller, id, query.host.as_deref()).await?;
    let only = only(query.only);
    let (mut answer, from, mark, end) = app
        .lines
        .count(&app.store, log, |index, taken| {
            let answer = empty(index, log, taken);
            let rows = if only == Only::All { answer.total } else { answer.errors };
            let last = || (rows + 1).saturating_sub(u64::from(most));
            let from = match query.after {
                Some(after) => behind(index, after, only),
                None => query.from.unwrap_or_else(last),
            };
            let from = from.max(1);
            (answer, from, (from <= rows).then(|| index.before(from, only)), index.end().clone())
        })
        .await?;
    if let Some(mark) = mark {
        let (most, after) = (most as usize, query.after.unwrap_or_default());
        let mut page = Page { from, after, most, only, hosts, lines: Vec::new(), bytes: 0 };
        lines::read(&app.store, log, mark, &end, &mut |line| page.see(line)).await?;
        answer.lines = page.lines;
    }
    Ok(Json(answer))
}

/// A row that is not behind the first one after a line, and near it: that of the mark before.
fn behind(index: &Index, after: u64, only: Only) -> u64 {
    let mark = index.before(after.saturating_add(1), Only::All);
    match only {
        Only::All => after.saturating_add(1),
        Only::Errors => mark.splitter.errors() + 1,
    }
}

/// An answer without lines.
fn empty(index: &Index, log: Log, taken: Taken) -> LogLines {
    let end = index.end();
    // Groups of several hosts are mixed with each other.
    let groups = if log.host.is_some() { index.groups() } else { &[] };
    LogLines {
        lines: Vec::new(),
        total: lines::rows(end, Only::All),
        errors: lines::rows(end, Only::Errors),
        settled: end.splitter.lines(),
        complete: taken == Taken::All,
        groups: groups.iter().map(group).collect(),
    }
}

fn only(lines: OnlyLines) -> Only {
    match lines {
        OnlyLines::All => Only::All,
        OnlyLines::Errors => Only::Errors,
    }
}

fn group(group: &Group) -> LogGroup {
    let Group { from, to, title, depth } = group.clone();
    LogGroup { from, to, title, depth }
}

/// The log that is meant, and the names of its hosts.
async fn find(
    app: &App,
    caller: &Caller,
    id: RunId,
    host: Option<&str>,
) -> Result<(Log, BTreeMap<HostId, HostName>)> {
    run::within(app, caller, Action::See, id).await?;
    let plan = run::plan_of(app, id).await?;
    let host = match host {
        Some(name) => Some(host_of(app, &plan, name).await?),
        None => None,
    };
    let hosts = plan.hosts.into_iter().map(|host| (host.id, host.name)).collect();
    Ok((Log { run: id, host }, hosts))
}

/// Lines for an answer.
struct Page {
    from: u64,
    after: u64,
    most: usize,
    only: Only,
    hosts: BTreeMap<HostId, HostName>,
    lines: Vec<LogLine>,
    bytes: usize,
}

impl Page {
    fn see(&mut self, line: &Line<'_>) -> Enough {
        let wanted = |row: &u64| *row >= self.from && line.number > self.after;
        let Some(row) = self.only.row(line).filter(wanted) else { return Enough::No };
        // A chunk of a host that is not in the plan cannot come: the hub takes none.
        let Some(host) = self.hosts.get(&line.writer.host).cloned() else { return Enough::No };
        let (end, gap) = match line.end {
            End::Whole => (LineEnd::Whole, 0),
            End::Cut => (LineEnd::Cut, 0),
            End::Open => (LineEnd::Open, 0),
            End::Gap(length) => (LineEnd::Whole, length),
        };
        self.bytes += line.text.len();
        self.lines.push(LogLine {
            n: line.number,
            row,
            host,
            stream: line.writer.stream,
            at: line.at,
            text: String::from_utf8_lossy(line.text).into_owned(),
            end,
            gap,
            error: line.error.is_some(),
        });
        let full = self.lines.len() >= self.most || self.bytes >= MOST_BYTES;
        if full { Enough::Yes } else { Enough::No }
    }
}

/// What to look for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SearchQuery {
    /// The text, or a regular expression with `regex`. Without capitals, it is found in any case.
    q: String,
    /// Whether it is a regular expression.
    #[serde(default)]
    regex: bool,
    /// Only of this host (name or id).
    host: Option<String>,
    /// In all lines, or in those that tell of errors.
    #[serde(default)]
    #[param(inline)]
    only: OnlyLines,
    /// The row from which on the next match is looked for, and before which the previous; 1 when absent.
    from: Option<u64>,
}

/// Searches the whole output of a run, without the escape sequences in it.
///
/// One request looks for a fraction of a second; until `complete`, ask again with the same text.
#[utoipa::path(get, path = "/runs/{id}/logs/search", tag = "logs", operation_id = "logs_search",
    params(("id" = RunId, Path), SearchQuery), responses((status = 200, body = LogMatches)))]
pub(super) async fn search(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<RunId>,
    Query(query): Query<SearchQuery>,
) -> Result<Json<LogMatches>> {
    let SearchQuery { q, regex, host, only: among, from } = query;
    let (log, _) = find(&app, &caller, id, host.as_deref()).await?;
    let pattern = Pattern { text: q, regex, only: only(among) };
    let answer = |search: &Search, taken| {
        let rows = search.rows();
        let next = rows.from(from.unwrap_or(1));
        let found = |at: usize| rows.get(at).map(|row| LogMatch { row, nth: at as u64 + 1 });
        LogMatches {
            matches: rows.count() as u64,
            more: search.is_full(),
            looked: search.end().splitter.lines(),
            complete: taken == Taken::All,
            next: found(next),
            previous: next.checked_sub(1).and_then(found),
        }
    };
    Ok(Json(app.lines.search(&app.store, log, pattern, answer).await?))
}

/// Of which hosts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TextQuery {
    /// Only of this host (name or id); else of all, and each line begins with its host's name.
    host: Option<String>,
}

/// Gives all output so far as one text, both streams in the order in which they came: a file to keep.
#[utoipa::path(get, path = "/runs/{id}/logs/text", tag = "logs", operation_id = "logs_text",
    params(("id" = RunId, Path), TextQuery),
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn text(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<RunId>,
    Query(query): Query<TextQuery>,
) -> Result<Response> {
    let (log, hosts) = find(&app, &caller, id, query.host.as_deref()).await?;
    let name = log.host.and_then(|host| hosts.get(&host)).map(|name| format!("-{name}"));
    let name = format!("attachment; filename=\"run-{id}{}.log\"", name.unwrap_or_default());
    let name = HeaderValue::from_str(&name)
        .unwrap_or_else(|_| HeaderValue::from_static("attachment; filename=\"run.log\""));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (header::CONTENT_DISPOSITION, name),
    ];
    let writing = Writing { app, log, hosts, place: 0, splitter: Splitter::default() };
    Ok((headers, Body::from_stream(writing.parts())).into_response())
}

/// How far a text has been written.
struct Writing {
    app: App,
    log: Log,
    hosts: BTreeMap<HostId, HostName>,
    place: u64,
    splitter: Splitter,
}

impl Writing {
    /// A few chunks at a time, as the client takes them.
    fn parts(self) -> impl futures_util::Stream<Item = std::result::Result<Bytes, std::io::Error>> {
        let waiting: VecDeque<_> = VecDeque::new();
        futures_util::stream::try_unfold((self, waiting), |(mut writing, mut waiting)| async move {
            loop {
                if waiting.is_empty() {
                    let Writing { app, log, place, .. } = &writing;
                    let read = app.store.log_read(log.run, log.host, *place, record::MAX_CHUNK);
                    waiting.extend(read.await.map_err(std::io::Error::other)?);
                }
                let Some(placed) = waiting.pop_front() else {
                    let rest = writing.rest();
                    return Ok((!rest.is_empty()).then(|| (Bytes::from(rest), (writing, waiting))));
                };
                writing.place = placed.place;
                let raw = lines::decompress(&placed);
                let raw = raw.map_err(|error| std::io::Error::other(error.into_problem()))?;
                let part = writing.part(placed.host, placed.attempt, &raw);
                let part = part.map_err(std::io::Error::other)?;
                if !part.is_empty() {
                    return Ok(Some((Bytes::from(part), (writing, waiting))));
                }
            }
        })
    }

    fn part(
        &mut self,
        host: HostId,
        attempt: u16,
        raw: &[u8],
    ) -> std::result::Result<Vec<u8>, record::Malformed> {
        let mut part = Vec::with_capacity(raw.len());
        if self.log.host.is_some() {
            for record in record::records(raw) {
                match record?.body {
                    Content::Bytes(bytes) => part.extend_from_slice(bytes),
                    Content::Gap(length) => part.extend_from_slice(gap(length).as_bytes()),
                }
            }
            return Ok(part);
        }
        let hosts = &self.hosts;
        self.splitter.feed(host, attempt, raw, &mut |line| write_line(&mut part, hosts, line))?;
        Ok(part)
    }

    /// What has not ended when all is read; then nothing is left.
    fn rest(&mut self) -> Vec<u8> {
        let mut part = Vec::new();
        let splitter = std::mem::take(&mut self.splitter);
        splitter.rest(&mut |line| write_line(&mut part, &self.hosts, line));
        part
    }
}

fn write_line(to: &mut Vec<u8>, hosts: &BTreeMap<HostId, HostName>, line: &Line<'_>) {
    let name = hosts.get(&line.writer.host).map(HostName::as_str).unwrap_or_default();
    to.extend_from_slice(name.as_bytes());
    to.extend_from_slice(b" | ");
    match line.end {
        End::Whole | End::Cut | End::Open => to.extend_from_slice(line.text),
        End::Gap(length) => to.extend_from_slice(gap(length).trim().as_bytes()),
    }
    to.push(b'\n');
}

/// What stands where bytes are missing.
fn gap(length: u64) -> String {
    format!("\n[{length} bytes were not kept]\n")
}
