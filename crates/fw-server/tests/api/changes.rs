//! Runbooks over the API: who may begin one, who may approve, and what the audit says of it.

use reqwest::header::COOKIE;
use serde_json::{Value, json};

use crate::rights::{code, someone};
use crate::server::{TestServer, answer};
use crate::sign_in::{Browser, first};

/// Waits for two people; then a person does something, and a command runs.
const DOCUMENT: &str = "---\ntitle: Move\nhosts: \"*\"\n---\n\n- [ ] Agree\n  ```text id=agree manual \
                        approve=operator,2\n  All is well.\n  ```\n\n- [ ] Tell the others\n";

/// Runs a command on all hosts, as the agent's own user.
const AS_ROOT: &str =
    "---\ntitle: Root\nhosts: \"*\"\n---\n\n```sh id=go timeout=1m undo=none\ntrue\n```\n";

fn new(source: &str) -> Value {
    json!({ "source": source })
}

async fn begin(browser: &Browser<'_>, source: &str) -> String {
    let (status, begun) = browser.send("POST", "/runbooks", new(source)).await;
    assert_eq!(status, 201, "{begun}");
    begun["id"].as_str().unwrap().to_owned()
}

/// Who it was, and what they are.
fn who(of: &Value) -> (&str, &str) {
    let text = |key: &str| of[key].as_str().unwrap_or_default();
    (text("by"), text("by_kind"))
}

#[tokio::test]
async fn two_people_approve_and_neither_began_it() {
    let server = TestServer::start().await;
    server.host("web1", &[]).await;
    let admin = first(&server, "alice").await;
    let viewer = someone(&admin, "vera", "viewer").await;
    let otto = someone(&admin, "otto", "operator").await;
    let olga = someone(&admin, "olga", "operator").await;
    assert_eq!(code(&viewer.send("POST", "/runbooks", new(DOCUMENT)).await).0, 403);
    let bad = json!({ "source": "---\ninputs:\n  a: text\n---\n- [ ] x\n" });
    let refused = otto.send("POST", "/runbooks", bad).await;
    assert_eq!(code(&refused), (400, "invalid_request"));
    let id = begin(&otto, DOCUMENT).await;
    let path = |verb: &str| format!("/runbooks/{id}/{verb}");
    assert_eq!(viewer.get(&format!("/runbooks/{id}")).await.1["state"], "awaiting_approval");
    let approve = async |who: &Browser<'_>| who.send("POST", &path("approve"), json!({})).await;
    assert_eq!(approve(&viewer).await.0, 403);
    assert_eq!(code(&approve(&otto).await), (403, "forbidden"), "it is his own");
    assert_eq!(code(&server.post(&path("approve"), json!({})).await), (403, "forbidden"));
    assert_eq!(approve(&olga).await.0, 202);
    assert_eq!(code(&approve(&olga).await), (409, "conflict"), "once");
    let (status, runbook) = approve(&admin).await;
    assert_eq!(status, 202);
    assert_eq!(runbook["state"], "awaiting_person", "{runbook}");
    let steps = runbook["steps"].as_array().unwrap();
    let step = steps.iter().find(|step| step["state"] == "awaiting_person").unwrap();
    let step = step["id"].as_str().unwrap();
    let said = format!("/runbooks/{id}/steps/{step}/tick");
    assert_eq!(code(&olga.send("POST", &path("fly"), json!({})).await).0, 400);
    let (status, runbook) = olga.send("POST", &said, json!({ "note": "they know" })).await;
    assert_eq!((status, &runbook["state"]), (202, &json!("succeeded")), "{runbook}");
    assert_eq!(code(&olga.send("POST", &said, json!({})).await), (409, "conflict"));
    let listed = olga.get("/runbooks").await.1;
    let listed = &listed["items"][0];
    assert_eq!((&listed["title"], who(listed)), (&json!("Move"), ("otto", "user")));
    let steps = runbook["steps"].as_array().unwrap().iter();
    let by: Vec<_> = steps.clone().map(who).collect();
    assert_eq!(by, [("alice", "user"), ("olga", "user")]);
    let mut approvals = steps.filter_map(|step| step["gate"]["approvals"].as_array());
    let approvals: Vec<_> = approvals.next().unwrap().iter().map(who).collect();
    assert_eq!(approvals, [("olga", "user"), ("alice", "user")]);

    let audit = admin.get(&format!("/audit?subject={id}")).await.1;
    let rows: Vec<_> = audit["items"].as_array().unwrap().iter().rev().collect();
    let words: Vec<_> = rows
        .iter()
        .map(|row| format!("{} {}", row["by"].as_str().unwrap(), row["action"].as_str().unwrap()))
        .collect();
    let expected = [
        "otto runbook.begin",
        "olga runbook.approve",
        "alice runbook.approve",
        "olga runbook.tick",
    ];
    assert_eq!(words, expected, "what was refused is not there");
    assert_eq!(rows[3]["before"]["state"], "awaiting_person");
    assert_eq!(rows[3]["after"]["note"], "they know");
}

