//! The two values that a visitor may send along, `url` and `event`: in the query or in a form.

use std::borrow::Cow;

use http::header;

use crate::{field::Cursor, refusal::Refusal, visit::Headers};

/// Both values, each the first of its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) url: Option<String>,
    pub(crate) event: Option<String>,
}

impl Form {
    /// Reads a query or a body of `application/x-www-form-urlencoded` (URL Standard, section 5.1).
    /// Malformed percent-encoding is kept, and bytes that are not UTF-8 are replaced.
    pub(crate) fn from_urlencoded(input: &[u8]) -> Self {
        let mut form = Self::default();
        for (name, value) in form_urlencoded::parse(input) {
            form.set_first(&name, value);
        }
        form
    }

    /// Reads either kind of form, according to the body's Content-Type. Any other body is ignored. A
    /// malformed form is read up to the fault.
    ///
    /// # Errors
    /// When the form has a Content-Encoding.
    pub(crate) fn from_body(headers: &Headers, body: &[u8]) -> Result<Self, Refusal> {
        let content_type = headers.value(header::CONTENT_TYPE.as_str()).unwrap_or_default();
        let (media_type, parameters) = halves(&content_type);
        let is_urlencoded = media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded");
        if !is_urlencoded && !media_type.eq_ignore_ascii_case("multipart/form-data") {
            return Ok(Self::default());
        }
        for line in headers.values(header::CONTENT_ENCODING.as_str()) {
            let mut encodings = line.split(',').map(str::trim).filter(|encoding| !encoding.is_empty());
            if let Some(encoding) = encodings.find(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
                return Err(Refusal::EncodedForm(encoding.to_owned()));
            }
        }
        Ok(if is_urlencoded {
            Self::from_urlencoded(body)
        } else {
            parameter(parameters, "boundary").map(|boundary| Self::from_multipart(body, &boundary)).unwrap_or_default()
        })
    }

    /// Reads the parts of `multipart/form-data` (RFC 7578; their delimiters: RFC 2046, section 5.1.1).
    /// Files are passed over.
    fn from_multipart(body: &[u8], boundary: &str) -> Self {
        // Every delimiter begins a line; the first one may begin the body.
        let body = [b"\r\n", body].concat();
        let delimiter = format!("\r\n--{boundary}");
        let mut form = Self::default();
        let Some((_, mut rest)) = split_once(&body, delimiter.as_bytes()) else {
            return form;
        };
        while let Some((part, after)) = split_once(rest, delimiter.as_bytes())
            && !part.starts_with(b"--")
            && let Some((head, value)) = split_once(part, b"\r\n\r\n")
        {
            if let Some(name) = field_name(&String::from_utf8_lossy(head)) {
                form.set_first(&name, String::from_utf8_lossy(value));
            }
            rest = after;
        }
        form
    }

    fn set_first(&mut self, name: &str, value: Cow<str>) {
        let field = match name {
            "url" => &mut self.url,
            "event" => &mut self.event,
            _ => return,
        };
        field.get_or_insert_with(|| value.into_owned());
    }

    /// Takes each value that this form lacks from the other one. An empty `url` counts as absent.
    pub(crate) fn or(self, other: Self) -> Self {
        let is_given = |url: &String| !url.is_empty();
        Self { url: self.url.filter(is_given).or(other.url.filter(is_given)), event: self.event.or(other.event) }
    }
}

/// The name of the field that a part holds. `None` for a file, for a part whose disposition is not `form-data` (RFC 7578,
/// section 4.2), and for a malformed disposition, because it may be a file's.
fn field_name(head: &str) -> Option<String> {
    let disposition = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    let (kind, parameters) = halves(disposition);
    if !kind.eq_ignore_ascii_case("form-data") {
        return None;
    }
    let mut field = None;
    for parameter in Parameters(Cursor::new(parameters)) {
        let (name, value) = parameter?;
        // `filename*` and `filename*0` are a file's name, too (RFC 8187, RFC 2231).
        if name.split('*').next().is_some_and(|name| name.eq_ignore_ascii_case("filename")) {
            return None;
        }
        if name.eq_ignore_ascii_case("name") {
            field.get_or_insert(value);
        }
    }
    field.map(Cow::into_owned)
}

