//! Rollouts and runbooks in a real browser: planned, begun, approved, ticked and taken back by a person who looks at a
//! page that stays true by itself; what a document says is text; all of it passes axe in both themes, wide and narrow.

use fw_testkit::browser::Browser;
use fw_testkit::door::Door;
use fw_testkit::fleet::Fleet;

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

/// Presses a button that asks whether one is sure, and says yes.
async fn do_it(browser: &Browser, button: &str) {
    browser.click(button).await;
    browser.click("#confirm [data-confirm-yes]").await;
}

/// A picture and axe in both themes, wide and narrow, and nothing cut off at the side.
async fn screens(browser: &Browser, name: &str) {
    browser.screens(&format!("{name}-wide")).await;
    browser.size(360, 780).await;
    browser.screens(&format!("{name}-narrow")).await;
    let fits = "return document.documentElement.scrollWidth <= innerWidth";
    assert_eq!(browser.eval(fits, &[]).await, true, "{name} fits");
    browser.size(1280, 900).await;
}

async fn at(browser: &Browser, door: &Door, path: &str) {
    browser.open(&format!("{}{path}", door.url())).await;
    browser.has("main h1").await;
}

#[tokio::test]
async fn a_rollout_is_planned_begun_approved_and_taken_back_on_its_page() {
    let fleet = Fleet::start(BINARY).await;
    let (_web1, _web2) = (fleet.agent("web1").await, fleet.agent("web2").await);
    let door = fleet.door().await;
    let browser = Browser::start().await;
    at(&browser, &door, "/rollouts").await;
    browser.has("main .empty").await;
    screens(&browser, "rollouts-empty").await;
    let place = fleet.scratch().display().to_string();
    let text = format!(
        "rollout: conf\nhosts: 'web*'\nwaves: [1, 100%]\ndo: {{run: 'echo new > {place}/conf-$HOSTNAME-new', timeout: 30s}}\n\
         undo: {{run: 'rm -f {place}/conf-*'}}\napprove: {{before_wave: 2, by: operator, people: 1}}\non_failure: undo\n"
    );
    at(&browser, &door, "/rollouts/new").await;
    let put = "document.querySelector('#text').value = arguments[0]";
    browser.eval(put, &[text.clone().into()]).await;
    browser.click("[data-plan]").await;
    browser.has_text("[data-plan-of]", "web2").await;
    screens(&browser, "rollout-plan").await;
    browser.click("[data-start]").await;
    browser.has_text("#change-head", "Waits for approval").await;
    browser.has_text("#change-waves", "web1").await;
    screens(&browser, "rollout-gate").await;
    at(&browser, &door, "/").await;
    browser.has_text("#overview", "Waits for approval").await;
    browser.click("#overview a[href^='/rollouts/']").await;
    browser.has_text("#change-head", "Waits for approval").await;
    do_it(&browser, "[data-api$='/approve']").await;
    // Nobody loads the page again.
    browser.has_text("#change-head", "Succeeded").await;
    screens(&browser, "rollout").await;
    do_it(&browser, "[data-api$='/undo']").await;
    browser.has_text("#change-head", "Taken back").await;
    browser.has_no("[data-api$='/undo']").await;
    at(&browser, &door, "/rollouts").await;
    browser.has_text("#rollouts", "conf").await;
    screens(&browser, "rollouts").await;
    assert_eq!(browser.console().await, Vec::<String>::new());
}

const RUNBOOK: &str = "---
hosts: web1
---
# Move <script>hacked = 1</script>

Some *words*, <img src=x onerror=hacked=1> and [a link](javascript:hacked=1).

- [ ] Look at the dashboard
- [ ] Write it
  ```sh id=write timeout=30s undo=none
  echo written
  ```

```sh
echo asked
```
";

#[tokio::test]
async fn a_runbook_is_a_document_that_is_alive() {
    let fleet = Fleet::start(BINARY).await;
    let _web1 = fleet.agent("web1").await;
    let door = fleet.door().await;
    let browser = Browser::start().await;
    at(&browser, &door, "/runbooks").await;
    browser.has("main .empty").await;
    screens(&browser, "runbooks-empty").await;
    at(&browser, &door, "/runbooks/new").await;
    screens(&browser, "runbook-new").await;
    let put = "document.querySelector('#source').value = arguments[0]";
    browser.eval(put, &[RUNBOOK.into()]).await;
    browser.focus("#hosts").await;
    browser.press(&["Enter"]).await;
    browser.has_text("#change-head", "Waits for a person").await;
    browser.has_text("#document", "<img src=x onerror=hacked=1>").await;
    browser.has_no("#document img, #document script, #document a").await;
    screens(&browser, "runbook-waits").await;
    browser.click("#document [data-api$='/tick']").await;
    browser.has_text("#step-write", "Done").await;
    browser.click("#document [data-api$='/confirm']").await;
    browser.has_text("#change-head", "Succeeded").await;
    screens(&browser, "runbook").await;
    browser.click("#step-write a").await;
    browser.has_text("log-view", "written").await;
    assert_eq!(browser.eval("return typeof hacked", &[]).await, "undefined");
    at(&browser, &door, "/runbooks").await;
    browser.has_text("#runbooks", "Move").await;
    screens(&browser, "runbooks").await;
    assert_eq!(browser.console().await, Vec::<String>::new());
}
