//! What a pod's status, its events and its `ReplicaSet` mean for the rollout. Pure.
//!
//! A failure is certain, or it is a doubt. A doubt may still resolve itself, and the cluster's progress deadline ends the
//! wait for that.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, ReplicaSet};
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use crate::cause::{At, Cause, Probe, Pull, Refusal, Restarts};
use crate::pod;
use crate::target::Target;

/// How long a kubelet may say that a `ConfigMap` or Secret is missing: its caches lag behind the API server.
const CONFIGURATION_GRACE: SignedDuration = SignedDuration::from_secs(10);
/// How long quota or admission may refuse all pods before that is a failure.
const CREATION_GRACE: SignedDuration = SignedDuration::from_secs(10);
/// How long the scheduler may find no node, unless an autoscaler adds one.
const SCHEDULING_GRACE: SignedDuration = SignedDuration::from_secs(60);
/// How long a pod may be without a sandbox before its events are read.
const PATIENCE: SignedDuration = SignedDuration::from_secs(5);
/// The rollout fails at this many failed sandboxes of a pod.
const SANDBOX_ATTEMPTS: i32 = 3;
/// The rollout fails at this many pods that the kubelet rejects for one reason.
const REJECTIONS: usize = 3;

/// The result of a check.
#[derive(Debug)]
pub(crate) enum Finding {
    /// The check found nothing wrong.
    Fine,
    /// The status says nothing. From this time on, events may explain it.
    Unclear(Timestamp),
    /// It may still succeed. At this time, it becomes certain without any other change.
    Doubt(Cause, Option<Timestamp>),
    /// It will not succeed.
    Doomed(Cause),
}

/// What the checks need to know besides the objects that they check.
pub(crate) struct Checks<'a> {
    pub(crate) target: &'a Target,
    pub(crate) now: Timestamp,
    /// The events of one pod, by its uid, if they were requested.
    pub(crate) events: Option<&'a (String, Vec<Arc<Event>>)>,
    /// Until when old pods may be terminating. They then free room on nodes and in quotas.
    pub(crate) room_until: Option<Timestamp>,
    /// When the last terminating pod was gone.
    pub(crate) room_since: Option<Timestamp>,
}