/// A field value's first part, and its parameters (RFC 9110, section 5.6.6).
fn halves(value: &str) -> (&str, &str) {
    let (first, parameters) = value.split_once(';').unwrap_or((value, ""));
    (first.trim(), parameters)
}

/// The value of the parameter of this name, if the parameters are well-formed up to it.
fn parameter<'a>(parameters: &'a str, name: &str) -> Option<Cow<'a, str>> {
    Parameters(Cursor::new(parameters))
        .map_while(|parameter| parameter)
        .find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
}

/// The parameters after the first semicolon (RFC 9110, section 5.6.6): names and values, or `None` for a malformed one.
struct Parameters<'a>(Cursor<'a>);

impl<'a> Iterator for Parameters<'a> {
    type Item = Option<(&'a str, Cow<'a, str>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let cursor = &mut self.0;
        loop {
            cursor.skip_whitespace();
            if let Some(name) = cursor.token() {
                let value = cursor.eat('=').then(|| cursor.parameter_value()).flatten();
                cursor.skip_whitespace();
                let is_whole = cursor.is_at_end() || cursor.rest().starts_with(';');
                return Some(value.filter(|_| is_whole).map(|value| (name, value)));
            }
            if cursor.is_at_end() {
                return None;
            }
            if !cursor.eat(';') {
                return Some(None);
            }
        }
    }
}

