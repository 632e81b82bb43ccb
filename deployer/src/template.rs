//! The template, a text with `<IMAGE>` in it, and the documents that it becomes for one commit.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kube::api::{ApiResource, ObjectMeta};
use kube::core::gvk::ParseGroupVersionError;
use kube::core::{GroupVersion, GroupVersionKind};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::commit::{COMMIT, Commit};
use crate::image::Image;
use crate::{revision, yaml};

/// The placeholder for the image in the template.
pub(crate) const PLACEHOLDER: &str = "<IMAGE>";

/// Where `kubectl rollout history` looks for the reason of a revision.
pub(crate) const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

/// Kubernetes's default, in seconds.
const DEFAULT_PROGRESS_DEADLINE: u64 = 600;

/// The kinds that pods read, or need to start. They are written before the Deployment.
const READ_BY_PODS: [&str; 8] = [
    "ConfigMap",
    "Secret",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "PersistentVolumeClaim",
    "SecretProviderClass",
    "NetworkPolicy",
];

/// One Kubernetes object as the template states it.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    value: Value,
    /// The plural of this kind, if the API server was asked.
    plural: Option<String>,
}

impl Document {
    fn read(value: Value) -> Result<Self> {
        ensure!(value.is_object(), "it is not a mapping with apiVersion, kind and metadata");
        for path in ["/apiVersion", "/kind", "/metadata/name"] {
            let name = path[1..].replace('/', ".");
            match value.pointer(path) {
                Some(Value::String(text)) if !text.is_empty() => {}
                None | Some(Value::Null | Value::String(_)) => bail!("it has no {name}"),
                Some(other) => bail!("its {name} is {other}, which is not a string: quote it"),
            }
        }
        let version = value["apiVersion"].as_str().unwrap_or_default();
        version.parse::<GroupVersion>().with_context(|| format!("{version:?} is not an apiVersion"))?;
        Ok(Self { value, plural: None })
    }

    /// For example `Service`.
    pub(crate) fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }

    /// `metadata.name`.
    pub(crate) fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// The plural of this kind. Unless the API server was asked, it is formed as Kubernetes does.
    pub(crate) fn resource(&self) -> ApiResource {
        let version = self.value["apiVersion"].as_str().unwrap_or_default();
        // Was parsed when the document was read.
        let version = version.parse().unwrap_or_else(|_: ParseGroupVersionError| GroupVersion::gv("", ""));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(&version.group, &version.version, self.kind()));
        ApiResource { plural: self.plural.clone().unwrap_or(resource.plural), ..resource }
    }

    /// Stores the plural that the API server named.
    pub(crate) fn call(&mut self, plural: String) {
        self.plural = Some(plural);
    }

    /// Whether pods may read it when they start.
    pub(crate) fn is_read_by_pods(&self) -> bool {
        READ_BY_PODS.contains(&self.kind())
    }

    /// The object to send. It is bound to the uid and the resource version of `bound`, if given.
    pub(crate) fn object(&self, bound: Option<&ObjectMeta>) -> Value {
        let mut value = self.value.clone();
        if let Some(bound) = bound {
            value["metadata"]["uid"] = bound.uid.clone().into();
            value["metadata"]["resourceVersion"] = bound.resource_version.clone().into();
        }
        value
    }

    /// Sets this annotation, or removes it.
    pub(crate) fn note(&mut self, key: &str, text: Option<String>) {
        if let Some(annotations) = self.value.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
            annotations.remove(key);
            annotations.extend(text.map(|text| (key.to_owned(), text.into())));
        }
    }

    /// As a typed object. None if it does not fit the type, which the API server's dry run then reports.
    pub(crate) fn typed<K: DeserializeOwned>(&self) -> Option<K> {
        serde_json::from_value(self.value.clone()).ok()
    }

    /// Whether it states the number of replicas.
    pub(crate) fn states_replicas(&self) -> bool {
        !self.value["spec"]["replicas"].is_null()
    }

    /// Overrides the number of replicas in the template, because a field that it stops stating would return to its default.
    pub(crate) fn leave_replicas_at(&mut self, replicas: i32) {
        self.value["spec"]["replicas"] = replicas.into();
    }
}

