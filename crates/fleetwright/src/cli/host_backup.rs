//! `fleetwright host-backup`: backups of what is on a host, proved when they are made.

use std::path::{Path, PathBuf};

use fw_proto::{Span, Timestamp};
use fw_rt::Clock;
use serde::Serialize;

use super::Refusal;
use crate::exit::Code;
use crate::on_host::backup::{self, Backup, Holds, Keep, Order, Progress, Proof, Sources};
use crate::output::{self, Format, Row, Width, line};

/// A backup that lies further ahead is of a clock that was wrong.
const AHEAD: Span = Span::from_secs(300);

/// Back up what is on this host, and prove that it can be restored.
///
/// For steps of rollouts and runbooks, on the host itself. The server's own backups are those of
/// `fleetwright backup`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Make a backup, restore it into a scratch place and compare; it is there only when both are the same.
    ///
    /// Prints its directory. Files keep bytes, mode, owner, time, symlinks and hard links; they are
    /// refused while they change. Needs room in DIR for the backup and for what is restored.
    Create(CreateArgs),
    /// List the backups in a directory.
    List(ListArgs),
    /// Read backups through; exit code 1 when one is not what was proved.
    Verify(VerifyArgs),
    /// Put back what a backup holds. Nothing is touched when it is not whole.
    ///
    /// Files are replaced one by one, `SQLite` and `PostgreSQL` databases each in one transaction. What was
    /// made since stays. It can be done again, as an undo is.
    Restore(RestoreArgs),
    /// Say whether there is a proved backup that is new enough; exit code 1 when there is none.
    ///
    /// With sources it must hold at least these.
    Fresh(FreshArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// The directory of the backups; made when it is not there.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    #[command(flatten)]
    sources: Sources,
    /// Leave this out, with all that is in it; repeat for more.
    #[arg(long, value_name = "PATH|GLOB")]
    exclude: Vec<String>,
    /// Restore it there for the proof, where owners can be set; in the directory of the backups otherwise.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    #[command(flatten)]
    keep: Keep,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// The directory of the backups.
    dir: PathBuf,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// A backup, or a directory of backups.
    path: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    /// A backup, or a directory of backups: then the newest proved one.
    path: PathBuf,
    /// Put files and `SQLite` databases below this directory; `PostgreSQL` is left out.
    #[arg(long, value_name = "DIR")]
    to_root: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct FreshArgs {
    /// The directory of the backups.
    dir: PathBuf,
    /// How old it may be.
    #[arg(long, value_name = "DURATION")]
    within: Span,
    #[command(flatten)]
    sources: Sources,
    /// One whose `PostgreSQL` dump was only read to its end will do.
    #[arg(long)]
    accept_read_through: bool,
}

/// A backup as it is shown.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    dir: String,
    made_at: Timestamp,
    proved_at: Timestamp,
    proof: Proof,
    bytes: u64,
    sources: &'a Sources,
}

impl<'a> Shown<'a> {
    fn of(backup: &'a Backup) -> Self {
        let manifest = &backup.manifest;
        Self {
            dir: backup.dir.display().to_string(),
            made_at: manifest.made_at,
            proved_at: manifest.proved_at,
            proof: manifest.proof,
            bytes: manifest.bytes(),
            sources: &manifest.sources,
        }
    }
}

impl Row for Shown<'_> {
    const COLUMNS: &'static [(&'static str, Width)] = &[
        ("BACKUP", Width::Always),
        ("MADE", Width::Always),
        ("PROOF", Width::Always),
        ("SIZE", Width::Number),
        ("HOLDS", Width::Always),
    ];

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let holds: Vec<&str> = self.sources.all().map(String::as_str).collect();
        vec![
            self.dir.clone(),
            output::ago(self.made_at, now),
            self.proof.to_string(),
            output::bytes(self.bytes),
            holds.join(" "),
        ]
    }

    fn name(&self) -> String {
        self.dir.clone()
    }
}

/// Does it.
pub(super) fn run(verb: Verb) -> anyhow::Result<Code> {
    match verb {
        Verb::Create(args) => create(args),
        Verb::List(args) => list(&args),
        Verb::Verify(args) => verify(&args.path),
        Verb::Restore(args) => restore(&args),
        Verb::Fresh(args) => fresh(args),
    }
}