fn split_once<'a>(bytes: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let position = bytes.windows(separator.len()).position(|window| window == separator)?;
    Some((&bytes[..position], &bytes[position + separator.len()..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        Headers(pairs.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect())
    }

    fn read(content_type: &str, body: &[u8]) -> (Option<String>, Option<String>) {
        let headers = headers(&[("content-type", content_type)]);
        let form = Form::from_body(&headers, body).unwrap();
        (form.url, form.event)
    }

    #[test]
    fn a_body_is_read_by_its_content_type() {
        let urlencoded = "url=u&event=e";
        let multipart = "--b\r\nContent-Disposition: form-data; name=url\r\n\r\nu\r\n\
            --b\r\nContent-Disposition: form-data; name=\"event\"\r\n\r\ne\r\n--b--\r\n";
        let both = (Some("u"), Some("e"));
        let cases = [
            ("application/x-www-form-urlencoded", urlencoded, both),
            ("Application/X-WWW-Form-URLEncoded; charset=utf-8", urlencoded, both),
            ("multipart/form-data; boundary=b", multipart, both),
            ("multipart/form-data; charset=utf-8 ; BOUNDARY=\"b\"", multipart, both),
            ("multipart/form-data; boundary=c", multipart, (None, None)),
            ("multipart/form-data; boundary", multipart, (None, None)),
            ("multipart/form-data", multipart, (None, None)),
            ("multipart/form-data; boundary=b", urlencoded, (None, None)),
            ("application/json", urlencoded, (None, None)),
            ("text/plain", urlencoded, (None, None)),
            ("", urlencoded, (None, None)),
        ];
        for (content_type, body, (url, event)) in cases {
            let expected = (url.map(str::to_owned), event.map(str::to_owned));
            assert_eq!(read(content_type, body.as_bytes()), expected, "{content_type} {body}");
        }
    }

    #[test]
    fn a_part_is_a_field_only_if_its_disposition_has_no_file_name() {
        let cases = [
            ("form-data; name=event", true),
            ("Form-Data ; NAME=\"event\" ;", true),
            ("form-data; charset=utf-8; name=event", true),
            ("form-data; name=event; name=other", true),
            ("form-data; name=event; filename=f", false),
            ("form-data; filename=\"\"; name=event", false),
            ("form-data; name=event; FileName=f", false),
            ("form-data; name=event; filename*=UTF-8''f", false),
            ("form-data; name=event; filename*0=f", false),
            (r#"form-data; name="event"; filename="d\""#, false), // as curl sends the file `d\`
            (r#"form-data; name="event"; filename="a"b""#, false),
            (r"form-data; name=event; filename=C:\d", false),
            ("form-data; name=event; filename=", false),
            ("form-data; name=event; filename", false),
            (r#"form-data; name="x\"; filename="event""#, false),
            ("attachment; name=event", false),
            ("name=event", false),
            ("; name=event", false),
            ("form-data", false),
        ];
        for (disposition, is_field) in cases {
            let body = format!("--b\r\nContent-Disposition: {disposition}\r\n\r\nX\r\n--b--");
            let event = read("multipart/form-data; boundary=b", body.as_bytes()).1;
            assert_eq!(event.as_deref(), is_field.then_some("X"), "{disposition}");
        }
    }

    #[test]
    fn an_encoded_form_is_refused_and_any_other_body_is_ignored() {
        let multipart = "multipart/form-data; boundary=b";
        let urlencoded = "application/x-www-form-urlencoded";
        let cases: &[(&str, &[&str], bool)] = &[
            (urlencoded, &["gzip"], false),
            (multipart, &["gzip"], false),
            ("multipart/form-data", &["br"], false),
            (urlencoded, &["identity, deflate"], false),
            (urlencoded, &["identity", "x-gzip"], false),
            (urlencoded, &["Identity", "", " , "], true),
            (urlencoded, &[], true),
            ("text/plain", &["gzip"], true),
        ];
        for (content_type, encodings, is_read) in cases {
            let encodings = encodings.iter().map(|encoding| ("content-encoding", *encoding));
            let headers = headers(&encodings.chain([("content-type", *content_type)]).collect::<Vec<_>>());
            assert_eq!(Form::from_body(&headers, b"event=e").is_ok(), *is_read, "{headers:?}");
        }
    }

    #[test]
    fn a_malformed_multipart_body_is_read_up_to_its_fault() {
        let whole = "--b\r\nContent-Disposition: form-data; name=event\r\n\r\nfirst\r\n";
        let cases = [
            (format!("{whole}--b\r\nno disposition\r\n\r\nx\r\n--b--"), Some("first")),
            (format!("{whole}--b\r\nContent-Disposition: form-data; name=event\r\n\r\nsecond\r\n--b--"), Some("first")),
            (format!("{whole}--b\r\nContent-Disposition: form-data; name=url"), Some("first")),
            (whole.to_owned(), None), // the value is not even ended
            (format!("{whole}--b--"), Some("first")),
            (format!("preamble\r\n{whole}--b--\r\nepilogue"), Some("first")),
            (format!("--b--\r\n{whole}--b--"), None), // nothing counts after the end
            (whole.replace("name=event", "name=event; filename=f") + "--b--", None),
            (whole.replace("name=event", "name=\"ev\\ent\"") + "--b--", Some("first")),
            (whole.replace("Content-Disposition", "CONTENT-DISPOSITION") + "--b--", Some("first")),
            (String::new(), None),
        ];
        for (body, event) in cases {
            assert_eq!(read("multipart/form-data; boundary=b", body.as_bytes()).1.as_deref(), event, "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn every_urlencoded_form_is_read_back(url in any::<String>(), event in any::<String>()) {
            let mut encoded = form_urlencoded::Serializer::new(String::new());
            let encoded = encoded.append_pair("url", &url).append_pair("event", &event).finish();
            let form = Form::from_urlencoded(encoded.as_bytes());
            prop_assert_eq!(form, Form { url: Some(url), event: Some(event) });
        }

        #[test]
        fn every_multipart_value_is_read_back(event in any::<String>()) {
            // A client chooses a boundary that its values do not hold.
            prop_assume!(!event.contains("\r\n--boundary"));
            let body = format!("--boundary\r\nContent-Disposition: form-data; name=event\r\n\r\n{event}\r\n--boundary--");
            prop_assert_eq!(read("multipart/form-data; boundary=boundary", body.as_bytes()).1, Some(event));
        }

        #[test]
        fn no_body_panics(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just(b"--b".to_vec()), Just(b"\r\n".to_vec()), Just(b"--".to_vec()), Just(b"; name=".to_vec()),
                    Just(b"Content-Disposition:".to_vec()), Just(b"\"".to_vec()), any::<Vec<u8>>(),
                ],
                0..12,
            ),
            content_type in "(application/x-www-form-urlencoded|multipart/form-data; boundary=b|[ -~]*)",
        ) {
            read(&content_type, &parts.concat());
        }
    }
}
