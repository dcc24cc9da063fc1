//! Notices from a run to an endpoint.

use std::sync::Mutex;

use fw_core::run::Actor;
use fw_proto::{HostId, api};

use super::send::LONGEST_WAIT;
use super::*;
use crate::drive::world::{World, eventually};

/// An endpoint that answers with these status codes in turn, then 200; and what it was sent.
async fn endpoint(codes: &[u16]) -> (String, Arc<Mutex<Vec<api::Run>>>) {
    let got = Arc::new(Mutex::new(Vec::new()));
    let (answers, taken) = (codes.to_vec(), Arc::clone(&got));
    let take = async move |axum::Json(run): axum::Json<api::Run>| {
        let mut taken = taken.lock().unwrap();
        taken.push(run);
        let code = answers.get(taken.len() - 1).copied().unwrap_or(200);
        let location = [(axum::http::header::LOCATION, "http://localhost:1/")];
        (axum::http::StatusCode::from_u16(code).unwrap(), location)
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/hook", axum::routing::post(take));
    let serve = async move { axum::serve(listener, router).await };
    Tasks::new().spawn("endpoint", serve);
    (url, got)
}

async fn start_notices(world: &World) {
    let World { store, live, clock, jobs, .. } = world;
    let parts = Parts {
        store: store.clone(),
        live: live.clone(),
        clock: clock.clone(),
        jobs: jobs.clone(),
    };
    start(parts, &world.tasks).await.unwrap();
}

fn job(url: &str) -> String {
    format!(
        "jobs:\n  a: {{schedule: '@every 60s', hosts: '*', run: x, on_failure: {{webhook: '{url}?failed'}}, \
         on_recovery: {{webhook: '{url}?recovered'}}}}\n"
    )
}

async fn run(world: &World, host: HostId, exit_code: i32) -> RunId {
    let run = world.jobs.run_now(&"a".parse().unwrap(), Actor::Server).await.unwrap();
    assert_eq!(world.end_next(host, exit_code).await, run);
    run
}

async fn told(got: &Mutex<Vec<api::Run>>, runs: &[RunId]) {
    eventually(&format!("{runs:?} are told"), async || {
        let got = got.lock().unwrap();
        got.iter().map(|run| run.summary.id).eq(runs.iter().copied()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn failure_and_recovery_are_told_and_tried_again() {
    // The redirect leads elsewhere, so it is no answer.
    let (url, got) = endpoint(&[500, 307]).await;
    let world = World::with(&[("a.yaml", &job(&url))]).await;
    start_notices(&world).await;
    let host = world.host("web1").await;
    run(&world, host, 0).await;
    let failed = run(&world, host, 1).await;
    told(&got, &[failed]).await;
    let failures = async |count| {
        eventually("it is tried again later", async || {
            let due = world.store.due_notices(world.clock.now() + LONGEST_WAIT).await.unwrap();
            due.first().is_some_and(|notice| notice.attempts == count).then_some(())
        })
        .await;
    };
    failures(1).await;
    world.clock.shift(15_000);
    told(&got, &[failed, failed]).await;
    failures(2).await;
    world.clock.shift(25_000);
    told(&got, &[failed, failed, failed]).await;
    let recovered = run(&world, host, 0).await;
    told(&got, &[failed, failed, failed, recovered]).await;
    run(&world, host, 0).await;
    let again = run(&world, host, 1).await;
    told(&got, &[failed, failed, failed, recovered, again]).await;
    assert_eq!(got.lock().unwrap()[0].tasks[0].exit_code, Some(1));
}

/// The job's schedule begins a run, which ends so.
async fn fire(world: &World, host: HostId, exit_code: i32) -> RunId {
    world.clock.shift(60_000);
    world.end_next(host, exit_code).await
}

#[tokio::test]
async fn a_failure_is_told_when_it_is_not_tried_again() {
    let (url, got) = endpoint(&[]).await;
    let text = job(&url).replace("run: x,", "run: x, retries: 1, retry_backoff: 5s,");
    let world = World::with(&[("a.yaml", &text)]).await;
    start_notices(&world).await;
    let host = world.host("web1").await;
    fire(&world, host, 1).await;
    eventually("it waits", async || world.store.retries().await.unwrap().first().map(drop)).await;
    world.clock.shift(5000);
    // Nobody was told that it failed, so nobody is that it recovered.
    world.end_next(host, 0).await;
    fire(&world, host, 1).await;
    eventually("it waits", async || world.store.retries().await.unwrap().first().map(drop)).await;
    world.clock.shift(5000);
    let last = world.end_next(host, 1).await;
    told(&got, &[last]).await;
    let recovered = fire(&world, host, 0).await;
    told(&got, &[last, recovered]).await;
    let given_up = fire(&world, host, 1).await;
    eventually("it waits", async || {
        (!world.jobs.show(&"a".parse().unwrap()).await?.waiting.is_empty()).then_some(())
    })
    .await;
    world.jobs.pause(&"a".parse().unwrap(), true).await.unwrap();
    told(&got, &[last, recovered, given_up]).await;
}

#[tokio::test]
async fn an_end_that_nobody_heard_is_told_once_after_the_next_start() {
    let (url, got) = endpoint(&[]).await;
    let world = World::with(&[("a.yaml", &job(&url))]).await;
    world.store.touch_alive(world.clock.now()).await.unwrap();
    let host = world.host("web1").await;
    let unheard = run(&world, host, 1).await;
    let world = world.stop().await.start().await;
    start_notices(&world).await;
    told(&got, &[unheard]).await;
    eventually("it is noted", async || {
        world
            .store
            .due_notices(world.clock.now() + LONGEST_WAIT)
            .await
            .unwrap()
            .is_empty()
            .then_some(())
    })
    .await;
    let world = world.stop().await.start().await;
    start_notices(&world).await;
    world.link(host).await;
    let heard = run(&world, host, 1).await;
    told(&got, &[unheard, heard]).await;
}
