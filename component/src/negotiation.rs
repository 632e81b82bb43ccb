//! Which of the three formats an answer takes (RFC 9110, section 12.5.1).

use http::header;

use crate::{field::Cursor, visit::Headers};

/// A format that a report is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Html,
    Json,
}

impl Format {
    /// In the order that decides between equal weights: curl, which accepts anything, gets text.
    pub(crate) const ALL: [Self; 3] = [Self::Text, Self::Html, Self::Json];

    /// Its name in `?format=`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "text" => Some(Self::Text),
            "html" => Some(Self::Html),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Html => "text/html; charset=utf-8",
            Self::Json => "application/json",
        }
    }

    fn media_type(self) -> (&'static str, &'static str) {
        match self {
            Self::Text => ("text", "plain"),
            Self::Html => ("text", "html"),
            Self::Json => ("application", "json"),
        }
    }
}

/// The acceptable format of the greatest weight, or `None` if the header excludes all three.
/// An absent or malformed header accepts everything.
pub(crate) fn negotiate(headers: &Headers) -> Option<Format> {
    let mut choices = Format::ALL.map(|format| Choice { format, by: None, weight: 0 });
    let mut is_absent = true;
    for line in headers.values(header::ACCEPT.as_str()) {
        let mut cursor = Cursor::new(&line);
        while let Some(range) = next_element(&mut cursor) {
            let Some(range) = range else { return Some(Format::Text) };
            is_absent = false;
            for choice in &mut choices {
                choice.consider(&range);
            }
        }
    }
    if is_absent {
        return Some(Format::Text);
    }
    // max_by_key takes the last of equal weights, and the first format is preferred.
    let best = choices.iter().rev().max_by_key(|choice| choice.weight)?;
    (best.weight > 0).then_some(best.format)
}

/// A format, and the weight that the most specific range gives it. Of equally specific ranges, the first one counts.
struct Choice {
    format: Format,
    by: Option<(u8, usize)>,
    weight: u16,
}

impl Choice {
    fn consider(&mut self, range: &MediaRange) {
        let specificity = range.specificity(self.format);
        if specificity > self.by {
            self.by = specificity;
            self.weight = range.weight;
        }
    }
}

/// One element of an Accept header.
#[derive(Clone, Debug)]
struct MediaRange<'a> {
    main: &'a str,
    sub: &'a str,
    /// How many parameters it names, and whether our formats lack one of them.
    parameters: usize,
    foreign: bool,
    /// In thousandths.
    weight: u16,
}

impl MediaRange<'_> {
    /// How closely it describes the format, or `None` if it does not.
    fn specificity(&self, format: Format) -> Option<(u8, usize)> {
        let (main, sub) = format.media_type();
        let closeness = match (self.main, self.sub) {
            ("*", "*") => 0,
            (range, "*") if range.eq_ignore_ascii_case(main) => 1,
            (range, subrange) if range.eq_ignore_ascii_case(main) && subrange.eq_ignore_ascii_case(sub) => 2,
            _ => return None,
        };
        (!self.foreign).then_some((closeness, self.parameters))
    }
}

/// The next element of a line: `None` at the end of the line, `Some(None)` if the element is malformed.
#[expect(clippy::option_option, reason = "the end of a line and a fault in it are different things")]
fn next_element<'a>(cursor: &mut Cursor<'a>) -> Option<Option<MediaRange<'a>>> {
    loop {
        cursor.skip_whitespace();
        if cursor.is_at_end() {
            return None;
        }
        if !cursor.eat(',') {
            let range = media_range(cursor);
            let is_whole = cursor.is_at_end() || cursor.rest().starts_with(',');
            return Some(range.filter(|_| is_whole));
        }
    }
}

fn media_range<'a>(cursor: &mut Cursor<'a>) -> Option<MediaRange<'a>> {
    let main = cursor.token()?;
    let sub = match main {
        "*" if !cursor.rest().starts_with('/') => "*", // Java's clients before version 18 write `*` for `*/*`
        _ => cursor.eat('/').then(|| cursor.token()).flatten()?,
    };
    if main == "*" && sub != "*" {
        return None;
    }
    let mut range = MediaRange { main, sub, parameters: 0, foreign: false, weight: 1000 };
    let mut weighted = false;
    loop {
        cursor.skip_whitespace();
        if !cursor.eat(';') {
            return Some(range);
        }
        cursor.skip_whitespace();
        let Some(name) = cursor.token() else {
            continue; // an empty parameter (RFC 9110, section 5.6.6)
        };
        let value = if cursor.eat('=') {
            Some(cursor.parameter_value()?)
        } else if weighted {
            None // an extension of the Accept of RFC 7231, which may stand without a value
        } else {
            return None;
        };
        if weighted {
            continue;
        }
        if name.eq_ignore_ascii_case("q") {
            range.weight = quality(&value?)?;
            weighted = true;
        } else {
            range.parameters += 1;
            // Every answer is UTF-8. JSON has no charset parameter, but clients send one.
            range.foreign |= !(name.eq_ignore_ascii_case("charset")
                && value.is_some_and(|value| value.eq_ignore_ascii_case("utf-8")));
        }
    }
}

/// A weight in thousandths (RFC 9110, section 12.4.2): 0 to 1 with at most three decimals. Java's clients before version 18
/// leave the 0 out.
fn quality(value: &str) -> Option<u16> {
    let (whole, decimals) = value.split_once('.').unwrap_or((value, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let thousandths = format!("{decimals:0<3}").parse().ok()?;
    match (whole, thousandths) {
        ("", _) if decimals.is_empty() => None,
        ("0" | "", thousandths) => Some(thousandths),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepting(lines: &[&str]) -> Option<Format> {
        negotiate(&Headers(lines.iter().map(|line| ("accept".to_owned(), line.as_bytes().to_vec())).collect()))
    }

    #[test]
    fn the_format_is_the_acceptable_one_with_the_greatest_weight() {
        const TEXT: Option<Format> = Some(Format::Text);
        const HTML: Option<Format> = Some(Format::Html);
        const JSON: Option<Format> = Some(Format::Json);
        const NONE: Option<Format> = None;
        const ROWS: &[(&[&str], Option<Format>)] = include!("../conformance/tests/accept.in");
        for (lines, format) in ROWS {
            assert_eq!(accepting(lines), *format, "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(line in "[\t -~]*") {
            accepting(&[&line]);
        }

        #[test]
        fn a_weight_is_read_as_it_is_written(thousandths in 0_u16..=1000) {
            let written = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
            prop_assert_eq!(quality(&written), Some(thousandths));
        }
    }
}
