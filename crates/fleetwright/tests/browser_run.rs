//! The page of a run in a real browser: watched live, over a restart of the server, with a million lines, from ten
//! tabs, and with output that would rather be markup.

#![expect(clippy::indexing_slicing, reason = "a page without what is looked for fails the test")]

use fw_testkit::browser::Browser;
use fw_testkit::door::Door;
use fw_testkit::fleet::{Fleet, PATIENCE, wait_for};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

/// The text of a line that is drawn.
fn line(n: u64) -> String {
    format!("[id='L{n}'] .lv-text")
}

async fn open(browser: &Browser, door: &Door, run: &str, more: &str) {
    browser.open(&format!("{}/runs/{run}{more}", door.url())).await;
}

/// The log has been counted, and has so many lines.
async fn has_lines(browser: &Browser, lines: u64) {
    let script = "const log = document.querySelector('log-view');
        return !log.counting && log.total === arguments[0]";
    browser.until(&format!("{lines} lines"), script, &[lines.into()]).await;
}

#[tokio::test]
async fn a_run_is_watched_from_the_click_to_the_last_line() {
    let fleet = Fleet::start(BINARY).await;
    let _host = fleet.agent("web1").await;
    let door = fleet.door().await;
    let text = "echo first; echo 'no such thing' >&2; while [ ! -e go ]; do sleep 0.05; done; \
                for n in $(seq 200); do echo \"line $n\"; done; echo last";
    fleet.touch("go");
    let (first, _) = fleet.run_shell("web1", &[], text).await;
    std::fs::remove_file(fleet.scratch().join("go")).unwrap();

    let browser = Browser::start().await;
    open(&browser, &door, &first, "").await;
    browser.has_text(&line(1), "first").await;
    browser.has_text("#run-head", "Succeeded").await;
    browser.click("#run-head button").await;
    browser.has_text("#confirm", "Run again on 1 host?").await;
    browser.click("#confirm [data-confirm-yes]").await;
    let moved = "return location.pathname.startsWith('/runs/') && !location.pathname.endsWith(arguments[0])";
    browser.until("the page of the new run", moved, &[json!(first)]).await;

    browser.has_text("#run-head", "Running").await;
    browser.has_text("#run-head", "The command runs on 1 host.").await;
    browser.has_text(&line(2), "no such thing").await;
    browser.has("[id='L2'].lv-error").await;
    browser.has(".lv-toggle[aria-pressed=true]").await;
    browser.screens("run-running").await;
    fleet.touch("go");
    browser.has_text(&line(203), "last").await;
    browser.has_text("#run-head", "Succeeded").await;
    browser.has_text("#run-hosts", "Succeeded").await;
    browser.screens("run-ended").await;
    assert_eq!(browser.console().await, Vec::<String>::new(), "no breach of the policy");
}

#[tokio::test]
async fn a_page_stays_true_when_the_server_is_killed_and_started() {
    let mut fleet = Fleet::start(BINARY).await;
    let _host = fleet.agent("web1").await;
    let door = fleet.door().await;
    let text = "echo before; while [ ! -e go ]; do sleep 0.05; done; echo after";
    let id = fleet.begin_shell("web1", &[], text).await;
    let browser = Browser::start().await;
    open(&browser, &door, &id, "").await;
    browser.has_text(&line(1), "before").await;
    browser.has("[data-offline][hidden]").await;
    fleet.server.kill9().await;
    browser.has("[data-offline]:not([hidden])").await;
    fleet.start_server().await;
    door.lead_to(fleet.addr());
    browser.has("[data-offline][hidden]").await;
    fleet.touch("go");
    browser.has_text(&line(2), "after").await;
    browser.has_text("#run-head", "Succeeded").await;
}

