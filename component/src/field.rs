//! The common syntax of HTTP field values (RFC 9110, section 5.6): tokens, quoted strings, white space.

use std::borrow::Cow;

/// Reads a field value from left to right. A method that finds nothing leaves the position as it was.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(value: &'a str) -> Self {
        Self { rest: value }
    }

    pub(crate) fn rest(&self) -> &'a str {
        self.rest
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Optional white space (RFC 9110, section 5.6.3).
    pub(crate) fn skip_whitespace(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    pub(crate) fn eat(&mut self, delimiter: char) -> bool {
        let rest = self.rest.strip_prefix(delimiter);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// A token (RFC 9110, section 5.6.2), at least one character long.
    pub(crate) fn token(&mut self) -> Option<&'a str> {
        let length = self.rest.bytes().position(|byte| !is_token_byte(byte)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        (!token.is_empty()).then_some(token)
    }

    /// What a quoted string says, without its quotes and escapes (RFC 9110, section 5.6.4).
    pub(crate) fn quoted_string(&mut self) -> Option<Cow<'a, str>> {
        let content = self.rest.strip_prefix('"')?;
        let mut unescaped = Cow::Borrowed("");
        let mut characters = content.char_indices();
        while let Some((position, character)) = characters.next() {
            match character {
                '"' => {
                    if let Cow::Borrowed(_) = unescaped {
                        unescaped = Cow::Borrowed(&content[..position]);
                    }
                    self.rest = &content[position + 1..];
                    return Some(unescaped);
                }
                '\\' => {
                    let (_, escaped) = characters.next().filter(|(_, c)| is_quotable(*c))?;
                    if let Cow::Borrowed(_) = unescaped {
                        unescaped = Cow::Owned(content[..position].to_owned());
                    }
                    unescaped.to_mut().push(escaped);
                }
                _ if !is_quotable(character) => return None,
                _ => {
                    if let Cow::Owned(unescaped) = &mut unescaped {
                        unescaped.push(character);
                    }
                }
            }
        }
        None
    }

    /// The value of a parameter: a token or a quoted string (RFC 9110, section 5.6.6).
    pub(crate) fn parameter_value(&mut self) -> Option<Cow<'a, str>> {
        if self.rest.starts_with('"') { self.quoted_string() } else { self.token().map(Cow::Borrowed) }
    }
}

fn is_token_byte(byte: u8) -> bool {
    // contains() takes three times as long.
    matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// Whether a quoted string may hold the character: white space, visible characters, and everything beyond ASCII.
fn is_quotable(character: char) -> bool {
    character == '\t' || !character.is_ascii_control()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_ends_before_the_first_delimiter() {
        let cases = [
            ("text/html", Some("text"), "/html"),
            ("gzip", Some("gzip"), ""),
            ("a b", Some("a"), " b"),
            ("", None, ""),
            ("=x", None, "=x"),
            ("é", None, "é"),
        ];
        for (value, token, rest) in cases {
            let mut cursor = Cursor::new(value);
            assert_eq!((cursor.token(), cursor.rest()), (token, rest), "{value:?}");
        }
    }

    #[test]
    fn a_quoted_string_is_read_without_quotes_and_escapes() {
        let cases = [
            (r#""plain";x"#, Some("plain"), ";x"),
            (r#""""#, Some(""), ""),
            (r#""a\"b\\c""#, Some(r#"a"b\c"#), ""),
            (r#""a, b; c=d""#, Some("a, b; c=d"), ""),
            (r#""never closed"#, None, r#""never closed"#),
            (r#""ends in escape\"#, None, r#""ends in escape\"#),
            (r#""ends in escape\""#, None, r#""ends in escape\""#),
            ("\"a\u{1}b\"", None, "\"a\u{1}b\""),
            ("bare", None, "bare"),
        ];
        for (value, content, rest) in cases {
            let mut cursor = Cursor::new(value);
            let read = cursor.quoted_string();
            assert_eq!((read.as_deref(), cursor.rest()), (content, rest), "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn every_quoted_value_is_read_back(content in "[\t -~é-ü]*") {
            let quoted = format!("\"{}\"", content.replace('\\', r"\\").replace('"', "\\\""));
            let read = Cursor::new(&quoted).quoted_string();
            prop_assert_eq!(read.as_deref(), Some(content.as_str()));
        }

        #[test]
        fn no_value_panics(value in any::<String>()) {
            let mut cursor = Cursor::new(&value);
            cursor.skip_whitespace();
            cursor.token();
            cursor.parameter_value();
            prop_assert!(value.ends_with(cursor.rest()));
        }
    }
}
