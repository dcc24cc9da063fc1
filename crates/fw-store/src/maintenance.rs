//! Maintenances: those in force, and those that were until retention takes them.

use fw_proto::api::ActorKind;
use fw_proto::{MaintenanceId, Span, Timestamp};
use rusqlite::{Row, params};

use crate::row;
use crate::{Error, Store};

/// When a maintenance recurs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredWindows {
    /// When its windows begin: a schedule.
    pub every: String,
    /// IANA name of the schedule's time zone.
    pub timezone: String,
    /// How long each lasts.
    pub lasts: Span,
}

/// A maintenance that begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMaintenance {
    /// The hosts that it covers, as a selector; everything when `None`.
    pub selector: Option<String>,
    /// Why.
    pub reason: String,
    /// What people are to know.
    pub message: Option<String>,
    /// Who switched it on.
    pub by: String,
    /// What that is; absent for the files of a dialect, and in rows from before it was kept.
    pub by_kind: Option<ActorKind>,
    /// When it begins.
    pub since: Timestamp,
    /// When it ends; `None` until it is switched off.
    pub until: Option<Timestamp>,
    /// The windows that it is in force in; all the time when `None`.
    pub windows: Option<StoredWindows>,
    /// The source whose files ask for it and whose jobs it holds; all jobs when `None`.
    pub source: Option<String>,
}

/// A maintenance as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMaintenance {
    /// Its id.
    pub id: MaintenanceId,
    /// What was said when it began; `until` is its end when it was switched off before.
    pub said: NewMaintenance,
    /// Who switched it off.
    pub ended_by: Option<String>,
    /// What that is, likewise.
    pub ended_by_kind: Option<ActorKind>,
}

impl Store {
    /// Records a maintenance and gives it its id.
    ///
    /// # Errors
    /// What the database says.
    pub async fn begin_maintenance(&self, new: NewMaintenance) -> Result<MaintenanceId, Error> {
        self.main()
            .write(move |db| {
                db.prepare_cached(
                    "INSERT INTO maintenances (selector, reason, message, actor, since, until,
                         every, timezone, lasts, source)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                )?
                .execute(params![
                    new.selector,
                    new.reason,
                    new.message,
                    row::actor::column(&new.by, new.by_kind),
                    new.since.as_millis(),
                    new.until.map(Timestamp::as_millis),
                    new.windows.as_ref().map(|windows| &windows.every),
                    new.windows.as_ref().map(|windows| &windows.timezone),
                    new.windows.as_ref().map(|windows| millis(windows.lasts)),
                    new.source,
                ])?;
                let id = u32::try_from(db.last_insert_rowid());
                Ok(MaintenanceId(id.map_err(|_| Error::corrupt("maintenances: no id is left"))?))
            })
            .await
    }

    /// Ends a maintenance that is in force then; says whether it was.
    ///
    /// # Errors
    /// What the database says.
    pub async fn end_maintenance(
        &self,
        id: MaintenanceId,
        at: Timestamp,
        by: &str,
        kind: Option<ActorKind>,
    ) -> Result<bool, Error> {
        let by = row::actor::column(by, kind);
        self.main()
            .write(move |db| {
                let sql = "UPDATE maintenances SET until = ?2, ended_by = ?3
                     WHERE id = ?1 AND (until IS NULL OR until > ?2)";
                let mut statement = db.prepare_cached(sql)?;
                Ok(statement.execute(params![id.0, at.as_millis(), by])? > 0)
            })
            .await
    }

    /// All maintenances, those that are over too; the earliest first.
    ///
    /// # Errors
    /// What the database says.
    pub async fn maintenances(&self) -> Result<Vec<StoredMaintenance>, Error> {
        self.main()
            .read(|db| {
                let mut statement = db.prepare_cached("SELECT * FROM maintenances ORDER BY id")?;
                statement.query_and_then([], read)?.collect()
            })
            .await
    }
}

fn read(row: &Row<'_>) -> Result<StoredMaintenance, Error> {
    let id: i64 = row.get("id")?;
    let id = u32::try_from(id).map_err(|_| Error::corrupt(format!("id: {id}")))?;
    let (by, by_kind) = row::actor::read(row.get("actor")?);
    let ended_by: Option<String> = row.get("ended_by")?;
    let (ended_by, ended_by_kind) = ended_by.map(row::actor::read).unzip();
    Ok(StoredMaintenance {
        id: MaintenanceId(id),
        said: NewMaintenance {
            selector: row.get("selector")?,
            reason: row.get("reason")?,
            message: row.get("message")?,
            by,
            by_kind,
            since: row::at(row, "since")?,
            until: row::maybe_at(row, "until")?,
            windows: windows(row)?,
            source: row.get("source")?,
        },
        ended_by,
        ended_by_kind: ended_by_kind.flatten(),
    })
}

fn windows(row: &Row<'_>) -> Result<Option<StoredWindows>, Error> {
    let Some(every) = row.get("every")? else { return Ok(None) };
    let lasts: i64 = row.get("lasts")?;
    let lasts = u64::try_from(lasts).map_err(|_| Error::corrupt(format!("lasts: {lasts}")))?;
    let (timezone, lasts) = (row.get("timezone")?, Span::from_millis(lasts));
    Ok(Some(StoredWindows { every, timezone, lasts }))
}

fn millis(span: Span) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
