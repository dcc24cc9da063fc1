//! The browser of the tests does what tests of pages rely on, and leaves nothing behind.

use fw_testkit::browser::{Browser, Theme};
use fw_testkit::fleet::processes_of;
use serde_json::json;

/// A page that fits into its own address.
fn page(body: &str) -> String {
    let html = format!("<!doctype html><html lang=en><title>A page</title><main>{body}</main>");
    let escaped = html.replace('%', "%25").replace('#', "%23").replace('\n', "%0A");
    format!("data:text/html;charset=utf-8,{escaped}")
}

const GOOD: &str = "<style>
    body { background: white; color: black }
    @media (prefers-color-scheme: dark) { body { background: black; color: white } }
    div { height: 100px; width: 300px; overflow: auto } p { height: 1000px }
    </style>
    <h1>Hosts</h1><label>Filter <input id=filter></label>
    <button onclick=\"document.querySelector('output').textContent = document.querySelector('input').value\">Go</button>
    <output></output><div id=long tabindex=0><p>Long</p></div>
    <script>addEventListener('keydown', e => { if (e.ctrlKey && e.key === 'k') { e.preventDefault();
        document.querySelector('output').textContent = 'palette' } })</script>";

#[tokio::test]
async fn pages_are_used_as_people_use_them() {
    let browser = Browser::start().await;
    browser.open(&page(GOOD)).await;
    browser.fill("#filter", "web1 and not web2").await;
    browser.click("button").await;
    browser.has_text("output", "web1 and not web2").await;
    browser.press(&["Control+k"]).await;
    browser.has_text("output", "palette").await;
    browser.focus("#filter").await;
    browser.press(&["Control+a", "Delete"]).await;
    browser.type_text("db+1").await;
    browser.press(&["Tab", "Enter"]).await;
    browser.has_text("output", "db+1").await;
    browser.scroll("#long", 120).await;
    let scrolled = "return document.querySelector('#long').scrollTop === 120";
    browser.until("a scrolled element", scrolled, &[]).await;
    let promised = browser.eval("return new Promise(r => setTimeout(() => r(7), 1))", &[]).await;
    assert_eq!(promised, json!(7));
    assert_eq!(browser.count("button").await, 1);
    browser.has_no("#absent").await;

    let first = browser.tab().await;
    browser.new_tab().await;
    browser.open(&page("<h1>Other</h1>")).await;
    assert_eq!(browser.text("h1").await, "Other");
    browser.close_tab().await;
    browser.switch_to(&first).await;
    assert_eq!(browser.text("h1").await, "Hosts");
}

#[tokio::test]
async fn a_page_is_seen_in_both_themes_and_sizes() {
    let browser = Browser::start().await;
    browser.open(&page(GOOD)).await;
    browser.screens("harness").await;
    let colour = "return getComputedStyle(document.body).backgroundColor";
    assert_eq!(browser.eval(colour, &[]).await, json!("rgb(0, 0, 0)"));
    browser.theme(Theme::Light).await;
    assert_eq!(browser.eval(colour, &[]).await, json!("rgb(255, 255, 255)"));
    browser.size(360, 740).await;
    assert_eq!(browser.eval("return innerWidth", &[]).await, json!(360));
    let picture = browser.screenshot("harness-narrow").await;
    let bytes = std::fs::read(picture).unwrap();
    assert_eq!(bytes.get(..8), Some(&b"\x89PNG\r\n\x1a\n"[..]));
    assert_eq!(bytes.get(16..20), Some(&360_u32.to_be_bytes()[..]), "its width");
}

#[tokio::test]
async fn axe_and_the_console_tell_what_is_wrong() {
    let browser = Browser::start().await;
    let bad =
        "<h1>Hosts</h1><img src='data:,x'><span style='color:%23eee;background:white'>pale</span>
        <script>console.error('not so')</script>";
    browser.open(&page(bad).replace("%2523", "%23")).await;
    let found: Vec<String> = browser.axe().await.into_iter().map(|broken| broken.rule).collect();
    for rule in ["image-alt", "color-contrast"] {
        assert!(found.iter().any(|found| found == rule), "{rule} is not in {found:?}");
    }
    let console = browser.console().await;
    assert!(console.iter().any(|line| line.contains("not so")), "{console:?}");
    assert!(browser.console().await.is_empty(), "told twice");
}

#[tokio::test]
async fn no_process_outlives_its_test() {
    let browser = Browser::start().await;
    let dir = browser.dir().to_owned();
    assert!(processes_of(&dir) > 3, "a browser is a tree of processes");
    drop(browser);
    assert_eq!(processes_of(&dir), 0);
}
