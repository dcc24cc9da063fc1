use std::path::Path;

use serde::Deserialize;

use super::*;

fn fields(texts: [&str; 7]) -> Fields {
    Field::ALL.into_iter().zip(texts.map(str::to_owned)).collect()
}

/// A row of answers by the package itself.
#[derive(Debug, Deserialize)]
struct Row {
    sec: String,
    min: String,
    hour: String,
    dom: String,
    mon: String,
    dow: String,
    year: String,
    now: String,
    next: Next,
    /// The field that is wrong, where there is but one.
    #[serde(default)]
    wrong: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Next {
    Error(String),
    Fires(Vec<Option<String>>),
}

/// Plays a file of answers; says how many rows agreed.
fn agree(text: &str) -> usize {
    for line in text.lines() {
        let row: Row = serde_json::from_str(line).expect(line);
        let texts = [&row.sec, &row.min, &row.hour, &row.dom, &row.mon, &row.dow, &row.year];
        let read = read(&fields(texts.map(String::as_str)));
        match (row.next, read) {
            (Next::Error(word), Err(Error::Wrong { field, .. })) => {
                assert_eq!(word, "error");
                assert!(row.wrong.is_none_or(|wrong| wrong == field.name()), "{line}: {field}");
            }
            (Next::Fires(expected), Ok(times)) => {
                let mut after: Timestamp = row.now.parse().unwrap();
                for next in expected {
                    let found = times.next_after(after);
                    let next = next.map(|next| next.parse::<Timestamp>().unwrap());
                    assert_eq!(found, next, "{line}: {}", times.text);
                    after = next.unwrap_or(after);
                }
            }
            (expected, read) => panic!("{line}: {expected:?}, but {read:?}"),
        }
    }
    text.lines().count()
}

fn data(path: &str) -> Option<String> {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()
}

#[test]
fn the_vectors_agree_to_the_row() {
    assert_eq!(agree(&data("tests/data/saltpeter-cron.jsonl").unwrap()), 630);
    // Where the vectors themselves are at hand, so do they.
    if let Some(shared) = data("../../../shared/vectors/cron.jsonl") {
        assert!(agree(&shared) >= 630);
    }
}

/// What the vectors leave out: the forms with `L`, `Z`, `?`, names in ranges, and what is refused.
#[test]
fn further_answers_of_the_package_agree() {
    assert!(agree(&data("tests/data/saltpeter-cron-more.jsonl").unwrap()) > 500);
}

#[test]
fn texts_are_as_a_person_would_write_them() {
    let check = |texts: [&str; 7], text: &str| assert_eq!(read(&fields(texts)).unwrap().text, text);
    check(["0", "30", "3", "*", "*", "*", "*"], "30 3 * * *");
    check(["0,15", "*/5", "*", "?", "jan-mar", "*", "*"], "0,15 */5 * * 1-3 *");
    check(["0", "0", "12", "1", "*", "fri-sun", "*"], "0 12 1 * +5-7");
    check(["0", "0", "0", "L,Z1-2", "*", "L5", "2027,2029"], "0 0 0 L,L-1,L-2 * +5L 2027,2029");
    check(["0", "0", "0", "1,Z3", "*", "*", "*"], "0 0 L-3 * *");
    check(["0", "0", "0", "*", "*", "*/3", "*/2"], "0 0 0 * * 0-6/3 1970-2099/2");
    check(["0", "0", "0", "*", "*", "L5-2", "*"], "0 0 30 2 *");
    // An empty field moves the others: "0 5 3 * * *" is six words, the first of them the minute.
    check(["0", "5", "3", "", "*", "*", "*"], "0 5 3 * *");
}

#[test]
fn errors_name_the_field_and_the_place() {
    let said = |texts: [&str; 7]| read(&fields(texts)).unwrap_err().to_string();
    let mut all = vec![
        said(["60", "0", "0", "*", "*", "*", "*"]),
        said(["0", "1, 2", "0", "*", "*", "*", "*"]),
        said(["0", "0", "*/24", "*", "*", "*", "*"]),
        said(["0", "0", "0", "Z9", "*", "*", "*"]),
        said(["0", "0", "0", "*", "1,january", "*", "*"]),
        said(["0", "0", "0", "*", "*", "Lwed", "*"]),
        said(["0", "", " ", "*", "", "*", "*"]),
        said(["0", "10-5", "0", "*", "*", "*", "1969"]),
        said(["0", "none", "0", "*", "*", "*", "*"]),
    ];
    all.push(read(&Fields::new()).unwrap_err().to_string());
    insta::assert_snapshot!(all.join("\n\n"), @r#"
    sec: "60" is outside 0-59
    60
    ^

    min: a blank ends the field; write a list without blanks, such as 1,2
    1, 2
       ^

    hour: the step "24" should be a number from 1 to 23
    */24
    ^

    dom: 'Z9' should be Z0 to Z7 or a range such as Z1-3: days before the last
    Z9
    ^

    mon: "january" is outside 1-12 or jan-dec
    1,january
      ^

    dow: 'Lwed' should be L0 to L7 or a range such as L1-3: a weekday by its number
    Lwed
    ^

    min: this is empty; write * for any

    ^

    min: "10-5" goes down; a range goes up, so split it in two with ','
    10-5
    ^

    min: "none" is outside 0-59
    none
    ^

    the field 'dow' is missing
    "#);
}
