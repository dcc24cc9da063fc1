//! Command lines that a person signs in with a browser.

use serde_json::{Value, json};

use crate::rights::{code, someone};
use crate::server::{TestServer, problem};
use crate::sign_in::{Browser, first, open};

/// Begins to wait; gives the secret and the code.
async fn begin(server: &TestServer) -> (Value, Value) {
    let ((status, begun), _) = open(server, "/session/device", json!({ "host": "laptop" })).await;
    assert_eq!((status, &begun["expires_in"]), (200, &json!("10m")), "{begun}");
    let (secret, code) = (json!({ "secret": begun["secret"] }), json!({ "code": begun["code"] }));
    (secret, code)
}

async fn ask<'s>(server: &'s TestServer, secret: &Value) -> ((u16, Value), Browser<'s>) {
    open(server, "/session/device/answer", secret.clone()).await
}

/// What the audit says of signing in, the newest first.
async fn noted(admin: &Browser<'_>) -> Vec<String> {
    let (_, audit) = admin.get("/audit?limit=100").await;
    let entries = audit["items"].as_array().unwrap();
    let actions = entries.iter().map(|entry| entry["action"].as_str().unwrap().to_owned());
    actions.filter(|action| action.starts_with("session.")).collect()
}

#[tokio::test]
async fn a_person_says_yes_and_the_command_line_is_signed_in_once() {
    let server = TestServer::start().await;
    let alice = first(&server, "alice").await;
    let vera = someone(&alice, "vera", "viewer").await;
    let (secret, code) = begin(&server).await;
    let ((status, waits), none) = ask(&server, &secret).await;
    assert_eq!((status, &waits["state"], none.cookie.as_str()), (200, &json!("waiting"), ""));
    let (status, shown) = vera.send("POST", "/session/device/show", code.clone()).await;
    assert_eq!(
        (status, &shown["host"], &shown["address"]),
        (200, &json!("laptop"), &json!("127.0.0.1"))
    );
    assert_eq!(vera.send("POST", "/session/device/approve", code.clone()).await.0, 204);
    assert_eq!(vera.send("POST", "/session/device/approve", code.clone()).await.0, 404);
    let ((status, answer), cli) = ask(&server, &secret).await;
    assert_eq!((status, &answer["state"]), (200, &json!("signed_in")), "{answer}");
    assert_eq!(answer["me"]["name"], "vera");
    // The proof was given in the browser, and counts there alone.
    let (_, me) = cli.get("/session").await;
    assert_eq!((&me["role"], &me["stepped_up_until"]), (&json!("viewer"), &Value::Null));
    let password = json!({ "password": "another horse battery" });
    let refused = cli.send("POST", "/session/password", password).await;
    assert_eq!((refused.0, &refused.1["code"]), (403, &json!("step_up_required")));
    let (_, sessions) = cli.get("/sessions").await;
    assert!(sessions[0]["agent"].as_str().unwrap().ends_with(" on laptop"), "{sessions}");
    assert_eq!(ask(&server, &secret).await.0.0, 404);
    // The second yes found nobody who waits.
    let actions = ["session.begin", "session.code_refused", "session.approve"];
    assert_eq!(noted(&alice).await[..3], actions);
    let (_, audit) = alice.get("/audit?limit=100").await;
    let kept = audit.to_string();
    for text in [&secret["secret"], &code["code"]] {
        assert!(!kept.contains(text.as_str().unwrap()), "{kept}");
    }
}

#[tokio::test]
async fn a_person_says_no() {
    let server = TestServer::start().await;
    let alice = first(&server, "alice").await;
    let (secret, code) = begin(&server).await;
    assert_eq!(alice.send("POST", "/session/device/refuse", code).await.0, 204);
    let ((status, answer), cli) = ask(&server, &secret).await;
    assert_eq!((status, &answer["state"], cli.cookie.as_str()), (200, &json!("refused"), ""));
    assert_eq!(ask(&server, &secret).await.0.0, 404);
    assert_eq!(noted(&alice).await[0], "session.deny");
}

