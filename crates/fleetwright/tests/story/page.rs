//! A page of Saltpeter that is open all the time, and keeps what it was shown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use fw_proto::Timestamp;
use fw_rt::Tasks;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What a page was shown.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Output as it comes, by job and machine; whether it is whole.
    text: BTreeMap<(String, String), (String, bool)>,
    /// How runs ended, by instance and machine: the code and the whole output.
    pub(crate) ended: BTreeMap<String, BTreeMap<String, (i64, String)>>,
    /// On which machines instances were shown to run.
    pub(crate) running: BTreeMap<String, BTreeSet<String>>,
    /// The answer to the last question for a timeline.
    pub(crate) timeline: Value,
    /// What contradicts what was shown before.
    pub(crate) wrong: Vec<String>,
}

/// The page. It follows the server to another address when it is told to.
#[derive(Debug)]
pub(crate) struct Page {
    seen: Arc<Mutex<Seen>>,
    say: mpsc::Sender<Value>,
    address: watch::Sender<String>,
    tasks: Tasks,
}

impl Page {
    /// Opens it, subscribed to these jobs.
    pub(crate) fn open(address: String, jobs: &[&str]) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let (say, said) = mpsc::channel(16);
        let (address, at) = watch::channel(address);
        let tasks = Tasks::new();
        let jobs = json!({"subscribe": jobs});
        tasks.spawn("page", follow(at, jobs, said, Arc::clone(&seen)));
        Self { seen, say, address, tasks }
    }

    /// Looks at the server at this address from now on.
    pub(crate) fn lead_to(&self, address: String) {
        self.address.send_replace(address);
    }

    /// Says this as soon as it is connected.
    pub(crate) async fn say(&self, message: Value) {
        self.say.send(message).await.expect("the page is open");
    }

    /// What it was shown so far.
    pub(crate) fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().expect("nobody panicked"))
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

async fn follow(
    mut at: watch::Receiver<String>,
    jobs: Value,
    mut said: mpsc::Receiver<Value>,
    seen: Arc<Mutex<Seen>>,
) {
    loop {
        let url = format!("ws://{}/ws", at.borrow_and_update().clone());
        if let Ok((mut socket, _)) = tokio_tungstenite::connect_async(url).await {
            // Positions count anew on each connection.
            seen.lock().expect("nobody panicked").text.clear();
            if tell(&mut socket, &jobs).await.is_some() {
                talk(socket, &mut said, &seen).await;
            }
        }
        // It goes on where it is led to; a connection that ends for any other reason is not mended.
        if at.changed().await.is_err() {
            return;
        }
    }
}

async fn tell(socket: &mut Socket, message: &Value) -> Option<()> {
    socket.send(Message::text(message.to_string())).await.ok()
}

async fn talk(
    mut socket: Socket,
    said: &mut mpsc::Receiver<Value>,
    seen: &Mutex<Seen>,
) -> Option<()> {
    loop {
        tokio::select! {
            frame = socket.next() => {
                let Message::Text(text) = frame?.ok()? else { continue };
                let message = serde_json::from_str(&text).expect("JSON");
                seen.lock().expect("nobody panicked").take(&message);
            }
            message = said.recv() => tell(&mut socket, &message?).await?,
        }
    }
}

/// What Saltpeter calls a run of a job that began at this time.
pub(crate) fn instance(job: &str, begun: &str) -> String {
    let at: Timestamp = begun.replace("+00:00", "Z").parse().expect("a time");
    format!("{job}_{}", at.as_millis().div_euclid(1000))
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

impl Seen {
    fn take(&mut self, message: &Value) {
        match message["type"].as_str().expect("each message has a type") {
            "config" => {}
            "status" => self.status(&message["running"]),
            "output_chunk" => self.chunk(message),
            "details" => self.details(&text(&message["cron"]), &message["data"]),
            "timeline" => self.timeline = message["timeline"].clone(),
            other => self.wrong.push(format!("a message of type {other}")),
        }
    }

    fn status(&mut self, running: &Value) {
        for (instance, run) in running.as_object().expect("an object") {
            let machines = run["machines"].as_array().expect("a list").iter().map(text);
            self.running.entry(instance.clone()).or_default().extend(machines);
        }
    }

    fn chunk(&mut self, message: &Value) {
        let of = (text(&message["cron"]), text(&message["machine"]));
        let position = message["position"].as_u64().expect("a number");
        let known = self.text.entry(of.clone()).or_default();
        if position == 0 {
            *known = (String::new(), false);
        }
        if known.1 || known.0.encode_utf16().count() as u64 != position {
            self.wrong.push(format!("output of {of:?} after {known:?}: {message}"));
            return;
        }
        known.0.push_str(message["chunk"].as_str().expect("a text"));
        known.1 = message["is_complete"] == true;
    }

    fn details(&mut self, job: &str, data: &Value) {
        let Some(begun) = data["last_run"].as_str() else { return };
        let instance = instance(job, begun);
        for (machine, result) in data["results"].as_object().expect("an object") {
            let whole = self.text.get(&(job.to_owned(), machine.clone())).filter(|text| text.1);
            let (Some(code), Some((text, _))) = (result["retcode"].as_i64(), whole) else {
                continue;
            };
            let shown = (code, text.clone());
            let ended = self.ended.entry(instance.clone()).or_default();
            let first = ended.entry(machine.clone()).or_insert_with(|| shown.clone());
            if *first != shown {
                self.wrong.push(format!("{instance} on {machine}: {first:?}, then {shown:?}"));
            }
        }
    }
}
