//! The report as a page: no script, nothing fetched from anywhere, one stylesheet inside it.

use maud::{DOCTYPE, Markup, PreEscaped, Render, html};

use crate::{
    report::{Report, VERSION},
    text::ABSENT,
    visible::Visible,
    visit::Headers,
};

const STYLE: &str = include_str!("style.css");

/// A dot on a ring: the visitor, seen. Colours are percent-encoded in a data: URL.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'\
    %3E%3Ccircle cx='8' cy='8' r='6' fill='none' stroke='%230b7a75' stroke-width='2.5'/%3E\
    %3Ccircle cx='8' cy='8' r='2.2' fill='%230b7a75'/%3E%3C/svg%3E";

/// Allows the stylesheet and the icon, and nothing else.
pub(crate) const CONTENT_SECURITY_POLICY: &str = concat!(
    "default-src 'none'; style-src '",
    env!("REQUEST_INFO_STYLE_HASH"),
    "'; img-src data:; frame-ancestors 'none'; form-action 'none'; base-uri 'none'"
);

/// How much of one value the page shows, in bytes. Escapes can make it six times as long.
const VALUE_LIMIT: usize = 16 * 1024;

/// For each byte, whether it is visible ASCII and has no meaning in HTML.
static NEEDS_NO_ESCAPE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        table[byte as usize] = !matches!(byte, b'<' | b'>' | b'&' | b'"');
        byte += 1;
    }
    table
};

/// One value as the page shows it.
struct Shown<'a>(&'a str);

impl Render for Shown<'_> {
    fn render_to(&self, buffer: &mut String) {
        let (shown, rest) = self.0.split_at(self.0.floor_char_boundary(VALUE_LIMIT));
        // Almost no value needs an escape, and this check is fast.
        if shown.bytes().all(|byte| NEEDS_NO_ESCAPE[usize::from(byte)]) {
            buffer.push_str(shown);
        } else {
            Visible(shown).to_string().render_to(buffer);
        }
        if !rest.is_empty() {
            html! { span.more { " \u{2026} and " (rest.len()) " bytes more, which the JSON has" } }.render_to(buffer);
        }
    }
}

/// The four values, then how the address was found, then the request as it was received.
pub(crate) fn report(report: &Report) -> String {
    let content = html! {
        h1 { "Your request" }
        p.answered { "Answered by commit " code { (VERSION.short_commit()) } }
        dl {
            @for (label, value) in report.fields() {
                div {
                    dt { (label) }
                    dd dir="auto" tabindex="0" class=[value.is_none().then_some("absent")] {
                        (Shown(value.unwrap_or(ABSENT)))
                    }
                }
            }
        }
        p.how { (Shown(&report.address.explanation)) }
        h2 { "Headers" }
        (header_table(report.headers()))
    };
    document("Your request", "/", &content)
}

pub(crate) fn headers(headers: &Headers) -> String {
    let content = html! {
        h1 { "Your request\u{2019}s headers" }
        (header_table(headers))
    };
    document("Your request\u{2019}s headers", "/headers", &content)
}

fn header_table(headers: &Headers) -> Markup {
    html! {
        table {
            thead { tr { th scope="col" { "Name" } th scope="col" { "Value" } } }
            tbody {
                @for (name, value) in headers.pairs() {
                    tr { th scope="row" { (Shown(name)) } td dir="auto" { (Shown(&value)) } }
                }
            }
        }
    }
}

fn document(title: &str, path: &str, content: &Markup) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" href=(PreEscaped(ICON));
                style { (PreEscaped(STYLE)) }
            }
            body {
                main { (content) }
                footer {
                    nav aria-label="Other formats" {
                        "Also as " a href={ (path) "?format=json" } { "JSON" }
                        " or " a href={ (path) "?format=text" } { "text" }
                        " \u{b7} " a href="/openapi.json" { "API" }
                    }
                    p { "request-info " (VERSION.version) " \u{b7} commit " code { (VERSION.short_commit()) } }
                    p { "Nothing shown here is stored or logged." }
                }
            }
        }
    }
    .into_string()
}