/// What cannot begin is refused when it is planned, with the same words.
#[tokio::test]
async fn a_plan_refuses_what_could_not_begin() {
    let server = TestServer::start().await;
    server.host("web1", &[]).await;
    let metric = "rollout: a\nhosts: '*'\nwaves: [100%]\ndo: {run: 'true'}\nverify: [{metric: 'errors < 1%'}]\n";
    let text = json!({ "text": metric });
    let planned = server.post("/rollouts/plan", text.clone()).await;
    assert_eq!(code(&planned), (400, "invalid_request"), "{planned:?}");
    let detail = planned.1["detail"].as_str().unwrap();
    assert!(detail.contains("line 5") && detail.contains("there are none yet"), "{detail}");
    assert_eq!(server.post("/rollouts", text).await, planned);
}

#[tokio::test]
async fn all_hosts_of_a_runbook_count_together() {
    let server = TestServer::with(|config| config.access.root_hosts = 1).await;
    for host in ["web1", "db1"] {
        server.host(host, &[]).await;
    }
    let make = async |body: Value| {
        let (status, made) = server.post("/tokens", body).await;
        assert_eq!(status, 201, "{made}");
        made["token"].as_str().unwrap().to_owned()
    };
    let post = async |token: &str, path: &str, body: Value| {
        let url = format!("{}/api/v1{path}", server.url);
        answer(server.client.post(url).bearer_auth(token).json(&body)).await
    };
    let plain = make(json!({ "name": "plain", "scopes": ["run"] })).await;
    let refused = post(&plain, "/runbooks", new(AS_ROOT)).await;
    assert_eq!(code(&refused), (403, "step_up_required"));
    let as_user = AS_ROOT.replace("id=go", "id=go as=www");
    let (status, begun) = post(&plain, "/runbooks", new(&as_user)).await;
    assert_eq!(status, 201, "{begun}");
    let id = begun["id"].as_str().unwrap();
    let shown = server.get(&format!("/runbooks/{id}")).await.1;
    let listed = &server.get("/runbooks").await.1["items"][0];
    assert_eq!((who(&shown), who(listed)), (("plain", "token"), ("plain", "token")));

    let web = json!({ "name": "web", "scopes": ["run"], "selector": "web*" });
    let web = make(web).await;
    assert_eq!(code(&post(&web, "/runbooks", new(&as_user)).await), (403, "forbidden"));
    let abort = format!("/runbooks/{id}/abort");
    assert_eq!(code(&post(&web, &abort, json!({})).await), (403, "forbidden"));
    let own = as_user.replace("hosts: \"*\"", "hosts: web1");
    assert_eq!(post(&web, "/runbooks", new(&own)).await.0, 201);
    assert_eq!(post(&plain, &abort, json!({})).await.0, 202);
}

/// The person and the token are both called admin.
#[tokio::test]
async fn pages_tell_a_token_from_a_person_of_the_same_name() {
    let server = TestServer::start().await;
    server.host("web1", &[]).await;
    let person = first(&server, "admin").await;
    let page = async |path: &str| {
        let get = server.client.get(format!("{}{path}", server.url));
        get.header(COOKIE, &person.cookie).send().await.unwrap().text().await.unwrap()
    };
    let checklist = new("- [ ] Look\n");
    let runbook = server.post("/runbooks", checklist.clone()).await.1;
    let runbook = runbook["id"].as_str().unwrap();
    let steps = server.get(&format!("/runbooks/{runbook}")).await.1["steps"].clone();
    let tick = format!("/runbooks/{runbook}/steps/{}/tick", steps[0]["id"].as_str().unwrap());
    assert_eq!(server.post(&tick, json!({})).await.0, 202);
    let text = "rollout: a\nhosts: '*'\nwaves: [100%]\ndo: {run: 'true', timeout: 1m}\non_failure: stop\n\
                approve: {before_wave: 1, by: operator, people: 1}\n";
    let (status, rollout) = server.post("/rollouts", json!({ "text": text })).await;
    assert_eq!(status, 201, "{rollout}");
    let rollout = rollout["id"].as_str().unwrap();
    assert_eq!(server.post(&format!("/rollouts/{rollout}/approve"), json!({})).await.0, 202);
    let new_maintenance = json!({ "everything": true, "reason": "x" });
    assert_eq!(person.send("POST", "/maintenances", new_maintenance).await.0, 201);
    assert_eq!(server.post("/maintenances/1/end", json!({})).await.0, 200);
    for (path, times) in [
        ("/rollouts".to_owned(), 1),
        (format!("/rollouts/{rollout}"), 2),
        ("/runbooks".to_owned(), 1),
        (format!("/runbooks/{runbook}"), 2),
        ("/maintenance".to_owned(), 1),
    ] {
        let page = page(&path).await;
        assert_eq!(page.matches("token:admin").count(), times, "{path}: {page}");
    }
    let (status, by_person) = person.send("POST", "/runbooks", checklist).await;
    assert_eq!(status, 201, "{by_person}");
    let by_person = page(&format!("/runbooks/{}", by_person["id"].as_str().unwrap())).await;
    assert!(by_person.contains(" by admin;") && !by_person.contains("token:admin"), "{by_person}");
}
