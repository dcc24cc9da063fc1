//! What commands wrote: as an event stream in the order it came, or one stream's exact bytes.
//!
//! Chunks are stored compressed, one after the other as hosts sent them. The place of a chunk in that order, and of a record
//! in its chunk, is the id of an event: who comes back with it gets everything after, once.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fw_core::access::Action;
use fw_core::plan::Plan;
use fw_proto::api::LogEvent;
use fw_proto::record::{self, Body as Content, MAX_CHUNK, Offsets, Stream};
use fw_proto::{HostId, HostName, RunId};
use fw_store::{PlacedChunk, Store, StoredChunk};
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use utoipa::IntoParams;

use super::run;
use crate::auth::Caller;
use crate::extract::{Path, Query};
use crate::fleet;
use crate::lines::damaged;
use crate::problem::{Failure, Result};
use crate::sse::{self, Ended, LastEventId, Out};
use crate::state::App;

/// Places of chunks read at a time. The chunks themselves are read one by one, so that a client costs little.
const AT_ONCE: u32 = 1024;

/// Hints of new output that come together are one look at the store. People see no 20 ms; a thousand hosts make
/// a thousand hints in that time.
const TOGETHER: Duration = Duration::from_millis(20);

/// This often the store is looked at without a hint.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The most gaps that the header of raw output lists: it has to fit into what clients take as a header.
const MAX_GAPS: usize = 200;

/// Which output.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FollowQuery {
    /// Only of this host (name or id).
    host: Option<String>,
    /// Only this stream.
    stream: Option<Stream>,
    /// Go on until the run has ended; else end with what is there.
    #[serde(default)]
    follow: bool,
}

/// Gives a run's output: `log` events, in the order in which the server stored it, and `end`.
///
/// A client that comes back with the header `Last-Event-ID` gets what follows, nothing twice and nothing left out.
#[utoipa::path(get, path = "/runs/{id}/logs", tag = "logs", operation_id = "logs_follow",
    params(("id" = RunId, Path), FollowQuery, ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event seen.")),
    responses((status = 200, body = LogEvent, content_type = "text/event-stream")))]
pub(super) async fn follow(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<RunId>,
    Query(query): Query<FollowQuery>,
    last: LastEventId,
) -> Result<Response> {
    let from = last.0.as_deref().map(Place::parse).transpose()?.unwrap_or_default();
    let plan = run::plan_of(&app, id).await?;
    run::within(&app, &caller, Action::See, id).await?;
    let only = match &query.host {
        Some(name) => Some(host_of(&app, &plan, name).await?),
        None => None,
    };
    let hosts = plan.hosts.into_iter().map(|host| (host.id, host.name)).collect();
    let follower = Follower {
        app: app.clone(),
        id,
        hosts,
        only,
        stream: query.stream,
        follow: query.follow,
        at: from,
    };
    Ok(sse::respond(&app, caller, move |out| async move {
        if let Err(Ended::Failed(error)) = follower.run(&out).await {
            tracing::debug!(run.id = %id, error = %error.into_problem(), "log events ended");
        }
    }))
}

/// Finds a host of the run: by the name it was chosen with, or as it is known now.
pub(super) async fn host_of(app: &App, plan: &Plan, name: &str) -> Result<HostId> {
    let chosen =
        plan.hosts.iter().find(|host| host.name.as_str() == name || host.id.to_string() == name);
    if let Some(host) = chosen {
        return Ok(host.id);
    }
    let host = fleet::find(app, name)?;
    if plan.hosts.iter().any(|chosen| chosen.id == host.id) {
        return Ok(host.id);
    }
    Err(Failure::not_found(
        "task of this run on host",
        name,
        "`fleetwright runs show` lists the hosts of a run",
    ))
}

/// A place in a run's output: all before it has been seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Place {
    /// The place of the chunk among all of the store.
    chunk: u64,
    /// So many of its records have been seen.
    records: usize,
}

