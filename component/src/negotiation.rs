//! Which of the three formats an answer takes (RFC 9110, section 12.5.1).

use http::{HeaderMap, header};

use crate::field::Cursor;

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

    /// The name that `?format=` knows it by.
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

/// The acceptable format of the greatest weight, or `None` where the header excludes all three.
/// An absent or malformed header accepts everything.
pub(crate) fn negotiate(headers: &HeaderMap) -> Option<Format> {
    let mut ranges = Vec::new();
    for line in headers.get_all(header::ACCEPT) {
        let read = line.to_str().ok().and_then(|line| media_ranges(line, &mut ranges));
        if read.is_none() {
            return Some(Format::Text);
        }
    }
    if ranges.is_empty() {
        return Some(Format::Text);
    }
    let mut best = (0, None);
    for format in Format::ALL {
        let weight = weight(format, &ranges);
        if weight > best.0 {
            best = (weight, Some(format));
        }
    }
    best.1
}

/// One element of an Accept header.
#[derive(Clone, Debug)]
struct MediaRange<'a> {
    main: &'a str,
    sub: &'a str,
    /// How many parameters it names, and whether one of them is none that our formats have.
    parameters: usize,
    foreign: bool,
    /// In thousandths.
    weight: u16,
}

impl MediaRange<'_> {
    /// How closely it describes the format, or `None` where it does not.
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

/// The weight that the most specific range gives the format; of equal ones, the first.
fn weight(format: Format, ranges: &[MediaRange]) -> u16 {
    let mut best = None;
    for range in ranges {
        let specificity = range.specificity(format);
        if specificity > best.map(|(specificity, _)| specificity) {
            best = specificity.map(|specificity| (specificity, range.weight));
        }
    }
    best.map_or(0, |(_, weight)| weight)
}

/// Appends the elements of one Accept line, or says `None` where it is malformed.
fn media_ranges<'a>(line: &'a str, ranges: &mut Vec<MediaRange<'a>>) -> Option<()> {
    let mut cursor = Cursor::new(line);
    loop {
        cursor.skip_whitespace();
        if cursor.is_at_end() {
            return Some(());
        }
        if cursor.eat(',') {
            continue;
        }
        ranges.push(media_range(&mut cursor)?);
        if !cursor.is_at_end() && !cursor.eat(',') {
            return None;
        }
    }
}

fn media_range<'a>(cursor: &mut Cursor<'a>) -> Option<MediaRange<'a>> {
    let main = cursor.token()?;
    cursor.eat('/').then_some(())?;
    let sub = cursor.token()?;
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
            // All that we write is UTF-8; JSON has no such parameter, but clients that ask so mean it.
            range.foreign |= !(name.eq_ignore_ascii_case("charset")
                && value.is_some_and(|value| value.eq_ignore_ascii_case("utf-8")));
        }
    }
}

/// A weight in thousandths (RFC 9110, section 12.4.2): 0 to 1 with at most three decimals.
fn quality(value: &str) -> Option<u16> {
    let (whole, decimals) = value.split_once('.').unwrap_or((value, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let thousandths = format!("{decimals:0<3}").parse().ok()?;
    match (whole, thousandths) {
        ("0", thousandths) => Some(thousandths),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepting(lines: &[&str]) -> Option<Format> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::ACCEPT, line.parse().unwrap());
        }
        negotiate(&headers)
    }

    #[test]
    fn the_format_is_the_acceptable_one_of_the_greatest_weight() {
        use Format::{Html, Json, Text};
        let cases: &[(&[&str], Option<Format>)] = &[
            (&[], Some(Text)),
            (&["*/*"], Some(Text)),
            (&["text/html"], Some(Html)),
            (&["application/json"], Some(Json)),
            (&["text/plain"], Some(Text)),
            (&["text/*"], Some(Text)),
            (&["application/*"], Some(Json)),
            (&["TEXT/HTML"], Some(Html)),
            // what browsers send
            (&["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], Some(Html)),
            // equal weights: text, html, json
            (&["application/json, text/html"], Some(Html)),
            (&["application/json, text/html, text/plain"], Some(Text)),
            (&["application/json;q=0.5, text/html;q=0.5"], Some(Html)),
            // weights
            (&["text/html;q=0.1, application/json;q=0.2"], Some(Json)),
            (&["text/html;q=0.999, application/json;q=1.000"], Some(Json)),
            (&["text/html ; Q=0.1 , application/json"], Some(Json)),
            // 0 excludes, and the most specific range wins
            (&["*/*, text/plain;q=0"], Some(Html)),
            (&["*/*;q=0.1, text/plain;q=0, text/html;q=0"], Some(Json)),
            (&["text/*;q=0, */*"], Some(Json)),
            (&["text/*;q=0, text/html;q=0.1"], Some(Html)),
            (&["*/*, text/*;q=0.5, text/html;q=0.7"], Some(Json)),
            (&["text/plain;q=0"], None),
            (&["*/*;q=0"], None),
            (&["image/png"], None),
            (&["application/xml, image/*;q=0.5"], None),
            // parameters
            (&["text/html;charset=utf-8"], Some(Html)),
            (&["application/json; charset=\"UTF-8\""], Some(Json)),
            (&["text/html;level=1, application/json;q=0.1"], Some(Json)),
            (&["text/html;charset=utf-8;q=0, text/html, */*;q=0.1"], Some(Text)),
            (&["text/html;q=0.5;extension, application/json;q=0.4;a=\"b,c\""], Some(Html)),
            (&["text/html;;q=0.5"], Some(Html)),
            (&["image/png;x=\"a, text/html\", application/json"], Some(Json)),
            // empty elements, several lines
            (&[""], Some(Text)),
            (&[" , ,"], Some(Text)),
            (&[", application/json ,"], Some(Json)),
            (&["text/html;q=0.5", "application/json"], Some(Json)),
            // malformed: accepts everything
            (&["json"], Some(Text)),
            (&["*/json"], Some(Text)),
            (&["text/"], Some(Text)),
            (&["application/json;q=2"], Some(Text)),
            (&["application/json;q=0.1234"], Some(Text)),
            (&["application/json;q=1.001"], Some(Text)),
            (&["application/json;q=.5"], Some(Text)),
            (&["application/json;q"], Some(Text)),
            (&["application/json;q=-1"], Some(Text)),
            (&["application/json text/html"], Some(Text)),
            (&["application/json", "text/"], Some(Text)),
            (&["application/json;x=\"open"], Some(Text)),
        ];
        for (lines, format) in cases {
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
