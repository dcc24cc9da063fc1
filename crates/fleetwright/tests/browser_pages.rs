//! The dashboard in a real browser: every screen in both themes, wide and narrow, passes axe; what hosts say is text;
//! the main tasks by keyboard alone.

use fw_testkit::browser::Browser;
use fw_testkit::door::Door;
use fw_testkit::fleet::Fleet;

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

const JOBS: &str = r#"
jobs:
  heartbeat: {schedule: "@every 1h", hosts: "*", run: "echo ok"}
  nightly: {schedule: "30 3 * * *", timezone: Europe/Athens, hosts: "web1 or nobody", run: "echo '<script>alert(1)</script>'"}
"#;

/// Each page, and what to call its picture.
const PAGES: &[(&str, &str)] = &[
    ("overview", "/"),
    ("hosts", "/hosts"),
    ("hosts-wrong", "/hosts?q=os:("),
    ("host", "/hosts/web1"),
    ("jobs", "/jobs"),
    ("job", "/jobs/nightly"),
    ("runs", "/runs"),
    ("command", "/run?hosts=*"),
    ("maintenance", "/maintenance"),
    ("enrolment", "/settings/enrolment"),
    ("audit", "/audit"),
    ("users", "/settings/users"),
    ("sessions", "/settings/sessions"),
    ("tokens", "/settings/tokens"),
    ("account-token", "/settings/account"),
    ("about", "/settings/about"),
    ("sign-in", "/sign-in?next=/hosts"),
    ("set-up", "/setup"),
];

async fn all_pages(browser: &Browser, door: &Door, kind: &str) {
    for (name, path) in PAGES {
        browser.open(&format!("{}{path}", door.url())).await;
        browser.has("main h1").await;
        browser.screens(&format!("{name}-{kind}")).await;
    }
}

/// Nothing is cut off at the side of a small screen.
async fn is_narrow(browser: &Browser, door: &Door) {
    for (name, path) in PAGES {
        browser.open(&format!("{}{path}", door.url())).await;
        browser.has("main h1").await;
        let fits = "return document.documentElement.scrollWidth <= innerWidth";
        assert_eq!(browser.eval(fits, &[]).await, true, "{name} fits");
    }
}

#[tokio::test]
async fn every_screen_is_accessible_in_both_themes() {
    let fleet = Fleet::start(BINARY).await;
    let door = fleet.door().await;
    let browser = Browser::start().await;
    let empty: &[&str] = &["/", "/hosts", "/jobs", "/runs", "/maintenance"];
    for path in empty {
        browser.open(&format!("{}{path}", door.url())).await;
        browser.has("main .empty").await;
        browser.is_accessible().await;
    }
    let _host = fleet.agent("web1").await;
    fleet.cli_with_input(&["jobs", "apply", "-"], JOBS.as_bytes()).await;
    fleet.run_shell("web1", &[], "echo hello").await;
    all_pages(&browser, &door, "wide").await;
    browser.size(360, 780).await;
    is_narrow(&browser, &door).await;
    all_pages(&browser, &door, "narrow").await;
    let breaches: Vec<_> = browser.console().await;
    assert!(!breaches.iter().any(|line| line.contains("Content Security Policy")), "{breaches:?}");
}

#[tokio::test]
async fn the_main_tasks_need_no_mouse() {
    let fleet = Fleet::start(BINARY).await;
    let _host = fleet.agent("web1").await;
    fleet.cli_with_input(&["jobs", "apply", "-"], JOBS.as_bytes()).await;
    let door = fleet.door().await;
    let browser = Browser::start().await;
    browser.open(&door.url()).await;
    browser.has("main h1").await;
    browser.press(&["g", "h"]).await;
    browser.is_at("/hosts").await;
    browser.press(&["j", "x"]).await;
    browser.has_text("[data-chosen]", "1 selected").await;
    browser.press(&["r"]).await;
    browser.has_text("#preview", "1 host").await;
    browser.focus("#command").await;
    browser.type_text("echo by-keyboard").await;
    browser.has_text("[data-cli]", "fleetwright run web1 --shell 'echo by-keyboard'").await;
    browser.focus("[data-submit-run]").await;
    browser.press(&["Enter"]).await;
    browser.has_text("#run-head", "Succeeded").await;
    browser.press(&["Control+k"]).await;
    browser.type_text("nightly").await;
    browser.press(&["Enter"]).await;
    browser.is_at("/jobs/nightly").await;
    browser.press(&["?"]).await;
    browser.has("#keys[open]").await;
    browser.press(&["Escape"]).await;
    browser.press(&["r"]).await;
    browser.has_text("#run-head", "Succeeded").await;
}

