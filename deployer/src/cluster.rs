//! All requests to the API server except the watches, each with a time limit.

use std::cell::Cell;
use std::time::Duration;

use http::{Method, StatusCode, header};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResourceList, ObjectMeta};
use k8s_openapi::jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use kube::api::{
    Api, ApiResource, DynamicObject, GetParams, ListParams, LogParams, ObjectList, Patch, PatchParams, PostParams,
    WatchParams,
};
use kube::client::{Body, ClientBuilder};
use kube::core::NamespaceResourceScope;
use kube::core::request::{Error as BuildError, Request};
use kube::{Client, Error, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tower::buffer::BufferLayer;
use tower::retry::RetryLayer;

use crate::managed_fields::{self, MANAGER, Taken};
use crate::outcome::{Ending, Reason};
use crate::place::Place;
use crate::retry::AsTold;
use crate::template::Document;
use crate::{kubeconfig, pod};

/// The time limit of a request.
const PATIENCE: Duration = Duration::from_secs(30);
/// The time limit of a connection attempt.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the API server may be unreachable after something was changed, because a started rollout should be finished.
const OUTAGE: Duration = Duration::from_secs(30);
/// How many times a busy API server is asked before anything was changed.
const ATTEMPTS: u32 = 3;
/// How many requests may wait to be sent.
const REQUESTS: usize = 64;
/// The time limit of a request to a pod through the API server.
pub(crate) const POD_PATIENCE: Duration = Duration::from_secs(5);
/// The resources of the shipped Role.
const ROLE: [&str; 7] =
    ["deployments", "replicasets", "pods", "events", "services", "poddisruptionbudgets", "horizontalpodautoscalers"];

/// The least number of seconds by which the clock that wrote `date` is ahead. It wrote `date` between a request and its answer,
/// which may be seconds apart on a busy machine.
fn ahead(date: Timestamp, sent: Timestamp, received: Timestamp) -> SignedDuration {
    let behind = (date + SignedDuration::from_secs(1)).duration_since(sent).min(SignedDuration::ZERO);
    date.duration_since(received).max(SignedDuration::ZERO) + behind
}

/// A namespace of a cluster.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    server: String,
    /// Which one.
    pub(crate) place: Place,
    /// How far the cluster's clock is ahead of ours, from the answer to the first request.
    ahead: Cell<Option<SignedDuration>>,
    /// Whether anything was already changed.
    changed: bool,
}

/// Why an object was not written.
pub(crate) enum Unwritten {
    /// It changed since it was read, so it must be read and judged again.
    Stale,
    /// The answer was lost, so it is unknown whether it was written.
    Lost,
    /// The API server refused it.
    Refused(Error),
}

impl Cluster {
    /// Connects by the kubeconfig and `context`, or from inside a cluster. The namespace is `namespace`, else the context's,
    /// else `default`.
    pub(crate) async fn connect(context: Option<&str>, namespace: Option<&str>) -> Result<Self, Ending> {
        let mut config = kubeconfig::load(context).await?;
        config.connect_timeout = Some(CONNECT);
        // A pod that answers 503 through the proxy is an answer, and repeating it for minutes would hide it.
        config.default_retry = false;
        let server = config.cluster_url.to_string();
        let namespace = namespace.unwrap_or(&config.default_namespace).to_owned();
        let place = Place { context: context.map(str::to_owned), namespace };
        // This runs a credential plugin, and a signal does not end the wait for it.
        let client = tokio::task::spawn_blocking(move || {
            let builder = ClientBuilder::try_from(config)?.with_layer(&BufferLayer::new(REQUESTS));
            kube::Result::Ok(builder.with_layer(&RetryLayer::new(AsTold::default())).build())
        });
        let unusable = |reason, error: &dyn std::error::Error| {
            Ending::new(reason, format!("cannot talk to the API server {server}: {}", chain(error)))
        };
        let client = match timeout(2 * PATIENCE, client).await {
            Ok(Ok(Ok(client))) => client,
            Ok(Ok(Err(error @ Error::Auth(_)))) => return Err(unusable(Reason::CredentialPluginFailed, &error)),
            Ok(Ok(Err(error))) => return Err(unusable(Reason::KubeconfigInvalid, &error)),
            Ok(Err(error)) => return Err(unusable(Reason::KubeconfigInvalid, &error)),
            Err(error) => return Err(unusable(Reason::CredentialPluginFailed, &error)),
        };
        Ok(Self { client, server, place, ahead: Cell::new(None), changed: false })
    }

