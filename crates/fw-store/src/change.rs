//! Changes: rollouts and runbooks that were begun, as all their events.

use fw_core::change::{Change, Event, Kind, Origin};
use fw_core::rollout;
use fw_proto::api::{ActorKind, ChangeState, Page};
use fw_proto::{ChangeId, Incarnation, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::row::{self, Stored as _, blob};
use crate::run::{MAX_PAGE, cut};
use crate::{Error, Store};

/// Events that a change gains, and what a list says of it after them.
#[derive(Debug, Clone)]
pub struct ChangeAppend {
    /// How many events it has so far; 0 makes a new one.
    pub expected_seq: u64,
    /// The events, in order.
    pub events: Vec<Event>,
    /// The change after the events.
    pub row: ChangeRow,
}

/// A change in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeRow {
    /// Its id.
    pub id: ChangeId,
    /// Whether it is a rollout or a runbook.
    pub origin: Origin,
    /// What it is called.
    pub title: String,
    /// Where it stands.
    pub state: ChangeState,
    /// Why it does not go on, or what it does.
    pub why: Option<String>,
    /// The number of the wave that a rollout is in, counted from 1.
    pub wave: Option<u32>,
    /// Who began it.
    pub by: String,
    /// What that is; absent in rows from before it was kept.
    pub by_kind: Option<ActorKind>,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// A change as it is remembered.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredChange {
    /// The fold of its events.
    pub change: Change,
    /// The life of the store in which the last of them was committed.
    pub incarnation: Incarnation,
}

/// Which changes to list.
#[derive(Debug, Clone, Default)]
pub struct ChangeQuery {
    /// Where the page begins: `next` of the page before.
    pub cursor: Option<String>,
    /// At most so many, from 1 to 1,000.
    pub limit: u32,
    /// Only rollouts, or only runbooks.
    pub origin: Option<Origin>,
}

impl From<&Change> for ChangeRow {
    fn from(change: &Change) -> Self {
        Self {
            id: change.id,
            origin: change.plan.origin,
            title: change.plan.title.clone(),
            state: change.state(),
            why: change.why(),
            wave: match change.plan.origin {
                Origin::Rollout => rollout::wave(change),
                Origin::Runbook => None,
            },
            by: change.by.to_string(),
            by_kind: Some(change.by.kind()),
            created_at: change.created_at,
            finished_at: change.finished_at,
        }
    }
}

impl Store {
    /// Appends to a change, all or nothing.
    ///
    /// # Errors
    /// [`Error::ChangeConflict`] when it has not the expected number of events.
    pub async fn commit_change(&self, append: ChangeAppend) -> Result<(), Error> {
        let ChangeAppend { expected_seq, events, row } = append;
        let bodies: Vec<_> = events.iter().map(row::encode_change_event).collect();
        let (life, text) = (self.incarnation(), text_of(&events));
        self.main().write(move |db| write(db, expected_seq, &bodies, &row, (life, text))).await
    }

    /// All changes that have not ended, oldest first.
    ///
    /// # Errors
    /// What the database says.
    pub async fn unfinished_changes(&self) -> Result<Vec<StoredChange>, Error> {
        self.main()
            .read(|db| {
                let sql = "SELECT * FROM changes WHERE finished_at IS NULL ORDER BY n";
                let mut statement = db.prepare_cached(sql)?;
                statement.query_and_then([], |row| fold(db, row))?.collect()
            })
            .await
    }

    /// A change.
    ///
    /// # Errors
    /// What the database says.
    pub async fn change(&self, id: ChangeId) -> Result<Option<StoredChange>, Error> {
        self.main()
            .read(move |db| {
                let mut statement = db.prepare_cached("SELECT * FROM changes WHERE id = ?1")?;
                let mut found = statement.query_and_then([blob(&id.0)], |row| fold(db, row))?;
                found.next().transpose()
            })
            .await
    }

    /// The events of a change, in order; none when there is no such change.
    ///
    /// # Errors
    /// What the database says.
    pub async fn change_events(&self, id: ChangeId) -> Result<Vec<Event>, Error> {
        self.main()
            .read(move |db| {
                let sql = "SELECT n FROM changes WHERE id = ?1";
                let n = db.prepare_cached(sql)?.query_row([blob(&id.0)], |row| row.get(0));
                n.optional()?.map_or_else(|| Ok(Vec::new()), |n| events(db, n))
            })
            .await
    }

