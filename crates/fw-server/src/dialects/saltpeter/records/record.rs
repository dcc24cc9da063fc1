//! What happened, as Saltpeter tells it: lines of a log file, and documents for a search server.

use fw_proto::Timestamp;
use serde::{Deserialize, Serialize};

use crate::dialects::saltpeter::python;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Always the same for the same thing, so that what is sent twice is kept once.
    pub id: String,
    /// The job, by Saltpeter's own name.
    pub job: String,
    /// Its group.
    pub group: String,
    /// Its run, as Saltpeter names it.
    pub instance: String,
    /// What happened.
    pub what: What,
    /// When.
    pub at: Timestamp,
    /// On which machine; empty where it concerns none.
    pub machine: String,
    /// How it ended.
    pub code: i32,
    /// What was written.
    pub output: String,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    /// A run begins.
    Start,
    /// It begins on a machine.
    MachineStart,
    /// It has ended there.
    MachineResult,
    /// It has ended.
    End,
    /// It was due while an earlier one went on.
    Overlap,
    /// There is no machine to run on.
    NoMachines,
    /// A machine, or everything, is in maintenance.
    Maintenance,
}

impl What {
    /// The word of Saltpeter's documents.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::MachineStart => "machine_start",
            Self::MachineResult => "machine_result",
            Self::End => "end",
            Self::Overlap => "overlap",
            Self::NoMachines => "no_machines",
            Self::Maintenance => "maintenance",
        }
    }
}

/// The lines of a job's log file.
pub(crate) fn lines(record: &Record) -> String {
    let Record { instance, machine, code, .. } = record;
    let at = python::time(record.at);
    match record.what {
        What::Start => format!("###### Starting {instance} at {at} ################\n"),
        What::MachineStart => {
            format!("###### Starting {instance} on {machine} at {at} ################\n")
        }
        What::NoMachines => format!("!!!!!! No targets matched for {instance} !!!!!!\n"),
        What::Overlap => {
            format!("###### Overlap detected on {instance} at {at} ################\n")
        }
        What::End => format!("###### Finished {instance} at {at} ################\n"),
        What::MachineResult | What::Maintenance => format!(
            "########## {machine} from {instance} ################\n**** Exit Code {code} ******\n{}\n####### END {machine} from {instance} at {at} #########\n",
            record.output
        ),
    }
}

/// What a terminal would show: of each line what stands after its last carriage return, unless that is nothing.
pub(crate) fn shown(output: &str) -> String {
    if !output.contains('\r') {
        return output.to_owned();
    }
    let last = |line| -> &str {
        str::rsplit(line, '\r').find(|part| !part.is_empty()).unwrap_or_default()
    };
    let mut shown = String::with_capacity(output.len());
    for (n, line) in output.split('\n').enumerate() {
        if n > 0 {
            shown.push('\n');
        }
        shown.push_str(last(line));
    }
    shown
}

/// A document, in the order of its keys as Saltpeter writes them.
#[derive(Debug, Serialize)]
struct Document<'a> {
    job_name: &'a str,
    group: &'a str,
    job_instance: &'a str,
    #[serde(rename = "@timestamp")]
    timestamp: String,
    return_code: i32,
    machine: &'a str,
    output: &'a str,
    msg_type: &'static str,
}

/// The document of a search server, as JSON without a line break.
pub(crate) fn document(record: &Record) -> String {
    let document = Document {
        job_name: &record.job,
        group: &record.group,
        job_instance: &record.instance,
        timestamp: python::iso_time(record.at),
        return_code: record.code,
        machine: &record.machine,
        output: &record.output,
        msg_type: record.what.as_str(),
    };
    serde_json::to_string(&document).expect("there are only texts and numbers")
}

/// The index that it belongs to: one a day, by UTC.
pub(crate) fn index(prefix: &str, at: Timestamp) -> String {
    let rfc = at.to_string();
    format!("{prefix}-{}", rfc.get(..10).unwrap_or_default().replace('-', "."))
}

/// The name of a job's log file: what no file name may hold is written as in a URL.
pub(crate) fn file_name(job: &str) -> String {
    let mut name = String::new();
    for letter in job.chars() {
        match letter {
            '/' => name.push_str("%2F"),
            '\0' => name.push_str("%00"),
            letter => name.push(letter),
        }
    }
    // With `.log` a name has at most 255 bytes.
    while name.len() > 251 {
        name.pop();
    }
    name.push_str(".log");
    name
}

