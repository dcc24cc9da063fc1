//! `fleetwright host-backup` on a real `PostgreSQL`.

use std::fs;
use std::process::{Command, Output};

use fw_testkit::postgres::{ADMIN, PASSWORD, Postgres};
use tempfile::TempDir;

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A cluster with a database, and a place for backups.
struct Bench {
    postgres: Postgres,
    dir: TempDir,
}

impl Bench {
    async fn new() -> Self {
        let postgres = Postgres::start().await;
        let _made = postgres.sql("postgres", "CREATE DATABASE app");
        let _made = postgres.sql(
            "app",
            "CREATE TABLE people (id serial PRIMARY KEY, name text, born date);
             CREATE INDEX ON people (name); CREATE VIEW names AS SELECT name FROM people;
             CREATE FUNCTION twice(x int) RETURNS int LANGUAGE sql AS 'SELECT 2 * x';
             INSERT INTO people (name, born) SELECT 'person ' || n, '2000-01-01'::date + n
             FROM generate_series(1, 5000) n; INSERT INTO people (name) VALUES (E'\\\\restrict x\\n\\t')",
        );
        Self { postgres, dir: tempfile::tempdir().expect("a directory") }
    }

    /// Runs `host-backup`, which must exit so. The password is in the environment, as a secret of a run is.
    #[track_caller]
    fn exits(&self, code: i32, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleetwright"));
        command.current_dir(self.dir.path()).env("PGPASSWORD", PASSWORD);
        let output = command.arg("host-backup").args(args).output().expect("the binary starts");
        let told = format!("{args:?}\n{}{}", said(&output.stdout), said(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{told}");
        output
    }

    fn count(&self) -> String {
        self.postgres.sql("app", "SELECT count(*), max(twice(id)) FROM people")
    }
}

#[tokio::test]
async fn a_database_is_proved_and_put_back() {
    let bench = Bench::new().await;
    let url = bench.postgres.url(ADMIN, "app");
    let before = bench.count();
    assert_eq!(before, "5001|10002");
    let create = ["create", "--to", "backups", "--postgres", &url];
    let made = bench.exits(0, &create);
    assert!(said(&made.stderr).trim_end().ends_with(": restored"), "{}", said(&made.stderr));
    let _fresh = bench.exits(0, &["fresh", "backups", "--within", "1h", "--postgres", &url]);
    let _whole = bench.exits(0, &["verify", "backups"]);
    let scratch = "SELECT count(*) FROM pg_database WHERE datname LIKE 'fleetwright%'";
    assert_eq!(bench.postgres.sql("app", scratch), "0", "the scratch database is gone");
    for _ in 0..2 {
        let _spoilt =
            bench.postgres.sql("app", "DELETE FROM people WHERE id > 10; DROP VIEW names");
        assert_eq!(bench.count(), "10|20");
        let _restored = bench.exits(0, &["restore", "backups"]);
        assert_eq!(bench.count(), before);
        assert_eq!(bench.postgres.sql("app", "SELECT count(*) FROM names"), "5001");
    }
    // One that is damaged touches nothing.
    let backup = said(&made.stdout).trim().to_owned();
    let dump = std::path::Path::new(&backup).join("postgres-1.dump");
    let mut bytes = fs::read(&dump).expect("a part");
    let last = bytes.len() - 100;
    *bytes.get_mut(last).expect("it is longer") ^= 1;
    fs::write(&dump, bytes).expect("our file");
    let _spoilt = bench.postgres.sql("app", "DELETE FROM people");
    let refused = bench.exits(1, &["restore", &backup]);
    assert!(said(&refused.stderr).contains("no whole backup"), "{}", said(&refused.stderr));
    assert_eq!(bench.count(), "0|");
}

#[tokio::test]
async fn who_may_make_no_database_proves_less_and_is_told() {
    let bench = Bench::new().await;
    let _made = bench.postgres.sql(
        "app",
        &format!(
            "CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'; GRANT pg_read_all_data TO reader"
        ),
    );
    let url = bench.postgres.url("reader", "app");
    let made = bench.exits(0, &["create", "--to", "backups", "--postgres", &url]);
    let told = said(&made.stderr);
    assert!(told.contains("warning: ") && told.contains("proves less"), "{told}");
    let _not = bench.exits(1, &["fresh", "backups", "--within", "1h"]);
    let _fresh = bench.exits(0, &["fresh", "backups", "--within", "1h", "--accept-read-through"]);
    let _none = bench.exits(1, &["restore", "backups"]);
}

#[tokio::test]
async fn a_database_that_does_not_answer_makes_no_backup() {
    let bench = Bench::new().await;
    let url = bench.postgres.url(ADMIN, "none");
    let refused = bench.exits(1, &["create", "--to", "backups", "--postgres", &url]);
    assert!(said(&refused.stderr).contains("\"none\" does not exist"), "{}", said(&refused.stderr));
    let _made = bench.postgres.sql("app", "ALTER ROLE admin PASSWORD 'another'");
    let url = bench.postgres.url(ADMIN, "app");
    let refused = bench.exits(1, &["create", "--to", "backups", "--postgres", &url]);
    assert!(said(&refused.stderr).contains("authentication failed"), "{}", said(&refused.stderr));
    let left = fs::read_dir(bench.dir.path().join("backups")).expect("it was made").count();
    assert_eq!(left, 0);
}
