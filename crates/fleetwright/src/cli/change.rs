//! What `rollouts` and `runbook` have in common: waiting for one, and what is made of how it stands.

use std::time::Duration;

use fw_proto::api::{ChangeBegun, ChangeState};
use fw_proto::{ChangeId, RunId};
use fw_rt::Backoff;
use serde::Serialize;

use super::Session;
use crate::client;
use crate::exit::Code;
use crate::output::{self, Format};
use crate::watch::interrupted;

/// How often it is looked at while somebody waits.
const LOOK: Duration = Duration::from_millis(500);

/// Which one.
#[derive(Debug, clap::Args)]
pub(crate) struct One {
    /// Its id.
    #[arg(value_name = "ID")]
    pub(crate) id: ChangeId,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
}

/// Which of them.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// At most so many; 0 for all. Tables have 50 when absent, the other formats all.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Form of the list.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
}

/// The answer of one that was begun and is not waited for.
#[derive(Debug, Serialize)]
struct Begun {
    id: ChangeId,
}

/// Says what there is to know of one that was begun; and prints its id, for those who do not wait.
pub(crate) fn left(
    begun: &ChangeBegun,
    noun: &str,
    detach: bool,
    format: Format,
) -> anyhow::Result<Option<Code>> {
    begun.warning.iter().for_each(|warning| output::say(&format!("warning: {warning}")));
    detach.then(|| leave(begun.id, noun, format)).transpose()
}

fn leave(id: ChangeId, noun: &str, format: Format) -> anyhow::Result<Code> {
    let page = || format!("{id}\n");
    output::print(&output::item(&Begun { id }, &id.to_string(), format, page)?)?;
    if matches!(format, Format::Table | Format::Wide) {
        output::say(&goes_on(id, noun));
    }
    Ok(Code::Success)
}

/// What to type next.
pub(crate) fn goes_on(id: ChangeId, noun: &str) -> String {
    format!(
        "it goes on\n  follow it: fleetwright {noun} watch {id}\n  end it: fleetwright {noun} abort {id}"
    )
}

/// How one stands.
pub(crate) trait Stands {
    /// Its state.
    fn state(&self) -> ChangeState;
    /// Why it does not go on, or what it does.
    fn why(&self) -> Option<&str>;
    /// How far that is.
    fn progress(&self) -> Option<String> {
        None
    }
}

/// Looks at one until nothing happens any more without a person: it has ended, is paused, or waits for
/// somebody. What it does meanwhile is told on stderr. `None` after Ctrl+C.
///
/// # Errors
/// The server refuses.
pub(crate) async fn watch<T: Stands>(
    session: &Session,
    mut look: impl AsyncFnMut() -> Result<T, client::Error>,
) -> anyhow::Result<Option<T>> {
    let following = async {
        let mut told = String::new();
        loop {
            let now = patiently(&mut look).await?;
            let text = match now.progress() {
                Some(progress) => format!("{}, {progress}", sentence(&now)),
                None => sentence(&now),
            };
            if told != text {
                output::say(&text);
                told = text;
            }
            if !goes_on_alone(now.state()) {
                return Ok::<_, anyhow::Error>(now);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        end = following => end.map(Some),
        () = interrupted(&session.tasks) => Ok(None),
    }
}

/// A server that is away for a while is waited for.
async fn patiently<T>(
    look: &mut impl AsyncFnMut() -> Result<T, client::Error>,
) -> Result<T, client::Error> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let mut told = false;
    loop {
        match look().await {
            Err(error) if error.may_pass() => {
                if !std::mem::replace(&mut told, true) {
                    output::say(&format!("{}; trying again (Ctrl+C detaches)", error.told()));
                }
                tokio::time::sleep(backoff.next_wait()).await;
            }
            answer => return answer,
        }
    }
}

/// How it stands, in a line.
pub(crate) fn sentence(now: &impl Stands) -> String {
    let state = now.state().as_str();
    now.why().map_or_else(|| state.to_owned(), |why| format!("{state}: {why}"))
}

/// Where to read why something failed.
pub(crate) fn printed(runs: impl IntoIterator<Item = RunId>) {
    for run in runs {
        output::say(&format!("what it printed: fleetwright runs logs {run}"));
    }
}

const fn goes_on_alone(state: ChangeState) -> bool {
    match state {
        ChangeState::Planned | ChangeState::Running | ChangeState::Undoing => true,
        ChangeState::Paused
        | ChangeState::AwaitingApproval
        | ChangeState::AwaitingPerson
        | ChangeState::Succeeded
        | ChangeState::Failed
        | ChangeState::Undone
        | ChangeState::UndoFailed => false,
    }
}

/// The exit code for how it stands when it was only looked at: whoever is asked to approve hears of it.
pub(crate) const fn looked(state: ChangeState) -> Code {
    match state {
        ChangeState::AwaitingApproval => Code::Approval,
        ChangeState::Planned
        | ChangeState::Running
        | ChangeState::Paused
        | ChangeState::AwaitingPerson
        | ChangeState::Undoing
        | ChangeState::Succeeded
        | ChangeState::Failed
        | ChangeState::Undone
        | ChangeState::UndoFailed => Code::Success,
    }
}

/// The exit code when it was waited for. What was taken back did not come about, unless just that was wanted.
pub(crate) const fn outcome(state: ChangeState, undo_wanted: bool) -> Code {
    match state {
        ChangeState::AwaitingApproval | ChangeState::AwaitingPerson => Code::Approval,
        ChangeState::Succeeded => Code::Success,
        ChangeState::Undone if undo_wanted => Code::Success,
        ChangeState::Planned
        | ChangeState::Running
        | ChangeState::Undoing
        | ChangeState::Paused
        | ChangeState::Failed
        | ChangeState::Undone
        | ChangeState::UndoFailed => Code::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_approval_that_is_waited_for_has_a_code_of_its_own() {
        for (state, waited, looked_at) in [
            (ChangeState::AwaitingApproval, 8, 8),
            (ChangeState::AwaitingPerson, 8, 0),
            (ChangeState::Succeeded, 0, 0),
            (ChangeState::Paused, 1, 0),
            (ChangeState::Failed, 1, 0),
            (ChangeState::Undone, 1, 0),
            (ChangeState::UndoFailed, 1, 0),
        ] {
            assert_eq!(outcome(state, false).number(), waited, "{state:?}");
            assert_eq!(looked(state).number(), looked_at, "{state:?}");
        }
        assert_eq!(outcome(ChangeState::Undone, true), Code::Success);
        assert_eq!(outcome(ChangeState::UndoFailed, true), Code::Error);
    }
}
