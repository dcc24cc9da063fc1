//! Whoever can write the file can change the audit, and is found out.

use fw_rt::Clock;
use rusqlite::Connection;

use crate::{NewAudit, Store};

fn note(n: i64) -> NewAudit {
    NewAudit {
        at: fw_proto::Timestamp::from_millis(n),
        by: "alice".to_owned(),
        address: None,
        action: "host.revoke".to_owned(),
        subject: format!("web{n}"),
        hosts: vec![format!("web{n}")],
        before: None,
        after: None,
    }
}

/// Writes five entries, lets someone at the file, and says what is then found.
async fn check(tamper: &str) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Clock::system()).await.unwrap();
    for n in 1..=5 {
        store.note(note(n)).await.unwrap();
    }
    store.close().await;
    let db = Connection::open(dir.path().join("main.db")).unwrap();
    db.execute_batch("DROP TRIGGER audit_is_kept; DROP TRIGGER audit_is_fixed;").unwrap();
    db.execute_batch(tamper).unwrap();
    drop(db);
    let store = Store::open(dir.path(), Clock::system()).await.unwrap();
    let found = store.verify_audit().await.unwrap();
    store.close().await;
    found.broken
}

#[tokio::test]
async fn what_was_tampered_with_is_named() {
    assert_eq!(check("").await, None);
    let changed = "entry 3 is not what it was when it was written";
    for (tamper, expected) in [
        ("UPDATE audit SET actor = 'bob' WHERE n = 3", changed),
        ("UPDATE audit SET hosts = '[]' WHERE n = 3", changed),
        ("UPDATE audit SET sha256 = zeroblob(32) WHERE n = 3", changed),
        ("DELETE FROM audit WHERE n = 3", "entry 3 is missing"),
        ("DELETE FROM audit WHERE n >= 4", "entries after 3 are missing: the newest was 5"),
        ("DELETE FROM audit", "entries after 0 are missing: the newest was 5"),
    ] {
        assert_eq!(check(tamper).await.as_deref(), Some(expected), "{tamper}");
    }
}

#[tokio::test]
async fn rows_are_neither_changed_nor_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Clock::system()).await.unwrap();
    store.note(note(1)).await.unwrap();
    let db = Connection::open(dir.path().join("main.db")).unwrap();
    for sql in ["DELETE FROM audit", "UPDATE audit SET actor = 'bob'"] {
        assert!(db.execute_batch(sql).is_err(), "{sql}");
    }
    drop(db);
    store.close().await;
}
