//! Secrets, as the ciphertext that the server makes of them.

use fw_proto::Timestamp;
use fw_proto::api::Secret;
use rusqlite::{OptionalExtension as _, params};

use crate::row;
use crate::{Error, Store};

impl Store {
    /// Stores a secret, in place of an earlier one of this name.
    ///
    /// # Errors
    /// What the database says.
    pub async fn put_secret(
        &self,
        name: &str,
        ciphertext: Vec<u8>,
        at: Timestamp,
    ) -> Result<(), Error> {
        let name = name.to_owned();
        self.main()
            .write(move |db| {
                db.prepare_cached(
                    "INSERT INTO secrets (name, ciphertext, updated_at) VALUES (?1, ?2, ?3)
                     ON CONFLICT (name) DO UPDATE
                     SET ciphertext = excluded.ciphertext, updated_at = excluded.updated_at",
                )?
                .execute(params![name, ciphertext, at.as_millis()])?;
                Ok(())
            })
            .await
    }

    /// The ciphertext of a secret.
    ///
    /// # Errors
    /// What the database says.
    pub async fn secret(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let name = name.to_owned();
        self.main()
            .read(move |db| {
                let mut statement =
                    db.prepare_cached("SELECT ciphertext FROM secrets WHERE name = ?1")?;
                Ok(statement.query_row([name], |row| row.get(0)).optional()?)
            })
            .await
    }

    /// The names of all secrets.
    ///
    /// # Errors
    /// What the database says.
    pub async fn secrets(&self) -> Result<Vec<Secret>, Error> {
        self.main()
            .read(|db| {
                let sql = "SELECT name, updated_at FROM secrets ORDER BY name";
                let mut statement = db.prepare_cached(sql)?;
                let secrets = statement.query_and_then([], |row| {
                    Ok(Secret { name: row.get("name")?, updated_at: row::at(row, "updated_at")? })
                })?;
                secrets.collect()
            })
            .await
    }

    /// Removes a secret; says whether there was one.
    ///
    /// # Errors
    /// What the database says.
    pub async fn remove_secret(&self, name: &str) -> Result<bool, Error> {
        let name = name.to_owned();
        self.main()
            .write(move |db| {
                let mut statement = db.prepare_cached("DELETE FROM secrets WHERE name = ?1")?;
                Ok(statement.execute([name])? > 0)
            })
            .await
    }
}
