//! People who may sign in, and with what.

use fw_proto::Timestamp;
use fw_proto::api::Role;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::host::Changed;
use crate::row::{self, Stored as _};
use crate::{Error, Store};

/// Someone who may sign in.
#[derive(Clone, PartialEq, Eq)]
pub struct UserRow {
    /// The name; the actor of what they do.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Of the password; `None` until they have set one.
    pub hash: Option<String>,
    /// Whether they may not sign in.
    pub disabled: bool,
    /// The encrypted secret of their one-time codes.
    pub totp: Option<Vec<u8>>,
    /// Likewise, of one that they have not confirmed yet.
    pub totp_pending: Option<Vec<u8>>,
    /// When they were added.
    pub created_at: Timestamp,
    /// When they last signed in.
    pub last_sign_in: Option<Timestamp>,
}

impl std::fmt::Debug for UserRow {
    /// Leaves hash and secret out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserRow")
            .field("name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// What became of a change of someone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserChanged {
    /// It is done.
    Done,
    /// There is nobody of this name.
    Unknown,
    /// Nobody would be left who may change users.
    LastAdmin,
}

/// What became of a set-up link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetUp {
    /// This user has a password now, and all their sessions are over.
    Done(String),
    /// It is unknown, used up or too old.
    NoLink,
    /// The first user needs a name.
    NoName,
    /// The link is someone else's.
    OtherName,
}

impl Store {
    /// Adds someone.
    ///
    /// # Errors
    /// What the database says.
    pub async fn add_user(&self, user: UserRow) -> Result<Changed, Error> {
        self.main().write(move |db| insert(db, &user)).await
    }

    /// All users, by name.
    ///
    /// # Errors
    /// What the database says.
    pub async fn users(&self) -> Result<Vec<UserRow>, Error> {
        self.main()
            .read(|db| {
                let mut statement = db.prepare_cached("SELECT * FROM users ORDER BY name")?;
                statement.query_and_then([], read_user)?.collect()
            })
            .await
    }

    /// The user of this name.
    ///
    /// # Errors
    /// What the database says.
    pub async fn user(&self, name: &str) -> Result<Option<UserRow>, Error> {
        let name = name.to_owned();
        self.main().read(move |db| one(db, &name)).await
    }

    /// Changes what someone may do. Who is disabled is signed out everywhere.
    ///
    /// # Errors
    /// What the database says.
    pub async fn change_user(
        &self,
        name: &str,
        role: Option<Role>,
        disabled: Option<bool>,
    ) -> Result<UserChanged, Error> {
        let name = name.to_owned();
        self.main()
            .write(move |db| {
                let Some(user) = one(db, &name)? else { return Ok(UserChanged::Unknown) };
                let (role, disabled) =
                    (role.unwrap_or(user.role), disabled.unwrap_or(user.disabled));
                let stays = role == Role::Admin && !disabled;
                if counts(&user) && !stays && !another_admin(db, &name)? {
                    return Ok(UserChanged::LastAdmin);
                }
                let sql = "UPDATE users SET role = ?2, disabled = ?3 WHERE name = ?1";
                db.prepare_cached(sql)?.execute(params![name, role.text(), disabled])?;
                if disabled {
                    end_sessions(db, &name)?;
                }
                Ok(UserChanged::Done)
            })
            .await
    }

    /// Removes someone, their sessions and their tokens. What they did stays.
    ///
    /// # Errors
    /// What the database says.
    pub async fn remove_user(&self, name: &str) -> Result<UserChanged, Error> {
        let name = name.to_owned();
        self.main()
            .write(move |db| {
                let Some(user) = one(db, &name)? else { return Ok(UserChanged::Unknown) };
                if counts(&user) && !another_admin(db, &name)? {
                    return Ok(UserChanged::LastAdmin);
                }
                db.prepare_cached("DELETE FROM users WHERE name = ?1")?.execute([name])?;
                Ok(UserChanged::Done)
            })
            .await
    }

    /// Replaces a password's hash by another one of the same password. A password that was changed meanwhile stays.
    ///
    /// # Errors
    /// What the database says.
    pub async fn rehash(&self, name: &str, old: &str, new: String) -> Result<(), Error> {
        let (name, old) = (name.to_owned(), old.to_owned());
        self.main()
            .write(move |db| {
                let sql = "UPDATE users SET hash = ?3 WHERE name = ?1 AND hash = ?2";
                db.prepare_cached(sql)?.execute(params![name, old, new])?;
                Ok(())
            })
            .await
    }

    /// Gives someone another password; their other sessions are over.
    ///
    /// # Errors
    /// What the database says.
    pub async fn set_password(
        &self,
        name: &str,
        hash: String,
        keep: i64,
    ) -> Result<Changed, Error> {
        let name = name.to_owned();
        self.main()
            .write(move |db| {
                let rows = db
                    .prepare_cached("UPDATE users SET hash = ?2 WHERE name = ?1")?
                    .execute(params![name, hash])?;
                db.prepare_cached("DELETE FROM sessions WHERE user = ?1 AND id != ?2")?
                    .execute(params![name, keep])?;
                Ok(Changed::when(rows > 0))
            })
            .await
    }

