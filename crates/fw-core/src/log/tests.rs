//! Lines do not depend on how output was cut into records and chunks, and an index finds each of them.

use fw_proto::record::Record;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn host(n: u128) -> HostId {
    HostId(Uuid::from_u128(n))
}

fn records(parts: &[(Stream, &[u8])]) -> Vec<u8> {
    let mut raw = Vec::new();
    for (at, (stream, bytes)) in parts.iter().enumerate() {
        let at = Timestamp::from_millis(i64::try_from(at).unwrap());
        Record { stream: *stream, at, body: Body::Bytes(bytes) }.write(&mut raw);
    }
    raw
}

type Seen = (u64, bool, Stream, String, End);

fn seen(line: &Line<'_>) -> Seen {
    let text = String::from_utf8_lossy(line.text).into_owned();
    (line.number, line.error.is_some(), line.writer.stream, text, line.end)
}

fn lines(parts: &[(Stream, &[u8])]) -> Vec<Seen> {
    let (mut splitter, mut all) = (Splitter::default(), Vec::new());
    splitter.feed(host(1), 1, &records(parts), &mut |line| all.push(seen(line))).unwrap();
    splitter.rest(&mut |line| all.push(seen(line)));
    all
}

#[track_caller]
fn check(parts: &[(Stream, &[u8])], expected: &[(&str, End, bool)]) {
    let got = lines(parts);
    let got: Vec<_> =
        got.iter().map(|(_, error, _, text, end)| (text.as_str(), *end, *error)).collect();
    assert_eq!(got, expected);
}

use Stream::{Stderr, Stdout};

#[test]
fn a_line_is_numbered_when_it_ends() {
    check(&[(Stdout, b"a\nb\n")], &[("a", End::Whole, false), ("b", End::Whole, false)]);
    check(&[(Stdout, b"a"), (Stdout, b"b\n")], &[("ab", End::Whole, false)]);
    check(
        &[(Stdout, b"a"), (Stderr, b"e\n"), (Stdout, b"b\n")],
        &[("e", End::Whole, true), ("ab", End::Whole, false)],
    );
    check(
        &[(Stdout, b"\n\nx")],
        &[("", End::Whole, false), ("", End::Whole, false), ("x", End::Open, false)],
    );
}

#[test]
fn errors_are_what_says_so_and_what_standard_error_has() {
    let parts: &[(Stream, &[u8])] = &[
        (Stdout, b"Error: no disk\n0 errors\n0 failed\nterror\n\x1b[31mFATAL\x1b[0m x\n"),
        (Stderr, b"as you like\n"),
    ];
    let errors: Vec<bool> = lines(parts).iter().map(|line| line.1).collect();
    assert_eq!(errors, [true, false, false, false, true, true]);
}

#[test]
fn a_line_without_end_is_cut_between_characters() {
    let long = "é".repeat(MAX_LINE) + "\n";
    let all = lines(&[(Stdout, long.as_bytes())]);
    assert!(all.iter().all(|line| line.3.len() <= MAX_LINE && !line.3.contains('\u{fffd}')));
    let text: String = all.iter().map(|line| line.3.as_str()).collect();
    assert_eq!(text + "\n", long);
    assert_eq!(all.last().unwrap().4, End::Whole);
    // What cannot be text is cut as well.
    let noise = vec![0x80; 3 * MAX_LINE];
    assert_eq!(lines(&[(Stdout, &noise)]).len(), 3);
}

#[test]
fn a_gap_is_a_line_and_ends_the_one_before() {
    let mut raw = records(&[(Stdout, b"half")]);
    let gap = Record { stream: Stdout, at: Timestamp::from_millis(9), body: Body::Gap(70) };
    gap.write(&mut raw);
    let (mut splitter, mut all) = (Splitter::default(), Vec::new());
    splitter.feed(host(1), 1, &raw, &mut |line| all.push(seen(line))).unwrap();
    let ends: Vec<_> = all.iter().map(|line| line.4).collect();
    assert_eq!(ends, [End::Cut, End::Gap(70)]);
}

#[test]
fn groups_nest_and_have_titles() {
    let mut index = Index::default();
    let text = b"::group::Build\na\n##[group]Inner\nb\n##[endgroup]\n::endgroup::\n::group::Open\n";
    index.feed(1, host(1), 1, &records(&[(Stdout, text)])).unwrap();
    let group = |from, to, title: &str, depth| Group { from, to, title: title.to_owned(), depth };
    let expected =
        [group(1, Some(6), "Build", 0), group(3, Some(5), "Inner", 1), group(7, None, "Open", 0)];
    assert_eq!(index.groups(), expected);
}

/// Chunks of one task: each a few records.
fn chunks() -> impl Strategy<Value = Vec<Vec<(bool, Vec<u8>)>>> {
    let byte = prop_oneof![Just(b'\n'), Just(b'a'), Just(b'E'), Just(0xc3), Just(0xa9)];
    let record = (any::<bool>(), prop::collection::vec(byte, 1..12));
    prop::collection::vec(prop::collection::vec(record, 1..4), 0..40)
}

