//! Speaks `_bulk` as a search server does, and fails on purpose.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use fw_rt::Tasks;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What becomes of one request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    /// It is answered with this status, and nothing is stored.
    Say(u16),
    /// Every other document finds no room.
    Crowded,
    /// All of it is stored, and the answer breaks off in the middle.
    BreakOff,
    /// There is never an answer.
    Hang,
}

#[derive(Debug, Default)]
struct Inner {
    script: VecDeque<Act>,
    /// More documents at once are too large.
    most: Option<usize>,
    stored: BTreeMap<String, (String, Value)>,
    requests: usize,
    user: Option<String>,
}

/// A search server. What it holds outlives its connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Standin(Arc<Mutex<Inner>>);

impl Standin {
    /// Serves on this address until the tasks end.
    pub(super) async fn listen(&self, address: SocketAddr, tasks: &Tasks) -> SocketAddr {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/_bulk", post(bulk)).with_state(self.clone());
        tasks.spawn("standin", async move { axum::serve(listener, routes).await });
        address
    }

    pub(super) fn script(&self, acts: &[Act]) {
        self.0.lock().unwrap().script.extend(acts);
    }

    pub(super) fn takes_at_most(&self, documents: usize) {
        self.0.lock().unwrap().most = Some(documents);
    }

    /// The ids that it holds, in order.
    pub(super) fn ids(&self) -> Vec<String> {
        self.0.lock().unwrap().stored.keys().cloned().collect()
    }

    pub(super) fn document(&self, id: &str) -> (String, Value) {
        self.0.lock().unwrap().stored.get(id).cloned().unwrap()
    }

    pub(super) fn requests(&self) -> usize {
        self.0.lock().unwrap().requests
    }

    /// What the last request said about who asks.
    pub(super) fn user(&self) -> Option<String> {
        self.0.lock().unwrap().user.clone()
    }

    /// Stores one document, as `create` does.
    fn create(&self, place: &Value, document: Value, crowded: bool) -> Value {
        let index = place["create"]["_index"].as_str().unwrap().to_owned();
        let id = place["create"]["_id"].as_str().unwrap().to_owned();
        let stored = &mut self.0.lock().unwrap().stored;
        if crowded {
            return json!({"create": {"status": 429, "error": {"type": "es_rejected_execution_exception"}}});
        }
        if document["output"].as_str().unwrap().contains("poison") {
            return json!({"create": {"status": 400, "error": {"type": "mapper_parsing_exception"}}});
        }
        if stored.contains_key(&id) {
            return json!({"create": {"status": 409, "error": {"type": "version_conflict_engine_exception"}}});
        }
        stored.insert(id, (index, document));
        json!({"create": {"status": 201}})
    }
}

async fn bulk(State(standin): State<Standin>, headers: HeaderMap, body: Bytes) -> Response {
    let (act, most) = {
        let inner = &mut standin.0.lock().unwrap();
        inner.requests += 1;
        let user = headers.get(header::AUTHORIZATION);
        inner.user = user.and_then(|user| user.to_str().ok()).map(str::to_owned);
        (inner.script.pop_front(), inner.most)
    };
    let kind = headers.get(header::CONTENT_TYPE).unwrap();
    assert_eq!(kind, "application/x-ndjson");
    match act {
        Some(Act::Say(status)) => {
            return (StatusCode::from_u16(status).unwrap(), "not now").into_response();
        }
        Some(Act::Hang) => std::future::pending().await,
        Some(Act::Crowded | Act::BreakOff) | None => {}
    }
    assert_eq!(body.last(), Some(&b'\n'), "each line ends");
    let text = std::str::from_utf8(&body).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    if most.is_some_and(|most| lines.len() / 2 > most) {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    }
    let crowded = |n: usize| matches!(act, Some(Act::Crowded)) && n % 2 == 1;
    let pairs = lines.chunks(2).enumerate();
    let items: Vec<_> =
        pairs.map(|(n, pair)| standin.create(&pair[0], pair[1].clone(), crowded(n))).collect();
    let answer = json!({"took": 1, "errors": true, "items": items}).to_string();
    if matches!(act, Some(Act::BreakOff)) {
        let half = Bytes::from(answer[..answer.len() / 2].to_owned());
        let parts = [Ok(half), Err(std::io::Error::other("broken off"))];
        return Response::new(Body::from_stream(futures_util::stream::iter(parts)));
    }
    ([(header::CONTENT_TYPE, "application/json")], answer).into_response()
}
