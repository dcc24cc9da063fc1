//! Supervisors and hostile commands, for real.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test that finds something else than it expects has failed"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::time::Duration;

use fw_agent::spool::{Found, Reader, Spool, Wake};
use fw_agent::supervise::{Containment, containment};
use fw_proto::frame::{Cause, Command, Ended, OnFull, RefusalReason, Spec};
use fw_proto::record::{self, Body, MAX_CHUNK, Offsets, Stream};
use fw_proto::{NodeId, RunId, Span, TaskKey};
use sha2::{Digest as _, Sha256};

/// Far longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn shell(text: &str) -> Spec {
    Spec {
        command: Command::Shell(text.to_owned()),
        user: None,
        cwd: Some("/".to_owned()),
        env: BTreeMap::new(),
        secrets: BTreeMap::new(),
        timeout: None,
        kill_after: Span::from_secs(5),
        on_full: OnFull::Block,
        spool_bytes: 64 * 1024 * 1024,
        nice: None,
        umask: None,
        armed: None,
    }
}

/// A state directory with one task's spool in it.
struct Bench {
    _dir: tempfile::TempDir,
    spool: Spool,
    wake: Wake,
    key: TaskKey,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        let spool = spool.with_supervisor(PathBuf::from(env!("CARGO_BIN_EXE_fw-supervise")));
        let wake = spool.wake().unwrap();
        let key = TaskKey {
            run: RunId(uuid::Uuid::from_bytes(rand::random())),
            node: NodeId(0),
            attempt: 1,
        };
        Self { _dir: dir, spool, wake, key }
    }

    fn start(spec: &Spec) -> Self {
        let bench = Self::new();
        bench.spool.spawn(bench.key, spec).unwrap();
        bench
    }

    fn dir(&self) -> PathBuf {
        self.spool.task_dir(self.key)
    }

    fn found(&self) -> Found {
        self.spool.state(self.key).unwrap()
    }

    /// Waits until the condition gives something, looking again when the bell rings, and without it.
    async fn until<T>(&mut self, what: &str, mut condition: impl FnMut(&Self) -> Option<T>) -> T {
        let wait = async {
            loop {
                if let Some(answer) = condition(self) {
                    return answer;
                }
                let bell = tokio::time::timeout(Duration::from_millis(50), self.wake.next()).await;
                if let Ok(Err(error)) = bell {
                    panic!("{error}");
                }
            }
        };
        let answer = tokio::time::timeout(DEADLINE, wait).await;
        answer.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    async fn ended(&mut self) -> Ended {
        self.until("the end", |bench| match bench.found() {
            Found::Ended(ended) => Some(ended),
            Found::Starting | Found::Running { .. } => None,
            other => panic!("{other:?}"),
        })
        .await
    }

    async fn refused(&mut self) -> (RefusalReason, String) {
        self.until("the refusal", |bench| match bench.found() {
            Found::Refused(refusal) => Some((refusal.reason, refusal.message)),
            Found::Starting | Found::Running { .. } => None,
            other => panic!("{other:?}"),
        })
        .await
    }

    /// Waits for a number that the command writes into a file.
    async fn number_in(&mut self, file: &Path) -> u32 {
        self.until("a number", |_| std::fs::read_to_string(file).ok()?.trim().parse().ok()).await
    }

    /// All output there is, and that its hashes and offsets are those of the end.
    fn output(&self, ended: &Ended) -> Output {
        let output = Output::read(&mut self.spool.reader(self.key, Offsets::default()));
        assert_eq!(output.offsets, ended.output);
        assert_eq!(Some(Sha256::digest(&output.stdout).into()), ended.stdout_sha256);
        assert_eq!(Some(Sha256::digest(&output.stderr).into()), ended.stderr_sha256);
        output
    }
}

#[derive(Default)]
struct Output {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// (offset in stdout, length) of the gaps in it.
    gaps: Vec<(u64, u64)>,
    offsets: Offsets,
}