    /// Stores a set-up link by the hash of its secret, in place of the one before: of a user, who then has
    /// neither password, codes nor sessions, or of the first one.
    ///
    /// # Errors
    /// What the database says.
    pub async fn put_setup_link(
        &self,
        sha256: [u8; 32],
        user: Option<String>,
        expires_at: Option<Timestamp>,
    ) -> Result<Changed, Error> {
        self.main()
            .write(move |db| {
                if let Some(name) = &user {
                    let sql = "UPDATE users SET hash = NULL, totp = NULL, totp_pending = NULL WHERE name = ?1";
                    if db.prepare_cached(sql)?.execute([name])? == 0 {
                        return Ok(Changed::Unknown);
                    }
                    end_sessions(db, name)?;
                    db.prepare_cached("DELETE FROM recovery_codes WHERE user = ?1")?.execute([name])?;
                }
                db.prepare_cached("DELETE FROM setup_links WHERE user IS ?1")?.execute([&user])?;
                let sql = "INSERT INTO setup_links (sha256, user, expires_at) VALUES (?1, ?2, ?3)";
                let expires_at = expires_at.map(Timestamp::as_millis);
                db.prepare_cached(sql)?.execute(params![sha256, user, expires_at])?;
                Ok(Changed::Done)
            })
            .await
    }

    /// Whether a link would be taken now.
    ///
    /// # Errors
    /// What the database says.
    pub async fn is_setup_link(&self, sha256: [u8; 32], now: Timestamp) -> Result<bool, Error> {
        self.main().read(move |db| Ok(link(db, sha256, now)?.is_some())).await
    }

    /// Whose link this is; `None` when it is the first user's, or none.
    ///
    /// # Errors
    /// What the database says.
    pub async fn setup_link_user(&self, sha256: [u8; 32]) -> Result<Option<String>, Error> {
        self.main()
            .read(move |db| {
                let sql = "SELECT user FROM setup_links WHERE sha256 = ?1";
                let mut statement = db.prepare_cached(sql)?;
                let user = statement.query_row([sha256], |row| row.get(0)).optional()?;
                Ok(user.flatten())
            })
            .await
    }

    /// Uses a set-up link up: makes the first user, or gives the link's user this password.
    ///
    /// # Errors
    /// What the database says.
    pub async fn set_up(
        &self,
        sha256: [u8; 32],
        name: Option<String>,
        hash: String,
        now: Timestamp,
    ) -> Result<SetUp, Error> {
        self.main()
            .write(move |db| {
                let Some(of) = link(db, sha256, now)? else { return Ok(SetUp::NoLink) };
                let name = match (of, name) {
                    (Some(of), Some(name)) if name != of => return Ok(SetUp::OtherName),
                    (Some(of), _) => {
                        let sql = "UPDATE users SET hash = ?2 WHERE name = ?1";
                        db.prepare_cached(sql)?.execute(params![of, hash])?;
                        of
                    }
                    (None, None) => return Ok(SetUp::NoName),
                    (None, Some(name)) => {
                        if db.prepare_cached("SELECT 1 FROM users LIMIT 1")?.exists([])? {
                            return Ok(SetUp::NoLink);
                        }
                        insert(db, &first(&name, hash, now))?;
                        name
                    }
                };
                db.prepare_cached("DELETE FROM setup_links WHERE sha256 = ?1")?
                    .execute([sha256])?;
                Ok(SetUp::Done(name))
            })
            .await
    }

    /// Keeps the encrypted secret of one-time codes until it is confirmed.
    ///
    /// # Errors
    /// What the database says.
    pub async fn begin_totp(&self, name: &str, secret: Vec<u8>) -> Result<(), Error> {
        let name = name.to_owned();
        self.main()
            .write(move |db| {
                let sql = "UPDATE users SET totp_pending = ?2 WHERE name = ?1";
                db.prepare_cached(sql)?.execute(params![name, secret])?;
                Ok(())
            })
            .await
    }

    /// Takes the secret that waits into use, with these recovery codes; `step` was its first code.
    ///
    /// # Errors
    /// What the database says.
    pub async fn confirm_totp(
        &self,
        name: &str,
        secret: Vec<u8>,
        step: u64,
        codes: Vec<[u8; 32]>,
    ) -> Result<Changed, Error> {
        let name = name.to_owned();
        self.main()
            .write(move |db| {
                let sql = "UPDATE users SET totp = ?2, totp_pending = NULL, totp_step = ?3
                           WHERE name = ?1 AND totp_pending = ?2";
                let rows =
                    db.prepare_cached(sql)?.execute(params![name, secret, row::int(step)])?;
                if rows == 0 {
                    return Ok(Changed::Unknown);
                }
                db.prepare_cached("DELETE FROM recovery_codes WHERE user = ?1")?
                    .execute([&name])?;
                let mut put =
                    db.prepare_cached("INSERT INTO recovery_codes (user, sha256) VALUES (?1, ?2)")?;
                for code in codes {
                    put.execute(params![name, code])?;
                }
                Ok(Changed::Done)
            })
            .await
    }

