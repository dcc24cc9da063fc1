//! Event streams (`text/event-stream`, WHATWG HTML §9.2): one task a client, and a short queue to it.
//!
//! A client that reads slowly fills its queue; its task then waits, misses what is broadcast meanwhile, and
//! sends the present state when it goes on. So no client costs more than its queue.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::auth::Caller;
use crate::metrics::{Counted, SSE_CLIENTS};
use crate::problem::Failure;
use crate::state::App;

/// Events that wait for one client. Log events have up to 88 KiB each.
const QUEUE: usize = 32;

/// A comment is sent after so long without an event: proxies close silent connections after 60 s or so.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The client has gone, or the server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// Why a stream ends before its end.
pub(crate) enum Ended {
    /// Nobody listens any more.
    Gone,
    /// What it shows cannot be read.
    Failed(Failure),
}

impl From<Gone> for Ended {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<fw_store::Error> for Ended {
    fn from(error: fw_store::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Where a stream's task puts its events.
#[derive(Debug)]
pub(crate) struct Out(mpsc::Sender<Event>);

impl Out {
    /// Sends an event, waiting for the client as long as it needs.
    pub(crate) async fn send(
        &self,
        name: &str,
        id: Option<String>,
        data: &impl Serialize,
    ) -> Result<(), Gone> {
        let event = Event::default().event(name).json_data(data).map_err(|error| {
            tracing::error!(error = %error, "event cannot be written as json");
            Gone
        })?;
        let event = match id {
            Some(id) => event.id(id),
            None => event,
        };
        self.0.send(event).await.map_err(|_| Gone)
    }

    /// Waits until the client has gone.
    pub(crate) async fn gone(&self) -> Gone {
        self.0.closed().await;
        Gone
    }
}

/// Messages that wait for one viewer; they are shared with the other viewers.
const RAW_QUEUE: usize = 4;

/// Where a stream's task puts events that are encoded already.
#[derive(Debug)]
pub(crate) struct RawOut(mpsc::Sender<Bytes>);

impl RawOut {
    /// Sends a message, waiting for the client as long as it needs.
    pub(crate) async fn send(&self, message: Bytes) -> Result<(), Gone> {
        self.0.send(message).await.map_err(|_| Gone)
    }

    /// Waits until the client has gone.
    pub(crate) async fn gone(&self) -> Gone {
        self.0.closed().await;
        Gone
    }
}

/// As [`respond`], with events that are encoded already. `write` sends often enough that no proxy takes it for dead.
pub(crate) fn respond_raw<F, W>(app: &App, caller: Caller, write: W) -> Response
where
    W: FnOnce(RawOut) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::channel(RAW_QUEUE);
    spawn(app, caller, write(RawOut(sender)));
    let messages = futures_util::stream::poll_fn(move |context| {
        receiver.poll_recv(context).map(|message| message.map(Ok::<_, std::convert::Infallible>))
    });
    let kind = [("content-type", "text/event-stream")];
    (UNBUFFERED, kind, Body::from_stream(messages)).into_response()
}

/// nginx would hold events back otherwise (`proxy_buffering`).
const UNBUFFERED: [(&str, &str); 2] = [("cache-control", "no-store"), ("x-accel-buffering", "no")];

/// Answers with an event stream that `write` fills. It ends when `write` does, when the client goes, when its token is
/// good no more, or with the server.
pub(crate) fn respond<F, W>(app: &App, caller: Caller, write: W) -> Response
where
    W: FnOnce(Out) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::channel(QUEUE);
    spawn(app, caller, write(Out(sender)));
    let events = futures_util::stream::poll_fn(move |context| {
        receiver.poll_recv(context).map(|event| event.map(Ok::<_, std::convert::Infallible>))
    });
    let response = Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT));
    (UNBUFFERED, response).into_response()
}

fn spawn(app: &App, caller: Caller, writing: impl Future<Output = ()> + Send + 'static) {
    let shared = app.clone();
    app.tasks.spawn("sse", async move {
        let counted = Counted::new(SSE_CLIENTS);
        tokio::select! {
            () = writing => {}
            () = shared.auth.ended(&shared, &caller) => {
                tracing::info!(caller = caller.name, "event stream ended with what let it in");
            }
        }
        drop(counted);
    });
}

/// The id of the last event that a client has seen.
#[derive(Debug)]
pub(crate) struct LastEventId(pub(crate) Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for LastEventId {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let Some(value) = parts.headers.get("last-event-id") else { return Ok(Self(None)) };
        let text = value.to_str().map_err(|_| Failure::invalid("Last-Event-ID: it is no text"))?;
        Ok(Self(Some(text.to_owned()).filter(|text| !text.is_empty())))
    }
}