impl Output {
    fn read(reader: &mut Reader) -> Self {
        let mut output = Self { offsets: reader.at(), ..Self::default() };
        let mut chunk = Vec::new();
        while let Some((from, to)) = reader.next(MAX_CHUNK, &mut chunk).unwrap() {
            assert!(chunk.len() <= MAX_CHUNK);
            assert_eq!(from, output.offsets);
            output.add(&chunk);
            assert_eq!(to, output.offsets);
        }
        output
    }

    fn add(&mut self, chunk: &[u8]) {
        for record in record::records(chunk) {
            let record = record.unwrap();
            match (record.stream, record.body) {
                (Stream::Stdout, Body::Bytes(bytes)) => self.stdout.extend_from_slice(bytes),
                (Stream::Stderr, Body::Bytes(bytes)) => self.stderr.extend_from_slice(bytes),
                (Stream::Stdout, Body::Gap(length)) => {
                    self.gaps.push((self.offsets.stdout, length));
                }
                (Stream::Stderr, Body::Gap(_)) => {}
            }
            self.offsets = self.offsets.after(&record);
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Ends a process that a test left on purpose.
fn kill(pid: u32) {
    Process::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
}

#[tokio::test]
async fn a_command_ends_with_its_code_and_both_streams() {
    let mut bench = Bench::start(&shell("echo out; echo err >&2; exit 3"));
    let ended = bench.ended().await;
    assert_eq!((ended.cause, ended.exit_code, ended.signal), (Cause::Exited, Some(3), None));
    assert_eq!(ended.left_behind, 0);
    assert!(ended.started_at <= ended.finished_at);
    let output = bench.output(&ended);
    assert_eq!((output.text().as_str(), output.stderr.as_slice()), ("out\n", b"err\n".as_slice()));
    assert!(bench.spool.spawn(bench.key, &shell("true")).is_err(), "a task is spawned once");
    assert_eq!(bench.spool.list().unwrap(), [bench.key]);
    bench.spool.remove(bench.key).unwrap();
    assert_eq!(bench.found(), Found::Missing);
}

#[tokio::test]
async fn arguments_and_surroundings_are_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = shell("");
    let script = "printf '%s|' \"$@\" \"$(pwd)\" \"$(umask)\" \"$(nice)\" \"$A\" \"$PATH\"; cat; env | cut -d= -f1 | sort | tr '\\n' ' '; grep -E '^Sig(Blk|Ign)' /proc/self/status";
    let argv = ["/bin/sh", "-c", script, "sh", "a b", "$HOME"];
    spec.command = Command::Argv(argv.map(str::to_owned).to_vec());
    spec.cwd = Some(dir.path().to_str().unwrap().to_owned());
    spec.env = BTreeMap::from([("A".to_owned(), "x=y".to_owned())]);
    spec.umask = Some(0o027);
    spec.nice = Some(5);
    let mut bench = Bench::start(&spec);
    let ended = bench.ended().await;
    let text = bench.output(&ended).text();
    let cwd = dir.path().display();
    let expected = format!(
        "a b|$HOME|{cwd}|0027|5|x=y|/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin|A HOME "
    );
    assert!(text.starts_with(&expected), "{text}");
    assert!(
        text.contains(" LOGNAME ") && text.contains(" USER ") && !text.contains("CARGO"),
        "{text}"
    );
    // Signals 32 and 33 belong to the C library, which lets nobody set them (nptl(7)).
    let signals = |name: &str| {
        let line = text.lines().find_map(|line| line.split_once(name));
        u64::from_str_radix(line.unwrap().1.trim(), 16).unwrap() & !0x1_8000_0000
    };
    assert_eq!((signals("SigBlk:"), signals("SigIgn:")), (0, 0), "{text}");
}

#[tokio::test]
async fn what_cannot_start_is_refused_with_a_reason() {
    let check = async |change: fn(&mut Spec), reason: RefusalReason, says: &str| {
        let mut spec = shell("true");
        change(&mut spec);
        let mut bench = Bench::start(&spec);
        let (got, message) = bench.refused().await;
        assert!(got == reason && message.contains(says), "{got:?} {message}");
    };
    let spawn = RefusalReason::Spawn;
    check(
        |spec| spec.command = Command::Argv(vec!["no-such-program".into()]),
        spawn,
        "no-such-program",
    )
    .await;
    check(
        |spec| spec.command = Command::Argv(vec!["/etc/passwd".into()]),
        spawn,
        "Permission denied",
    )
    .await;
    check(|spec| spec.command = Command::Argv(vec![]), spawn, "empty").await;
    check(|spec| spec.cwd = Some("/no/such".into()), spawn, "enter directory \"/no/such\"").await;
    check(|spec| drop(spec.env.insert("A=B".into(), "c".into())), spawn, "\"A=B\"").await;
    check(
        |spec| spec.user = Some("no-such-user".into()),
        RefusalReason::User,
        "no user \"no-such-user\"",
    )
    .await;
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What an agent of an ordinary user says to a command for someone else.
async fn refuses_another_user(user: &str) {
    let mut spec = shell("true");
    spec.user = Some(user.to_owned());
    let (reason, message) = Bench::start(&spec).refused().await;
    assert!(reason == RefusalReason::User && message.contains(user), "{reason:?} {message}");
}

#[tokio::test]
async fn a_command_becomes_the_user_asked_for_whole() {
    if !is_root() {
        return refuses_another_user("nobody").await;
    }
    let mut spec = shell(
        "id -un; id -G; echo $HOME $USER; kill -9 $PPID || echo cannot; ls \"$SPOOL\" || echo closed",
    );
    spec.user = Some("nobody".to_owned());
    let bench = Bench::new();
    spec.env.insert("SPOOL".to_owned(), bench.dir().display().to_string());
    bench.spool.spawn(bench.key, &spec).unwrap();
    let mut bench = bench;
    let ended = bench.ended().await;
    let text = bench.output(&ended).text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "nobody");
    assert!(!lines[1].split(' ').any(|group| group == "0"), "{text}");
    assert!(lines[2].ends_with(" nobody") && lines[3..] == ["cannot", "closed"], "{text}");
}

#[tokio::test]
async fn an_agent_that_is_not_root_refuses_other_users() {
    if !is_root() {
        return refuses_another_user("root").await;
    }
    // A supervisor that runs as nobody, started the way an agent would.
    use std::os::unix::process::CommandExt as _;
    let bench = Bench::new();
    let dir = bench.dir();
    std::fs::create_dir(&dir).unwrap();
    let fifo = Process::new("mkfifo").arg(dir.join("control")).status().unwrap();
    assert!(fifo.success());
    let open = |path: &Path| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .unwrap();
    };
    for path in [&dir, &dir.join("control"), dir.parent().unwrap(), bench._dir.path()] {
        open(path);
    }
    let copy = bench._dir.path().join("supervisor");
    std::fs::copy(env!("CARGO_BIN_EXE_fw-supervise"), &copy).unwrap();
    open(&copy);
    let mut spec = shell("true");
    spec.user = Some("root".to_owned());
    let spec_file = bench._dir.path().join("spec");
    std::fs::write(&spec_file, minicbor::to_vec(&spec).unwrap()).unwrap();
    let stdin = std::fs::File::open(&spec_file).unwrap();
    let mut command = Process::new(&copy);
    command.arg("supervise-task").arg(&dir).stdin(stdin).uid(65534).gid(65534);
    assert!(command.status().unwrap().success());
    let Found::Refused(refusal) = bench.found() else { panic!("{:?}", bench.found()) };
    assert_eq!(refusal.reason, RefusalReason::User);
    assert!(refusal.message.contains("cannot run a command as \"root\""), "{}", refusal.message);
}

#[tokio::test]
async fn timeout_and_cancel_end_everything_even_what_ignores_term() {
    for cancel in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        let mut spec = shell(
            "trap '' TERM; (trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$ > \"$PIDS\"; while :; do sleep 1; done' &) ; while :; do sleep 1; done",
        );
        spec.env.insert("PIDS".to_owned(), pids.display().to_string());
        spec.kill_after = Span::from_millis(200);
        spec.timeout = (!cancel).then_some(Span::from_millis(1500));
        let mut bench = Bench::start(&spec);
        let escaped = bench.number_in(&pids).await;
        if cancel {
            assert!(bench.spool.cancel(bench.key).unwrap());
        }
        let ended = bench.ended().await;
        let cause = if cancel { Cause::Cancelled } else { Cause::TimedOut };
        assert_eq!((ended.cause, ended.signal, ended.left_behind), (cause, Some(9), 0));
        assert!(!is_alive(escaped), "ended only when everything of it is gone");
        let gone = |bench: &Bench| (!bench.spool.cancel(bench.key).unwrap()).then_some(());
        bench.until("the supervisor to be gone", gone).await;
    }
}