    /// Lets someone sign in without codes again.
    ///
    /// # Errors
    /// What the database says.
    pub async fn remove_totp(&self, name: &str) -> Result<Changed, Error> {
        let name = name.to_owned();
        self.main()
            .write(move |db| {
                db.prepare_cached("DELETE FROM recovery_codes WHERE user = ?1")?
                    .execute([&name])?;
                let sql = "UPDATE users SET totp = NULL, totp_pending = NULL WHERE name = ?1";
                Ok(Changed::when(db.prepare_cached(sql)?.execute([name])? > 0))
            })
            .await
    }

    /// Uses up the code of this step; `false` when it or a later one was used before.
    ///
    /// # Errors
    /// What the database says.
    pub async fn use_totp(&self, name: &str, step: u64) -> Result<bool, Error> {
        let name = name.to_owned();
        self.main()
            .write(move |db| {
                let sql = "UPDATE users SET totp_step = ?2 WHERE name = ?1 AND totp_step < ?2";
                Ok(db.prepare_cached(sql)?.execute(params![name, row::int(step)])? > 0)
            })
            .await
    }

    /// Uses up a recovery code; `false` when there is none like it.
    ///
    /// # Errors
    /// What the database says.
    pub async fn use_recovery_code(&self, name: &str, sha256: [u8; 32]) -> Result<bool, Error> {
        let name = name.to_owned();
        self.main()
            .write(move |db| {
                let sql = "DELETE FROM recovery_codes WHERE user = ?1 AND sha256 = ?2";
                Ok(db.prepare_cached(sql)?.execute(params![name, sha256])? > 0)
            })
            .await
    }

    /// Whether someone has signed in from this address since then.
    ///
    /// # Errors
    /// What the database says.
    pub async fn knows_address(
        &self,
        name: &str,
        address: &str,
        since: Timestamp,
    ) -> Result<bool, Error> {
        let (name, address) = (name.to_owned(), address.to_owned());
        self.main()
            .read(move |db| {
                let sql =
                    "SELECT 1 FROM known_addresses WHERE user = ?1 AND address = ?2 AND at >= ?3";
                Ok(db.prepare_cached(sql)?.exists(params![name, address, since.as_millis()])?)
            })
            .await
    }
}

fn first(name: &str, hash: String, now: Timestamp) -> UserRow {
    UserRow {
        name: name.to_owned(),
        role: Role::Admin,
        hash: Some(hash),
        disabled: false,
        totp: None,
        totp_pending: None,
        created_at: now,
        last_sign_in: None,
    }
}

fn insert(db: &Connection, user: &UserRow) -> Result<Changed, Error> {
    let sql = "INSERT INTO users (name, role, hash, disabled, totp_step, created_at)
               VALUES (?1, ?2, ?3, ?4, 0, ?5) ON CONFLICT DO NOTHING";
    let (role, at) = (user.role.text(), user.created_at.as_millis());
    let added =
        db.prepare_cached(sql)?.execute(params![user.name, role, user.hash, user.disabled, at])?;
    Ok(if added > 0 { Changed::Done } else { Changed::Taken })
}

/// Whose link this is, when it is good: `Some(None)` is the first user's.
fn link(
    db: &Connection,
    sha256: [u8; 32],
    now: Timestamp,
) -> Result<Option<Option<String>>, Error> {
    let sql = "SELECT user FROM setup_links WHERE sha256 = ?1 AND (expires_at IS NULL OR expires_at > ?2)";
    let mut statement = db.prepare_cached(sql)?;
    Ok(statement.query_row(params![sha256, now.as_millis()], |row| row.get(0)).optional()?)
}

fn end_sessions(db: &Connection, user: &str) -> Result<(), Error> {
    db.prepare_cached("DELETE FROM sessions WHERE user = ?1")?.execute([user])?;
    Ok(())
}

/// Whether this is one of those who may change users.
fn counts(user: &UserRow) -> bool {
    user.role == Role::Admin && !user.disabled
}

fn another_admin(db: &Connection, name: &str) -> Result<bool, Error> {
    let sql = "SELECT 1 FROM users WHERE role = 'admin' AND disabled = 0 AND name != ?1";
    Ok(db.prepare_cached(sql)?.exists([name])?)
}

fn one(db: &Connection, name: &str) -> Result<Option<UserRow>, Error> {
    let mut statement = db.prepare_cached("SELECT * FROM users WHERE name = ?1")?;
    statement.query_and_then([name], read_user)?.next().transpose()
}

fn read_user(row: &Row<'_>) -> Result<UserRow, Error> {
    Ok(UserRow {
        name: row.get("name")?,
        role: row::stored(row, "role")?,
        hash: row.get("hash")?,
        disabled: row.get("disabled")?,
        totp: row.get("totp")?,
        totp_pending: row.get("totp_pending")?,
        created_at: row::at(row, "created_at")?,
        last_sign_in: row::maybe_at(row, "last_sign_in")?,
    })
}