/// The documents of one commit: exactly one Deployment, and any others.
#[derive(Clone, Debug)]
pub(crate) struct Documents {
    /// The Deployment.
    pub(crate) deployment: Document,
    /// The others, in the template's order.
    pub(crate) others: Vec<Document>,
}

impl Documents {
    /// All of them, the Deployment first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Document> {
        std::iter::once(&self.deployment).chain(&self.others)
    }

    /// All of them, the Deployment first.
    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Document> {
        std::iter::once(&mut self.deployment).chain(&mut self.others)
    }

    /// The labels by which the Deployment finds its pods.
    pub(crate) fn selector(&self) -> String {
        revision::labels(serde_json::from_value(self.deployment.value["spec"]["selector"].clone()).unwrap_or_default())
    }

    /// The autoscaler among them that owns the Deployment's replicas.
    pub(crate) fn autoscaler(&self) -> Option<&str> {
        let targets = |document: &&Document| {
            let target = &document.value["spec"]["scaleTargetRef"];
            document.kind() == "HorizontalPodAutoscaler"
                && target["kind"] == "Deployment"
                && target["name"] == self.deployment.name()
        };
        self.others.iter().find(targets).map(Document::name)
    }

    /// All of them as YAML, the Deployment first.
    pub(crate) fn yaml(&self) -> Result<String> {
        let documents: Vec<&Value> = self.all().map(|document| &document.value).collect();
        Ok(serde_saphyr::to_string_multiple(&documents)?)
    }

    /// How long the cluster waits for progress before it calls the rollout failed.
    pub(crate) fn progress_deadline(&self) -> Duration {
        let stated = self.deployment.value["spec"]["progressDeadlineSeconds"].as_u64();
        Duration::from_secs(stated.unwrap_or(DEFAULT_PROGRESS_DEADLINE))
    }

    /// The namespace that the template's documents name, if any.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.all().find_map(|document| document.value["metadata"]["namespace"].as_str())
    }

    /// Refuses a progress deadline that is not shorter than `timeout`.
    pub(crate) fn check_deadline(&self, timeout: Duration) -> Result<()> {
        let deadline = self.progress_deadline();
        ensure!(
            deadline < timeout,
            "progressDeadlineSeconds of the Deployment is {} s{} and --timeout is {} s: the deadline must be shorter, so lower it or raise --timeout",
            deadline.as_secs(),
            if self.deployment.value["spec"]["progressDeadlineSeconds"].is_null() {
                " (the default, as the template states none)"
            } else {
                ""
            },
            timeout.as_secs()
        );
        Ok(())
    }
}

/// Reads the template and fills it in for `commit`.
///
/// # Errors
/// If the template cannot be used. An error in the YAML comes with its line and column.
pub(crate) fn fill_in(path: &Path, image: &Image, commit: &Commit, change_cause: &str) -> Result<Documents> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the template {}", path.display()))?;
    parse(&text, image, commit, change_cause).with_context(|| format!("template {}", path.display()))
}

