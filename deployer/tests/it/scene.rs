//! The surroundings of one test: a namespace with its kubelet, the deployer's shipped account, a clone, and a template.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, Pod, ResourceQuota, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{GroupVersion, GroupVersionKind};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::control_plane::ControlPlane;
use crate::node::{self, Kubelet};
use crate::proxy::{Asked, Fate, Proxy};

/// The name of the Deployment in `TEMPLATE`.
pub(crate) const NAME: &str = "request-info";

/// The strategy in `TEMPLATE`.
pub(crate) const STRATEGY: &str = "    type: RollingUpdate\n    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}\n";

const TEMPLATE: &str = include_str!("template.yaml");
const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../kubernetes/deployment.yaml.tmp");
const ROLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../kubernetes/deployer-rbac.yaml");

/// The variables in which a client finds its proxy. The deployer must not get those of the person who runs the tests.
const PROXIES: [&str; 6] = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"];

/// The longest time that a test waits for anything, unless it says otherwise.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Scene {
    pub(crate) plane: &'static ControlPlane,
    pub(crate) namespace: String,
    pub(crate) kubelet: Kubelet,
    pub(crate) commits: &'static Commits,
    template: PathBuf,
    pub(crate) kubeconfig: PathBuf,
}

/// The commits of the clone: `old`, `new`, `newer` and then `line`, each the parent of the next. `side` branches off beside `new`.
pub(crate) struct Commits {
    clone: PathBuf,
    pub(crate) old: String,
    pub(crate) new: String,
    pub(crate) newer: String,
    pub(crate) side: String,
    pub(crate) line: Vec<String>,
}

impl Scene {
    pub(crate) async fn set(plane: &'static ControlPlane) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = plane.directory(&namespace);
        let scene = Self {
            plane,
            kubelet: Kubelet::start(&plane.client, &namespace, &plane.network),
            commits: Commits::of(plane),
            template: directory.join("template.yaml"),
            kubeconfig: directory.join("kubeconfig"),
            namespace,
        };
        std::fs::write(&scene.template, TEMPLATE).expect("the template can be written");
        let namespace = json!({"metadata": {"name": scene.namespace}});
        let namespace = serde_json::from_value(namespace).expect("this JSON is a Namespace");
        Api::<Namespace>::all(plane.client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .expect("the namespace can be created");
        scene.grant(shipped_role()).await;
        scene.write_kubeconfig(&scene.token().await);
        let accounts = scene.api::<ServiceAccount>();
        scene.until("the namespace has its default account", async || accounts.get("default").await.is_ok()).await;
        scene
    }

    /// A scene in which the old commit already runs.
    pub(crate) async fn with_old(plane: &'static ControlPlane) -> Self {
        let scene = Self::set(plane).await;
        scene.deploy_old().await;
        scene
    }

    pub(crate) async fn deploy_old(&self) {
        let run = self.deploy(&self.commits.old).await;
        assert_eq!(run.code, 0, "{run}");
        self.settled("NewReplicaSetAvailable").await;
    }

    /// Waits until the Deployment's controller has written its final status for the present generation.
    pub(crate) async fn settled(&self, reason: &str) {
        self.until(&format!("the Deployment is {reason}"), async || {
            let Deployment { metadata, spec, status } = self.deployment().await;
            let desired = spec.and_then(|spec| spec.replicas).unwrap_or_default();
            status.is_some_and(|status| {
                let conditions = status.conditions.unwrap_or_default();
                status.observed_generation == metadata.generation
                    && status.available_replicas.unwrap_or_default() == desired
                    && status.terminating_replicas.unwrap_or_default() == 0
                    && conditions.iter().any(|condition| condition.reason.as_deref() == Some(reason))
            })
        })
        .await;
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.plane.client.clone(), &self.namespace)
    }

