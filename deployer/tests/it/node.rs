//! Nodes without a machine: the test plays their kubelet, and writes what real kubelets wrote.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::network::{Container, KUBELET_PORT, Network};

/// The annotation of a pod that names its commit.
pub(crate) const COMMIT: &str = "request-info.dev/commit";

/// Adds a ready node with room for thousands of pods.
pub(crate) async fn add(client: &Client, name: &str, labels: Value) {
    let nodes = Api::<Node>::all(client.clone());
    let node = json!({"metadata": {"name": name, "labels": labels}});
    nodes
        .create(&PostParams::default(), &serde_json::from_value(node).expect("this JSON is a Node"))
        .await
        .expect("the node can be created");
    let room = json!({"cpu": "1000", "memory": "1000Gi", "pods": "5000"});
    let status = json!({"status": {
        "capacity": room, "allocatable": room,
        "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": KUBELET_PORT}},
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
            "lastHeartbeatTime": now(), "lastTransitionTime": now()}],
    }});
    nodes
        .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
        .await
        .expect("the node's status can be written");
    // Admission adds the taint of a node that is not ready yet, and the controller that would remove it does not run here.
    let untainted = Patch::Merge(json!({"spec": {"taints": null}}));
    nodes.patch(name, &PatchParams::default(), &untainted).await.expect("the node's taints can be removed");
}

/// What a kubelet wrote about a pod in one situation, with its events.
#[derive(Clone, Debug)]
pub(crate) struct Observation {
    status: Value,
    warnings: Value,
}

macro_rules! observations {
    ($($name:ident: $file:literal)*) => {$(
        pub(crate) static $name: LazyLock<Observation> = LazyLock::new(|| Observation::read(include_str!(concat!("../observed/", $file, ".json"))));
    )*};
}

observations! {
    BAD_COMMAND: "badcmd"
    BAD_NAME: "badname"
    CRASH: "crash"
    CRASH_LATER: "crashlater"
    HEALTHY: "healthy"
    LIVENESS_KILL: "livenesskill"
    NEVER_PULLED: "neverpull2"
    NO_CONFIG_MAP: "nocm"
    NO_HANDLER: "nohandler"
    NO_NAME_SERVER: "nodns"
    NO_REPOSITORY: "norepo"
    NO_SECRET: "nosecret2"
    NOT_FOUND: "notfound"
    NOT_READY: "notready"
    OUT_OF_MEMORY: "oom"
    REGISTRY_DOWN: "down"
    ROOT: "nonroot"
}

impl Observation {
    fn read(text: &str) -> Self {
        let mut whole: Value = serde_json::from_str(text).expect("observations are JSON");
        Self { status: whole["pods"][0].take(), warnings: whole["warnings"].take() }
    }

    /// The same, with `from` replaced.
    pub(crate) fn replace(&self, from: &str, to: &str) -> Self {
        let (status, warnings) = (self.status.to_string(), self.warnings.to_string());
        assert!(status.contains(from) || warnings.contains(from), "{status} {warnings} does not contain {from:?}");
        let replaced =
            |text: &str| serde_json::from_str(&text.replace(from, to)).expect("the changed observation is JSON");
        Self { status: replaced(&status), warnings: replaced(&warnings) }
    }

    /// The same with this condition, which replaces one of its type.
    pub(crate) fn with_condition(mut self, condition: Value) -> Self {
        let conditions = self.status["conditions"].as_array_mut().expect("the status has conditions");
        conditions.retain(|found| found["type"] != condition["type"]);
        conditions.push(condition);
        self
    }

    /// The same with another reason for which the container waits.
    pub(crate) fn with_waiting(mut self, reason: &str, message: &str) -> Self {
        self.status["containerStatuses"][0]["state"] = json!({"waiting": {"reason": reason, "message": message}});
        self
    }

    /// The same with one more event.
    pub(crate) fn with_event(mut self, kind: &str, reason: &str, message: &str) -> Self {
        let event = json!({"type": kind, "reason": reason, "message": message, "count": 3});
        self.warnings.as_array_mut().expect("the warnings are a list").push(event);
        self
    }

    /// A pod that the kubelet rejects: `pkg/kubelet/kubelet.go` of Kubernetes 1.34, `rejectPod`.
    pub(crate) fn rejected(reason: &str, message: &str) -> Self {
        let status = json!({"phase": "Failed", "reason": reason, "message": format!("Pod was rejected: {message}")});
        Self { status, warnings: json!([]) }.with_event("Warning", reason, message)
    }

