//! `fleetwright schedule`: when a schedule is due, without a server.

use fw_core::schedule::{self, Schedule};
use fw_proto::Timestamp;
use fw_rt::Clock;
use fw_server::dialects::saltpeter::schedule::{self as saltpeter, Field};
use serde::{Serialize, Serializer};

use super::Refusal;
use super::parse::{self, Dialect};
use crate::exit::Code;
use crate::output::{self, Format, Row, Width, ago};

/// What to do with schedules.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Print when a schedule is due next; in JSON `null` says that it is not due any more.
    Next(NextArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct NextArgs {
    /// The schedule, such as `*/5 * * * *`.
    #[arg(value_name = "EXPR", required_unless_present = "dialect", conflicts_with = "dialect")]
    schedule: Option<String>,
    /// Time zone of the schedule; UTC when absent.
    #[arg(long, value_name = "TZ", conflicts_with = "dialect")]
    timezone: Option<String>,
    /// Read the schedule of another program, field by field.
    #[arg(long, value_enum, requires = "field")]
    dialect: Option<Dialect>,
    /// A field of it: sec, min, hour, dom, mon, dow or year.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse::pair, requires = "dialect")]
    field: Vec<(String, String)>,
    /// Only what comes after this; now when absent.
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// Form of the list.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// A line of the answer.
#[derive(Debug)]
enum Line {
    /// It is due.
    Due {
        /// When.
        at: Timestamp,
        /// What the clock on the wall shows then.
        wall: String,
        /// The wall time that was asked for does not exist on that day.
        dst_gap: bool,
    },
    /// It is not due any more.
    Over,
}

/// Does it.
pub(crate) fn run(verb: &Verb) -> anyhow::Result<Code> {
    match verb {
        Verb::Next(args) => next(args),
    }
}

fn next(args: &NextArgs) -> anyhow::Result<Code> {
    let now = Clock::system().now();
    // clap lets go of `requires` where what is required conflicts with something given.
    if args.dialect.is_none() && !args.field.is_empty() {
        return Err(Refusal::usage("--field belongs to --dialect; leave out the schedule"));
    }
    let schedule = match (args.dialect, &args.schedule) {
        (Some(Dialect::Saltpeter), _) => saltpeter_schedule(&args.field)?,
        (None, Some(text)) => Some(own(text, args.timezone.as_deref().unwrap_or_default())?),
        (None, None) => return Err(Refusal::usage("give a schedule, such as '*/5 * * * *'")),
    };
    let lines = lines(schedule.as_ref(), args.from.unwrap_or(now), args.count);
    output::print(&output::list(&lines, args.output, now)?)?;
    Ok(Code::Success)
}

fn own(text: &str, timezone: &str) -> anyhow::Result<Schedule> {
    Schedule::parse(text, timezone)
        .map_err(|error: schedule::Error| Refusal::usage(error.to_string()))
}

/// A schedule of Saltpeter; `None` when it is never due.
fn saltpeter_schedule(pairs: &[(String, String)]) -> anyhow::Result<Option<Schedule>> {
    let mut fields = saltpeter::Fields::new();
    for (name, value) in pairs {
        let field: Field = name
            .parse()
            .map_err(|error: saltpeter::UnknownField| Refusal::usage(error.to_string()))?;
        if fields.insert(field, value.clone()).is_some() {
            return Err(Refusal::usage(format!("the field '{field}' is given twice")));
        }
    }
    let times = saltpeter::read(&fields).map_err(|error| Refusal::usage(error.to_string()))?;
    Ok(times.schedule)
}

/// The fires after an instant, and a last line when there are no more.
fn lines(schedule: Option<&Schedule>, from: Timestamp, count: u32) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut after = from;
    for _ in 0..count {
        let Some((schedule, fire)) =
            schedule.and_then(|schedule| Some((schedule, schedule.next_after(after)?)))
        else {
            lines.push(Line::Over);
            break;
        };
        after = fire.nominal;
        let wall = schedule.wall(fire.nominal);
        lines.push(Line::Due { at: fire.nominal, wall, dst_gap: fire.dst_gap });
    }
    lines
}

/// RFC 3339, without the milliseconds that no schedule has.
fn instant(at: Timestamp) -> String {
    at.to_string().replace(".000Z", "Z")
}

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Due { at, .. } => serializer.serialize_str(&instant(*at)),
            Self::Over => serializer.serialize_none(),
        }
    }
}

impl Row for Line {
    const COLUMNS: &'static [(&'static str, Width)] = &[
        ("DUE", Width::Always),
        ("LOCAL TIME", Width::Always),
        ("WHEN", Width::Always),
        ("NOTE", Width::Always),
    ];

    fn cells(&self, now: Timestamp) -> Vec<String> {
        match self {
            Self::Due { at, wall, dst_gap } => {
                let note =
                    if *dst_gap { "dst_gap: this wall time does not exist that day" } else { "" };
                vec![instant(*at), wall.clone(), ago(*at, now), note.to_owned()]
            }
            Self::Over => {
                let blank = String::new;
                vec!["never".to_owned(), blank(), blank(), "it is not due any more".to_owned()]
            }
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Due { at, .. } => instant(*at),
            Self::Over => "never".to_owned(),
        }
    }
}
