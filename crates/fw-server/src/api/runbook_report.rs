//! The record of a runbook: its document with what became of each step.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use fw_core::access::Action;
use fw_core::change::{Change, Origin, Try};
use fw_core::runbook::report::{self, MOST_OUTPUT, Ran, RanTask, Record};
use fw_proto::api::ReportFormat;
use fw_proto::{ChangeId, HostId, HostName, RunId};
use serde::Deserialize;
use utoipa::IntoParams;

use super::change;
use crate::auth::Caller;
use crate::extract::{Path, Query};
use crate::output;
use crate::problem::{Result, fault};
use crate::state::App;

/// The most bytes of output in a record; a thousand hosts would make it a text that nobody opens.
const MOST_IN_ALL: usize = 16 * 1024 * 1024;

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
    let mut ran = Ran { command: Some(run.summary.command), tasks: Vec::new() };
    for task in run.tasks {
        let output = match ids.get(&task.host) {
            Some(host) => {
                let of = output::Task { run: one.run, host: *host, attempt: task.attempt };
                output::read(&app.store, of, None, MOST_OUTPUT.min(*room)).await?.bytes
            }
            None => Vec::new(),
        };
        *room -= output.len();
        let all = task.stdout_bytes.saturating_add(task.stderr_bytes);
        let left_out = all.saturating_sub(u64::try_from(output.len()).unwrap_or(u64::MAX));
        ran.tasks.push(RanTask { task, output, left_out });
    }
    Ok(Some(ran))
}
