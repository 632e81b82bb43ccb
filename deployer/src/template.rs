//! The template: text with `<IMAGE>` in it, and the documents that it becomes for one commit.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kube::api::{ApiResource, ObjectMeta};
use kube::core::gvk::ParseGroupVersionError;
use kube::core::{GroupVersion, GroupVersionKind};
use serde_json::{Map, Value, json};

/// What stands in the template for the image and its tag.
pub(crate) const PLACEHOLDER: &str = "<IMAGE>";

/// On every document, and on the pod template: the commit it was made for, all 40 digits.
pub(crate) const COMMIT: &str = "request-info.dev/commit";

/// Where `kubectl rollout history` looks for the reason of a revision.
pub(crate) const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

/// What Kubernetes takes where a Deployment does not say, in seconds.
const DEFAULT_PROGRESS_DEADLINE: u64 = 600;

/// A commit in full: 40 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Commit(String);

impl Commit {
    /// All 40 digits.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Commit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hexadecimal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if let Some(bad) = text.chars().find(|&c| !c.is_ascii() || !hexadecimal(c as u8)) {
            return Err(format!("{bad:?} is no lower-case hexadecimal digit; `git rev-parse HEAD` prints a commit"));
        }
        if text.len() != 40 {
            return Err(format!("it has {} digits and not 40; `git rev-parse {text}` prints them all", text.len()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The first 12 digits, as people read them; whatever is shorter or no commit, as it is.
pub(crate) fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

/// An image as a container names it, its tag the beginning of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    whole: String,
    tag: usize,
}

impl Image {
    /// `REPOSITORY:TAG`.
    pub(crate) fn as_str(&self) -> &str {
        &self.whole
    }

    fn tag(&self) -> &str {
        &self.whole[self.tag..]
    }

    /// Refuses an image whose tag is not the beginning of `commit`: it was built from something else.
    pub(crate) fn check_tag(&self, commit: &Commit) -> Result<()> {
        ensure!(
            self.tag().len() >= 7 && commit.as_str().starts_with(self.tag()),
            "the tag {:?} of --image {} is no prefix of --commit {}: at least its first 7 digits are wanted, as in {}:{}",
            self.tag(),
            self.whole,
            commit.as_str(),
            &self.whole[..self.tag - 1],
            short(commit.as_str())
        );
        Ok(())
    }
}

impl std::str::FromStr for Image {
    type Err = String;

    /// The grammar is that of the distribution project's references, without digests.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains('@') {
            return Err("a digest is not wanted here: give REPOSITORY:TAG".to_owned());
        }
        let (repository, tag) =
            text.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).ok_or("it has no tag: give REPOSITORY:TAG")?;
        let (host, path) = match repository.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), rest),
            _ => (None, repository),
        };
        if let Some(host) = host
            && !is_host(host)
        {
            return Err(format!("{host:?} is no host name with an optional port"));
        }
        if let Some(part) = path.split('/').find(|part| !is_path_component(part)) {
            return Err(format!(
                "{part:?} is no part of a repository's name: lower-case letters and digits, joined by '.', '_', '__' or '-'"
            ));
        }
        let of_tag = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        if tag.is_empty() || tag.len() > 128 || tag.starts_with(['.', '-']) || !tag.bytes().all(of_tag) {
            return Err(format!("{tag:?} is no tag"));
        }
        Ok(Self { tag: repository.len() + 1, whole: text.to_owned() })
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = host.split_once(':').unwrap_or((host, "1"));
    port.parse::<u16>().is_ok_and(|port| port > 0)
        && name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

fn is_path_component(part: &str) -> bool {
    let of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(of_name)
        && part.ends_with(of_name)
        && part.split(of_name).all(|joint| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|b| b == b'-'))
}

/// One Kubernetes object as the template states it.
#[derive(Clone, Debug)]
pub(crate) struct Document(Value);

impl Document {
    /// For example `Service`.
    pub(crate) fn kind(&self) -> &str {
        self.0["kind"].as_str().unwrap_or_default()
    }

