//! Names of Saltpeter and ours.

use std::fmt::Write as _;

use fw_proto::{JobName, Timestamp};
use sha2::{Digest as _, Sha256};

/// Bytes of the digest in a name that had to be changed: jobs of one directory do not meet by chance.
const DIGEST: usize = 4;

/// The longest part of the original in such a name; a name of ours has at most 253 characters.
const KEPT: usize = 200;

/// What a job is called here: the same where our names may be so, else what is left of it and a
/// digest of all of it.
pub(crate) fn job_name(original: &str) -> JobName {
    if let Ok(name) = original.parse() {
        return name;
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let kept: String = original.chars().map(|c| if fits(c) { c } else { '-' }).take(KEPT).collect();
    let kept = kept.trim_matches(['-', '_']);
    let mut name = if kept.is_empty() { "job".to_owned() } else { kept.to_owned() };
    name.push('-');
    for byte in Sha256::digest(original).iter().take(DIGEST) {
        write!(name, "{byte:02x}").expect("writing to memory");
    }
    name.parse().expect("letters, digits, '_' and '-', and the first is a letter or digit")
}

/// What Saltpeter calls a run of a job: two that begin in one second share it, as there.
pub(crate) fn instance(original: &str, begun: Timestamp) -> String {
    format!("{original}_{}", begun.as_millis().div_euclid(1000))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_stays_where_it_can() {
        let name = |original: &str| job_name(original).to_string();
        assert_eq!(name("night_sweep.2"), "night_sweep.2");
        assert_eq!(name("Night sweep"), "Night-sweep-858bb33e");
        assert_eq!(name("a/b"), "a-b-c14cddc0");
        assert_eq!(name("apply"), "apply-97a5e41b");
        assert_eq!(name("żółw"), "w-f36b8110");
        assert_eq!(name(""), "job-e3b0c442");
    }

    #[test]
    fn an_instance_ends_with_the_second_in_which_it_began() {
        assert_eq!(
            instance("night sweep", Timestamp::from_millis(1_795_182_743_999)),
            "night sweep_1795182743"
        );
    }

    proptest! {
        #[test]
        fn any_text_has_a_name_and_different_ones_differ(one in ".{0,300}", other in ".{0,300}") {
            prop_assume!(one != other);
            prop_assert_ne!(job_name(&one), job_name(&other));
        }
    }
}
