//! A real `PostgreSQL` inside one test: a cluster of its own, reached by a socket in its directory alone.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::fleet::{PATIENCE, wait_for};

/// The password of every role that a test makes, and of the first one.
pub const PASSWORD: &str = "correct horse";

/// The role that may do all.
pub const ADMIN: &str = "admin";

/// A cluster that runs until this is dropped. Who connects must give [`PASSWORD`].
#[derive(Debug)]
pub struct Postgres {
    server: Child,
    dir: TempDir,
}

impl Postgres {
    /// Starts one. It refuses to run as root, so then it runs as the user of its package.
    ///
    /// # Panics
    /// It is not installed (`cargo xtask setup`), or does not start.
    pub async fn start() -> Self {
        let dir = TempDir::with_prefix("fw-pg-").expect("a temporary directory");
        let password = dir.path().join("password");
        fs::write(&password, PASSWORD).expect("a new file");
        let user = rustix::process::getuid().is_root().then(package_user);
        for path in [dir.path(), &password] {
            chown(path, user, user).expect("root may give files away");
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).expect("our own");
        let data = dir.path().join("data");
        let mut initdb = program("initdb", dir.path(), user);
        initdb.arg("--pgdata").arg(&data).arg("--pwfile").arg(&password).args([
            "--username",
            ADMIN,
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]);
        let made = initdb.output().expect("initdb starts");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut server = program("postgres", dir.path(), user);
        server.arg("-D").arg(&data).arg("-k").arg(dir.path()).args(["-c", "listen_addresses="]);
        server.args(["-c", "fsync=off"]).stdout(Stdio::null()).stderr(Stdio::null());
        let postgres = Self { server: server.spawn().expect("postgres starts"), dir };
        wait_for("a database that answers", PATIENCE, async || {
            postgres.psql("postgres", "SELECT 1").ok()
        })
        .await;
        postgres
    }

    /// The address of a database for a role, without a password.
    #[must_use]
    pub fn url(&self, role: &str, database: &str) -> String {
        format!("postgresql://{role}@/{database}?host={}", self.dir.path().display())
    }

    /// Runs SQL as the first role; columns are separated by bars.
    ///
    /// # Panics
    /// The database refuses it.
    #[must_use]
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let said = self.psql(database, sql);
        assert!(said.is_ok(), "{sql}: {said:?}");
        said.unwrap_or_default().trim_end().to_owned()
    }

    fn psql(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = program("psql", self.dir.path(), None);
        psql.env("PGPASSWORD", PASSWORD).args(["-XqAt", "-v", "ON_ERROR_STOP=1"]);
        psql.arg("-d").arg(self.url(ADMIN, database)).arg("-c").arg(sql);
        let said = psql.output().expect("psql starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if said.status.success() { Ok(text(&said.stdout)) } else { Err(text(&said.stderr)) }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // At once and without a checkpoint: all of it goes (postgres(1)).
        if let Some(pid) = Pid::from_raw(self.server.id().cast_signed()) {
            let _ = kill_process(pid, Signal::QUIT);
        }
        drop(self.server.wait());
    }
}

/// One of its programs, with nothing of our surroundings. Debian keeps those of servers out of PATH.
fn program(name: &str, dir: &Path, user: Option<u32>) -> Command {
    let mut command = Command::new(found(name));
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", dir);
    command.current_dir("/").stdin(Stdio::null());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    command
}

fn found(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    versions.sort();
    let places =
        versions.into_iter().rev().chain(["/usr/local/bin", "/usr/bin"].map(PathBuf::from));
    let mut programs = places.map(|place| place.join(name)).filter(|program| program.exists());
    let program = programs.next();
    assert!(program.is_some(), "no {name} is here; run: cargo xtask setup");
    program.expect("checked above")
}

/// The number of the user that the package makes, which is its group's too.
fn package_user() -> u32 {
    let id = Command::new("id").args(["-u", "postgres"]).output().expect("id starts");
    let number = String::from_utf8_lossy(&id.stdout).trim().parse().ok();
    number.expect("the package of PostgreSQL makes a user; run: cargo xtask setup")
}
