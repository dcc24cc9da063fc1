//! `PostgreSQL` databases, by the programs that come with it: `pg_dump`, `pg_restore` and `psql`.
//!
//! Credentials are never arguments, which others see in the process list: these programs find them in
//! `PGPASSWORD`, which a secret of the run can be, or in a password file.

use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use sha2::{Digest as _, Sha256};

use super::manifest::Proof;
use crate::on_host::hex;
use crate::output;

/// Reads the name or address of a database.
///
/// # Errors
/// It has a password in it.
pub(crate) fn database(text: &str) -> Result<String, String> {
    let authority =
        text.split_once("://").map_or("", |(_, rest)| rest.split(['/', '?']).next().unwrap_or(""));
    let in_user = authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'));
    if in_user || text.to_ascii_lowercase().contains("password=") {
        return Err(
            "leave the password out, others can see it here: give it as PGPASSWORD (a secret \
                    of the run), or in a password file (PGPASSFILE)"
                .to_owned(),
        );
    }
    let renamed = text.to_ascii_lowercase().contains("dbname=") && text.contains("://");
    if text.is_empty() || text.starts_with('-') || renamed {
        return Err("give a name, or an address such as postgresql://user@host/name".to_owned());
    }
    Ok(text.to_owned())
}

/// The same server, another database.
fn other(database: &str, name: &str) -> String {
    match database.split_once("://") {
        Some((scheme, rest)) => {
            let (place, query) = rest.split_once('?').map_or((rest, None), |(a, b)| (a, Some(b)));
            let authority = place.split('/').next().unwrap_or_default();
            let query = query.map(|query| format!("?{query}")).unwrap_or_default();
            format!("{scheme}://{authority}/{name}{query}")
        }
        // Of two names in a string of words the later one counts.
        None if database.contains('=') => format!("{database} dbname={name}"),
        None => name.to_owned(),
    }
}

/// Dumps a database into a file.
///
/// # Errors
/// `pg_dump` says why not.
pub(super) fn dump(database: &str, to: &Path) -> anyhow::Result<()> {
    let mut command = tool("pg_dump", database);
    said(command.arg("--format=custom").arg("--file").arg(to)).map(drop)
}

/// Restores a dump into a database of its own, which `key` names, and compares the dump of that with the
/// first; where no database may be made, reads the dump to its end.
///
/// # Errors
/// It cannot be restored, or is another then.
pub(super) fn prove(database: &str, dump: &Path, key: &str) -> anyhow::Result<Proof> {
    let about = query(
        database,
        "SELECT rolcreatedb OR rolsuper, pg_encoding_to_char(encoding), datcollate, datctype \
         FROM pg_roles, pg_database WHERE rolname = current_user AND datname = current_database()",
    )?;
    let [may, encoding, collate, ctype] = about.trim_end().split('\t').collect::<Vec<_>>()[..]
    else {
        bail!("the server said {about:?} of its database");
    };
    if may != "t" {
        read_through(dump)?;
        output::say(&format!(
            "warning: the dump of {database} was only read to its end and not restored, which proves less: \
             this user may not make a database for it (ALTER ROLE … CREATEDB)"
        ));
        return Ok(Proof::ReadThrough);
    }
    let name = format!("fleetwright_proof_{}", hex(&Sha256::digest(key)).get(..16).unwrap_or(key));
    let drop_it = format!("DROP DATABASE IF EXISTS {name}");
    // Of an earlier backup that was cut short.
    query(database, &drop_it)?;
    let [encoding, collate, ctype] = [encoding, collate, ctype].map(quoted);
    query(
        database,
        &format!(
            "CREATE DATABASE {name} TEMPLATE template0 ENCODING {encoding} LC_COLLATE {collate} LC_CTYPE {ctype}"
        ),
    )?;
    let compared = compare(&other(database, &name), dump);
    let dropped = query(database, &drop_it);
    compared?;
    dropped.map(|_| Proof::Restored)
}

