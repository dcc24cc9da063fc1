//! Where lines are: marks in a log from which reading can go on, so that no line is far from one.
//!
//! A mark is the number of a chunk and what the splitter knows after it. Marks are thinned out as the log grows,
//! so that an index has a bound, whatever is written.

use fw_proto::HostId;
use fw_proto::record::Malformed;

use super::{Line, Only, Splitter, plain};

/// Raw bytes between two marks of a short log: a page of lines then costs one chunk or two.
const STRIDE: u64 = 256 * 1024;

/// The most marks. At 1 GiB of output they are 1 MiB apart, which is read in a few milliseconds.
const MOST_MARKS: usize = 1024;

/// The most bytes of lines begun that marks hold.
const MOST_WEIGHT: usize = 1 << 20;

/// The most groups, and the longest title of one.
const MOST_GROUPS: usize = 10_000;
const MOST_TITLE: usize = 200;

/// A place from which lines can be read.
#[derive(Debug, Clone, Default)]
pub struct Mark {
    /// All up to this chunk has been taken.
    pub place: u64,
    /// What goes on from there.
    pub splitter: Splitter,
}

/// Lines that belong together, and can be folded into the first of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The line that begins it.
    pub from: u64,
    /// The line that ends it, once it has ended.
    pub to: Option<u64>,
    /// What it is called.
    pub title: String,
    /// How many others it is in.
    pub depth: u16,
}

/// The marks of a log, and where it ends.
#[derive(Debug, Clone)]
pub struct Index {
    pub(super) marks: Vec<Mark>,
    end: Mark,
    stride: u64,
    /// Raw bytes since the last mark.
    since: u64,
    groups: Vec<Group>,
    /// Those of them that have not ended.
    open_groups: Vec<usize>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            marks: vec![Mark::default()],
            end: Mark::default(),
            stride: STRIDE,
            since: 0,
            groups: Vec::new(),
            open_groups: Vec::new(),
        }
    }
}

impl Index {
    #[cfg(test)]
    pub(super) fn with_stride(stride: u64) -> Self {
        Self { stride, ..Self::default() }
    }

    /// Takes the next chunk.
    ///
    /// # Errors
    /// It holds no records.
    pub fn feed(
        &mut self,
        place: u64,
        host: HostId,
        attempt: u16,
        raw: &[u8],
    ) -> Result<(), Malformed> {
        let (groups, open) = (&mut self.groups, &mut self.open_groups);
        self.end.splitter.feed(host, attempt, raw, &mut |line| note_group(groups, open, line))?;
        self.end.place = place;
        self.since += raw.len() as u64;
        if self.since >= self.stride {
            self.since = 0;
            self.marks.push(self.end.clone());
            self.thin_out();
        }
        Ok(())
    }

    /// How far the log has been taken.
    #[must_use]
    pub fn end(&self) -> &Mark {
        &self.end
    }

    /// Its groups, in the order in which they begin.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The last mark before a row.
    #[must_use]
    pub fn before(&self, row: u64, only: Only) -> Mark {
        let rows = |mark: &Mark| match only {
            Only::All => mark.splitter.lines(),
            Only::Errors => mark.splitter.errors(),
        };
        let after = self.marks.partition_point(|mark| rows(mark) < row);
        self.marks.get(after.saturating_sub(1)).cloned().unwrap_or_default()
    }

    /// Every other mark goes when they are too many or too heavy.
    fn thin_out(&mut self) {
        let weight: usize = self.marks.iter().map(|mark| mark.splitter.weight()).sum();
        if self.marks.len() <= MOST_MARKS && weight <= MOST_WEIGHT {
            return;
        }
        let mut at = 0_usize;
        self.marks.retain(|_| {
            at += 1;
            at % 2 == 1
        });
        self.stride = self.stride.saturating_mul(2);
    }
}

/// The marks of groups that builds write: `::group::title` with `::endgroup::`, or `##[group]title` with
/// `##[endgroup]`.
const MARKS: [(&[u8], &[u8]); 2] =
    [(b"::group::", b"::endgroup::"), (b"##[group]", b"##[endgroup]")];

fn note_group(groups: &mut Vec<Group>, open: &mut Vec<usize>, line: &Line<'_>) {
    let text = plain(line.text);
    if !matches!(text.first(), Some(b':' | b'#')) {
        return;
    }
    for (begin, end) in MARKS {
        if let Some(title) = text.strip_prefix(begin) {
            if groups.len() < MOST_GROUPS {
                let mut title = String::from_utf8_lossy(title).into_owned();
                title.truncate(title.floor_char_boundary(MOST_TITLE));
                let depth = u16::try_from(open.len()).unwrap_or(u16::MAX);
                open.push(groups.len());
                groups.push(Group { from: line.number, to: None, title, depth });
            }
        } else if text.starts_with(end)
            && let Some(group) = open.pop().and_then(|at| groups.get_mut(at))
        {
            group.to = Some(line.number);
        }
    }
}
