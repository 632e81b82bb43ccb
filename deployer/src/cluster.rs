//! The API server: one connection, one namespace, and every request but the watches.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use kube::api::{Api, ApiResource, DynamicObject, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, KubeconfigError};
use kube::{Client, Config, Error, ResourceExt as _};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::fields::{self, MANAGER, Taken};
use crate::outcome::{Ending, Outcome};
use crate::rollout::Snapshot;
use crate::template::Document;
use crate::watch::selector;

/// How long the API server may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an API server may be away between two requests of which the second must follow the first.
const OUTAGE: Duration = Duration::from_secs(30);
/// How long a pod may take for an answer through the API server.
const POD_PATIENCE: Duration = Duration::from_secs(5);

/// A namespace of a cluster.
pub(crate) struct Cluster {
    client: Client,
    server: String,
    context: Option<String>,
    namespace: String,
    ahead: SignedDuration,
}

/// Why an object was not written.
pub(crate) enum Unwritten {
    /// It is not what it was when it was read: read and judge again.
    Stale,
    /// The API server does not take it.
    Refused(Error),
}

impl Cluster {
    /// Connects as kubeconfig and `context` say, or from inside a cluster, and reads the cluster's clock.
    /// The namespace is, in this order, `namespace`, the context's, or `default`.
    pub(crate) async fn connect(context: Option<&str>, namespace: Option<&str>) -> Result<Self, Ending> {
        let mut config = match context {
            Some(context) => {
                let options = KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
                Config::from_kubeconfig(&options).await.map_err(|error| unknown_context(context, &error))?
            }
            None => Config::infer().await.map_err(|error| rejected(format!("no cluster is configured: {error}")))?,
        };
        config.connect_timeout = Some(CONNECT);
        // A pod that answers 503 through the proxy is an answer, and retrying it for minutes would hide it.
        config.default_retry = false;
        let server = config.cluster_url.to_string();
        let namespace = namespace.unwrap_or(&config.default_namespace).to_owned();
        let client = Client::try_from(config)
            .map_err(|error| rejected(format!("cannot talk to the API server {server}: {}", chain(&error))))?;
        let mut cluster =
            Self { client, server, context: context.map(str::to_owned), namespace, ahead: SignedDuration::ZERO };
        cluster.ahead = cluster.clock().await?;
        Ok(cluster)
    }

    /// How far the cluster's clock is ahead of ours, from the answer to the first request.
    async fn clock(&self) -> Result<SignedDuration, Ending> {
        let request = http::Request::get("/version").body(Vec::new().into());
        let request = request.map_err(|error| rejected(format!("{}: {error}", self.server)))?;
        let answer = patiently(self.client.send(request)).await;
        let answer = answer.map_err(|error| rejected(self.explain(&error)))?;
        if answer.status() == http::StatusCode::UNAUTHORIZED {
            return Err(rejected(self.unauthorized()));
        }
        let date = answer.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
        let Some(date) = date.and_then(|date| rfc2822::DateTimeParser::new().parse_timestamp(date).ok()) else {
            return Ok(SignedDuration::ZERO);
        };
        let ahead = date.duration_since(Timestamp::now());
        // The date has whole seconds: less than two apart may be no difference at all.
        Ok(if ahead.abs() < SignedDuration::from_secs(2) { SignedDuration::ZERO } else { ahead })
    }

