//! Which backups are kept: decided here, of what is known of them; and the removal of the others.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fw_proto::{Span, Timestamp};

use super::manifest::{Backup, Proof};

/// What a backup that is being removed is called: from then on it is none.
const GONE: &str = ".gone-";

/// How long backups are kept; without either, for ever.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Keep {
    /// Keep so many backups of the same sources, and remove older ones.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep: Option<u32>,
    /// Remove backups of the same sources that are older.
    #[arg(long, value_name = "DURATION")]
    pub(crate) keep_for: Option<Span>,
}

impl Keep {
    /// The backups of a set that go, of all that there are, the newest first. The newest that was restored
    /// stays, whatever its age.
    pub(super) fn surplus<'a>(&self, set: &[&'a Backup], now: Timestamp) -> Vec<&'a Backup> {
        let last = set.iter().find(|backup| backup.manifest.proof == Proof::Restored);
        let last = last.map(|backup| &backup.dir);
        let goes = |(n, backup): &(usize, &'a Backup)| {
            let many =
                self.keep.is_some_and(|keep| *n >= usize::try_from(keep).unwrap_or(usize::MAX));
            let old = self.keep_for.is_some_and(|span| now.since(backup.manifest.made_at) > span);
            (many || old) && last != Some(&backup.dir)
        };
        set.iter().copied().enumerate().filter(goes).map(|(_, backup)| backup).collect()
    }
}

/// Removes a backup: it is none from the first moment on, also when this is cut short.
///
/// # Errors
/// It cannot be removed.
pub(super) fn remove(backup: &Backup) -> anyhow::Result<()> {
    let what = || format!("remove {}", backup.dir.display());
    let name = backup.dir.file_name().unwrap_or_default().to_string_lossy();
    let gone: PathBuf = backup.dir.with_file_name(format!("{GONE}{name}"));
    fs::rename(&backup.dir, &gone).with_context(what)?;
    fs::remove_dir_all(&gone).with_context(what)
}

/// Removes what backups that were cut short have left: everything with one of our names and a dot before.
///
/// # Errors
/// The directory cannot be read, or something in it not be removed.
pub(super) fn clear(dir: &Path, ours: &[&str]) -> anyhow::Result<()> {
    let what = || format!("clear {}", dir.display());
    for entry in fs::read_dir(dir).with_context(what)? {
        let entry = entry.with_context(what)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if ours.iter().chain(&[GONE]).any(|ours| name.starts_with(ours)) {
            fs::remove_dir_all(entry.path()).with_context(what)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::manifest::{Holds, Manifest, Part, Postgres, Sources};
    use super::*;

    fn backup(hour: i64, proof: Proof) -> Backup {
        let at = Timestamp::from_millis(hour * 3_600_000);
        let holds = Holds::Postgres(Postgres { database: "app".to_owned(), proof });
        let part = Part { file: "x".to_owned(), bytes: 1, sha256: String::new(), holds };
        let manifest = Manifest::new(at, at, Sources::default(), vec![part]);
        Backup { dir: PathBuf::from(format!("/b/{hour}")), manifest }
    }

    fn kept(keep: Option<u32>, hours: Option<u64>, all: &[Backup], now: i64) -> Vec<PathBuf> {
        let mut set: Vec<&Backup> = all.iter().collect();
        set.sort_by_key(|backup| std::cmp::Reverse(backup.manifest.made_at));
        let keep = Keep { keep, keep_for: hours.map(|hours| Span::from_secs(hours * 3600)) };
        let gone = keep.surplus(&set, Timestamp::from_millis(now * 3_600_000));
        set.retain(|backup| !gone.iter().any(|gone| gone.dir == backup.dir));
        set.into_iter().map(|backup| backup.dir.clone()).collect()
    }

    #[test]
    fn the_newest_stay_and_the_last_proved_one_whatever_its_age() {
        use Proof::{ReadThrough, Restored};
        let all = [
            backup(1, Restored),
            backup(2, Restored),
            backup(3, ReadThrough),
            backup(4, ReadThrough),
        ];
        let check = |keep, hours, expected: &[&str]| {
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(kept(keep, hours, &all, 5), expected, "{keep:?} {hours:?}");
        };
        check(None, None, &["/b/4", "/b/3", "/b/2", "/b/1"]);
        check(Some(3), None, &["/b/4", "/b/3", "/b/2"]);
        check(Some(1), None, &["/b/4", "/b/2"]);
        check(None, Some(1), &["/b/4", "/b/2"]);
        check(Some(1), Some(0), &["/b/2"]);
    }

    proptest! {
        #[test]
        fn a_proved_backup_is_always_left(
            all in prop::collection::btree_map(0_i64..50, any::<bool>(), 1..8),
            keep in prop::option::of(1_u32..4),
            hours in prop::option::of(0_u64..40),
        ) {
            let proof = |restored| if restored { Proof::Restored } else { Proof::ReadThrough };
            let all: Vec<Backup> = all.into_iter().map(|(hour, restored)| backup(hour, proof(restored))).collect();
            let left = kept(keep, hours, &all, 60);
            let newest = all.iter().rev().find(|backup| backup.manifest.proof == Proof::Restored);
            prop_assert!(newest.is_none_or(|newest| left.contains(&newest.dir)));
            if let (Some(keep), None) = (keep, hours) {
                prop_assert!(left.len() >= all.len().min(keep as usize));
                prop_assert!(left.len() <= keep as usize + 1);
            }
        }
    }
}
