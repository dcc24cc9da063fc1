//! Jobs as they were last good; their files are the truth, this is what survives a restart.

use fw_proto::JobName;
use fw_proto::api::JobSource;
use rusqlite::{Connection, params};

use crate::host::Changed;
use crate::row;
use crate::{Error, Store};

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredJob {
    /// Its name.
    pub name: JobName,
    /// Where it comes from.
    pub source: JobSource,
    /// What it says, the last good version, in the words of whoever keeps jobs.
    pub text: String,
    /// Whether someone has paused it.
    pub paused: bool,
}

impl Store {
    /// Stores a job's text. Of a job that is there already `paused` stays as it is: only
    /// [`Store::set_paused`] changes that, so a pause outlives every reload.
    ///
    /// # Errors
    /// What the database says.
    pub async fn put_job(&self, job: StoredJob) -> Result<(), Error> {
        self.put_jobs(vec![job]).await
    }

    /// Likewise for several jobs, all or none.
    ///
    /// # Errors
    /// What the database says.
    pub async fn put_jobs(&self, jobs: Vec<StoredJob>) -> Result<(), Error> {
        self.main().write(move |db| jobs.iter().try_for_each(|job| put(db, job))).await
    }

    /// Forgets a job; says whether there was one. Its ledger stays until it is swept, but a job
    /// made anew under this name owes nothing for the time in between.
    ///
    /// # Errors
    /// What the database says.
    pub async fn remove_job(&self, name: &JobName) -> Result<bool, Error> {
        let name = name.clone();
        self.main()
            .write(move |db| {
                db.prepare_cached("DELETE FROM last_fires WHERE job = ?1")?
                    .execute([name.as_str()])?;
                let mut statement = db.prepare_cached("DELETE FROM jobs WHERE name = ?1")?;
                Ok(statement.execute([name.as_str()])? > 0)
            })
            .await
    }

    /// All jobs, by name.
    ///
    /// # Errors
    /// What the database says.
    pub async fn jobs(&self) -> Result<Vec<StoredJob>, Error> {
        self.main()
            .read(|db| {
                let mut statement = db.prepare_cached("SELECT * FROM jobs ORDER BY name")?;
                let jobs = statement.query_and_then([], |row| {
                    let file: Option<String> = row.get("file")?;
                    Ok(StoredJob {
                        name: row::name(row, "name")?,
                        source: file.map_or(JobSource::Api, source),
                        text: row.get("text")?,
                        paused: row.get("paused")?,
                    })
                })?;
                jobs.collect()
            })
            .await
    }

    /// Pauses a job or lets it go on.
    ///
    /// # Errors
    /// What the database says.
    pub async fn set_paused(&self, name: &JobName, paused: bool) -> Result<Changed, Error> {
        let name = name.clone();
        self.main()
            .write(move |db| {
                let mut statement =
                    db.prepare_cached("UPDATE jobs SET paused = ?2 WHERE name = ?1")?;
                Ok(Changed::when(statement.execute(params![name.as_str(), paused])? > 0))
            })
            .await
    }
}

/// Where a job comes from, by its file. Those of our own are in no directory below theirs, so a slash
/// has the name of another program before it.
fn source(file: String) -> JobSource {
    match file.split_once('/') {
        Some((name, file)) => JobSource::Dialect { name: name.to_owned(), file: file.to_owned() },
        None => JobSource::File(file),
    }
}

fn put(db: &Connection, job: &StoredJob) -> Result<(), Error> {
    let file = match &job.source {
        JobSource::File(file) => Some(file.clone()),
        JobSource::Api => None,
        JobSource::Dialect { name, file } => Some(format!("{name}/{file}")),
    };
    db.prepare_cached(
        "INSERT INTO jobs (name, file, text, paused) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (name) DO UPDATE SET file = excluded.file, text = excluded.text",
    )?
    .execute(params![job.name.as_str(), file, job.text, job.paused])?;
    Ok(())
}
