//! The report as plain text, and what every rendering shares: nothing in it is invisible.

use std::fmt::{self, Write as _};

use crate::{headers::Headers, report::Report};

/// Shows text with its control characters as `\u` escapes, so that a visitor can neither forge a line
/// nor drive a terminal. Unicode's line separators and directional controls are shown like them.
pub(crate) struct Visible<'a>(pub(crate) &'a str);

impl fmt::Display for Visible<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let mut rest = self.0;
        while let Some((position, character)) = rest.char_indices().find(|(_, c)| is_invisible(*c)) {
            formatter.write_str(&rest[..position])?;
            write!(formatter, "\\u{:04x}", u32::from(character))?;
            rest = &rest[position + character.len_utf8()..];
        }
        formatter.write_str(rest)
    }
}

/// Nearly everything is ASCII without controls, which is told byte by byte.
pub(crate) fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What stands where a value is absent.
pub(crate) const ABSENT: &str = "none";

/// The four values, each on its line, and the sentence about the address.
pub(crate) fn report(report: &Report) -> String {
    let mut text = String::with_capacity(256);
    for (label, value) in report.fields() {
        text.push_str(label);
        text.extend(std::iter::repeat_n(' ', 9 - label.len()));
        line(&mut text, value.unwrap_or(ABSENT));
    }
    text.push('\n');
    line(&mut text, &report.address.explanation);
    text
}

/// The headers, each on its line, as HTTP/1.1 writes them.
pub(crate) fn headers(headers: Headers) -> String {
    let mut text = String::with_capacity(256);
    for (name, value) in headers.of_visitor() {
        text.push_str(name);
        text.push_str(": ");
        line(&mut text, &value);
    }
    text
}

/// One value on one line.
pub(crate) fn line(text: &mut String, value: &str) {
    if is_plain(value) {
        text.push_str(value);
    } else {
        let _ = write!(text, "{}", Visible(value));
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_would_move_a_terminal_or_forge_a_line_is_an_escape() {
        let cases = [
            ("plain, é and 🦀", "plain, é and 🦀"),
            ("a\nIP 192.0.2.1", "a\\u000aIP 192.0.2.1"),
            ("\u{1b}]0;x\u{7}", "\\u001b]0;x\\u0007"),
            ("\u{9b}31m", "\\u009b31m"),
            ("\u{7f}\0\t", "\\u007f\\u0000\\u0009"),
            ("\u{202e}txt.exe", "\\u202etxt.exe"),
            ("a\u{2028}b\u{2029}c", "a\\u2028b\\u2029c"),
        ];
        for (text, shown) in cases {
            assert_eq!(Visible(text).to_string(), shown, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_shown_is_invisible_and_all_else_stays(text: String) {
            let shown = Visible(&text).to_string();
            prop_assert!(!shown.contains(is_invisible));
            if !text.contains(is_invisible) {
                prop_assert_eq!(shown, text);
            }
        }
    }
}
