//! The template is read as kubectl reads it. The tests compare it with what the real kubectl makes of the same text.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::Bed;
use crate::control_plane::ControlPlane;
use crate::scene::{NAME, Running, Scene, image};

/// A way to write something in YAML.
struct Text {
    what: &'static str,
    /// A text in the template, and its replacement.
    from: &'static str,
    to: &'static str,
}

const CONTAINERS: &str = "      containers:\n";
const SERVICE: &str = "  selector: {app: request-info}\n  ports:\n";

#[rustfmt::skip]
const TEXTS: &[Text] = &[
    Text { what: "an octal number of YAML 1.1", from: CONTAINERS, to: "      volumes: [{name: v, secret: {secretName: s, defaultMode: 0400}}]\n      containers:\n" },
    Text { what: "an octal number of YAML 1.2", from: CONTAINERS, to: "      volumes: [{name: v, secret: {secretName: s, defaultMode: 0o400}}]\n      containers:\n" },
    Text { what: "a hexadecimal number", from: CONTAINERS, to: "      volumes: [{name: v, secret: {secretName: s, defaultMode: 0x100}}]\n      containers:\n" },
    Text { what: "a binary number", from: CONTAINERS, to: "      terminationMessagePath: x\n      priority: 0b11\n      containers:\n" },
    Text { what: "a number with underscores", from: "replicas: 2", to: "replicas: 1_0" },
    Text { what: "a number with a leading zero that is not octal", from: "replicas: 2", to: "replicas: 08" },
    Text { what: "a number with an exponent", from: "replicas: 2", to: "replicas: 2e0" },
    Text { what: "a number with a plus", from: "replicas: 2", to: "replicas: +2" },
    Text { what: "yes, no, on and off", from: CONTAINERS, to: "      hostNetwork: no\n      hostPID: off\n      shareProcessNamespace: yes\n      enableServiceLinks: on\n      containers:\n" },
    Text { what: "y and n as values", from: "  name: request-info\nspec:\n  replicas", to: "  name: request-info\n  labels: {yes: \"yes\", a: y, b: n}\nspec:\n  replicas" },
    Text { what: "on as a key", from: "  name: request-info\nspec:\n  replicas", to: "  name: request-info\n  labels: {on: \"1\"}\nspec:\n  replicas" },
    Text { what: "a number as a key", from: "  name: request-info\nspec:\n  replicas", to: "  name: request-info\n  labels: {1: \"1\", 0x10: \"2\", 1.5: \"3\"}\nspec:\n  replicas" },
    Text { what: "a date", from: "  name: request-info\nspec:\n  replicas", to: "  name: request-info\n  labels: {a: 2026-11-25}\nspec:\n  replicas" },
    Text { what: "minutes and seconds", from: "  name: request-info\nspec:\n  replicas", to: "  name: request-info\n  labels: {a: \"1:30\", b: \"12:30:45\"}\nspec:\n  replicas" },
    Text { what: "a commit that looks like a number", from: "  name: request-info\nspec:\n  replicas", to: "  name: request-info\n  annotations: {a: \"12345e10\", b: '0400', c: \"on\"}\nspec:\n  replicas" },
    Text { what: "annotations with nothing under them", from: "      labels: {app: request-info}\n", to: "      labels: {app: request-info}\n      annotations:\n" },
    Text { what: "annotations that are null", from: "      labels: {app: request-info}\n", to: "      labels: {app: request-info}\n      annotations: ~\n" },
    Text { what: "the Deployment's annotations with nothing under them", from: "  name: request-info\nspec:\n  replicas", to: "  name: request-info\n  annotations:\nspec:\n  replicas" },
    Text { what: "a Service's annotations with nothing under them", from: "kind: Service\nmetadata:\n", to: "kind: Service\nmetadata:\n  annotations:\n" },
    Text { what: "a field with nothing after it", from: CONTAINERS, to: "      nodeSelector:\n      tolerations:\n      containers:\n" },
    Text { what: "an anchor and its alias", from: SERVICE, to: "  selector: &labels {app: request-info}\n  sessionAffinityConfig:\n  externalIPs: &none []\n  loadBalancerSourceRanges: *none\n  ports:\n" },
    Text { what: "a merge key", from: "  ports:\n    - {port: 80, targetPort: 8080}\n", to: "  ports:\n    - &http {port: 80, targetPort: 8080}\n    - <<: *http\n      name: other\n      port: 81\n" },
    Text { what: "block scalars", from: "  name: request-info\nspec:\n  replicas", to: "  name: request-info\n  annotations:\n    a: |\n      one\n      two\n    b: >-\n      one\n      two\nspec:\n  replicas" },
    Text { what: "binary text", from: "  name: request-info\nspec:\n  replicas", to: "  name: request-info\n  annotations: {a: !!binary aGVsbG8=}\nspec:\n  replicas" },
    Text { what: "a number that is tagged as a string", from: "  name: request-info\nspec:\n  replicas", to: "  name: request-info\n  annotations: {a: !!str 0400}\nspec:\n  replicas" },
    Text { what: "documents that are empty or only comments", from: "---\napiVersion: v1\n", to: "---\n---\n# nothing\n---\napiVersion: v1\n" },
    Text { what: "a document with a start and an end marker", from: "---\napiVersion: v1\n", to: "...\n---\n# the Service\napiVersion: v1\n" },
    Text { what: "JSON instead of YAML", from: "apiVersion: v1\nkind: Service\nmetadata:\n  name: request-info\nspec:\n  selector: {app: request-info}\n  ports:\n    - {port: 80, targetPort: 8080}\n",
        to: "{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"request-info\"}, \"spec\": {\"ports\": [{\"port\": 80}]}}\n" },
    Text { what: "a List", from: "apiVersion: v1\nkind: Service\nmetadata:\n  name: request-info\nspec:\n  selector: {app: request-info}\n  ports:\n    - {port: 80, targetPort: 8080}\n",
        to: "apiVersion: v1\nkind: List\nitems:\n  - {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n  - {apiVersion: v1, kind: ConfigMap, metadata: {name: b}, data: {k: \"0400\"}}\n" },
    Text { what: "on as a name", from: "kind: Service\nmetadata:\n  name: request-info\n", to: "kind: Service\nmetadata:\n  name: on\n" },
    Text { what: "a number as a name", from: "kind: Service\nmetadata:\n  name: request-info\n", to: "kind: Service\nmetadata:\n  name: 0400\n" },
    Text { what: "a number as an annotation", from: "  name: request-info\nspec:\n  replicas", to: "  name: request-info\n  annotations: {a: 1}\nspec:\n  replicas" },
    Text { what: "a List with nothing in it", from: "---\napiVersion: v1\n", to: "---\napiVersion: v1\nkind: List\nitems: []\n---\napiVersion: v1\n" },
    Text { what: "a tab", from: "  replicas: 2", to: "\treplicas: 2" },
    Text { what: "no kind", from: "kind: Service\n", to: "" },
];

