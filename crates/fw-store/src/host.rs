//! Hosts: who they are, what the server says of them, and what they say of themselves.

use std::collections::BTreeMap;

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
    ///
    /// # Errors
    /// What the database says.
    pub async fn hosts(&self) -> Result<Vec<HostRow>, Error> {
        self.main()
            .read(|db| {
                let sql = format!("{SELECT} ORDER BY name");
                let mut statement = db.prepare_cached(&sql)?;
                statement.query_and_then([], read_host)?.collect()
            })
            .await
    }

    /// The host with this id.
    ///
    /// # Errors
    /// What the database says.
    pub async fn host(&self, id: HostId) -> Result<Option<HostRow>, Error> {
        self.main().read(move |db| one(db, "id", [blob(&id.0)])).await
    }

    /// The host with this name.
    ///
    /// # Errors
    /// What the database says.
    pub async fn host_named(&self, name: &HostName) -> Result<Option<HostRow>, Error> {
        let name = name.clone();
        self.main().read(move |db| one(db, "name", [name.as_str()])).await
    }

    /// The host with this key.
    ///
    /// # Errors
    /// What the database says.
    pub async fn host_by_key(&self, key: PublicKey) -> Result<Option<HostRow>, Error> {
        self.main().read(move |db| one(db, "key", [key.0])).await
    }

    /// Gives a host another name.
    ///
    /// # Errors
    /// What the database says.
    pub async fn rename_host(&self, id: HostId, name: HostName) -> Result<Changed, Error> {
        self.main()
            .write(move |db| {
                let taken = one(db, "name", [name.as_str()])?.is_some_and(|host| host.id != id);
                if taken {
                    return Ok(Changed::Taken);
                }
                set(db, "name = ?2", params![blob(&id.0), name.as_str()])
            })
            .await
    }

    /// Sets labels and takes others off.
    ///
    /// # Errors
    /// What the database says.
    pub async fn label_host(&self, id: HostId, change: LabelChange) -> Result<Changed, Error> {
        self.main()
            .write(move |db| {
                let Some(host) = one(db, "id", [blob(&id.0)])? else { return Ok(Changed::Unknown) };
                let mut labels = host.labels;
                labels.retain(|name, _| !change.remove.contains(name));
                labels.extend(change.set);
                set(db, "labels = ?2", params![blob(&id.0), row::json(&labels)])
            })
            .await
    }

    /// Says whether a host may link.
    ///
    /// # Errors
    /// What the database says.
    pub async fn set_standing(&self, id: HostId, standing: Standing) -> Result<Changed, Error> {
        self.main()
            .write(move |db| set(db, "standing = ?2", params![blob(&id.0), standing.text()]))
            .await
    }

    /// Forgets a host. What it ran and wrote stays.
    ///
    /// # Errors
    /// What the database says.
    pub async fn remove_host(&self, id: HostId) -> Result<Changed, Error> {
        self.main()
            .write(move |db| {
                let mut statement = db.prepare_cached("DELETE FROM hosts WHERE id = ?1")?;
                Ok(Changed::when(statement.execute([blob(&id.0)])? > 0))
            })
            .await
    }

    /// Gives a host another key.
    ///
    /// # Errors
    /// What the database says.
    pub async fn rekey_host(&self, id: HostId, key: PublicKey) -> Result<Changed, Error> {
        self.main()
            .write(move |db| {
                if one(db, "key", [key.0])?.is_some_and(|host| host.id != id) {
                    return Ok(Changed::Taken);
                }
                set(db, "key = ?2", params![blob(&id.0), key.0])
            })
            .await
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
        self.main()
            .write(move |db| {
                let sql = "INSERT INTO facts (host, body) SELECT id, ?2 FROM hosts WHERE id = ?1
                           ON CONFLICT (host) DO UPDATE SET body = excluded.body";
                let rows = db.prepare_cached(sql)?.execute(params![blob(&id.0), body])?;
                Ok(Changed::when(rows > 0))
            })
            .await
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
        let sql = "agent_version = ?2, policy = ?3, last_seen = max(coalesce(last_seen, 0), ?4),
                   offline_since = NULL";
        self.main()
            .write(move |db| {
                set(db, sql, params![blob(&id.0), agent_version, policy.text(), at.as_millis()])
            })
            .await
    }

    /// Records when hosts were last heard; they are online.
    ///
    /// # Errors
    /// What the database says.
    pub async fn seen(&self, hosts: Vec<(HostId, Timestamp)>) -> Result<(), Error> {
        let sql = "last_seen = max(coalesce(last_seen, 0), ?2), offline_since = NULL";
        self.heard(hosts, sql).await
    }

    /// Records that hosts went offline at these instants.
    ///
    /// # Errors
    /// What the database says.
    pub async fn gone(&self, hosts: Vec<(HostId, Timestamp)>) -> Result<(), Error> {
        let sql = "last_seen = max(coalesce(last_seen, 0), ?2), offline_since = ?2";
        self.heard(hosts, sql).await
    }

    async fn heard(
        &self,
        hosts: Vec<(HostId, Timestamp)>,
        assignment: &'static str,
    ) -> Result<(), Error> {
        self.main()
            .write(move |db| {
                hosts.iter().try_for_each(|(id, at)| {
                    set(db, assignment, params![blob(&id.0), at.as_millis()]).map(drop)
                })
            })
            .await
    }
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