impl Place {
    fn parse(text: &str) -> Result<Self> {
        let parsed = text.split_once('.').and_then(|(chunk, records)| {
            Some(Self { chunk: chunk.parse().ok()?, records: records.parse().ok()? })
        });
        parsed.ok_or_else(|| {
            Failure::invalid(
                "Last-Event-ID: give an id of this stream, CHUNK.RECORD, or leave it out",
            )
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.chunk, self.records)
    }
}

struct Follower {
    app: App,
    id: RunId,
    /// The hosts of the run, by the names they were chosen with.
    hosts: BTreeMap<HostId, HostName>,
    only: Option<HostId>,
    stream: Option<Stream>,
    follow: bool,
    at: Place,
}

impl Follower {
    async fn run(mut self, out: &Out) -> std::result::Result<(), Ended> {
        let mut logs = self.app.live.logs();
        let mut runs = self.app.live.runs();
        loop {
            // Asked before the output is read: output is stored before the end that it belongs to.
            let last = !self.follow || self.run_ended().await?;
            self.send_stored(out).await?;
            if last {
                return Ok(out
                    .send("end", Some(self.at.to_string()), &serde_json::json!({}))
                    .await?);
            }
            let look = tokio::time::sleep(LOOK_EVERY);
            tokio::pin!(look);
            loop {
                tokio::select! {
                    _ = out.gone() => return Err(Ended::Gone),
                    () = &mut look => break,
                    hint = logs.recv() => match hint {
                        Ok(hint) if hint.run == self.id && self.only.is_none_or(|host| host == hint.host) => break,
                        Ok(_) => {}
                        Err(RecvError::Lagged(_)) => break,
                        Err(RecvError::Closed) => return Err(Ended::Gone),
                    },
                    hint = runs.recv() => match hint {
                        Ok(hint) if hint.summary.id == self.id && hint.summary.state.is_final() => break,
                        Ok(_) => {}
                        Err(RecvError::Lagged(_)) => break,
                        Err(RecvError::Closed) => return Err(Ended::Gone),
                    },
                }
            }
            tokio::time::sleep(TOGETHER).await;
        }
    }

    async fn run_ended(&self) -> Result<bool> {
        Ok(self.app.hub.summaries([self.id].into()).await?.is_empty())
    }

    /// Sends all that is stored after `at`, and moves it there.
    async fn send_stored(&mut self, out: &Out) -> std::result::Result<(), Ended> {
        loop {
            // A chunk of which some records have been seen is looked at again.
            let after =
                if self.at.records > 0 { self.at.chunk.saturating_sub(1) } else { self.at.chunk };
            let places = self.app.store.log_places(self.id, self.only, after, AT_ONCE).await?;
            let full = places.len() >= AT_ONCE as usize;
            for place in places {
                // What the sweeper takes meanwhile is gone; the rest is still worth having.
                let Some(placed) = self.app.store.log_chunk_at(place).await? else { continue };
                self.send_chunk(out, &placed).await?;
            }
            if !full {
                return Ok(());
            }
        }
    }

    /// Sends a chunk's records that have not been seen.
    async fn send_chunk(
        &mut self,
        out: &Out,
        placed: &PlacedChunk,
    ) -> std::result::Result<(), Ended> {
        let seen = if placed.place == self.at.chunk { self.at.records } else { 0 };
        let raw = decompress(&placed.chunk)?;
        let name = self.hosts.get(&placed.host);
        let mut offsets = placed.chunk.from;
        let mut count = 0;
        for record in record::records(&raw) {
            let record = record.map_err(|error| damaged(&error))?;
            count += 1;
            let offset = stream_offset(&offsets, record.stream);
            offsets = offsets.after(&record);
            if count <= seen {
                continue;
            }
            self.at = Place { chunk: placed.place, records: count };
            let Some(host) =
                name.filter(|_| self.stream.is_none_or(|stream| stream == record.stream))
            else {
                continue;
            };
            let (data, gap) = match record.body {
                Content::Bytes(bytes) => (STANDARD.encode(bytes), 0),
                Content::Gap(length) => (String::new(), length),
            };
            let event = LogEvent {
                host: host.clone(),
                stream: record.stream,
                at: record.at,
                offset,
                data,
                gap,
            };
            out.send("log", Some(self.at.to_string()), &event).await?;
        }
        Ok(())
    }
}

fn stream_offset(offsets: &Offsets, stream: Stream) -> u64 {
    match stream {
        Stream::Stdout => offsets.stdout,
        Stream::Stderr => offsets.stderr,
    }
}

fn stream_dropped(offsets: &Offsets, stream: Stream) -> u64 {
    match stream {
        Stream::Stdout => offsets.stdout_dropped,
        Stream::Stderr => offsets.stderr_dropped,
    }
}

fn decompress(chunk: &StoredChunk) -> Result<Vec<u8>> {
    // The store has checked it against this bound when it came.
    zstd::bulk::decompress(&chunk.data, MAX_CHUNK).map_err(|error| damaged(&error))
}

/// Which stream of which host.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RawQuery {
    /// The host (name or id).
    host: String,
    /// The stream.
    stream: Stream,
}

/// Gives the exact stored bytes of one stream on one host, as far as they have come.
///
/// `Fleetwright-Dropped-Bytes` says how many were not kept, and `Fleetwright-Gaps` where: `offset:length,…`, the offsets
/// counted in what was kept; at most 200, then `…`.
#[utoipa::path(get, path = "/runs/{id}/logs/raw", tag = "logs", operation_id = "logs_raw",
    params(("id" = RunId, Path), RawQuery),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream",
        headers(("Fleetwright-Dropped-Bytes" = u64), ("Fleetwright-Gaps" = String)))))]
