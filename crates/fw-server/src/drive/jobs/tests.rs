//! Jobs on a real store and a real hub; time moves when a test says so.

use std::os::unix::fs::PermissionsExt as _;

use fw_core::fires;
use fw_core::run::Actor;
use fw_proto::api::{
    Code, FireReason, JobSource, JobWaiting, JobsText, RunState, TaskReason, Verdict,
};
use fw_proto::{RunId, Span};

use crate::drive::world::{MINUTE, World, eventually, name};

/// A job file with these jobs, each due every minute.
pub(super) fn jobs(names: &[&str]) -> String {
    let job =
        |name: &&str| format!("  {name}: {{schedule: '@every 60s', hosts: '*', run: 'true'}}\n");
    format!("jobs:\n{}", names.iter().map(job).collect::<String>())
}

pub(super) fn one(name: &str, rest: &str) -> String {
    format!("jobs:\n  {name}: {{schedule: '@every 60s', hosts: '*', run: 'true', {rest}}}\n")
}

#[tokio::test]
async fn files_are_reloaded_and_a_bad_one_harms_nothing() {
    let world = World::with(&[("a.yaml", &jobs(&["a", "b"])), ("notes.txt", "none of ours")]).await;
    world.jobs_are(&["a", "b"]).await;
    world.write("c.yml", &jobs(&["c"]));
    world.jobs_are(&["a", "b", "c"]).await;
    world.write("a.yaml", "jobs:\n  a: {schedule: 'often', hosts: '*', run: x}\n  b: {schedule: '@every 5m', hosts: '*', run: x}\n");
    let errors = eventually("an error", async || {
        Some(world.jobs.errors().await).filter(|errors| !errors.is_empty())
    })
    .await;
    assert_eq!((errors.len(), errors[0].line, errors[0].job.as_deref()), (1, 2, Some("a")));
    let listed = world.jobs_are(&["a", "b", "c"]).await;
    assert_eq!(listed[0].spec.schedule, "@every 60s", "the last good version");
    assert_eq!(listed[0].error.as_ref(), Some(&errors[0]));
    assert_eq!((listed[1].spec.schedule.as_str(), &listed[1].error), ("@every 5m", &None));
    world.write("a.yaml", "jobs: [");
    eventually("another error", async || (world.jobs.errors().await != errors).then_some(())).await;

    let world = world.stop().await.start().await;
    let listed = world.jobs_are(&["a", "b", "c"]).await;
    assert_eq!(listed[1].spec.schedule, "@every 5m");
    assert!(listed[0].error.is_some() && listed[2].error.is_none());
    world.write("a.yaml", &jobs(&["b"]));
    world.jobs_are(&["b", "c"]).await;
    std::fs::remove_file(world.path("a.yaml")).unwrap();
    world.jobs_are(&["c"]).await;
    assert_eq!(world.jobs.errors().await, []);
}

#[tokio::test]
async fn a_name_in_two_files_is_an_error_at_both_and_the_earlier_stays() {
    let world = World::with(&[("b.yaml", &jobs(&["x"]))]).await;
    world.write("a.yaml", &one("x", "timeout: 1s"));
    let errors = eventually("two errors", async || {
        Some(world.jobs.errors().await).filter(|errors| errors.len() == 2)
    })
    .await;
    let places: Vec<_> = errors.iter().map(|error| (error.file.as_str(), error.line)).collect();
    assert_eq!(places, [("a.yaml", 2), ("b.yaml", 2)]);
    let job = world.jobs.show(&name("x")).await.unwrap();
    assert_eq!((job.source, job.spec.timeout), (JobSource::File("b.yaml".to_owned()), None));
    std::fs::remove_file(world.path("b.yaml")).unwrap();
    let moved = async || {
        let job = world.jobs.show(&name("x")).await?;
        (job.spec.timeout == Some(Span::from_secs(1))).then_some(job.source)
    };
    assert_eq!(
        eventually("the other takes over", moved).await,
        JobSource::File("a.yaml".to_owned())
    );
}