/// What has the focus, by its text.
const FOCUSED: &str = "return document.activeElement?.innerText ?? ''";

/// Every key of the help does what the help says, and another one that a person chose does it instead.
#[tokio::test]
async fn every_key_of_the_help_does_what_it_says() {
    let fleet = Fleet::start(BINARY).await;
    let _host = fleet.agent("web1").await;
    fleet.cli_with_input(&["jobs", "apply", "-"], JOBS.as_bytes()).await;
    let door = fleet.door().await;
    let mut runs = Vec::new();
    for text in ["echo one", "echo two", "echo three"] {
        runs.push(fleet.run_shell("web1", &[], text).await.0);
    }
    let browser = Browser::start().await;
    browser.open(&door.url()).await;
    browser.has("main h1").await;
    for (key, to) in [
        ("h", "/hosts"),
        ("j", "/jobs"),
        ("c", "/run"),
        ("l", "/rollouts"),
        ("b", "/runbooks"),
        ("m", "/maintenance"),
        ("a", "/audit"),
        ("s", "/settings/enrolment"),
        ("o", "/"),
        ("r", "/runs"),
    ] {
        browser.press(&["?"]).await;
        let told = format!("Array.from(document.querySelectorAll('#keys[open] tr')).some(row =>
            row.querySelectorAll('kbd')[0].textContent === 'g' && row.querySelectorAll('kbd')[1]?.textContent === '{key}')");
        assert_eq!(
            browser.eval(&format!("return {told}"), &[]).await,
            true,
            "g {key} is in the help"
        );
        browser.press(&["Escape", "g", key]).await;
        browser.is_at(to).await;
        browser.has("main h1").await;
    }
    // A list: rows, the filter, and a row that is opened.
    browser.press(&["j", "j", "k", "Enter"]).await;
    browser.is_at(&format!("/runs/{}", runs[2])).await;
    browser.has("main [rel=prev]").await;
    // From run to run, and up.
    browser.press(&["["]).await;
    browser.is_at(&format!("/runs/{}", runs[1])).await;
    browser.has("main [rel=next]").await;
    browser.screens("run-beside").await;
    browser.press(&["]"]).await;
    browser.is_at(&format!("/runs/{}", runs[2])).await;
    browser.has("main h1").await;
    browser.press(&["."]).await;
    assert_eq!(browser.eval(FOCUSED, &[]).await, "Run again");
    browser.press(&["Escape"]).await;
    browser.is_at("/runs").await;
    browser.has("main h1").await;
    // Another key, which the help shows from then on; one that is taken is not.
    browser.press(&["?"]).await;
    browser.click("#keys details summary").await;
    browser.screens("keys").await;
    browser.focus("#keymap-106").await;
    browser.press(&["k", "Tab"]).await;
    browser.has_text("[data-keymap-problem]", "Previous row").await;
    browser.focus("#keymap-106").await;
    browser.press(&["d", "Tab"]).await;
    browser.has_text("#keys kbd[data-k=j]", "d").await;
    browser.press(&["Escape", "j"]).await;
    browser.has_no("tr.here").await;
    browser.press(&["d"]).await;
    browser.has("tr.here").await;
    // A browser leaves the focus in a dialog that was closed until it paints: the next key is for the page.
    let at_once = "const dialog = document.getElementById('keys'), field = document.getElementById('keymap-107');
        const row = () => document.querySelector('tr.here').dataset.key, before = row();
        dialog.showModal(); field.focus(); dialog.close();
        field.dispatchEvent(new KeyboardEvent('keydown', { key: 'd', bubbles: true, cancelable: true }));
        return before !== row()";
    assert_eq!(browser.eval(at_once, &[]).await, true);
    // None in a field, none when they are off.
    browser.press(&["/"]).await;
    browser.press(&["g", "h"]).await;
    browser.is_at("/runs").await;
    browser.press(&["Escape", "?"]).await;
    browser.click("#keys [data-keymap-reset]").await;
    browser.click("#keys [data-keys-off]").await;
    browser.press(&["Escape", "g", "h"]).await;
    browser.is_at("/runs").await;
}

