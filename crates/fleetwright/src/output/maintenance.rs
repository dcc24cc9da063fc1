//! Maintenances, for people.

use fw_proto::Timestamp;
use fw_proto::api::Maintenance;

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
        ("ENDED BY", Width::Wide),
        ("MESSAGE", Width::Wide),
    ];

    fn cells(&self, now: Timestamp) -> Vec<String> {
        vec![
            self.id.to_string(),
            covers(self).to_owned(),
            self.covers.map(|hosts| hosts.to_string()).unwrap_or_default(),
            self.reason.clone(),
            self.by.clone(),
            ago(self.since, now),
            self.until.map_or_else(|| "switched off".to_owned(), |at| ago(at, now)),
            self.ended_by.clone().unwrap_or_default(),
            self.message.clone().unwrap_or_default(),
        ]
    }

    fn name(&self) -> String {
        self.id.to_string()
    }
}

fn covers(maintenance: &Maintenance) -> &str {
    maintenance.hosts.as_deref().unwrap_or("everything")
}

/// What was switched on, how far it reaches and how it ends.
pub(crate) fn begun(maintenance: &Maintenance, now: Timestamp) -> String {
    let id = maintenance.id;
    let hosts = match (&maintenance.hosts, maintenance.covers.unwrap_or_default()) {
        (None, _) => "no job fires".to_owned(),
        (Some(_), 0) => "no host yet; those that come later and match are covered".to_owned(),
        (Some(_), 1) => "1 host".to_owned(),
        (Some(_), hosts) => format!("{hosts} hosts"),
    };
    let off = format!("`fleetwright maintenance off {id}`");
    let end = match maintenance.until {
        None => format!("until you switch it off with {off}"),
        Some(at) => format!("until {at} ({}), or {off} before", ago(at, now)),
    };
    format!("maintenance {id} of {} is on: {hosts}\n{end}\n", line(covers(maintenance)))
}

/// That one of everything is on, for whoever looks at jobs.
pub(crate) fn warning(maintenance: &Maintenance) -> String {
    let (id, reason) = (maintenance.id, line(&maintenance.reason));
    format!("no job fires: maintenance {id} of everything is on ({reason})")
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

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
            since: Timestamp::EPOCH,
            until: secs.map(|secs| Timestamp::from_millis(secs * 1000)),
            in_force: covers.is_some(),
            ended_by: None,
        }
    }

    #[test]
    fn people_see_how_far_it_reaches_and_how_it_ends() {
        let all = [
            maintenance(1, None, Some(40), None),
            maintenance(2, Some("db*"), Some(2), Some(7200)),
            maintenance(3, Some("new\u{7}*"), Some(0), Some(7200)),
            maintenance(4, Some("web1"), None, Some(60)),
        ];
        let now = Timestamp::from_millis(3_600_000);
        let mut seen = list(&all, Format::Table, now).unwrap();
        for one in &all[..3] {
            write!(seen, "\n{}", begun(one, now)).unwrap();
        }
        insta::assert_snapshot!(seen);
    }
}