    /// The time by the cluster's clock, which all timestamps in statuses are by.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::now().saturating_add(self.ahead).unwrap_or(Timestamp::MAX)
    }

    /// The namespace.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// `kubectl …` for this namespace, to copy.
    pub(crate) fn kubectl(&self, arguments: &str) -> String {
        let context = self.context.as_ref().map_or_else(String::new, |context| format!(" --context {context}"));
        format!("kubectl{context} -n {} {arguments}", self.namespace)
    }

    /// `deployer COMMAND … NAME` for this namespace, to copy.
    pub(crate) fn deployer(&self, command: &str, name: &str) -> String {
        let context = self.context.as_ref().map_or_else(String::new, |context| format!(" --context {context}"));
        format!("deployer {command}{context} -n {} {name}", self.namespace)
    }

    /// The objects of a kind that is known here, in this namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The objects of a kind of no namespace.
    pub(crate) fn api_of_cluster<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::ClusterResourceScope>,
        K::DynamicType: Default,
    {
        Api::all(self.client.clone())
    }

    /// The objects of any kind in this namespace, with every field that the server sent.
    pub(crate) fn dynamic(&self, resource: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, resource)
    }

    /// What runs under the document's name, if anything.
    pub(crate) async fn live(&self, resource: &ApiResource, name: &str) -> kube::Result<Option<DynamicObject>> {
        patiently(self.dynamic(resource).get_opt(name)).await
    }

    /// Has the server check the document, strictly, as if it were applied over `live`. Returns the fields that the apply
    /// takes from others.
    pub(crate) async fn dry_run(&self, document: &Document, live: Option<&ObjectMeta>) -> kube::Result<Vec<Taken>> {
        let api = self.dynamic(&document.resource());
        let parameters = PatchParams::apply(MANAGER).force().dry_run().validation_strict();
        let patch = Patch::Apply(document.object(None));
        let applied = patiently(api.patch(document.name(), &parameters, &patch)).await?;
        let books = |metadata: &ObjectMeta| metadata.managed_fields.clone().unwrap_or_default();
        Ok(live.map(|live| fields::taken(&books(live), &books(&applied.metadata))).unwrap_or_default())
    }

    /// Writes the document over `live`, and over nothing else: not over what somebody wrote since, and where there was
    /// nothing, not over what somebody has created since.
    ///
    /// Every document names its commit, so that no write of another commit leaves the resource version as it was. Of
    /// two deployers at once the later one is therefore always noticed.
    pub(crate) async fn put(&self, document: &Document, live: Option<&ObjectMeta>) -> Result<DynamicObject, Unwritten> {
        let api = self.dynamic(&document.resource());
        let Some(live) = live else {
            // An apply would create, too, but also change what exists: only a POST is refused then.
            let object = document.object(None);
            let object = serde_json::from_value(object).map_err(Error::SerdeError).map_err(Unwritten::Refused)?;
            let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
            return patiently(api.create(&parameters, &object)).await.map_err(unwritten);
        };
        let mut version = live.resource_version.clone();
        if let Some(books) = fields::migrated(live.managed_fields.as_deref().unwrap_or_default()) {
            let patch = json!({"metadata": {"uid": live.uid, "resourceVersion": version, "managedFields": books}});
            let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
            let migration = api.patch(document.name(), &parameters, &patch);
            version = patiently(migration).await.map_err(unwritten)?.metadata.resource_version;
        }
        let bound = ObjectMeta { uid: live.uid.clone(), resource_version: version, ..ObjectMeta::default() };
        let patch = Patch::Apply(document.object(Some(&bound)));
        let parameters = PatchParams::apply(MANAGER).force().validation_strict();
        patiently(api.patch(document.name(), &parameters, &patch)).await.map_err(unwritten)
    }

    /// Writes a whole object back, if it is still what it was when it was read.
    pub(crate) async fn replace(
        &self,
        resource: &ApiResource,
        object: &DynamicObject,
    ) -> Result<DynamicObject, Unwritten> {
        let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let name = object.metadata.name.as_deref().unwrap_or_default();
        patiently(self.dynamic(resource).replace(name, &parameters, object)).await.map_err(unwritten)
    }

    /// The autoscaler that owns the Deployment's replicas, by name.
    pub(crate) async fn autoscaler(&self, deployment: &str) -> kube::Result<Option<String>> {
        let all = patiently(self.api::<HorizontalPodAutoscaler>().list(&ListParams::default())).await?;
        let targets = |autoscaler: &HorizontalPodAutoscaler| {
            autoscaler.spec.as_ref().is_some_and(|spec| {
                spec.scale_target_ref.kind == "Deployment" && spec.scale_target_ref.name == deployment
            })
        };
        Ok(all.items.into_iter().find(targets).and_then(|autoscaler| autoscaler.metadata.name))
    }

    /// What there is of the Deployment at this moment.
    pub(crate) async fn snapshot(&self, deployment: Deployment) -> kube::Result<Snapshot> {
        let of_deployment = ListParams::default().labels(&selector(&deployment));
        let replica_sets = patiently(self.api::<ReplicaSet>().list(&of_deployment)).await?;
        let pods = patiently(self.api::<Pod>().list(&of_deployment)).await?;
        Ok(Snapshot {
            deployment: Some(Arc::new(deployment)),
            replica_sets: replica_sets.items.into_iter().map(Arc::new).collect(),
            pods: pods.items.into_iter().map(Arc::new).collect(),
            events: None,
        })
    }

    /// The events of one object, the oldest first.
    pub(crate) async fn events(&self, uid: &str) -> kube::Result<Vec<Event>> {
        let of_object = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
        let mut events = patiently(self.api::<Event>().list(&of_object)).await?.items;
        events.sort_by_key(|event| {
            event.last_timestamp.as_ref().map(|time| time.0).or(event.event_time.as_ref().map(|time| time.0))
        });
        Ok(events)
    }

    /// The last lines that a container wrote, in its present or its previous life.
    pub(crate) async fn log_tail(
        &self,
        pod: &str,
        container: &str,
        previous: bool,
        lines: i64,
    ) -> kube::Result<String> {
        let parameters = LogParams {
            container: Some(container.to_owned()),
            previous,
            tail_lines: Some(lines),
            limit_bytes: Some(64 * 1024),
            ..LogParams::default()
        };
        patiently(self.api::<Pod>().logs(pod, &parameters)).await
    }

    /// What the pod's first port answers to GET `path`, asked by the API server.
    pub(crate) async fn get_from_pod(&self, pod: &str, path: &str) -> kube::Result<String> {
        let url = format!("/api/v1/namespaces/{}/pods/{pod}/proxy{path}", self.namespace);
        let request = http::Request::get(url).body(Vec::new()).map_err(Error::HttpError)?;
        within(POD_PATIENCE, self.client.request_text(request)).await
    }

    /// There is no such Deployment, and how to see which there are.
    pub(crate) fn no_deployment(&self, name: &str) -> String {
        let look = self.kubectl("get deployments");
        format!("there is no Deployment {name} in namespace {}: {look}", self.namespace)
    }

    /// The end of a run that could not `do_it`.
    pub(crate) fn ending(&self, do_it: &str, error: &Error) -> Ending {
        rejected(format!("cannot {do_it}: {}", self.explain(error)))
    }

    /// The end of a run whose document was refused in the dry run.
    pub(crate) fn refusal(&self, document: &Document, error: &Error) -> Ending {
        let (kind, name, version) = (document.kind(), document.name(), document.resource().api_version);
        rejected(match error {
            Error::Api(status) if status.code == 404 && !is_of_namespace(status) => {
                format!(
                    "the API server knows no {kind} of {version} in a namespace, and the template has one, {name}: kubectl api-resources"
                )
            }
            error => format!("the dry run of {kind} {name} was refused: {}", self.explain(error)),
        })
    }

    /// What went wrong, and what to do where that is known.
    pub(crate) fn explain(&self, error: &Error) -> String {
        match error {
            Error::Api(status) if status.code == 401 => self.unauthorized(),
            Error::Api(status) if status.code == 404 && is_of_namespace(status) => format!(
                "there is no namespace {} ({}): kubectl create namespace {}",
                self.namespace, status.message, self.namespace
            ),
            Error::Api(status) => status.message.clone(),
            error => format!("the API server {} does not answer: {}", self.server, chain(error)),
        }
    }

    fn unauthorized(&self) -> String {
        format!(
            "the API server {} does not accept the credentials (401 Unauthorized): has the token expired?",
            self.server
        )
    }
}

