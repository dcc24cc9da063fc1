//! Saltpeter's machine protocol from the wrapper's end: what is tried of a server that speaks it.

pub(crate) mod checks;

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// A wrapper waits two seconds for its first answers.
pub(crate) const PROMPT: Duration = Duration::from_secs(2);

/// Messages of a server are short. The library's own 128 KiB would be cleared before each read.
const READ_BUFFER: usize = 4096;

/// Whose task a wrapper tells of.
#[derive(Debug, Clone)]
pub(crate) struct Whose {
    /// The instance.
    pub(crate) instance: String,
    /// What it calls its machine.
    pub(crate) machine: String,
}

impl Whose {
    /// The job that the instance is of.
    pub(crate) fn job(&self) -> &str {
        self.instance.split('_').next().unwrap_or_default()
    }

    /// A message of this kind, with more fields.
    pub(crate) fn says(&self, kind: &str, more: &Value) -> Value {
        let mut message = json!({
            "type": kind, "job_name": self.job(), "job_instance": self.instance, "machine": self.machine,
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
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER);
        // Messages are small and wanted at once.
        let opening = tokio_tungstenite::connect_async_with_config(url, Some(config), true);
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
        let heard = timeout(within, self.next()).await.map_err(|_| Error::Silent(within))?;
        let Some(text) = heard? else { return Ok(None) };
        let message = serde_json::from_str(&text);
        message.map(Some).map_err(|_| Error::NoJson(text.to_string()))
    }

    /// The text of the next message, however long it takes; `None` when the connection was closed.
    pub(crate) async fn next(&mut self) -> Result<Option<Utf8Bytes>, Error> {
        loop {
            match self.0.next().await.transpose().map_err(Box::new)? {
                Some(Message::Text(text)) => return Ok(Some(text)),
                Some(Message::Close(_)) | None => return Ok(None),
                Some(
                    Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_),
                ) => {}
            }
        }
    }
}