fn parse(text: &str, image: &Image, commit: &Commit, change_cause: &str) -> Result<Documents> {
    ensure!(
        text.contains(PLACEHOLDER),
        "it has no {PLACEHOLDER}: write `image: {PLACEHOLDER}` where the image belongs"
    );
    let values = yaml::read(&text.replace(PLACEHOLDER, image.as_str()))?;
    let mut documents = Vec::new();
    // A separator before the first document, or after the last one, makes an empty document.
    for (index, value) in values.into_iter().enumerate().filter(|(_, value)| !value.is_null()) {
        for value in items(value) {
            documents.push(Document::read(value).with_context(|| format!("document {}", index + 1))?);
        }
    }
    let namespaces: Vec<&str> =
        documents.iter().filter_map(|document| document.value["metadata"]["namespace"].as_str()).collect();
    if let Some(other) = namespaces.iter().find(|&namespace| namespace != &namespaces[0]) {
        bail!("its documents belong to two namespaces, {} and {other}", namespaces[0]);
    }

    let is_deployment = |document: &Document| document.kind() == "Deployment" && document.resource().group == "apps";
    let (mut deployments, others): (Vec<_>, Vec<_>) = documents.into_iter().partition(is_deployment);
    let deployment = match (deployments.pop(), deployments.len()) {
        (Some(deployment), 0) => deployment,
        (None, _) => bail!("it has no Deployment of apps/v1"),
        (Some(_), more) => bail!("it has {} Deployments and must have one", more + 1),
    };
    check_deployment(&deployment, image)?;

    let mut documents = Documents { deployment, others };
    let deployment = &mut documents.deployment.value;
    annotate(deployment, CHANGE_CAUSE, change_cause)?;
    annotate(&mut deployment["spec"]["template"], COMMIT, commit.as_str())?;
    // Defaults that the server added for an omitted strategy must be removed when the type changes.
    if let Some(strategy) = deployment.pointer_mut("/spec/strategy").filter(|strategy| strategy["type"] == "Recreate") {
        strategy.as_object_mut().map(|strategy| strategy.entry("rollingUpdate").or_insert(Value::Null));
    }
    // On every document, so that an apply of another commit always changes it, see `Cluster::put`.
    for document in documents.all_mut() {
        annotate(&mut document.value, COMMIT, commit.as_str())?;
    }
    Ok(documents)
}

/// The objects of a List, or the one object.
fn items(mut value: Value) -> Vec<Value> {
    let is_list = value["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    match value.get_mut("items") {
        Some(Value::Array(items)) if is_list => std::mem::take(items),
        _ => vec![value],
    }
}

fn check_deployment(deployment: &Document, image: &Image) -> Result<()> {
    let containers = &deployment.value["spec"]["template"]["spec"]["containers"];
    let mut images = containers.as_array().into_iter().flatten().map(|container| &container["image"]);
    ensure!(
        images.any(|found| found == image.as_str()),
        "no container of its Deployment has {PLACEHOLDER} as its image"
    );
    let paused = &deployment.value["spec"]["paused"];
    ensure!(paused != &Value::Bool(true), "its Deployment is paused, so nothing would be rolled out");
    Ok(())
}

/// A key without a value is an empty map.
fn annotate(value: &mut Value, key: &str, text: &str) -> Result<()> {
    let annotations = entry(entry(value, "metadata")?, "annotations").context("metadata")?;
    annotations.as_object_mut().context("annotations is not a mapping")?.insert(key.to_owned(), text.into());
    Ok(())
}

