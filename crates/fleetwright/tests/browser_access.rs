//! People in a real browser: they set one-time codes up and sign in with them, make tokens, see who did what, are
//! offered what they may, and do the main tasks without a mouse.

use fw_testkit::browser::Browser;
use fw_testkit::fleet::Fleet;
use serde_json::json;

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");
const PASSWORD: &str = "correct horse battery";

/// Opens the set-up link in the browser and becomes the first user, who is an admin.
async fn first(fleet: &Fleet, browser: &Browser, name: &str) {
    let link = std::fs::read_to_string(fleet.data_dir().join("setup.link")).expect("a link");
    let (_, secret) = link.trim().split_once('#').expect("a secret");
    browser.open(&format!("{}/setup#{secret}", fleet.url())).await;
    browser.has("[data-first]:not([hidden])").await;
    browser.fill("#name", name).await;
    browser.fill("#password", PASSWORD).await;
    browser.fill("#again", PASSWORD).await;
    browser.press(&["Enter"]).await;
    browser.has(".rail").await;
}

/// Signs in by the page; without a code, the page that follows is not waited for.
async fn sign_in(browser: &Browser, fleet: &Fleet, name: &str) {
    browser.open(&format!("{}/sign-in", fleet.url())).await;
    browser.fill("#name", name).await;
    browser.fill("#password", PASSWORD).await;
    browser.press(&["Enter"]).await;
}

async fn sign_out(browser: &Browser) {
    browser.click("header details.menu summary").await;
    browser.click("[data-act=sign-out]").await;
    browser.is_at("/sign-in").await;
}

/// The code of a secret so many half minutes from now, as a phone makes it.
fn code(secret: &str, steps: i64) -> String {
    let now = fw_rt::Clock::system().now().as_millis() / 1000;
    let secret = totp_rs::Secret::try_from_base32(secret).expect("base 32");
    let totp = totp_rs::Builder::new().with_secret(secret).with_account_name("a").build();
    let at = u64::try_from(now + 30 * steps).expect("after 1970");
    totp.expect("a secret that is long enough").generate(at).to_string()
}

/// Signs in with a second factor; what follows is not waited for.
async fn with_code(browser: &Browser, fleet: &Fleet, code: &str) {
    sign_in(browser, fleet, "ada").await;
    browser.has("[data-totp]:not([hidden])").await;
    browser.fill("#totp", code).await;
    browser.press(&["Enter"]).await;
}

/// The colours of the picture in both themes, and whether it is large enough for the camera of a phone.
const QR_COLOURS: &str = "
    const svg = document.querySelector('[data-totp-picture] svg[role=img][aria-label]');
    const fill = (css) => getComputedStyle(svg.querySelector(css)).fill;
    return ['light', 'dark'].map((theme) => {
        document.documentElement.dataset.theme = theme;
        const large = svg.getBoundingClientRect().width >= 4 * svg.viewBox.baseVal.width;
        return [fill('rect'), fill('path'), large];
    });";

/// Sets codes up in the page; gives the secret and the recovery codes.
async fn set_codes_up(browser: &Browser, fleet: &Fleet) -> (String, Vec<String>) {
    browser.open(&format!("{}/settings/account", fleet.url())).await;
    browser.screens("account").await;
    browser.click("[data-totp-begin]").await;
    browser.has("[data-totp-made]:not([hidden])").await;
    browser.screens("account-set-up").await;
    let shown = browser.text("[data-totp-secret]").await;
    assert!(shown.split(' ').all(|group| group.len() == 4), "{shown}");
    let address = browser.text("[data-totp-address]").await;
    assert!(address.starts_with("otpauth://totp/Fleetwright:ada?"), "{address}");
    let secret = shown.replace(' ', "");
    let colours = browser.eval(QR_COLOURS, &[]).await;
    let dark_on_light = json!(["rgb(255, 255, 255)", "rgb(0, 0, 0)", true]);
    assert_eq!(colours, json!([dark_on_light, dark_on_light]));
    browser.fill("#code", "000000").await;
    browser.press(&["Enter"]).await;
    browser.has_text("[data-totp-confirm] [data-problem]", "code: it is wrong").await;
    // The one before is taken as well, so that the present one is left for signing in.
    browser.fill("#code", &code(&secret, -1)).await;
    browser.press(&["Enter"]).await;
    browser.has("[data-totp-done]:not([hidden])").await;
    browser.screens("account-recovery").await;
    let codes = browser.text("[data-totp-codes]").await;
    (secret, codes.lines().map(str::to_owned).collect())
}

