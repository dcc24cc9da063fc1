//! What is counted, under which name; `/metrics` shows it in the text format of Prometheus.
//!
//! Names are constants here and used where things are counted, so that there is one list.

use std::sync::OnceLock;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use fw_proto::api::TaskState;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Hosts whose agent is linked.
pub const HOSTS_ONLINE: &str = "fleetwright_hosts_online";
/// Runs that have not ended.
pub const RUNS_ACTIVE: &str = "fleetwright_runs_active";
/// Maintenances in force.
pub const MAINTENANCES: &str = "fleetwright_maintenances";
/// Tasks that have ended, by `result`.
pub const TASKS: &str = "fleetwright_tasks_total";
/// Changes of runs that were committed.
pub const COMMITS: &str = "fleetwright_commits_total";
/// Compressed bytes of output stored.
pub const CHUNK_BYTES: &str = "fleetwright_chunk_bytes_total";
/// Clients that follow an event stream.
pub const SSE_CLIENTS: &str = "fleetwright_sse_clients";
/// Requests with a wrong token.
pub const AUTH_FAILURES: &str = "fleetwright_auth_failures_total";
/// Connections, links of agents included.
pub const CONNECTIONS: &str = "fleetwright_http_connections";
/// Tasks of the server's own runtime.
pub const ASYNC_TASKS: &str = "fleetwright_async_tasks";
/// How long requests take to their first byte, by `method`, `path` (as in the router) and `status`.
pub const HTTP_SECONDS: &str = "fleetwright_http_request_duration_seconds";

/// Bounds of the latency histogram, seconds: the bars are 50 ms to the first byte and 200 ms at p99.
const BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 10.0];

/// The process's metrics. A process has one registry: two servers in it count together.
#[derive(Debug, Clone)]
pub struct Metrics(&'static PrometheusHandle);

/// The registry, once it is there. Counting is global in the `metrics` crate.
static REGISTRY: OnceLock<PrometheusHandle> = OnceLock::new();

impl Metrics {
    /// Opens the registry.
    #[must_use]
    pub fn open() -> Self {
        Self(REGISTRY.get_or_init(install))
    }

    /// The page.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Drains histograms into their buckets; to be called now and then, or they grow.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

fn install() -> PrometheusHandle {
    let builder = PrometheusBuilder::new();
    let builder = builder
        .set_buckets_for_metric(Matcher::Full(HTTP_SECONDS.to_owned()), BUCKETS)
        .expect("there are buckets");
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::warn!("another part of this process records metrics; /metrics stays empty");
    }
    describe();
    handle
}

fn describe() {
    metrics::describe_gauge!(HOSTS_ONLINE, "Hosts whose agent is linked.");
    metrics::describe_gauge!(RUNS_ACTIVE, "Runs that have not ended.");
    metrics::describe_gauge!(MAINTENANCES, "Maintenances in force.");
    metrics::describe_counter!(TASKS, "Tasks that have ended, by result.");
    metrics::describe_counter!(COMMITS, "Changes of runs that were committed.");
    metrics::describe_counter!(CHUNK_BYTES, "Compressed bytes of output stored.");
    metrics::describe_gauge!(SSE_CLIENTS, "Clients that follow an event stream.");
    metrics::describe_counter!(AUTH_FAILURES, "Requests with a wrong token.");
    metrics::describe_gauge!(CONNECTIONS, "HTTP connections, links of agents included.");
    metrics::describe_gauge!(ASYNC_TASKS, "Tasks of the server's own runtime; not those of hosts.");
    metrics::describe_histogram!(
        HTTP_SECONDS,
        "Seconds from a request to the first byte of its answer."
    );
}

/// Counts a task that has ended.
pub fn task_ended(state: TaskState) {
    if state.is_final() {
        metrics::counter!(TASKS, "result" => state.as_str()).increment(1);
    }
}

/// A gauge that is one higher while this lives.
#[derive(Debug)]
pub(crate) struct Counted(&'static str);

impl Counted {
    pub(crate) fn new(gauge: &'static str) -> Self {
        metrics::gauge!(gauge).increment(1);
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!(self.0).decrement(1);
    }
}

/// Measures and logs a request.
pub(crate) async fn observe(request: Request, next: Next) -> Response {
    let begun = tokio::time::Instant::now();
    let method = request.method().clone();
    // The route, not the path: ids in labels would make a time series each.
    let route =
        request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    let (took, status) = (begun.elapsed(), response.status().as_u16());
    tracing::debug!(
        http.method = %method, http.route = route, http.status = status, took_ms = took.as_millis(),
        "request served"
    );
    let labels =
        [("method", known(&method).to_owned()), ("path", route), ("status", status.to_string())];
    metrics::histogram!(HTTP_SECONDS, &labels).record(took.as_secs_f64());
    response
}

/// The method, as long as it is one of ours: a client may send any word.
fn known(method: &axum::http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}
