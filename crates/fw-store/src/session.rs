//! Sessions of people who are signed in, by the hash of what their cookie holds.

use fw_proto::api::Role;
use fw_proto::{Span, Timestamp};
use rusqlite::{Row, params};

use crate::row;
use crate::{Error, Store};

/// A session to be begun.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// SHA-256 of what the cookie holds.
    pub sha256: [u8; 32],
    /// Whose it is.
    pub user: String,
    /// From where.
    pub address: String,
    /// What of it counts as known later: a whole network, for some.
    pub network: String,
    /// What the browser calls itself.
    pub agent: String,
    /// Now.
    pub at: Timestamp,
    /// When its user last proved who they are.
    pub proved_at: Timestamp,
    /// When it ends at the latest.
    pub expires_at: Timestamp,
}

/// A session, and what its user may do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// Its number.
    pub id: i64,
    /// Whose it is.
    pub user: String,
    /// What they may do.
    pub role: Role,
    /// Whether they have set up one-time codes.
    pub totp: bool,
    /// From where it was begun.
    pub address: String,
    /// What the browser calls itself.
    pub agent: String,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    pub used_at: Timestamp,
    /// When it ends at the latest.
    pub expires_at: Timestamp,
    /// When its user last proved who they are.
    pub stepped_up_at: Timestamp,
}

/// As that of tokens: writing it with each request would cost more than the request.
const USE_GRAIN: Span = Span::from_secs(60);

const SELECT: &str = "SELECT sessions.*, users.role, users.totp IS NOT NULL AS has_totp
    FROM sessions JOIN users ON users.name = sessions.user";

