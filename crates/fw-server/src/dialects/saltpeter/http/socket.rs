//! Who follows over a WebSocket: a page of Saltpeter.
//!
//! Every two seconds it gets the state, and of the jobs that it subscribed to new output and details. A
//! round is made of what there is then, so who reads slowly misses rounds and gets the present; who does
//! not read at all is cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::WebSocketUpgrade;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use axum::response::Response;
use fw_core::plan::Plan;
use fw_proto::RunId;
use fw_proto::api::{Run, Task};
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval_at, timeout};
use tracing::{debug, info, warn};

use super::super::codes;
use super::super::json::Json;
use super::output::{Cursor, units};
use super::state::{Error, Snapshot, State};
use super::timeline::{self, Query};
use super::view::{self, Details, SP_VERSION};
use super::{kill, kill_machine, run_now};
use crate::problem::Chain;
use crate::serve::Peer;

/// As often as Saltpeter.
const ROUND: Duration = Duration::from_secs(2);

/// Who takes nothing for so long is gone, or may as well be.
const TAKES_WITHIN: Duration = Duration::from_secs(20);

/// The largest message from a page; that of Saltpeter's library is 4 MB, and the longest we know has a hundred bytes.
const MOST_IN: usize = 256 * 1024;

/// Pieces of output of one task in a round: 16 of at most 256 KiB. The rest comes with the next.
const PIECES: usize = 16;

/// Answers the request and follows.
pub(super) fn upgrade(socket: WebSocketUpgrade, state: State, peer: Option<Peer>) -> Response {
    socket.max_message_size(MOST_IN).max_frame_size(MOST_IN).on_upgrade(move |socket| async move {
        // It keeps its place among the connections that are counted.
        let _peer = peer;
        let end = state.end.clone();
        let follower = Follower { socket, state, jobs: BTreeMap::new(), serial: 0.0 };
        if let Some(Err(gone)) = end.run_until_cancelled(follower.run()).await {
            debug!(error = %Chain(&gone), "a page of Saltpeter is gone");
        }
    })
}

/// Why it ended.
#[derive(Debug, thiserror::Error)]
enum Gone {
    /// It closed, or takes nothing.
    #[error("it closed, or takes nothing")]
    Closed,
    /// What it asks for cannot be had.
    #[error("look up its jobs")]
    Failed(#[from] Error),
}

struct Follower {
    socket: WebSocket,
    state: State,
    /// The jobs that it subscribed to, and how far it has their output.
    jobs: BTreeMap<String, Following>,
    /// Of the configuration that it has.
    serial: f64,
}

/// How far a page has the output of a job's run.
#[derive(Default)]
struct Following {
    /// The run and its plan, which stays.
    run: Option<(RunId, Arc<Plan>)>,
    /// The run once it has ended: it changes no more.
    ended: Option<Arc<Run>>,
    outputs: BTreeMap<String, Cursor>,
}

impl Follower {
    async fn run(mut self) -> Result<(), Gone> {
        let snapshot = self.state.now(true).await?;
        self.send_config(&snapshot).await?;
        self.send_text(snapshot.status()).await?;
        let last = self.state.last_timeline();
        self.send(&timeline_message(last)).await?;
        let mut rounds = interval_at(tokio::time::Instant::now() + ROUND, ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = rounds.tick() => self.round().await?,
                message = self.socket.recv() => match message {
                    Some(Ok(Message::Text(text))) => self.asked(text.as_str()).await?,
                    Some(Ok(Message::Binary(bytes))) => {
                        self.asked(&String::from_utf8_lossy(&bytes)).await?;
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Gone::Closed),
                },
            }
        }
    }

    async fn send(&mut self, message: &Json) -> Result<(), Gone> {
        self.send_text(message.to_string().into()).await
    }