    /// The same, for requests after something was changed: they wait for an unreachable API server, and a failure leaves the
    /// rollout undecided.
    pub(crate) fn after_change(&self) -> Self {
        Self { changed: true, ..self.clone() }
    }

    /// The time by the cluster's clock, which also writes the timestamps in statuses.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::now().saturating_add(self.ahead.get().unwrap_or_default()).unwrap_or(Timestamp::MAX)
    }

    /// The objects of a kind in this namespace, to be watched.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.place.namespace)
    }

    fn request<K>(&self) -> Request
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Request::new(K::url_path(&K::DynamicType::default(), Some(&self.place.namespace)))
    }

    fn request_of(&self, resource: &ApiResource) -> Request {
        Request::new(DynamicObject::url_path(resource, Some(&self.place.namespace)))
    }

    /// Sends a request, and repeats it while the API server is busy, or unreachable during a rollout.
    async fn ask<T: DeserializeOwned>(&self, request: Result<http::Request<Vec<u8>>, BuildError>) -> kube::Result<T> {
        let request = request.map_err(Error::BuildRequest)?;
        let deadline = Instant::now() + OUTAGE;
        let mut attempt = 0;
        loop {
            let error = match self.send(request.clone(), PATIENCE).await {
                Ok(answer) => return serde_json::from_slice(&answer).map_err(Error::SerdeError),
                Err(error) => error,
            };
            attempt += 1;
            if !self.is_worth_repeating(&error, request.method(), attempt, deadline) {
                return Err(error);
            }
            sleep(Duration::from_millis(125 << attempt.min(3))).await;
        }
    }

    /// Every request may be repeated, because each write is bound to the state that was read. A read whose connection was
    /// reset is repeated at once. After such a write, the state is read and judged again.
    fn is_worth_repeating(&self, error: &Error, method: &Method, attempt: u32, deadline: Instant) -> bool {
        let is_late = Instant::now() >= deadline;
        match error {
            Error::Api(status) if status.message.contains("typed patch object") => false, // the document is wrong
            Error::Api(status) if status.code == 429 || status.code >= 500 => {
                if self.changed {
                    !is_late
                } else {
                    attempt < ATTEMPTS
                }
            }
            // An API server that has just started does not know the roles yet, and refuses what it will allow later.
            Error::Api(status) if matches!(status.code, 401 | 403) => self.changed && !is_late,
            Error::Api(_) => false,
            _ if method != Method::GET => false,
            _ => {
                if self.changed {
                    !is_late
                } else {
                    attempt < 2 && !is_timeout(error)
                }
            }
        }
    }

    /// One request and the whole answer to it.
    async fn send(&self, request: http::Request<Vec<u8>>, limit: Duration) -> kube::Result<Vec<u8>> {
        let answer = async {
            let sent = Timestamp::now();
            let (head, body) = self.client.send(request.map(Body::from)).await?.into_parts();
            self.set_clock(head.headers.get(header::DATE).and_then(|date| date.to_str().ok()), sent);
            let body = body.collect_bytes().await?;
            if head.status.is_success() { Ok(body.to_vec()) } else { Err(refused(head.status, &body)) }
        };
        timeout(limit, answer).await.unwrap_or_else(|_| Err(late(limit)))
    }

    fn set_clock(&self, date: Option<&str>, sent: Timestamp) {
        if self.ahead.get().is_none()
            && let Some(date) = date.and_then(|date| rfc2822::DateTimeParser::new().parse_timestamp(date).ok())
        {
            self.ahead.set(Some(ahead(date, sent, Timestamp::now())));
        }
    }

    /// Whether a watch is allowed, which the head of the answer says.
    pub(crate) async fn may_watch<K>(&self, fields: &str, labels: &str) -> kube::Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        let parameters = WatchParams::default().timeout(1).fields(fields).labels(labels);
        let request = self.request::<K>().watch(&parameters, "0").map_err(Error::BuildRequest)?;
        let answer = async {
            let answer = self.client.send(request.map(Body::from)).await?;
            let status = answer.status();
            if status.is_success() { Ok(()) } else { Err(refused(status, &answer.into_body().collect_bytes().await?)) }
        };
        timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(late(PATIENCE)))
    }

    /// The live object of the document's name, if it exists.
    pub(crate) async fn live(&self, resource: &ApiResource, name: &str) -> kube::Result<Option<DynamicObject>> {
        match self.ask(self.request_of(resource).get(name, &GetParams::default())).await {
            Err(Error::Api(status)) if status.code == 404 => Ok(None),
            found => found.map(Some),
        }
    }

    /// The Deployment of this name, with every field that the server sent.
    pub(crate) async fn deployment(&self, name: &str) -> Result<DynamicObject, Ending> {
        let live = self.live(&ApiResource::erase::<Deployment>(&()), name).await;
        let live = live.map_err(|error| self.ending(&format!("read Deployment {name}"), &error))?;
        live.ok_or_else(|| {
            let (namespace, look) = (&self.place.namespace, self.place.kubectl("get deployments"));
            let cause = format!("there is no Deployment {name} in namespace {namespace}: {look}");
            Ending::new(Reason::DeploymentMissing, cause)
        })
    }

    /// The objects of a kind with these labels, with every field that the server sent.
    pub(crate) async fn list(&self, resource: &ApiResource, labels: &str) -> kube::Result<Vec<DynamicObject>> {
        let parameters = ListParams::default().labels(labels);
        let list: ObjectList<DynamicObject> = self.ask(self.request_of(resource).list(&parameters)).await?;
        Ok(list.items)
    }

    /// The plural of the document's kind. It can be formed for Kubernetes's own kinds. For others, the API server is asked.
    pub(crate) async fn resource_of(&self, document: &Document) -> kube::Result<ApiResource> {
        let mut resource = document.resource();
        if !resource.group.contains('.') || resource.group.ends_with(".k8s.io") {
            return Ok(resource);
        }
        let path = format!("/apis/{}", resource.api_version);
        let request = http::Request::get(path).body(Vec::new()).map_err(BuildError::BuildRequest);
        let known: kube::Result<APIResourceList> = self.ask(request).await;
        match known {
            Err(Error::Api(status)) if status.code == 404 => {} // the dry run says what is missing
            known => {
                let of_kind = |found: &_| {
                    let k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource { kind, name, .. } = found;
                    *kind == resource.kind && !name.contains('/')
                };
                if let Some(found) = known?.resources.into_iter().find(of_kind) {
                    resource.plural = found.name;
                }
            }
        }
        Ok(resource)
    }

    /// Has the server check the document, strictly, as if it were written over `live`, by the verb that will write it.
    /// Returns the fields that the write takes from others.
    pub(crate) async fn dry_run(&self, document: &Document, live: Option<&ObjectMeta>) -> kube::Result<Vec<Taken>> {
        let Some(live) = live else { return self.dry_create(document).await };
        let parameters = PatchParams::apply(MANAGER).force().dry_run().validation_strict();
        let patch = Patch::Apply(document.object(None));
        let request = self.request_of(&document.resource()).patch(document.name(), &parameters, &patch);
        let managed = live.managed_fields.as_deref().unwrap_or_default();
        match self.ask::<DynamicObject>(request).await {
            Ok(applied) => Ok(managed_fields::taken(managed, &applied.metadata.managed_fields.unwrap_or_default())),
            // The fields in the way may be ones that the write migrates first, for example two members of a union. A
            // dry-run creation tells whether the document itself is valid, before it finds that the name is taken.
            Err(Error::Api(status))
                if status.code == 422
                    && !status.message.contains("immutable")
                    && managed_fields::migrated(managed).is_some() =>
            {
                self.dry_create(document).await
            }
            Err(error) => Err(error),
        }
    }

    async fn dry_create(&self, document: &Document) -> kube::Result<Vec<Taken>> {
        match self.create(document, true).await {
            // The document was accepted; only the name is taken.
            Err(Error::Api(status)) if status.code == 409 => Ok(Vec::new()),
            created => created.map(|_| Vec::new()),
        }
    }

    /// Whether the object could be replaced, as a rollback does.
    pub(crate) async fn dry_replace(&self, live: &DynamicObject) -> kube::Result<()> {
        self.replace_by(live, true).await.map(|_| ())
    }

    async fn create(&self, document: &Document, dry_run: bool) -> kube::Result<DynamicObject> {
        let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), dry_run };
        let body = document.object(None).to_string().into_bytes();
        let mut request = self.request_of(&document.resource()).create(&parameters, body);
        if let Ok(request) = &mut request {
            strictly(request);
        }
        self.ask(request).await
    }

    /// Writes the document if the object has not changed since `live` was read, or still does not exist if `live` is None.
    ///
    /// Every document names its commit, so a write of another commit always changes the resource version. If two deployers
    /// run at once, the later write is therefore always noticed.
    pub(crate) async fn put(&self, document: &Document, live: Option<&ObjectMeta>) -> Result<DynamicObject, Unwritten> {
        let Some(live) = live else {
            // An apply would also create the object, but it would change an existing one. A POST is refused in that case.
            return self.create(document, false).await.map_err(unwritten);
        };
        let request = self.request_of(&document.resource());
        let mut version = live.resource_version.clone();
        if let Some(managed) = managed_fields::migrated(live.managed_fields.as_deref().unwrap_or_default()) {
            let patch = json!({"metadata": {"uid": live.uid, "resourceVersion": version, "managedFields": managed}});
            let migration = request.patch(document.name(), &PatchParams::default(), &Patch::Merge(patch));
            version = self.ask::<DynamicObject>(migration).await.map_err(unwritten)?.metadata.resource_version;
        }
        let bound = ObjectMeta { uid: live.uid.clone(), resource_version: version, ..ObjectMeta::default() };
        let patch = Patch::Apply(document.object(Some(&bound)));
        let parameters = PatchParams::apply(MANAGER).force().validation_strict();
        self.ask(request.patch(document.name(), &parameters, &patch)).await.map_err(unwritten)
    }

    /// Writes a whole Deployment back, if it is still what it was when it was read.
    pub(crate) async fn replace(&self, object: &DynamicObject) -> Result<DynamicObject, Unwritten> {
        self.replace_by(object, false).await.map_err(unwritten)
    }

    async fn replace_by(&self, object: &DynamicObject, dry_run: bool) -> kube::Result<DynamicObject> {
        let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), dry_run };
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let body = serde_json::to_vec(object).map_err(Error::SerdeError)?;
        self.ask(self.request::<Deployment>().replace(name, &parameters, body)).await
    }

    /// The autoscaler that owns the Deployment's replicas, by name.
    pub(crate) async fn autoscaler(&self, deployment: &str) -> kube::Result<Option<String>> {
        let request = self.request::<HorizontalPodAutoscaler>().list(&ListParams::default());
        let all: ObjectList<HorizontalPodAutoscaler> = self.ask(request).await?;
        let targets = |autoscaler: &HorizontalPodAutoscaler| {
            autoscaler.spec.as_ref().is_some_and(|spec| {
                spec.scale_target_ref.kind == "Deployment" && spec.scale_target_ref.name == deployment
            })
        };
        Ok(all.items.into_iter().find(targets).and_then(|autoscaler| autoscaler.metadata.name))
    }

    /// The events of one object, the oldest first.
    pub(crate) async fn events(&self, uid: &str) -> kube::Result<Vec<Event>> {
        let of_object = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
        let mut events: ObjectList<Event> = self.ask(self.request::<Event>().list(&of_object)).await?;
        events.items.sort_by_key(pod::last_seen);
        Ok(events.items)
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
        let request = self.request::<Pod>().logs(pod, &parameters).map_err(Error::BuildRequest)?;
        self.text(request, PATIENCE).await
    }

    /// The answer of the pod's first port to GET `path`, through the API server.
    pub(crate) async fn get_from_pod(&self, pod: &str, path: &str) -> kube::Result<String> {
        let url = format!("/api/v1/namespaces/{}/pods/{pod}/proxy{path}", self.place.namespace);
        self.text(http::Request::get(url).body(Vec::new()).map_err(Error::HttpError)?, POD_PATIENCE).await
    }

    async fn text(&self, request: http::Request<Vec<u8>>, limit: Duration) -> kube::Result<String> {
        let answer = self.send(request, limit).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// The outcome of a run that could not `do_it`. Only this function turns an answer of the API server into an exit code.
    pub(crate) fn ending(&self, do_it: &str, error: &Error) -> Ending {
        let reason = match error {
            _ if self.changed => Reason::AccessLost,
            Error::Api(status) => match status.code {
                401 => Reason::Unauthorized,
                403 if missing_verb(&status.message).is_some() => Reason::Forbidden,
                429 | 500.. => Reason::ApiServerUnreachable,
                _ => Reason::DocumentRefused,
            },
            Error::Auth(_) => Reason::CredentialPluginFailed,
            Error::SerdeError(_) => Reason::DocumentRefused,
            _ => Reason::ApiServerUnreachable,
        };
        let continues = if self.changed { "; the rollout continues" } else { "" };
        Ending::new(reason, format!("cannot {do_it}: {}{continues}", self.explain(error)))
    }

    /// The outcome of a run whose document was refused in the dry run.
    pub(crate) fn refusal(&self, document: &Document, error: &Error) -> Ending {
        let (kind, name, version) = (document.kind(), document.name(), document.resource().api_version);
        match error {
            Error::Api(status) if status.code == 404 && !is_of_namespace(status) => Ending::new(
                Reason::DocumentRefused,
                format!(
                    "the API server has no namespaced kind {kind} in {version}, which the template uses for {name}: kubectl api-resources"
                ),
            ),
            // Server-side apply uses this status for unknown fields, too.
            Error::Api(status) if status.code == 500 => Ending::new(
                Reason::DocumentRefused,
                format!("the dry run of {kind} {name} was refused: {}", status.message),
            ),
            error => self.ending(&format!("check {kind} {name} in a dry run"), error),
        }
    }

    /// What went wrong, and what to do if that is known.
    pub(crate) fn explain(&self, error: &Error) -> String {
        let namespace = &self.place.namespace;
        match error {
            Error::Api(status) if status.code == 401 => format!(
                "the API server {} does not accept the credentials (401 Unauthorized): has the token expired?",
                self.server
            ),
            Error::Api(status) if status.code == 404 && is_of_namespace(status) => {
                format!("there is no namespace {namespace} ({}): kubectl create namespace {namespace}", status.message)
            }
            Error::Api(status) if status.code == 403 => match missing_verb(&status.message) {
                Some((verb, resource)) => {
                    let kind = resource.split('/').next().unwrap_or_default();
                    let role = "; kubernetes/deployer-rbac.yaml has the Role that allows it";
                    let role = if ROLE.contains(&kind) { role } else { "; add it to the shipped Role" };
                    format!("forbidden in namespace {namespace}: {verb} {resource}{role}")
                }
                None => status.message.clone(),
            },
            Error::Api(status) => status.message.clone(),
            error => format!("the API server {} does not answer: {}", self.server, chain(error)),
        }
    }
}