    /// Whether a change of just this text was ever taken back, everywhere.
    ///
    /// # Errors
    /// What the database says.
    pub async fn was_undone(&self, text: &str) -> Result<bool, Error> {
        let text = sha256(text);
        self.main()
            .read(move |db| {
                let sql =
                    "SELECT 1 FROM changes WHERE text_sha256 = ?1 AND state = 'undone' LIMIT 1";
                Ok(db.prepare_cached(sql)?.exists([text])?)
            })
            .await
    }

    /// Changes that a person should look at, newest first, at most so many: those that wait for one, and those that
    /// could not be taken back and ended since then.
    ///
    /// # Errors
    /// What the database says.
    pub async fn changes_to_look_at(
        &self,
        since: Timestamp,
        most: u32,
    ) -> Result<Vec<ChangeRow>, Error> {
        // By `+n`, or the planner walks the whole table backwards instead of sorting the few that there are.
        let sql = "SELECT * FROM (
                SELECT * FROM changes WHERE finished_at IS NULL
                    AND state IN ('paused', 'awaiting_approval', 'awaiting_person')
                UNION ALL
                SELECT * FROM changes WHERE finished_at >= ?1 AND state = 'undo_failed'
            ) ORDER BY +n DESC LIMIT ?2";
        self.main()
            .read(move |db| {
                let values = params![since.as_millis(), most];
                db.prepare_cached(sql)?.query_and_then(values, read_row)?.collect()
            })
            .await
    }

    /// A page of changes, newest first.
    ///
    /// # Errors
    /// [`Error::BadCursor`], and what the database says.
    pub async fn changes(&self, query: ChangeQuery) -> Result<Page<ChangeRow>, Error> {
        let before = match &query.cursor {
            None => i64::MAX,
            Some(cursor) => cursor.parse().map_err(|_| Error::BadCursor)?,
        };
        self.main().read(move |db| page(db, &query, before)).await
    }
}

/// The hash of the text that a change was compiled from; of events that are not its first, nothing.
fn text_of(events: &[Event]) -> Vec<u8> {
    match events.first().map(|event| &event.kind) {
        Some(Kind::Planned(plan)) => sha256(&plan.source),
        Some(
            Kind::Opened { .. }
            | Kind::Passed { .. }
            | Kind::Approved { .. }
            | Kind::Expired { .. }
            | Kind::Skipped { .. }
            | Kind::Began { .. }
            | Kind::Ended { .. }
            | Kind::NotBegun { .. }
            | Kind::PauseRequested
            | Kind::Resumed
            | Kind::AbortRequested
            | Kind::UndoRequested,
        )
        | None => Vec::new(),
    }
}

fn sha256(text: &str) -> Vec<u8> {
    Sha256::digest(text).to_vec()
}

fn write(
    db: &Connection,
    expected_seq: u64,
    bodies: &[Vec<u8>],
    row: &ChangeRow,
    (life, text): (Incarnation, Vec<u8>),
) -> Result<(), Error> {
    let seq = row::int(expected_seq);
    let after = seq.saturating_add_unsigned(bodies.len() as u64);
    let n = if seq == 0 {
        insert(db, row, after, (life, text))?
    } else {
        let mut statement = db.prepare_cached(
            "UPDATE changes SET seq = ?3, state = ?4, why = ?5, wave = ?6, incarnation = ?7,
                                finished_at = ?8
             WHERE id = ?1 AND seq = ?2 RETURNING n",
        )?;
        let finished_at = row.finished_at.map(Timestamp::as_millis);
        let (state, life) = (row.state.text(), blob(&life.0));
        let values =
            params![blob(&row.id.0), seq, after, state, row.why, row.wave, life, finished_at];
        statement.query_row(values, |row| row.get(0)).optional()?
    };
    let n: i64 = n.ok_or(Error::ChangeConflict { change: row.id })?;
    let mut add = db.prepare_cached(
        "INSERT INTO change_events (change, seq, format, body) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for (seq, body) in (seq + 1..).zip(bodies) {
        add.execute(params![n, seq, row::CHANGE_FORMAT, body])?;
    }
    Ok(())
}

