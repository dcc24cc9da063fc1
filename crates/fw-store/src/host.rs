//! Hosts: who they are, what the server says of them, and what they say of themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use fw_proto::api::LabelChange;
use fw_proto::frame::PolicyMode;
use fw_proto::{HostId, HostName, PublicKey, Timestamp};
use rusqlite::{Connection, Params, Row, params};

use crate::row::{self, Stored as _, blob};
use crate::{Error, Store};

/// A host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostRow {
    /// Its id; stays when name and key change.
    pub id: HostId,
    /// Its name; unique.
    pub name: HostName,
    /// Its key; unique. This is who it is.
    pub key: PublicKey,
    /// What the server says of it.
    pub labels: BTreeMap<String, String>,
    /// What it says of itself.
    pub facts: serde_json::Map<String, serde_json::Value>,
    /// Version of its agent.
    pub agent_version: Option<String>,
    /// What its local policy allows.
    pub policy: Option<PolicyMode>,
    /// When it was last heard.
    pub last_seen: Option<Timestamp>,
    /// When it went offline, as far as a server saw that.
    pub offline_since: Option<Timestamp>,
    /// When it was enrolled.
    pub joined_at: Timestamp,
    /// Whether it may link.
    pub standing: Standing,
}

/// Whether a host may link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It may.
    Active,
    /// It may not any more.
    Revoked,
    /// Two machines used its key; neither may.
    Duplicate,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It is done.
    Done,
    /// There is no such thing.
    Unknown,
    /// Another one has this name or key.
    Taken,
}

impl Changed {
    pub(crate) fn when(found: bool) -> Self {
        if found { Self::Done } else { Self::Unknown }
    }
}

impl Store {
    /// All hosts, by name.
    #[must_use]
    pub fn hosts(&self) -> Arc<[Arc<HostRow>]> {
        self.roster().all()
    }

    /// The host with this id.
    #[must_use]
    pub fn host(&self, id: HostId) -> Option<Arc<HostRow>> {
        self.roster().by_id(id)
    }

    /// The host with this name.
    #[must_use]
    pub fn host_named(&self, name: &HostName) -> Option<Arc<HostRow>> {
        self.roster().by_name(name)
    }

    /// The host with this key.
    #[must_use]
    pub fn host_by_key(&self, key: PublicKey) -> Option<Arc<HostRow>> {
        self.roster().by_key(key.0)
    }

    /// Gives a host another name.
    ///
    /// # Errors
    /// What the database says.
    pub async fn rename_host(&self, id: HostId, name: HostName) -> Result<Changed, Error> {
        let new = name.clone();
        let write = move |db: &Connection| {
            let taken = one(db, "name", [name.as_str()])?.is_some_and(|host| host.id != id);
            if taken {
                return Ok(Changed::Taken);
            }
            set(db, "name = ?2", params![blob(&id.0), name.as_str()])
        };
        self.change_host(id, write, move |row| row.name = new).await
    }

    /// Sets labels and takes others off.
    ///
    /// # Errors
    /// What the database says.
    pub async fn label_host(&self, id: HostId, change: LabelChange) -> Result<Changed, Error> {
        let also = change.clone();
        let write = move |db: &Connection| {
            let Some(mut host) = one(db, "id", [blob(&id.0)])? else { return Ok(Changed::Unknown) };
            relabel(&mut host.labels, change);
            set(db, "labels = ?2", params![blob(&id.0), row::json(&host.labels)])
        };
        self.change_host(id, write, move |row| relabel(&mut row.labels, also)).await
    }

    /// Says whether a host may link.
    ///
    /// # Errors
    /// What the database says.
    pub async fn set_standing(&self, id: HostId, standing: Standing) -> Result<Changed, Error> {
        let write =
            move |db: &Connection| set(db, "standing = ?2", params![blob(&id.0), standing.text()]);
        self.change_host(id, write, move |row| row.standing = standing).await
    }

    /// Forgets a host. What it ran and wrote stays.
    ///
    /// # Errors
    /// What the database says.
    pub async fn remove_host(&self, id: HostId) -> Result<Changed, Error> {
        let roster = self.roster().clone();
        let remove = move |db: &Connection| {
            let mut statement = db.prepare_cached("DELETE FROM hosts WHERE id = ?1")?;
            Ok(Changed::when(statement.execute([blob(&id.0)])? > 0))
        };
        self.main().write_then(remove, move |_| roster.remove(id)).await
    }

    /// Gives a host another key.
    ///
    /// # Errors
    /// What the database says.
    pub async fn rekey_host(&self, id: HostId, key: PublicKey) -> Result<Changed, Error> {
        let write = move |db: &Connection| {
            if one(db, "key", [key.0])?.is_some_and(|host| host.id != id) {
                return Ok(Changed::Taken);
            }
            set(db, "key = ?2", params![blob(&id.0), key.0])
        };
        self.change_host(id, write, move |row| row.key = key).await
    }

    /// Records what a host says of itself.
    ///
    /// # Errors
    /// What the database says.
    pub async fn set_facts(
        &self,
        id: HostId,
        facts: serde_json::Map<String, serde_json::Value>,
    ) -> Result<Changed, Error> {
        let body = row::json(&facts);
        let write = move |db: &Connection| {
            let sql = "INSERT INTO facts (host, body) SELECT id, ?2 FROM hosts WHERE id = ?1
                       ON CONFLICT (host) DO UPDATE SET body = excluded.body";
            let rows = db.prepare_cached(sql)?.execute(params![blob(&id.0), body])?;
            Ok(Changed::when(rows > 0))
        };
        self.change_host(id, write, move |row| row.facts = facts).await
    }