#[cfg(test)]
pub(in super::super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in super::super::super) fn record(what: What) -> Record {
        Record {
            id: format!("r1:{}:web-1", what.as_str()),
            job: "backup".to_owned(),
            group: "nightly".to_owned(),
            instance: "backup_1795182886".to_owned(),
            what,
            at: "2026-11-20T13:54:46.143Z".parse().unwrap(),
            machine: "web-1".to_owned(),
            code: 3,
            output: "one\ntwo\n".to_owned(),
        }
    }

    const ALL: [What; 7] = [
        What::Start,
        What::MachineStart,
        What::MachineResult,
        What::End,
        What::Overlap,
        What::NoMachines,
        What::Maintenance,
    ];

    #[test]
    fn a_log_file_has_the_lines_of_the_original() {
        let text: String = ALL.iter().map(|what| lines(&record(*what))).collect();
        insta::assert_snapshot!(text, @r"
        ###### Starting backup_1795182886 at 2026-11-20 13:54:46.143000+00:00 ################
        ###### Starting backup_1795182886 on web-1 at 2026-11-20 13:54:46.143000+00:00 ################
        ########## web-1 from backup_1795182886 ################
        **** Exit Code 3 ******
        one
        two

        ####### END web-1 from backup_1795182886 at 2026-11-20 13:54:46.143000+00:00 #########
        ###### Finished backup_1795182886 at 2026-11-20 13:54:46.143000+00:00 ################
        ###### Overlap detected on backup_1795182886 at 2026-11-20 13:54:46.143000+00:00 ################
        !!!!!! No targets matched for backup_1795182886 !!!!!!
        ########## web-1 from backup_1795182886 ################
        **** Exit Code 3 ******
        one
        two

        ####### END web-1 from backup_1795182886 at 2026-11-20 13:54:46.143000+00:00 #########
        ");
    }

    #[test]
    fn a_document_has_the_fields_of_the_original() {
        let text: Vec<String> = ALL.iter().map(|what| document(&record(*what))).collect();
        assert!(text.iter().zip(ALL).all(|(text, what)| text.contains(what.as_str())));
        insta::assert_snapshot!(text[2], @r#"{"job_name":"backup","group":"nightly","job_instance":"backup_1795182886","@timestamp":"2026-11-20T13:54:46.143000+00:00","return_code":3,"machine":"web-1","output":"one\ntwo\n","msg_type":"machine_result"}"#);
        assert_eq!(index("saltpeter", record(What::End).at), "saltpeter-2026.11.20");
    }

    #[test]
    fn of_a_line_with_carriage_returns_the_last_part_is_shown() {
        assert_eq!(shown("10%\r50%\r100%\ndone\n"), "100%\ndone\n");
        assert_eq!(shown("windows\r\nlines\r\n"), "windows\nlines\n");
        assert_eq!(shown("\r\r\n"), "\n");
    }

    #[test]
    fn a_name_with_a_slash_has_a_file_of_its_own() {
        assert_eq!(file_name("backup"), "backup.log");
        assert_eq!(file_name("../etc/passwd"), "..%2Fetc%2Fpasswd.log");
        assert_eq!(file_name(&"ä".repeat(200)).len(), 254);
    }

    proptest! {
        #[test]
        fn nothing_but_parts_before_carriage_returns_is_lost(text in "[ab\r\n]{0,40}") {
            let shown = shown(&text);
            prop_assert!(!shown.contains('\r'));
            prop_assert_eq!(shown.matches('\n').count(), text.matches('\n').count());
            if !text.contains('\r') { prop_assert_eq!(shown, text); }
        }

        #[test]
        fn a_document_is_one_line_that_reads_back(output in any::<String>()) {
            let text = document(&Record { output: output.clone(), ..record(What::MachineResult) });
            prop_assert!(!text.contains('\n'));
            let read: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(read["output"].as_str(), Some(output.as_str()));
        }

        #[test]
        fn a_file_name_never_leaves_its_directory(job in any::<String>()) {
            let name = file_name(&job);
            prop_assert!(name.len() <= 255 && !name.contains('/') && name != "." && name != "..");
        }
    }
}
