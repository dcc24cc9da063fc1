//! Commands that take a notice.

use std::process::Stdio;
use std::time::Duration;

use fw_store::Notice;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tracing::debug;

/// A command has so long to end.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);

/// What a process that a command left behind may still write is waited for so long.
const OUTPUT_WITHIN: Duration = Duration::from_secs(1);

/// Of a command's output so much is kept, for the log.
const OUTPUT: u64 = 4096;

/// What a notice's command may look for programs in; the server's own environment may hold secrets.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a command as the server's own user, with the run on its standard input.
pub(super) async fn execute(argv: &[String], notice: &Notice) -> Result<(), String> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err("it names no program".to_owned());
    };
    let spawned = tokio::process::Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("FLEETWRIGHT_JOB", notice.job.as_str())
        .env("FLEETWRIGHT_RUN", notice.run.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = spawned.map_err(|error| format!("{program} cannot be started: {error}"))?;
    let group =
        child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let ended =
        tokio::time::timeout(COMMAND_WITHIN, attend(&mut child, &notice.body, &mut out, &mut err))
            .await;
    let why = match ended {
        Ok(Ok(status)) if status.success() => return Ok(()),
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(error)) => format!("it cannot be waited for: {error}"),
        Err(_) => {
            // It was not waited for yet, so the group is still its own.
            if let Some(Err(error)) = group.map(|group| {
                rustix::process::kill_process_group(group, rustix::process::Signal::KILL)
            }) {
                debug!(%error, "command of a notice cannot be killed");
            }
            format!("it had not ended after {COMMAND_WITHIN:?} and was killed")
        }
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Err(format!("{program}: {why}; stdout: {:?}, stderr: {:?}", text(&out), text(&err)))
}

/// Feeds the command, keeps the beginning of its output, and waits for its end.
async fn attend(
    child: &mut tokio::process::Child,
    body: &str,
    out: &mut Vec<u8>,
    err: &mut Vec<u8>,
) -> std::io::Result<std::process::ExitStatus> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A command need not read what it does not want to know.
            drop(stdin.write_all(body.as_bytes()).await);
        }
    };
    let mut talking =
        std::pin::pin!(async { tokio::join!(feed, keep(stdout, out), keep(stderr, err)) });
    let mut silent = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            _ = &mut talking, if !silent => silent = true,
        }
    };
    if !silent {
        // What comes later is another process's.
        drop(tokio::time::timeout(OUTPUT_WITHIN, talking).await);
    }
    Ok(status)
}

/// Reads a pipe to its end and keeps the beginning.
async fn keep(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    // A pipe that breaks has ended.
    drop((&mut pipe).take(OUTPUT).read_to_end(kept).await);
    drop(tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await);
}

#[cfg(test)]
mod tests {
    use fw_proto::Timestamp;
    use fw_proto::api::Hook;

    use super::*;

    fn notice(body: &str) -> Notice {
        Notice {
            id: 1,
            run: "0190a5c2-0000-7000-8000-000000000001".parse().unwrap(),
            job: "nightly".parse().unwrap(),
            hook: Hook::Command(Vec::new()),
            body: body.to_owned(),
            attempts: 0,
            next_at: Timestamp::EPOCH,
        }
    }

    fn shell(text: &str) -> Vec<String> {
        ["/bin/sh", "-c", text].map(str::to_owned).to_vec()
    }

    #[tokio::test]
    async fn a_command_gets_the_run_and_its_output_is_told_when_it_fails() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("got").display().to_string();
        let body = "x".repeat(1024 * 1024);
        execute(&shell(&format!("cat > {file}")), &notice(&body)).await.unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), body);
        let why =
            execute(&shell("echo said $FLEETWRIGHT_JOB; echo no >&2; exit 3"), &notice(&body))
                .await;
        assert_eq!(
            why.unwrap_err(),
            "/bin/sh: exit status: 3; stdout: \"said nightly\", stderr: \"no\""
        );
        let why = execute(&["/nonexistent".to_owned()], &notice("")).await.unwrap_err();
        assert_eq!(why, "/nonexistent cannot be started: No such file or directory (os error 2)");
    }

    #[tokio::test]
    async fn a_command_that_leaves_a_process_behind_has_ended() {
        execute(&shell("sleep 300 & exit 0"), &notice("")).await.unwrap();
    }
}