    /// Records the greeting of a host: it is online, with this build and this policy.
    ///
    /// # Errors
    /// What the database says.
    pub async fn greeted(
        &self,
        id: HostId,
        agent_version: String,
        policy: PolicyMode,
        at: Timestamp,
    ) -> Result<Changed, Error> {
        let version = agent_version.clone();
        let write = move |db: &Connection| {
            let sql = "agent_version = ?2, policy = ?3,
                       last_seen = max(coalesce(last_seen, 0), ?4), offline_since = NULL";
            set(db, sql, params![blob(&id.0), agent_version, policy.text(), at.as_millis()])
        };
        let greeted = move |row: &mut HostRow| {
            row.agent_version = Some(version);
            row.policy = Some(policy);
            row.heard(at, None);
        };
        self.change_host(id, write, greeted).await
    }

    /// Records when hosts were last heard; they are online.
    ///
    /// # Errors
    /// What the database says.
    pub async fn seen(&self, hosts: Vec<(HostId, Timestamp)>) -> Result<(), Error> {
        let sql = "last_seen = max(coalesce(last_seen, 0), ?2), offline_since = NULL";
        self.heard(hosts, sql, |row, at| row.heard(at, None)).await
    }

    /// Records that hosts went offline at these instants.
    ///
    /// # Errors
    /// What the database says.
    pub async fn gone(&self, hosts: Vec<(HostId, Timestamp)>) -> Result<(), Error> {
        let sql = "last_seen = max(coalesce(last_seen, 0), ?2), offline_since = ?2";
        self.heard(hosts, sql, |row, at| row.heard(at, Some(at))).await
    }

    async fn heard(
        &self,
        hosts: Vec<(HostId, Timestamp)>,
        assignment: &'static str,
        note: fn(&mut HostRow, Timestamp),
    ) -> Result<(), Error> {
        let (roster, also) = (self.roster().clone(), hosts.clone());
        let write = move |db: &Connection| {
            hosts.iter().try_for_each(|(id, at)| {
                set(db, assignment, params![blob(&id.0), at.as_millis()]).map(drop)
            })
        };
        let noted = move |(): &()| {
            also.iter().for_each(|(id, at)| roster.change(*id, |row| note(row, *at)));
        };
        self.main().write_then(write, noted).await
    }

    /// Changes a host in the database, then in memory.
    async fn change_host(
        &self,
        id: HostId,
        write: impl FnOnce(&Connection) -> Result<Changed, Error> + Send + 'static,
        also: impl FnOnce(&mut HostRow) + Send + 'static,
    ) -> Result<Changed, Error> {
        let roster = self.roster().clone();
        let changed = move |changed: &Changed| {
            if *changed == Changed::Done {
                roster.change(id, also);
            }
        };
        self.main().write_then(write, changed).await
    }
}

impl HostRow {
    fn heard(&mut self, at: Timestamp, offline_since: Option<Timestamp>) {
        self.last_seen = self.last_seen.max(Some(at));
        self.offline_since = offline_since;
    }
}

fn relabel(labels: &mut BTreeMap<String, String>, change: LabelChange) {
    labels.retain(|name, _| !change.remove.contains(name));
    labels.extend(change.set);
}

/// All hosts, as the database has them.
pub(crate) fn all(db: &Connection) -> Result<Vec<HostRow>, Error> {
    let mut statement = db.prepare_cached(SELECT)?;
    statement.query_and_then([], read_host)?.collect()
}

const SELECT: &str =
    "SELECT hosts.*, facts.body FROM hosts LEFT JOIN facts ON facts.host = hosts.id";

/// The host whose `column` (one of ours, never input) has a value.
pub(crate) fn one(
    db: &Connection,
    column: &'static str,
    value: impl Params,
) -> Result<Option<HostRow>, Error> {
    let mut statement = db.prepare_cached(&format!("{SELECT} WHERE hosts.{column} = ?1"))?;
    statement.query_and_then(value, read_host)?.next().transpose()
}

fn set(db: &Connection, assignment: &'static str, values: impl Params) -> Result<Changed, Error> {
    let mut statement =
        db.prepare_cached(&format!("UPDATE hosts SET {assignment} WHERE id = ?1"))?;
    Ok(Changed::when(statement.execute(values)? > 0))
}

fn read_host(row: &Row<'_>) -> Result<HostRow, Error> {
    let facts: Option<String> = row.get("body")?;
    let facts = facts.map(|body| serde_json::from_str(&body).map_err(Error::corrupt));
    Ok(HostRow {
        id: row::host(row, "id")?,
        name: row::name(row, "name")?,
        key: PublicKey(row.get("key")?),
        labels: row::from_json(row, "labels")?,
        facts: facts.transpose()?.unwrap_or_default(),
        agent_version: row.get("agent_version")?,
        policy: row::maybe_stored(row, "policy")?,
        last_seen: row::maybe_at(row, "last_seen")?,
        offline_since: row::maybe_at(row, "offline_since")?,
        joined_at: row::at(row, "joined_at")?,
        standing: row::stored(row, "standing")?,
    })
}
