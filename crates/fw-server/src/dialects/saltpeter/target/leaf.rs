//! One target without signs, as a word of a selector.

use std::net::Ipv4Addr;

use fw_core::caret::Error;
use fw_core::select::Selector;

use super::Kind;

/// Reads one; places in errors are those of `text`.
pub(super) fn read(kind: Kind, separator: char, text: &str) -> Result<Selector, Error> {
    match kind {
        Kind::Pcre => regex(text),
        Kind::List => list(text),
        Kind::Grain | Kind::GrainPcre => grain(kind == Kind::GrainPcre, separator, text),
        Kind::IpCidr => network(text),
        Kind::Glob | Kind::Compound | Kind::NodeGroup => glob(text),
    }
}

/// Reads a word of our own. What it says to be wrong stands `before` characters further right than
/// in `text`.
fn own(text: &str, word: &str, before: usize) -> Result<Selector, Error> {
    let last = text.chars().count();
    let quoted = format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""));
    Selector::parse(&quoted).map_err(|error| {
        let offset = error.offset.saturating_sub(before + 1).min(last);
        Error::new(text, offset, error.message)
    })
}

/// Reads a regular expression; places in errors are those of `pattern`.
fn own_regex(pattern: &str) -> Result<Selector, Error> {
    // A quote needs an escape; a backslash before it would be one already.
    let pattern = pattern.replace('"', "\\x22");
    Selector::parse(&format!("~\"{pattern}\""))
        .map_err(|error| Error { offset: error.offset.saturating_sub("~\"".len()), ..error })
}

/// Python's `re.match`: from the start of the name.
fn regex(text: &str) -> Result<Selector, Error> {
    let said = python(text);
    let within =
        |error: Error| Error::new(text, error.offset.min(text.chars().count()), error.message);
    // Alone first: in parentheses, `a)(b` would be a pattern, and errors stand elsewhere.
    own_regex(&said).map_err(within)?;
    own_regex(&format!("^(?:{said})")).map_err(within)
}

/// A regular expression of Python's, where ours would read it differently: `\Z` is the end, and in
/// a class `[`, `&` and `~` are themselves.
fn python(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    let mut class = None;
    while let Some(c) = chars.next() {
        match (c, class) {
            ('\\', _) => {
                out.push('\\');
                match chars.next() {
                    Some('Z') if class.is_none() => out.push('z'),
                    Some(next) => out.push(next),
                    None => {}
                }
                class = class.map(|place: u32| place + 1);
                continue;
            }
            ('[', None) => {
                out.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                class = Some(0);
                continue;
            }
            (']', Some(place)) if place > 0 => class = None,
            ('[' | '&' | '~', Some(_)) => out.push('\\'),
            _ => {}
        }
        out.push(c);
        class = class.map(|place| place + 1);
    }
    out
}

/// Salt splits at commas and leaves spaces: a name with one around it is no host's.
fn list(text: &str) -> Result<Selector, Error> {
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let names: Vec<_> =
        text.split(',').filter(|item| !item.is_empty() && item.chars().all(name)).collect();
    if names.is_empty() {
        return own(text, "*", 0).map(Selector::negated);
    }
    own(text, &names.join(","), 0)
}

fn grain(regex: bool, separator: char, text: &str) -> Result<Selector, Error> {
    if separator.is_alphanumeric() || matches!(separator, '_' | '-' | '.' | '"' | '\\') {
        return Err(Error::new(text, 0, "a separator is a sign such as : or |"));
    }
    if !text.contains(separator) {
        let message = format!("write GRAIN{separator}VALUE");
        return Err(Error::new(text, text.chars().count(), message));
    }
    let sign = if regex { '~' } else { ':' };
    let plain = separator == ':' && !text.starts_with([':', '~']);
    let prefix = if plain { format!("ifact{sign}") } else { format!("ifact{separator}{sign}") };
    let said = if regex { text.to_owned() } else { fnmatch(text).unwrap_or_default() };
    if said.is_empty() {
        return own(text, "*", 0).map(Selector::negated);
    }
    let said = if regex { python(&said) } else { said };
    own(text, &format!("{prefix}{said}"), prefix.len())
}

