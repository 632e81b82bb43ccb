//! Compares `/openapi.json` with what the service does.
//!
//! An example of an answer belongs to the operations that have an example of that name among what they are sent, as tools
//! for mocking pair them too; or whose path, or whose status, is its name.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use conformance::{Request, Response, get, post, request};
use libtest_mimic::Trial;
use openapi_spec_validator_rs::{ErrorMode, Options, Outcome, validate};
use serde_json::{Value, json};

use crate::routes::ROUTES;
use crate::server::{Bed, Server};
use crate::trial;

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../src/openapi.json")).expect("the document is JSON"));

/// The methods that a path can describe, as the document writes them.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// Headers that a server or a proxy writes by itself, and the one that the media types describe.
const NOT_DESCRIBED: [&str; 5] = ["connection", "content-type", "date", "server", "via"];

pub(crate) fn trials(bed: &Bed) -> Vec<Trial> {
    let server = bed.standard();
    let mut trials = vec![
        trial("openapi: the document is valid", || {
            let options = Options { errors: ErrorMode::All, ..Options::default() };
            assert_eq!(validate(&DOCUMENT, &options), Outcome::Valid);
        }),
        trial("openapi: every reference resolves, and every component is used", || {
            let components = DOCUMENT["components"].as_object().unwrap().iter().flat_map(|(kind, components)| {
                components.as_object().unwrap().keys().map(move |name| format!("#/components/{kind}/{name}"))
            });
            assert_eq!(references(&DOCUMENT), components.collect::<BTreeSet<_>>());
        }),
        trial("openapi: every example of an answer belongs to an operation", || {
            let examples =
                DOCUMENT["components"]["responses"].as_object().unwrap().iter().flat_map(|(name, response)| {
                    let contents = members(&response["content"]);
                    contents
                        .flat_map(|(_, content)| members_of(&content["examples"]))
                        .map(move |(key, example)| (name, key, example))
                });
            let cases = cases();
            for (response, key, example) in examples {
                let used = cases.iter().filter_map(|case| case.example).any(|used| std::ptr::eq(used, example));
                assert!(used, "example {key:?} of {response}");
            }
        }),
        trial("openapi: exactly the operations of the service are described", move || {
            let described: BTreeSet<&str> = members(&DOCUMENT["paths"]).map(|(path, _)| path).collect();
            assert_eq!(described, ROUTES.iter().map(|(route, ..)| *route).collect());
            for path in described {
                let options = server.ask(&request("OPTIONS", path));
                let allowed: BTreeSet<_> =
                    options.header("allow").unwrap().split(", ").map(str::to_lowercase).collect();
                let described = operations().filter(|operation| operation.path == path);
                assert_eq!(described.map(|operation| operation.method.to_owned()).collect::<BTreeSet<_>>(), allowed);
            }
        }),
        trial("openapi: the served document is this one, with this version", move || {
            assert_eq!(server.ask(&get("/openapi.json")).json(), *DOCUMENT);
            assert_eq!(DOCUMENT["info"]["version"], server.ask(&get("/version")).json()["version"]);
        }),
    ];
    let misconfigured = bed.configures().then(|| bed.server("127.0.0.1:0", &[("trusted_hops", "two")]));
    for case in cases() {
        let server = if case.status == 503 { misconfigured } else { Some(server) };
        trials.extend(server.map(|server| trial(case.name(), move || case.check(server))));
    }
    trials
}

/// One method of one path.
struct Operation {
    path: &'static str,
    method: &'static str,
    parameters: Vec<&'static Value>,
    description: &'static Value,
}

fn operations() -> impl Iterator<Item = Operation> {
    members(&DOCUMENT["paths"]).flat_map(|(path, item)| {
        METHODS.into_iter().filter_map(move |method| {
            let parameters = item["parameters"].as_array().into_iter().flatten().map(resolve).collect();
            Some(Operation { path, method, parameters, description: item.get(method)? })
        })
    })
}