fn insert(
    db: &Connection,
    row: &ChangeRow,
    seq: i64,
    (life, text): (Incarnation, Vec<u8>),
) -> Result<Option<i64>, Error> {
    let mut statement = db.prepare_cached(
        "INSERT INTO changes (id, origin, title, state, why, wave, actor, seq, text_sha256, incarnation,
                              created_at, finished_at)
         VALUES (:id, :origin, :title, :state, :why, :wave, :actor, :seq, :text, :life, :created_at,
                 :finished_at)
         ON CONFLICT (id) DO NOTHING RETURNING n",
    )?;
    let inserted = statement.query_row(
        named_params! {
            ":id": blob(&row.id.0),
            ":origin": row.origin.text(),
            ":title": row.title,
            ":state": row.state.text(),
            ":why": row.why,
            ":wave": row.wave,
            ":actor": row::actor::column(&row.by, row.by_kind),
            ":seq": seq,
            ":text": text,
            ":life": blob(&life.0),
            ":created_at": row.created_at.as_millis(),
            ":finished_at": row.finished_at.map(Timestamp::as_millis),
        },
        |row| row.get(0),
    );
    Ok(inserted.optional()?)
}

fn events(db: &Connection, n: i64) -> Result<Vec<Event>, Error> {
    let sql = "SELECT format, body FROM change_events WHERE change = ?1 ORDER BY seq";
    let mut statement = db.prepare_cached(sql)?;
    let events = statement.query_and_then([n], |row| {
        let body = row.get_ref(1)?.as_blob().map_err(Error::corrupt)?;
        row::decode_change_event(row.get(0)?, body)
    })?;
    events.collect()
}

fn fold(db: &Connection, row: &Row<'_>) -> Result<StoredChange, Error> {
    let (id, seq) = (ChangeId(row::uuid(row, "id")?), row::count(row, "seq")?);
    let events = events(db, row.get("n")?)?;
    let change = Change::fold(id, &events)
        .map_err(|error| Error::corrupt(format!("change {id}: {error}")))?;
    if change.seq != seq {
        return Err(Error::corrupt(format!("change {id} has {} of {seq} events", change.seq)));
    }
    let incarnation: [u8; 16] = row.get("incarnation")?;
    Ok(StoredChange { change, incarnation: Incarnation(Uuid::from_bytes(incarnation)) })
}

fn page(db: &Connection, query: &ChangeQuery, before: i64) -> Result<Page<ChangeRow>, Error> {
    let limit = query.limit.clamp(1, MAX_PAGE);
    let most = i64::from(limit) + 1;
    let read = |row: &Row<'_>| Ok::<_, Error>((row.get::<_, i64>("n")?, read_row(row)?));
    let rows: Result<Vec<_>, Error> = match query.origin {
        None => {
            let sql = "SELECT * FROM changes WHERE n < ?1 ORDER BY n DESC LIMIT ?2";
            db.prepare_cached(sql)?.query_and_then(params![before, most], read)?.collect()
        }
        Some(origin) => {
            let sql = "SELECT * FROM changes WHERE origin = ?1 AND n < ?2 ORDER BY n DESC LIMIT ?3";
            let values = params![origin.text(), before, most];
            db.prepare_cached(sql)?.query_and_then(values, read)?.collect()
        }
    };
    Ok(cut(rows?, limit, i64::to_string))
}

fn read_row(row: &Row<'_>) -> Result<ChangeRow, Error> {
    let (by, by_kind) = row::actor::read(row.get("actor")?);
    Ok(ChangeRow {
        id: ChangeId(row::uuid(row, "id")?),
        origin: row::stored(row, "origin")?,
        title: row.get("title")?,
        state: row::stored(row, "state")?,
        why: row.get("why")?,
        wave: row.get("wave")?,
        by,
        by_kind,
        created_at: row::at(row, "created_at")?,
        finished_at: row::maybe_at(row, "finished_at")?,
    })
}
