//! `fleetwright rollouts plan`: what a rollout would do now, before anything happens.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fw_core::rollout::{self, Error, Facts, Picks, Rollout};
use fw_proto::api::{RolloutPlan, RolloutText};
use fw_proto::{HostId, HostName, Incarnation};
use fw_rt::Clock;
use uuid::Uuid;

use super::PlanArgs;
use crate::cli::{Connection, ask, select, talk};
use crate::exit::Code;
use crate::output::{self, Format, line};

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
    let Some(file) = &args.facts_file else {
        let text = RolloutText { text, name: Some(name), dry: false };
        return talk(connection, async |session| {
            show(&session.client.plan_rollout(&text).await?, args.output)
        });
    };
    match planned(&rollout, &text, &offline(&rollout, &select::facts(file)?)) {
        Ok(plan) => show(&plan, args.output),
        Err(why) => {
            output::say(&format!("error: {}: {}", line(&name), line(&why.to_string())));
            Ok(if matches!(why, Error::NoHosts(_)) { Code::NothingMatched } else { Code::Error })
        }
    }
}

/// Also compiles it, so that what would be refused at its begin is refused here.
fn planned(rollout: &Rollout, text: &str, known: &Known) -> Result<RolloutPlan, Error> {
    let now = Clock::system().now();
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
    writeln!(page, "\nBudget     {} it: {}", failures(plan.budget), line(&plan.budget_words))
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

fn failures(budget: u32) -> String {
    if budget == 1 { "1 failed host ends".to_owned() } else { format!("{budget} failed hosts end") }
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
