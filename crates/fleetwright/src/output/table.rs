//! Tables, and the short forms of values in them.

use comfy_table::{CellAlignment, Table, presets};
use fw_proto::{Span, Timestamp};

/// A thing that can stand in a table.
pub(crate) trait Row {
    /// Headings, and whether the column is only in the wide table.
    const COLUMNS: &'static [(&'static str, Width)];

    /// The cells, one for each column; what comes from outside is escaped by the table.
    fn cells(&self, now: Timestamp) -> Vec<String>;

    /// What `-o name` prints.
    fn name(&self) -> String;
}

/// In which table a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    /// In both.
    Always,
    /// In the wide one.
    Wide,
    /// In both, numbers to the right.
    Number,
}

/// The longest cell of the narrow table.
const LONGEST_CELL: usize = 48;

/// A table of all items; a line without columns would say nothing, so an empty list is its headings.
pub(crate) fn render<T: Row>(items: &[T], wide: bool, now: Timestamp) -> String {
    let shown = |(_, width): &&(&str, Width)| wide || *width != Width::Wide;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(T::COLUMNS.iter().filter(shown).map(|(heading, _)| *heading));
    for item in items {
        let cells = T::COLUMNS.iter().zip(item.cells(now)).filter(|(column, _)| shown(column));
        table.add_row(cells.map(|(_, cell)| cut(&super::line(&cell), wide)));
    }
    for (column, (_, width)) in table.column_iter_mut().zip(T::COLUMNS.iter().filter(shown)) {
        column.set_padding((0, 2));
        if *width == Width::Number {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines = table.lines().map(|line| format!("{}\n", line.trim_end()));
    lines.collect()
}

fn cut(cell: &str, wide: bool) -> String {
    if cell.is_empty() {
        return "-".to_owned();
    }
    if wide || cell.chars().count() <= LONGEST_CELL {
        return cell.to_owned();
    }
    let mut short: String = cell.chars().take(LONGEST_CELL - 1).collect();
    short.push('…');
    short
}

/// How long ago: `3m ago`; `in 3m` for what lies ahead.
pub(crate) fn ago(at: Timestamp, now: Timestamp) -> String {
    if at > now {
        format!("in {}", short(at.since(now)))
    } else {
        format!("{} ago", short(now.since(at)))
    }
}

/// From one instant to another: `1.25s`, `3m 4s`.
pub(crate) fn took(from: Timestamp, to: Timestamp) -> String {
    let span = to.since(from);
    match span.as_millis() {
        0..1000 => format!("{}ms", span.as_millis()),
        1000..60_000 => format!("{}.{}s", span.as_millis() / 1000, span.as_millis() % 1000 / 100),
        60_000.. => short(span),
    }
}

/// The two largest units of a duration.
fn short(span: Span) -> String {
    let secs = span.as_millis() / 1000;
    match secs {
        0..60 => format!("{secs}s"),
        60..3600 => two(secs / 60, "m", secs % 60, "s"),
        3600..86_400 => two(secs / 3600, "h", secs % 3600 / 60, "m"),
        86_400.. => two(secs / 86_400, "d", secs % 86_400 / 3600, "h"),
    }
}

fn two(large: u64, unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 || large >= 10 {
        format!("{large}{unit}")
    } else {
        format!("{large}{unit} {small}{small_unit}")
    }
}

/// A number of bytes: `0 B`, `1.2 kB`, `50 MB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let (size, unit) = match bytes {
        0..1000 => return format!("{bytes} B"),
        1000..1_000_000 => (1000, "kB"),
        1_000_000..1_000_000_000 => (1_000_000, "MB"),
        1_000_000_000.. => (1_000_000_000, "GB"),
    };
    let whole = bytes / size;
    if whole >= 10 {
        format!("{whole} {unit}")
    } else {
        format!("{whole}.{} {unit}", bytes % size * 10 / size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_short() {
        let at = Timestamp::from_millis;
        let check = |ms: i64, expected: &str| assert_eq!(ago(at(0), at(ms)), expected);
        check(900, "0s ago");
        check(61_000, "1m 1s ago");
        check(3_600_000, "1h ago");
        check(90_000_000, "1d 1h ago");
        check(86_400_000 * 12 + 3_600_000, "12d ago");
        assert_eq!(ago(at(90_000), at(0)), "in 1m 30s");
        assert_eq!(took(at(0), at(250)), "250ms");
        assert_eq!(took(at(0), at(1250)), "1.2s");
        assert_eq!(took(at(0), at(184_000)), "3m 4s");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1250), "1.2 kB");
        assert_eq!(bytes(52_428_800), "52 MB");
    }
}
