//! Invitations, and how hosts come in by them.

use std::collections::BTreeMap;

use fw_proto::{HostId, HostName, PublicKey, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::host::{self, HostRow, Standing};
use crate::row::{self, Stored as _, blob};
use crate::{Error, Store};

/// An invitation.
#[derive(Debug, Clone)]
pub struct Invite {
    /// SHA-256 of its secret, which is stored nowhere.
    pub secret_sha256: [u8; 32],
    /// How many hosts may use it.
    pub uses: u32,
    /// Until when.
    pub expires_at: Timestamp,
    /// Labels that its hosts get.
    pub labels: BTreeMap<String, String>,
    /// Who made it.
    pub by: String,
}

/// A host that asks to be enrolled. Its link has proved that it holds the key.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// SHA-256 of the secret it brought.
    pub secret_sha256: [u8; 32],
    /// The name it wants.
    pub name: HostName,
    /// Its key.
    pub key: PublicKey,
    /// The id it gets when it is new.
    pub id: HostId,
    /// Now.
    pub at: Timestamp,
}

/// What became of an enrolment.
#[derive(Debug, Clone, PartialEq)]
pub enum Enrolled {
    /// The host is in, or was already: a known key brings no second host and uses nothing up.
    Done(HostRow),
    /// Another host has this name.
    NameTaken,
    /// The invitation is wrong, used up or expired.
    BadInvitation,
    /// The key is known, and may not link: it is revoked or a duplicate.
    KeyRefused(Standing),
}

impl Store {
    /// Records an invitation.
    ///
    /// # Errors
    /// What the database says.
    pub async fn invite(&self, invite: Invite) -> Result<(), Error> {
        self.main()
            .write(move |db| {
                db.prepare_cached("INSERT INTO invitations VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(
                    params![
                        invite.secret_sha256,
                        invite.uses,
                        invite.expires_at.as_millis(),
                        row::json(&invite.labels),
                        invite.by,
                    ],
                )?;
                Ok(())
            })
            .await
    }

    /// Enrols a host by an invitation, and uses the invitation up by one.
    ///
    /// # Errors
    /// What the database says.
    pub async fn enrol(&self, enrolment: Enrolment) -> Result<Enrolled, Error> {
        let roster = self.roster().clone();
        let known = move |enrolled: &Enrolled| {
            if let Enrolled::Done(host) = enrolled {
                roster.put(host.clone());
            }
        };
        self.main().write_then(move |db| enrol(db, &enrolment), known).await
    }
}

fn enrol(db: &Connection, new: &Enrolment) -> Result<Enrolled, Error> {
    if let Some(known) = host::one(db, "key", [new.key.0])? {
        return Ok(match known.standing {
            Standing::Active => Enrolled::Done(known),
            standing @ (Standing::Revoked | Standing::Duplicate) => Enrolled::KeyRefused(standing),
        });
    }
    let Some(labels) = labels_of(db, new)? else { return Ok(Enrolled::BadInvitation) };
    if host::one(db, "name", [new.name.as_str()])?.is_some() {
        return Ok(Enrolled::NameTaken);
    }
    db.prepare_cached("UPDATE invitations SET uses = uses - 1 WHERE secret_sha256 = ?1")?
        .execute([new.secret_sha256])?;
    db.prepare_cached(
        "INSERT INTO hosts (id, name, key, labels, joined_at, standing) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        blob(&new.id.0),
        new.name.as_str(),
        new.key.0,
        labels,
        new.at.as_millis(),
        Standing::Active.text(),
    ])?;
    let host = host::one(db, "id", [blob(&new.id.0)])?;
    host.map(Enrolled::Done).ok_or_else(|| Error::corrupt("a host that was just enrolled is gone"))
}

/// The labels of the invitation, while it is good.
fn labels_of(db: &Connection, new: &Enrolment) -> Result<Option<String>, Error> {
    let sql =
        "SELECT labels FROM invitations WHERE secret_sha256 = ?1 AND uses > 0 AND expires_at > ?2";
    let key = params![new.secret_sha256, new.at.as_millis()];
    Ok(db.prepare_cached(sql)?.query_row(key, |row| row.get(0)).optional()?)
}