/// Restores a dump into a database: what is in the dump is put in the place of what is there.
///
/// # Errors
/// `pg_restore` says why not; then the database is as it was.
pub(super) fn restore(database: &str, dump: &Path) -> anyhow::Result<()> {
    let mut command = tool("pg_restore", database);
    command.args(["--clean", "--if-exists", "--single-transaction", "--exit-on-error"]);
    said(command.arg(dump)).map(drop)
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn compare(scratch: &str, dump: &Path) -> anyhow::Result<()> {
    let mut command = tool("pg_restore", scratch);
    said(command.args(["--single-transaction", "--exit-on-error"]).arg(dump))?;
    // Both by way of an archive, so that both are written by the same code.
    let again = dump.with_extension("again");
    self::dump(scratch, &again)?;
    let (first, second) = (script(dump)?, script(&again)?);
    std::fs::remove_file(&again).with_context(|| format!("remove {}", again.display()))?;
    ensure!(first == second, "the restored database is another than the one that was dumped");
    Ok(())
}

/// The hash of a dump as SQL, without what is another each time.
fn script(dump: &Path) -> anyhow::Result<String> {
    let mut command = Command::new("pg_restore");
    command.arg("--file=-").arg(dump).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("run pg_restore (is postgresql-client installed?)")?;
    let mut hash = Sha256::new();
    let mut lines = child.stdout.take().map(BufReader::new).context("standard output is piped")?;
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).context("read what pg_restore writes")? > 0 {
        // A key that is drawn for each dump, which no line of data can look like, and versions.
        let passing: [&[u8]; 3] = [b"\\restrict ", b"\\unrestrict ", b"-- Dumped "];
        if !passing.iter().any(|start| line.starts_with(start)) {
            hash.update(&line);
        }
        line.clear();
    }
    let status = child.wait().context("wait for pg_restore")?;
    ensure!(status.success(), "pg_restore cannot read the dump: {status}");
    Ok(hex(&hash.finalize()))
}

fn read_through(dump: &Path) -> anyhow::Result<()> {
    script(dump).map(drop)
}

/// Asks a database; columns are separated by tabs.
fn query(database: &str, sql: &str) -> anyhow::Result<String> {
    let mut command = tool("psql", database);
    command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--field-separator=\t"]);
    said(command.args(["--set=ON_ERROR_STOP=1", "--command", sql]))
}

/// One of the programs, which asks for no password.
fn tool(program: &str, database: &str) -> Command {
    let mut command = Command::new(program);
    command.arg("--no-password").arg("--dbname").arg(database);
    command
}

/// Runs it to its end, and gives what it says.
fn said(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let what = || format!("run {program} (is postgresql-client installed?)");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(what)?;
    // What it says on stdout is short, so stderr can wait for it to end.
    let mut out = String::new();
    let read = child.stdout.take().map(|mut stdout| stdout.read_to_string(&mut out)).transpose();
    read.with_context(|| format!("read what {program} says"))?;
    let ended = child.wait_with_output().with_context(|| format!("wait for {program}"))?;
    let complaint = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{}", complaint.trim_end());
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_taken_as_an_argument() {
        for good in [
            "app",
            "postgresql://app@db1:5432/app",
            "host=/run/postgresql dbname=app",
            "postgresql:///app?host=/tmp",
        ] {
            assert_eq!(database(good), Ok(good.to_owned()));
        }
        for bad in [
            "postgresql://app:secret@db1/app",
            "host=db1 password=x",
            "postgresql://db1/app?password=x",
            "",
            "--host",
            "postgresql://h/a?dbname=b",
        ] {
            assert!(database(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn another_database_is_on_the_same_server() {
        let check = |database: &str, expected: &str| assert_eq!(other(database, "x"), expected);
        check("app", "x");
        check(
            "postgresql://app@db1:5432,db2/app?sslmode=require",
            "postgresql://app@db1:5432,db2/x?sslmode=require",
        );
        check("postgresql://db1", "postgresql://db1/x");
        check("postgresql:///app?host=/tmp/a", "postgresql:///x?host=/tmp/a");
        check("host=/tmp dbname=app", "host=/tmp dbname=app dbname=x");
    }
}