    /// `metadata.name`.
    pub(crate) fn name(&self) -> &str {
        self.0["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// How the API server calls the objects of this kind; the plural is guessed as Kubernetes does.
    pub(crate) fn resource(&self) -> ApiResource {
        let version = self.0["apiVersion"].as_str().unwrap_or_default();
        // Was parsed when the document was read.
        let version = version.parse().unwrap_or_else(|_: ParseGroupVersionError| GroupVersion::gv("", ""));
        ApiResource::from_gvk(&GroupVersionKind::gvk(&version.group, &version.version, self.kind()))
    }

    /// The object to send, bound to one object and one state of it where `bound` names them.
    pub(crate) fn object(&self, bound: Option<&ObjectMeta>) -> Value {
        let mut value = self.0.clone();
        if let Some(bound) = bound {
            value["metadata"]["uid"] = bound.uid.clone().into();
            value["metadata"]["resourceVersion"] = bound.resource_version.clone().into();
        }
        value
    }

    /// Has an autoscaler's number of replicas applied instead of the template's.
    pub(crate) fn leave_replicas_at(&mut self, replicas: i32) {
        self.0["spec"]["replicas"] = replicas.into();
    }
}

/// The documents of one commit: exactly one Deployment, and whatever else the template holds.
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

    /// All of them as YAML, the Deployment first.
    pub(crate) fn yaml(&self) -> Result<String> {
        let documents: Vec<&Value> = self.all().map(|document| &document.0).collect();
        Ok(serde_saphyr::to_string_multiple(&documents)?)
    }

    /// How long the cluster waits for progress before it calls the rollout failed.
    pub(crate) fn progress_deadline(&self) -> Duration {
        let stated = self.deployment.0["spec"]["progressDeadlineSeconds"].as_u64();
        Duration::from_secs(stated.unwrap_or(DEFAULT_PROGRESS_DEADLINE))
    }

    /// The namespace that the template binds its documents to, if it does.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.all().find_map(|document| document.0["metadata"]["namespace"].as_str())
    }