impl Checks<'_> {
    /// Judges a pod of the new revision.
    pub(crate) fn pod(&self, pod: &Pod) -> Finding {
        let mut worst = Finding::Fine;
        for status in pod::container_statuses(pod) {
            match self.container(pod, status) {
                Finding::Doomed(cause) if self.target.is_news(pod) && !self.only_waits(pod, status) => {
                    return Finding::Doomed(cause);
                }
                // The cause may have been repaired, but the kubelet has not tried again since.
                Finding::Doomed(cause) => worst = Finding::Doubt(cause, None),
                doubt @ Finding::Doubt(..) if matches!(worst, Finding::Fine) => worst = doubt,
                _ => {}
            }
        }
        if !matches!(worst, Finding::Fine) {
            return worst;
        }
        match pod::unschedulable(pod) {
            Some((since, message)) => self.unscheduled(pod, since, message),
            None => self.creating(pod),
        }
    }

    /// Whether the kubelet has not tried again since this run began, although the status is newer. A few seconds after a
    /// failed attempt, the kubelet writes that it waits.
    fn only_waits(&self, pod: &Pod, status: &ContainerStatus) -> bool {
        let was = self.target.was(pod).and_then(|was| pod::container_statuses(was).find(|was| was.name == status.name));
        let (Some(was), Some(begun)) = (was, self.target.begun) else { return false };
        match pod::waiting(status).0 {
            "ImagePullBackOff" => pod::waiting(was).0 == "ErrImagePull",
            "CrashLoopBackOff" => {
                let ended = pod::ends(status).filter_map(|end| end.finished_at.as_ref()).map(|time| time.0).max();
                ended.is_some_and(|ended| ended < begun)
            }
            _ => false,
        }
    }

    fn events_of(&self, pod: &Pod) -> Option<&[Arc<Event>]> {
        let (uid, events) = self.events?;
        (Some(uid) == pod.metadata.uid.as_ref()).then_some(events.as_slice())
    }

    fn container(&self, pod: &Pod, status: &ContainerStatus) -> Finding {
        let (reason, message) = pod::waiting(status);
        let said = message.to_owned();
        match reason {
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
                let pull = pull_failure(reason, message, &status.image);
                let cause = Cause::Image { image: status.image.clone(), pull, said };
                return match pull {
                    Pull::Failed | Pull::TooOften => Finding::Doubt(cause, None),
                    _ => Finding::Doomed(cause),
                };
            }
            "CreateContainerConfigError" => {
                let root = ["runAsNonRoot", "non-root policy"].iter().any(|words| message.contains(words));
                let certain = self.target.since(pod::status_since(pod)) + CONFIGURATION_GRACE;
                return self.from(certain, Cause::Config { at: at(pod, status), root, said });
            }
            "PostStartHookError" => {
                let restarts = Restarts { count: status.restart_count, settled: status.restart_count >= 1 };
                let cause = Cause::PostStartHook { at: at(pod, status), restarts, said };
                return if restarts.settled { Finding::Doomed(cause) } else { Finding::Doubt(cause, None) };
            }
            "CreateContainerError" | "RunContainerError" => {
                // The kubelet uses these words when it runs out of time, and then tries again.
                let late = ["deadline exceeded", "is reserved for", "timed out"];
                let settled = reason == "RunContainerError" || !late.iter().any(|words| message.contains(words));
                let cause = Cause::CannotStart { at: at(pod, status), settled, said };
                return if settled { Finding::Doomed(cause) } else { Finding::Doubt(cause, None) };
            }
            _ => {}
        }
        let unstarted =
            pod::ends(status).find(|end| matches!(end.reason.as_deref(), Some("StartError" | "ContainerCannotRun")));
        match unstarted {
            Some(end) => {
                let said = end.message.clone().unwrap_or_else(|| "no reason given".to_owned());
                Finding::Doomed(Cause::CannotStart { at: at(pod, status), settled: true, said })
            }
            None => self.crash(pod, status, reason == "CrashLoopBackOff"),
        }
    }

    /// Restarts count if this rollout created the pod. An older pod may have restarted before this rollout.
    fn crash(&self, pod: &Pod, status: &ContainerStatus, is_looping: bool) -> Finding {
        let is_young = self.target.made(pod);
        let killed = pod::ends(status).filter(|end| end.reason.as_deref() == Some("OOMKilled")).count();
        let settled = is_looping || (is_young && status.restart_count >= 2) || killed >= 2;
        // An init container that exited with 0 has done its work.
        let end = pod::ends(status).next().filter(|end| end.exit_code != 0 || !pod::is_init(pod, &status.name));
        if !settled && (end.is_none() || !is_young) {
            return Finding::Fine;
        }
        let restarts = Restarts { count: status.restart_count, settled };
        let (at, limit) = (at(pod, status), pod::memory_limit(pod, &status.name));
        let said = end.and_then(|end| end.message.clone()).unwrap_or_default();
        let events = self.events_of(pod);
        let ended_by = events.and_then(|events| killer(events, &status.name));
        // Only events say what killed it.
        let is_told = events.is_some() || killed > 0;
        let cause = if killed > 0 {
            Cause::OutOfMemory { at, limit, restarts }
        } else if let Some((None, said)) = ended_by {
            Cause::PostStartHook { at, restarts, said }
        } else if let Some((Some(probe), said)) = ended_by {
            Cause::Killed { at, probe, restarts, said }
        } else if pod::is_of_spin(pod)
            && end.is_some_and(|end| end.exit_code == 137 && end.reason.as_deref() == Some("Error"))
        {
            Cause::ShimEnded { at, limit, restarts }
        } else {
            Cause::Crash { at, code: end.map(|end| end.exit_code), restarts, said }
        };
        if settled && is_told { Finding::Doomed(cause) } else { Finding::Doubt(cause, None) }
    }

    fn from(&self, certain: Timestamp, cause: Cause) -> Finding {
        if self.now < certain { Finding::Doubt(cause, Some(certain)) } else { Finding::Doomed(cause) }
    }

    fn unscheduled(&self, pod: &Pod, since: Timestamp, message: &str) -> Finding {
        let cause = |node_comes| Cause::Unschedulable { pod: pod.name_any(), node_comes, said: message.to_owned() };
        let nominated = pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
        if nominated.is_some_and(|node| !node.is_empty()) || self.room_until.is_some() {
            return Finding::Doubt(cause(None), self.room_until);
        }
        let Some(events) = self.events_of(pod) else {
            return Finding::Doubt(cause(None), None);
        };
        let adds = |event: &&Arc<Event>| matches!(event.reason.as_deref(), Some("TriggeredScaleUp" | "Nominated"));
        if let Some(event) = events.iter().find(adds) {
            let text = event.message.clone().unwrap_or_else(|| "a node is being added".to_owned());
            return Finding::Doubt(cause(Some(text)), None);
        }
        let since = self.target.since(since).max(self.room_since.unwrap_or(since));
        self.from(since + SCHEDULING_GRACE, cause(None))
    }

    /// Only its events explain why a pod with a node lacks a sandbox or a volume.
    fn creating(&self, pod: &Pod) -> Finding {
        let Some(scheduled) = pod::scheduled_since(pod) else { return Finding::Fine };
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
        let is_creating = |status| matches!(pod::waiting(status).0, "ContainerCreating" | "PodInitializing");
        let has_sandbox =
            pod::condition(pod, "PodReadyToStartContainers").is_some_and(|created| created.status == "True");
        if has_sandbox || !statuses.iter().all(is_creating) {
            return Finding::Fine;
        }
        let Some(events) = self.events_of(pod) else {
            return Finding::Unclear(scheduled + PATIENCE);
        };
        let is_news = |event: &Event| {
            // Timestamps have whole seconds.
            let (begun, seen) = (self.target.begun, pod::last_seen(event));
            self.target.made(pod)
                || begun.is_none_or(|begun| seen.is_none_or(|seen| seen.as_second() >= begun.as_second()))
        };
        let of = |reasons: &'static [&str]| {
            let named = |event: &Event| event.reason.as_deref().is_some_and(|reason| reasons.contains(&reason));
            events.iter().filter(move |event| named(event) && is_news(event))
        };
        if let Some(event) = of(&["FailedCreatePodSandBox"]).next_back() {
            let said = event.message.clone().unwrap_or_else(|| "no reason given".to_owned());
            let class = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.clone());
            let handler = ["no runtime for", "runtime handler"].iter().any(|words| said.contains(words));
            // The network of a node that has just joined may not be ready yet.
            let passes = ["network", "cni", "CNI"].iter().any(|word| said.contains(word));
            let times = of(&["FailedCreatePodSandBox"]).map(|event| pod::occurrences(event)).sum::<i32>();
            let cause = Cause::Sandbox { pod: pod::located(pod), class, handler, said };
            let is_certain = !passes && times >= SANDBOX_ATTEMPTS;
            return if is_certain { Finding::Doomed(cause) } else { Finding::Doubt(cause, None) };
        }
        match of(&["FailedMount", "FailedAttachVolume"]).next_back() {
            Some(event) => {
                let said = event.message.clone().unwrap_or_default();
                Finding::Doubt(Cause::Mount { pod: pod::located(pod), said }, None)
            }
            None => Finding::Fine,
        }
    }

    /// Quota, admission and limit ranges refuse a pod before it exists.
    pub(crate) fn creation(&self, deployment: &Deployment, set: Option<&ReplicaSet>, new: &[&Arc<Pod>]) -> Finding {
        let Some((said, refused)) = refusal(deployment, set, self.now) else { return Finding::Fine };
        let since = self.target.since(refused);
        if new.iter().any(|pod| pod::created(pod) > since) {
            return Finding::Fine;
        }
        let refusal = match said.as_str() {
            said if said.contains("RuntimeClass") => Refusal::RuntimeClassMissing,
            said if said.contains("exceeded quota") => Refusal::Quota,
            said if said.contains("failed calling webhook") => Refusal::WebhookAway,
            _ => Refusal::Other,
        };
        let cause = Cause::NoPod { refusal, said };
        let is_stale = self.target.applied.is_none() && self.target.begun.is_some_and(|begun| refused < begun);
        match refusal {
            _ if is_stale => Finding::Doubt(cause, None),
            Refusal::WebhookAway => Finding::Doubt(cause, None),
            Refusal::RuntimeClassMissing => self.from(since, cause),
            Refusal::Quota if self.room_until.is_some() => Finding::Doubt(cause, self.room_until),
            Refusal::Quota => {
                // The controller doubles the time between its attempts, so the next wait may be as long as all earlier ones.
                let room = self.room_since.unwrap_or(since).max(since);
                self.from(room + CREATION_GRACE.max(room.duration_since(refused)), cause)
            }
            Refusal::Other => self.from(since + CREATION_GRACE, cause),
        }
    }

    /// Pods that the kubelet rejects are Failed at once, and the `ReplicaSet` creates others without end.
    pub(crate) fn rejected<'p>(&self, failed: &[&'p Arc<Pod>]) -> (Finding, Option<&'p Arc<Pod>>) {
        // These reasons concern pods that ran, or that may run on another node.
        let passes = ["Evicted", "Preempting", "Terminated", "Shutdown", "NodeLost", "NodeShutdown"];
        let mut by_reason: HashMap<&str, (usize, &Arc<Pod>)> = HashMap::new();
        for &pod in failed {
            let reason = pod.status.as_ref().and_then(|status| status.reason.as_deref()).unwrap_or_default();
            if !reason.is_empty() && !passes.contains(&reason) && self.target.is_news(pod) {
                let (count, latest) = by_reason.entry(reason).or_insert((0, pod));
                *count += 1;
                if pod::created(pod) > pod::created(latest) {
                    *latest = pod;
                }
            }
        }
        let Some((reason, (count, pod))) = by_reason.into_iter().max_by_key(|(_, (count, _))| *count) else {
            return (Finding::Fine, None);
        };
        let said = pod.status.as_ref().and_then(|status| status.message.clone()).unwrap_or_default();
        let cause = Cause::Rejected { pod: pod::located(pod), why: reason.to_owned(), count, said };
        let finding = if count >= REJECTIONS { Finding::Doomed(cause) } else { Finding::Doubt(cause, None) };
        (finding, Some(pod))
    }
}

