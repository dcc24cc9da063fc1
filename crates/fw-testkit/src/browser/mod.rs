//! A real browser under test: headless Chromium, driven through Debian's chromedriver.
//!
//! `cargo xtask test` sees to it that both are there. Elements are named by selectors of CSS, and everything
//! that is asked for is waited for, up to [`PATIENCE`]. When the browser is dropped, also by a test that
//! panics or is killed, each of its processes is ended.
//!
//! ```no_run
//! # async fn page() {
//! use fw_testkit::browser::Browser;
//! let browser = Browser::start().await;
//! browser.open("http://127.0.0.1:8080/hosts").await;
//! browser.click("a[href='/runs']").await;
//! browser.press(&["Control+k"]).await;
//! browser.has_text("dialog", "Go to a host").await;
//! browser.screens("runs").await; // a picture in both themes, and axe finds nothing in either
//! # }
//! ```

#![expect(clippy::panic, reason = "a test ends when the browser refuses, and says what it refuses")]

mod axe;
mod driver;
mod keys;

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

pub use axe::Violation;
use driver::{Driver, Element};

use crate::fleet::{LOOK_EVERY, PATIENCE, wait_for};

/// Light or dark, as the system that the browser runs on prefers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

impl Theme {
    /// Both, in the order of the pictures.
    pub const ALL: [Self; 2] = [Self::Light, Self::Dark];

    /// As CSS and file names say it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

/// Waits for colours that change over a moment. What goes on for ever is no transition.
const SETTLED: &str =
    "const all = document.getAnimations().filter(one => one instanceof CSSTransition);
    return Promise.all(all.map(one => one.finished.catch(() => {}))).then(() => true)";

/// A tab of the browser, to come back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tab(String);

/// A browser of its own, with an empty profile.
#[derive(Debug)]
pub struct Browser {
    driver: Driver,
    dir: TempDir,
}

impl Browser {
    /// Starts it; the window has 1440 × 900 pixels.
    ///
    /// # Panics
    /// There is no chromedriver or no Chromium here, or they do not start.
    pub async fn start() -> Self {
        let dir = TempDir::with_prefix("fleetwright-browser-").expect("a temporary directory");
        let driver = Driver::start(dir.path()).await;
        Self { driver, dir }
    }

    /// Where its files are; each of its processes names it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Opens a page and waits until it is loaded.
    ///
    /// # Panics
    /// It cannot be reached.
    pub async fn open(&self, url: &str) {
        self.driver.post("/url", json!({"url": url})).await;
    }

    /// Loads the page again.
    pub async fn reload(&self) {
        self.driver.post("/refresh", json!({})).await;
    }