#[tokio::test]
async fn what_others_say_is_shown_as_text() {
    let fleet = Fleet::start(BINARY).await;
    let _host = fleet.agent("web1").await;
    let evil = "<img src=x onerror=\"document.title='owned'\">";
    fleet.cli(&["hosts", "label", "web1", &format!("note={evil}")]).await;
    fleet.run_shell("web1", &[], &format!("echo {}", "'<svg onload=alert(1)>'")).await;
    let door = fleet.door().await;
    let browser = Browser::start().await;
    browser.open(&format!("{}/hosts/web1", door.url())).await;
    browser.has_text(".labels", evil).await;
    for path in [
        "/hosts",
        "/runs",
        "/",
        "/hosts?q=%3Cscript%3Ealert(1)%3C/script%3E",
        "/run?hosts=%22%3E%3Cscript%3Ealert(1)%3C/script%3E",
    ] {
        browser.open(&format!("{}{path}", door.url())).await;
        browser.has("main h1").await;
        assert_eq!(
            browser.count("main script, main img, main [onerror], main [onload]").await,
            0,
            "{path}"
        );
        assert_ne!(browser.eval("return document.title", &[]).await, "owned");
    }
}

/// Also on a page that follows nothing else, and while a form is half filled in.
#[tokio::test]
async fn a_banner_comes_and_goes_by_itself() {
    let fleet = Fleet::start(BINARY).await;
    let _host = fleet.agent("web1").await;
    let door = fleet.door().await;
    let browser = Browser::start().await;
    browser.open(&format!("{}/run", door.url())).await;
    browser.has("main h1").await;
    assert_eq!(browser.count(".banner").await, 0);
    browser.fill("#command", "echo half").await;
    let on = ["maintenance", "on", "--everything", "--reason", "new <b>disks</b>", "--for", "2h"];
    drop(fleet.cli(&[&on[..], &["--message", "Back at noon."]].concat()).await.ok());
    browser.has_text("#banner", "no job fires").await;
    browser.has_text("#banner", "new <b>disks</b>").await;
    browser.screens("banner").await;
    let kept = browser.eval("return document.querySelector('#command').value", &[]).await;
    assert_eq!(kept, "echo half");
    drop(fleet.cli(&["maintenance", "off", "1"]).await.ok());
    browser.has_no(".banner").await;
}

#[tokio::test]
async fn a_maintenance_is_switched_on_and_followed_on_its_page() {
    let fleet = Fleet::start(BINARY).await;
    let _host = fleet.agent("web1").await;
    let door = fleet.door().await;
    let browser = Browser::start().await;
    let run = fleet.begin_shell("web1", &[], "while ! [ -e go ]; do sleep 0.05; done").await;
    fleet.task_is(&run, "running").await;
    browser.open(&format!("{}/maintenance", door.url())).await;
    browser.fill("#hosts", "web*").await;
    browser.fill("#reason", "new kernel").await;
    let line = "fleetwright maintenance on 'web*' --reason 'new kernel' --drain";
    browser.has_text("[data-cli]", line).await;
    browser.press(&["Enter"]).await;
    browser.has_text("#maintenances", "1 task still runs on web1").await;
    browser.has_text("#banner", "In maintenance: web*.").await;
    fleet.touch("go");
    browser.has_text("#maintenances", "Nothing runs there any more").await;

    browser.fill("#hosts", "db*").await;
    browser.fill("#reason", "patches").await;
    browser.fill("#for", "2h").await;
    browser.click("details.more summary").await;
    browser.fill("#every", "0 2 * * sun").await;
    browser.fill("#timezone", "Europe/Athens").await;
    let line = "--reason patches --for 2h --every '0 2 * * sun' --timezone Europe/Athens";
    browser.has_text("[data-cli]", line).await;
    browser.press(&["Enter"]).await;
    browser.has_text("#maintenances", "The next window begins").await;
    browser.screens("maintenance-on-wide").await;
    browser.size(360, 780).await;
    browser.screens("maintenance-on-narrow").await;
    let fits = "return document.documentElement.scrollWidth <= innerWidth";
    assert_eq!(browser.eval(fits, &[]).await, true);
    browser.click("#maintenances [data-key='2'] [data-api]").await;
    browser.has_no("#maintenances [data-key='2'] [data-api]").await;
}
