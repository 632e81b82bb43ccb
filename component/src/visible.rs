//! Escapes for invisible characters, used by text and page.

use std::{fmt, ops::RangeInclusive};

/// Shows text with its invisible characters as `\u` escapes, as JSON writes them. Without them a visitor could forge a line,
/// control a terminal, or hide one word in another.
pub(crate) struct Visible<'a>(pub(crate) &'a str);

impl fmt::Display for Visible<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let mut rest = self.0;
        while let Some((position, character)) = rest.char_indices().find(|(_, c)| is_invisible(*c)) {
            formatter.write_str(&rest[..position])?;
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(formatter, "\\u{unit:04x}")?;
            }
            rest = &rest[position + character.len_utf8()..];
        }
        formatter.write_str(rest)
    }
}

/// A fast check that almost every value passes: ASCII without control characters.
pub(crate) fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

fn is_invisible(character: char) -> bool {
    !matches!(character, ' '..='~')
        && (character.is_control() || INVISIBLE.iter().any(|range| range.contains(&character)))
}

/// Whether the character changes the direction of the text after it (Unicode Standard Annex 9, section 2).
pub(crate) fn turns_direction(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The invisible characters of Unicode 16: `Default_Ignorable_Code_Point`, and the general categories Cf, Zl and Zp, without
/// the joiners of scripts and emoji, U+200C and U+200D, and U+FE0F, which selects an emoji's colours.
const INVISIBLE: [RangeInclusive<char>; 26] = [
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}',
    '\u{600}'..='\u{605}',
    '\u{61c}'..='\u{61c}',
    '\u{6dd}'..='\u{6dd}',
    '\u{70f}'..='\u{70f}',
    '\u{890}'..='\u{891}',
    '\u{8e2}'..='\u{8e2}',
    '\u{115f}'..='\u{1160}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180b}'..='\u{180f}',
    '\u{200b}'..='\u{200b}',
    '\u{200e}'..='\u{200f}',
    '\u{2028}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0e}',
    '\u{feff}'..='\u{feff}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{fff0}'..='\u{fffb}',
    '\u{110bd}'..='\u{110bd}',
    '\u{110cd}'..='\u{110cd}',
    '\u{13430}'..='\u{1343f}',
    '\u{1bca0}'..='\u{1bca3}',
    '\u{1d173}'..='\u{1d17a}',
    '\u{e0000}'..='\u{e0fff}',
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn characters_that_control_a_terminal_or_forge_a_line_are_escaped() {
        let cases = [
            ("plain, é and 🦀", "plain, é and 🦀"),
            ("a\nIP 192.0.2.1", "a\\u000aIP 192.0.2.1"),
            ("\u{1b}]0;x\u{7}", "\\u001b]0;x\\u0007"),
            ("\u{9b}31m", "\\u009b31m"),
            ("\u{7f}\0\t", "\\u007f\\u0000\\u0009"),
            ("\u{202e}txt.exe", "\\u202etxt.exe"),
            ("a\u{2028}b\u{2029}c", "a\\u2028b\\u2029c"),
            ("pay\u{200b}pal", "pay\\u200bpal"),
            ("\u{feff}\u{ad}\u{2060}\u{3164}", "\\ufeff\\u00ad\\u2060\\u3164"),
            ("a\u{e0041}", "a\\udb40\\udc41"),
            (
                "\u{915}\u{94d}\u{200d}\u{937} \u{1f468}\u{200d}\u{1f469} \u{2764}\u{fe0f}",
                "\u{915}\u{94d}\u{200d}\u{937} \u{1f468}\u{200d}\u{1f469} \u{2764}\u{fe0f}",
            ),
        ];
        for (text, shown) in cases {
            assert_eq!(Visible(text).to_string(), shown, "{text:?}");
        }
    }

    #[test]
    fn invisible_characters_are_those_of_unicode() {
        let class = r"[\p{Default_Ignorable_Code_Point}\p{Cf}\p{Zl}\p{Zp}--[\u200C\u200D\uFE0F]]";
        let unicode = regex_syntax::parse(class).unwrap();
        let regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(unicode)) = unicode.kind() else {
            panic!("{class} is not a class of characters")
        };
        let ranges: Vec<_> = unicode.iter().map(|range| range.start()..=range.end()).collect();
        assert_eq!(ranges, INVISIBLE);
    }

    proptest! {
        #[test]
        fn no_shown_character_is_invisible_and_all_others_stay(text: String) {
            let shown = Visible(&text).to_string();
            prop_assert!(!shown.contains(is_invisible));
            if !text.contains(is_invisible) {
                prop_assert_eq!(shown, text);
            }
        }
    }
}