/// Texts that kubectl accepts but that must be mistakes.
#[rustfmt::skip]
const SLIPS: &[Text] = &[
    Text { what: "a key that appears twice", from: "replicas: 2", to: "replicas: 2\n  replicas: 3" },
    Text { what: "metadata with nothing under it", from: "kind: Service\nmetadata:\n  name: request-info\n", to: "kind: Service\nmetadata:\n" },
    Text { what: "no apiVersion", from: "apiVersion: v1\n", to: "" },
];

pub(crate) fn trials(bed: &'static Bed) -> Vec<Trial> {
    vec![
        bed.trial("40 YAML is read as kubectl reads it, or refused", as_kubectl),
        bed.trial("40 YAML that must be a mistake is refused", slips),
        bed.trial("40 YAML with a byte order mark or other line endings is read as kubectl reads it", encodings),
        bed.trial("40 an octal mode arrives as with kubectl", octal),
    ]
}

/// The difference from kubectl, if any.
async fn compare(scene: &Scene, what: &str, text: &str) -> Option<String> {
    std::fs::write(scene.template(), text).expect("the template can be written");
    let commit = &*scene.commits.new;
    let (image, template) = (image(commit), scene.template().display().to_string());
    let run = Running::of(scene.deployer(["render", "--image", &image, "--commit", commit, "--template", &template]))
        .end()
        .await;
    let kubectl = scene.make(&text.replace("<IMAGE>", &image)).await;
    match (kubectl, run.code) {
        (Ok(expected), 0) => {
            let made: Vec<Value> = serde_saphyr::from_multiple(&run.stdout).unwrap_or_default();
            let (made, expected) = (plain(made), plain(expected));
            (made != expected).then(|| format!("{what}: kubectl makes\n{expected:#?}\nnot\n{made:#?}\n{run}"))
        }
        (Ok(_), code) => Some(format!("{what}: exit code {code}, but kubectl accepts it: {run}")),
        // The API server may refuse it instead.
        (Err(error), 0) => {
            let run = scene.deploy_with(commit, &["--dry-run"]).await;
            (run.code == 0).then(|| format!("{what}: it should be refused, kubectl says {error}: {run}"))
        }
        (Err(_), code) => (code != 2).then(|| format!("{what}: exit code {code}: {run}")),
    }
}