#[tokio::test]
async fn one_time_codes_are_set_up_and_count_once() {
    let fleet = Fleet::start(BINARY).await;
    let browser = Browser::start().await;
    first(&fleet, &browser, "ada").await;
    let (secret, codes) = set_codes_up(&browser, &fleet).await;
    assert_eq!(codes.len(), 10, "{codes:?}");
    sign_out(&browser).await;
    let now = code(&secret, 0);
    with_code(&browser, &fleet, &now).await;
    browser.has(".rail").await;
    sign_out(&browser).await;
    with_code(&browser, &fleet, &now).await;
    browser.has_text("[data-problem]", "wrong name, password or code").await;
    with_code(&browser, &fleet, &codes[0]).await;
    browser.has(".rail").await;
    sign_out(&browser).await;
    with_code(&browser, &fleet, &codes[0]).await;
    browser.has_text("[data-problem]", "wrong name, password or code").await;
    with_code(&browser, &fleet, &codes[1]).await;
    browser.has(".rail").await;
    browser.open(&format!("{}/audit", fleet.url())).await;
    for action in ["user.totp_on", "session.begin", "session.end", "session.refused"] {
        browser.has_text("#audit", action).await;
    }
    browser.open(&format!("{}/settings/account", fleet.url())).await;
    browser.screens("account-on").await;
    browser.click("#totp button.danger").await;
    browser.click("#confirm [data-confirm-yes]").await;
    browser.has("[data-totp-begin]").await;
}

#[tokio::test]
async fn a_token_is_made_with_scopes_and_hosts() {
    let fleet = Fleet::start(BINARY).await;
    let browser = Browser::start().await;
    first(&fleet, &browser, "ada").await;
    browser.open(&format!("{}/settings/tokens", fleet.url())).await;
    browser.fill("#name", "ci").await;
    browser.eval("document.querySelector('#scope').value = 'run'", &[]).await;
    browser.fill("#selector", "web*").await;
    browser.fill("#ttl", "30d").await;
    browser.press(&["Enter"]).await;
    browser.has("[data-token-made]:not([hidden])").await;
    browser.has_text("#tokens tr[data-key=ci]", "web*").await;
    browser.screens("tokens-made").await;
    let token = browser.text("[data-token-text]").await;
    let http = reqwest::Client::builder().no_proxy().build().expect("a client of plain HTTP");
    let asked = http.get(format!("{}/api/v1/session", fleet.url())).bearer_auth(token);
    let me = asked.send().await.expect("an answer").text().await.expect("a text");
    let me: serde_json::Value = serde_json::from_str(&me).expect("JSON");
    assert_eq!((&me["scopes"], &me["selector"]), (&json!(["run"]), &json!("web*")));
    // An open page hears of what others change.
    browser.open(&format!("{}/audit", fleet.url())).await;
    browser.has_text("#audit", "token.create").await;
    drop(fleet.cli(&["tokens", "revoke", "ci"]).await.ok());
    browser.has_text("#audit", "token.remove").await;
    browser.has_text("#audit", "token:admin").await;
    browser.open(&fleet.url()).await;
    browser.has_text("#overview", "Who changed what").await;
    browser.has_text("#overview", "token.remove").await;
}

#[tokio::test]
async fn nobody_is_offered_what_they_may_not() {
    let fleet = Fleet::start(BINARY).await;
    let _host = fleet.agent("web1").await;
    fleet.cli_with_input(&["jobs", "apply", "-"], JOBS.as_bytes()).await;
    let browser = Browser::start().await;
    let added = fleet.cli(&["users", "add", "vera", "-o", "json"]).await.ok().json();
    let (_, secret) =
        added["link"]["link"].as_str().and_then(|link| link.split_once('#')).expect("a link");
    browser.open(&format!("{}/setup#{secret}", fleet.url())).await;
    browser.fill("#password", PASSWORD).await;
    browser.fill("#again", PASSWORD).await;
    browser.press(&["Enter"]).await;
    browser.has(".rail").await;
    browser.screens("overview-viewer").await;
    for absent in ["a[href='/audit']", "a[href='/run']", "a[href='/settings/enrolment']"] {
        assert_eq!(browser.count(absent).await, 0, "{absent}");
    }
    for (path, disabled) in
        [("/jobs/often", "[data-r]"), ("/maintenance", "[data-maintenance] .primary")]
    {
        browser.open(&format!("{}{path}", fleet.url())).await;
        let why = browser.attr(&format!("{disabled}:disabled"), "title").await;
        assert_eq!(why.as_deref(), Some("this needs the role operator, and yours is viewer"));
    }
    browser.open(&format!("{}/hosts/web1", fleet.url())).await;
    browser.has("main h1").await;
    assert_eq!(browser.count("main .danger, #rename, main form[data-api]").await, 0);
    browser.open(&format!("{}/settings", fleet.url())).await;
    browser.is_at("/settings/account").await;
    // Another role shows without signing in again.
    drop(fleet.cli(&["users", "role", "vera", "operator"]).await.ok());
    browser.open(&format!("{}/jobs/often", fleet.url())).await;
    browser.has("[data-r]:not(:disabled)").await;
}

