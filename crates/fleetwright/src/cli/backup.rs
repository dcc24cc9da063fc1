//! `fleetwright backup`: a copy of everything, and back.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fw_proto::{Incarnation, Timestamp};
use fw_rt::Clock;
use fw_store::{BackupInfo, Error};
use serde::Serialize;

use super::Session;
use super::ask::Sure;
use crate::exit::Code;
use crate::output::{self, Format};

/// What to do with backups.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Make a backup on the server's machine while it runs.
    Create(CreateArgs),
    /// Read a backup through, here, and say whether it is whole.
    Verify(VerifyArgs),
    /// Make a data directory from a backup, here; the server must not run.
    Restore(RestoreArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// Copy it here as well; works on the server's machine only.
    file: Option<PathBuf>,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// What `backup verify` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The backup.
    pub(crate) file: PathBuf,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
}

/// What `backup restore` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    /// The backup.
    pub(crate) file: PathBuf,
    /// The data directory; what the backup replaces in it is moved aside.
    #[arg(long, value_name = "DIR", default_value = "./fleetwright-data")]
    pub(crate) data_dir: PathBuf,
    #[command(flatten)]
    pub(crate) sure: Sure,
}

/// Makes a backup.
pub(crate) async fn create(session: &Session, args: CreateArgs) -> anyhow::Result<Code> {
    let made = session.client.backup().await?;
    let file = made.file.as_str();
    let page = || format!("{}\n", output::line(file));
    output::print(&output::item(&made, file, args.output, page)?)?;
    match &args.file {
        Some(to) => {
            copy_new(Path::new(file), to).with_context(|| {
                format!("copy {file} to {} (is the server on this machine?)", to.display())
            })?;
            output::say(&format!("and copied to {}", to.display()));
        }
        None if args.output == Format::Table => output::say("the file is on the server's machine"),
        None => {}
    }
    Ok(Code::Success)
}

/// Copies a backup to a file that is not there yet and that only its owner can read: it holds keys.
fn copy_new(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut source = std::fs::File::open(from)?;
    let mut copy = options.write(true).create_new(true).mode(0o600).open(to)?;
    std::io::copy(&mut source, &mut copy)?;
    copy.sync_all()
}

/// A backup as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    file: String,
    created_at: Timestamp,
    incarnation: Incarnation,
    bytes: u64,
    parts: Vec<String>,
}

impl Shown {
    fn of(info: &BackupInfo) -> Self {
        Self {
            file: info.file.display().to_string(),
            created_at: info.created_at,
            incarnation: info.incarnation,
            bytes: info.bytes,
            parts: info.parts.keys().cloned().collect(),
        }
    }

    fn page(&self) -> String {
        format!(
            "file         {}\nmade         {}\nincarnation  {}\nsize         {}\nholds        {}\n",
            output::line(&self.file),
            self.created_at,
            self.incarnation,
            output::bytes(self.bytes),
            output::line(&self.parts.join(", "))
        )
    }
}

/// Reads a backup through.
pub(crate) fn verify(args: &VerifyArgs) -> anyhow::Result<Code> {
    let shown = Shown::of(&fw_store::verify_backup(&args.file)?);
    output::print(&output::item(&shown, &shown.file, args.output, || shown.page())?)?;
    output::say("the backup is whole");
    Ok(Code::Success)
}

/// Makes a data directory from a backup. Asks only when there is something to lose.
pub(crate) fn restore(args: &RestoreArgs) -> anyhow::Result<Code> {
    let now = Clock::system().now();
    let (file, directory) = (&args.file, &args.data_dir);
    let restored = match fw_store::restore_backup(file, directory, false, now) {
        Err(Error::NotEmpty { .. }) => {
            args.sure.confirm(&format!(
                "{} holds something already. Move that aside and restore the backup?",
                directory.display()
            ))?;
            fw_store::restore_backup(file, directory, true, now)
        }
        answer => answer,
    };
    let info = restored?;
    output::say(&format!(
        "restored what was saved at {}; the server asks each host what it remembers before it starts anything there",
        info.created_at
    ));
    Ok(Code::Success)
}
