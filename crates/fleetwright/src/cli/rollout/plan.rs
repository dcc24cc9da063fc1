//! `fleetwright rollouts plan`: what a rollout would do now, before anything happens.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use fw_core::rollout::{self, Error, Facts, Held, Picks, Rollout};
use fw_proto::api::{self, Command, HostState, RolloutPlan, TaskState};
use fw_proto::{HostId, HostName, Incarnation, Span, Timestamp};
use fw_rt::Clock;
use uuid::Uuid;

use super::PlanArgs;
use crate::cli::{Connection, Session, ask, select, talk};
use crate::client::RunFilter;
use crate::exit::Code;
use crate::output::{self, Format, line};

/// So many runs of the past are looked at, the last, and of those with the same command so many closely.
const LOOKED_AT: usize = 200;
const LOOKED_AT_CLOSELY: usize = 10;

/// What is known of the fleet.
#[derive(Debug, Default)]
struct Known {
    picks: Picks,
    ids: BTreeMap<HostName, HostId>,
    facts: Facts,
}

/// Prints the plan.
pub(super) fn run(args: &PlanArgs, connection: &Connection) -> anyhow::Result<Code> {
    let (text, name) = ask::text_of(&args.file)?;
    let rollout = match rollout::parse(&name, &text) {
        Ok(rollout) => rollout,
        Err(errors) => {
            for error in &errors {
                output::say(&format!("error: {}", output::error_text(error)));
            }
            return Ok(Code::Error);
        }
    };
    let known = match &args.facts_file {
        Some(file) => offline(&rollout, &select::facts(file)?),
        None => {
            let mut known = Known::default();
            talk(connection, async |session| {
                known = live(session, &rollout).await?;
                Ok(Code::Success)
            })?;
            known
        }
    };
    match planned(&rollout, &text, &known, Clock::system().now()) {
        Ok(plan) => show(&plan, args.output),
        Err(why) => {
            output::say(&format!("error: {}: {}", line(&name), line(&why.to_string())));
            Ok(if matches!(why, Error::NoHosts(_)) { Code::NothingMatched } else { Code::Error })
        }
    }
}

/// Also compiles it, so that what would be refused at its begin is refused here.
fn planned(
    rollout: &Rollout,
    text: &str,
    known: &Known,
    now: Timestamp,
) -> Result<RolloutPlan, Error> {
    let waves = rollout.waves(&known.picks)?;
    rollout::compile(rollout, text, &waves, &known.ids, now, Incarnation(Uuid::nil()))?;
    Ok(rollout::foresee(rollout, &waves, &known.facts, now))
}

/// By a file of facts: of hosts there are only names.
fn offline(rollout: &Rollout, machines: &select::Machines) -> Known {
    let mut known = Known::default();
    for picked in rollout.selectors() {
        let selected = select::selected(&picked.selector, machines);
        known.facts.undecided.extend(selected.undecided);
        known.picks.insert(picked.text.clone(), selected.hosts.into_iter().collect());
    }
    let ids = (1..).map(|n| HostId(Uuid::from_u128(n)));
    known.ids = machines.keys().cloned().zip(ids).collect();
    known
}

/// As the server knows it.
async fn live(session: &Session, rollout: &Rollout) -> anyhow::Result<Known> {
    let mut known = Known::default();
    for picked in rollout.selectors() {
        let selected = session.client.select(&picked.text).await?;
        known.facts.undecided.extend(selected.undecided);
        known.picks.insert(picked.text.clone(), selected.hosts.into_iter().collect());
    }
    let hosts = session.client.hosts(Some(&rollout.hosts.text), None).await?;
    known.ids = hosts.iter().map(|host| (host.name.clone(), host.id)).collect();
    let absent = hosts.iter().filter(|host| host.state != HostState::Online);
    known.facts.offline = absent.map(|host| host.name.clone()).collect();
    let maintenances = session.client.maintenances(false).await?;
    let in_force = maintenances.into_iter().filter(|one| one.in_force);
    known.facts.maintenances = in_force.map(|one| held(one, &hosts)).collect();
    known.facts.took = took(session, &rollout::command(rollout)).await?;
    Ok(known)
}

