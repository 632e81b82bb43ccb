//! JSON without characters that a terminal would interpret.

use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use crate::visible::turns_direction;

/// The document on one line.
pub(crate) fn to_vec(document: &impl Serialize) -> Vec<u8> {
    let mut body = Vec::with_capacity(1024);
    document
        .serialize(&mut Serializer::with_formatter(&mut body, Calm))
        .expect("strings and lists of them are always JSON");
    body.push(b'\n');
    body
}

/// Writes as `\u` escapes the control characters that JSON would allow unescaped, and the characters that change the
/// direction of text. JSON allows the escape for any character (RFC 8259, section 7).
struct Calm;

impl Formatter for Calm {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        if rest.bytes().any(|byte| byte >= 0x7f) {
            while let Some((position, c)) = rest.char_indices().find(|&(_, c)| c.is_control() || turns_direction(c)) {
                writer.write_all(&rest.as_bytes()[..position])?;
                write!(writer, "\\u{:04x}", u32::from(c))?;
                rest = &rest[position + c.len_utf8()..];
            }
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_characters_and_direction_marks_are_escaped() {
        let cases = [
            ("plain, é and 🦀", "plain, é and 🦀"),
            ("\u{9b}31m", r"\u009b31m"),
            ("a\u{7f}\u{85}b", r"a\u007f\u0085b"),
            ("\u{1b}]0;x\u{7}", r"\u001b]0;x\u0007"),
            ("\u{202e}txt.exe\u{2066}\u{61c}", r"\u202etxt.exe\u2066\u061c"),
            ("\"\\\n", r#"\"\\\n"#),
            ("pay\u{200b}pal", "pay\u{200b}pal"),
        ];
        for (text, written) in cases {
            assert_eq!(String::from_utf8(to_vec(&text)).unwrap(), format!("\"{written}\"\n"), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn all_text_is_read_back_and_controls_no_terminal(text: String) {
            let written = String::from_utf8(to_vec(&text)).unwrap();
            prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
            prop_assert!(!written.trim_end().contains(|c: char| c.is_control() || turns_direction(c)));
        }
    }
}
