//! Checks of jobs, tokens, secrets, notices and maintenances.

use fw_proto::api::{ActorKind, Hook, JobSource, Scope, Verdict};
use fw_proto::{MaintenanceId, Span, Timestamp};

use super::fixture::{at, fire, job, run_id};
use crate::{
    Changed, HeldToken, NewMaintenance, NewNotice, Retention, Store, StoredJob, StoredMaintenance,
    StoredWindows, TokenRow,
};

pub(super) async fn a_pause_outlives_a_reload(store: Store) {
    let first = StoredJob {
        name: job("tick"),
        source: JobSource::File("a.yaml".to_owned()),
        text: "run: one".to_owned(),
        paused: false,
    };
    store.put_job(first.clone()).await.expect("put");
    assert_eq!(store.set_paused(&first.name, true).await.expect("set"), Changed::Done);
    assert_eq!(store.set_paused(&job("other"), true).await.expect("set"), Changed::Unknown);
    let other = JobSource::Dialect { name: "other".to_owned(), file: "b.yaml".to_owned() };
    for source in [other, JobSource::Api] {
        let second = StoredJob { source, text: "run: two".to_owned(), ..first.clone() };
        store.put_job(second.clone()).await.expect("put");
        let expected = StoredJob { paused: true, ..second };
        assert_eq!(store.jobs().await.expect("read"), [expected]);
    }

    store.record_fires(vec![fire("tick", 0, Verdict::Ran, None)]).await.expect("a fire");
    assert!(store.remove_job(&first.name).await.expect("remove"));
    assert!(!store.remove_job(&first.name).await.expect("remove"));
    assert_eq!(store.jobs().await.expect("read"), []);
    assert!(store.last_fires().await.expect("read").is_empty());
}

pub(super) async fn a_token_is_found_by_its_hash(store: Store) {
    let token = |name: &str, hash| TokenRow {
        name: name.to_owned(),
        sha256: [hash; 32],
        created_at: at(0),
        expires_at: Some(at(60)),
        scopes: [Scope::Run, Scope::Dangerous].into(),
        selector: Some("web*".to_owned()),
        user: None,
    };
    assert_eq!(store.put_token(token("ci", 1)).await.expect("put"), Changed::Done);
    assert_eq!(store.put_token(token("ci", 2)).await.expect("put"), Changed::Taken);
    assert_eq!(
        store.token_by_hash(&[1; 32]).await.expect("read"),
        Some(HeldToken { row: token("ci", 1), owner: None })
    );
    assert_eq!(store.token_by_hash(&[2; 32]).await.expect("read"), None);
    for used in [100, 130, 161] {
        store.touch_token("ci", at(used)).await.expect("touch");
    }
    let listed = store.tokens().await.expect("read");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].last_used, Some(at(161)));
    assert!(store.remove_token("ci").await.expect("remove"));
    assert!(!store.remove_token("ci").await.expect("remove"));
}

pub(super) async fn a_secret_is_replaced_and_removed(store: Store) {
    store.put_secret("db", vec![1, 2], at(0)).await.expect("put");
    store.put_secret("db", vec![3], at(9)).await.expect("put");
    assert_eq!(store.secret("db").await.expect("read"), Some(vec![3]));
    assert_eq!(store.secret("other").await.expect("read"), None);
    let listed = store.secrets().await.expect("read");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].updated_at, at(9));
    assert!(store.remove_secret("db").await.expect("remove"));
    assert!(!store.remove_secret("db").await.expect("remove"));
}

pub(super) async fn a_notice_is_sent_once(store: Store) {
    let notice = |url: &str| NewNotice {
        run: run_id(1),
        job: job("tick"),
        hook: Hook::Webhook(url.to_owned()),
        body: "{}".to_owned(),
        next_at: at(0),
    };
    let put = async |url: &str| store.put_notice(notice(url)).await.expect("put");
    let due = async |secs| store.due_notices(at(secs)).await.expect("read");
    put("http://a").await;
    put("http://b").await;
    put("http://a").await;
    assert_eq!(due(-1).await, []);
    let [first, second] = due(0).await.try_into().expect("two are due");
    assert_eq!((&first.hook, first.attempts), (&notice("http://a").hook, 0));
    store.notice_done(first.id).await.expect("done");
    store.notice_failed(second.id, at(30)).await.expect("failed");
    put("http://a").await;
    assert_eq!(due(29).await, []);
    let [again] = due(30).await.try_into().expect("one is due");
    assert_eq!((again.id, again.attempts), (second.id, 1));
}

