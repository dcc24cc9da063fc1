//! A server for one test.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use fw_proto::frame::{Cause, Ended, Report, Reported};
use fw_proto::record::Offsets;
use fw_proto::{HostId, NodeId, PublicKey, RunId, Span, TaskKey, Timestamp};
use fw_rt::Clock;
use fw_server::{Config, Running};
use fw_store::{Enrolled, Enrolment, Invite};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// No answer takes longer, however busy the machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct TestServer {
    pub(crate) running: Running,
    pub(crate) client: reqwest::Client,
    /// Where it listens, whatever it is called.
    pub(crate) url: String,
    pub(crate) token: String,
    pub(crate) clock: Clock,
    pub(crate) dir: tempfile::TempDir,
}

/// A status and a body.
pub(crate) type Answer = (u16, Value);

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::in_dir(tempfile::tempdir().unwrap(), change).await
    }

    pub(crate) async fn in_dir(dir: tempfile::TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(dir.path().to_owned(), ([127, 0, 0, 1], 0).into());
        // No host of these tests has an agent that could come back.
        config.grace = Span::ZERO;
        change(&mut config);
        let clock = Clock::system();
        let running = fw_server::start(config, clock.clone()).await.unwrap();
        let token = std::fs::read_to_string(dir.path().join("admin.token")).unwrap();
        let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().unwrap();
        let url = format!("http://{}", running.addr);
        Self { running, client, url, token: token.trim().to_owned(), clock, dir }
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.url);
        self.client.request(method.parse().unwrap(), url).bearer_auth(&self.token)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.request("GET", &format!("/api/v1{path}"))).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        answer(self.request("DELETE", &format!("/api/v1{path}"))).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: Value) -> Answer {
        answer(self.request(method, &format!("/api/v1{path}")).json(&body)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, body).await
    }

    /// Enrols a host that never links.
    pub(crate) async fn host(&self, name: &str, labels: &[(&str, &str)]) -> HostId {
        let store = &self.running.app.store;
        let secret_sha256 = Sha256::digest(name).into();
        let labels: BTreeMap<_, _> =
            labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let now = self.clock.now();
        let (expires_at, by) = (now + Span::from_secs(60), "test".to_owned());
        store.invite(Invite { secret_sha256, uses: 1, expires_at, labels, by }).await.unwrap();
        let (id, key) = (HostId(Uuid::now_v7()), PublicKey(Sha256::digest(name).into()));
        let name = name.parse().unwrap();
        let done = store.enrol(Enrolment { secret_sha256, name, key, id, at: now }).await.unwrap();
        let Enrolled::Done(row) = done else { panic!("{done:?}") };
        row.id
    }

    /// Begins a run that waits for its hosts.
    pub(crate) async fn waiting_run(&self, hosts: &str) -> RunId {
        let body =
            json!({ "hosts": hosts, "command": { "argv": ["true"] }, "offline": { "wait": "1h" } });
        let (status, body) = self.post("/runs", body).await;
        assert_eq!(status, 201, "{body}");
        body["id"].as_str().unwrap().parse().unwrap()
    }

    /// What a host would say when its command has ended.
    pub(crate) async fn ended(&self, run: RunId, host: HostId, exit_code: i32, output: Offsets) {
        let at = self.clock.now();
        let ended = Ended {
            cause: Cause::Exited,
            exit_code: Some(exit_code),
            signal: None,
            started_at: at,
            finished_at: at,
            output,
            stdout_sha256: None,
            stderr_sha256: None,
            left_behind: 0,
            armed: None,
        };
        let report = Report { key: key(run), state: Reported::Ended(ended) };
        self.running.app.hub.reports(host, vec![report]).await.unwrap();
    }

    /// Waits until a run is in this state.
    pub(crate) async fn until(&self, run: RunId, state: &str) -> Value {
        let reached = async {
            loop {
                let (_, body) = self.get(&format!("/runs/{run}")).await;
                if body["state"] == state {
                    return body;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, reached).await.expect("the run gets there")
    }

    pub(crate) async fn events(&self, path: &str, last: Option<&str>) -> Events {
        let mut request = self.request("GET", &format!("/api/v1{path}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events { response, text: String::new(), ready: VecDeque::new() }
    }
}

pub(crate) fn key(run: RunId) -> TaskKey {
    TaskKey { run, node: NodeId(0), attempt: 1 }
}

pub(crate) async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    let text = response.text().await.unwrap();
    let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
    if status >= 400 {
        assert_eq!(kind.as_deref(), Some("application/problem+json"), "{text}");
        assert_eq!(body["status"], status);
        assert!(body["title"].is_string() && body["code"].is_string(), "{text}");
    }
    (status, body)
}

/// A problem on a few lines.
pub(crate) fn problem((status, body): &Answer) -> String {
    let text = |key: &str| body[key].as_str().unwrap_or("-").to_owned();
    format!("{status} {}: {}\n{}", text("code"), text("title"), text("detail"))
}

/// An event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: Option<String>,
    pub(crate) data: Value,
}

/// An event stream, read as its standard says.
pub(crate) struct Events {
    response: reqwest::Response,
    text: String,
    ready: VecDeque<Event>,
}

impl Events {
    /// The next event; `None` when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let chunk = tokio::time::timeout(DEADLINE, self.response.chunk());
            let chunk = chunk.await.expect("an event comes").unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                self.ready.extend(parse(event));
                self.text = rest.to_owned();
            }
        }
    }

    /// All events up to one of this name, which is the last of them.
    pub(crate) async fn through(&mut self, name: &str) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            let last = event.name == name;
            events.push(event);
            if last {
                return events;
            }
        }
        panic!("no {name} in {events:?}");
    }
}

fn parse(text: &str) -> Option<Event> {
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
    };
    let data = serde_json::from_str(&field("data")?).unwrap();
    Some(Event { name: field("event").unwrap(), id: field("id"), data })
}

/// A time that tests can tell from now.
pub(crate) const SOME_TIME: Timestamp = Timestamp::from_millis(1_700_000_000_000);