/// The cause to report for a pod that is not ready at the progress deadline, if nothing else is known about it.
pub(crate) fn never_ready(pod: &Pod) -> Cause {
    let unready = pod::container_statuses(pod)
        .find(|status| !status.ready && status.state.as_ref().is_some_and(|state| state.running.is_some()));
    if let Some(status) = unready {
        let path = pod::readiness_path(pod, &status.name).map(str::to_owned);
        return Cause::NeverReady { at: at(pod, status), path };
    }
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    let runs = pod::container_statuses(pod).next().is_some() && pod::container_statuses(pod).all(|status| status.ready);
    let is_true = |gate: &str| pod::condition(pod, gate).is_some_and(|condition| condition.status == "True");
    if let Some(gate) = gates.iter().map(|gate| &gate.condition_type).find(|gate| runs && !is_true(gate)) {
        let said = [gate, "Ready"].into_iter().find_map(|kind| pod::condition(pod, kind)?.message.clone());
        let said = said.unwrap_or_else(|| "it has not been set".to_owned());
        return Cause::Gate { pod: pod::located(pod), gate: gate.clone(), said };
    }
    if runs {
        Cause::NodeNotReady { pod: pod.name_any(), node: pod::node(pod).map(str::to_owned) }
    } else {
        Cause::NotStarted { pod: Some(pod::located(pod)) }
    }
}