#[tokio::test]
async fn a_million_lines_are_few_nodes() {
    let fleet = Fleet::start(BINARY).await;
    let _host = fleet.agent("web1").await;
    let door = fleet.door().await;
    let text = "seq 1 1000000 | sed 's/^777777$/A needle in the hay/'";
    let (id, _) = fleet.run_shell("web1", &[], text).await;
    let browser = Browser::start().await;
    open(&browser, &door, &id, "").await;
    has_lines(&browser, 1_000_000).await;
    browser.has_text(&line(1), "1").await;
    browser.screenshot("log-million").await;

    browser.focus(".lv-scroll").await;
    browser.press(&["End"]).await;
    browser.has_text(&line(1_000_000), "1000000").await;
    browser.press(&["Home"]).await;
    browser.has_text(&line(1), "1").await;
    for at in [500_000, 123_456, 999_000] {
        browser.eval("location.hash = `#L${arguments[0]}`", &[at.into()]).await;
        browser.has_text(&line(at), &at.to_string()).await;
        browser.has(&format!("[id='L{at}'].lv-marked")).await;
    }
    browser.scroll(".lv-scroll", -40_000).await;
    let above = "const n = Number(document.querySelector('.lv-row')?.dataset.n); return n > 0 && n < 998000";
    browser.until("rows further up", above, &[]).await;
    browser.press(&["/"]).await;
    browser.type_text("needle").await;
    browser.has_text(".lv-count", "1 of 1").await;
    browser.has_text(&line(777_777), "A needle in the hay").await;
    browser.has_text("[id='L777777'] mark", "needle").await;
    browser.press(&["Control+a"]).await;
    browser.type_text("99999").await;
    browser.has_text(".lv-count", "of 19").await;
    browser.press(&["Enter"]).await;
    browser.press(&["Shift+Enter"]).await;
    browser.screens("log-search").await;
    let nodes = browser.count("log-view *").await;
    assert!(nodes < 600, "{nodes} nodes");
    let kept = "return document.querySelector('log-view').pages.size <= 40";
    assert_eq!(browser.eval(kept, &[]).await, json!(true));
}