fn entry<'a>(value: &'a mut Value, key: &str) -> Result<&'a mut Value> {
    let map = value.as_object_mut().with_context(|| format!("what should hold {key} is not a mapping"))?;
    let found = map.entry(key).or_insert_with(|| json!({}));
    if found.is_null() {
        *found = json!({});
    }
    ensure!(found.is_object(), "{key} is not a mapping");
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "3f9c2ab17d043f9c2ab17d043f9c2ab17d043f9c";
    const GOOD: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    spec: {containers: [{name: web, image: <IMAGE>}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
";

    fn fill(text: &str) -> Result<Documents> {
        parse(text, &"registry.example/web:3f9c2ab17d04".parse().unwrap(), &SHA.parse().unwrap(), "why")
    }

    #[test]
    fn every_document_and_the_pods_say_their_commit() {
        let documents = fill(GOOD).unwrap();
        for document in documents.all() {
            assert_eq!(document.value["metadata"]["annotations"][COMMIT], SHA, "{}", document.kind());
        }
        let deployment = &documents.deployment.value;
        assert_eq!(deployment["spec"]["template"]["metadata"]["annotations"][COMMIT], SHA);
        assert_eq!(deployment["metadata"]["annotations"][CHANGE_CAUSE], "why");
        assert_eq!(
            deployment["spec"]["template"]["spec"]["containers"][0]["image"],
            "registry.example/web:3f9c2ab17d04"
        );
    }

    #[test]
    fn what_is_rendered_reads_back_as_the_same_documents() {
        let documents = fill(GOOD).unwrap();
        let again: Vec<Value> = yaml::read(&documents.yaml().unwrap()).unwrap();
        assert_eq!(again, documents.all().map(|document| document.value.clone()).collect::<Vec<_>>());
    }

    #[test]
    fn the_error_of_an_unusable_template_says_where_and_why() {
        for (what, from, to, says) in [
            ("no place for the image", "<IMAGE>", "nginx", "it has no <IMAGE>"),
            (
                "<IMAGE> elsewhere",
                "image: <IMAGE>",
                "image: nginx, command: [<IMAGE>]",
                "no container of its Deployment has <IMAGE>",
            ),
            ("not YAML", "kind: Service", "kind: [Service", "line "),
            ("a key twice", "kind: Service", "kind: Service\nkind: Pod", "line "),
            ("no Deployment", "kind: Deployment", "kind: StatefulSet", "it has no Deployment of apps/v1"),
            (
                "two Deployments",
                "apiVersion: v1\nkind: Service",
                "apiVersion: apps/v1\nkind: Deployment",
                "it has 2 Deployments",
            ),
            (
                "no mapping",
                "apiVersion: v1\nkind: Service\nmetadata: {name: web}",
                "- a",
                "document 2: it is not a mapping",
            ),
            ("no name", "kind: Service\nmetadata: {name: web}", "kind: Service", "document 2: it has no metadata.name"),
            ("no version", "apiVersion: v1\n", "", "document 2: it has no apiVersion"),
            (
                "a word as a name",
                "kind: Service\nmetadata: {name: web}",
                "kind: Service\nmetadata: {name: on}",
                "document 2: its metadata.name is true",
            ),
            (
                "two namespaces",
                "kind: Service\nmetadata: {name: web}",
                "kind: Service\nmetadata: {name: web, namespace: b}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: c, namespace: d}",
                "two namespaces, b and d",
            ),
            ("paused", "spec:\n", "spec:\n  paused: true\n", "paused"),
        ] {
            assert!(GOOD.contains(from), "{what}");
            let error = format!("{:#}", fill(&GOOD.replacen(from, to, 1)).unwrap_err());
            assert!(error.contains(says), "{what}: {error}");
            assert!(!error.contains('\n'), "{what}: {error}");
        }
    }

    #[test]
    fn a_key_without_a_value_is_an_empty_map_and_a_list_is_its_items() {
        let text = GOOD.replacen("    spec:", "    metadata:\n    spec:", 1).replacen(
            "metadata: {name: web}",
            "metadata:\n  name: web\n  annotations:",
            1,
        );
        let documents = fill(&text).unwrap();
        assert_eq!(documents.deployment.value["spec"]["template"]["metadata"]["annotations"][COMMIT], SHA);
        let list = "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}]\n";
        let documents = fill(&format!("{GOOD}---\n{list}")).unwrap();
        assert_eq!(documents.all().map(Document::kind).collect::<Vec<_>>(), ["Deployment", "Service", "ConfigMap"]);
    }

    #[test]
    fn separators_before_and_after_make_no_documents() {
        let documents = fill(&format!("# first\n---\n{GOOD}---\n")).unwrap();
        assert_eq!(documents.all().map(Document::kind).collect::<Vec<_>>(), ["Deployment", "Service"]);
    }

    #[test]
    fn a_deadline_must_be_shorter_than_the_timeout() {
        for (deadline, timeout, is_good) in [
            ("", 600, false),
            ("", 601, true),
            ("  progressDeadlineSeconds: 90\n", 90, false),
            ("  progressDeadlineSeconds: 90\n", 91, true),
        ] {
            let documents = fill(&GOOD.replacen("spec:\n", &format!("spec:\n{deadline}"), 1)).unwrap();
            assert_eq!(documents.check_deadline(Duration::from_secs(timeout)).is_ok(), is_good, "{deadline} {timeout}");
        }
    }
}
