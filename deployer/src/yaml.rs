//! YAML as kubectl reads it: the syntax of YAML 1.2, the words and numbers of YAML 1.1.

use std::collections::HashMap;

use anyhow::{Result, bail, ensure};
use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};
use serde_json::{Map, Number, Value};

/// The documents of a text, an empty one as null.
///
/// # Errors
/// If the text is not YAML, or cannot be expressed in JSON, with line and column.
pub(crate) fn read(text: &str) -> Result<Vec<Value>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let options = granit_parser::options! { emit_comments: false };
    let mut reader = Reader { parser: Parser::new_from_str_with_options(text, options), anchors: HashMap::new() };
    let mut documents = Vec::new();
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return Ok(documents),
            (Event::DocumentStart(..), _) => {
                let (event, at) = reader.next()?;
                let is_empty = matches!(event, Event::DocumentEnd);
                documents.push(if is_empty { Value::Null } else { reader.node(event, at)? });
            }
            _ => {}
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Value>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span)> {
        match self.parser.next() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let at = error.marker();
                bail!("not YAML, line {}, column {}: {}", at.line(), at.col() + 1, error.kind())
            }
            None => bail!("not YAML: it ends too early"),
        }
    }

    fn node(&mut self, event: Event<'a>, at: Span) -> Result<Value> {
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => (scalar(&text, style, tag.as_deref(), &at)?, anchor),
            Event::SequenceStart(_, anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, at) => items.push(self.node(event, at)?),
                    }
                }
                (Value::Array(items), anchor)
            }
            Event::MappingStart(_, anchor, _) => (self.mapping()?, anchor),
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(value) => (value.clone(), 0),
                None => bail!("{}: an alias inside its own anchor", place(&at)),
            },
            _ => bail!("not YAML, {}", place(&at)),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn mapping(&mut self) -> Result<Value> {
        let (mut fields, mut merged) = (Map::new(), Vec::new());
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text.as_ref() == "<<");
            let key = match self.node(event, at)? {
                Value::String(key) => key,
                key @ (Value::Bool(_) | Value::Number(_)) => key.to_string(),
                _ => bail!("{}: a key must be a scalar", place(&at)),
            };
            let (event, of_value) = self.next()?;
            let value = self.node(event, of_value)?;
            if is_merge {
                match value {
                    Value::Array(several) => merged.extend(several),
                    one => merged.push(one),
                }
                continue;
            }
            ensure!(fields.insert(key.clone(), value).is_none(), "{}: the key {key:?} appears twice", place(&at));
        }
        for more in merged {
            let Value::Object(more) = more else { bail!("what `<<` merges is not a mapping") };
            for (key, value) in more {
                fields.entry(key).or_insert(value);
            }
        }
        Ok(Value::Object(fields))
    }
}

fn place(at: &Span) -> String {
    format!("line {}, column {}", at.start.line(), at.start.col() + 1)
}

/// What a scalar stands for, by the table of the YAML library that kubectl uses:
/// <https://github.com/kubernetes-sigs/yaml/blob/v1.4.0/goyaml.v2/resolve.go>
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, at: &Span) -> Result<Value> {
    let tag = tag.map(Tag::suffix);
    if tag == Some("binary") {
        let bytes: Result<k8s_openapi::ByteString, _> = serde_json::from_value(text.into());
        let Ok(bytes) = bytes else { bail!("{}: this is not base64", place(at)) };
        return Ok(String::from_utf8_lossy(&bytes.0).into_owned().into());
    }
    if style != ScalarStyle::Plain || !matches!(tag, None | Some("int" | "float" | "bool" | "null")) {
        return Ok(text.into());
    }
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => true.into(),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => false.into(),
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf"
        | "-.INF" => {
            bail!("{}: {text} is a number that JSON does not have: quote it", place(at))
        }
        _ if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => {
            number(&text.replace('_', "")).unwrap_or_else(|| text.into())
        }
        _ => text.into(),
    })
}

fn number(text: &str) -> Option<Value> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if digits.starts_with(|c: char| c.is_ascii_hexdigit())
        && let Ok(found) = i128::from_str_radix(digits, radix)
        && let Some(found) = Number::from_i128(sign * found)
    {
        return Some(found.into());
    }
    let is_float = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b))
        && text.contains(|c: char| c.is_ascii_digit());
    let found: f64 = text.parse().ok().filter(|_| is_float)?;
    // JSON's numbers are of one kind, and what is whole is written so.
    let whole = format!("{found:.0}").parse::<i64>().ok().filter(|_| found.fract() == 0.0 && found.abs() < 9e15);
    whole.map(Value::from).or_else(|| Number::from_f64(found).map(Value::from))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_are_read_as_kubectl_reads_them() {
        for (text, value) in [
            ("0400", json!(256)),
            ("0o400", json!(256)),
            ("0x1F", json!(31)),
            ("0b11", json!(3)),
            ("08", json!(8)),
            ("1_000", json!(1000)),
            ("+2", json!(2)),
            ("-0400", json!(-256)),
            ("2e0", json!(2)),
            ("2.0", json!(2)),
            ("1.5", json!(1.5)),
            (".5", json!(0.5)),
            ("18446744073709551615", json!(u64::MAX)),
            ("'0400'", json!("0400")),
            ("!!str 0400", json!("0400")),
            ("!!binary aGVsbG8=", json!("hello")),
            ("on", json!(true)),
            ("No", json!(false)),
            ("oN", json!("oN")),
            ("2026-11-25", json!("2026-11-25")),
            ("1:30", json!("1:30")),
            ("1.2.3", json!("1.2.3")),
            ("-", json!([null])),
            ("~", json!(null)),
            ("{on: 1, 0x10: 2, 1.5: 3}", json!({"true": 1, "16": 2, "1.5": 3})),
            ("{a: &a {b: 1, c: 1}, d: {<<: *a, c: 2}}", json!({"a": {"b": 1, "c": 1}, "d": {"b": 1, "c": 2}})),
        ] {
            assert_eq!(read(text).unwrap(), [value], "{text}");
        }
        assert_eq!(read("a: 1\n---\n---\n# nothing\n...\n").unwrap(), [json!({"a": 1}), json!(null), json!(null)]);
    }

    #[test]
    fn an_error_in_yaml_names_its_place() {
        for (text, says) in [
            ("a: [1", "line "),
            ("a: 1\na: 2", "line 2, column 1: the key \"a\" appears twice"),
            ("a: .nan", "line 1, column 4"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
