//! Runbooks that run: begun, followed, and what people say of their steps.

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};

use anyhow::Context as _;
use fw_core::runbook::plan;
use fw_proto::ChangeId;
use fw_proto::api::{
    ChangeState, ChangeVerb, NewRunbook, ReportFormat, Runbook, RunbookStep, StepNote, StepState,
    StepVerb,
};

use crate::cli::change::{self, ListArgs, One, Stands};
use crate::cli::{Refusal, Session, ask, parse, runs};
use crate::exit::Code;
use crate::output::{self, Format};

/// What `watch` and others are called under.
const NOUN: &str = "runbook";

/// What to do with runbooks that run.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Run a runbook, and follow it.
    ///
    /// At a terminal it asks at each step that waits for a person. Elsewhere it ends with exit code 8
    /// there, says what to type, and goes on at the server.
    Run(RunArgs),
    /// List runbooks that were begun, newest first.
    List(ListArgs),
    /// Show a runbook that was begun, step by step. Exit code 8 while it waits for an approval.
    Show(One),
    /// Follow a runbook until it ends or waits for somebody.
    Watch(One),
    /// Let a runbook begin nothing more for now; what runs ends.
    Pause(One),
    /// Let a paused runbook go on; what failed is tried again.
    Resume(One),
    /// Say that a step that a person does is done.
    Tick(StepArgs),
    /// Let a step run that asks before it does.
    Confirm(StepArgs),
    /// Go on without a step that waits for a person, or has failed.
    Skip(StepArgs),
    /// Approve what a runbook waits for.
    Approve(One),
    /// End a runbook; what is done stays.
    Abort(One),
    /// Take a runbook back: the undo of each step that was begun, the last one first.
    Undo(One),
    /// Print the record of a runbook: the document with who did what, when, where, output and proof.
    Report(ReportArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The document; `-` is stdin.
    file: String,
    /// A value that the runbook asks for; repeat for more.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse::pair)]
    input: Vec<(String, String)>,
    /// Where steps run that name no hosts.
    #[arg(long, value_name = "SELECTOR")]
    hosts: Option<String>,
    /// Print the id and do not wait.
    #[arg(long)]
    detach: bool,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct StepArgs {
    /// Its id.
    #[arg(value_name = "ID")]
    id: ChangeId,
    /// The step.
    #[arg(value_name = "STEP")]
    step: String,
    /// What to say with it; kept with the step.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReportArgs {
    /// Its id.
    #[arg(value_name = "ID")]
    id: ChangeId,
    /// In which form.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Form,
}

/// The form of a record.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
pub(crate) enum Form {
    /// Markdown.
    #[default]
    Md,
    /// One page of HTML.
    Html,
}

impl Stands for Runbook {
    fn state(&self) -> ChangeState {
        self.summary.state
    }

    fn why(&self) -> Option<&str> {
        self.summary.why.as_deref()
    }
}

/// Does it.
pub(crate) async fn run(session: &Session, verb: Verb) -> anyhow::Result<Code> {
    match verb {
        Verb::Run(args) => begin(session, args).await,
        Verb::List(args) => {
            let found = session.client.runbooks(runs::limit(args.limit, args.output)).await?;
            output::print(&output::list(&found, args.output, session.now())?)?;
            Ok(Code::Success)
        }
        Verb::Show(one) => {
            let runbook = session.client.runbook(one.id).await?;
            print(session, &runbook, one.output)?;
            tell(one.id, &runbook);
            Ok(change::looked(runbook.summary.state))
        }
        Verb::Watch(one) => follow(session, one.id, one.output, false).await,
        Verb::Pause(one) => act(session, one, ChangeVerb::Pause).await,
        Verb::Resume(one) => act(session, one, ChangeVerb::Resume).await,
        Verb::Tick(args) => say(session, args, StepVerb::Tick).await,
        Verb::Confirm(args) => say(session, args, StepVerb::Confirm).await,
        Verb::Skip(args) => say(session, args, StepVerb::Skip).await,
        Verb::Approve(one) => act(session, one, ChangeVerb::Approve).await,
        Verb::Abort(one) => act(session, one, ChangeVerb::Abort).await,
        Verb::Undo(one) => act(session, one, ChangeVerb::Undo).await,
        Verb::Report(args) => {
            let format = match args.format {
                Form::Md => ReportFormat::Md,
                Form::Html => ReportFormat::Html,
            };
            output::print(&session.client.runbook_report(args.id, format).await?)?;
            Ok(Code::Success)
        }
    }
}

async fn begin(session: &Session, args: RunArgs) -> anyhow::Result<Code> {
    let (source, file) = ask::text_of(&args.file)?;
    let mut inputs = BTreeMap::new();
    for (name, value) in args.input {
        if inputs.insert(name.clone(), value).is_some() {
            return Err(Refusal::usage(format!("--input {name} is given twice")));
        }
    }
    let takes = args.hosts.as_ref().map(|hosts| takes(hosts, &source));
    let new = NewRunbook { file: Some(file), source, inputs, hosts: args.hosts };
    let begun = session.client.begin_runbook(&new).await?;
    takes.iter().for_each(|takes| output::say(takes));
    if let Some(code) = change::left(&begun, NOUN, args.detach, args.output)? {
        return Ok(code);
    }
    output::say(&format!("runbook {}", begun.id));
    // A document from stdin leaves nobody there to ask.
    let asks = output::interactive() && args.file != "-";
    follow(session, begun.id, args.output, asks).await
}

/// Which steps run on the hosts of `--hosts`.
fn takes(hosts: &str, source: &str) -> String {
    let runbook = fw_core::runbook::parse("", source).runbook;
    let steps: Vec<_> = plan::unnamed(&runbook).map(|step| step.id.as_str()).collect();
    if steps.is_empty() {
        return "warning: every step names its hosts itself, so --hosts says nothing".to_owned();
    }
    format!("on {hosts}, as they name no hosts: {}", super::some(&steps))
}

/// Follows it; asks at the steps that wait for a person when there is one.
async fn follow(
    session: &Session,
    id: ChangeId,
    format: Format,
    asks: bool,
) -> anyhow::Result<Code> {
    loop {
        let look = async || session.client.runbook(id).await;
        let Some(now) = change::watch(session, look).await? else {
            output::say(&format!("\ndetached; {}", change::goes_on(id, NOUN)));
            return Ok(Code::Interrupted);
        };
        let step = waiting(&now).filter(|_| asks);
        if let Some(step) = step
            && let Some((verb, note)) = question(step)?
        {
            session.client.say_of_step(id, &step.id, verb, &StepNote { note }).await?;
            continue;
        }
        print(session, &now, format)?;
        tell(id, &now);
        return Ok(change::outcome(now.summary.state, false));
    }
}

/// The step that waits for a person.
fn waiting(runbook: &Runbook) -> Option<&RunbookStep> {
    runbook.steps.iter().find(|step| step.state == StepState::AwaitingPerson)
}

/// Asks what is to be done with a step; `None` to leave.
fn question(step: &RunbookStep) -> anyhow::Result<Option<(StepVerb, Option<String>)>> {
    let what = if step.kind == "ask" { "run it" } else { "it is done" };
    let text = format!("{} ({}): [y] {what}, [s] skip it, [q] leave ", step.title, step.id);
    loop {
        write!(std::io::stderr(), "{}", output::text(&text)).context("write to stderr")?;
        let mut answer = String::new();
        let read = std::io::stdin().lock().read_line(&mut answer).context("read the answer")?;
        match answer.trim().to_ascii_lowercase().as_str() {
            // A step that a person does takes it for a tick.
            "y" | "yes" => return Ok(Some((StepVerb::Confirm, None))),
            "s" | "skip" => return Ok(Some((StepVerb::Skip, None))),
            "q" | "quit" => return Ok(None),
            _ if read == 0 => return Ok(None),
            _ => {}
        }
    }
}

/// Says what to type next.
fn tell(id: ChangeId, runbook: &Runbook) {
    change::printed(runbook.steps.iter().filter_map(|step| match step.state {
        StepState::Failed => step.output_run,
        StepState::UndoFailed => step.undo_run,
        StepState::Planned
        | StepState::Running
        | StepState::AwaitingApproval
        | StepState::AwaitingPerson
        | StepState::Done
        | StepState::Skipped
        | StepState::Undoing
        | StepState::Undone => None,
    }));
    let next = match runbook.summary.state {
        ChangeState::AwaitingApproval => format!("approve it: fleetwright runbook approve {id}"),
        ChangeState::AwaitingPerson => {
            let Some(step) = waiting(runbook) else { return };
            let verb = if step.kind == "ask" { "confirm" } else { "tick" };
            format!("go on: fleetwright runbook {verb} {id} {}", step.id)
        }
        ChangeState::Paused => format!("go on: fleetwright runbook resume {id}"),
        ChangeState::Planned
        | ChangeState::Running
        | ChangeState::Undoing
        | ChangeState::Succeeded
        | ChangeState::Failed
        | ChangeState::Undone
        | ChangeState::UndoFailed => return,
    };
    output::say(&next);
}

async fn act(session: &Session, one: One, verb: ChangeVerb) -> anyhow::Result<Code> {
    let runbook = session.client.ask_runbook(one.id, verb).await?;
    done(&runbook, one.output)
}

async fn say(session: &Session, args: StepArgs, verb: StepVerb) -> anyhow::Result<Code> {
    let note = StepNote { note: args.note };
    let runbook = session.client.say_of_step(args.id, &args.step, verb, &note).await?;
    done(&runbook, args.output)
}

fn done(runbook: &Runbook, format: Format) -> anyhow::Result<Code> {
    let page = || format!("{}\n", change::sentence(runbook));
    let name = runbook.summary.id.to_string();
    output::print(&output::item(runbook, &name, format, page)?)?;
    Ok(Code::Success)
}

fn print(session: &Session, runbook: &Runbook, format: Format) -> anyhow::Result<()> {
    let page = || output::runbook_page(runbook, session.now());
    let name = runbook.summary.id.to_string();
    Ok(output::print(&output::item(runbook, &name, format, page)?)?)
}
