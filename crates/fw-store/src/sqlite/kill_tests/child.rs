//! The child: works on the store of its directory until it is killed.

use std::convert::Infallible;
use std::io::Write as _;
use std::path::Path;

use fw_proto::{PublicKey, Timestamp};
use fw_rt::Clock;
use tokio::task::JoinSet;

use super::{SCENES, Scene, script};
use crate::conformance::fixture::{at, chunk, enrolment, host_id, invite, task};
use crate::sqlite::again::inside;
use crate::{Enrolled, Error, Retention, Store};

/// Turns of each writer in one opening of the store; in [`Scene::Reopen`] fewer.
const TURNS: u32 = 100_000;

/// Does its work only in the process that is to be killed.
#[tokio::test]
async fn the_child() {
    let Some(dir) = inside() else { return };
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let (scene, life) = line.trim().split_once(' ').unwrap();
    let scene = SCENES[scene.parse::<usize>().unwrap()];
    let Err(error) = work(&dir, scene, life.parse().unwrap()).await;
    say(&format!("broken: {error:?}"));
}

async fn work(dir: &Path, scene: Scene, life: u64) -> Result<Infallible, Error> {
    let mut begin = 0;
    let turns = if scene == Scene::Reopen { 3 } else { TURNS };
    loop {
        let store = Store::open(dir, Clock::system()).await?;
        say(&format!("epoch {}", store.epoch().0));
        let mut works = JoinSet::new();
        for writer in 0..script::WRITERS {
            let store = store.clone();
            works.spawn(async move { runs(&store, life, writer, begin..begin + turns).await });
        }
        let store_of_hosts = store.clone();
        works.spawn(async move { hosts(&store_of_hosts, life, begin..begin + turns).await });
        let (beside, dir) = (store.clone(), dir.to_owned());
        works.spawn(async move { scene_beside(&beside, &dir, scene, life).await });
        while let Some(done) = works.join_next().await {
            done.unwrap()?;
        }
        store.close().await;
        begin += turns;
    }
}

async fn scene_beside(store: &Store, dir: &Path, scene: Scene, life: u64) -> Result<(), Error> {
    match scene {
        Scene::Write | Scene::Reopen => Ok(()),
        Scene::Sweep => sweeps(store, life).await,
        Scene::Backup => loop {
            store.backup(&dir.join("backups/one.tar")).await?;
            say("backup");
        },
    }
}

/// Pairs of runs: each step of both in one commit; the output before the end that counts it.
async fn runs(
    store: &Store,
    life: u64,
    writer: u32,
    turns: std::ops::Range<u32>,
) -> Result<(), Error> {
    for turn in turns {
        let first = script::pair(life, writer, turn);
        let mut stories = [first, first + 1].map(script::begun);
        for step in 1..=script::last_step(first) {
            if step == script::STEPS {
                output(store, first).await?;
                output(store, first + 1).await?;
            }
            let mut appends = Vec::new();
            for story in &mut stories {
                if step > 1 {
                    *story = script::goes_on(story.clone(), step);
                }
                let mut append = story.append();
                append.fire = (step == 1).then(|| script::fire_of(story.run.id.0.as_u128()));
                appends.push(append);
            }
            store.commit(appends).await?;
            say(&format!("run {first} {step}"));
        }
        store.record_fires(script::missed(life, writer, turn)).await?;
        say(&format!("missed {writer} {}", script::instant(life, turn)));
    }
    Ok(())
}

async fn output(store: &Store, run: u128) -> Result<(), Error> {
    let (text, ends) = script::output(run);
    let mut from = 0;
    for end in ends {
        let durable = store.append_chunk(chunk(task(run), from as u64, &text[from..end])).await?;
        say(&format!("output {run} {}", durable.stdout));
        from = end;
    }
    Ok(())
}

async fn hosts(store: &Store, life: u64, turns: std::ops::Range<u32>) -> Result<(), Error> {
    for turn in turns {
        let number = script::host_number(life, turn);
        let mut key = [0; 32];
        key[..16].copy_from_slice(&number.to_le_bytes());
        store.invite(crate::Invite { secret_sha256: key, ..invite(0, 1) }).await?;
        let one = crate::Enrolment {
            secret_sha256: key,
            id: host_id(number),
            key: PublicKey(key),
            ..enrolment(0, 0, &format!("host{number}"))
        };
        let enrolled = store.enrol(one).await?;
        assert!(matches!(enrolled, Enrolled::Done(_)), "{enrolled:?}");
        say(&format!("host {number} 0"));
        let seen = at(i64::from(turn));
        store.seen(vec![(host_id(number), seen)]).await?;
        say(&format!("host {number} {}", seen.as_millis()));
    }
    Ok(())
}

/// Writes runs that ended long ago, with output, and deletes them again.
async fn sweeps(store: &Store, life: u64) -> Result<(), Error> {
    let keep = Retention { age: script::AGE, bytes: u64::MAX };
    for turn in 0.. {
        let mut story = script::old(life, turn);
        let run = story.run.id.0.as_u128();
        output(store, run).await?;
        store.commit(vec![story.append()]).await?;
        if turn % 4 == 3 {
            store.sweep(keep).await?;
            say("swept");
        }
    }
    Ok(())
}

fn say(what: &str) {
    let line = format!("\nack {what} .\n");
    let mut out = std::io::stdout().lock();
    // The parent has killed us when this does not work.
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).ok();
}

/// Old runs end before all others begin.
#[test]
fn old_runs_are_old() {
    let long_ago = script::old(0, 0).run.finished_at.unwrap();
    assert!(long_ago < at(0) - script::AGE && long_ago > Timestamp::EPOCH);
}