/// A condition of the Deployment.
pub(crate) fn condition<'a>(deployment: &'a Deployment, kind: &str) -> Option<&'a DeploymentCondition> {
    deployment.status.as_ref()?.conditions.as_deref()?.iter().find(|condition| condition.type_ == kind)
}

fn at(pod: &Pod, status: &ContainerStatus) -> At {
    At { container: status.name.clone(), pod: pod.name_any(), node: pod::node(pod).map(str::to_owned) }
}

/// Why pods, or the `ReplicaSet` itself, cannot be created, and since when.
fn refusal(deployment: &Deployment, set: Option<&ReplicaSet>, now: Timestamp) -> Option<(String, Timestamp)> {
    if let Some(set) = set {
        let conditions = set.status.as_ref()?.conditions.as_deref().unwrap_or_default();
        let failure = conditions.iter().find(|c| c.type_ == "ReplicaFailure" && c.status == "True")?;
        let since = failure.last_transition_time.as_ref().map_or(now, |time| time.0);
        return Some((failure.message.clone().unwrap_or_default(), since));
    }
    let progressing = condition(deployment, "Progressing")?;
    let refused = progressing.reason.as_deref() == Some("ReplicaSetCreateError");
    let since = progressing.last_update_time.as_ref().map_or(now, |time| time.0);
    refused.then(|| (progressing.message.clone().unwrap_or_default(), since))
}

