//! The process of chromedriver, and what is said with it: `WebDriver` is JSON over HTTP.
//!
//! Said here rather than by a crate of clients: those bring a protocol crate under another licence and two
//! generations of cookies, for the dozen requests below.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::fleet::{PATIENCE, leftovers, wait_for};

/// The key under which an element's id comes, by the standard.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// No updates, no reports and no first-run pages: a browser under test asks nobody but the page's server.
/// No sandbox, because CI runs as root.
const FLAGS: &[&str] = &[
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-breakpad",
    "--window-size=1440,900",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
];

/// Starts the driver in a process group of its own, and ends the whole group when its standard input
/// closes: that happens also when the test is killed.
const GUARDED: &str = "chromedriver --port=0 & cat >/dev/null; kill -KILL 0";

/// An element of the page that is open.
#[derive(Debug, Clone)]
pub(super) struct Element(String);

/// What the driver says instead of an answer, such as `no such element`.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub(super) code: String,
    pub(super) message: String,
}

/// A driver with one session, which is one browser.
#[derive(Debug)]
pub(super) struct Driver {
    http: reqwest::Client,
    /// Where the session's commands go.
    session: String,
    child: Child,
}

impl Driver {
    /// Starts driver and browser; everything they write is in `dir`.
    pub(super) async fn start(dir: &Path) -> Self {
        let (child, port) = spawn(dir).await;
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build();
        let http = http.expect("a client of plain HTTP");
        let base = format!("http://127.0.0.1:{port}/session");
        let wanted = capabilities(dir);
        let begun = send(&http, Method::POST, &base, Some(wanted)).await;
        let begun = begun.unwrap_or_else(|refused| {
            panic!("the browser does not start: {}: {}", refused.code, refused.message)
        });
        let id = begun.get("sessionId").and_then(Value::as_str).expect("a session has an id");
        Self { http, session: format!("{base}/{id}"), child }
    }

    /// A command of the session, which is answered or refused.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, Refused> {
        send(&self.http, method, &format!("{}{path}", self.session), body).await
    }

    /// A command that cannot be refused.
    pub(super) async fn post(&self, path: &str, body: Value) -> Value {
        let answer = self.ask(Method::POST, path, Some(body)).await;
        answer.unwrap_or_else(|refused| panic!("{path}: {}: {}", refused.code, refused.message))
    }

    /// A question that cannot be refused.
    pub(super) async fn get(&self, path: &str) -> Value {
        let answer = self.ask(Method::GET, path, None).await;
        answer.unwrap_or_else(|refused| panic!("{path}: {}: {}", refused.code, refused.message))
    }

    /// The first element that this selector of CSS finds.
    pub(super) async fn find(&self, css: &str) -> Result<Element, Refused> {
        let body = json!({"using": "css selector", "value": css});
        let found = self.ask(Method::POST, "/element", Some(body)).await?;
        let id = found.get(ELEMENT).and_then(Value::as_str).expect("an element has an id");
        Ok(Element(id.to_owned()))
    }

    /// A command about an element.
    pub(super) async fn on(
        &self,
        element: &Element,
        what: &str,
        body: Value,
    ) -> Result<Value, Refused> {
        self.ask(Method::POST, &format!("/element/{}/{what}", element.0), Some(body)).await
    }

    /// A command of the browser's own protocol of debugging.
    pub(super) async fn debug(&self, method: &str, params: Value) -> Value {
        self.post("/goog/cdp/execute", json!({"cmd": method, "params": params})).await
    }

    /// Ends driver and browser, whatever they do.
    pub(super) fn end(&mut self, dir: &Path) {
        drop(self.child.stdin.take());
        leftovers::end(dir);
    }
}

/// Starts the driver on a port that the system chooses, and reads which.
async fn spawn(dir: &Path) -> (Child, u16) {
    let log = dir.join("driver.log");
    let out = File::create(&log).expect("a log file");
    let mut command = Command::new("sh");
    command.args(["-c", GUARDED]).env_clear().process_group(0).kill_on_drop(true);
    command.env("HOME", dir).env("TMPDIR", dir).env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.stdin(Stdio::piped()).stdout(out.try_clone().expect("a descriptor")).stderr(out);
    let mut child = command.spawn().expect("there is a shell");
    let port = wait_for("chromedriver's port", PATIENCE, async || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let gone = child.try_wait().expect("a child can be waited for").is_some();
        assert!(
            !gone && !text.contains("not found"),
            "chromedriver does not start; run: cargo xtask setup\n{text}"
        );
        let (_, rest) = text.split_once("started successfully on port ")?;
        rest.split_once('.')?.0.parse().ok()
    })
    .await;
    (child, port)
}

fn capabilities(dir: &Path) -> Value {
    let mut args: Vec<String> = FLAGS.iter().map(|&flag| flag.to_owned()).collect();
    args.push(format!("--user-data-dir={}", dir.join("profile").display()));
    json!({"capabilities": {"alwaysMatch": {
        "browserName": "chrome",
        "goog:chromeOptions": {"args": args},
        "goog:loggingPrefs": {"browser": "ALL"},
        "unhandledPromptBehavior": "ignore",
        "timeouts": {"script": Duration::as_millis(&PATIENCE) as u64},
    }}})
}

async fn send(
    http: &reqwest::Client,
    method: Method,
    url: &str,
    body: Option<Value>,
) -> Result<Value, Refused> {
    let request = http.request(method, url);
    let request = match body {
        Some(body) => request.json(&body),
        None => request,
    };
    let answer = request.send().await.expect("chromedriver answers");
    let fine = answer.status().is_success();
    let mut answer: Value = answer.json().await.expect("chromedriver answers with JSON");
    let value = answer.get_mut("value").map(Value::take).unwrap_or_default();
    if fine {
        return Ok(value);
    }
    let text = |key| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    Err(Refused { code: text("error"), message: text("message") })
}