#[tokio::test]
async fn a_command_that_heeds_term_ends_in_its_own_way() {
    let mut spec = shell("trap 'echo bye; exit 4' TERM; echo ready; while :; do sleep 0.05; done");
    spec.kill_after = Span::from_secs(60);
    let mut bench = Bench::start(&spec);
    let key = bench.key;
    bench
        .until("output", |bench| {
            bench.spool.reader(key, Offsets::default()).next(MAX_CHUNK, &mut Vec::new()).unwrap()
        })
        .await;
    bench.spool.cancel(key).unwrap();
    let ended = bench.ended().await;
    assert_eq!((ended.cause, ended.exit_code), (Cause::Cancelled, Some(4)));
    assert_eq!(bench.output(&ended).text(), "ready\nbye\n");
}

#[tokio::test]
async fn a_daemon_that_keeps_stdout_hangs_nothing_and_lives_on() {
    let dir = tempfile::tempdir().unwrap();
    let pid_file = dir.path().join("pid");
    let mut spec = shell(
        "setsid sh -c 'echo $$ > \"$PID_FILE\"; exec sleep 300' & while ! [ -s \"$PID_FILE\" ]; do sleep 0.02; done; echo done",
    );
    spec.env.insert("PID_FILE".to_owned(), pid_file.display().to_string());
    let mut bench = Bench::start(&spec);
    let ended = bench.ended().await;
    let daemon = bench.number_in(&pid_file).await;
    assert_eq!((ended.cause, ended.exit_code), (Cause::Exited, Some(0)));
    assert!(ended.left_behind >= 1, "{ended:?}");
    assert!(
        ended.finished_at.since(ended.started_at) < Span::from_millis(1900),
        "it ended before its output was closed"
    );
    assert_eq!(bench.output(&ended).text(), "done\n");
    assert!(is_alive(daemon));
    kill(daemon);
}