/// Makes unknown fields and duplicates errors where kube has no option for that.
fn strictly(request: &mut http::Request<Vec<u8>>) {
    let joint = if request.uri().query().is_some() { '&' } else { '?' };
    if let Ok(uri) = format!("{}{joint}fieldValidation=Strict", request.uri()).parse() {
        *request.uri_mut() = uri;
    }
}

/// An unsuccessful answer. One that is not the API server's own is shown unchanged.
fn refused(status: StatusCode, body: &[u8]) -> Error {
    let own = serde_json::from_slice(body).ok().filter(|own: &kube::core::Status| own.code != 0);
    let text = || {
        let text = String::from_utf8_lossy(body).trim().to_owned();
        kube::core::Status::failure(&text, "").with_code(status.as_u16())
    };
    Error::Api(Box::new(own.unwrap_or_else(text)))
}

/// The verb and the resource that are forbidden:
/// <https://github.com/kubernetes/kubernetes/blob/v1.34.0/staging/src/k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go>
fn missing_verb(message: &str) -> Option<(&str, &str)> {
    let (_, what) = message.split_once(" cannot ")?;
    let (verb, what) = what.split_once(" resource \"")?;
    Some((verb, what.split_once('"')?.0))
}

#[derive(Debug)]
struct Late(Duration);

