//! Addresses of pages with values in them.

use std::fmt::Write as _;

/// An address with a query; empty values are left out.
pub(super) fn link(path: &str, query: &[(&str, &str)]) -> String {
    let mut address = path.to_owned();
    let mut between = '?';
    for (key, value) in query.iter().filter(|(_, value)| !value.is_empty()) {
        address.push(between);
        address.push_str(key);
        address.push('=');
        address.push_str(&encode(value));
        between = '&';
    }
    address
}

/// A text as one value of a query, or one step of a path (RFC 3986 §2.1).
pub(super) fn encode(text: &str) -> String {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if plain(byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to memory");
        }
    }
    encoded
}

/// A text as one word of a shell, where it needs quotes.
pub(super) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_hold_any_value() {
        assert_eq!(link("/hosts", &[("q", ""), ("page", "2")]), "/hosts?page=2");
        assert_eq!(link("/hosts", &[("q", "a&b=\"c\" é")]), "/hosts?q=a%26b%3D%22c%22%20%C3%A9");
    }

    proptest! {
        #[test]
        fn what_is_quoted_is_one_word_for_a_shell(text in "[^\0]{0,40}") {
            let script = format!("printf %s {}", quoted(&text));
            let said = std::process::Command::new("/bin/sh").arg("-c").arg(script).output().expect("there is a shell");
            prop_assert_eq!(String::from_utf8_lossy(&said.stdout), text);
        }
    }
}
