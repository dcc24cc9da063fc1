//! Maintenances, for people.

use fw_proto::Timestamp;
use fw_proto::api::{Maintenance, Recurrence, StillRunning};

use super::line;
use super::table::{Row, Width, ago};

impl Row for Maintenance {
    const COLUMNS: &'static [(&'static str, Width)] = &[
        ("ID", Width::Always),
        ("COVERS", Width::Always),
        ("HOSTS", Width::Number),
        ("REASON", Width::Always),
        ("BY", Width::Always),
        ("SINCE", Width::Always),
        ("UNTIL", Width::Always),
        ("RUNNING", Width::Number),
        ("RECURS", Width::Wide),
        ("ENDED BY", Width::Wide),
        ("MESSAGE", Width::Wide),
    ];

    fn cells(&self, now: Timestamp) -> Vec<String> {
        vec![
            self.id.to_string(),
            covers(self),
            self.covers.map(|hosts| hosts.to_string()).unwrap_or_default(),
            self.reason.clone(),
            self.begun_by(),
            ago(self.since, now),
            ends(self, now),
            self.running.as_ref().map(|running| running.tasks.to_string()).unwrap_or_default(),
            self.windows.as_ref().map(recurs).unwrap_or_default(),
            self.switched_off_by().unwrap_or_default(),
            self.message.clone().unwrap_or_default(),
        ]
    }

    fn name(&self) -> String {
        self.id.to_string()
    }
}

fn covers(maintenance: &Maintenance) -> String {
    let hosts = maintenance.hosts.as_deref().unwrap_or("everything");
    match &maintenance.source {
        None => hosts.to_owned(),
        Some(source) => format!("{hosts}, jobs of {source}"),
    }
}

/// Its end, or when its windows are: those that recur begin and end by themselves.
fn ends(maintenance: &Maintenance, now: Timestamp) -> String {
    let next = maintenance.windows.as_ref().and_then(|windows| windows.next);
    match (maintenance.until, next, &maintenance.source) {
        (Some(at), ..) => ago(at, now),
        (None, Some(window), _) if maintenance.in_force => {
            format!("{}, recurs", ago(window.until, now))
        }
        (None, Some(window), _) => format!("next {}", ago(window.from, now)),
        (None, None, Some(_)) => "files say so".to_owned(),
        (None, None, None) => "switched off".to_owned(),
    }
}

fn recurs(windows: &Recurrence) -> String {
    let Recurrence { every, timezone, lasts, .. } = windows;
    format!("{every} ({timezone}) for {lasts}")
}

/// What somebody who drains hosts waits for.
pub(crate) fn waits(running: &StillRunning) -> String {
    let names: Vec<_> = running.on.iter().map(|host| host.as_str()).collect();
    let more = if running.hosts as usize > names.len() { ", …" } else { "" };
    let s = |count: u32| if count == 1 { "" } else { "s" };
    format!(
        "waiting for {} task{} on {} host{}: {}{more}",
        running.tasks,
        s(running.tasks),
        running.hosts,
        s(running.hosts),
        names.join(", ")
    )
}

/// What was switched on, how far it reaches and how it ends.
pub(crate) fn begun(maintenance: &Maintenance, now: Timestamp) -> String {
    let id = maintenance.id;
    let hosts = match (&maintenance.hosts, maintenance.covers.unwrap_or_default()) {
        (None, _) if maintenance.windows.is_some() => "no job fires in its windows".to_owned(),
        (None, _) => "no job fires".to_owned(),
        (Some(_), 0) => "no host yet; those that come later and match are covered".to_owned(),
        (Some(_), 1) => "1 host".to_owned(),
        (Some(_), hosts) => format!("{hosts} hosts"),
    };
    let off = format!("`fleetwright maintenance off {id}`");
    let end = match (maintenance.until, &maintenance.windows) {
        (None, Some(windows)) => {
            let next = windows.next.map(|next| format!("from {} until {}", next.from, next.until));
            let next = next.unwrap_or_else(|| "no window is ahead".to_owned());
            let recurs = recurs(windows);
            format!("{next}, and so on by {recurs}, until you switch it off with {off}")
        }
        (None, None) => format!("until you switch it off with {off}"),
        (Some(at), _) => format!("until {at} ({}), or {off} before", ago(at, now)),
    };
    format!("maintenance {id} of {} is on: {hosts}\n{end}\n", line(&covers(maintenance)))
}

/// That one of everything is on, for whoever looks at jobs.
pub(crate) fn warning(maintenance: &Maintenance) -> String {
    let (id, reason) = (maintenance.id, line(&maintenance.reason));
    if let Some(source) = &maintenance.source {
        return format!(
            "no job of {source} fires: maintenance {id} of everything is on ({reason})"
        );
    }
    format!("no job fires: maintenance {id} of everything is on ({reason})")
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use fw_proto::api::{ActorKind, MaintenanceWindow};

    use super::super::{Format, list};
    use super::*;

    fn maintenance(
        id: u32,
        hosts: Option<&str>,
        covers: Option<u32>,
        secs: Option<i64>,
    ) -> Maintenance {
        Maintenance {
            id: fw_proto::MaintenanceId(id),
            hosts: hosts.map(str::to_owned),
            covers,
            reason: "new disks".to_owned(),
            message: None,
            by: "admin".to_owned(),
            by_kind: None,
            since: Timestamp::EPOCH,
            until: secs.map(|secs| Timestamp::from_millis(secs * 1000)),
            in_force: covers.is_some(),
            ended_by: None,
            ended_by_kind: None,
            source: None,
            windows: None,
            running: None,
        }
    }

    #[test]
    fn people_see_how_far_it_reaches_and_how_it_ends() {
        let all = [
            maintenance(1, None, Some(40), None),
            maintenance(2, Some("db*"), Some(2), Some(7200)),
            maintenance(3, Some("new\u{7}*"), Some(0), Some(7200)),
            Maintenance {
                by_kind: Some(ActorKind::Token),
                ..maintenance(4, Some("web1"), None, Some(60))
            },
        ];
        let now = Timestamp::from_millis(3_600_000);
        let at = |secs: i64| Timestamp::from_millis(secs * 1000);
        let window = |from, until| MaintenanceWindow { from: at(from), until: at(until) };
        let recurring = |id, in_force, next| Maintenance {
            windows: Some(Recurrence {
                every: "0 2 * * sun".to_owned(),
                timezone: "Europe/Athens".to_owned(),
                lasts: fw_proto::Span::from_secs(7200),
                next: Some(next),
            }),
            in_force,
            ..maintenance(id, Some("web*"), Some(3), None)
        };
        let on = vec!["web1".parse().unwrap(), "web2".parse().unwrap()];
        let all = [
            &all[..],
            &[
                recurring(5, true, window(1800, 9000)),
                recurring(6, false, window(90_000, 97_200)),
                Maintenance {
                    source: Some("pepper".to_owned()),
                    ..maintenance(7, None, Some(40), None)
                },
                Maintenance {
                    running: Some(StillRunning { tasks: 3, hosts: 2, on }),
                    ..maintenance(8, Some("web*"), Some(3), None)
                },
            ],
        ]
        .concat();
        let mut seen = list(&all, Format::Table, now).unwrap();
        writeln!(seen, "\n{}", waits(all[7].running.as_ref().unwrap())).unwrap();
        writeln!(seen, "{}\n{}", warning(&all[0]), warning(&all[6])).unwrap();
        for one in [&all[..3], &all[5..6]].concat() {
            let one = &one;
            write!(seen, "\n{}", begun(one, now)).unwrap();
        }
        insta::assert_snapshot!(seen);
    }
}