/// What killed a container, according to its pod's events, and the event's message: a probe, or (None) its postStart hook.
fn killer(events: &[Arc<Event>], name: &str) -> Option<(Option<Probe>, String)> {
    let is_of = |event: &&Arc<Event>| {
        let path = event.involved_object.field_path.as_deref();
        path.is_none_or(|path| path.contains(&format!("{{{name}}}")))
    };
    let last = |reason: &str, words: &str| {
        let mut of_reason = events.iter().rev().filter(is_of).filter(|event| event.reason.as_deref() == Some(reason));
        of_reason.find_map(|event| event.message.clone().filter(|message| message.contains(words)))
    };
    if let Some(said) = last("FailedPostStartHook", "") {
        return Some((None, said));
    }
    let probes = [(Probe::Startup, "Startup probe"), (Probe::Liveness, "Liveness probe")];
    probes.into_iter().find_map(|(probe, words)| Some((Some(probe), last("Unhealthy", words)?)))
}

fn pull_failure(reason: &str, message: &str, image: &str) -> Pull {
    // The image's own name may contain any of these words.
    let words = message.replace(image, "").to_lowercase();
    let has = |marks: &[&str]| marks.iter().any(|mark| words.contains(mark));
    match reason {
        "InvalidImageName" => Pull::InvalidName,
        "ErrImageNeverPull" => Pull::NeverPulled,
        _ if has(&["toomanyrequests", "too many requests", "rate limit"]) => Pull::TooOften,
        // A failed network, or the page of a proxy instead of the registry, says nothing about the image.
        _ if has(&["dial tcp", "i/o timeout", "x509:", "text/html", "<html", "<!doctype"]) => Pull::Failed,
        _ if has(&["no match for platform"]) => Pull::OtherPlatform,
        _ if has(&["permission denied"]) => Pull::Failed, // concerns the node's own files
        _ if has(&["unauthorized", "forbidden", "denied", "authentication required", "no basic auth"]) => Pull::Refused,
        _ if has(&["not found", "manifest unknown", "name unknown", "does not exist"]) => Pull::Missing,
        _ => Pull::Failed,
    }
}
