//! API tokens, by the hash of their secret.

use std::collections::BTreeSet;

use fw_proto::api::{Role, Scope, Token};
use fw_proto::{Span, Timestamp};
use rusqlite::{Row, params};

use crate::host::Changed;
use crate::row;
use crate::{Error, Store};

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Its name; the actor of what it does.
    pub name: String,
    /// SHA-256 of what goes after `Bearer`.
    pub sha256: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; never when `None`.
    pub expires_at: Option<Timestamp>,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// The hosts that it is limited to.
    pub selector: Option<String>,
    /// The person it belongs to, and goes with.
    pub user: Option<String>,
}

/// A token that someone holds out, and what its owner may do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldToken {
    /// The token.
    pub row: TokenRow,
    /// The role of the person it belongs to.
    pub owner: Option<Role>,
}

/// Last use is kept to the minute: writing it with each request would cost more than the request.
const USE_GRAIN: Span = Span::from_secs(60);

impl Store {
    /// Stores a new token.
    ///
    /// # Errors
    /// What the database says.
    pub async fn put_token(&self, token: TokenRow) -> Result<Changed, Error> {
        self.main()
            .write(move |db| {
                let mut statement = db.prepare_cached(
                    "INSERT INTO tokens (name, sha256, created_at, expires_at, scopes, selector, user)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
                )?;
                let expires_at = token.expires_at.map(Timestamp::as_millis);
                let created_at = token.created_at.as_millis();
                let scopes: Vec<_> = token.scopes.iter().copied().map(row::Text).collect();
                let added = statement.execute(params![
                    token.name,
                    token.sha256,
                    created_at,
                    expires_at,
                    row::json(&scopes),
                    token.selector,
                    token.user
                ])?;
                Ok(if added > 0 { Changed::Done } else { Changed::Taken })
            })
            .await
    }

    /// The token with this hash, expired or not; of nobody who is disabled.
    ///
    /// # Errors
    /// What the database says.
    pub async fn token_by_hash(&self, sha256: &[u8; 32]) -> Result<Option<HeldToken>, Error> {
        let sha256 = *sha256;
        self.main()
            .read(move |db| {
                let mut statement = db.prepare_cached(
                    "SELECT tokens.*, users.role FROM tokens LEFT JOIN users ON users.name = tokens.user
                     WHERE tokens.sha256 = ?1 AND coalesce(users.disabled, 0) = 0",
                )?;
                let held = |row: &Row<'_>| {
                    let owner = row::maybe_stored(row, "role")?;
                    Ok(HeldToken { row: read_token(row)?, owner })
                };
                statement.query_and_then([sha256], held)?.next().transpose()
            })
            .await
    }

    /// All tokens, by name.
    ///
    /// # Errors
    /// What the database says.
    pub async fn tokens(&self) -> Result<Vec<Token>, Error> {
        self.main()
            .read(|db| {
                let mut statement = db.prepare_cached("SELECT * FROM tokens ORDER BY name")?;
                let tokens = statement.query_and_then([], |row| {
                    let token = read_token(row)?;
                    Ok(Token {
                        name: token.name,
                        created_at: token.created_at,
                        expires_at: token.expires_at,
                        last_used: row::maybe_at(row, "last_used")?,
                        scopes: token.scopes.into_iter().collect(),
                        selector: token.selector,
                        user: token.user,
                    })
                })?;
                tokens.collect()
            })
            .await
    }

    /// Removes a token; says whether there was one.
    ///
    /// # Errors
    /// What the database says.
    pub async fn remove_token(&self, name: &str) -> Result<bool, Error> {
        let name = name.to_owned();
        self.main()
            .write(move |db| {
                let mut statement = db.prepare_cached("DELETE FROM tokens WHERE name = ?1")?;
                Ok(statement.execute([name])? > 0)
            })
            .await
    }

    /// Records that a token was used.
    ///
    /// # Errors
    /// What the database says.
    pub async fn touch_token(&self, name: &str, at: Timestamp) -> Result<(), Error> {
        let name = name.to_owned();
        self.main()
            .write(move |db| {
                let sql = "UPDATE tokens SET last_used = ?2 WHERE name = ?1 AND coalesce(last_used, 0) <= ?3";
                let stale = (at - USE_GRAIN).as_millis();
                db.prepare_cached(sql)?.execute(params![name, at.as_millis(), stale])?;
                Ok(())
            })
            .await
    }
}

fn read_token(row: &Row<'_>) -> Result<TokenRow, Error> {
    Ok(TokenRow {
        name: row.get("name")?,
        sha256: row.get("sha256")?,
        created_at: row::at(row, "created_at")?,
        expires_at: row::maybe_at(row, "expires_at")?,
        scopes: row::from_json::<Vec<row::Text<Scope>>>(row, "scopes")?
            .into_iter()
            .map(|row::Text(scope)| scope)
            .collect(),
        selector: row.get("selector")?,
        user: row.get("user")?,
    })
}
