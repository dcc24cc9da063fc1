//! Blocks of `backup`: what is saved on a host and proved by a restore, or has to be there already.
//!
//! ````markdown
//! ```backup id=save as=root timeout=30m
//! paths: [/etc/nginx]
//! sqlite: [/var/lib/app/app.db]
//! to: "{{ inputs.save }}"
//! keep: 5
//! ```
//! ````
//!
//! It becomes a command of the binary on the host, and its undo restores the very backup that was made.
//! With `fresh=24h` nothing is saved: the step succeeds when such a backup is there that is not older.

use fw_proto::Span;

use super::markdown::Block;
use super::shell;
use super::template::{length, next_tag};
use crate::caret::nearest;
use crate::job::yaml::{self, Node, Place, Value};

/// The language of such a block.
pub(super) const LANGUAGE: &str = "backup";

const KEYS: [&str; 7] = ["paths", "sqlite", "postgres", "exclude", "to", "keep", "keep_for"];

/// The binary on the host.
const BINARY: &str = r#""${FLEETWRIGHT:?this agent is too old for backups}" host-backup"#;

/// What a block becomes.
#[derive(Debug)]
pub(super) struct Commands {
    /// The block, with the command in place of its text.
    pub(super) block: Block,
    /// What restores it; `None` when nothing is saved.
    pub(super) restore: Option<String>,
}

/// Something wrong, and at which byte of the document.
type Wrong = (usize, String);

/// A value, and where it stands in the document.
#[derive(Debug, Clone, Copy)]
struct Said<'n> {
    text: &'n str,
    at: usize,
    /// Whether it stands there as it is.
    verbatim: bool,
}

/// What the block says.
#[derive(Debug, Default)]
struct Order<'n> {
    /// Options with their values, in the order of the text.
    options: Vec<(&'static str, Said<'n>)>,
    to: Option<Said<'n>>,
}

/// Reads a block. `line` is where it begins, `filled` whether values may stand in it.
pub(super) fn read(
    block: &Block,
    line: u32,
    filled: bool,
    fresh: Option<Span>,
) -> Result<Commands, Vec<Wrong>> {
    let document = yaml::document(&block.text).map_err(|error| {
        let place = Place { line: error.line.max(1), column: error.column.max(1) };
        let value = block.text.contains("{{");
        let hint = if value { "; a value stands in quotation marks: \"{{ … }}\"" } else { "" };
        vec![(place_of(block, place), format!("{}{hint}", error.message))]
    })?;
    let mut reader = Reader { block, fresh: fresh.is_some(), wrong: Vec::new() };
    if let Some(twice) = &document.duplicate {
        let place = Place { line: twice.line, column: twice.column };
        reader.wrong(place, "this key stands twice; remove one");
    }
    let order = reader.order(&document.root);
    let made = order.to.map(|to| {
        let mut text = Text { text: String::new(), pieces: Vec::new(), filled };
        let restore = match fresh {
            Some(within) => text.fresh(&order, to, within).map(|()| None),
            None => text.create(&order, to, line).map(Some),
        };
        restore.map(|restore| (text, restore))
    });
    match made {
        Some(Ok((text, restore))) if reader.wrong.is_empty() => {
            let (info, item) = (block.info.clone(), block.item.clone());
            let block = Block { at: block.at, info, text: text.text, pieces: text.pieces, item };
            Ok(Commands { block, restore })
        }
        Some(Ok(_)) | None => Err(reader.wrong),
        Some(Err(wrong)) => {
            reader.wrong.push(wrong);
            Err(reader.wrong)
        }
    }
}

/// Where a place of the block's text stands in the document.
fn place_of(block: &Block, place: Place) -> usize {
    let line = usize::try_from(place.line).unwrap_or_default().saturating_sub(1);
    let column = usize::try_from(place.column).unwrap_or_default().saturating_sub(1);
    let lines = yaml::lines(&block.text);
    let Some(text) = lines.get(line) else { return block.at };
    let start = text.as_ptr().addr() - block.text.as_ptr().addr();
    block.place(start + text.chars().take(column).map(char::len_utf8).sum::<usize>())
}

struct Reader<'b> {
    block: &'b Block,
    fresh: bool,
    wrong: Vec<Wrong>,
}