impl Operation {
    /// The requests that the examples of the body, else of the parameters, describe, with their names.
    fn requests(&self) -> Vec<(&'static str, Request)> {
        let method = self.method.to_uppercase();
        let mut requests = vec![];
        for (media_type, body) in members(&self.description["requestBody"]["content"]) {
            for (name, example) in members(&body["examples"]) {
                let (media_type, body) = encode(media_type, &example["value"]);
                requests.push((name, self.fill(name, |target| post(target, media_type, body))));
            }
        }
        if requests.is_empty() {
            let examples = self.parameters.iter().flat_map(|parameter| members(&parameter["examples"]));
            let names: BTreeSet<_> = examples.map(|(name, _)| name).collect();
            requests.extend(names.into_iter().map(|name| (name, self.fill(name, |target| request(&method, target)))));
        }
        if requests.is_empty() {
            requests.push(("", request(&method, self.path)));
        }
        requests
    }

    /// The request with the values that the parameters have under a name.
    fn fill(&self, name: &str, begin: impl FnOnce(&str) -> Request) -> Request {
        let values = |place: &'static str| {
            self.parameters.iter().filter(move |parameter| parameter["in"] == place).filter_map(move |parameter| {
                Some((parameter["name"].as_str()?, parameter["examples"][name]["value"].as_str()?))
            })
        };
        let query: Vec<_> = values("query").map(|(name, value)| format!("{name}={value}")).collect();
        let target = if query.is_empty() { self.path.into() } else { format!("{}?{}", self.path, query.join("&")) };
        values("header").fold(begin(&target), |request, (name, value)| request.header(name, value))
    }
}

/// A form in the way that its media type asks for, and that type as it is sent.
fn encode(media_type: &str, form: &Value) -> (&'static str, String) {
    let fields = members_of(form).map(|(name, value)| (name, value.as_str().expect("a field is text")));
    match media_type {
        "application/x-www-form-urlencoded" => {
            let fields: Vec<_> = fields.map(|(name, value)| format!("{name}={value}")).collect();
            ("application/x-www-form-urlencoded", fields.join("&"))
        }
        "multipart/form-data" => {
            let parts = fields.map(|(name, value)| {
                format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
            });
            ("multipart/form-data; boundary=X", parts.collect::<Vec<_>>().concat() + "--X--\r\n")
        }
        other => panic!("no example of {other} can be sent"),
    }
}

/// One described answer, and a request that gets it.
struct Case {
    request: Request,
    status: u16,
    response: &'static Value,
    /// Without one the answer has no body.
    media_type: Option<&'static str>,
    schema: &'static Value,
    example: Option<&'static Value>,
}

fn cases() -> Vec<Case> {
    let mut cases = vec![];
    for operation in operations() {
        for (status, response) in members(&operation.description["responses"]) {
            let code = status.parse().expect("a status is a number");
            // Any refusal is good.
            let count = if code < 300 { usize::MAX } else { 1 };
            for (name, request) in operation.requests().into_iter().take(count) {
                let request = provoke(code, request);
                let mut contents: Vec<_> =
                    members(&response["content"]).map(|(media_type, content)| (Some(media_type), content)).collect();
                if contents.is_empty() {
                    contents.push((None, &response["content"]));
                }
                for (media_type, content) in contents {
                    let accept = match (code, media_type) {
                        (406, _) => "image/png",
                        (_, Some(media_type)) => media_type.split(';').next().unwrap_or_default(),
                        (_, None) => "*/*",
                    };
                    let request = request.clone().header("accept", accept);
                    let example =
                        [name, operation.path, status].into_iter().find_map(|name| content["examples"].get(name));
                    cases.push(Case {
                        request,
                        status: code,
                        response,
                        media_type,
                        schema: &content["schema"],
                        example,
                    });
                }
            }
        }
    }
    cases
}

/// The request, changed so that the answer is a refusal if the status is one. Accept causes 406, and a server with unusable
/// settings answers everything with 503.
fn provoke(status: u16, mut request: Request) -> Request {
    match status {
        400 => {
            request.target.push_str(if request.target.contains('?') { "&format=pdf" } else { "?format=pdf" });
            request
        }
        413 => post(&request.target, "text/plain", vec![b'x'; 64 * 1024 + 1]),
        415 => post(&request.target, "application/x-www-form-urlencoded", "").header("content-encoding", "gzip"),
        431 => request.header("x-any", vec![b'x'; 64 * 1024]),
        _ => request,
    }
}