#[tokio::test]
async fn a_command_that_closes_its_streams_is_waited_for() {
    let mut bench = Bench::start(&shell("echo before; exec >&- 2>&-; sleep 0.3; exit 5"));
    let ended = bench.ended().await;
    assert_eq!(ended.exit_code, Some(5));
    assert_eq!(bench.output(&ended).text(), "before\n");
}

#[tokio::test]
async fn long_lines_and_bytes_that_are_no_text_are_kept_as_they_are() {
    let mut bench = Bench::start(&shell(
        "head -c 10000000 /dev/zero | tr '\\0' x; printf '\\377\\376\\200\\0end'; printf '\\303' >&2",
    ));
    let ended = bench.ended().await;
    let output = bench.output(&ended);
    assert_eq!(output.stdout.len(), 10_000_000 + 7);
    assert!(output.stdout.ends_with(b"xx\xff\xfe\x80\0end"));
    assert_eq!(output.stderr, b"\xc3");
}

#[tokio::test]
async fn a_blocked_command_goes_on_when_space_is_freed_and_loses_nothing() {
    let mut spec = shell("seq 1 300000; echo last");
    spec.spool_bytes = 512 * 1024;
    let mut bench = Bench::start(&spec);
    let key = bench.key;
    let mut reader = bench.spool.reader(key, Offsets::default());
    let (mut output, mut chunk) = (Output::default(), Vec::new());
    let most = std::cell::Cell::new(0);
    let ended = bench
        .until("the end", |bench| {
            let sizes = std::fs::read_dir(bench.dir()).unwrap().flatten();
            let sizes = sizes.filter(|file| file.file_name().to_string_lossy().starts_with("seg-"));
            let size: u64 =
                sizes.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum();
            most.set(most.get().max(size));
            let ended = matches!(bench.found(), Found::Ended(_)).then(|| bench.found());
            while reader.next(MAX_CHUNK, &mut chunk).unwrap().is_some() {
                output.add(&chunk);
                bench.spool.trim(key, output.offsets).unwrap();
            }
            ended
        })
        .await;
    let Found::Ended(ended) = ended else { unreachable!("asked above") };
    let expected: String =
        (1..=300_000).map(|number| format!("{number}\n")).collect::<String>() + "last\n";
    assert!(output.text() == expected, "{} of {} bytes", output.stdout.len(), expected.len());
    assert_eq!((ended.exit_code, output.offsets), (Some(0), ended.output));
    assert_eq!(ended.output.stdout_dropped, 0);
    assert!(most.get() < 800 * 1024, "{} bytes in a spool of 512 KiB", most.get());
}

