//! Checks of users, sessions and the audit.

use fw_proto::Span;
use fw_proto::api::Role;

use super::fixture::at;
use crate::{AuditQuery, Changed, NewAudit, NewSession, SetUp, Store, UserChanged, UserRow};

fn user(name: &str, role: Role) -> UserRow {
    UserRow {
        name: name.to_owned(),
        role,
        hash: Some("hash".to_owned()),
        disabled: false,
        totp: None,
        totp_pending: None,
        created_at: at(0),
        last_sign_in: None,
    }
}

fn session(user: &str, n: u8) -> NewSession {
    NewSession {
        sha256: [n; 32],
        user: user.to_owned(),
        address: "192.0.2.1".to_owned(),
        network: "192.0.2.1".to_owned(),
        agent: "browser".to_owned(),
        at: at(0),
        proved_at: at(0),
        expires_at: at(100),
    }
}

async fn add(store: &Store, name: &str, role: Role) {
    assert_eq!(store.add_user(user(name, role)).await.expect("add"), Changed::Done);
}

pub(super) async fn a_code_counts_once(store: Store) {
    add(&store, "alice", Role::Admin).await;
    store.begin_totp("alice", vec![1]).await.expect("begin");
    let codes = vec![[1; 32], [2; 32]];
    let confirm = store.confirm_totp("alice", vec![1], 10, codes).await.expect("confirm");
    assert_eq!(confirm, Changed::Done);
    let used = async |step| store.use_totp("alice", step).await.expect("use");
    assert!(!used(10).await, "it was used to confirm");
    assert!(used(11).await && !used(11).await && !used(10).await && used(12).await);
    let recovered = async |code| store.use_recovery_code("alice", [code; 32]).await.expect("use");
    assert!(recovered(1).await && !recovered(1).await && recovered(2).await);
    assert_eq!(store.remove_totp("alice").await.expect("remove"), Changed::Done);
    assert_eq!(store.user("alice").await.expect("read"), Some(user("alice", Role::Admin)));
}

pub(super) async fn the_first_link_makes_one_user(store: Store) {
    let set_up = async |link, name: Option<&str>| {
        let name = name.map(str::to_owned);
        store.set_up([link; 32], name, "hash".to_owned(), at(1)).await.expect("set up")
    };
    store.put_setup_link([1; 32], None, None).await.expect("put");
    assert!(store.is_setup_link([1; 32], at(1)).await.expect("read"));
    assert_eq!(set_up(2, Some("alice")).await, SetUp::NoLink);
    assert_eq!(set_up(1, None).await, SetUp::NoName);
    assert_eq!(set_up(1, Some("alice")).await, SetUp::Done("alice".to_owned()));
    assert_eq!(set_up(1, Some("eve")).await, SetUp::NoLink);
    let unknown = store.put_setup_link([3; 32], Some("bob".to_owned()), None).await;
    assert_eq!(unknown.expect("put"), Changed::Unknown);
    store.put_setup_link([3; 32], Some("alice".to_owned()), Some(at(1))).await.expect("put");
    assert_eq!(set_up(3, None).await, SetUp::NoLink, "it is too old");
    store.put_setup_link([4; 32], Some("alice".to_owned()), Some(at(2))).await.expect("put");
    assert_eq!(set_up(4, Some("eve")).await, SetUp::OtherName);
    assert_eq!(set_up(4, None).await, SetUp::Done("alice".to_owned()));
}

pub(super) async fn who_is_disabled_is_signed_out(store: Store) {
    add(&store, "alice", Role::Admin).await;
    add(&store, "bob", Role::Viewer).await;
    store.begin_session(session("bob", 1)).await.expect("begin");
    assert!(store.session_by_hash(&[1; 32]).await.expect("read").is_some());
    let off = store.change_user("bob", None, Some(true)).await.expect("change");
    assert_eq!(off, UserChanged::Done);
    assert_eq!(store.session_by_hash(&[1; 32]).await.expect("read"), None);
    assert_eq!(store.sessions().await.expect("read"), []);
}

pub(super) async fn the_last_admin_stays(store: Store) {
    add(&store, "alice", Role::Admin).await;
    add(&store, "bob", Role::Viewer).await;
    let role = async |name, role| store.change_user(name, Some(role), None).await.expect("change");
    assert_eq!(role("alice", Role::Viewer).await, UserChanged::LastAdmin);
    assert_eq!(store.remove_user("alice").await.expect("remove"), UserChanged::LastAdmin);
    assert_eq!(role("nobody", Role::Viewer).await, UserChanged::Unknown);
    assert_eq!(role("bob", Role::Admin).await, UserChanged::Done);
    assert_eq!(store.remove_user("alice").await.expect("remove"), UserChanged::Done);
    assert_eq!(store.users().await.expect("read"), [user("bob", Role::Admin)]);
}

