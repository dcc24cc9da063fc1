//! Runbooks over the API: who may begin one, who may approve, and what the audit says of it.

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
    assert_eq!(listed["items"][0]["title"], "Move");

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

    let web = json!({ "name": "web", "scopes": ["run"], "selector": "web*" });
    let web = make(web).await;
    assert_eq!(code(&post(&web, "/runbooks", new(&as_user)).await), (403, "forbidden"));
    let abort = format!("/runbooks/{id}/abort");
    assert_eq!(code(&post(&web, &abort, json!({})).await), (403, "forbidden"));
    let own = as_user.replace("hosts: \"*\"", "hosts: web1");
    assert_eq!(post(&web, "/runbooks", new(&own)).await.0, 201);
    assert_eq!(post(&plain, &abort, json!({})).await.0, 202);
}