#[tokio::test]
async fn what_nobody_confirmed_in_time_is_over() {
    let server = TestServer::with(|config| config.device_life = fw_proto::Span::ZERO).await;
    let alice = first(&server, "alice").await;
    let ((_, begun), _) = open(&server, "/session/device", json!({ "host": "laptop" })).await;
    let over = ask(&server, &json!({ "secret": begun["secret"] })).await.0;
    insta::assert_snapshot!(problem(&over), @"
    404 not_found: this sign-in is over
    nobody confirmed it in time, it was used, or the server was started again; begin anew with `fleetwright login`
    ");
    let gone =
        alice.send("POST", "/session/device/approve", json!({ "code": begun["code"] })).await;
    insta::assert_snapshot!(problem(&gone), @"
    404 not_found: no command line waits with this code
    compare it with the terminal; a code is good for ten minutes and once, and gone when the server was started again
    ");
}

#[tokio::test]
async fn whoever_was_signed_out_meanwhile_signs_nothing_in() {
    let server = TestServer::start().await;
    let alice = first(&server, "alice").await;
    let vera = someone(&alice, "vera", "viewer").await;
    let (secret, code) = begin(&server).await;
    assert_eq!(vera.send("POST", "/session/device/approve", code).await.0, 204);
    assert_eq!(vera.send("DELETE", "/session", json!({})).await.0, 204);
    let ((status, _), cli) = ask(&server, &secret).await;
    assert_eq!((status, cli.cookie.as_str()), (404, ""));
}

#[tokio::test]
async fn a_yes_takes_a_fresh_proof_and_a_person() {
    let server = TestServer::with(|config| config.access.fresh = fw_proto::Span::ZERO).await;
    let alice = first(&server, "alice").await;
    let (secret, shown) = begin(&server).await;
    let refused = alice.send("POST", "/session/device/approve", shown.clone()).await;
    assert_eq!(code(&refused), (403, "step_up_required"));
    let token = server.post("/session/device/approve", shown).await;
    assert_eq!(token.0, 400, "{}", token.1);
    assert_eq!(ask(&server, &secret).await.0.1["state"], "waiting");
}

#[tokio::test]
async fn codes_are_not_guessed() {
    let server = TestServer::start().await;
    let alice = first(&server, "alice").await;
    let (_, right) = begin(&server).await;
    for typed in ["BCDF", "AEIO-UAEI"] {
        let refused = alice.send("POST", "/session/device/show", json!({ "code": typed })).await;
        assert_eq!(refused.0, 400, "{}", refused.1);
    }
    // The delay grows, so however slow this goes, at some time even the right one comes too soon.
    let wrong = json!({ "code": "BCDF-GHJK" });
    let mut tried = 0;
    let slow = loop {
        let refused = alice.send("POST", "/session/device/approve", wrong.clone()).await;
        let looked = alice.send("POST", "/session/device/show", right.clone()).await;
        if looked.0 != 200 {
            break looked;
        }
        assert_eq!(refused.0, 404, "{}", refused.1);
        tried += 1;
        assert!(tried < 20, "nobody is slowed down");
    };
    assert_eq!(code(&slow), (429, "rate_limited"));
    assert!(tried >= 4, "{tried}");
    assert!(noted(&alice).await.contains(&"session.code_refused".to_owned()));
}

#[tokio::test]
async fn only_so_many_wait_for_one_address() {
    let server = TestServer::start().await;
    for _ in 0..10 {
        drop(begin(&server).await);
    }
    let ((status, full), _) = open(&server, "/session/device", json!({ "host": "laptop" })).await;
    insta::assert_snapshot!(problem(&(status, full)), @"
    429 rate_limited: too many command lines wait to be signed in
    answer those that wait, or wait until they are over; `fleetwright login --no-browser` asks for the password instead
    ");
    for host in ["", "a\nb", &"x".repeat(65)] {
        let (refused, _) = open(&server, "/session/device", json!({ "host": host })).await;
        assert_eq!(refused.0, 400, "{host}");
    }
}
