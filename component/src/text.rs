//! The report as plain text, and what every rendering shares: nothing in it is invisible.

use std::fmt::{self, Write as _};

use crate::report::{Headers, Report};

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
        let _ = writeln!(text, "{label:<8} {}", Visible(value.unwrap_or(ABSENT)));
    }
    let _ = writeln!(text, "\n{}", Visible(&report.address.explanation));
    text
}

/// The headers, each on its line, as HTTP/1.1 writes them.
pub(crate) fn headers(headers: Headers) -> String {
    let mut text = String::with_capacity(256);
    for (name, value) in headers.of_visitor() {
        let _ = writeln!(text, "{name}: {}", Visible(&value));
    }
    text
}
