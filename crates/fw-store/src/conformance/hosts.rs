//! Checks of hosts and invitations.

use std::sync::Arc;

use fw_proto::PublicKey;
use fw_proto::api::LabelChange;
use fw_proto::frame::PolicyMode;

use super::fixture::{at, enrolment, host_id, invite};
use crate::{Changed, Enrolled, HostRow, Invite, Standing, Store};

async fn enrolled(store: &Store, n: u8, name: &str) -> HostRow {
    store.invite(invite(100 + n, 1)).await.expect("an invitation");
    match store.enrol(enrolment(100 + n, n, name)).await.expect("an answer") {
        Enrolled::Done(host) => host,
        refused @ (Enrolled::NameTaken | Enrolled::BadInvitation | Enrolled::KeyRefused(_)) => {
            panic!("{name} was not let in: {refused:?}")
        }
    }
}

pub(super) async fn an_invitation_lets_in_as_many_as_it_says(store: Store) {
    store.invite(invite(1, 2)).await.expect("an invitation");
    let mut answers = Vec::new();
    for (n, name) in [(1, "a"), (2, "a"), (2, "b"), (3, "c")] {
        answers.push(store.enrol(enrolment(1, n, name)).await.expect("an answer"));
    }
    let [Enrolled::Done(a), Enrolled::NameTaken, Enrolled::Done(b), Enrolled::BadInvitation] =
        answers.as_slice()
    else {
        panic!("{answers:?}")
    };
    assert_eq!((a.id, b.id), (host_id(1), host_id(2)));
    assert_eq!(a.labels["stage"], "canary");
    assert_eq!(a.standing, Standing::Active);
    let wrong = store.enrol(enrolment(9, 4, "d")).await.expect("an answer");
    assert_eq!(wrong, Enrolled::BadInvitation);
    assert_eq!(store.hosts()[..], [Arc::new(a.clone()), Arc::new(b.clone())]);
}

pub(super) async fn an_expired_invitation_lets_in_nobody(store: Store) {
    store.invite(Invite { expires_at: at(0), ..invite(1, 5) }).await.expect("an invitation");
    let late = store.enrol(enrolment(1, 1, "a")).await.expect("an answer");
    assert_eq!(late, Enrolled::BadInvitation);
}

pub(super) async fn a_known_key_is_one_host_however_often_it_asks(store: Store) {
    let host = enrolled(&store, 1, "a").await;
    for name in ["a", "another"] {
        let again = store.enrol(enrolment(101, 1, name)).await.expect("an answer");
        assert_eq!(again, Enrolled::Done(host.clone()));
    }
}

pub(super) async fn a_revoked_key_does_not_come_back_by_an_invitation(store: Store) {
    let host = enrolled(&store, 1, "a").await;
    store.invite(invite(1, 5)).await.expect("an invitation");
    for standing in [Standing::Revoked, Standing::Duplicate] {
        let changed = store.set_standing(host.id, standing).await.expect("set");
        assert_eq!(changed, Changed::Done);
        let again = store.enrol(enrolment(1, 1, "a")).await.expect("an answer");
        assert_eq!(again, Enrolled::KeyRefused(standing));
    }
}

pub(super) async fn names_and_keys_are_unique(store: Store) {
    let (a, b) = (enrolled(&store, 1, "a").await, enrolled(&store, 2, "b").await);
    let rename = async |name: &str| store.rename_host(a.id, name.parse().expect("a name")).await;
    assert_eq!(rename("b").await.expect("an answer"), Changed::Taken);
    assert_eq!(rename("a").await.expect("an answer"), Changed::Done);
    assert_eq!(rename("c").await.expect("an answer"), Changed::Done);
    assert_eq!(store.rekey_host(a.id, b.key).await.expect("an answer"), Changed::Taken);
    let key = PublicKey([77; 32]);
    assert_eq!(store.rekey_host(a.id, key).await.expect("an answer"), Changed::Done);
    assert_eq!(store.rekey_host(host_id(9), key).await.expect("an answer"), Changed::Taken);

    let now = Arc::new(HostRow { name: "c".parse().expect("a name"), key, ..a.clone() });
    assert_eq!(store.host(a.id), Some(now.clone()));
    assert_eq!(store.host_by_key(key), Some(now.clone()));
    assert_eq!(store.host_by_key(a.key), None);
    assert_eq!(store.host_named(&now.name), Some(now.clone()));
    assert_eq!(store.host_named(&a.name), None);
}