pub(super) async fn a_maintenance_is_kept_with_its_end_and_then_swept(store: Store) {
    let now = store.now();
    let past = |secs: i64| Timestamp::from_millis(now.as_millis() - secs * 1000);
    let new = |selector: Option<&str>, until| NewMaintenance {
        selector: selector.map(str::to_owned),
        reason: "new disks".to_owned(),
        message: selector.map(|_| "back at noon".to_owned()),
        by: "alice".to_owned(),
        by_kind: selector.map(|_| ActorKind::User),
        since: past(100),
        until,
        windows: None,
        source: None,
    };
    let (all, web) = (new(None, None), new(Some("web*"), Some(past(50))));
    let first = store.begin_maintenance(all.clone()).await.expect("begin");
    let second = store.begin_maintenance(web.clone()).await.expect("begin");
    let (token, user) = (Some(ActorKind::Token), Some(ActorKind::User));
    let end = async |id, secs, by, kind| {
        store.end_maintenance(id, past(secs), by, kind).await.expect("end")
    };
    assert!(end(first, 60, "bob", token).await);
    assert!(!end(first, 55, "carol", user).await, "it is over already");
    assert!(!end(second, 50, "carol", user).await, "it ended by itself just then");
    assert!(!end(MaintenanceId(second.0 + 1), 60, "carol", user).await);
    let kept = |id, said, ended: Option<(&str, Option<ActorKind>)>| StoredMaintenance {
        id,
        said,
        ended_by: ended.map(|(by, _)| by.to_owned()),
        ended_by_kind: ended.and_then(|(_, kind)| kind),
    };
    let bob = NewMaintenance { until: Some(past(60)), ..all.clone() };
    let listed = store.maintenances().await.expect("read");
    assert_eq!(listed, [kept(first, bob, Some(("bob", token))), kept(second, web.clone(), None)]);

    let third = store.begin_maintenance(all.clone()).await.expect("begin");
    let keep = |secs| Retention { age: Span::from_secs(secs), bytes: u64::MAX };
    assert_eq!(store.sweep(keep(55)).await.expect("sweep").rows, 1);
    let listed = store.maintenances().await.expect("read");
    assert_eq!(listed, [kept(second, web, None), kept(third, all.clone(), None)]);
    assert!(end(third, 40, "bob", user).await);
    assert_eq!(store.sweep(keep(0)).await.expect("sweep").rows, 2);
    let fourth = store.begin_maintenance(all).await.expect("begin");
    assert!(fourth > third, "an id is not used again");
}

pub(super) async fn a_maintenance_that_recurs_is_kept_with_its_source(store: Store) {
    let windows = StoredWindows {
        every: "0 2 * * sun".to_owned(),
        timezone: "Europe/Athens".to_owned(),
        lasts: Span::from_secs(7200),
    };
    let weekly = NewMaintenance {
        selector: Some("web*".to_owned()),
        reason: "patches".to_owned(),
        message: None,
        by: "alice".to_owned(),
        by_kind: Some(ActorKind::Token),
        since: at(5),
        until: None,
        windows: Some(windows),
        source: None,
    };
    let of_files = NewMaintenance {
        by: "dialect:pepper".to_owned(),
        by_kind: None,
        source: Some("pepper".to_owned()),
        windows: None,
        ..weekly.clone()
    };
    for said in [&weekly, &of_files] {
        store.begin_maintenance(said.clone()).await.expect("begin");
    }
    let listed = store.maintenances().await.expect("read");
    let said: Vec<_> = listed.into_iter().map(|one| one.said).collect();
    assert_eq!(said, [weekly, of_files]);
}

pub(super) async fn it_is_known_when_a_server_was_alive(store: Store) {
    assert_eq!(store.last_alive().await.expect("read"), None);
    store.touch_alive(at(5)).await.expect("touch");
    assert_eq!(store.last_alive().await.expect("read"), Some(at(5)));
}