fn raw_of(chunk: &[(bool, Vec<u8>)]) -> Vec<u8> {
    let parts: Vec<(Stream, &[u8])> = chunk
        .iter()
        .map(|(err, bytes)| (if *err { Stderr } else { Stdout }, bytes.as_slice()))
        .collect();
    records(&parts)
}

proptest! {
    #[test]
    fn chunks_make_no_difference(chunks in chunks()) {
        let (mut parts, mut whole) = (Splitter::default(), Splitter::default());
        let (mut by_parts, mut at_once) = (Vec::new(), Vec::new());
        for chunk in &chunks {
            parts.feed(host(1), 1, &raw_of(chunk), &mut |line| by_parts.push(seen(line))).unwrap();
        }
        let all: Vec<_> = chunks.concat();
        whole.feed(host(1), 1, &raw_of(&all), &mut |line| at_once.push(seen(line))).unwrap();
        prop_assert_eq!(by_parts, at_once);
        prop_assert_eq!(parts.lines(), whole.lines());
    }

    #[test]
    fn every_row_is_behind_its_mark(chunks in chunks(), stride in 1_u64..200, errors in any::<bool>()) {
        let only = if errors { Only::Errors } else { Only::All };
        let mut index = Index::with_stride(stride);
        let mut all = Vec::new();
        let mut check = Splitter::default();
        for (at, chunk) in chunks.iter().enumerate() {
            let place = at as u64 + 1;
            index.feed(place, host(1), 1, &raw_of(chunk)).unwrap();
            check.feed(host(1), 1, &raw_of(chunk), &mut |line| all.extend(only.row(line).map(|row| (row, seen(line))))).unwrap();
        }
        for (row, expected) in all {
            let mut mark = index.before(row, only);
            let mut found = None;
            for (at, chunk) in chunks.iter().enumerate().skip(usize::try_from(mark.place).unwrap()) {
                mark.splitter.feed(host(1), 1, &raw_of(chunk), &mut |line| {
                    if only.row(line) == Some(row) { found = Some(seen(line)); }
                }).unwrap();
                prop_assert!(at < chunks.len());
            }
            prop_assert_eq!(found, Some(expected));
        }
    }
}

#[test]
fn an_index_has_a_bound_whatever_is_written() {
    let mut index = Index::with_stride(1);
    // Every chunk leaves a long line open, of another attempt: the worst that can be held.
    let raw = records(&[(Stdout, &[b'x'; 4000])]);
    for place in 1..=5000 {
        index.feed(place, host(1), u16::try_from(place % 8).unwrap(), &raw).unwrap();
    }
    assert!(index.marks.len() <= 1024, "{} marks", index.marks.len());
    let weight: usize = index.marks.iter().map(|mark| mark.splitter.weight()).sum();
    assert!(weight <= 1 << 20, "{weight} bytes");
    assert!(index.before(1, Only::All).place == 0);
}

fn search(text: &str, regex: bool, only: Only) -> Result<Search, Invalid> {
    Search::new(&Pattern { text: text.to_owned(), regex, only })
}

#[test]
fn a_search_finds_rows_as_they_read() {
    let log = b"Alpha\nbeta\n\x1b[1mal\x1b[0mpha\nalpha";
    let raw = records(&[(Stdout, log), (Stderr, b"alpha too\n")]);
    let rows = |text: &str, regex, only| {
        let mut search = search(text, regex, only).unwrap();
        search.feed(1, host(1), 1, &raw).unwrap();
        let rows = search.rows();
        (0..rows.count()).map(|at| rows.get(at).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(rows("alpha", false, Only::All), [1, 3, 4, 5], "the open line is the last");
    assert_eq!(rows("Alpha", false, Only::All), [1], "capitals are meant");
    assert_eq!(rows("^b.t", true, Only::All), [2]);
    assert_eq!(rows("b.t", false, Only::All), [0_u64; 0]);
    assert_eq!(rows("alpha", false, Only::Errors), [1], "the first row of errors");
    let mut found = search("alpha", false, Only::All).unwrap();
    found.feed(1, host(1), 1, &raw).unwrap();
    let rows = found.rows();
    assert_eq!([rows.from(1), rows.from(2), rows.from(5), rows.from(6)], [0, 1, 3, 4]);
}

#[test]
fn what_cannot_be_looked_for_is_said() {
    assert_eq!(search("", false, Only::All).unwrap_err(), Invalid::Empty);
    assert_eq!(search(&"x".repeat(1001), false, Only::All).unwrap_err(), Invalid::Long);
    let error = search("(a", true, Only::All).unwrap_err().to_string();
    assert!(error.contains("unclosed group"), "{error}");
    assert!(search("(?:(?:(?:a{1000}){1000}){1000})", true, Only::All).is_err());
}
