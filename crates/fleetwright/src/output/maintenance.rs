//! Maintenances, for people.

use fw_proto::Timestamp;
use fw_proto::api::Maintenance;

use super::line;
use super::table::{Row, Width, ago};

impl Row for Maintenance {
    const COLUMNS: &'static [(&'static str, Width)] = &[
        ("ID", Width::Always),
        ("STATE", Width::Always),
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
            if self.in_force { "on" } else { "over" }.to_owned(),
            scope(self).to_owned(),
            self.covers.map(|hosts| hosts.to_string()).unwrap_or_default(),
            self.reason.clone(),
            self.by.clone(),
            ago(self.since, now),
            self.until.map(|at| ago(at, now)).unwrap_or_default(),
            self.ended_by.clone().unwrap_or_default(),
            self.message.clone().unwrap_or_default(),
        ]
    }

    fn name(&self) -> String {
        self.id.to_string()
    }
}

fn scope(maintenance: &Maintenance) -> &str {
    maintenance.hosts.as_deref().unwrap_or("everything")
}

/// What was switched on, how far it reaches and how it ends.
pub(crate) fn begun(maintenance: &Maintenance, now: Timestamp) -> String {
    let id = maintenance.id;
    let reach = match (&maintenance.hosts, maintenance.covers.unwrap_or_default()) {
        (None, _) => "no job fires".to_owned(),
        (Some(_), 0) => "no host yet; those that come later and match are covered".to_owned(),
        (Some(_), hosts) => format!("{hosts} host(s) now"),
    };
    let off = format!("fleetwright maintenance off {id}");
    let end = maintenance.until.map_or_else(
        || format!("until you switch it off: {off}"),
        |at| format!("until {at} ({}), or earlier with: {off}", ago(at, now)),
    );
    format!("maintenance {id} of {} is on: {reach}\n{end}\n", line(scope(maintenance)))
}

/// That one of everything is on, for whoever looks at jobs.
pub(crate) fn warning(maintenance: &Maintenance) -> String {
    let (id, reason) = (maintenance.id, line(&maintenance.reason));
    format!("no job fires: maintenance {id} of everything is on ({reason})")
}

#[cfg(test)]
mod tests {
    use fw_proto::MaintenanceId;

    use super::super::{Format, list};
    use super::*;

    fn one(hosts: Option<&str>, covers: Option<u32>, until: Option<i64>) -> Maintenance {
        Maintenance {
            id: MaintenanceId(3),
            hosts: hosts.map(str::to_owned),
            covers,
            reason: "new\ndisks".to_owned(),
            message: Some("back at noon".to_owned()),
            by: "alice".to_owned(),
            since: Timestamp::EPOCH,
            until: until.map(Timestamp::from_millis),
            in_force: covers.is_some(),
            ended_by: covers.is_none().then(|| "bob".to_owned()),
        }
    }

    #[test]
    fn they_are_a_table() {
        let all = [one(None, Some(12), None), one(Some("web*"), None, Some(60_000))];
        let shown = |format| list(&all, format, Timestamp::from_millis(90_000)).unwrap();
        insta::assert_snapshot!(shown(Format::Table), @r"
            ID  STATE  COVERS      HOSTS  REASON      BY     SINCE       UNTIL
            3   on     everything     12  new\ndisks  alice  1m 30s ago  -
            3   over   web*            -  new\ndisks  alice  1m 30s ago  30s ago
            ");
        insta::assert_snapshot!(shown(Format::Wide), @r"
            ID  STATE  COVERS      HOSTS  REASON      BY     SINCE       UNTIL    ENDED BY  MESSAGE
            3   on     everything     12  new\ndisks  alice  1m 30s ago  -        -         back at noon
            3   over   web*            -  new\ndisks  alice  1m 30s ago  30s ago  bob       back at noon
            ");
        assert_eq!(shown(Format::Name), "3\n3\n");
    }

    #[test]
    fn what_is_on_is_told_with_its_end() {
        let told = |hosts, covers, until| begun(&one(hosts, Some(covers), until), Timestamp::EPOCH);
        let all = [
            told(None, 12, None),
            told(Some("web*"), 3, Some(60_000)),
            told(Some("web*"), 0, None),
            warning(&one(None, Some(1), None)),
        ];
        insta::assert_snapshot!(all.join("\n"), @r"
            maintenance 3 of everything is on: no job fires
            until you switch it off: fleetwright maintenance off 3

            maintenance 3 of web* is on: 3 host(s) now
            until 1970-01-01T00:01:00.000Z (in 1m), or earlier with: fleetwright maintenance off 3

            maintenance 3 of web* is on: no host yet; those that come later and match are covered
            until you switch it off: fleetwright maintenance off 3

            no job fires: maintenance 3 of everything is on (new\ndisks)
            ");
    }
}