const JOBS: &str = r#"
jobs:
  often: {schedule: "@every 1s", hosts: "web1", run: "echo ok"}
  nightly: {schedule: "30 3 * * *", hosts: "web1", run: "echo done"}
"#;

/// Whether an element has the focus.
const IS_HERE: &str = "return document.activeElement?.matches(arguments[0]) ?? false";

/// Goes to an element as somebody without a mouse does.
async fn tab_to(browser: &Browser, css: &str) {
    browser.has(css).await;
    for _ in 0..120 {
        if browser.eval(IS_HERE, &[css.into()]).await == true {
            return;
        }
        browser.press(&["Tab"]).await;
    }
    assert_eq!(browser.eval(IS_HERE, &[css.into()]).await, true, "{css} is reached by no Tab");
}

/// Goes to a field and types.
async fn type_into(browser: &Browser, css: &str, text: &str) {
    tab_to(browser, css).await;
    browser.press(&["Control+a"]).await;
    browser.type_text(text).await;
}

/// Goes to a button and presses it.
async fn enter(browser: &Browser, css: &str) {
    tab_to(browser, css).await;
    browser.press(&["Enter"]).await;
}

/// Begins at the top of a page, as after it was opened.
async fn go(browser: &Browser, keys: [&str; 2], to: &str) {
    browser.eval("document.activeElement?.blur()", &[]).await;
    browser.press(&keys).await;
    browser.is_at(to).await;
    browser.has("main h1").await;
}

#[tokio::test]
async fn ten_tasks_need_no_mouse() {
    let fleet = Fleet::start(BINARY).await;
    let browser = Browser::start().await;
    first(&fleet, &browser, "ada").await;
    sign_out(&browser).await;
    // 1. Sign in.
    type_into(&browser, "#name", "ada").await;
    type_into(&browser, "#password", PASSWORD).await;
    browser.press(&["Enter"]).await;
    browser.has(".rail").await;
    // 2. Join a host.
    go(&browser, ["g", "s"], "/settings/enrolment").await;
    enter(&browser, "[data-enrol] .primary").await;
    browser.has("[data-enrol-made]:not([hidden])").await;
    let line = browser.text("[data-enrol-command]").await;
    let join = line.split_whitespace().last().expect("a join string").trim_matches('\'');
    drop(fleet.try_join(join, "web1").await.ok());
    let mut host = fleet.agent_of("web1", &[], &[]);
    host.start();
    browser.has_text("[data-enrol-joined]", "web1").await;
    // 3. Run a command on it, and 4. read its output.
    go(&browser, ["g", "c"], "/run").await;
    type_into(&browser, "#hosts", "web1").await;
    type_into(&browser, "#command", "echo by-keyboard").await;
    enter(&browser, "[data-submit-run]").await;
    browser.has_text("#run-head", "Succeeded").await;
    browser.has_text("[id='L1']", "by-keyboard").await;
    // 5. Run a job now.
    fleet.cli_with_input(&["jobs", "apply", "-"], JOBS.as_bytes()).await;
    browser.press(&["Control+k"]).await;
    browser.type_text("nightly").await;
    browser.press(&["Enter"]).await;
    browser.is_at("/jobs/nightly").await;
    browser.has("main [data-r]").await;
    browser.press(&["r"]).await;
    browser.has_text("#run-head", "Succeeded").await;
    // 6. Pause a job, and 7. find why it did not run.
    browser.press(&["Control+k"]).await;
    browser.type_text("often").await;
    browser.press(&["Enter"]).await;
    browser.is_at("/jobs/often").await;
    enter(&browser, "[data-api$='/pause']").await;
    browser.has("[data-api$='/resume']").await;
    browser.has_text("#ledger", "paused").await;
    // 8. Switch maintenance on.
    go(&browser, ["g", "m"], "/maintenance").await;
    type_into(&browser, "#hosts", "web1").await;
    type_into(&browser, "#reason", "new disks").await;
    browser.press(&["Enter"]).await;
    browser.has_text("#maintenances", "new disks").await;
    // 9. Revoke the host.
    go(&browser, ["g", "h"], "/hosts").await;
    browser.press(&["j", "Enter"]).await;
    browser.is_at("/hosts/web1").await;
    browser.press(&["."]).await;
    enter(&browser, "[data-api$='/revoke']").await;
    browser.has("#confirm[open]").await;
    enter(&browser, "#confirm [data-confirm-yes]").await;
    browser.has_text("main h1", "Revoked").await;
    // 10. See who did it.
    go(&browser, ["g", "a"], "/audit").await;
    type_into(&browser, "#action", "host.revoke").await;
    browser.press(&["Enter"]).await;
    browser.has_text("#audit tbody", "ada").await;
}