    async fn send_text(&mut self, text: Utf8Bytes) -> Result<(), Gone> {
        let sent = self.socket.send(Message::Text(text));
        match timeout(TAKES_WITHIN, sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone::Closed),
        }
    }

    async fn send_config(&mut self, snapshot: &Snapshot) -> Result<(), Gone> {
        self.serial = snapshot.served.serial;
        let message = Json::map([
            ("type", Json::text("config")),
            ("config", view::config(&snapshot.served)),
            ("sp_version", Json::text(SP_VERSION)),
        ]);
        self.send(&message).await
    }

    async fn round(&mut self) -> Result<(), Gone> {
        let snapshot = self.state.now(false).await?;
        // Bits are compared: it is a stamp, and no number to reckon with.
        if snapshot.served.serial.to_bits() != self.serial.to_bits() {
            self.send_config(&snapshot).await?;
        }
        self.send_text(snapshot.status()).await?;
        let jobs: Vec<_> = self.jobs.keys().cloned().collect();
        for job in jobs {
            self.send_job(&snapshot, &job).await?;
        }
        Ok(())
    }

    /// Only the first key that is known counts, as there. What makes no sense is ignored.
    async fn asked(&mut self, text: &str) -> Result<(), Gone> {
        let Ok(message) = serde_json::from_str::<Value>(text) else {
            debug!("a page of Saltpeter sent no JSON");
            return Ok(());
        };
        if let Some(what) = message.get("subscribe") {
            let snapshot = self.state.now(true).await?;
            let mut new: BTreeSet<_> = texts(what).into_iter().collect();
            // Only jobs that there are, or a page could fill the memory with names.
            new.retain(|job| snapshot.served.directory.jobs.contains_key(job));
            for job in &new {
                self.jobs.entry(job.clone()).or_default();
            }
            self.send_text(snapshot.status()).await?;
            for job in new {
                self.send_job(&snapshot, &job).await?;
            }
        } else if let Some(what) = message.get("unsubscribe") {
            for job in texts(what) {
                self.jobs.remove(&job);
            }
        } else if message.get("ack").is_some() {
            // The connection says itself what arrived.
        } else if let Some(job) = message.get("run").and_then(Value::as_str) {
            match run_now(&self.state, job).await {
                Ok(run) => info!(run.id = %run, job, "run begun from a page of Saltpeter"),
                Err(problem) => info!(job, "run asked for by a page of Saltpeter: {problem}"),
            }
        } else if let Some(job) = message.get("killCron").and_then(Value::as_str) {
            match kill(&self.state, job).await {
                Ok(runs) => info!(job, runs, "killed from a page of Saltpeter"),
                Err(error) => info!(job, error = %Chain(&error), "a page of Saltpeter cannot kill"),
            }
        } else if let Some(wanted) = message.get("killMachine") {
            let text = |key: &str| wanted.get(key).and_then(Value::as_str).unwrap_or_default();
            let (job, machine) = (text("cron"), text("machine"));
            let instance = wanted.get("job_instance").and_then(Value::as_str);
            match kill_machine(&self.state, job, machine, instance).await? {
                true => info!(job, machine, "killed from a page of Saltpeter"),
                false => warn!(
                    job,
                    machine, "a page of Saltpeter wants to kill what does not run on this machine"
                ),
            }
        } else if let Some(wanted) = message.get("getTimeline") {
            self.send_timeline(wanted).await?;
        }
        Ok(())
    }

    async fn send_timeline(&mut self, wanted: &Value) -> Result<(), Gone> {
        let Some(query) = Query::read(wanted, self.state.app.clock.now()) else { return Ok(()) };
        let answer = timeline::answer(&self.state, &query).await?;
        self.state.set_timeline(answer.clone());
        self.send(&timeline_message(answer)).await
    }

    /// New output of a job's last run, and its details.
    async fn send_job(&mut self, snapshot: &Snapshot, job: &str) -> Result<(), Gone> {
        let Some(of) = snapshot.served.directory.jobs.get(job) else { return Ok(()) };
        let last = match snapshot.last.get(job) {
            Some(summary) => self.look(job, summary.id).await?,
            None => None,
        };
        if let Some((run, plan)) = &last {
            self.send_output(job, run, plan).await?;
        }
        let lengths = self.jobs.get(job).map(|following| {
            let length = |(host, cursor): (&String, &Cursor)| (host.clone(), cursor.position);
            following.outputs.iter().map(length).collect()
        });
        let data = view::details(&Details {
            job: of,
            next_run: view::next_run(&snapshot.served, of, self.state.app.clock.now()),
            last: last.as_ref().map(|(run, plan)| (&**run, &**plan)),
            overlap: last.is_some() && self.state.overlapped(job).await?,
            output: &BTreeMap::new(),
            lengths: &lengths.unwrap_or_default(),
        });
        let message =
            Json::map([("type", Json::text("details")), ("cron", Json::text(job)), ("data", data)]);
        self.send(&message).await
    }

    /// A run and its plan; those that change no more are kept.
    async fn look(&mut self, job: &str, id: RunId) -> Result<Option<(Arc<Run>, Arc<Plan>)>, Gone> {
        let following = self.jobs.entry(job.to_owned()).or_default();
        if following.run.as_ref().is_none_or(|(known, _)| *known != id) {
            let plan = self.state.app.store.plan(id).await.map_err(Error::from)?;
            let Some(plan) = plan else { return Ok(None) };
            *following = Following { run: Some((id, Arc::new(plan))), ..Following::default() };
        }
        let Some((_, plan)) = following.run.clone() else { return Ok(None) };
        if let Some(run) = &following.ended {
            return Ok(Some((Arc::clone(run), plan)));
        }
        let Some(run) = self.state.run(id).await? else { return Ok(None) };
        let run = Arc::new(run);
        if run.summary.state.is_final() {
            following.ended = Some(Arc::clone(&run));
        }
        Ok(Some((run, plan)))
    }

    async fn send_output(&mut self, job: &str, run: &Run, plan: &Plan) -> Result<(), Gone> {
        for task in &run.tasks {
            let Some(host) = plan.hosts.iter().find(|host| host.name == task.host) else {
                continue;
            };
            let following = self.jobs.entry(job.to_owned()).or_default();
            let known = following.outputs.remove(task.host.as_str());
            let same = known.filter(|known| known.is_of(run.summary.id, host.id, task.attempt));
            let mut cursor =
                same.unwrap_or_else(|| Cursor::new(run.summary.id, host.id, task.attempt));
            let sent = self.send_pieces(job, task, plan, &mut cursor).await;
            self.jobs
                .entry(job.to_owned())
                .or_default()
                .outputs
                .insert(task.host.to_string(), cursor);
            sent?;
        }
        Ok(())
    }

    async fn send_pieces(
        &mut self,
        job: &str,
        task: &Task,
        plan: &Plan,
        cursor: &mut Cursor,
    ) -> Result<(), Gone> {
        if cursor.complete {
            return Ok(());
        }
        let host = task.host.as_str();
        for _ in 0..PIECES {
            let at = cursor.position;
            let piece = cursor.next(&self.state.app.store).await.map_err(Error::from)?;
            let Some(piece) = piece else {
                // An end counts only once all output before it is stored.
                let Some(ending) = codes::ending(task, view::limits(plan)) else { return Ok(()) };
                let text = cursor.end(&ending.note);
                return self.send(&chunk(job, host, &text, at, true)).await;
            };
            self.send(&chunk(job, host, &piece, at, false)).await?;
        }
        Ok(())
    }
}

pub(super) fn chunk(
    job: &str,
    machine: &str,
    text: &str,
    position: u64,
    is_complete: bool,
) -> Json {
    Json::map([
        ("type", Json::text("output_chunk")),
        ("cron", Json::text(job)),
        ("machine", Json::text(machine)),
        ("chunk", Json::text(text)),
        ("position", Json::count(position)),
        ("total_length", Json::count(position + units(text))),
        ("is_complete", Json::Bool(is_complete)),
    ])
}

/// Saltpeter sends it without a type, and its pages drop what has none. With one, both old and mended pages see it.
fn timeline_message(timeline: Json) -> Json {
    Json::map([("type", Json::text("timeline")), ("timeline", timeline)])
}

/// A text, or a list of texts.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}
