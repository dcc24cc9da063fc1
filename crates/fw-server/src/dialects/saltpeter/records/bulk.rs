//! What a search server is sent, and what it answers: `_bulk`, as Elasticsearch has it since 7, and its fork.
//!
//! Documents are created under an id that says what they tell, so one that is sent again is refused with 409,
//! which is as good as stored.

use serde::Deserialize;

use super::record::{self, Record};

/// The body of a request: two lines a document.
pub(crate) fn body<'a>(records: impl IntoIterator<Item = &'a Record>, prefix: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for record in records {
        let place = serde_json::json!({"create": {"_index": record::index(prefix, record.at), "_id": record.id}});
        serde_json::to_writer(&mut body, &place).expect("writing to memory");
        body.push(b'\n');
        body.extend_from_slice(record::document(record).as_bytes());
        body.push(b'\n');
    }
    body
}

/// What became of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is there.
    Stored,
    /// The server has no room for it now.
    Later,
    /// It never will be, and why.
    Refused(String),
}

/// What became of a whole request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A fate for each document, in order.
    Each(Vec<Fate>),
    /// Too much at once, or something in it is not understood: smaller ones may do.
    Split(String),
    /// All of it is to be sent again later.
    Again(String),
}

#[derive(Debug, Deserialize)]
struct Items {
    items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    create: Outcome,
}

#[derive(Debug, Deserialize)]
struct Outcome {
    status: u16,
    error: Option<serde_json::Value>,
}

/// Reads the answer to a request with so many documents.
pub(crate) fn answer(status: u16, body: &[u8], sent: usize) -> Answer {
    match status {
        200..=299 => each(body, sent),
        400 | 413 => Answer::Split(format!("it answered {status}: {}", shown(body))),
        status => Answer::Again(format!("it answered {status}: {}", shown(body))),
    }
}

fn each(body: &[u8], sent: usize) -> Answer {
    match serde_json::from_slice::<Items>(body) {
        Ok(Items { items }) if items.len() == sent => {
            Answer::Each(items.into_iter().map(|item| fate(&item.create)).collect())
        }
        Ok(_) | Err(_) => Answer::Again(format!("its answer is not one to _bulk: {}", shown(body))),
    }
}

fn fate(outcome: &Outcome) -> Fate {
    match outcome.status {
        // 409: it is there already.
        200..=299 | 409 => Fate::Stored,
        429 | 500..=599 => Fate::Later,
        status => {
            let why = outcome.error.as_ref().map(ToString::to_string).unwrap_or_default();
            Fate::Refused(format!("{status} {}", shown(why.as_bytes())))
        }
    }
}

/// The begin of an answer, for a log line.
fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    text.chars().filter(|letter| !letter.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::super::record::What;
    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn a_body_has_two_lines_a_document() {
        let body = String::from_utf8(body(&[record(What::Start)], "sp")).unwrap();
        insta::assert_snapshot!(body, @r#"
        {"create":{"_id":"r1:start:web-1","_index":"sp-2026.11.20"}}
        {"job_name":"backup","group":"nightly","job_instance":"backup_1795182886","@timestamp":"2026-11-20T13:54:46.143000+00:00","return_code":3,"machine":"web-1","output":"one\ntwo\n","msg_type":"start"}
        "#);
    }

    #[test]
    fn each_document_has_its_own_fate() {
        let items = r#"{"took":3,"errors":true,"items":[
            {"create":{"_index":"i","_id":"1","status":201}},
            {"create":{"_index":"i","_id":"2","status":409,"error":{"type":"version_conflict_engine_exception"}}},
            {"create":{"_index":"i","_id":"3","status":429,"error":{"type":"es_rejected_execution_exception"}}},
            {"create":{"_index":"i","_id":"4","status":503}},
            {"create":{"_index":"i","_id":"5","status":400,"error":{"type":"mapper_parsing_exception"}}}]}"#;
        let refused = Fate::Refused(r#"400 {"type":"mapper_parsing_exception"}"#.to_owned());
        let fates = vec![Fate::Stored, Fate::Stored, Fate::Later, Fate::Later, refused];
        assert_eq!(answer(200, items.as_bytes(), 5), Answer::Each(fates));
        assert!(matches!(answer(200, items.as_bytes(), 4), Answer::Again(_)));
    }

    #[test]
    fn what_is_no_answer_is_sent_again_and_what_is_too_much_is_split() {
        for (status, body) in
            [(200, "<html>"), (503, "busy"), (401, "who?"), (404, ""), (429, ""), (302, "")]
        {
            assert!(matches!(answer(status, body.as_bytes(), 1), Answer::Again(_)), "{status}");
        }
        for status in [400, 413] {
            assert!(matches!(answer(status, b"", 1), Answer::Split(_)), "{status}");
        }
    }
}
