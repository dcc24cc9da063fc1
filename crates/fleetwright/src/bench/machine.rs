//! What the system says of processes and disks: `proc(5)`.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

/// Why nothing is known of a process.
pub(crate) const NO_PROC: &str = "this system has no /proc that tells it";

/// How often the disk is asked.
const SYNCS: usize = 50;

/// Resident memory of a process, bytes (`VmRSS`); `None` when it is gone or the system has no `/proc`.
pub(crate) fn rss(pid: u32) -> Option<u64> {
    kib(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:")
}

/// Memory of a process that it shares with no other, bytes.
pub(crate) fn private(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    Some(kib(&rollup, "Private_Clean:")? + kib(&rollup, "Private_Dirty:")?)
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = rest.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Time that a process has spent on processors, user and system together.
pub(crate) fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    ticks(&stat).map(|ticks| Duration::from_secs_f64(ticks as f64 / ticks_per_second()))
}

/// `utime` and `stime` of `/proc/PID/stat`. The name before them may hold anything, also brackets.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second().max(1) as f64
}

/// The processors: `2 × AMD EPYC`.
fn cpu() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name"))?;
    let model = model.trim_start_matches([' ', '\t', ':']);
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Some(format!("{count} × {model}"))
}

/// Processes whose parent this is.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split(' ').filter_map(|pid| pid.trim().parse().ok()).collect::<Vec<_>>()
        })
        .collect()
}

/// Notes processors and disk, and why one of them is not known.
pub(crate) fn describe(
    dir: &Path,
    cpu: &mut Option<String>,
    sync: &mut Option<u64>,
    why: &mut super::figures::Why,
) {
    *cpu = self::cpu();
    if cpu.is_none() {
        why.insert("cpu", NO_PROC.to_owned());
    }
    match disk_sync_us(dir) {
        Ok(us) => *sync = Some(us),
        Err(error) => drop(why.insert("disk_sync_us", format!("{error:#}"))),
    }
}

/// How long a small append takes to be on the disk under `dir`, microseconds: the median of fifty.
///
/// # Errors
/// Nothing can be written there.
fn disk_sync_us(dir: &Path) -> anyhow::Result<u64> {
    let path = dir.join("sync");
    let failed = || format!("write {}", path.display());
    let mut file = File::create(&path).with_context(failed)?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        file.write_all(&[0; 4096]).with_context(failed)?;
        let begun = tokio::time::Instant::now();
        file.sync_data().with_context(failed)?;
        times.push(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    fs::remove_file(&path).with_context(failed)?;
    times.sort_unstable();
    Ok(times.get(SYNCS / 2).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_own_memory_and_time() {
        let me = std::process::id();
        assert!(rss(me).unwrap() > 1 << 20);
        assert!(private(me).unwrap() > 1 << 10);
        assert!(cpu_time(me).is_some());
        assert_eq!(rss(u32::MAX), None);
    }

    #[test]
    fn a_name_with_brackets_does_not_move_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 12 30 0 0 20 0 1 0 5";
        assert_eq!(ticks(stat), Some(42));
    }

    #[test]
    fn a_disk_takes_time() {
        let dir = tempfile::tempdir().unwrap();
        disk_sync_us(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