pub(super) async fn labels_and_facts_are_kept_apart(store: Store) {
    let host = enrolled(&store, 1, "a").await;
    let change = LabelChange {
        set: [("role".to_owned(), "web".to_owned())].into(),
        remove: vec!["stage".to_owned(), "not-there".to_owned()],
    };
    assert_eq!(store.label_host(host.id, change.clone()).await.expect("set"), Changed::Done);
    assert_eq!(store.label_host(host_id(9), change).await.expect("set"), Changed::Unknown);
    let mut facts = serde_json::Map::new();
    for cpus in [2, 4] {
        facts.insert("cpus".to_owned(), cpus.into());
        let set = store.set_facts(host.id, facts.clone()).await;
        assert_eq!(set.expect("set"), Changed::Done);
    }
    let set = store.set_facts(host_id(9), facts.clone()).await;
    assert_eq!(set.expect("an answer"), Changed::Unknown);

    let now = store.host(host.id).expect("it is there");
    assert_eq!(now.labels, [("role".to_owned(), "web".to_owned())].into());
    assert_eq!(now.facts, facts);
    assert_eq!((&now.agent_version, now.policy), (&None, None));
}

pub(super) async fn a_greeting_says_which_build_and_policy_is_online(store: Store) {
    let host = enrolled(&store, 1, "a").await;
    store.gone(vec![(host.id, at(10))]).await.expect("set");
    for (version, policy) in [("0.1.0", PolicyMode::Operate), ("0.2.0", PolicyMode::Observe)] {
        let greeted = store.greeted(host.id, version.to_owned(), policy, at(20)).await;
        assert_eq!(greeted.expect("set"), Changed::Done);
        let now = store.host(host.id).expect("it is there");
        assert_eq!((now.agent_version.as_deref(), now.policy), (Some(version), Some(policy)));
        assert_eq!((now.last_seen, now.offline_since), (Some(at(20)), None));
    }
    let greeted = store.greeted(host_id(9), "0".to_owned(), PolicyMode::Operate, at(20)).await;
    assert_eq!(greeted.expect("an answer"), Changed::Unknown);
}

pub(super) async fn hosts_are_seen_and_gone(store: Store) {
    let host = enrolled(&store, 1, "a").await;
    let times = async || {
        let host = store.host(host.id).expect("it is there");
        (host.last_seen, host.offline_since)
    };
    assert_eq!(times().await, (None, None));
    store.seen(vec![(host.id, at(10)), (host_id(9), at(10))]).await.expect("set");
    assert_eq!(times().await, (Some(at(10)), None));
    store.gone(vec![(host.id, at(20))]).await.expect("set");
    assert_eq!(times().await, (Some(at(20)), Some(at(20))));
    store.seen(vec![(host.id, at(15))]).await.expect("set");
    assert_eq!(times().await, (Some(at(20)), None));
}

pub(super) async fn a_removed_host_is_gone(store: Store) {
    let host = enrolled(&store, 1, "a").await;
    let facts = serde_json::Map::new();
    store.set_facts(host.id, facts).await.expect("set");
    assert_eq!(store.remove_host(host.id).await.expect("remove"), Changed::Done);
    assert_eq!(store.remove_host(host.id).await.expect("remove"), Changed::Unknown);
    assert_eq!(store.host(host.id), None);
    store.invite(invite(1, 1)).await.expect("an invitation");
    let anew = store.enrol(enrolment(1, 1, "a")).await.expect("an answer");
    assert!(matches!(anew, Enrolled::Done(_)), "{anew:?}");
}
