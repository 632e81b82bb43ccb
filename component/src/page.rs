//! The report as a page: no script, nothing fetched from anywhere, one stylesheet inside it.

use maud::{DOCTYPE, Markup, PreEscaped, Render, html};

use crate::{
    headers::Headers,
    report::{Report, VERSION},
    text::{ABSENT, Visible, is_plain},
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

impl Render for Visible<'_> {
    fn render_to(&self, buffer: &mut String) {
        if is_plain(self.0) { self.0.render_to(buffer) } else { self.to_string().render_to(buffer) }
    }
}

/// The four values first, then how the address was found, then all that was received.
pub(crate) fn report(report: &Report) -> String {
    let content = html! {
        h1 { "Your request" }
        dl {
            @for (label, value) in report.fields() {
                div {
                    dt { (label) }
                    dd dir="auto" class=[value.is_none().then_some("absent")] {
                        (Visible(value.unwrap_or(ABSENT)))
                    }
                }
            }
        }
        p.how { (Visible(&report.address.explanation)) }
        h2 { "Headers" }
        (header_table(report.request.headers))
    };
    document("Your request", "/", &content)
}

pub(crate) fn headers(headers: Headers) -> String {
    let content = html! {
        h1 { "Your request\u{2019}s headers" }
        (header_table(headers))
    };
    document("Your request\u{2019}s headers", "/headers", &content)
}

fn header_table(headers: Headers) -> Markup {
    html! {
        table {
            thead { tr { th scope="col" { "Name" } th scope="col" { "Value" } } }
            tbody {
                @for (name, value) in headers.of_visitor() {
                    tr { th scope="row" { (name) } td dir="auto" { (Visible(&value)) } }
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
                link rel="icon" href=(ICON);
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