    /// Creates the objects that bind the deployer's account to its Role.
    pub(crate) async fn grant(&self, documents: Vec<Value>) {
        for mut document in documents {
            document["metadata"]["namespace"] = json!(self.namespace);
            let subjects = document.get_mut("subjects").and_then(Value::as_array_mut);
            for subject in subjects.into_iter().flatten() {
                subject["namespace"] = json!(self.namespace);
            }
            self.apply(document).await;
        }
    }

    /// Applies an object as another manager than the deployer.
    pub(crate) async fn apply(&self, document: Value) {
        let version: GroupVersion =
            document["apiVersion"].as_str().unwrap_or_default().parse().expect("the document has an apiVersion");
        let kind =
            GroupVersionKind::gvk(&version.group, &version.version, document["kind"].as_str().unwrap_or_default());
        let resource = ApiResource::from_gvk(&kind);
        let api = Api::<DynamicObject>::namespaced_with(self.plane.client.clone(), &self.namespace, &resource);
        let name = document["metadata"]["name"].as_str().expect("the document has a name").to_owned();
        let parameters = PatchParams::apply("test").force();
        let result = api.patch(&name, &parameters, &Patch::Apply(&document)).await;
        result.unwrap_or_else(|error| panic!("cannot apply {document}: {error}"));
    }

    pub(crate) async fn change(&self, patch: Value) {
        let result = self.api::<Deployment>().patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await;
        result.unwrap_or_else(|error| panic!("cannot change the Deployment: {error}"));
    }