#[tokio::test]
async fn a_directory_that_is_empty_or_gone_changes_nothing_and_is_reported() {
    let world = World::with(&[("a.yaml", &jobs(&["a"]))]).await;
    let reported = async |word: &str| {
        eventually(word, async || {
            world.health.reasons().iter().any(|reason| reason.contains(word)).then_some(())
        })
        .await;
    };
    std::fs::remove_file(world.path("a.yaml")).unwrap();
    reported("no job file any more").await;
    world.jobs_are(&["a"]).await;
    assert_eq!(world.jobs.errors().await.len(), 1);
    std::fs::remove_dir(world.path("")).unwrap();
    reported("cannot be read").await;
    world.jobs_are(&["a"]).await;
    std::fs::create_dir(world.path("")).unwrap();
    world.write("b.yaml", "jobs: {}\n");
    world.jobs_are(&[]).await;
    assert_eq!(world.health.reasons(), Vec::<String>::new());
}

#[tokio::test]
async fn the_api_changes_its_own_jobs_only() {
    let world = World::with(&[("a.yaml", &jobs(&["a"]))]).await;
    world.apply(&jobs(&["b"])).await.unwrap();
    world.jobs_are(&["a", "b"]).await;
    let refused = world.apply(&jobs(&["a", "c"])).await.unwrap_err();
    assert_eq!(refused.code, Code::OwnedByFile);
    assert!(refused.detail.unwrap().contains("job a belongs to a.yaml"));
    let refused = world.apply("jobs:\n  d: {schedule: x, hosts: '*', run: y}\n  c: {schedule: '@every 60s', hosts: '*', run: y}\n").await.unwrap_err();
    assert_eq!(refused.code, Code::InvalidJob);
    let dry = JobsText { text: jobs(&["c"]), name: None, dry_run: true };
    let checked = world.jobs.apply(dry, Actor::Server).await.unwrap();
    assert!(checked.jobs[0].next_fire.is_some());
    assert_eq!(world.jobs.delete(&name("a")).await.unwrap_err().code, Code::OwnedByFile);
    assert_eq!(world.jobs.delete(&name("c")).await.unwrap_err().code, Code::NotFound);
    world.jobs_are(&["a", "b"]).await;
    // A file cannot take a job of the API either.
    world.write("b.yaml", &one("b", "timeout: 1s"));
    let errors = eventually("an error", async || {
        Some(world.jobs.errors().await).filter(|errors| !errors.is_empty())
    })
    .await;
    assert!(errors[0].message.contains("jobs apply"), "{}", errors[0].message);
    assert_eq!(world.jobs.show(&name("b")).await.unwrap().source, JobSource::Api);
    let world = world.stop().await.start().await;
    world.jobs_are(&["a", "b"]).await;
    world.jobs.delete(&name("b")).await.unwrap();
    world.jobs_are(&["a"]).await;
}

#[tokio::test]
async fn a_command_that_no_host_can_start_is_an_error_at_its_job() {
    let world = World::with(&[("a.yaml", &one("a", "cwd: here"))]).await;
    let errors = world.jobs.errors().await;
    insta::assert_snapshot!(errors[0].to_string(), @r#"
    a.yaml:2:3: cwd: "here" is not an absolute path; begin it with '/'
      a: {schedule: '@every 60s', hosts: '*', run: 'true', cwd: here}
      ^
    "#);
}

#[tokio::test]
async fn fires_run_and_overlap_is_skipped() {
    let world = World::with(&[("a.yaml", &jobs(&["a"]))]).await;
    let host = world.host("web1").await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Ran 1"]).await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Skipped Overlap 1", "Ran 1"]).await;
    let run = world.end_next(host, 0).await;
    assert_eq!(run, world.fires("a").await[1].run_id.unwrap());
    let job = world.jobs.show(&name("a")).await.unwrap();
    assert_eq!((job.last_run, job.last_failed), (Some(run), Some(false)));
    // Four minutes at once, as after a stall: the first runs, the others overlap with it.
    world.clock.shift(4 * MINUTE);
    world.ledger_is("a", &["Skipped Overlap 3", "Ran 1", "Skipped Overlap 1", "Ran 1"]).await;
    assert!(world.fires("a").await[1].lag_ms.unwrap() >= 180_000);
}