fn glob(text: &str) -> Result<Selector, Error> {
    let sign = |c: char| {
        c.is_ascii_alphanumeric()
            || matches!(c, '.' | '_' | '-' | '*' | '?' | '[' | ']' | '!' | '^')
    };
    match fnmatch(text) {
        Some(glob) if glob.chars().all(sign) => own(text, &glob, 0),
        Some(glob) if !glob.contains('[') => {
            // No host's name has such a character.
            own(text, "*", 0).map(Selector::negated)
        }
        Some(glob) => {
            own_regex(&as_regex(&glob)).map_err(|error| Error::new(text, 0, error.message))
        }
        None => own(text, "*", 0).map(Selector::negated),
    }
}

/// A glob of ours, as `fnmatch` below writes it, as a regular expression.
fn as_regex(glob: &str) -> String {
    let mut out = "^(?s:".to_owned();
    let mut class = None;
    for c in glob.chars() {
        match (c, class) {
            ('[', None) => {
                out.push('[');
                class = Some(0_u32);
                continue;
            }
            ('!', Some(0)) => {
                out.push('^');
                continue;
            }
            (']', Some(place)) if place > 0 => {
                out.push(']');
                class = None;
                continue;
            }
            ('-', Some(_)) => out.push('-'),
            ('*', None) => out.push_str(".*"),
            ('?', None) => out.push('.'),
            (c, _) if c.is_ascii_punctuation() => out.extend(['\\', c]),
            (c, _) => out.push(c),
        }
        class = class.map(|place| place + 1);
    }
    out.push_str(")$");
    out
}

/// A glob of Python's `fnmatch` in our form; `None` when nothing can fit it. There `[` without an
/// end is itself, `^` in a class is no sign, and a range that ends before it begins is empty.
fn fnmatch(text: &str) -> Option<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        at += 1;
        if c != '[' {
            out.push(c);
            continue;
        }
        let not = chars.get(at) == Some(&'!');
        let first = at + usize::from(not);
        let end = chars.iter().skip(first + 1).position(|c| *c == ']').map(|n| first + 1 + n);
        let Some(end) = end else {
            out.push_str("[[]");
            continue;
        };
        out.push_str(&class(not, chars.get(first..end).unwrap_or_default())?);
        at = end + 1;
    }
    Some(out)
}

/// What no text holds: it keeps the first place of a class.
const NO_CHARACTER: char = '\u{10ffff}';

fn class(not: bool, inside: &[char]) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut rest = inside;
    while let [low, after @ ..] = rest {
        rest = match after {
            ['-', high, after @ ..] => {
                if low <= high {
                    // The end of the range before it keeps '^' and '!' from standing first.
                    parts.push(format!("{high}{low}-{high}"));
                }
                after
            }
            after => {
                parts.push(low.to_string());
                after
            }
        };
    }
    // ']' stands first and '-' last; '^' and '!' are signs in the first place.
    parts.sort_by_key(|part| match part.as_str() {
        "-" => 3,
        part if part.starts_with([']', '-']) => 0,
        "^" | "!" => 2,
        _ => 1,
    });
    match parts.as_slice() {
        [] => not.then(|| "?".to_owned()),
        [only] if !not && matches!(only.as_str(), "^" | "!" | "-") => Some(only.clone()),
        // Only '^', '!' and '-' are here, and the first of these two would negate.
        [first, ..] if !not && matches!(first.as_str(), "^" | "!") => {
            let signs = parts.concat();
            let others = signs.replace('-', "");
            let harmless = if signs == others { NO_CHARACTER } else { '-' };
            Some(format!("[{harmless}{others}]"))
        }
        parts => Some(format!("[{}{}]", if not { "!" } else { "" }, parts.concat())),
    }
}

fn network(text: &str) -> Result<Selector, Error> {
    let (address, mask) = text.split_once('/').unwrap_or((text, ""));
    let bits = mask.parse::<Ipv4Addr>().ok().and_then(|mask| {
        let mask = mask.to_bits();
        (mask.leading_ones() == mask.count_ones()).then_some(mask.leading_ones())
    });
    let said = bits.map_or_else(|| text.to_owned(), |bits| format!("{address}/{bits}"));
    own(text, &format!("net:{said}"), "net:".len())
}