    /// Refuses a deadline that the cluster could not keep within `timeout`.
    pub(crate) fn check_deadline(&self, timeout: Duration) -> Result<()> {
        let deadline = self.progress_deadline();
        ensure!(
            deadline < timeout,
            "progressDeadlineSeconds of the Deployment is {} s{} and --timeout {} s: the cluster must be able to answer first; lower the one or raise the other",
            deadline.as_secs(),
            if self.deployment.0["spec"]["progressDeadlineSeconds"].is_null() {
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
/// Whatever makes the template unusable, with line and column where the text is at fault.
pub(crate) fn fill_in(path: &Path, image: &Image, commit: &Commit, change_cause: &str) -> Result<Documents> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the template {}", path.display()))?;
    parse(&text, image, commit, change_cause).with_context(|| format!("template {}", path.display()))
}

fn parse(text: &str, image: &Image, commit: &Commit, change_cause: &str) -> Result<Documents> {
    ensure!(
        text.contains(PLACEHOLDER),
        "it has no {PLACEHOLDER}: write `image: {PLACEHOLDER}` where the image belongs"
    );
    let text = text.replace(PLACEHOLDER, image.as_str());
    let values: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|error| yaml_error(&error))?;

    let mut documents = Vec::new();
    // A separator before the first document, or after the last one, makes an empty one.
    for (index, value) in values.into_iter().enumerate().filter(|(_, value)| !value.is_null()) {
        let document = Document(value);
        check_shape(&document).with_context(|| format!("document {}", index + 1))?;
        documents.push(document);
    }
    let namespaces: Vec<&str> =
        documents.iter().filter_map(|document| document.0["metadata"]["namespace"].as_str()).collect();
    if let Some(other) = namespaces.iter().find(|&namespace| namespace != &namespaces[0]) {
        bail!("its documents belong to two namespaces, {} and {other}", namespaces[0]);
    }

    let is_deployment = |document: &Document| document.kind() == "Deployment" && document.resource().group == "apps";
    let (mut deployments, mut others): (Vec<_>, Vec<_>) = documents.into_iter().partition(is_deployment);
    let deployment = match (deployments.pop(), deployments.len()) {
        (Some(deployment), 0) => deployment,
        (None, _) => bail!("it has no Deployment of apps/v1"),
        (Some(_), more) => bail!("it has {} Deployments and must have one", more + 1),
    };
    check_deployment(&deployment, image)?;

    let mut documents = Documents { deployment, others: std::mem::take(&mut others) };
    annotate(&mut documents.deployment.0, CHANGE_CAUSE, change_cause)?;
    annotate(&mut documents.deployment.0["spec"]["template"], COMMIT, commit.as_str())?;
    // On every document, so that no apply of another commit changes nothing: of two deployers at once
    // the later one is then always noticed, see `Cluster::put`.
    for document in std::iter::once(&mut documents.deployment).chain(&mut documents.others) {
        annotate(&mut document.0, COMMIT, commit.as_str())?;
    }
    Ok(documents)
}

/// One line without the excerpt that the parser would add.
fn yaml_error(error: &serde_saphyr::Error) -> anyhow::Error {
    let message = error.render_with_options(serde_saphyr::render_options! {
        snippets: serde_saphyr::SnippetMode::Off,
    });
    let message = message.lines().next().unwrap_or_default().to_owned();
    match error.location() {
        Some(at) if !message.contains("line ") => {
            anyhow::anyhow!("not YAML, line {}, column {}: {message}", at.line(), at.column())
        }
        _ => anyhow::anyhow!("not YAML: {message}"),
    }
}

fn check_shape(document: &Document) -> Result<()> {
    let Document(value) = document;
    ensure!(value.is_object(), "it is no mapping with apiVersion, kind and metadata");
    for (path, found) in
        [("apiVersion", &value["apiVersion"]), ("kind", &value["kind"]), ("metadata.name", &value["metadata"]["name"])]
    {
        ensure!(found.as_str().is_some_and(|text| !text.is_empty()), "it has no {path}");
    }
    let version = value["apiVersion"].as_str().unwrap_or_default();
    version.parse::<GroupVersion>().with_context(|| format!("{version:?} is no apiVersion"))?;
    ensure!(document.kind() != "List", "a List is not understood: separate the documents by `---`");
    Ok(())
}

fn check_deployment(deployment: &Document, image: &Image) -> Result<()> {
    let containers = &deployment.0["spec"]["template"]["spec"]["containers"];
    let mut images = containers.as_array().into_iter().flatten().map(|container| &container["image"]);
    ensure!(
        images.any(|found| found == image.as_str()),
        "no container of its Deployment has {PLACEHOLDER} as its image"
    );
    let paused = &deployment.0["spec"]["paused"];
    ensure!(paused != &Value::Bool(true), "its Deployment is paused: nothing would be rolled out");
    Ok(())
}

fn annotate(value: &mut Value, key: &str, text: &str) -> Result<()> {
    let metadata = entry(value, "metadata")?;
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    let annotations = annotations.as_object_mut().context("metadata.annotations is no mapping")?;
    annotations.insert(key.to_owned(), text.into());
    Ok(())
}

fn entry<'a>(value: &'a mut Value, key: &str) -> Result<&'a mut Map<String, Value>> {
    let map = value.as_object_mut().with_context(|| format!("what should hold {key} is no mapping"))?;
    map.entry(key).or_insert_with(|| json!({})).as_object_mut().with_context(|| format!("{key} is no mapping"))
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
            assert_eq!(document.0["metadata"]["annotations"][COMMIT], SHA, "{}", document.kind());
        }
        let deployment = &documents.deployment.0;
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
        let again: Vec<Value> = serde_saphyr::from_multiple(&documents.yaml().unwrap()).unwrap();
        assert_eq!(again, documents.all().map(|document| document.0.clone()).collect::<Vec<_>>());
    }

    #[test]
    fn an_unusable_template_is_told_where_and_why() {
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
                "document 2: it is no mapping",
            ),
            ("no name", "kind: Service\nmetadata: {name: web}", "kind: Service", "document 2: it has no metadata.name"),
            ("no version", "apiVersion: v1\n", "", "document 2: it has no apiVersion"),
            ("a List", "kind: Service", "kind: List", "document 2: a List is not understood"),
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

    #[test]
    fn an_image_is_a_repository_and_a_tag() {
        for (text, is_good) in [
            ("web:1", true),
            ("library/web:3f9c2ab", true),
            ("localhost/web:1", true),
            ("localhost:5000/web:1", true),
            ("registry.example:443/a/b_c/d__e/f-g/h.i:V1.2_x-y", true),
            ("web", false),
            ("registry.example:5000/web", false),
            ("web:", false),
            ("web:.1", false),
            ("web:a b", false),
            ("Web:1", false),
            ("web_:1", false),
            ("a//b:1", false),
            ("a..b:1", false),
            ("registry.example:0/web:1", false),
            ("-registry.example/web:1", false),
            ("web@sha256:0123", false),
            ("", false),
        ] {
            assert_eq!(text.parse::<Image>().is_ok(), is_good, "{text:?}");
        }
    }

    #[test]
    fn a_tag_is_the_beginning_of_its_commit() {
        let commit: Commit = SHA.parse().unwrap();
        for (tag, is_good) in [
            (SHA, true),
            ("3f9c2ab17d04", true),
            ("3f9c2ab", true),
            ("3f9c2a", false),
            ("latest", false),
            ("81be09aa43f1", false),
        ] {
            let image: Image = format!("registry.example:5000/web:{tag}").parse().unwrap();
            assert_eq!(image.check_tag(&commit).is_ok(), is_good, "{tag}");
        }
    }

    #[test]
    fn a_commit_is_forty_lower_case_digits() {
        for (text, is_good) in [(SHA, true), ("3f9c2ab17d04", false), ("HEAD", false), ("", false)] {
            assert_eq!(text.parse::<Commit>().is_ok(), is_good, "{text:?}");
        }
        assert!(SHA.to_uppercase().parse::<Commit>().is_err());
    }
}