pub(super) async fn raw(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<RunId>,
    Query(query): Query<RawQuery>,
) -> Result<Response> {
    let plan = run::plan_of(&app, id).await?;
    run::within(&app, &caller, Action::See, id).await?;
    let host = host_of(&app, &plan, &query.host).await?;
    let written = app.store.log_hosts(id).await?;
    let last =
        written.into_iter().filter(|(of, ..)| *of == host).max_by_key(|(_, attempt, _)| *attempt);
    let (attempt, durable) =
        last.map_or_else(|| (1, Offsets::default()), |(_, attempt, durable)| (attempt, durable));
    let source = Source { store: app.store.clone(), run: id, host, attempt, stream: query.stream };
    let dropped = stream_dropped(&durable, query.stream);
    let gaps = if dropped > 0 { source.gaps().await? } else { String::new() };
    let length = stream_offset(&durable, query.stream);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CONTENT_LENGTH, HeaderValue::from(length)),
        (header::HeaderName::from_static("fleetwright-dropped-bytes"), HeaderValue::from(dropped)),
    ];
    let mut response = (headers, Body::from_stream(source.bytes(length))).into_response();
    if let Ok(gaps) = HeaderValue::from_str(&gaps)
        && !gaps.is_empty()
    {
        response.headers_mut().insert("fleetwright-gaps", gaps);
    }
    Ok(response)
}

/// One stream of one task.
struct Source {
    store: Store,
    run: RunId,
    host: HostId,
    attempt: u16,
    stream: Stream,
}

/// How far the bytes of a source have been given.
struct Reading {
    source: Source,
    /// The last chunk read.
    chunk: u64,
    /// Bytes yet to come.
    left: u64,
}

impl Source {
    async fn next(&self, after: u64) -> Result<Option<StoredChunk>> {
        let mut chunks = self.store.log_chunks(self.run, self.host, self.attempt, after, 1).await?;
        Ok(chunks.pop())
    }

    /// Where bytes are missing. Only chunks with a gap are decompressed.
    async fn gaps(&self) -> Result<String> {
        let mut gaps: VecDeque<(u64, u64)> = VecDeque::new();
        let mut after = 0;
        while let Some(chunk) = self.next(after).await? {
            after = chunk.n;
            if stream_dropped(&chunk.from, self.stream) == stream_dropped(&chunk.to, self.stream) {
                continue;
            }
            self.gaps_of(&chunk, &mut gaps)?;
            if gaps.len() > MAX_GAPS {
                break;
            }
        }
        let more = gaps.len() > MAX_GAPS;
        let listed: Vec<_> = gaps
            .iter()
            .take(MAX_GAPS)
            .map(|(offset, length)| format!("{offset}:{length}"))
            .collect();
        Ok(listed.join(",") + if more { ",..." } else { "" })
    }

    fn gaps_of(&self, chunk: &StoredChunk, gaps: &mut VecDeque<(u64, u64)>) -> Result<()> {
        let raw = decompress(chunk)?;
        let mut offsets = chunk.from;
        for record in record::records(&raw) {
            let record = record.map_err(|error| damaged(&error))?;
            let offset = stream_offset(&offsets, self.stream);
            offsets = offsets.after(&record);
            let Content::Gap(length) = record.body else { continue };
            if record.stream != self.stream {
                continue;
            }
            match gaps.back_mut() {
                Some((at, before)) if *at == offset => *before += length,
                _ => gaps.push_back((offset, length)),
            }
        }
        Ok(())
    }

    /// The first `length` bytes, chunk by chunk. When they are not all there any more, the answer breaks off, so that
    /// nobody takes a part for the whole.
    fn bytes(
        self,
        length: u64,
    ) -> impl futures_util::Stream<Item = std::result::Result<Bytes, std::io::Error>> {
        let begin = Reading { source: self, chunk: 0, left: length };
        futures_util::stream::try_unfold(begin, |mut reading| async move {
            while reading.left > 0 {
                let next = reading.source.next(reading.chunk).await;
                let next = next.map_err(|error| std::io::Error::other(error.into_problem()))?;
                let chunk = next.ok_or(std::io::ErrorKind::UnexpectedEof)?;
                reading.chunk = chunk.n;
                let bytes = reading.source.bytes_of(&chunk, reading.left);
                let bytes = bytes.map_err(|error| std::io::Error::other(error.into_problem()))?;
                if !bytes.is_empty() {
                    reading.left -= bytes.len() as u64;
                    return Ok(Some((Bytes::from(bytes), reading)));
                }
            }
            Ok(None)
        })
    }

    fn bytes_of(&self, chunk: &StoredChunk, most: u64) -> Result<Vec<u8>> {
        if stream_offset(&chunk.from, self.stream) == stream_offset(&chunk.to, self.stream) {
            return Ok(Vec::new());
        }
        let raw = decompress(chunk)?;
        let mut bytes = Vec::with_capacity(raw.len());
        for record in record::records(&raw) {
            let record = record.map_err(|error| damaged(&error))?;
            if let Content::Bytes(part) = record.body
                && record.stream == self.stream
            {
                bytes.extend_from_slice(part);
            }
        }
        bytes.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        Ok(bytes)
    }
}
