//! Names, labels, facts and messages come from hosts and other people. On a terminal they are
//! shown so that no control character reaches it.

use std::borrow::Cow;

/// Shows a text of several lines: everything that steers a terminal is escaped, except newlines.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    escape(text, |c| c == '\n')
}

/// Shows a text on one line.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

fn escape(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let steers = |c: char| steers(c) && !keep(c);
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let shown = text.chars().fold(String::with_capacity(text.len() + 8), |mut shown, c| {
        if steers(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
        shown
    });
    Cow::Owned(shown)
}

/// Control characters (C0, C1, DEL), line separators, and what changes the direction of
/// text (Unicode Standard Annex #9) or cannot be seen (zero width, tags) and so can make a line
/// read as another.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}')
        || matches!(c, '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{e0000}'..='\u{e007f}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_steers_the_terminal() {
        let check = |from: &str, shown: &str| assert_eq!(line(from), shown);
        check("web1", "web1");
        check("größe 漢", "größe 漢");
        check("a\u{1b}[2Jb", "a\\u{1b}[2Jb");
        check("a\tb\nc", "a\\tb\\nc");
        check("\u{202e}txt", "\\u{202e}txt");
        check("\u{9b}31m", "\\u{9b}31m");
        check("ad\u{200b}min\u{2060}", "ad\\u{200b}min\\u{2060}");
        check("a\u{e0041}\u{200d}", "a\\u{e0041}\\u{200d}");
        assert_eq!(text("a\nb\r"), "a\nb\\r");
    }

    proptest! {
        #[test]
        fn no_control_character_survives(any in ".*") {
            prop_assert!(!line(&any).contains(char::is_control));
        }
    }
}