impl Store {
    /// Begins a session; gives its number.
    ///
    /// # Errors
    /// What the database says.
    pub async fn begin_session(&self, new: NewSession) -> Result<i64, Error> {
        self.main()
            .write(move |db| {
                let at = new.at.as_millis();
                let sql = "INSERT INTO sessions
                    (sha256, user, address, agent, created_at, used_at, expires_at, stepped_up_at)
                    VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7)";
                let expires_at = new.expires_at.as_millis();
                let proved_at = new.proved_at.as_millis();
                let NewSession { sha256, user, address, agent, .. } = &new;
                let values = params![sha256, user, address, agent, at, expires_at, proved_at];
                db.prepare_cached(sql)?.execute(values)?;
                let id = db.last_insert_rowid();
                db.prepare_cached("UPDATE users SET last_sign_in = ?2 WHERE name = ?1")?
                    .execute(params![new.user, at])?;
                let sql = "INSERT INTO known_addresses (user, address, at) VALUES (?1, ?2, ?3)
                           ON CONFLICT (user, address) DO UPDATE SET at = excluded.at";
                db.prepare_cached(sql)?.execute(params![new.user, new.network, at])?;
                Ok(id)
            })
            .await
    }

    /// The session with this hash, over or not, of a user who may sign in.
    ///
    /// # Errors
    /// What the database says.
    pub async fn session_by_hash(&self, sha256: &[u8; 32]) -> Result<Option<SessionRow>, Error> {
        let sha256 = *sha256;
        self.main()
            .read(move |db| {
                let sql = format!("{SELECT} WHERE sessions.sha256 = ?1 AND users.disabled = 0");
                let mut statement = db.prepare_cached(&sql)?;
                statement.query_and_then([sha256], read_session)?.next().transpose()
            })
            .await
    }

    /// The sessions of someone, newest first.
    ///
    /// # Errors
    /// What the database says.
    pub async fn sessions_of(&self, user: &str) -> Result<Vec<SessionRow>, Error> {
        let user = user.to_owned();
        self.main()
            .read(move |db| {
                let sql = format!("{SELECT} WHERE sessions.user = ?1 ORDER BY sessions.id DESC");
                let mut statement = db.prepare_cached(&sql)?;
                statement.query_and_then([user], read_session)?.collect()
            })
            .await
    }

    /// All sessions, newest first.
    ///
    /// # Errors
    /// What the database says.
    pub async fn sessions(&self) -> Result<Vec<SessionRow>, Error> {
        self.main()
            .read(|db| {
                let sql = format!("{SELECT} ORDER BY sessions.id DESC");
                db.prepare_cached(&sql)?.query_and_then([], read_session)?.collect()
            })
            .await
    }

    /// Records that a session was used.
    ///
    /// # Errors
    /// What the database says.
    pub async fn touch_session(&self, id: i64, at: Timestamp) -> Result<(), Error> {
        self.main()
            .write(move |db| {
                let sql = "UPDATE sessions SET used_at = ?2 WHERE id = ?1 AND used_at <= ?3";
                let stale = (at - USE_GRAIN).as_millis();
                db.prepare_cached(sql)?.execute(params![id, at.as_millis(), stale])?;
                Ok(())
            })
            .await
    }

    /// Records that a session's user has proved who they are.
    ///
    /// # Errors
    /// What the database says.
    pub async fn step_up(&self, id: i64, at: Timestamp) -> Result<(), Error> {
        self.main()
            .write(move |db| {
                db.prepare_cached("UPDATE sessions SET stepped_up_at = ?2 WHERE id = ?1")?
                    .execute(params![id, at.as_millis()])?;
                Ok(())
            })
            .await
    }

    /// Ends a session; says whether there was one, and of `user` if one is named.
    ///
    /// # Errors
    /// What the database says.
    pub async fn end_session(&self, id: i64, user: Option<&str>) -> Result<bool, Error> {
        let user = user.map(str::to_owned);
        self.main()
            .write(move |db| {
                let sql = "DELETE FROM sessions WHERE id = ?1 AND (?2 IS NULL OR user = ?2)";
                Ok(db.prepare_cached(sql)?.execute(params![id, user])? > 0)
            })
            .await
    }

    /// Ends all sessions of someone, but for the one that is to be kept; says how many.
    ///
    /// # Errors
    /// What the database says.
    pub async fn end_sessions(&self, user: &str, keep: Option<i64>) -> Result<usize, Error> {
        let user = user.to_owned();
        self.main()
            .write(move |db| {
                let sql = "DELETE FROM sessions WHERE user = ?1 AND id IS NOT ?2";
                Ok(db.prepare_cached(sql)?.execute(params![user, keep])?)
            })
            .await
    }

    /// Removes what is over: sessions by their end or after `idle` without use, links, and addresses that
    /// nobody has signed in from since `known_since`.
    ///
    /// # Errors
    /// What the database says.
    pub async fn prune_sessions(
        &self,
        now: Timestamp,
        idle: Span,
        known_since: Timestamp,
    ) -> Result<usize, Error> {
        self.main()
            .write(move |db| {
                let (now_ms, unused) = (now.as_millis(), (now - idle).as_millis());
                let mut over = db
                    .prepare_cached("DELETE FROM sessions WHERE expires_at <= ?1")?
                    .execute([now_ms])?;
                over += db
                    .prepare_cached("DELETE FROM sessions WHERE used_at <= ?1")?
                    .execute([unused])?;
                db.prepare_cached("DELETE FROM setup_links WHERE expires_at <= ?1")?
                    .execute([now_ms])?;
                db.prepare_cached("DELETE FROM known_addresses WHERE at < ?1")?
                    .execute([known_since.as_millis()])?;
                Ok(over)
            })
            .await
    }
}

fn read_session(row: &Row<'_>) -> Result<SessionRow, Error> {
    Ok(SessionRow {
        id: row.get("id")?,
        user: row.get("user")?,
        role: row::stored(row, "role")?,
        totp: row.get("has_totp")?,
        address: row.get("address")?,
        agent: row.get("agent")?,
        created_at: row::at(row, "created_at")?,
        used_at: row::at(row, "used_at")?,
        expires_at: row::at(row, "expires_at")?,
        stepped_up_at: row::at(row, "stepped_up_at")?,
    })
}
