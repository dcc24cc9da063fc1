//! The record of a runbook: its document with what became of each step.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use fw_core::access::Action;
use fw_core::change::{Change, Origin, Try};
use fw_core::runbook::report::{self, MOST_OUTPUT, Ran, RanTask, Record};
use fw_proto::api::{ReportFormat, Task};
use fw_proto::record::{self, Body, MAX_CHUNK};
use fw_proto::{ChangeId, HostId, HostName, RunId};
use serde::Deserialize;
use utoipa::IntoParams;

use super::change;
use crate::auth::Caller;
use crate::extract::{Path, Query};
use crate::problem::{Result, fault};
use crate::state::App;

/// The most bytes of output in a record; a thousand hosts would make it a text that nobody opens.
const MOST_IN_ALL: usize = 16 * 1024 * 1024;

/// Chunks that are read at a time; each has at most 256 KiB.
const CHUNKS: u32 = 4;

/// A page that loads nothing and runs nothing, but brings its own style.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; sandbox";

/// In which form.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReportQuery {
    /// Markdown when absent.
    #[param(inline)]
    format: Option<ReportFormat>,
}

/// Gives the document of a runbook with who did what, when, where, with which output and proof.
#[utoipa::path(get, path = "/runbooks/{id}/report", tag = "runbooks", operation_id = "runbooks_report",
    params(("id" = ChangeId, Path), ReportQuery),
    responses((status = 200, body = String, content_type = "text/markdown")))]
pub(super) async fn report(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<ChangeId>,
    Query(query): Query<ReportQuery>,
) -> Result<Response> {
    let found = change::find_within(&app, &caller, Action::See, Origin::Runbook, id).await?;
    let rehearsed = app.store.was_undone(&found.plan.source).await?;
    let runs = runs(&app, &found).await?;
    let format = query.format.unwrap_or(ReportFormat::Md);
    // A long document with much output takes a while to write.
    let written = tokio::task::spawn_blocking(move || {
        let record = Record { change: &found, runs: &runs, rehearsed };
        match format {
            ReportFormat::Md => report::markdown(&record),
            ReportFormat::Html => report::html(&record),
        }
    });
    let text = written.await.map_err(|error| fault(&error))?;
    Ok(match format {
        ReportFormat::Md => {
            let kind = HeaderValue::from_static("text/markdown; charset=utf-8");
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        ReportFormat::Html => {
            let headers = [
                (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
                (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY)),
            ];
            (headers, text).into_response()
        }
    })
}

/// What is still known of the runs of a change.
async fn runs(app: &App, change: &Change) -> Result<BTreeMap<RunId, Ran>> {
    let mut found = BTreeMap::new();
    let mut room = MOST_IN_ALL;
    for (node, progress) in change.plan.nodes.iter().zip(&change.nodes) {
        let Some(work) = node.work() else { continue };
        let ids: BTreeMap<&HostName, HostId> =
            work.hosts.iter().map(|host| (&host.name, host.id)).collect();
        for one in progress.tries.iter().chain(&progress.undo_tries) {
            if let Some(ran) = ran(app, one, &ids, &mut room).await? {
                found.insert(one.run, ran);
            }
        }
    }
    Ok(found)
}

/// A run with its output; `None` when it was swept.
async fn ran(
    app: &App,
    one: &Try,
    ids: &BTreeMap<&HostName, HostId>,
    room: &mut usize,
) -> Result<Option<Ran>> {
    let run = match app.hub.run(one.run).await? {
        Some(run) => run,
        None => match app.store.run(one.run).await? {
            Some(run) => run,
            None => return Ok(None),
        },
    };
    let mut ran = Ran::default();
    for task in run.tasks {
        let output = match ids.get(&task.host) {
            Some(host) => output(app, one.run, *host, &task, MOST_OUTPUT.min(*room)).await?,
            None => Vec::new(),
        };
        *room -= output.len();
        let all = task.stdout_bytes.saturating_add(task.stderr_bytes);
        let left_out = all.saturating_sub(u64::try_from(output.len()).unwrap_or(u64::MAX));
        ran.tasks.push(RanTask { task, output, left_out });
    }
    Ok(Some(ran))
}

/// The begin of what a task printed, both streams in the order in which they came.
async fn output(app: &App, run: RunId, host: HostId, task: &Task, most: usize) -> Result<Vec<u8>> {
    let (mut bytes, mut after) = (Vec::new(), 0);
    while bytes.len() < most {
        let chunks = app.store.log_chunks(run, host, task.attempt, after, CHUNKS).await?;
        let Some(last) = chunks.last() else { break };
        after = last.n;
        for chunk in &chunks {
            // What is damaged is told where the log itself is shown.
            let Ok(raw) = zstd::bulk::decompress(&chunk.data, MAX_CHUNK) else { continue };
            for record in record::records(&raw).map_while(std::result::Result::ok) {
                if let Body::Bytes(more) = record.body {
                    bytes.extend_from_slice(more);
                }
            }
        }
    }
    bytes.truncate(most);
    Ok(bytes)
}