impl Reader<'_> {
    fn wrong(&mut self, place: Place, why: impl Into<String>) {
        self.wrong.push((place_of(self.block, place), why.into()));
    }

    fn order<'n>(&mut self, root: &'n Node) -> Order<'n> {
        let mut order = Order::default();
        let Value::Map(entries) = &root.value else {
            let what =
                "a backup says what is saved and where: paths: [/etc/x] and to: /var/backups/x";
            self.wrong(root.place, what);
            return order;
        };
        for (key, value) in entries {
            match &key.value {
                Value::Scalar { text, .. } => self.entry(&mut order, text, key.place, value),
                Value::Null | Value::List(_) | Value::Map(_) => {
                    self.wrong(key.place, "a key of a backup is a word");
                }
            }
        }
        let has = |known: &[&str]| {
            entries.iter().any(|(key, _)| match &key.value {
                Value::Scalar { text, .. } => known.contains(&text.as_str()),
                Value::Null | Value::List(_) | Value::Map(_) => false,
            })
        };
        if !has(&["paths", "sqlite", "postgres"]) {
            self.wrong(root.place, "it saves nothing; add paths:, sqlite: or postgres:");
        }
        if !has(&["to"]) {
            self.wrong(root.place, "say in which directory backups are: to: /var/backups/x");
        }
        order
    }

    fn entry<'n>(&mut self, order: &mut Order<'n>, key: &str, place: Place, value: &'n Node) {
        let option = match key {
            "paths" => "path",
            "sqlite" => "sqlite",
            "postgres" => "postgres",
            "exclude" if !self.fresh => "exclude",
            "keep" if !self.fresh => "keep",
            "keep_for" if !self.fresh => "keep-for",
            "to" => {
                order.to = self.one(value, "to").filter(|to| self.absolute(to));
                return;
            }
            "exclude" | "keep" | "keep_for" => {
                self.wrong(
                    place,
                    format!("fresh asks for a backup and makes none; take {key} away"),
                );
                return;
            }
            _ => {
                let shown: String = key.chars().take(40).collect();
                let hint = nearest(&shown, &KEYS).map_or_else(
                    || format!("there are {}", KEYS.join(", ")),
                    |near| format!("did you mean {near}?"),
                );
                self.wrong(place, format!("unknown key {shown:?}; {hint}"));
                return;
            }
        };
        let several = !matches!(option, "keep" | "keep-for");
        let values = match &value.value {
            Value::List(items) if several => {
                items.iter().filter_map(|item| self.one(item, key)).collect()
            }
            Value::List(_) | Value::Null | Value::Scalar { .. } | Value::Map(_) => {
                Vec::from_iter(self.one(value, key))
            }
        };
        for said in values {
            if self.fits(option, &said) {
                order.options.push((option, said));
            }
        }
    }

    /// A single value.
    fn one<'n>(&mut self, node: &'n Node, key: &str) -> Option<Said<'n>> {
        match &node.value {
            Value::Scalar { text, shift, .. }
                if !text.trim().is_empty() && !text.contains('\0') =>
            {
                let column = node.place.column.saturating_add(shift.unwrap_or_default());
                let at = place_of(self.block, Place { column, ..node.place });
                Some(Said { text, at, verbatim: shift.is_some() })
            }
            Value::Scalar { .. } | Value::Null | Value::List(_) | Value::Map(_) => {
                self.wrong(node.place, format!("{key} is a text that is not empty"));
                None
            }
        }
    }

    fn fits(&mut self, option: &str, said: &Said<'_>) -> bool {
        let why = match option {
            "keep" => match said.text.parse() {
                Ok(1..=u32::MAX) => return true,
                Ok(0) | Err(_) => "keep is a number of backups, at least 1".to_owned(),
            },
            "keep-for" => match said.text.parse::<Span>() {
                Ok(span) if span > Span::ZERO => return true,
                Ok(_) => "keep_for: it is 0; give at least 1s".to_owned(),
                Err(error) => format!("keep_for: {error}"),
            },
            "postgres" => return true,
            _ => return self.absolute(said),
        };
        self.wrong.push((said.at, why));
        false
    }

    /// Nobody can tell by the document in which directory a command begins.
    fn absolute(&mut self, said: &Said<'_>) -> bool {
        let absolute = said.text.starts_with(['/']) || said.text.starts_with("{{");
        if !absolute {
            let shown: String = said.text.chars().take(40).collect();
            self.wrong
                .push((said.at, format!("{shown:?} is not an absolute path; begin it with '/'")));
        }
        absolute
    }
}

/// A command that is being written.
struct Text {
    text: String,
    /// Where its values stand in the document.
    pieces: Vec<(usize, usize)>,
    filled: bool,
}

impl Text {
    fn create(&mut self, order: &Order<'_>, to: Said<'_>, line: u32) -> Result<String, Wrong> {
        self.push(&format!("made=$({BINARY} create"));
        self.options(order)?;
        self.push(" --to=");
        self.word(to)?;
        self.push(") || exit\nprintf '%s\\n' \"$made\" | tee ");
        let pointer = self.text.len();
        self.word(to)?;
        // A run of this document finds its own backup by that, also when others are made since.
        self.push(&format!("/.change-\"$FLEETWRIGHT_CHANGE_ID\"-{line}"));
        let pointer = self.text.get(pointer..).unwrap_or_default();
        Ok(format!(
            "made=$(cat {pointer}) || {{ echo 'no backup was made, so none is restored' >&2; exit 0; }}\n\
             {BINARY} restore -- \"$made\""
        ))
    }

    fn fresh(&mut self, order: &Order<'_>, to: Said<'_>, within: Span) -> Result<(), Wrong> {
        self.push(&format!("{BINARY} fresh --within={within}"));
        self.options(order)?;
        self.push(" -- ");
        self.word(to)
    }

    fn options(&mut self, order: &Order<'_>) -> Result<(), Wrong> {
        for (option, said) in &order.options {
            // With `=` no value is an option of its own.
            self.push(&format!(" --{option}="));
            self.word(*said)?;
        }
        Ok(())
    }

    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// One word of the shell: letters are quoted here, values where they are put in.
    fn word(&mut self, said: Said<'_>) -> Result<(), Wrong> {
        let mut rest = said.text;
        while let Some(open) = next_tag(rest).filter(|_| self.filled) {
            let place = said.text.len() - rest.len() + open;
            let place = said.at + if said.verbatim { place } else { 0 };
            let tag = rest.get(open..).unwrap_or_default();
            if !tag.starts_with("{{") {
                return Err((place, "only values stand in a backup: {{ inputs.… }}".to_owned()));
            }
            let length =
                length(tag).ok_or_else(|| (place, "this {{ is never closed".to_owned()))?;
            self.letters(rest.get(..open).unwrap_or_default());
            self.pieces.push((self.text.len(), place));
            self.push(tag.get(..length).unwrap_or_default());
            rest = tag.get(length..).unwrap_or_default();
        }
        self.letters(rest);
        Ok(())
    }

    fn letters(&mut self, text: &str) {
        if !text.is_empty() {
            self.text.push_str(&shell::quote(text));
        }
    }
}
