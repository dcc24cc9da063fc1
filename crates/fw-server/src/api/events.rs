//! The one stream of a browser: changes of all topics that its pages show.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use fw_proto::api::{Code, Problem};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::auth::Caller;
use crate::extract::Query;
use crate::feed::{MOST_TOPICS, Since, Topic, Viewer};
use crate::problem::{Failure, Result};
use crate::sse::{self, Ended, LastEventId};
use crate::state::App;

/// Which changes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// Topics, with commas between: `hosts`, `jobs`, `runs`, `changes`, `touched`, `run:ID`, `change:ID`, `log:ID`. At most 32 with those of `fresh`.
    #[serde(default)]
    topics: String,
    /// Topics that begin with a snapshot, whatever `since` says.
    #[serde(default)]
    fresh: String,
    /// The id of the last event seen; `topics` go on from there. `Last-Event-ID` counts before it.
    since: Option<String>,
}

/// Follows topics: `snapshot` and `delta` events, each with a topic and rows by key, and `beat` every 15 s.
///
/// A snapshot has all rows of its topic, a delta those that changed, `null` for one that is gone. A client that comes
/// back gets the changes since, or snapshots when that was too long ago. Who reads slowly misses changes and gets a
/// snapshot. Output is not in it: `log:ID` tells how many bytes there are.
#[utoipa::path(get, path = "/events", tag = "events", operation_id = "events_follow",
    params(EventsQuery, ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event seen.")),
    responses((status = 200, body = String, content_type = "text/event-stream")))]
pub(super) async fn follow(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<EventsQuery>,
    last: LastEventId,
    headers: HeaderMap,
) -> Result<Response> {
    require_same_site(&headers)?;
    let (topics, fresh) = (parse(&query.topics)?, parse(&query.fresh)?);
    if topics.is_empty() && fresh.is_empty() || topics.len() + fresh.len() > MOST_TOPICS {
        return Err(Failure::invalid(format!("topics: give 1 to {MOST_TOPICS} of them")));
    }
    let since = last.0.or(query.since).filter(|since| !since.is_empty());
    let since = since.as_deref().map(Since::parse).transpose()?;
    let viewer = Viewer::new(&app.feed, &topics, &fresh, since.as_ref());
    let shared = app.clone();
    Ok(sse::respond_raw(&app, caller, move |out| async move {
        if let Err(Ended::Failed(error)) = viewer.follow(&shared, &out).await {
            tracing::debug!(error = %error.into_problem(), "events ended");
        }
    }))
}

fn parse(list: &str) -> Result<Vec<Topic>> {
    let named = list.split(',').filter(|name| !name.is_empty());
    named
        .map(|name| {
            name.parse::<Topic>().map_err(|error| Failure::invalid(format!("topics: {error}")))
        })
        .collect()
}

/// A page of another site may make a browser open a stream with its cookie, though not read it: there is no use in that.
fn require_same_site(headers: &HeaderMap) -> Result<()> {
    // Browsers always send it (W3C Fetch Metadata §2.4); programs need not.
    match headers.get("sec-fetch-site").map(|site| site.as_bytes()) {
        None | Some(b"same-origin" | b"none") => Ok(()),
        Some(_) => Err(Problem::new(Code::Forbidden, "this stream is for pages of this server")
            .detail("it was asked for by a page of another site")
            .into()),
    }
}