/// How many streams the server serves.
async fn streams(fleet: &Fleet) -> Option<u64> {
    let metrics = fleet.metrics().await?;
    let line = metrics.lines().find(|line| line.starts_with("fleetwright_sse_clients"))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

async fn ten_tabs_have_one_stream(more: &str) {
    let fleet = Fleet::start(BINARY).await;
    let _host = fleet.agent("web1").await;
    let door = fleet.door().await;
    let text = "echo begun; while [ ! -e go ]; do sleep 0.05; done; echo ended";
    let id = fleet.begin_shell("web1", &[], text).await;
    let browser = Browser::start().await;
    let mut tabs = vec![browser.tab().await];
    open(&browser, &door, &id, more).await;
    browser.has_text(&line(1), "begun").await;
    for _ in 1..10 {
        tabs.push(browser.new_tab().await);
        open(&browser, &door, &id, more).await;
        browser.has_text(&line(1), "begun").await;
    }
    wait_for("one stream", PATIENCE, async || (streams(&fleet).await == Some(1)).then_some(()))
        .await;
    fleet.touch("go");
    for tab in &tabs {
        browser.switch_to(tab).await;
        browser.has_text(&line(2), "ended").await;
        browser.has_text("#run-head", "Succeeded").await;
    }
    assert_eq!(streams(&fleet).await, Some(1));
    // When the tab that was first goes, the others still hear.
    browser.switch_to(&tabs[0]).await;
    browser.close_tab().await;
    browser.switch_to(&tabs[9]).await;
    let connected = "return import(document.querySelector('script[src$=\"run-page.js\"]').src.replace('run-page.js', 'live.js'))
        .then(m => m.live.state === 'connected')";
    browser.until("a stream", connected, &[]).await;
}

#[tokio::test]
async fn ten_tabs_have_one_stream_through_a_worker() {
    ten_tabs_have_one_stream("").await;
}

#[tokio::test]
async fn ten_tabs_have_one_stream_without_workers() {
    ten_tabs_have_one_stream("?no-worker").await;
}

#[tokio::test]
async fn output_is_text_whatever_it_says() {
    let fleet = Fleet::start(BINARY).await;
    let _host = fleet.agent("web1").await;
    let door = fleet.door().await;
    let hostile = [
        "<script>hacked = 1</script>",
        "<img src=x onerror=hacked=1>",
        "\"><svg/onload=hacked=1>",
        "<log-view data-run=x></log-view><b>bold</b>",
        "javascript:hacked=1 {{7*7}} ${7*7}",
    ];
    let printed: Vec<_> = hostile.iter().map(|line| format!("printf '%s\\n' '{line}'; ")).collect();
    let mut text = printed.concat();
    let escapes = "printf '\\033[31mred\\033[0m \\033[38;5;208morange\\033[m \\033[38;2;1;2;3mtrue\\033[m \
        \\033]0;title\\007\\033]8;;javascript:hacked=1\\033\\\\link\\033]8;;\\033\\\\ \
        \\033[2J\\033[H\\033P1q\\033\\\\end\\n10%%\\r100%%\\n\\342\\200\\256rtl\\n'";
    text.push_str(escapes);
    let (id, _) = fleet.run_shell("web1", &[], &text).await;
    let browser = Browser::start().await;
    open(&browser, &door, &id, "").await;
    has_lines(&browser, 8).await;
    for (n, expected) in (1..).zip(hostile) {
        assert_eq!(browser.text(&line(n)).await, expected);
    }
    assert_eq!(browser.text(&line(6)).await, "red orange true link end");
    assert_eq!(browser.text(&line(7)).await, "100%");
    assert_eq!(browser.text(&line(8)).await, "rtl");
    browser.has("[id='L6'] .a-fg").await;
    assert_eq!(browser.count("[id='L6'] .a-fg").await, 3);
    assert_eq!(
        browser
            .count("log-view script, log-view img, log-view svg, log-view b, log-view log-view")
            .await,
        0
    );
    assert_eq!(browser.eval("return typeof hacked", &[]).await, json!("undefined"));
    let title = browser.eval("return document.title", &[]).await;
    assert!(title.as_str().is_some_and(|title| title.contains("<script>")), "{title}");
    browser.screens("log-hostile").await;
    assert_eq!(browser.console().await, Vec::<String>::new());
}

#[tokio::test]
async fn groups_errors_and_links_are_reached_by_keys() {
    let fleet = Fleet::start(BINARY).await;
    let _host = fleet.agent("web1").await;
    let _other = fleet.agent("web2").await;
    let door = fleet.door().await;
    let text = "echo '::group::Build'; for n in $(seq 30); do echo \"step $n\"; done; echo 'error: one'; \
                echo '::endgroup::'; for n in $(seq 200); do echo \"more $n\"; done; echo two >&2";
    let id = fleet.begin_shell("web1,web2", &[], text).await;
    fleet.ended(&id).await;
    let browser = Browser::start().await;
    open(&browser, &door, &id, "?host=web1").await;
    has_lines(&browser, 234).await;
    assert_eq!(browser.text(".lv-fold").await, "Build");
    browser.click(".lv-fold").await;
    browser.has_text(".lv-fold", "Build (32 lines)").await;
    browser.has_text(&line(34), "more 1").await;
    browser.has_no("[id='L5']").await;
    // What is found in a group opens it.
    browser.press(&["/"]).await;
    browser.type_text("step 17").await;
    browser.has_text(".lv-count", "1 of 1").await;
    browser.has_text("[id='L18'].lv-current", "step 17").await;
    browser.press(&["Escape", "e"]).await;
    browser.has_text(".lv-current .lv-text", "error: one").await;
    browser.press(&["e"]).await;
    browser.has_text(".lv-current .lv-text", "two").await;
    browser.press(&["E"]).await;
    browser.has_no("[id='L18']").await;
    browser.has_text(&line(32), "error: one").await;
    browser.has_text(&line(234), "two").await;
    browser.press(&["E", "t", "w"]).await;
    browser.has_no(".lv-time").await;
    browser.has("log-view.lv-wrapped").await;
    // A range is a link.
    browser.press(&["Home", "w"]).await;
    browser.click("[id='L3'] .lv-n").await;
    let shift = "document.querySelector('[id=\"L6\"] .lv-n')
        .dispatchEvent(new MouseEvent('click', {bubbles: true, shiftKey: true}))";
    browser.eval(shift, &[]).await;
    browser.is_at("#L3-L6").await;
    browser.has_text("log-view", "Copy 4 lines").await;
    browser.reload().await;
    browser.has("[id='L6'].lv-marked").await;
    let four = "return document.querySelectorAll('.lv-marked').length === 4";
    browser.until("four marked lines", four, &[]).await;
    // All hosts, each with its colour.
    open(&browser, &door, &id, "").await;
    has_lines(&browser, 468).await;
    let go = "return fetch(`/api/v1${location.pathname}/logs/lines?from=1&count=468`).then(r => r.json())
        .then(page => { location.hash = `#L${page.lines.find(line => line.host === 'web2').n}` })";
    browser.eval(go, &[]).await;
    browser.has(".lv-marked .lv-host.lv-hue-1").await;
    browser.screens("log-hosts").await;
    let raw: Value = browser
        .eval("return fetch(document.querySelector('a[download]').href).then(r => r.text())", &[])
        .await;
    assert!(raw.as_str().is_some_and(|text| text.contains("web2 | step 30\n")), "{raw}");
    browser.size(360, 740).await;
    browser.screens("run-narrow").await;
}
