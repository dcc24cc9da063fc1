//! Rollouts that run: begun, followed, paused, approved, ended and taken back.

use fw_proto::ChangeId;
use fw_proto::api::{ChangeState, ChangeVerb, Rollout, RolloutHostState, RolloutText};

use crate::cli::change::{self, ListArgs, One, Stands};
use crate::cli::{Session, ask, runs};
use crate::exit::Code;
use crate::output::{self, Format};

/// What `watch` and others are called under.
const NOUN: &str = "rollouts";

/// What to do with rollouts that run.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Begin a rollout, and follow it.
    ///
    /// It ends with exit code 8 when it waits for an approval, and goes on at the server.
    Start(StartArgs),
    /// List rollouts, newest first.
    List(ListArgs),
    /// Show a rollout: its waves, its hosts and what proves them. Exit code 8 while it waits for an approval.
    Show(One),
    /// Follow a rollout until it ends or waits for somebody.
    Watch(One),
    /// Let a rollout begin nothing more for now; what runs ends.
    Pause(One),
    /// Let a paused rollout go on; what failed is tried again.
    Resume(One),
    /// Approve what a rollout waits for.
    Approve(One),
    /// End a rollout; what is done stays.
    Abort(One),
    /// Take a rollout back, on all hosts that it was begun on.
    Undo(One),
}

#[derive(Debug, clap::Args)]
pub(crate) struct StartArgs {
    /// The file (YAML); `-` is stdin.
    file: String,
    /// Print the id and do not wait.
    #[arg(long)]
    detach: bool,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

impl Stands for Rollout {
    fn state(&self) -> ChangeState {
        self.summary.state
    }

    fn why(&self) -> Option<&str> {
        self.summary.why.as_deref()
    }

    fn progress(&self) -> Option<String> {
        let count =
            |state: RolloutHostState| self.hosts.iter().filter(|host| host.state == state).count();
        let (all, failed) = (self.hosts.len(), self.budget.failed);
        match self.summary.state {
            ChangeState::Running => {
                let done = count(RolloutHostState::Done);
                let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
                Some(format!("{done} of {all} hosts done{failed}"))
            }
            ChangeState::Undoing => {
                Some(format!("{} hosts taken back", count(RolloutHostState::Undone)))
            }
            ChangeState::Planned
            | ChangeState::Paused
            | ChangeState::AwaitingApproval
            | ChangeState::AwaitingPerson
            | ChangeState::Succeeded
            | ChangeState::Failed
            | ChangeState::Undone
            | ChangeState::UndoFailed => None,
        }
    }
}

/// Does it.
pub(crate) async fn run(session: &Session, verb: Verb) -> anyhow::Result<Code> {
    match verb {
        Verb::Start(args) => start(session, args).await,
        Verb::List(args) => list(session, args).await,
        Verb::Show(one) => {
            let rollout = session.client.rollout(one.id).await?;
            print(session, &rollout, one.output)?;
            tell(&rollout);
            Ok(change::looked(rollout.summary.state))
        }
        Verb::Watch(one) => watch(session, one.id, one.output).await,
        Verb::Pause(one) => act(session, one, ChangeVerb::Pause).await,
        Verb::Resume(one) => act(session, one, ChangeVerb::Resume).await,
        Verb::Approve(one) => act(session, one, ChangeVerb::Approve).await,
        Verb::Abort(one) => act(session, one, ChangeVerb::Abort).await,
        Verb::Undo(one) => act(session, one, ChangeVerb::Undo).await,
    }
}

async fn start(session: &Session, args: StartArgs) -> anyhow::Result<Code> {
    let (text, name) = ask::text_of(&args.file)?;
    let text = RolloutText { text, name: Some(name), dry: false };
    let begun = session.client.begin_rollout(&text).await?;
    if let Some(code) = change::left(&begun, NOUN, args.detach, args.output)? {
        return Ok(code);
    }
    output::say(&format!("rollout {}", begun.id));
    watch(session, begun.id, args.output).await
}

async fn list(session: &Session, args: ListArgs) -> anyhow::Result<Code> {
    let rollouts = session.client.rollouts(runs::limit(args.limit, args.output)).await?;
    output::print(&output::list(&rollouts, args.output, session.now())?)?;
    Ok(Code::Success)
}

async fn watch(session: &Session, id: ChangeId, format: Format) -> anyhow::Result<Code> {
    let Some(end) = change::watch(session, async || session.client.rollout(id).await).await? else {
        output::say(&format!("\ndetached; {}", change::goes_on(id, NOUN)));
        return Ok(Code::Interrupted);
    };
    print(session, &end, format)?;
    tell(&end);
    let code = change::outcome(end.summary.state, false);
    let partial = code == Code::Success && end.budget.failed > 0;
    Ok(if partial { Code::Partial } else { code })
}

/// Says what to type next.
fn tell(rollout: &Rollout) {
    let (id, failed) = (rollout.summary.id, rollout.budget.failed > 0);
    let last = || rollout.runs.iter().rev().find(|run| !run.undo).map(|run| run.run);
    match rollout.summary.state {
        ChangeState::AwaitingApproval => {
            output::say(&format!("approve it: fleetwright rollouts approve {id}"));
        }
        ChangeState::Paused => {
            change::printed(last().filter(|_| failed));
            output::say(&format!("go on: fleetwright rollouts resume {id}"));
        }
        ChangeState::Failed | ChangeState::Undone => change::printed(last().filter(|_| failed)),
        ChangeState::UndoFailed => {
            change::printed(rollout.runs.iter().filter(|run| run.undo).map(|run| run.run));
        }
        ChangeState::Planned
        | ChangeState::Running
        | ChangeState::AwaitingPerson
        | ChangeState::Undoing
        | ChangeState::Succeeded => {}
    }
}

async fn act(session: &Session, one: One, verb: ChangeVerb) -> anyhow::Result<Code> {
    let rollout = session.client.ask_rollout(one.id, verb).await?;
    let page = || format!("{}\n", change::sentence(&rollout));
    output::print(&output::item(&rollout, &one.id.to_string(), one.output, page)?)?;
    Ok(Code::Success)
}

fn print(session: &Session, rollout: &Rollout, format: Format) -> anyhow::Result<()> {
    let page = || output::rollout_page(rollout, session.now());
    let name = rollout.summary.id.to_string();
    Ok(output::print(&output::item(rollout, &name, format, page)?)?)
}
