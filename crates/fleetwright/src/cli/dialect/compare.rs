//! `fleetwright dialects compare`: a scheduler that runs, against ours that watches beside it.

mod socket;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use fw_proto::api::{Fire, Job};
use fw_proto::{Span, Timestamp};
use fw_server::dialects::saltpeter::beside::heard::Heard;
use fw_server::dialects::saltpeter::beside::{
    self, Compared, Difference, Frame, Ours, What, Why, compare,
};
use serde::Serialize;

use self::socket::Socket;
use super::super::Session;
use super::super::parse::Dialect;
use crate::exit::Code;
use crate::output::{self, Format, line};

/// Rows of a ledger that are asked for first; four times as many each time it was too few.
const ROWS: usize = 1000;

/// Differences of a job that a table shows.
const SHOWN: usize = 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which dialect.
    #[arg(value_enum)]
    dialect: Dialect,
    /// Where the other scheduler's API is, such as `http://saltpeter:8888`.
    #[arg(long, value_name = "URL")]
    with: String,
    /// File with the token that its API asks for, if it does.
    #[arg(long, value_name = "FILE")]
    with_token_file: Option<PathBuf>,
    /// Compare what happened in this time, as far as it is known.
    #[arg(long, value_name = "SPAN", default_value = "24h")]
    since: Span,
    /// Watch for so long before comparing.
    #[arg(long, value_name = "SPAN")]
    follow: Option<Span>,
    /// A run may begin so much earlier or later than it is due.
    #[arg(long, value_name = "SPAN", default_value = "5s")]
    tolerance: Span,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// The answer as data.
#[derive(Debug, Serialize)]
struct Answer {
    with: String,
    from: Timestamp,
    to: Timestamp,
    /// Whether it told of older runs than the last of each job.
    timeline: bool,
    same: u64,
    different: u64,
    /// Jobs that it does not know.
    only_here: Vec<String>,
    /// Jobs that this server does not know.
    only_there: Vec<String>,
    jobs: Vec<Compared>,
}

/// Does it.
pub(super) async fn run(session: &Session, args: &Args) -> anyhow::Result<Code> {
    match args.dialect {
        Dialect::Saltpeter => saltpeter(session, args).await,
    }
}

async fn saltpeter(session: &Session, args: &Args) -> anyhow::Result<Code> {
    let mut jobs = session.client.jobs(None).await?;
    jobs.retain(beside::is_of_saltpeter);
    let mut socket = Socket::open(&args.with, args.with_token_file.as_deref()).await?;
    let from = session.now() - args.since;
    let watch = Duration::from_millis(args.follow.map_or(0, Span::as_millis));
    let heard = socket.hear(&session.clock, from, watch).await?;
    let frame = Frame { from, to: session.now(), tolerance: args.tolerance };
    let answer = answer(session, args, &jobs, &heard, frame).await?;
    output::print(&output::item(&answer, &answer.with, args.output, || page(&answer, args))?)?;
    Ok(if answer.different > 0 {
        Code::Conflict
    } else if answer.same == 0 {
        Code::Partial
    } else {
        Code::Success
    })
}

async fn answer(
    session: &Session,
    args: &Args,
    jobs: &[Job],
    heard: &Heard,
    frame: Frame,
) -> anyhow::Result<Answer> {
    let theirs: BTreeMap<_, _> =
        heard.jobs().into_iter().map(|name| (beside::our_name(name), name)).collect();
    let mut only_here = Vec::new();
    let mut compared = Vec::new();
    for job in jobs {
        let name = theirs.get(&job.name).map(|name| (*name).to_owned());
        let name = name.unwrap_or_else(|| beside::their_name(job));
        if !heard.knows(&name) {
            only_here.push(name.clone());
        }
        let fires = ledger(session, job, frame.from - frame.tolerance).await?;
        compared.push(compare(
            &Ours { name: &name, fires: &fires, pick: job.spec.pick },
            heard,
            frame,
        ));
    }
    let here = |name: &fw_proto::JobName| jobs.iter().any(|job| job.name == *name);
    let only_there: Vec<_> = theirs
        .into_iter()
        .filter(|(ours, theirs)| !here(ours) && heard.knows(theirs))
        .map(|(_, theirs)| theirs.to_owned())
        .collect();
    let differences: usize = compared.iter().map(|job| job.differences.len()).sum();
    Ok(Answer {
        with: args.with.clone(),
        from: frame.from,
        to: frame.to,
        timeline: heard.has_timeline(),
        same: compared.iter().map(|job| job.same).sum(),
        different: (differences + only_here.len() + only_there.len()) as u64,
        only_here,
        only_there,
        jobs: compared,
    })
}

/// A job's fires since then.
async fn ledger(session: &Session, job: &Job, from: Timestamp) -> anyhow::Result<Vec<Fire>> {
    let mut most = ROWS;
    loop {
        let fires = session.client.ledger(&job.name, Some(most)).await?;
        if fires.len() < most || fires.last().is_some_and(|oldest| oldest.to < from) {
            return Ok(fires);
        }
        most *= 4;
    }
}

