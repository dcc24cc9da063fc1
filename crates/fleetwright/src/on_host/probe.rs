//! Whether something answers as it should, tried until it does or time is up.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use fw_proto::Span;
use regex::Regex;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Certificate, StatusCode, Url};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{sum, text_of};

/// How long one try may take: whoever does not answer by then is not there.
const TRY: Duration = Duration::from_secs(10);

/// The last try gets as much, though the time is up: it was begun to be answered.
const LAST_TRY: Duration = Duration::from_secs(1);

/// After the first try; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Between two tries: a start is noticed within a second, and a service is not stormed.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// No more of a body is looked at.
const LONGEST_BODY: usize = 1024 * 1024;

/// What is tried.
#[derive(Debug)]
pub(crate) enum Probe {
    /// An answer over HTTP.
    Http(Http),
    /// A connection, to `HOST:PORT`.
    Tcp(String),
    /// A file with this SHA-256, in lower-case hexadecimal.
    File { path: PathBuf, sha256: String },
}

/// A question over HTTP and the answer that it should have.
#[derive(Debug)]
pub(crate) struct Http {
    /// The question.
    pub(crate) url: Url,
    /// With these headers.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// The status that the answer has.
    pub(crate) expect: StatusCode,
    /// What is in its body.
    pub(crate) body: Option<Body>,
    /// Go where the answer leads.
    pub(crate) follow: bool,
    /// To be trusted beside the system's.
    pub(crate) certificates: Vec<Certificate>,
}

/// What a body should hold.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// This text.
    Text(String),
    /// Something that fits.
    Pattern(Regex),
}

/// How it went.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// It is as it should be.
    pub(crate) holds: bool,
    /// One line: what was seen last, after how long and how many tries.
    pub(crate) line: String,
}

/// What one try saw: `Err` when it is not as it should be.
type Seen = Result<String, String>;

impl Probe {
    /// Tries until it holds, or for so long; once without a time.
    ///
    /// # Errors
    /// There is nothing to ask with.
    pub(crate) async fn run(&self, within: Option<Span>) -> anyhow::Result<Outcome> {
        let client = self.client()?;
        let begun = Instant::now();
        let within = within.map(Span::duration).unwrap_or_default();
        let (mut tries, mut pause) = (1_u32, FIRST_PAUSE);
        loop {
            let left = within.saturating_sub(begun.elapsed());
            let limit = if within.is_zero() { TRY } else { left.clamp(LAST_TRY, TRY) };
            let seen = tokio::time::timeout(limit, self.once(&client)).await;
            let seen = seen.unwrap_or_else(|_| Err(format!("no answer within {}", span(limit))));
            let left = within.saturating_sub(begun.elapsed());
            if seen.is_ok() || left.is_zero() {
                let after = told(begun.elapsed(), tries);
                let line = format!(
                    "{}: {}{after}",
                    self.name(),
                    seen.as_ref().unwrap_or_else(|what| what)
                );
                return Ok(Outcome { holds: seen.is_ok(), line });
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            tries += 1;
        }
    }

    fn client(&self) -> anyhow::Result<reqwest::Client> {
        // A proxy is for the way out; what is probed is meant as it is named.
        let mut builder = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0);
        builder = builder.user_agent(concat!("fleetwright/", env!("CARGO_PKG_VERSION")));
        if let Self::Http(http) = self {
            if !http.follow {
                builder = builder.redirect(reqwest::redirect::Policy::none());
            }
            builder = builder.tls_certs_merge(http.certificates.clone());
        }
        builder.build().context("make an HTTP client")
    }

    /// What the line begins with.
    fn name(&self) -> String {
        match self {
            Self::Http(http) => {
                let mut url = http.url.clone();
                // Fails where there is no password to take away.
                let _ = url.set_password(None);
                url.to_string()
            }
            Self::Tcp(addr) => addr.clone(),
            Self::File { path, .. } => text_of(path),
        }
    }

    async fn once(&self, client: &reqwest::Client) -> Seen {
        match self {
            Self::Http(http) => http.once(client).await,
            Self::Tcp(addr) => match TcpStream::connect(addr.as_str()).await {
                Ok(_) => Ok("it accepts connections".to_owned()),
                Err(error) => Err(error.to_string()),
            },
            Self::File { path, sha256 } => file(path, sha256).await,
        }
    }
}

impl Http {
    async fn once(&self, client: &reqwest::Client) -> Seen {
        let mut request = client.get(self.url.clone());
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let mut answer = request.send().await.map_err(|error| cause(&error))?;
        let status = answer.status();
        if status != self.expect {
            return Err(status.to_string());
        }
        let Some(wanted) = &self.body else { return Ok(status.to_string()) };
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| cause(&error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() >= LONGEST_BODY {
                bytes.truncate(LONGEST_BODY);
                break;
            }
        }
        wanted.judge(&String::from_utf8_lossy(&bytes), status)
    }
}

impl Body {
    fn judge(&self, text: &str, status: StatusCode) -> Seen {
        let (holds, wanted) = match self {
            Self::Text(wanted) => (text.contains(wanted), format!("{wanted:?}")),
            Self::Pattern(pattern) => (pattern.is_match(text), format!("~{pattern}")),
        };
        if holds {
            return Ok(format!("{status} with {wanted}"));
        }
        let first = text.lines().next().unwrap_or_default();
        let first: String = first.chars().take(80).collect();
        Err(format!("{status} without {wanted}; the body begins with {first:?}"))
    }
}

async fn file(path: &Path, wanted: &str) -> Seen {
    let opened = path.to_owned();
    let read = tokio::task::spawn_blocking(move || sum(std::fs::File::open(opened)?)).await;
    match read {
        Ok(Ok((_, sha256))) if sha256 == wanted => Ok(format!("sha256 {sha256}")),
        Ok(Ok((bytes, sha256))) => Err(format!("sha256 {sha256} ({bytes} bytes)")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it was not read".to_owned()),
    }
}

/// The innermost reason: what is around it only says that a request was made.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// ` after 30 s, 12 tries`; nothing when the first try was all it took.
fn told(took: Duration, tries: u32) -> String {
    if tries == 1 { String::new() } else { format!(" after {}, {tries} tries", span(took)) }
}

fn span(span: Duration) -> String {
    match span.as_secs() {
        0 => format!("{} ms", span.as_millis()),
        secs => format!("{secs} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_judged_by_text_or_pattern() {
        let ok = StatusCode::OK;
        let text = Body::Text("ready".to_owned());
        assert_eq!(text.judge("is ready now", ok), Ok("200 OK with \"ready\"".to_owned()));
        let wanted = "200 OK without \"ready\"; the body begins with \"no\\u{1b}\"";
        assert_eq!(text.judge("no\u{1b}\nat all", ok), Err(wanted.to_owned()));
        let pattern = Body::Pattern(Regex::new("^v[0-9]+$").unwrap());
        assert_eq!(pattern.judge("v12", ok), Ok("200 OK with ~^v[0-9]+$".to_owned()));
        assert!(pattern.judge("version 12", ok).is_err());
    }

    #[test]
    fn the_time_is_told_when_there_was_more_than_one_try() {
        assert_eq!(told(Duration::from_millis(30_400), 12), " after 30 s, 12 tries");
        assert_eq!(told(Duration::from_millis(900), 2), " after 900 ms, 2 tries");
        assert_eq!(told(Duration::from_secs(9), 1), "");
    }
}