    /// The observation as it would be of `pod`, now.
    fn of(&self, pod: &Pod, address: Ipv4Addr, life: &Life) -> Self {
        let container = &pod.spec.as_ref().expect("pods have a specification").containers[0];
        let observed = self.status["containerStatuses"][0]["image"].as_str().unwrap_or_default();
        let image = container.image.as_deref().unwrap_or_default();
        let observed_id = self.status["containerStatuses"][0]["imageID"].as_str().unwrap_or_default();
        let (_, digest) = observed_id.rsplit_once('@').unwrap_or_default();
        let image_id = if digest.is_empty() {
            String::new()
        } else {
            format!("{}@{digest}", life.repository.as_deref().unwrap_or(repository(image)))
        };
        let Self { mut status, mut warnings } = self.clone();
        rewrite(&mut status, observed, image);
        rewrite(&mut warnings, observed, image);
        for container_status in status["containerStatuses"].as_array_mut().into_iter().flatten() {
            container_status["name"] = json!(container.name);
            container_status["imageID"] = json!(image_id);
        }
        status["podIP"] = json!(address.to_string());
        status["podIPs"] = json!([{"ip": address.to_string()}]);
        Self { status, warnings }
    }
}

/// Replaces the image everywhere, and every time except the epoch by the present.
fn rewrite(value: &mut Value, image: &str, by: &str) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(time)
                        if ["lastTransitionTime", "startedAt", "finishedAt", "startTime"].contains(&key.as_str()) =>
                    {
                        if !time.starts_with("1970") {
                            *time = now();
                        }
                    }
                    value => rewrite(value, image, by),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| rewrite(value, image, by)),
        Value::String(text) if !image.is_empty() => *text = text.replace(image, by),
        _ => {}
    }
}

fn repository(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    image.rsplit_once(':').map_or(image, |(repository, _)| repository)
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Makes the same observation each time.
pub(crate) type Observed = fn() -> Observation;

/// The life of the pods of one commit.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    steps: Vec<(Duration, Observation)>,
    end: Option<Duration>,
    version: Version,
    health: (u16, String),
    log: String,
    repository: Option<String>,
}

/// The commit that a container names.
#[derive(Clone, Debug)]
enum Version {
    Own,
    Of(String),
    Unknown,
}

impl Life {
    /// Each pod gets this status as soon as it has a node.
    pub(crate) fn of(observation: &Observation) -> Self {
        Self {
            steps: vec![(Duration::ZERO, observation.clone())],
            end: Some(Duration::ZERO),
            version: Version::Own,
            health: (200, "ok\n".to_owned()),
            log: String::new(),
            repository: None,
        }
    }

    /// After this many seconds, something else.
    pub(crate) fn then(mut self, seconds: u64, observation: &Observation) -> Self {
        self.steps.push((Duration::from_secs(seconds), observation.clone()));
        self
    }

    /// How many seconds after their deletion the pods are gone; by default at once.
    pub(crate) fn ends_after(self, seconds: u64) -> Self {
        Self { end: Some(Duration::from_secs(seconds)), ..self }
    }

    /// Deleted pods remain, like those of a lost node.
    pub(crate) fn never_ends(self) -> Self {
        Self { end: None, ..self }
    }

    /// The node holds the image under another name.
    pub(crate) fn pulled_as(self, repository: &str) -> Self {
        Self { repository: Some(repository.to_owned()), ..self }
    }

    /// The image contains another commit than its tag says.
    pub(crate) fn serves(self, commit: &str) -> Self {
        Self { version: Version::Of(commit.to_owned()), ..self }
    }

    /// The image does not have the route /version.
    pub(crate) fn knows_no_version(self) -> Self {
        Self { version: Version::Unknown, ..self }
    }

    /// The answer of /healthz.
    pub(crate) fn health(self, status: u16, text: &str) -> Self {
        Self { health: (status, text.to_owned()), ..self }
    }

    /// The containers' log.
    pub(crate) fn log(self, text: &str) -> Self {
        Self { log: text.to_owned(), ..self }
    }
}

/// Plays the kubelet of every node for the pods of one namespace, until it is dropped.
pub(crate) struct Kubelet {
    hand: Hand,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Hand {
    client: Client,
    namespace: String,
    network: &'static Network,
    lives: Arc<Mutex<HashMap<String, Life>>>,
    playing: Arc<Mutex<HashMap<String, JoinHandle<()>>>>,
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
        for (_, task) in self.hand.playing.lock().expect("the lock is not poisoned").drain() {
            task.abort();
        }
    }
}

