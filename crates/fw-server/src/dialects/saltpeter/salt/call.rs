//! Calls of the program `salt`, and what it answers.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

/// Salt waits 30 s for minions and 10 s more for those that do not answer; beyond this it hangs.
const WITHIN: Duration = Duration::from_secs(120);

/// The most that is read of one call: the grains of some thousand minions.
const MOST: usize = 256 * 1024 * 1024;

/// The end of what it wrote on stderr that is worth telling.
const TOLD: usize = 2000;

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The program.
    #[error("start {program}")]
    Start {
        /// Which.
        program: String,
        /// What happened.
        source: std::io::Error,
    },
    /// Its output.
    #[error("read what salt says")]
    Read(#[from] std::io::Error),
    /// It hangs.
    #[error("salt has not ended for {} s", WITHIN.as_secs())]
    Late,
    /// It says something else.
    #[error("salt ended with {code} and said: {said}")]
    Failed {
        /// Its exit code; -1 for a signal.
        code: i32,
        /// What it said.
        said: String,
    },
}

/// Calls salt and gives what each minion answered to `take`, as soon as it is there.
///
/// # Errors
/// The program cannot be started, hangs, or says nothing that can be read and fails.
pub(super) async fn salt(
    program: &Path,
    arguments: Vec<OsString>,
    take: impl FnMut(String, Value),
) -> Result<(), Error> {
    let mut command = Command::new(program);
    command.args(["--out=json", "--out-indent=-1"]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let shown = || program.display().to_string();
    let child = command.spawn().map_err(|source| Error::Start { program: shown(), source })?;
    tokio::time::timeout(WITHIN, listen(child, take)).await.map_err(|_| Error::Late)?
}

async fn listen(mut child: Child, mut take: impl FnMut(String, Value)) -> Result<(), Error> {
    let mut stdout = child.stdout.take().expect("it is piped");
    let mut stderr = child.stderr.take().expect("it is piped");
    let hearing = async {
        let (mut heard, mut answers) = (Vec::new(), 0_usize);
        loop {
            let before = heard.len();
            let more = stdout.read_buf(&mut heard).await?;
            // An object is a line. Who tried at each piece would read a long one again and again.
            if more == 0 || heard.iter().skip(before).any(|byte| *byte == b'\n') {
                answers += drain(&mut heard, &mut take);
            }
            if more == 0 || heard.len() > MOST {
                return std::io::Result::Ok((answers, heard));
            }
        }
    };
    let complaining = async {
        let mut said = Vec::new();
        stderr.read_to_end(&mut said).await?;
        std::io::Result::Ok(said)
    };
    let (heard, said) = tokio::join!(hearing, complaining);
    let ((answers, rest), said) = (heard?, said?);
    let status = child.wait().await?;
    if answers > 0 || status.success() {
        return Ok(());
    }
    let said = format!("{}{}", String::from_utf8_lossy(&said), String::from_utf8_lossy(&rest));
    let said = said.trim();
    let from = said.ceil_char_boundary(said.len().saturating_sub(TOLD));
    let said = said.get(from..).unwrap_or_default().to_owned();
    Err(Error::Failed { code: status.code().unwrap_or(-1), said })
}

/// Takes whole objects off the front; how many answers they held. Without `--static` there is one for each
/// minion.
fn drain(heard: &mut Vec<u8>, take: &mut impl FnMut(String, Value)) -> usize {
    let mut objects =
        serde_json::Deserializer::from_slice(heard).into_iter::<BTreeMap<String, Value>>();
    let (mut answers, mut end) = (0, 0);
    while let Some(Ok(object)) = objects.next() {
        answers += object.len();
        object.into_iter().for_each(|(minion, answer)| take(minion, answer));
        end = objects.byte_offset();
    }
    heard.drain(..end);
    answers
}

/// What went wrong on a minion that was to start a wrapper; `None` when it may have worked.
pub(super) fn failure(answer: &Value) -> Option<String> {
    let code = answer.get("retcode")?.as_i64().filter(|code| *code != 0)?;
    let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default().trim();
    Some(format!(
        "Wrapper failed to start - Exit code {code}\nSTDERR: {}\nSTDOUT: {}",
        text("stderr"),
        text("stdout")
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_taken_as_they_come_whole() {
        let mut taken = Vec::new();
        let mut heard = b"{\"m1\": true}\n{\"m2\": {\"retcode\"".to_vec();
        let mut take = |minion: String, answer| taken.push((minion, answer));
        assert_eq!(drain(&mut heard, &mut take), 1);
        heard.extend_from_slice(b": 1}}\n");
        assert_eq!(drain(&mut heard, &mut take), 1);
        assert!(heard.trim_ascii().is_empty());
        assert_eq!(
            taken,
            [("m1".to_owned(), json!(true)), ("m2".to_owned(), json!({"retcode": 1}))]
        );
    }

    #[test]
    fn only_an_exit_code_is_a_failure() {
        let failed = json!({"retcode": 127, "stderr": "no such file\n", "stdout": ""});
        assert_eq!(
            failure(&failed).as_deref(),
            Some("Wrapper failed to start - Exit code 127\nSTDERR: no such file\nSTDOUT: ")
        );
        for good in
            [json!({"retcode": 0}), json!("Minion did not return. [No response]"), json!(false)]
        {
            assert_eq!(failure(&good), None);
        }
    }

    #[tokio::test]
    async fn a_last_answer_without_an_end_of_line_is_taken_too() {
        let text = r#"printf '{"m1": 1}\n{"m2"'; printf ': 2}'"#;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("salt");
        std::fs::write(&path, text).unwrap();
        let mut taken = Vec::new();
        let heard = listen(
            Command::new("sh")
                .arg(&path)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
            |minion, answer| taken.push((minion, answer)),
        );
        heard.await.unwrap();
        assert_eq!(taken, [("m1".to_owned(), json!(1)), ("m2".to_owned(), json!(2))]);
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_or_fails_is_told() {
        let no = salt(Path::new("/nowhere/salt"), Vec::new(), |_, _| {}).await.unwrap_err();
        assert_eq!(no.to_string(), "start /nowhere/salt");
        let no = salt(Path::new("/bin/false"), Vec::new(), |_, _| {}).await.unwrap_err();
        assert_eq!(no.to_string(), "salt ended with 1 and said: ");
    }
}