/// A host says of one maintenance that it is in it.
fn held(one: api::Maintenance, hosts: &[api::Host]) -> Held {
    let mine = hosts.iter().filter(|host| host.maintenance == Some(one.id));
    let mine: BTreeSet<_> = mine.map(|host| host.name.clone()).collect();
    Held { hosts: one.hosts.map(|_| mine), reason: one.reason, until: one.until }
}

/// How long the command took on hosts where it succeeded.
async fn took(session: &Session, command: &Command) -> anyhow::Result<Vec<Span>> {
    let filter = RunFilter { job: None, state: None, host: None };
    let runs = session.client.runs(&filter, Some(LOOKED_AT)).await?;
    let same = runs.iter().filter(|run| run.command == *command);
    let mut took = Vec::new();
    for run in same.take(LOOKED_AT_CLOSELY) {
        let run = session.client.run(run.id).await?;
        let done = run.tasks.iter().filter(|task| task.state == TaskState::Succeeded);
        took.extend(done.filter_map(|task| Some(task.finished_at?.since(task.started_at?))));
    }
    Ok(took)
}

fn show(plan: &RolloutPlan, format: Format) -> anyhow::Result<Code> {
    match format {
        Format::Table | Format::Wide => output::print(&page(plan))?,
        Format::Name => {
            let hosts = plan.waves.iter().flat_map(|wave| &wave.hosts);
            output::print(&hosts.map(|host| format!("{host}\n")).collect::<String>())?;
        }
        Format::Json | Format::Jsonl | Format::Yaml => {
            output::print(&output::item(plan, "", format, String::new)?)?;
        }
    }
    Ok(Code::Success)
}

/// The plan for people.
fn page(plan: &RolloutPlan) -> String {
    let all = plan.waves.iter().map(|wave| wave.hosts.len()).sum();
    let (hosts, waves) = (count(all, "host"), count(plan.waves.len(), "wave"));
    let mut page = format!("{}: {hosts} in {waves}\n", line(&plan.name));
    for wave in &plan.waves {
        let hosts = count(wave.hosts.len(), "host");
        writeln!(page, "\n{}  {hosts}: {}", wave.name, line(&wave.words))
            .expect("writing to memory");
        for gate in &wave.gates {
            writeln!(page, "  first   {}", line(gate)).expect("writing to memory");
        }
        names(&mut page, &wave.hosts);
    }
    writeln!(
        page,
        "\nBudget     {} failed end it: {}",
        count(plan.budget as usize, "host"),
        line(&plan.budget_words)
    )
    .expect("writing to memory");
    writeln!(
        page,
        "At once    {} at most: {}",
        count(plan.max_in_flight as usize, "host"),
        line(&plan.max_in_flight_words)
    )
    .expect("writing to memory");
    let takes = plan.predicted_s.map_or_else(|| "not known".to_owned(), minutes);
    writeln!(page, "Takes      {takes}: {}", line(&plan.predicted_words))
        .expect("writing to memory");
    if plan.conflicts.is_empty() {
        page.push_str("Conflicts  none is known\n");
    }
    for conflict in &plan.conflicts {
        writeln!(page, "Conflict   {}: {}", conflict.kind.as_str(), line(&conflict.message))
            .expect("writing to memory");
        names(&mut page, &conflict.hosts);
    }
    page
}

fn count(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Whole minutes, for nobody can tell it to the second.
fn minutes(secs: u64) -> String {
    match secs.div_ceil(60) {
        0 | 1 => "about 1 minute".to_owned(),
        minutes => format!("about {minutes} minutes"),
    }
}

/// All names, in lines that fit on a screen.
fn names(page: &mut String, hosts: &[HostName]) {
    const WIDTH: usize = 96;
    let mut used = 0;
    for host in hosts {
        let wide = host.as_str().len() + 2;
        if used == 0 || used + wide > WIDTH {
            page.push_str(if used == 0 { "  " } else { "\n  " });
            used = 2;
        }
        write!(page, "{host}  ").expect("writing to memory");
        used += wide;
    }
    if used > 0 {
        page.truncate(page.trim_end().len());
        page.push('\n');
    }
}