#[tokio::test]
async fn a_full_spool_blocks_until_the_timeout_which_runs_on() {
    let mut spec = shell("while :; do echo more and more and more; done");
    spec.spool_bytes = 512 * 1024;
    spec.timeout = Some(Span::from_secs(2));
    let mut bench = Bench::start(&spec);
    let ended = bench.ended().await;
    assert_eq!(ended.cause, Cause::TimedOut);
    assert_eq!(ended.output.stdout_dropped, 0);
    assert!(ended.output.stdout < 1024 * 1024, "{:?}", ended.output);
    bench.output(&ended);
}

#[tokio::test]
async fn a_full_spool_that_drops_records_the_gap_and_lets_the_command_run() {
    let mut spec = shell("seq 1 400000; sleep 1.2; echo after");
    spec.spool_bytes = 512 * 1024;
    spec.on_full = OnFull::Drop;
    let mut bench = Bench::start(&spec);
    let key = bench.key;
    // Once it drops, free everything, so that it keeps what comes after.
    let total: u64 = (1..=400_000_u64).map(|number| number.to_string().len() as u64 + 1).sum();
    let mut output = Output::default();
    let mut reader = bench.spool.reader(key, Offsets::default());
    let mut chunk = Vec::new();
    let ended = bench
        .until("the end", |bench| {
            let found = bench.found();
            let done = matches!(found, Found::Ended(_));
            let segments = std::fs::read_dir(bench.dir()).unwrap().flatten();
            let bytes: u64 =
                segments.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum();
            while (done || bytes > 300 * 1024)
                && reader.next(MAX_CHUNK, &mut chunk).unwrap().is_some()
            {
                output.add(&chunk);
                bench.spool.trim(key, output.offsets).unwrap();
            }
            match found {
                Found::Ended(ended) => Some(ended),
                _ => None,
            }
        })
        .await;
    assert_eq!((ended.exit_code, output.offsets), (Some(0), ended.output));
    assert_eq!(ended.output.stdout + ended.output.stdout_dropped, total + 6);
    assert_eq!(output.gaps.iter().map(|gap| gap.1).sum::<u64>(), ended.output.stdout_dropped);
    assert_eq!(Some(Sha256::digest(&output.stdout).into()), ended.stdout_sha256);
}

#[tokio::test]
async fn a_full_disk_is_a_gap_and_not_a_failure() {
    // A file system of its own, of one megabyte.
    if !is_root() {
        // Only root can mount here; the tests of the whole binary fill a disk in a user namespace.
        eprintln!("not root: see the full disks of crates/fleetwright/tests/commands.rs");
        return;
    }
    let mount = tempfile::tempdir().unwrap();
    let mounted = Process::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(mount.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        return;
    }
    let spool = Spool::open(mount.path()).unwrap();
    let mut bench = Bench::new();
    bench.wake = spool.wake().unwrap();
    bench.spool = spool.with_supervisor(PathBuf::from(env!("CARGO_BIN_EXE_fw-supervise")));
    bench.spool.spawn(bench.key, &shell("head -c 5000000 /dev/zero; exit 6")).unwrap();
    let ended = bench.ended().await;
    let output = bench.output(&ended);
    Process::new("umount").arg("-l").arg(mount.path()).status().unwrap();
    assert_eq!(ended.exit_code, Some(6));
    assert!(
        ended.output.stdout > 100_000 && ended.output.stdout_dropped > 3_000_000,
        "{:?}",
        ended.output
    );
    assert_eq!(ended.output.stdout + ended.output.stdout_dropped, 5_000_000);
    assert_eq!(output.gaps.iter().map(|gap| gap.1).sum::<u64>(), ended.output.stdout_dropped);
}

