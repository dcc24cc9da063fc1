//! Saltpeter's machine protocol from the wrapper's end: what is tried of a server that speaks it.

pub(crate) mod checks;

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// A wrapper waits two seconds for its first answers.
pub(crate) const PROMPT: Duration = Duration::from_secs(2);

/// Whose task a wrapper tells of.
#[derive(Debug, Clone)]
pub(crate) struct Whose {
    /// The instance.
    pub(crate) instance: String,
    /// What it calls its machine.
    pub(crate) machine: String,
}

impl Whose {
    /// A message of this kind, with more fields.
    pub(crate) fn says(&self, kind: &str, more: &Value) -> Value {
        let job = self.instance.split('_').next().unwrap_or_default();
        let mut message = json!({
            "type": kind, "job_name": job, "job_instance": self.instance, "machine": self.machine,
        });
        if let (Value::Object(message), Value::Object(more)) = (&mut message, more) {
            message.extend(more.clone());
        }
        message
    }
}

/// Why nothing was heard.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The connection.
    #[error(transparent)]
    Socket(#[from] Box<tungstenite::Error>),
    /// Time.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// It is no message.
    #[error("what came is no JSON: {0}")]
    NoJson(String),
}

/// A connection as a wrapper has it.
#[derive(Debug)]
pub(crate) struct Wire(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Wire {
    pub(crate) async fn open(url: &str) -> Result<Self, Error> {
        // Messages are small and wanted at once.
        let opening = tokio_tungstenite::connect_async_with_config(url, None, true);
        let opening = timeout(PROMPT, opening).await;
        let (socket, _) = opening.map_err(|_| Error::Silent(PROMPT))?.map_err(Box::new)?;
        Ok(Self(socket))
    }

    pub(crate) async fn say(&mut self, frame: Message) -> Result<(), Error> {
        let sent = timeout(PROMPT, self.0.send(frame)).await;
        Ok(sent.map_err(|_| Error::Silent(PROMPT))?.map_err(Box::new)?)
    }

    /// The next message; `None` when the connection was closed.
    pub(crate) async fn hear(&mut self, within: Duration) -> Result<Option<Value>, Error> {
        timeout(within, self.next()).await.map_err(|_| Error::Silent(within))?
    }

    async fn next(&mut self) -> Result<Option<Value>, Error> {
        loop {
            match self.0.next().await.transpose().map_err(Box::new)? {
                Some(Message::Text(text)) => {
                    let message = serde_json::from_str(&text);
                    return message.map(Some).map_err(|_| Error::NoJson(text.to_string()));
                }
                Some(Message::Close(_)) | None => return Ok(None),
                Some(
                    Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_),
                ) => {}
            }
        }
    }
}
