//! Maintenance: while it is in force, no run begins by itself.

use serde::{Deserialize, Serialize};

use super::ActorKind;
use crate::{HostName, MaintenanceId, Span, Timestamp};

/// A maintenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Maintenance {
    /// Its id.
    pub id: MaintenanceId,
    /// The selector of the hosts that it covers; `null` for everything.
    pub hosts: Option<String>,
    /// Whose jobs it holds, whose files ask for it; `null` for all jobs.
    pub source: Option<String>,
    /// How many hosts it covers now; `null` when it is over.
    pub covers: Option<u32>,
    /// Why.
    pub reason: String,
    /// What people are to know.
    pub message: Option<String>,
    /// Who switched it on: the name of a person or token, or `dialect:NAME`.
    pub by: String,
    /// What that is; absent for the files of a dialect, and for maintenances from before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_kind: Option<ActorKind>,
    /// Since when.
    pub since: Timestamp,
    /// When it ends or ended; `null` until it is switched off.
    pub until: Option<Timestamp>,
    /// When it recurs: it is in force within these windows alone.
    pub windows: Option<Recurrence>,
    /// Whether it is in force now.
    pub in_force: bool,
    /// What goes on at the hosts that it covers; `null` while it is not in force, and when it holds the jobs of one
    /// source alone.
    pub running: Option<StillRunning>,
    /// Who switched it off; `null` while it is in force, and when it ended by itself.
    pub ended_by: Option<String>,
    /// What that is, as `by_kind`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by_kind: Option<ActorKind>,
}

impl Maintenance {
    /// Who switched it on, as people read it.
    #[must_use]
    pub fn begun_by(&self) -> String {
        ActorKind::shown(self.by_kind, &self.by)
    }

    /// Who switched it off, as people read it.
    #[must_use]
    pub fn switched_off_by(&self) -> Option<String> {
        self.ended_by.as_deref().map(|by| ActorKind::shown(self.ended_by_kind, by))
    }
}

/// The windows of a maintenance that recurs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Recurrence {
    /// When they begin: a schedule, as in a job.
    pub every: String,
    /// IANA name of the schedule's time zone.
    pub timezone: String,
    /// How long each lasts.
    #[serde(rename = "for")]
    pub lasts: Span,
    /// The one that is open, or the next; `null` when there is none any more.
    pub next: Option<MaintenanceWindow>,
}

/// A window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MaintenanceWindow {
    /// Its begin.
    pub from: Timestamp,
    /// Its end.
    pub until: Timestamp,
}

/// Tasks that have not ended, those that wait for their turn too: a drain is done when there are none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StillRunning {
    /// How many.
    pub tasks: u32,
    /// On how many hosts.
    pub hosts: u32,
    /// The first of these hosts by name, at most ten.
    pub on: Vec<HostName>,
}

/// A maintenance in force, in a few words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MaintenanceNow {
    /// Its id.
    pub id: MaintenanceId,
    /// The selector of the hosts that it covers; `null` for everything.
    pub hosts: Option<String>,
    /// Whose jobs it holds; `null` for all jobs.
    pub source: Option<String>,
    /// Why.
    pub reason: String,
    /// What people are to know.
    pub message: Option<String>,
    /// When it ends, or its window does; `null` until it is switched off.
    pub until: Option<Timestamp>,
}

/// A maintenance to be switched on: of everything, or of the hosts of a selector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewMaintenance {
    /// A selector of hosts; those that come later are covered too.
    #[serde(default)]
    pub hosts: Option<String>,
    /// Everything: no job fires. Either this or `hosts`.
    #[serde(default)]
    pub everything: bool,
    /// Why, in a few words.
    pub reason: String,
    /// What people are to know.
    #[serde(default)]
    pub message: Option<String>,
    /// How long; without this and `until` it goes on until it is switched off. With `every` it says how long each
    /// window lasts.
    #[serde(default, rename = "for")]
    pub lasts: Option<Span>,
    /// Until when.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// It recurs: a schedule that says when its windows begin. It ends when it is switched off.
    #[serde(default)]
    pub every: Option<String>,
    /// IANA name of the time zone of `every`; UTC when absent.
    #[serde(default)]
    pub timezone: Option<String>,
    /// End what runs on the hosts that it covers now, as `runs cancel` does.
    #[serde(default)]
    pub stop_running: bool,
}
