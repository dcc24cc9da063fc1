//! A stand-in for a search server that speaks `_bulk`, and is away when a test wants it to be.

#![expect(clippy::indexing_slicing, reason = "a missing key of a JSON value reads as null")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use fw_rt::Tasks;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A search server that is away until it is let in, and then takes each document once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Search {
    pub(crate) here: Arc<AtomicBool>,
    documents: Arc<Mutex<BTreeMap<String, Value>>>,
    tasks: Tasks,
}

impl Search {
    pub(crate) async fn listen(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let search = self.clone();
        self.tasks.spawn("search", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let one = search.clone();
                search.tasks.spawn("search.one", async move { one.serve(stream).await });
            }
        });
        format!("http://{address}")
    }

    /// One request, and the connection ends.
    async fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut request = Vec::new();
        let body = loop {
            stream.read_buf(&mut request).await.ok().filter(|read| *read > 0)?;
            let text = String::from_utf8_lossy(&request).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
            });
            if body.len() >= length.unwrap_or(0_usize) {
                break body.to_owned();
            }
        };
        let answer = if self.here.load(Ordering::SeqCst) {
            let answer = self.take(&body).to_string();
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
                answer.len()
            )
        } else {
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                .to_owned()
        };
        stream.write_all(answer.as_bytes()).await.ok()
    }

    fn take(&self, body: &str) -> Value {
        let lines: Vec<Value> =
            body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let mut documents = self.documents.lock().expect("nobody panicked");
        let mut items = Vec::new();
        for pair in lines.chunks(2) {
            let id = pair[0]["create"]["_id"].as_str().expect("an id").to_owned();
            let there = documents.contains_key(&id);
            documents.entry(id).or_insert_with(|| pair[1].clone());
            items.push(json!({"create": {"status": if there { 409 } else { 201 }}}));
        }
        json!({"errors": false, "items": items})
    }

    /// Everything it has, each document once.
    pub(crate) fn documents(&self) -> Vec<Value> {
        self.documents.lock().expect("nobody panicked").values().cloned().collect()
    }
}