#[tokio::test]
async fn secrets_never_reach_the_disk() {
    let mut spec = shell(
        "echo \"token: $TOKEN\"; printf %s \"$TOKEN\" | base64; printf hunt; sleep 0.2; printf er22; sleep 0.2; printf x",
    );
    spec.secrets.insert("TOKEN".to_owned(), "hunter22".to_owned());
    let mut bench = Bench::start(&spec);
    let ended = bench.ended().await;
    assert_eq!(bench.output(&ended).text(), "token: ***\n***\n***x");
    for file in std::fs::read_dir(bench.dir()).unwrap().flatten() {
        if file.file_type().unwrap().is_file() {
            let bytes = std::fs::read(file.path()).unwrap();
            assert!(!String::from_utf8_lossy(&bytes).contains("hunter22"), "{:?}", file.path());
        }
    }
}

#[tokio::test]
async fn output_resumes_at_any_offset() {
    let mut bench =
        Bench::start(&shell("for n in 1 2 3 4 5; do echo out$n; echo err$n >&2; sleep 0.03; done"));
    let ended = bench.ended().await;
    let whole = bench.output(&ended);
    for (stdout, stderr) in [(0, 0), (3, 0), (5, 5), (7, 5), (25, 20), (25, 25)] {
        let resume = Offsets { stdout, stderr, ..Offsets::default() };
        let rest = Output::read(&mut bench.spool.reader(bench.key, resume));
        assert_eq!(rest.offsets, ended.output);
        assert_eq!(rest.stdout, &whole.stdout[usize::try_from(stdout).unwrap()..]);
        assert_eq!(rest.stderr, &whole.stderr[usize::try_from(stderr).unwrap()..]);
    }
}

#[tokio::test]
async fn a_supervisor_that_is_killed_leaves_a_dead_task() {
    let mut bench = Bench::start(&shell("echo $PPID; sleep 60"));
    let key = bench.key;
    let mut chunk = Vec::new();
    bench
        .until("output", |bench| {
            bench.spool.reader(key, Offsets::default()).next(MAX_CHUNK, &mut chunk).unwrap()
        })
        .await;
    let mut output = Output::default();
    output.add(&chunk);
    let command: u32 =
        std::fs::read_to_string(bench.dir().join("pid")).unwrap().trim().parse().unwrap();
    kill(output.text().trim().parse().unwrap());
    bench
        .until("the death", |bench| matches!(bench.found(), Found::Dead { .. }).then_some(()))
        .await;
    assert!(!bench.spool.cancel(key).unwrap());
    kill(command);
    bench.spool.remove(key).unwrap();
}

#[tokio::test]
async fn a_supervisor_outlives_its_parent() {
    // The parent is a shell that is killed while the command runs; the spool is then opened anew.
    let bench = Bench::new();
    let (dir, key) = (bench._dir.path().to_owned(), bench.key);
    let task = bench.dir();
    std::fs::create_dir(&task).unwrap();
    assert!(Process::new("mkfifo").arg(task.join("control")).status().unwrap().success());
    let go = dir.join("go");
    let mut spec = shell("echo begin; while ! [ -e \"$GO\" ]; do sleep 0.02; done; echo end");
    spec.env.insert("GO".to_owned(), go.display().to_string());
    let spec_file = dir.join("spec");
    std::fs::write(&spec_file, minicbor::to_vec(&spec).unwrap()).unwrap();
    let script = "\"$0\" supervise-task \"$1\" < \"$2\" & wait";
    let mut parent = Process::new("/bin/sh");
    parent.args(["-c", script, env!("CARGO_BIN_EXE_fw-supervise")]).arg(&task).arg(&spec_file);
    let mut parent = parent.spawn().unwrap();
    let mut bench = bench;
    bench
        .until("the start", |bench| matches!(bench.found(), Found::Running { .. }).then_some(()))
        .await;
    parent.kill().unwrap();
    parent.wait().unwrap();
    bench.spool = Spool::open(&dir).unwrap();
    assert!(matches!(bench.found(), Found::Running { .. }));
    std::fs::write(&go, "").unwrap();
    let ended = bench.ended().await;
    assert_eq!(bench.output(&ended).text(), "begin\nend\n");
    assert_eq!(bench.spool.list().unwrap(), [key]);
}