#[tokio::test]
async fn a_queued_fire_runs_after_the_one_before_even_across_a_restart() {
    let world = World::with(&[("a.yaml", &one("a", "overlap: queue"))]).await;
    let host = world.host("web1").await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Ran 1"]).await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Pending Overlap 1", "Ran 1"]).await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Pending Overlap 1", "Coalesced Overlap 1", "Ran 1"]).await;
    let world = world.stop().await.start().await;
    world.link(host).await;
    world.end_next(host, 0).await;
    world.ledger_is("a", &["Ran 1", "Coalesced Overlap 1", "Ran 1"]).await;
}

#[tokio::test]
async fn a_fire_takes_the_place_of_the_run_that_goes_on() {
    let world = World::with(&[("a.yaml", &one("a", "overlap: replace"))]).await;
    let host = world.host("web1").await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Ran 1"]).await;
    let first = world.fires("a").await[0].run_id.unwrap();
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Pending Overlap 1", "Ran 1"]).await;
    eventually("it is being cancelled", async || {
        let run = world.hub.run(first).await.unwrap()?;
        (run.summary.state == RunState::Cancelling).then_some(())
    })
    .await;
    let waiting = world.jobs.show(&name("a")).await.unwrap().waiting;
    let nominal = world.fires("a").await[0].from;
    assert_eq!(waiting, [JobWaiting::Queued { nominal }]);
    assert_eq!(world.cancel_next(host).await, first);
    world.ledger_is("a", &["Ran 1", "Ran 1"]).await;
    let run = world.store.run(first).await.unwrap().unwrap();
    assert_eq!(run.summary.state, RunState::Cancelled);
    assert_eq!(run.tasks[0].reason, Some(TaskReason::Replaced));
}

#[tokio::test]
async fn lost_fires_are_caught_up_one_after_the_other_even_across_a_restart() {
    let file = one("a", "catch_up: all, catch_up_max: 3");
    let world = World::with(&[("a.yaml", &file), ("b.yaml", "jobs: {}")]).await;
    let host = world.host("web1").await;
    let stopped = world.stop().await;
    stopped.clock.shift(60 * MINUTE);
    let world = stopped.start().await;
    world.link(host).await;
    let lost = "Missed Downtime 57";
    let (waits, done) = ("Pending Downtime 1", "CaughtUp Downtime 1");
    world.ledger_is("a", &[waits, waits, done, lost]).await;
    let JobWaiting::CatchUp { fires: 2, .. } =
        world.jobs.show(&name("a")).await.unwrap().waiting[0]
    else {
        panic!("two wait")
    };
    let first = world.fires("a").await[2].run_id;
    assert_eq!(Some(world.end_next(host, 0).await), first);
    world.ledger_is("a", &[waits, done, done, lost]).await;
    world.clock.shift(MINUTE);
    let skipped = "Skipped Overlap 1";
    world.ledger_is("a", &[skipped, waits, done, done, lost]).await;
    let world = world.stop().await.start().await;
    world.link(host).await;
    world.end_next(host, 1).await;
    world.ledger_is("a", &[skipped, done, done, done, lost]).await;
    let runs = world.fires("a").await;
    assert!(runs[1].lag_ms.unwrap() >= 60_000, "since it was due: {:?}", runs[1]);
}

#[tokio::test]
async fn what_is_caught_up_does_what_the_file_says_now() {
    let world = World::with(&[("a.yaml", &one("a", "catch_up: last"))]).await;
    let host = world.host("web1").await;
    let stopped = world.stop().await;
    stopped.clock.shift(60 * MINUTE);
    let changed = one("a", "catch_up: last, cwd: /tmp");
    std::fs::write(stopped.path("a.yaml"), changed).unwrap();
    let world = stopped.start().await;
    world.link(host).await;
    world.ledger_is("a", &["CaughtUp Downtime 1", "Missed Downtime 59"]).await;
    let run = world.end_next(host, 0).await;
    let plan = world.store.plan(run).await.unwrap().unwrap();
    assert_eq!(plan.exec.cwd.as_deref(), Some("/tmp"));
}