impl Case {
    fn name(&self) -> String {
        let Request { method, target, headers, .. } = &self.request;
        let sent = headers.iter().find(|(name, _)| name == "content-type");
        let sent = sent.map(|(_, value)| format!(" of {}", String::from_utf8_lossy(value))).unwrap_or_default();
        let media_type = self.media_type.unwrap_or("no content");
        format!("openapi: {method} {target}{sent} is answered with {} and {media_type} as described", self.status)
    }

    fn check(&self, server: &Server) {
        let response = server.ask(&self.request);
        assert_eq!((response.status, response.header("content-type")), (self.status, self.media_type));
        self.check_headers(&response);
        if self.request.method == "HEAD" || self.media_type.is_none() {
            return;
        }
        let is_json = self.media_type == Some("application/json");
        let body = if is_json { response.json() } else { response.text().into() };
        is_valid(self.schema, &body);
        if let Some(example) = self.example {
            assert_eq!(body, here(server, &resolve(example)["value"]));
        }
    }

    fn check_headers(&self, response: &Response) {
        let described: Vec<_> =
            members(&self.response["headers"]).map(|(name, header)| (name.to_lowercase(), header)).collect();
        for (name, header) in &described {
            let value = response.header(name);
            assert!(value.is_some() || header["required"] != true, "{name} is missing");
            if let Some(value) = value {
                let number = value.parse::<u64>().ok().map(Value::from);
                is_valid(&header["schema"], &number.unwrap_or_else(|| value.into()));
            }
        }
        for (name, _) in &response.headers {
            let known = NOT_DESCRIBED.contains(&name.as_str()) || described.iter().any(|(known, _)| known == name);
            assert!(known, "{name} is not described");
        }
    }
}

/// The value fits the schema, and has no member that the schema does not name.
fn is_valid(schema: &Value, value: &Value) {
    let schema =
        json!({"allOf": [closed(schema)], "components": {"schemas": closed(&DOCUMENT["components"]["schemas"])}});
    let validator = jsonschema::validator_for(&schema).expect("the schema is valid");
    let errors: Vec<_> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?} in {value}");
}

fn closed(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(members) = schema.as_object_mut() {
        members.values_mut().for_each(|member| *member = closed(member));
        if members.contains_key("properties") {
            members.insert("additionalProperties".into(), false.into());
        }
    }
    schema
}

/// An example as this server would answer it, with its own address and commit.
fn here(server: &Server, example: &Value) -> Value {
    let address = server.ask(&get("/ip"));
    let version = server.ask(&get("/version")).json();
    let commit = DOCUMENT["components"]["responses"]["Version"]["content"]["application/json"]["examples"]["/version"]
        ["value"]["commit"]
        .as_str()
        .unwrap();
    let text = example.to_string();
    let text = text.replace("127.0.0.1", address.text().trim_end()).replace("localhost:3000", &server.host);
    serde_json::from_str(&text.replace(commit, version["commit"].as_str().unwrap()))
        .expect("the changed example is JSON")
}

/// The members of an object, none if it is absent.
fn members_of(object: &Value) -> impl Iterator<Item = (&str, &Value)> {
    object.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

/// The members of a part of the document, with references resolved.
fn members(object: &'static Value) -> impl Iterator<Item = (&'static str, &'static Value)> {
    members_of(object).map(|(name, value)| (name, resolve(value)))
}

fn resolve(value: &'static Value) -> &'static Value {
    let Some(reference) = value.get("$ref").and_then(Value::as_str) else { return value };
    let pointer = reference.strip_prefix('#').expect("references stay inside the document");
    resolve(DOCUMENT.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere")))
}

/// All references in a part of the document.
fn references(part: &Value) -> BTreeSet<String> {
    match part {
        Value::Object(members) => {
            let own = members.get("$ref").and_then(Value::as_str).map(str::to_owned);
            own.into_iter().chain(members.values().flat_map(references)).collect()
        }
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => BTreeSet::new(),
    }
}