#[tokio::test]
async fn a_spec_that_is_cut_short_starts_nothing() {
    let mut bench = Bench::new();
    bench.spool = Spool::open(bench._dir.path()).unwrap().with_supervisor("/bin/true".into());
    // A big spec, so that the write meets a reader that is gone, or fills the pipe first.
    drop(bench.spool.spawn(bench.key, &shell(&"#".repeat(1_000_000))));
    bench
        .until("the end of the supervisor", |bench| {
            matches!(bench.found(), Found::NotStarted).then_some(())
        })
        .await;
}

#[tokio::test]
async fn the_containment_that_is_reported_is_the_one_that_is_used() {
    let mut bench = Bench::start(&shell("true"));
    bench.ended().await;
    let started = std::fs::read_to_string(bench.dir().join("started")).unwrap();
    let started: serde_json::Value = serde_json::from_str(&started).unwrap();
    let used: Containment = serde_json::from_value(started["containment"].clone()).unwrap();
    assert_eq!(used, containment());
}

#[tokio::test]
async fn what_a_power_cut_leaves_of_the_marks_is_a_dead_task() {
    let mut bench = Bench::start(&shell("echo out"));
    bench.ended().await;
    let status = bench.dir().join("status");
    bench
        .until("the end of the supervisor", |bench| {
            (!bench.spool.cancel(bench.key).unwrap()).then_some(())
        })
        .await;
    for torn in [&b""[..], b"{\"ended\":{", b"\0\0\0\0"] {
        std::fs::write(&status, torn).unwrap();
        assert!(matches!(bench.found(), Found::Dead { started_at } if started_at.as_millis() > 0));
    }
    std::fs::write(bench.dir().join("started"), "").unwrap();
    assert!(matches!(bench.found(), Found::Dead { started_at } if started_at.as_millis() > 0));
    std::fs::remove_file(status).unwrap();
    std::fs::remove_file(bench.dir().join("control")).unwrap();
    assert!(matches!(bench.found(), Found::Dead { .. }));
    let output = Output::read(&mut bench.spool.reader(bench.key, Offsets::default()));
    assert_eq!(output.text(), "out\n");
    bench.spool.remove(bench.key).unwrap();
    assert_eq!(bench.found(), Found::Missing);
}

#[tokio::test]
async fn what_stands_before_damage_is_read_and_then_the_damage_is_told() {
    let mut bench = Bench::start(&shell("echo one; sleep 0.1; echo two"));
    let ended = bench.ended().await;
    assert_eq!(bench.output(&ended).text(), "one\ntwo\n");
    let files = std::fs::read_dir(bench.dir()).unwrap().flatten().map(|file| file.path());
    let segment = files.filter(|path| path.to_string_lossy().contains("/seg-")).max().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let last = bytes.len() - record::HEADER - "two\n".len();
    // A power cut may leave a file its length and take its bytes.
    bytes[last..].fill(0);
    std::fs::write(&segment, &bytes).unwrap();
    let mut reader = bench.spool.reader(bench.key, Offsets::default());
    let mut chunk = Vec::new();
    let (_, to) = reader.next(MAX_CHUNK, &mut chunk).unwrap().unwrap();
    assert_eq!((to.stdout, to.stderr), (4, 0));
    let error = reader.next(MAX_CHUNK, &mut chunk).unwrap_err();
    assert!(fw_agent::spool::is_damage(&error), "{error}");
}