pub(super) async fn sessions_are_listed_ended_and_pruned(store: Store) {
    add(&store, "alice", Role::Admin).await;
    let mut ids = Vec::new();
    for n in 1..=4 {
        ids.push(store.begin_session(session("alice", n)).await.expect("begin"));
    }
    assert!(store.knows_address("alice", "192.0.2.1", at(0)).await.expect("read"));
    assert!(!store.knows_address("alice", "192.0.2.1", at(1)).await.expect("read"));
    assert!(!store.end_session(ids[0], Some("bob")).await.expect("end"));
    assert!(store.end_session(ids[0], Some("alice")).await.expect("end"));
    let listed = store.sessions_of("alice").await.expect("read");
    assert_eq!(listed.iter().map(|one| one.id).collect::<Vec<_>>(), [ids[3], ids[2], ids[1]]);
    store.step_up(ids[1], at(50)).await.expect("step up");
    store.touch_session(ids[1], at(60)).await.expect("touch");
    assert_eq!(store.prune_sessions(at(61), Span::from_secs(60), at(0)).await.expect("prune"), 2);
    let left = store.sessions().await.expect("read");
    assert_eq!((left.len(), left[0].stepped_up_at, left[0].used_at), (1, at(50), at(60)));
    assert_eq!(store.end_sessions("alice", Some(ids[1])).await.expect("end"), 0);
    store.set_password("alice", "new".to_owned(), 0).await.expect("set");
    assert_eq!(store.sessions().await.expect("read"), []);
    store.rehash("alice", "old", "wrong".to_owned()).await.expect("rehash");
    store.rehash("alice", "new", "better".to_owned()).await.expect("rehash");
    assert_eq!(
        store.user("alice").await.expect("read").expect("her").hash.as_deref(),
        Some("better")
    );
}

fn note(action: &str, subject: &str, hosts: &[&str]) -> NewAudit {
    NewAudit {
        at: at(0),
        by: "alice".to_owned(),
        address: Some("192.0.2.1".to_owned()),
        action: action.to_owned(),
        subject: subject.to_owned(),
        hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
        before: None,
        after: Some(serde_json::json!({ "role": "viewer" })),
    }
}

async fn noted(store: &Store, query: AuditQuery) -> Vec<i64> {
    let page = store.audit(query).await.expect("read");
    page.items.iter().map(|entry| entry.n).collect()
}

pub(super) async fn changes_are_noted_with_what_they_change(store: Store) {
    let noting = || store.noting(note("user.add", "bob", &[]));
    let all = || AuditQuery { limit: 10, ..AuditQuery::default() };
    assert_eq!(store.verify_audit().await.expect("verify").entries, 0);
    assert_eq!(noting().add_user(user("bob", Role::Viewer)).await.expect("add"), Changed::Done);
    assert_eq!(noting().add_user(user("bob", Role::Viewer)).await.expect("add"), Changed::Taken);
    assert!(!noting().remove_token("none").await.expect("remove"));
    assert_eq!(noted(&store, all()).await, [1], "what changed nothing is not noted");
    store.note(note("run.begin", "r", &["web1"])).await.expect("note");
    let check = store.verify_audit().await.expect("verify");
    assert_eq!((check.entries, check.broken), (2, None));
    let page = store.audit(all()).await.expect("read");
    assert_eq!(check.head.as_ref(), Some(&page.items[0].sha256));
    assert_eq!(page.items[0].hosts, ["web1"]);
}

pub(super) async fn the_audit_is_paged_and_filtered(store: Store) {
    for n in 0..6 {
        let action = if n % 2 == 0 { "run.begin" } else { "host.revoke" };
        let host = if n < 3 { "web1" } else { "db1" };
        store.note(note(action, host, &[host])).await.expect("note");
    }
    let query = || AuditQuery { limit: 10, ..AuditQuery::default() };
    let text = |text: &str| Some(text.to_owned());
    let first = store.audit(AuditQuery { limit: 4, ..query() }).await.expect("read");
    assert_eq!((first.items.len(), first.next.as_deref()), (4, Some("3")));
    assert_eq!(noted(&store, AuditQuery { cursor: first.next, ..query() }).await, [2, 1]);
    assert_eq!(noted(&store, AuditQuery { host: text("web1"), ..query() }).await, [3, 2, 1]);
    assert_eq!(
        noted(&store, AuditQuery { action: text("host.revoke"), ..query() }).await,
        [6, 4, 2]
    );
    assert!(noted(&store, AuditQuery { by: text("bob"), ..query() }).await.is_empty());
    let both = AuditQuery { subject: text("db1"), action: text("run.begin"), ..query() };
    assert_eq!(noted(&store, both).await, [5]);
}