#[tokio::test]
async fn what_a_calendar_forbids_is_skipped_and_what_was_lost_as_well() {
    let all = "Mon, Tue, Wed, Thu, Fri, Sat, Sun";
    let text = format!("calendars: {{never: [{all}]}}\n{}", one("a", "calendar: never"));
    let world = World::with(&[("a.yaml", &text)]).await;
    world.host("web1").await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Skipped Calendar 1"]).await;
    assert_eq!(world.jobs.show(&name("a")).await.unwrap().next_fire, None);
    let stopped = world.stop().await;
    stopped.clock.shift(60 * MINUTE);
    let world = stopped.start().await;
    world.ledger_is("a", &["Skipped Calendar 61"]).await;
    world.write("a.yaml", &text.replace("Mon, Tue", "2001-01-01"));
    eventually("a calendar that changes is a job that does", async || {
        (world.jobs.show(&name("a")).await?.spec.skip_on.len() == 6).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_failed_is_tried_again_even_across_a_restart() {
    let file = one("a", "retries: 2, retry_backoff: 5s, timeout: 7s");
    let world = World::with(&[("a.yaml", &file)]).await;
    let host = world.host("web1").await;
    world.clock.shift(MINUTE);
    let first = world.end_next(host, 1).await;
    let waits = async |world: &World, of: RunId| {
        eventually("it waits", async || {
            let waiting = world.jobs.show(&name("a")).await?.waiting;
            waiting
                .iter()
                .any(|what| matches!(what, JobWaiting::Retry { run, .. } if *run == of))
                .then_some(())
        })
        .await;
    };
    waits(&world, first).await;
    let world = world.stop().await.start().await;
    world.link(host).await;
    waits(&world, first).await;
    world.clock.shift(5000);
    let second = world.end_next(host, 1).await;
    assert_eq!(second, fires::retry_id(first));
    waits(&world, second).await;
    let at = world.clock.now();
    world.clock.shift(10_000);
    let third = world.end_next(host, 1).await;
    assert!(world.clock.now() < at + Span::from_secs(40), "within the minute");
    let run = world.store.run(third).await.unwrap().unwrap().summary;
    assert_eq!((run.retry_of, run.job), (Some(second), Some(name("a"))));
    assert_eq!(run.by, "job:a");
    // None is left, so the job's next fire runs.
    world.clock.shift(MINUTE);
    let next = world.end_next(host, 0).await;
    assert_ne!(next, fires::retry_id(third));
    world.ledger_is("a", &["Ran 1", "Ran 1"]).await;
    assert_eq!(world.jobs.show(&name("a")).await.unwrap().waiting, []);
}

#[tokio::test]
async fn what_waits_to_be_tried_again_overlaps_and_ends_with_a_pause() {
    let file = one("a", "retries: 1, retry_backoff: 2h");
    let world = World::with(&[("a.yaml", &file)]).await;
    let host = world.host("web1").await;
    world.clock.shift(MINUTE);
    let first = world.end_next(host, 1).await;
    eventually("it waits", async || {
        (!world.jobs.show(&name("a")).await?.waiting.is_empty()).then_some(())
    })
    .await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Skipped Overlap 1", "Ran 1"]).await;
    world.jobs.pause(&name("a"), true).await.unwrap();
    eventually("it is given up", async || {
        let again = world.store.is_tried_again(&name("a"), first).await.unwrap();
        (!again).then_some(())
    })
    .await;
    world.jobs.pause(&name("a"), false).await.unwrap();
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Ran 1", "Skipped Overlap 1", "Ran 1"]).await;
}

#[tokio::test]
async fn a_pause_outlives_reload_and_restart() {
    let world = World::with(&[("a.yaml", &jobs(&["a"]))]).await;
    world.host("web1").await;
    assert_eq!(world.jobs.pause(&name("b"), true).await.unwrap_err().code, Code::NotFound);
    world.jobs.pause(&name("a"), true).await.unwrap();
    world.write("a.yaml", &one("a", "timeout: 9s"));
    eventually("a reload", async || {
        world.jobs.show(&name("a")).await.filter(|job| job.spec.timeout.is_some() && job.paused)
    })
    .await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Skipped Paused 1"]).await;
    let stopped = world.stop().await;
    stopped.clock.shift(10 * MINUTE);
    let world = stopped.start().await;
    world.ledger_is("a", &["Skipped Paused 11"]).await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Skipped Paused 12"]).await;
    world.jobs.pause(&name("a"), false).await.unwrap();
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Ran 1", "Skipped Paused 12"]).await;
}

#[tokio::test]
async fn what_cannot_run_is_skipped_with_the_reason() {
    let file = "jobs:\n  a: {schedule: '@every 60s', hosts: 'db*', run: 'true'}\n  b: {schedule: '@every 60s', hosts: '*', run: 'true', env: {KEY: {secret: key}}}\n";
    let world = World::with(&[("a.yaml", file)]).await;
    world.host("web1").await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Skipped NoHosts 1"]).await;
    world.ledger_is("b", &["Skipped NoSecret 1"]).await;
    let run_now = async |job: &str| world.jobs.run_now(&name(job), Actor::Server).await;
    assert_eq!(run_now("a").await.unwrap_err().code, Code::NoHosts);
    assert_eq!(run_now("b").await.unwrap_err().code, Code::NoSecret);
    assert_eq!(run_now("c").await.unwrap_err().code, Code::NotFound);
    world.store.put_secret("key", vec![1], world.clock.now()).await.unwrap();
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Skipped NoHosts 2"]).await;
    world.ledger_is("b", &["Ran 1", "Skipped NoSecret 1"]).await;
}

#[tokio::test]
async fn a_run_by_hand_stands_beside_the_schedule() {
    let world = World::with(&[("a.yaml", &one("a", "enabled: false"))]).await;
    let host = world.host("web1").await;
    let by = Actor::Token("alice".to_owned());
    let run = world.jobs.run_now(&name("a"), by).await.unwrap();
    world.ledger_is("a", &["Ran Manual 1"]).await;
    let summary = world.hub.run(run).await.unwrap().unwrap().summary;
    assert_eq!((summary.by.as_str(), summary.job), ("alice", Some(name("a"))));
    assert_eq!(world.end_next(host, 1).await, run);
    let job = world.jobs.show(&name("a")).await.unwrap();
    assert_eq!((job.last_run, job.last_failed, job.next_fire), (Some(run), Some(true), None));
}

#[tokio::test]
async fn downtime_is_accounted_for_by_what_the_job_said_then() {
    let world = World::with(&[("a.yaml", &jobs(&["a", "b"]))]).await;
    let stopped = world.stop().await;
    stopped.clock.shift(60 * MINUTE);
    std::fs::write(stopped.path("a.yaml"), jobs(&["a"]).replace("60s", "1s")).unwrap();
    let world = stopped.start().await;
    world.jobs_are(&["a"]).await;
    eventually("the ledger", async || {
        let ledger = world.ledger("a").await;
        // The new version is due each second; there is no host.
        ledger.last().is_some_and(|row| row == "Missed Downtime 60").then_some(())
    })
    .await;
    world.ledger_is("b", &["Missed Downtime 60"]).await;
}

#[tokio::test]
async fn a_clock_that_goes_back_fires_nothing_again_and_says_so() {
    let world = World::with(&[("a.yaml", &jobs(&["a"]))]).await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Skipped NoHosts 1"]).await;
    world.clock.shift(-93_000);
    let reason = eventually("a report", async || world.health.reasons().pop()).await;
    assert!(reason.starts_with("clock went back 1m 3"), "{reason}");
    assert!(reason.contains("nothing fires again until"), "{reason}");
    world.clock.shift(93_000);
    eventually("it is over", async || world.health.reasons().is_empty().then_some(())).await;
    world.ledger_is("a", &["Skipped NoHosts 1"]).await;
    world.clock.shift(10 * MINUTE);
    world.ledger_is("a", &["Missed ClockJump 10", "Skipped NoHosts 1"]).await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Skipped NoHosts 1", "Missed ClockJump 10", "Skipped NoHosts 1"]).await;
}

#[tokio::test]
async fn thousands_of_jobs_are_due_at_once() {
    let names: Vec<_> = (0..2000).map(|n| format!("j{n:04}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let world = World::with(&[("a.yaml", &jobs(&names))]).await;
    world.host("web1").await;
    world.clock.shift(MINUTE);
    for job in &names {
        world.ledger_is(job, &["Ran 1"]).await;
    }
    assert_eq!(world.hub.active().await.unwrap().len(), names.len());
}

#[tokio::test]
async fn a_fire_that_waits_for_a_job_that_is_gone_has_its_verdict() {
    let world =
        World::with(&[("a.yaml", &one("a", "overlap: queue")), ("b.yaml", "jobs: {}")]).await;
    world.host("web1").await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Ran 1"]).await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Pending Overlap 1", "Ran 1"]).await;
    let stopped = world.stop().await;
    // As if the server had died between forgetting the job and its last verdict.
    std::fs::remove_file(stopped.path("a.yaml")).unwrap();
    let store = stopped.store().await;
    store.remove_job(&name("a")).await.unwrap();
    store.close().await;
    let world = stopped.start().await;
    world.ledger_is("a", &["Skipped Changed 1", "Ran 1"]).await;
}

#[tokio::test]
async fn what_others_may_write_is_not_read_and_said() {
    let world = World::with(&[("a.yaml", &jobs(&["a"]))]).await;
    let mode = |path: &str, mode: u32| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(world.path(path), mode).unwrap();
    };
    world.write("b.yaml", &jobs(&["b"]));
    mode("b.yaml", 0o664);
    let refused = eventually("it is refused", async || {
        let errors = world.jobs.errors().await;
        errors.into_iter().find(|error| error.message.contains("others may write it"))
    });
    assert_eq!(refused.await.file, "b.yaml");
    mode("b.yaml", 0o644);
    world.jobs_are(&["a", "b"]).await;
    mode("", 0o777);
    let said = async || world.health.reasons().pop();
    let said = eventually("it is said of the directory", said).await;
    assert!(said.contains("run chmod go-w on it"), "{said}");
    mode("", 0o755);
    eventually("it is over", async || world.health.reasons().is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_link_may_lead_within_the_directory_only() {
    let world = World::with(&[("a.yaml", &jobs(&["a"]))]).await;
    std::fs::create_dir(world.path("..data")).unwrap();
    world.write("..data/b.yaml", &jobs(&["b"]));
    std::os::unix::fs::symlink("..data/b.yaml", world.path("b.yaml")).unwrap();
    world.jobs_are(&["a", "b"]).await;
    let outside = world.dir.path().join("outside.yaml");
    std::fs::write(&outside, jobs(&["c"])).unwrap();
    std::os::unix::fs::symlink(&outside, world.path("c.yaml")).unwrap();
    let errors = eventually("an error", async || {
        Some(world.jobs.errors().await).filter(|errors| !errors.is_empty())
    })
    .await;
    assert!(errors[0].message.contains("leads out of the directory"), "{}", errors[0].message);
    world.jobs_are(&["a", "b"]).await;
}

/// The four ways: an old text is read with what was not said then, and a new one says all.
#[test]
fn a_job_that_an_older_server_stored_is_read() {
    let old = r#"{"set_at":"2026-01-01T00:00:00.000Z","spec":{"schedule":"@every 60s","timezone":"UTC","hosts":"*",
        "command":{"shell":"true"},"user":null,"cwd":null,"env":{},"timeout":null,"kill_after":"10s",
        "start_within":"1m","overlap":"skip","max_parallel":null,"max_failures":null,"enabled":true,
        "on_full":"block","on_failure":[],"on_recovery":[]}}"#;
    let (job, set_at) = super::text::from_store(&name("a"), old).unwrap();
    let fresh = super::text::read("a.yaml", &jobs(&["a"])).jobs.remove(0);
    assert_eq!(job.spec, fresh.spec, "so that nothing counts as changed");
    let again =
        super::text::from_store(&name("a"), &super::text::to_store(&fresh, set_at)).unwrap();
    assert_eq!(again.0.spec, fresh.spec);
}

/// What another program's files say, in our words.
fn given(file: &str, text: &str) -> super::Given {
    let jobs = super::text::read(file, text).jobs.into_iter();
    super::Given { jobs: jobs.map(|def| (file.to_owned(), def)).collect(), ..Default::default() }
}

#[tokio::test]
async fn jobs_of_another_program_are_its_files() {
    let world = World::with(&[("a.yaml", &jobs(&["a"]))]).await;
    let taken = world.jobs.serve(given("x.yaml", &jobs(&["a", "b", "c"]))).await.unwrap();
    assert_eq!(taken, [name("a")], "a name that is there stays whose it was");
    let listed = world.jobs_are(&["a", "b", "c"]).await;
    let source = JobSource::Dialect { name: "other".to_owned(), file: "x.yaml".to_owned() };
    assert_eq!(
        (&listed[0].source, &listed[1].source),
        (&JobSource::File("a.yaml".to_owned()), &source)
    );

    // Others change it nowhere but there.
    let error = world.jobs.delete(&name("b")).await.unwrap_err();
    assert_eq!(error.code, Code::OwnedByFile);
    assert!(error.to_string().contains("x.yaml"), "{error}");
    let text = JobsText { text: jobs(&["b"]), name: None, dry_run: false };
    let error = world.jobs.apply(text, Actor::Token("t".to_owned())).await.unwrap_err();
    assert_eq!(error.code, Code::OwnedByFile);
    world.write("b.yaml", &jobs(&["b"]));
    let errors = eventually("an error", async || {
        Some(world.jobs.errors().await).filter(|errors| !errors.is_empty())
    })
    .await;
    assert_eq!((errors[0].file.as_str(), errors[0].job.as_deref()), ("b.yaml", Some("b")));
    std::fs::remove_file(world.path("b.yaml")).unwrap();

    // What is in doubt goes on; what is gone is gone.
    let mut doubt = given("x.yaml", &jobs(&[]));
    doubt.doubtful.insert(name("b"));
    world.jobs.serve(doubt).await.unwrap();
    world.jobs_are(&["a", "b"]).await;
    let mut doubt = given("y.yaml", &jobs(&["d"]));
    doubt.doubtful_files.insert("x.yaml".to_owned());
    world.jobs.serve(doubt).await.unwrap();
    world.jobs_are(&["a", "b", "d"]).await;

    // A server that starts takes only what is there then.
    let world = world.stop().await.start().await;
    world.jobs_are(&["a"]).await;
}

/// Another scheduler runs the dialect's jobs: each fire says where it would have run, and nothing begins.
#[tokio::test]
async fn in_the_shadow_fires_say_where_they_would_have_run() {
    let text = "jobs:\n  a: {schedule: '@every 60s', hosts: 'web*', run: 'true'}\n  none: {schedule: '@every 60s', hosts: 'db*', run: 'true'}\n";
    let own = "jobs:\n  own: {schedule: '@every 60s', hosts: 'web1', run: 'true'}\n";
    let world = World::with(&[("own.yaml", own)]).await.stop().await.start_in_the_shadow().await;
    world.host("web2").await;
    world.host("web1").await;
    world.jobs.serve(given("x.yaml", text)).await.unwrap();
    world.jobs_are(&["a", "none", "own"]).await;
    let error = world.jobs.run_now(&name("a"), Actor::Token("t".to_owned())).await.unwrap_err();
    assert_eq!(error.code, Code::Conflict);
    assert!(error.to_string().contains("another scheduler"), "{error}");
    for minute in 1..=3 {
        world.clock.shift(MINUTE);
        eventually("a fire", async || {
            let ledger = world.store.ledger(&name("a"), None, 10).await.unwrap().items;
            (ledger.len() == minute).then_some(())
        })
        .await;
    }
    let ledger = world.store.ledger(&name("a"), None, 10).await.unwrap().items;
    let hosts: Vec<_> = ["web1", "web2"].iter().map(|name| name.parse().unwrap()).collect();
    for fire in ledger {
        assert_eq!((fire.verdict, fire.run_id), (Verdict::Shadow, None), "nothing overlaps");
        assert_eq!(fire.hosts.as_ref(), Some(&hosts));
    }
    let skipped = world.store.ledger(&name("none"), None, 1).await.unwrap().items;
    let why = |fire: &fw_proto::api::Fire| (fire.verdict, fire.reason);
    assert_eq!(why(&skipped[0]), (Verdict::Skipped, Some(FireReason::NoHosts)));
    // Jobs of our own run as ever.
    let own = eventually("a run", async || {
        let ledger = world.store.ledger(&name("own"), None, 10).await.unwrap().items;
        ledger.into_iter().find(|fire| fire.run_id.is_some())
    })
    .await;
    assert_eq!(own.verdict, Verdict::Ran);
    let runs = world.store.runs(fw_store::RunQuery::default()).await.unwrap().items;
    assert!(runs.iter().all(|run| run.job == Some(name("own"))), "no run of another");
}
