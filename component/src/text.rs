//! The report and the headers as plain text.

use std::fmt::Write as _;

use crate::{
    report::Report,
    visible::{Visible, is_plain},
    visit::Headers,
};

/// Shown in place of an absent value.
pub(crate) const ABSENT: &str = "none";

/// The four values, each on its line, and the sentence about the address.
pub(crate) fn report(report: &Report) -> String {
    let mut text = String::with_capacity(256);
    for (label, value) in report.fields() {
        text.push_str(label);
        text.push_str(&"         "[label.len()..]);
        line(&mut text, value.unwrap_or(ABSENT));
    }
    text.push('\n');
    line(&mut text, &report.address.explanation);
    text
}

/// The headers, each on its line, as HTTP/1.1 writes them.
pub(crate) fn headers(headers: &Headers) -> String {
    let mut text = String::with_capacity(256);
    for (name, value) in headers.pairs() {
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