impl std::fmt::Display for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no answer within {} s", self.0.as_secs())
    }
}

impl std::error::Error for Late {}

fn late(limit: Duration) -> Error {
    Error::Service(Late(limit).into())
}

fn is_timeout(error: &Error) -> bool {
    matches!(error, Error::Service(error) if error.is::<Late>())
}

/// The text of an unsuccessful answer from a pod.
pub(crate) fn answer_of(error: &Error) -> String {
    match error {
        Error::Api(status) => format!("{} {}", status.code, status.message),
        error => chain(error),
    }
}

fn unwritten(error: Error) -> Unwritten {
    match error {
        Error::Api(status) if status.code == 409 => Unwritten::Stale,
        // It was deleted after it was read.
        Error::Api(status) if status.code == 404 && !is_of_namespace(&status) => Unwritten::Stale,
        Error::Api(_) | Error::BuildRequest(_) | Error::Auth(_) => Unwritten::Refused(error),
        _ => Unwritten::Lost,
    }
}

/// Whether the namespace does not exist.
fn is_of_namespace(status: &kube::core::Status) -> bool {
    status.message.starts_with("namespaces ")
}

/// An error with its sources, without the repetitions in kube's texts.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_ahead_or_behind_only_as_far_as_request_and_answer_prove_it() {
        let at = |millis: i64| Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap();
        // The date of the answer, when the request was sent, when the answer came; and by how much the clock is ahead.
        let cases = [
            (0, 100, 200, 0),
            (0, 900, 4_500, 0), // a busy machine
            (0, 950, 1_050, 0),
            (0, -3_000, -2_500, 2_500),
            (0, 5_000, 5_500, -4_000),
        ];
        for (date, sent, received, expected) in cases {
            let found = ahead(at(date), at(sent), at(received));
            assert_eq!(found, SignedDuration::from_millis(expected), "{date} {sent} {received}");
        }
    }
}