/// An object with every field that the server sent, as the type that is known here.
pub(crate) fn typed(object: &DynamicObject) -> Result<Deployment, Ending> {
    object.clone().try_parse().map_err(|error| {
        Ending::new(
            Outcome::Rejected,
            format!("the API server's Deployment {} cannot be read: {error}", object.name_any()),
        )
    })
}

/// Asks again while the API server is away: what has begun should not be left half done.
pub(crate) async fn persistently<T>(ask: impl AsyncFn() -> kube::Result<T>) -> kube::Result<T> {
    let deadline = Instant::now() + OUTAGE;
    loop {
        match ask().await {
            Err(error) if is_away(&error) && Instant::now() < deadline => sleep(Duration::from_secs(1)).await,
            answer => return answer,
        }
    }
}

/// Whether an error is that of an API server that is not there, or not ready, and no answer to what was asked. One that
/// has just started knows no role yet and refuses what it will allow.
fn is_away(error: &Error) -> bool {
    match error {
        Error::Api(status) => matches!(status.code, 401 | 403 | 429) || status.code >= 500,
        _ => true,
    }
}

/// The pod's own words in an answer that is no success.
pub(crate) fn answer_of(error: &Error) -> String {
    match error {
        Error::Api(status) => format!("{} {}", status.code, status.message),
        error => chain(error),
    }
}

fn unwritten(error: Error) -> Unwritten {
    match error {
        Error::Api(status) if status.code == 409 => Unwritten::Stale,
        // It was there when it was read.
        Error::Api(status) if status.code == 404 && !is_of_namespace(&status) => Unwritten::Stale,
        error => Unwritten::Refused(error),
    }
}

/// Whether it is the namespace that is not there.
fn is_of_namespace(status: &kube::core::Status) -> bool {
    status.message.starts_with("namespaces ")
}

async fn patiently<T>(request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    within(PATIENCE, request).await
}

async fn within<T>(limit: Duration, request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    tokio::time::timeout(limit, request)
        .await
        .unwrap_or_else(|_| Err(Error::Service(format!("no answer within {} s", limit.as_secs()).into())))
}

fn rejected(cause: String) -> Ending {
    Ending::new(Outcome::Rejected, cause)
}

fn unknown_context(context: &str, error: &KubeconfigError) -> Ending {
    rejected(match error {
        KubeconfigError::LoadContext(_) => {
            format!("there is no context {context:?} in the kubeconfig: kubectl config get-contexts")
        }
        error => format!("context {context:?} of the kubeconfig cannot be used: {error}"),
    })
}

/// An error with its sources, each once: kube's texts repeat some of them.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string().trim_start_matches("ServiceError: ").to_owned();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}