fn page(answer: &Answer, args: &Args) -> String {
    let mut page = String::new();
    let Answer { from, to, same, different, .. } = answer;
    writeln!(page, "from {from} to {to}, within {}\n", args.tolerance).expect("writing to memory");
    for job in &answer.jobs {
        of_job(&mut page, job);
    }
    for (whose, names) in [("only here", &answer.only_here), ("only there", &answer.only_there)] {
        names.iter().for_each(|name| {
            writeln!(page, "{}: this job is {whose}", line(name)).expect("writing to memory");
        });
    }
    let sum = |of: fn(&Compared) -> u64| answer.jobs.iter().map(of).sum::<u64>();
    let (hosts, held, untold) =
        (sum(|job| job.same_hosts), sum(|job| job.overlapped), sum(|job| job.untold));
    writeln!(
        page,
        "\n{same} the same ({hosts} with their hosts), {different} different, {held} held there by overlap, {untold} not told"
    )
    .expect("writing to memory");
    if *same == 0 && *different == 0 {
        page.push_str("nothing could be compared: let the server run beside it for a while, and give --follow\n");
    } else if !answer.timeline {
        page.push_str(
            "of older runs it does not tell, since it has no search server; --follow sees more\n",
        );
    }
    page
}

fn of_job(page: &mut String, job: &Compared) {
    let Compared { same, same_hosts, overlapped, untold, differences, .. } = job;
    writeln!(
        page,
        "{}: {same} the same ({same_hosts} with their hosts), {} different, {overlapped} held there by overlap, {untold} not told",
        line(&job.job),
        differences.len()
    )
    .expect("writing to memory");
    for one in differences.iter().take(SHOWN) {
        writeln!(page, "  {}", said(one)).expect("writing to memory");
    }
    if let Some(more) = differences.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        writeln!(page, "  and {more} more; -o json has all").expect("writing to memory");
    }
}

fn said(one: &Difference) -> String {
    let Difference { what, at, there, only_here, only_there, why } = one;
    let there = there.map_or(String::new(), |at| at.to_string());
    let mut said = match what {
        What::Missing => format!("{at}: would have run here, did not there"),
        What::Extra => format!("{at}: ran there, would not have here"),
        What::Time => format!("{at}: due here, began there at {there}"),
        What::Hosts => format!("{at}: other hosts"),
    };
    for (whose, hosts) in [("only here", only_here), ("only there", only_there)] {
        if !hosts.is_empty() {
            write!(said, "; {whose}: {}", line(&hosts.join(", "))).expect("writing to memory");
        }
    }
    if !why.is_empty() {
        let why: Vec<_> = why.iter().map(reason).collect();
        write!(said, " ({})", why.join("; ")).expect("writing to memory");
    }
    said
}

fn reason(why: &Why) -> String {
    match why {
        Why::Maintenance => "maintenance mode is active there".to_owned(),
        Why::HostsInMaintenance => "these are in maintenance there".to_owned(),
        Why::Changed => "its files changed after that, or it was started".to_owned(),
        Why::NoSuchJob => "there is no such job there".to_owned(),
        Why::Here(reason) => format!("here: {}", output::fire_reason(*reason)),
        Why::NotDue => "not due here: someone ran it by hand, or the files are others".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use fw_proto::api::FireReason;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn a_page_says_what_differs_and_why() {
        let args = Line::parse_from(["x", "saltpeter", "--with", "http://s:8888"]).args;
        let at = |secs: i64| Timestamp::from_millis(1_795_182_743_000 + secs * 1000);
        let one = |what, secs, why: &[Why]| Difference {
            what,
            at: at(secs),
            there: Some(at(secs + 30)),
            only_here: Vec::new(),
            only_there: Vec::new(),
            why: why.to_vec(),
        };
        let hosts = Difference {
            only_here: vec!["db-1".to_owned()],
            only_there: vec!["db-2\u{1b}[2J".to_owned()],
            ..one(What::Hosts, 240, &[Why::HostsInMaintenance])
        };
        let differences = vec![
            one(What::Missing, 0, &[Why::Changed, Why::Maintenance]),
            one(What::Extra, 60, &[Why::Here(FireReason::Paused)]),
            one(What::Extra, 90, &[Why::NotDue]),
            one(What::Time, 120, &[]),
            hosts,
        ];
        let (job, same, untold) = ("sweep".to_owned(), 7, 1);
        let job = Compared { job, same, same_hosts: 1, overlapped: 2, untold, differences };
        let mut answer = Answer {
            with: args.with.clone(),
            from: at(0),
            to: at(300),
            timeline: false,
            same: 7,
            different: 6,
            only_here: vec!["new".to_owned()],
            only_there: Vec::new(),
            jobs: vec![job],
        };
        insta::assert_snapshot!(page(&answer, &args));
        answer.jobs.clear();
        (answer.same, answer.different) = (0, 0);
        assert!(page(&answer, &args).ends_with("give --follow\n"));
    }
}