fn create(args: CreateArgs) -> anyhow::Result<Code> {
    let CreateArgs { to, sources, exclude, scratch, keep, output: format } = args;
    let sources = sources.settled()?;
    if sources == Sources::default() {
        return Err(Refusal::usage("say what to back up: --path, --sqlite or --postgres"));
    }
    let made = backup::create(Order { sources, exclude, to, scratch, keep })?;
    let shown = Shown::of(&made);
    let page = || format!("{}\n", line(&shown.dir));
    output::print(&output::item(&shown, &shown.dir, format, page)?)?;
    output::say(&format!("{}: {}", told(&made), made.manifest.proof));
    Ok(Code::Success)
}

/// What a backup holds, in words.
fn told(backup: &Backup) -> String {
    let parts = backup.manifest.parts.iter().map(|part| match &part.holds {
        Holds::Files(files) => format!("{} files and directories", files.entries.len()),
        Holds::Sqlite(sqlite) => {
            let rows: u64 = sqlite.contents.tables.values().map(|table| table.rows).sum();
            format!("{} with {rows} rows", sqlite.path)
        }
        Holds::Postgres(postgres) => format!("the database {}", postgres.database),
    });
    let size = output::bytes(backup.manifest.bytes());
    format!("{} ({size})", parts.collect::<Vec<_>>().join(", "))
}

fn list(args: &ListArgs) -> anyhow::Result<Code> {
    let found = backup::all(&args.dir)?;
    let shown: Vec<_> = found.iter().flatten().map(Shown::of).collect();
    output::print(&output::list(&shown, args.output, Clock::system().now())?)?;
    for error in found.iter().filter_map(|found| found.as_ref().err()) {
        output::say(&format!("warning: {error:#}"));
    }
    Ok(Code::Success)
}

fn verify(path: &Path) -> anyhow::Result<Code> {
    let path = &std::path::absolute(path)?;
    let found = match backup::find(path) {
        Ok(backup) if backup.dir == *path => vec![Ok(backup)],
        Err(error) if backup::all(path).map_or(0, |all| all.len()) == 0 => return Err(error),
        Ok(_) | Err(_) => backup::all(path)?,
    };
    let progress = Progress::new();
    let mut code = Code::Success;
    for backup in found {
        match backup.and_then(|backup| backup::check(&backup, &progress).map(|()| backup)) {
            Ok(backup) => {
                let dir = backup.dir.display().to_string();
                output::print(&format!("{}: whole; {}\n", line(&dir), line(&told(&backup))))?;
            }
            Err(error) => {
                output::say(&format!("error: {error:#}"));
                code = Code::Error;
            }
        }
    }
    Ok(code)
}

fn restore(args: &RestoreArgs) -> anyhow::Result<Code> {
    let backup = backup::find(&args.path)?;
    backup::restore(&backup, args.to_root.as_deref())?;
    let dir = backup.dir.display();
    output::say(&format!("restored {dir}, made at {}: {}", backup.manifest.made_at, told(&backup)));
    Ok(Code::Success)
}

fn fresh(args: FreshArgs) -> anyhow::Result<Code> {
    let wanted = args.sources.settled()?;
    let found = if args.dir.exists() { backup::all(&args.dir)? } else { Vec::new() };
    let proved = |backup: &Backup| {
        (backup.manifest.proof == Proof::Restored || args.accept_read_through)
            && backup.manifest.sources.include(&wanted)
    };
    let dir = args.dir.display();
    let Some(newest) = found.into_iter().flatten().rfind(proved) else {
        output::say(&format!("{dir}: there is no proved backup of this"));
        return Ok(Code::Error);
    };
    let (now, made_at) = (Clock::system().now(), newest.manifest.made_at);
    let said = format!(
        "{}: made {}, {}",
        newest.dir.display(),
        output::ago(made_at, now),
        newest.manifest.proof
    );
    if now.since(made_at) > args.within || made_at.since(now) > AHEAD {
        output::say(&format!("{said}; wanted within {}", args.within));
        return Ok(Code::Error);
    }
    newest.holds(&Progress::new())?;
    output::print(&format!("{}\n", line(&said)))?;
    Ok(Code::Success)
}