    /// The address of the page.
    pub async fn url(&self) -> String {
        self.driver.get("/url").await.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the address ends with this.
    ///
    /// # Panics
    /// It never does.
    pub async fn is_at(&self, end: &str) {
        let what = format!("an address that ends with {end}");
        wait_for(&what, PATIENCE, async || self.url().await.ends_with(end).then_some(())).await;
    }

    /// What a script gives, the body of a function of `arguments`; a promise is waited for.
    ///
    /// # Panics
    /// It throws.
    pub async fn eval(&self, script: &str, args: &[Value]) -> Value {
        self.driver.post("/execute/sync", json!({"script": script, "args": args})).await
    }

    /// Waits until a script gives anything but null, false, zero and the empty text, and gives that.
    ///
    /// # Panics
    /// It never does.
    pub async fn until(&self, what: &str, script: &str, args: &[Value]) -> Value {
        wait_for(what, PATIENCE, async || {
            let given = self.eval(script, args).await;
            let empty = matches!(given, Value::Null | Value::Bool(false))
                || given == json!(0)
                || given == json!("");
            (!empty).then_some(given)
        })
        .await
    }

    /// How many elements the page has for a selector, now.
    pub async fn count(&self, css: &str) -> u64 {
        let script = "return document.querySelectorAll(arguments[0]).length";
        self.eval(script, &[css.into()]).await.as_u64().unwrap_or_default()
    }

    /// Waits for an element.
    ///
    /// # Panics
    /// There is none.
    pub async fn has(&self, css: &str) {
        self.element(css).await;
    }

    /// Waits until no element is left.
    ///
    /// # Panics
    /// There is still one.
    pub async fn has_no(&self, css: &str) {
        let what = format!("no {css}");
        wait_for(&what, PATIENCE, async || (self.count(css).await == 0).then_some(())).await;
    }

    /// The text of an element as people see it.
    ///
    /// # Panics
    /// There is none.
    pub async fn text(&self, css: &str) -> String {
        let script = "return document.querySelector(arguments[0])?.innerText";
        wait_for(&format!("text of {css}"), PATIENCE, async || {
            self.eval(script, &[css.into()]).await.as_str().map(str::to_owned)
        })
        .await
    }

    /// Waits until an element's text contains this.
    ///
    /// # Panics
    /// It never does.
    pub async fn has_text(&self, css: &str, part: &str) {
        let script = "return document.querySelector(arguments[0])?.innerText ?? ''";
        let mut last = String::new();
        let look = async {
            while !last.contains(part) {
                tokio::time::sleep(LOOK_EVERY).await;
                let text = self.eval(script, &[css.into()]).await;
                last = text.as_str().unwrap_or_default().to_owned();
            }
        };
        let found = tokio::time::timeout(PATIENCE, look).await.is_ok();
        assert!(found, "waited {PATIENCE:?} for {part:?} in {css}, which says:\n{last}");
    }

    /// An attribute of an element, if it has it.
    pub async fn attr(&self, css: &str, name: &str) -> Option<String> {
        let script = "return document.querySelector(arguments[0])?.getAttribute(arguments[1])";
        let value = self.eval(script, &[css.into(), name.into()]).await;
        value.as_str().map(str::to_owned)
    }

    /// Clicks in the middle of an element, as a mouse does: waits until it can be, and nothing covers it.
    ///
    /// # Panics
    /// It never can be.
    pub async fn click(&self, css: &str) {
        let mut refused = String::new();
        let click = async {
            loop {
                let element = self.element(css).await;
                match self.driver.on(&element, "click", json!({})).await {
                    Ok(_) => return,
                    Err(error) => refused = error.message,
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let clicked = tokio::time::timeout(PATIENCE, click).await.is_ok();
        assert!(clicked, "{css} cannot be clicked: {refused}");
    }

    /// Empties a field and types into it.
    ///
    /// # Panics
    /// There is no such field.
    pub async fn fill(&self, css: &str, text: &str) {
        let element = self.element(css).await;
        for (what, body) in [("clear", json!({})), ("value", json!({"text": text}))] {
            let done = self.driver.on(&element, what, body).await;
            done.unwrap_or_else(|refused| panic!("{css}: {}: {}", refused.code, refused.message));
        }
    }

    /// Puts the focus on an element.
    ///
    /// # Panics
    /// There is none.
    pub async fn focus(&self, css: &str) {
        self.has(css).await;
        self.eval("document.querySelector(arguments[0]).focus()", &[css.into()]).await;
    }

    /// Presses keys, one chord after the other, to whatever has the focus: `["g", "h"]`, `["Control+k"]`,
    /// `["Shift+Tab", "Enter"]`.
    pub async fn press(&self, chords: &[&str]) {
        self.driver.post("/actions", keys::actions(chords)).await;
    }

    /// Types text, key by key, to whatever has the focus.
    pub async fn type_text(&self, text: &str) {
        let keys: Vec<String> = text.chars().map(String::from).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.press(&keys).await;
    }

    /// Turns the wheel over an element; down when positive.
    ///
    /// # Panics
    /// There is none.
    pub async fn scroll(&self, css: &str, by: i32) {
        let script = "const r = document.querySelector(arguments[0]).getBoundingClientRect();
            return [Math.round(r.x + r.width / 2), Math.round(r.y + r.height / 2)]";
        self.has(css).await;
        let at = self.eval(script, &[css.into()]).await;
        let turn = json!({"type": "scroll", "x": at.get(0), "y": at.get(1), "deltaX": 0, "deltaY": by,
            "duration": 0, "origin": "viewport"});
        let body = json!({"actions": [{"type": "wheel", "id": "wheel", "actions": [turn]}]});
        self.driver.post("/actions", body).await;
    }

    /// Makes the system prefer a theme.
    pub async fn theme(&self, theme: Theme) {
        let feature = json!({"name": "prefers-color-scheme", "value": theme.name()});
        let params = json!({"features": [feature]});
        self.driver.debug("Emulation.setEmulatedMedia", params).await;
    }

    /// Makes the page this large, in pixels of CSS.
    pub async fn size(&self, width: u32, height: u32) {
        let params =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.driver.debug("Emulation.setDeviceMetricsOverride", params).await;
    }

    /// Cuts the browser off the network, or gives it back.
    pub async fn offline(&self, offline: bool) {
        let params = json!({"offline": offline, "latency": 0, "downloadThroughput": -1,
            "uploadThroughput": -1});
        self.driver.debug("Network.emulateNetworkConditions", params).await;
    }

    /// Opens a new tab and makes it the one that everything is about.
    ///
    /// # Panics
    /// There can be no more.
    pub async fn new_tab(&self) -> Tab {
        let opened = self.driver.post("/window/new", json!({"type": "tab"})).await;
        let handle = opened.get("handle").and_then(Value::as_str).expect("a tab has a handle");
        let tab = Tab(handle.to_owned());
        self.switch_to(&tab).await;
        tab
    }

    /// The tab that everything is about.
    pub async fn tab(&self) -> Tab {
        Tab(self.driver.get("/window").await.as_str().unwrap_or_default().to_owned())
    }

    /// Makes a tab the one that everything is about.
    ///
    /// # Panics
    /// It is closed.
    pub async fn switch_to(&self, tab: &Tab) {
        self.driver.post("/window", json!({"handle": tab.0})).await;
    }

    /// Closes the tab that everything is about; [`Browser::switch_to`] another one then.
    ///
    /// # Panics
    /// It is closed already.
    pub async fn close_tab(&self) {
        let closed = self.driver.ask(Method::DELETE, "/window", None).await;
        closed.expect("a tab can be closed");
    }

    /// Warnings and errors of the console since the last look; a breach of the page's policy is one.
    pub async fn console(&self) -> Vec<String> {
        let entries = self.driver.post("/se/log", json!({"type": "browser"})).await;
        let text = |entry: &Value| {
            let level = entry.get("level")?.as_str()?;
            let message = entry.get("message")?.as_str()?;
            matches!(level, "SEVERE" | "WARNING").then(|| format!("{level}: {message}"))
        };
        entries.as_array().into_iter().flatten().filter_map(text).collect()
    }

    /// The rules of accessibility that the page breaks, as it looks now.
    ///
    /// # Panics
    /// axe throws.
    pub async fn axe(&self) -> Vec<Violation> {
        if self.eval("return typeof axe", &[]).await != "object" {
            self.eval(&axe::script(), &[]).await;
        }
        axe::read(&self.eval(axe::RUN, &[]).await)
    }

    /// Sees to it that the page breaks no rule of accessibility.
    ///
    /// # Panics
    /// It breaks one.
    pub async fn is_accessible(&self) {
        let found: Vec<String> = self.axe().await.iter().map(Violation::to_string).collect();
        assert!(found.is_empty(), "{}:\n{}", self.url().await, found.join("\n"));
    }

    /// Writes what the window shows to `target/screens/NAME.png`, and says where that is.
    ///
    /// # Panics
    /// It cannot be written.
    pub async fn screenshot(&self, name: &str) -> PathBuf {
        let picture = self.driver.get("/screenshot").await;
        let picture = STANDARD.decode(picture.as_str().unwrap_or_default()).expect("a picture");
        let screens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/screens");
        std::fs::create_dir_all(&screens).expect("a directory for pictures");
        let path = screens.join(format!("{name}.png"));
        std::fs::write(&path, picture).expect("a file for a picture");
        path
    }

    /// In both themes: a picture, `NAME-light.png` and `NAME-dark.png`, and no rule of accessibility broken.
    ///
    /// # Panics
    /// The page breaks a rule.
    pub async fn screens(&self, name: &str) {
        for theme in Theme::ALL {
            self.theme(theme).await;
            self.eval(SETTLED, &[]).await;
            self.screenshot(&format!("{name}-{}", theme.name())).await;
            self.is_accessible().await;
        }
    }

    async fn element(&self, css: &str) -> Element {
        wait_for(&format!("an element {css}"), PATIENCE, async || self.driver.find(css).await.ok())
            .await
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.driver.end(self.dir.path());
    }
}