impl Kubelet {
    pub(crate) fn start(client: &Client, namespace: &str, network: &'static Network) -> Self {
        let hand = Hand {
            client: client.clone(),
            namespace: namespace.to_owned(),
            network,
            lives: Arc::default(),
            playing: Arc::default(),
        };
        let task = tokio::spawn(hand.clone().watch());
        Self { hand, task }
    }

    /// For pods that do not exist yet.
    pub(crate) fn let_later_pods_of(&self, commit: &str, life: Life) {
        self.hand.lives.lock().expect("the lock is not poisoned").insert(commit.to_owned(), life);
    }

    /// For all pods: new ones, and from now on existing ones.
    pub(crate) async fn let_pods_of(&self, commit: &str, life: Life) {
        self.let_later_pods_of(commit, life);
        let pods = self.hand.pods().list(&ListParams::default()).await.expect("the pods can be listed");
        for pod in pods.items.into_iter().filter(|pod| commit_of(pod) == commit && has_node(pod) && !is_over(pod)) {
            self.hand.play(pod);
        }
    }
}

impl Hand {
    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn watch(self) {
        let (mut seen, mut ending) = (HashSet::new(), HashSet::new());
        loop {
            let mut events = pin!(watcher(self.pods(), watcher::Config::default()).applied_objects());
            while let Ok(Some(pod)) = events.try_next().await {
                let uid = pod.uid().expect("a pod of the API server has a uid");
                if pod.metadata.deletion_timestamp.is_some() {
                    if ending.insert(uid) {
                        tokio::spawn(self.clone().end(pod));
                    }
                } else if has_node(&pod) && seen.insert(uid) {
                    self.play(pod);
                }
            }
            // Some tests stop the API server.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn life(&self, pod: &Pod) -> Life {
        let lives = self.lives.lock().expect("the lock is not poisoned");
        lives.get(commit_of(pod)).cloned().unwrap_or_else(|| Life::of(&HEALTHY))
    }

    fn play(&self, pod: Pod) {
        let (hand, life) = (self.clone(), self.life(&pod));
        let uid = pod.uid().expect("a pod of the API server has a uid");
        let task = tokio::spawn(async move {
            for (delay, observation) in &life.steps {
                tokio::time::sleep(*delay).await;
                hand.say(&pod, &life, observation).await;
            }
        });
        if let Some(earlier) = self.playing.lock().expect("the lock is not poisoned").insert(uid, task) {
            earlier.abort();
        }
    }

    async fn say(&self, pod: &Pod, life: &Life, observation: &Observation) {
        let name = pod.name_any();
        let container = Container {
            commit: match &life.version {
                Version::Own => Some(commit_of(pod).to_owned()),
                Version::Of(commit) => Some(commit.clone()),
                Version::Unknown => None,
            },
            health: life.health.clone(),
            log: life.log.clone(),
        };
        let address = self.network.attach(&self.namespace, &name, container);
        let Observation { status, warnings } = observation.of(pod, address, life);
        let uid = pod.uid().expect("a pod of the API server has a uid");
        let events = Api::<Event>::namespaced(self.client.clone(), &self.namespace);
        for warning in warnings.as_array().into_iter().flatten() {
            let event = json!({
                "metadata": {"generateName": format!("{name}."), "namespace": self.namespace},
                "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": self.namespace, "name": name, "uid": uid},
                "type": warning.get("type").unwrap_or(&json!("Warning")),
                "reason": warning["reason"], "message": warning["message"], "count": warning["count"],
                "firstTimestamp": now(), "lastTimestamp": now(), "source": {"component": "kubelet"},
            });
            let event = serde_json::from_value(event).expect("this JSON is an Event");
            events.create(&PostParams::default(), &event).await.ok();
        }
        let patch = Patch::Merge(json!({"metadata": {"uid": uid}, "status": status}));
        while let Err(error) = self.pods().patch_status(&name, &PatchParams::default(), &patch).await {
            match error {
                kube::Error::Api(status) if matches!(status.code, 404 | 409) => return, // the pod is gone
                kube::Error::Api(status) if status.code < 500 => {
                    panic!("the API server refused the status: {status:?}")
                }
                _ => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    async fn end(self, pod: Pod) {
        let Some(delay) = self.life(&pod).end else { return };
        tokio::time::sleep(delay).await;
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        while let Err(error) = self.pods().delete(&pod.name_any(), &parameters).await {
            match error {
                kube::Error::Api(status) if status.code < 500 => return, // it is already gone
                _ => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }
}

pub(crate) fn commit_of(pod: &Pod) -> &str {
    pod.annotations().get(COMMIT).map_or("", String::as_str)
}

/// Whether the kubelet writes nothing more about the pod, for example after an eviction.
fn is_over(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Failed"))
}

fn has_node(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
}