/// Without the order, without what either program adds, and without empty fields.
fn plain(documents: Vec<Value>) -> Vec<Value> {
    let mut documents: Vec<Value> = documents
        .into_iter()
        .map(|mut document| {
            for pointer in ["/metadata", "/spec/template/metadata"] {
                if let Some(metadata) = document.pointer_mut(pointer).and_then(Value::as_object_mut) {
                    metadata.remove("namespace");
                    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                        annotations.remove("request-info.dev/commit");
                        annotations.remove("kubernetes.io/change-cause");
                    }
                }
            }
            without_nothing(document)
        })
        .collect();
    documents.sort_by_key(|document| format!("{} {}", document["kind"], document["metadata"]["name"]));
    documents
}

/// To the API server, null and empty objects are the same as absent fields.
fn without_nothing(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(key, value)| (key, without_nothing(value)));
            fields.filter(|(_, value)| !value.is_null() && value != &json!({})).collect()
        }
        Value::Array(values) => values.into_iter().map(without_nothing).collect(),
        // 2 and 2.0 are the same number.
        Value::Number(number) => number.as_f64().map_or(Value::Null, |number| json!(number)),
        other => other,
    }
}

async fn as_kubectl(plane: &'static ControlPlane) {
    let scene = Scene::set(plane).await;
    let good = std::fs::read_to_string(scene.template()).expect("the template can be read");
    let mut wrong = Vec::new();
    for Text { what, from, to } in TEXTS {
        assert!(good.contains(from), "{what}: the template does not contain {from:?}");
        wrong.extend(compare(&scene, what, &good.replacen(from, to, 1)).await);
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), TEXTS.len(), wrong.join("\n\n"));
}

async fn slips(plane: &'static ControlPlane) {
    let scene = Scene::set(plane).await;
    let good = std::fs::read_to_string(scene.template()).expect("the template can be read");
    for Text { what, from, to } in SLIPS {
        std::fs::write(scene.template(), good.replacen(from, to, 1)).expect("the template can be written");
        let run = scene.deploy(&scene.commits.new).await;
        assert_eq!((run.code, &run.json["reason"]), (2, &json!("InvalidInput")), "{what}: {run}");
    }
}

async fn encodings(plane: &'static ControlPlane) {
    let scene = Scene::set(plane).await;
    let good = std::fs::read_to_string(scene.template()).expect("the template can be read");
    for (what, text) in [
        ("a byte order mark", format!("\u{feff}{good}")),
        ("carriage returns", good.replace('\n', "\r\n")),
        ("no end of the last line", good.trim_end().to_owned()),
        ("a separator before the first document", format!("---\n{good}")),
        ("a separator after the last document", format!("{good}---\n")),
        ("a comment after a separator", good.replacen("---\n", "--- # the Service\n", 1)),
    ] {
        let complaint = compare(&scene, what, &text).await;
        assert_eq!(complaint, None);
    }
}

async fn octal(plane: &'static ControlPlane) {
    let scene = Scene::set(plane).await;
    let volume = "      volumes: [{name: v, secret: {secretName: s, optional: true, defaultMode: 0400}}]\n";
    scene.edit(CONTAINERS, &format!("{volume}{CONTAINERS}"));
    for commit in [&scene.commits.old, &scene.commits.new] {
        scene.deploy(commit).await.ends_with(0, &["done"]);
        let path = "jsonpath={.spec.template.spec.volumes[0].secret.defaultMode}";
        let mode = scene.kubectl(&["get", "deployment", NAME, "-o", path]).await;
        assert_eq!(mode, "256", "0400 is 256");
    }
}