    /// From now on, admits at most this many pods.
    pub(crate) async fn limit_pods(&self, count: usize) {
        let spec = json!({"hard": {"pods": count.to_string()}});
        self.apply(json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "pods"}, "spec": spec}))
            .await;
        let quotas = self.api::<ResourceQuota>();
        self.until("the quota counts", async || {
            let quota = quotas.get("pods").await.expect("the object exists");
            quota.status.and_then(|status| status.used).is_some_and(|used| used.contains_key("pods"))
        })
        .await;
    }

    pub(crate) async fn token(&self) -> String {
        let request = TokenRequest {
            spec: TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() },
            ..TokenRequest::default()
        };
        let accounts = self.api::<ServiceAccount>();
        let answer = accounts.create_token_request("deployer", &PostParams::default(), &request).await;
        answer.expect("the account exists").status.expect("the answer has one").token
    }

    pub(crate) fn write_kubeconfig(&self, token: &str) {
        self.write_kubeconfig_for(self.plane.port, token);
    }

    /// From now on, the deployer reaches the API server through a network that gives each request the fate that `decide` returns.
    pub(crate) async fn through(&self, decide: impl Fn(&Asked) -> Fate + Send + Sync + 'static) -> Proxy {
        let proxy = Proxy::start(self.plane.port, &self.plane.tls, decide).await;
        self.change_kubeconfig(|kubeconfig| {
            kubeconfig["clusters"][0]["cluster"]["server"] = json!(format!("https://127.0.0.1:{}", proxy.port));
        });
        proxy
    }

    pub(crate) fn change_kubeconfig(&self, change: impl FnOnce(&mut Value)) {
        let text = std::fs::read_to_string(&self.kubeconfig).expect("the kubeconfig can be read");
        let mut kubeconfig = serde_json::from_str(&text).expect("the kubeconfig is JSON");
        change(&mut kubeconfig);
        std::fs::write(&self.kubeconfig, kubeconfig.to_string()).expect("the kubeconfig can be written");
    }

    pub(crate) fn write_kubeconfig_for(&self, port: u16, token: &str) {
        let kubeconfig = self.plane.kubeconfig(port, token, &self.namespace);
        std::fs::write(&self.kubeconfig, kubeconfig.to_string()).expect("the kubeconfig can be written");
    }

    /// The deployer's user in the API server's audit log.
    pub(crate) fn user(&self) -> String {
        format!("system:serviceaccount:{}:deployer", self.namespace)
    }

    /// Uses the shipped template instead of the tests' own, which is quicker.
    pub(crate) fn use_shipped_template(&self) {
        std::fs::copy(SHIPPED, &self.template).unwrap_or_else(|error| panic!("cannot copy {SHIPPED}: {error}"));
    }

    /// Replaces a text in the template.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.template).expect("the template can be read");
        assert!(text.contains(from), "the template does not contain {from:?}:\n{text}");
        std::fs::write(&self.template, text.replace(from, to)).expect("the template can be written");
    }

    /// Changes the strategy to Recreate: all old pods end before the first new one is created.
    pub(crate) fn recreate(&self) {
        self.edit(STRATEGY, "    type: Recreate\n");
    }

    /// Appends a document to the template.
    pub(crate) fn append(&self, document: &Value) {
        let text = std::fs::read_to_string(&self.template).expect("the template can be read");
        std::fs::write(&self.template, format!("{text}---\n{document}\n")).expect("the template can be written");
    }

    /// The program, with this scene's kubeconfig and in its clone.
    pub(crate) fn deployer<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_deployer"));
        command
            .args(arguments)
            .current_dir(&self.commits.clone)
            .env("KUBECONFIG", &self.kubeconfig)
            .env_remove("BUILD_URL")
            .envs(PROXIES.map(|name| (name, "")))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// A deploy of `commit`. Options in `more` replace the usual ones.
    pub(crate) fn deploy_command(&self, commit: &str, more: &[&str]) -> Command {
        let (image, template) = (image(commit), self.template.display().to_string());
        let usual = [
            ("--image", &*image),
            ("--commit", commit),
            ("--template", &template),
            ("-n", &self.namespace),
            ("--timeout", "3m"),
            ("-o", "json"),
        ];
        let usual = usual.into_iter().filter(|(option, _)| !more.contains(option));
        let usual = usual.flat_map(|(option, value)| [option, value]);
        self.deployer(["deploy"].into_iter().chain(usual).chain(more.iter().copied()))
    }

    /// Runs another command of the deployer, with `-o json`.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Run {
        let place = ["-n", &self.namespace, "-o", "json"];
        Running::of(self.deployer(arguments.iter().copied().chain(place))).end().await
    }

    /// The documents that the template makes for `commit`.
    pub(crate) async fn render(&self, commit: &str) -> Vec<Value> {
        let (image, template) = (image(commit), self.template.display().to_string());
        let arguments = ["render", "--image", &image, "--commit", commit, "--template", &template];
        let run = Running::of(self.deployer(arguments)).end().await;
        assert_eq!(run.code, 0, "{run}");
        serde_saphyr::from_multiple(&run.stdout).expect("render prints YAML")
    }

    /// The output of kubectl as an administrator.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> String {
        self.kubectl_reading("", arguments).await
    }

    /// Applies with client-side apply, which then owns the fields and leaves its annotation.
    pub(crate) async fn apply_as_kubectl(&self, document: &Value) {
        self.kubectl_reading(&document.to_string(), &["apply", "-f", "-"]).await;
    }

    /// Runs a line as a person would who copies it, with kubectl and the deployer on PATH.
    pub(crate) fn shell(&self, line: &str) -> Command {
        let deployer = Path::new(env!("CARGO_BIN_EXE_deployer")).parent().expect("the deployer is in a directory");
        let inherited = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{}:{inherited}", self.plane.binaries.display(), deployer.display());
        let mut command = self.plane.running_kubectl("sh");
        command.args(["-c", line]).env("PATH", path).env("KUBECONFIG", &self.kubeconfig);
        command.current_dir(&self.commits.clone).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// The objects that kubectl would create from this text, or its error.
    pub(crate) async fn make(&self, text: &str) -> Result<Vec<Value>, String> {
        let arguments = ["create", "--dry-run=client", "--validate=false", "-o", "json", "-f", "-"];
        let printed = self.ask_kubectl(text, &arguments).await?;
        let documents = serde_json::Deserializer::from_str(&printed).into_iter().collect::<Result<Vec<Value>, _>>();
        let mut documents = documents.map_err(|error| error.to_string())?;
        for list in documents.extract_if(.., |document| document["kind"] == "List").collect::<Vec<_>>() {
            documents.extend(list["items"].as_array().cloned().unwrap_or_default());
        }
        Ok(documents)
    }

    async fn kubectl_reading(&self, input: &str, arguments: &[&str]) -> String {
        let answer = self.ask_kubectl(input, arguments).await;
        answer.unwrap_or_else(|said| panic!("kubectl {arguments:?}: {said}"))
    }

    /// Kubectl's output, or its error.
    pub(crate) async fn ask_kubectl(&self, input: &str, arguments: &[&str]) -> Result<String, String> {
        let mut command = self.plane.kubectl();
        command.args(["-n", &self.namespace]).args(arguments).stdin(Stdio::piped()).kill_on_drop(true);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kubectl can be run");
        let mut stdin = child.stdin.take().expect("the stream is a pipe");
        let whole = async {
            stdin.write_all(input.as_bytes()).await.expect("kubectl reads its input");
            drop(stdin);
            child.wait_with_output().await.expect("the program is a child of this process")
        };
        let output = tokio::time::timeout(PATIENCE, whole).await;
        let output = output.unwrap_or_else(|_| panic!("kubectl {arguments:?} did not end within {PATIENCE:?}"));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    pub(crate) fn start(&self, commit: &str, more: &[&str]) -> Running {
        Running::of(self.deploy_command(commit, more))
    }

    pub(crate) async fn deploy(&self, commit: &str) -> Run {
        self.start(commit, &[]).end().await
    }

    pub(crate) async fn deploy_with(&self, commit: &str, more: &[&str]) -> Run {
        self.start(commit, more).end().await
    }

    pub(crate) fn template(&self) -> &Path {
        &self.template
    }

    pub(crate) async fn deployment(&self) -> Deployment {
        self.api().get(NAME).await.expect("the object exists")
    }

    /// The pods that concern the deployer.
    pub(crate) async fn pods(&self) -> Vec<Pod> {
        let pods = self.api::<Pod>().list(&ListParams::default()).await.expect("the objects can be listed");
        pods.items.into_iter().filter(|pod| !node::commit_of(pod).is_empty()).collect()
    }

    pub(crate) async fn names(&self) -> Vec<String> {
        self.pods().await.iter().map(ResourceExt::name_any).collect()
    }

    pub(crate) async fn pods_of(&self, commit: &str) -> Vec<Pod> {
        self.pods().await.into_iter().filter(|pod| node::commit_of(pod) == commit).collect()
    }

    /// How many pods of `commit` are ready.
    pub(crate) async fn ready(&self, commit: &str) -> usize {
        self.pods_of(commit).await.iter().filter(|pod| is_ready(pod)).count()
    }

    /// The first pod of `commit` that has a node. Waits for it.
    pub(crate) async fn first_pod_of(&self, commit: &str) -> Pod {
        let has_node = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        self.first_pod(commit, "has a node", has_node).await
    }

    /// The first pod of `commit` for which the kubelet has written a status. Waits for it.
    pub(crate) async fn first_started_pod_of(&self, commit: &str) -> Pod {
        let has_address = |pod: &Pod| pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some());
        self.first_pod(commit, "has an address", has_address).await
    }

    async fn first_pod(&self, commit: &str, what: &str, condition: impl Fn(&Pod) -> bool) -> Pod {
        let found = Mutex::new(None);
        self.until(&format!("a pod {what}"), async || {
            let pod = self.pods_of(commit).await.into_iter().find(&condition);
            let is_there = pod.is_some();
            *found.lock().expect("the lock is not poisoned") = pod;
            is_there
        })
        .await;
        found.into_inner().expect("the lock is not poisoned").expect("the pod was found")
    }

    /// The versions of all objects that the template makes, and of those that the Deployment's controller makes from them.
    pub(crate) async fn versions(&self) -> Vec<Option<String>> {
        let all = ListParams::default();
        let deployments = self.api::<Deployment>().list(&all).await.expect("the objects can be listed");
        let sets = self.api::<ReplicaSet>().list(&all).await.expect("the objects can be listed");
        let services = self.api::<Service>().list(&all).await.expect("the objects can be listed");
        let budgets = self.api::<PodDisruptionBudget>().list(&all).await.expect("the objects can be listed");
        // A budget's resource version changes with the pods, so its generation is compared.
        let generation = |budget: &PodDisruptionBudget| budget.metadata.generation.map(|number| number.to_string());
        let versions = deployments.iter().map(ResourceExt::resource_version);
        let versions = versions.chain(sets.iter().map(ResourceExt::resource_version));
        let versions = versions.chain(services.iter().map(ResourceExt::resource_version));
        versions.chain(budgets.iter().map(generation)).collect()
    }

    /// The commit that each document names: Deployment, pod template, Service, budget.
    pub(crate) async fn carried(&self) -> [String; 4] {
        let deployment = self.deployment().await;
        let service = self.api::<Service>().get(NAME).await.expect("the object exists");
        let budget = self.api::<PodDisruptionBudget>().get(NAME).await.expect("the object exists");
        let template = deployment.spec.as_ref().and_then(|spec| spec.template.metadata.clone()).unwrap_or_default();
        let commit = |metadata: &ObjectMeta| {
            let annotation = metadata.annotations.as_ref().and_then(|annotations| annotations.get(node::COMMIT));
            annotation.cloned().unwrap_or_default()
        };
        [&deployment.metadata, &template, &service.metadata, &budget.metadata].map(commit)
    }

    pub(crate) async fn until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition().await {
            assert!(Instant::now() < deadline, "this did not happen within {PATIENCE:?}: {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The image that the deployer gets.
pub(crate) fn image(commit: &str) -> String {
    format!("registry.example/{NAME}:{}", &commit[..12])
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The deployer's shipped account, its Role and the binding of both.
pub(crate) fn shipped_role() -> Vec<Value> {
    let text = std::fs::read_to_string(ROLE).unwrap_or_else(|error| panic!("cannot read {ROLE}: {error}"));
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{ROLE} is not YAML: {error}"))
}

/// A running deployer.
pub(crate) struct Running {
    child: Child,
    stdout: ChildStdout,
    lines: Arc<Mutex<Vec<String>>>,
    reader: tokio::task::JoinHandle<()>,
    started: Instant,
}

impl Running {
    pub(crate) fn of(mut command: Command) -> Self {
        let started = Instant::now();
        let mut child = command.spawn().expect("the deployer was built");
        let stdout = child.stdout.take().expect("the stream is a pipe");
        let mut stderr = BufReader::new(child.stderr.take().expect("the stream is a pipe")).lines();
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let shared = Arc::clone(&lines);
        let reader = tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                shared.lock().expect("the lock is not poisoned").push(line);
            }
        });
        Self { child, stdout, lines, reader, started }
    }

    pub(crate) fn has_said(&self, words: &str) -> bool {
        self.lines.lock().expect("the lock is not poisoned").iter().any(|line| line.contains(words))
    }

    /// Waits until a line on standard error has `words` in it.
    pub(crate) async fn said(&self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.has_said(words) {
            let lines = || self.lines.lock().expect("the lock is not poisoned").join("\n");
            assert!(Instant::now() < deadline && !self.reader.is_finished(), "{words:?} was not printed:\n{}", lines());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("the deployer still runs").to_string();
        let status = std::process::Command::new("kill").args([signal, &pid]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill {signal} {pid}");
    }

    pub(crate) async fn end(mut self) -> Run {
        let mut stdout = String::new();
        let whole = async {
            self.stdout.read_to_string(&mut stdout).await.expect("standard output is UTF-8");
            (&mut self.reader).await.expect("the reader does not panic");
            self.child.wait().await.expect("the program is a child of this process")
        };
        let status = tokio::time::timeout(Duration::from_mins(4), whole).await;
        let stderr = self.lines.lock().expect("the lock is not poisoned").join("\n");
        let status = status.unwrap_or_else(|_| panic!("the deployer did not end:\n{stderr}"));
        let took = self.started.elapsed();
        let json = serde_json::from_str(&stdout).unwrap_or_default();
        Run { code: status.code().unwrap_or(-1), stderr, stdout, json, took }
    }
}

/// The result of a deployer's run.
#[derive(Debug)]
pub(crate) struct Run {
    /// -1 if it was killed.
    pub(crate) code: i32,
    pub(crate) stderr: String,
    pub(crate) stdout: String,
    /// The document on standard output. Null if there is none.
    pub(crate) json: Value,
    pub(crate) took: Duration,
}

impl Run {
    /// The first line of the verdict: the last line that is neither indented nor a part of the log.
    pub(crate) fn verdict(&self) -> &str {
        let of_log = |line: &str| line.get(..9).is_some_and(|time| time.ends_with('Z') && time.as_bytes()[2] == b':');
        let mut lines = self.stderr.lines().rev();
        lines.find(|line| !line.is_empty() && !line.starts_with(' ') && !of_log(line)).unwrap_or_default()
    }

    /// Checks that exit code, reason and document agree, and that the cause and the verdict's first line have these words.
    #[track_caller]
    pub(crate) fn ends_for(&self, code: i32, reason: &str, words: &[&str]) {
        self.ends_with(code, words);
        assert_eq!(self.json["reason"], reason, "{self}");
        let cause = self.json["cause"].as_str().unwrap_or_default();
        let unsaid = words.iter().find(|words| !cause.contains(**words) && self.json["outcome"] != **words);
        assert_eq!(unsaid, None, "the document's cause does not have these words: {self}");
    }

    /// Checks that exit code and document agree, and that the verdict's first line has all these words.
    #[track_caller]
    pub(crate) fn ends_with(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self}");
        assert_eq!(self.json["exit_code"], code, "{self}");
        for word in words {
            assert!(self.verdict().contains(word), "the verdict's first line does not say {word:?}: {self}");
        }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, stderr, stdout, took, .. } = self;
        write!(f, "exit code {code} after {took:.1?}\n--- standard error\n{stderr}\n--- standard output\n{stdout}")
    }
}

impl Commits {
    fn of(plane: &ControlPlane) -> &'static Self {
        static COMMITS: OnceLock<Commits> = OnceLock::new();
        COMMITS.get_or_init(|| {
            let clone = plane.directory("clone");
            let git = |arguments: &[&str]| {
                let output = std::process::Command::new("git")
                    .args(["-c", "user.name=test", "-c", "user.email=test@example.com"])
                    .args(arguments)
                    .current_dir(&clone)
                    .output()
                    .expect("git is installed");
                assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
                String::from_utf8_lossy(&output.stdout).trim().to_owned()
            };
            let commit = |message: &str| {
                git(&["commit", "--quiet", "--allow-empty", "--message", message]);
                git(&["rev-parse", "HEAD"])
            };
            git(&["init", "--quiet"]);
            let old = commit("old");
            let side = commit("side");
            git(&["reset", "--quiet", "--hard", &old]);
            let (new, newer) = (commit("new"), commit("newer"));
            let line = (0..10).map(|number| commit(&format!("newer by {number}"))).collect();
            Self { clone: clone.clone(), old, new, newer, side, line }
        })
    }
}
