//! What follows from the job files: which jobs there are, which are gone, what is wrong.
//!
//! A job is gone only when its file can be read and neither defines nor misspells it, or when the
//! file was deleted. Whatever is in doubt stays as it last was.

use std::collections::{BTreeMap, BTreeSet};

use fw_core::job::{JobDef, Parsed, merge};
use fw_proto::JobName;
use fw_proto::api::SourceError;

/// What the files amount to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The good jobs and their files, changed or not.
    pub(super) jobs: BTreeMap<JobName, (String, JobDef)>,
    /// Jobs that are in no file any more.
    pub(super) gone: Vec<JobName>,
    /// All that is wrong, by file and place.
    pub(super) errors: Vec<SourceError>,
}

/// Compares the files with the jobs that there are: `owned` are those from files, with their
/// file, `others` those from elsewhere. There is at least one file, or no job is owned.
pub(super) fn reconcile(
    files: &[(String, Parsed)],
    owned: &BTreeMap<JobName, String>,
    others: &BTreeSet<JobName>,
) -> Outcome {
    let (mut jobs, mut errors) = merge(files, owned);
    errors.extend(files.iter().flat_map(|(_, parsed)| parsed.errors.iter().cloned()));
    let by_name: BTreeMap<&str, &Parsed> =
        files.iter().map(|(file, parsed)| (file.as_str(), parsed)).collect();
    let in_doubt = |name: &JobName| {
        let owner = owned.get(name)?;
        by_name.get(owner.as_str()).filter(|parsed| names(parsed, name)).map(|_| owner)
    };
    jobs.retain(|name, (file, job)| {
        let why = if others.contains(name) {
            "was made by `jobs apply` or comes from another program's files, and that one stays in force; rename one, or delete that one first".to_owned()
        } else if let Some(owner) = in_doubt(name).filter(|owner| *owner != file) {
            format!("belongs to {owner}, which has an error; the last good version stays in force")
        } else {
            return true;
        };
        errors.push(SourceError {
            file: file.clone(),
            line: job.line,
            column: job.column,
            job: Some(name.to_string()),
            message: format!("job {name} {why}"),
            snippet: None,
        });
        false
    });
    let gone = owned.keys().filter(|name| !jobs.contains_key(*name) && in_doubt(name).is_none());
    let gone = gone.cloned().collect();
    errors.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    Outcome { jobs, gone, errors }
}

/// Whether a file that does not give a good version of the job may still mean to.
fn names(parsed: &Parsed, name: &JobName) -> bool {
    let good = parsed.jobs.iter().any(|job| job.name == *name);
    !good && (!parsed.readable || parsed.wrong.contains(name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::super::text;
    use super::*;

    const A: &str = "{schedule: '* * * * *', hosts: '*', run: a}";
    const BAD: &str = "{schedule: 'often', hosts: '*', run: a}";

    fn files(texts: &[(&str, &str)]) -> Vec<(String, Parsed)> {
        texts.iter().map(|(file, text)| ((*file).to_owned(), text::read(file, text))).collect()
    }

    fn check(texts: &[(&str, &str)], owned: &[(&str, &str)], others: &[&str]) -> String {
        let owned =
            owned.iter().map(|(name, file)| (name.parse().unwrap(), (*file).to_owned())).collect();
        let others = others.iter().map(|name| name.parse().unwrap()).collect();
        let outcome = reconcile(&files(texts), &owned, &others);
        let mut lines: Vec<_> =
            outcome.jobs.iter().map(|(name, (file, _))| format!("{name} from {file}")).collect();
        lines.extend(outcome.gone.iter().map(|name| format!("{name} is gone")));
        lines.extend(outcome.errors.iter().map(|error| {
            format!("{}:{}:{}: {}", error.file, error.line, error.column, error.message)
        }));
        lines.join("\n")
    }

    #[test]
    fn a_job_is_gone_only_when_its_file_says_so() {
        let one = format!("jobs:\n  a: {A}\n");
        let two = format!("jobs:\n  a: {A}\n  b: {BAD}\n");
        insta::assert_snapshot!(check(&[("1.yaml", &one)], &[("a", "1.yaml"), ("b", "1.yaml")], &[]), @"
        a from 1.yaml
        b is gone
        ");
        insta::assert_snapshot!(check(&[("1.yaml", &two)], &[("a", "1.yaml"), ("b", "1.yaml")], &[]), @r#"
        a from 1.yaml
        1.yaml:3:23: a schedule has 5 fields (minute hour day month weekday), or 6 with seconds first; this one has 1
        "#);
        insta::assert_snapshot!(check(&[("1.yaml", "jobs: [")], &[("a", "1.yaml")], &[]), @r#"
        1.yaml:1:7: not YAML: unclosed bracket '['
        "#);
        insta::assert_snapshot!(check(&[("2.yaml", "jobs: {}")], &[("a", "1.yaml")], &[]), @"a is gone");
    }

    #[test]
    fn the_earlier_owner_stays() {
        let one = format!("jobs:\n  a: {A}\n");
        let bad = format!("jobs:\n  a: {BAD}\n");
        let owned = [("a", "2.yaml")];
        insta::assert_snapshot!(check(&[("1.yaml", &one), ("2.yaml", &one)], &owned, &[]), @r#"
        a from 2.yaml
        1.yaml:2:3: job a is also at 2.yaml:2, which stays in force; rename one
        2.yaml:2:3: job a is also at 1.yaml:2; this one stays in force
        "#);
        insta::assert_snapshot!(check(&[("1.yaml", &one), ("2.yaml", &bad)], &owned, &[]), @r#"
        1.yaml:2:3: job a belongs to 2.yaml, which has an error; the last good version stays in force
        2.yaml:2:23: a schedule has 5 fields (minute hour day month weekday), or 6 with seconds first; this one has 1
        "#);
        insta::assert_snapshot!(check(&[("1.yaml", &one)], &owned, &[]), @"a from 1.yaml");
        insta::assert_snapshot!(check(&[("1.yaml", &one)], &[], &["a"]), @r#"
        1.yaml:2:3: job a was made by `jobs apply` or comes from another program's files, and that one stays in force; rename one, or delete that one first
        "#);
    }
}