/// Begins `login --browser`; gives what waits, the page, and the code that it has printed.
async fn login_by_browser(fleet: &Fleet) -> (tokio::process::Child, String, String) {
    use tokio::io::AsyncBufReadExt as _;
    let line = ["login", "--browser", "--server", &fleet.url()];
    let mut child = fleet.plain_spawn(&line, &[]);
    let mut lines = tokio::io::BufReader::new(child.stderr.take().expect("it is piped")).lines();
    let first = lines.next_line().await.expect("a line").expect("an address");
    let address = first.split_whitespace().last().expect("an address");
    let (_, code) = address.split_once("?code=").expect("a code");
    let page = format!("{}/device", fleet.url());
    // Where it goes on saying what comes of it.
    child.stderr = Some(lines.into_inner().into_inner());
    (child, page, code.to_owned())
}

#[tokio::test]
async fn a_command_line_is_signed_in_by_a_person_who_compares_its_code() {
    let fleet = Fleet::start(BINARY).await;
    let browser = Browser::start().await;
    first(&fleet, &browser, "ada").await;
    sign_out(&browser).await;
    let line = ["login", "--browser"];

    // Whoever is not signed in does that first, and comes back to the code.
    let (child, page, code) = login_by_browser(&fleet).await;
    browser.open(&format!("{page}?code={code}")).await;
    browser.has("[data-sign-in]").await;
    browser.fill("#name", "ada").await;
    browser.fill("#password", PASSWORD).await;
    browser.press(&["Enter"]).await;
    browser.has("[data-device-found]:not([hidden])").await;
    assert_eq!(browser.text("[data-device-code]").await, code);
    browser.has_text("[data-device-address]", "127.0.0.1").await;
    assert_eq!(
        browser.eval("return location.search", &[]).await,
        "",
        "the code leaves the address"
    );
    browser.screens("device-found").await;
    browser.size(360, 780).await;
    browser.screens("device-found-narrow").await;
    browser.size(1440, 900).await;
    browser.click("[data-device-approve]").await;
    browser.has_text("[data-device-said]", "Confirmed").await;
    browser.screens("device-done").await;
    let signed_in = fleet.finish(child, &line, b"").await.ok();
    assert!(signed_in.stderr.contains("signed in as ada, admin"), "{}", signed_in.stderr);
    drop(fleet.plain(&["hosts", "list"]).await.ok());
    browser.open(&format!("{}/settings/sessions", fleet.url())).await;
    browser.has_text("main", " on ").await;

    // Typed, and refused.
    let (child, page, code) = login_by_browser(&fleet).await;
    browser.open(&page).await;
    browser.screens("device").await;
    browser.fill("#code", &code.to_lowercase().replace('-', " ")).await;
    browser.press(&["Enter"]).await;
    browser.click("[data-device-refuse]").await;
    browser.has_text("[data-device-said]", "Refused").await;
    let refused = fleet.finish(child, &line, b"").await.exits(4);
    assert!(refused.stderr.contains("refused in the browser"), "{}", refused.stderr);

    // A code that is used or wrong, and then too many of them.
    browser.open(&page).await;
    let mut tried = 0;
    loop {
        browser.fill("#code", &code).await;
        browser.press(&["Enter"]).await;
        browser.has_text("[data-problem]:not([hidden])", " ").await;
        if browser.text("[data-problem]").await.contains("too many tries") {
            break;
        }
        browser.has_text("[data-problem]", "no command line waits").await;
        if tried == 0 {
            browser.screens("device-wrong").await;
        }
        browser.eval("document.querySelector('[data-problem]').textContent = ''", &[]).await;
        tried += 1;
        assert!(tried < 20, "nobody is slowed down");
    }
    browser.open(&format!("{}/audit", fleet.url())).await;
    for action in ["session.approve", "session.deny", "session.code_refused"] {
        browser.has_text("#audit", action).await;
    }
}
