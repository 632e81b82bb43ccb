//! What a rollout has come to, judged from what the API server holds. Pure: no clock, no network.
//!
//! A failure is called one as soon as it is certain, and not before: whatever may still turn out well is a warning,
//! and the cluster's own progress deadline ends the wait for it.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use crate::container::{Finding, examine, last_words};
use crate::pod::{
    condition, container_statuses, is_over, on_node, readiness_path, ready_since, transition, unschedulable,
};
use crate::revision;

/// How long pods may be refused by quota or admission, with none created, before that is certain.
const CREATION_GRACE: SignedDuration = SignedDuration::from_secs(10);
/// How long the scheduler may find no node, where nothing adds one.
const SCHEDULING_GRACE: SignedDuration = SignedDuration::from_secs(60);
/// How long a pod may be without sandbox or node before its events are looked at.
const PATIENCE: SignedDuration = SignedDuration::from_secs(5);
/// How much longer than its grace period an old pod that serves nobody is waited for.
const OVERSTAY: SignedDuration = SignedDuration::from_secs(30);
/// So many failed sandboxes are no accident.
const SANDBOX_ATTEMPTS: i32 = 3;

/// What is waited for, as the answer to the apply stated it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The Deployment's; another one under the same name is another Deployment.
    pub(crate) uid: String,
    /// The Deployment's after the apply.
    pub(crate) generation: i64,
    /// What the pod template's annotation says; none on a revision made without this program.
    pub(crate) commit: Option<String>,
    /// The images of the pod template, in order.
    pub(crate) images: Vec<String>,
    /// When it was applied, by the cluster's clock; `None` if the apply changed nothing that pods are made from.
    pub(crate) applied: Option<Timestamp>,
    /// A failed rollout is undone: its pods that are not ready need not be waited for, they serve nobody.
    pub(crate) undoing: bool,
}

impl Target {
    /// What `deployment` states now; `before` is its generation before the apply.
    pub(crate) fn of(deployment: &Deployment, before: Option<i64>, now: Timestamp) -> Self {
        let generation = deployment.metadata.generation.unwrap_or_default();
        Self {
            uid: deployment.metadata.uid.clone().unwrap_or_default(),
            generation,
            commit: revision::commit(deployment).map(str::to_owned),
            images: revision::images(deployment),
            applied: (before != Some(generation)).then_some(now),
            undoing: false,
        }
    }

    /// What was applied over it, by whatever `deployment` states now.
    pub(crate) fn superseded_by(&self, deployment: &Deployment) -> Option<String> {
        let commit = revision::commit(deployment);
        if commit != self.commit.as_deref() {
            let by = commit.map(|commit| format!("commit {commit}"));
            return by.or_else(|| Some("a revision without a commit".to_owned()));
        }
        let images = revision::images(deployment);
        (images != self.images).then(|| format!("image {}", images.join(", ")))
    }
}

/// What the reflectors hold at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// None if there is none, or no longer.
    pub(crate) deployment: Option<Arc<Deployment>>,
    /// Those that the Deployment's selector finds.
    pub(crate) replica_sets: Vec<Arc<ReplicaSet>>,
    /// Those that the Deployment's selector finds.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// The events of one pod, by its uid, once they were asked for.
    pub(crate) events: Option<(String, Vec<Arc<Event>>)>,
}

/// What is known of the rollout, and what would make it known better.
#[derive(Clone, Debug)]
pub(crate) struct Assessment {
    /// The judgement.
    pub(crate) verdict: Verdict,
    /// How many pods are to run.
    pub(crate) wanted: i32,
    /// The pods of the new revision that are ready.
    pub(crate) ready: Vec<Arc<Pod>>,
    /// The pods of the new revision that are available: ready for long enough.
    pub(crate) available: Vec<Arc<Pod>>,
    /// How many pods of other revisions have to go yet.
    pub(crate) old: usize,
    /// What may still turn out well.
    pub(crate) warnings: Vec<Warning>,
    /// The uid of a pod whose events would tell more.
    pub(crate) suspect: Option<String>,
    /// When time alone may change the judgement.
    pub(crate) recheck: Option<Timestamp>,
}

/// The judgement on a rollout.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// Not decided.
    Wait,
    /// Every wanted pod runs the new revision and is available; pods of older ones have yet to go.
    Serving,
    /// And none of an older revision is left.
    Done,
    /// It will not succeed, or the cluster has given it up.
    Failed(Box<Cause>),
    /// Somebody applied something else meanwhile: what.
    Superseded(String),
}

/// Why a rollout fails.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cause {
    /// One line.
    pub(crate) summary: String,
    /// A pod that shows it.
    pub(crate) pod: Option<Arc<Pod>>,
    /// The container of the pod.
    pub(crate) container: Option<String>,
    /// What the cluster itself says of it.
    pub(crate) detail: Option<String>,
}

/// Something that is not as it should be and may yet become so. Told once per key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Warning {
    /// The same for the same trouble of the same object, however often its words change.
    pub(crate) key: String,
    /// One line.
    pub(crate) text: String,
}

/// Judges the rollout of `target` from what was `seen`, at the time `now` of the cluster's clock.
pub(crate) fn assess(target: &Target, seen: &Snapshot, now: Timestamp) -> Assessment {
    let mut assessment = Assessment {
        verdict: Verdict::Wait,
        wanted: 0,
        ready: Vec::new(),
        available: Vec::new(),
        old: 0,
        warnings: Vec::new(),
        suspect: None,
        recheck: None,
    };
    let Some(deployment) = seen.deployment.as_deref().filter(|found| {
        found.metadata.uid.as_ref() == Some(&target.uid) && found.metadata.deletion_timestamp.is_none()
    }) else {
        assessment.verdict = failed("the Deployment was deleted while its rollout was going on");
        return assessment;
    };
    let generation = deployment.metadata.generation.unwrap_or_default();
    assessment.wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    if generation < target.generation {
        return assessment; // The watch has not caught up with the apply.
    }
    if let Some(by) = target.superseded_by(deployment) {
        assessment.verdict = Verdict::Superseded(by);
        return assessment;
    }
    if deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true) {
        assessment.warn("paused", "the Deployment is paused, nothing moves: kubectl rollout resume".to_owned());
    }
    let observed = deployment.status.as_ref().and_then(|status| status.observed_generation);
    if observed.unwrap_or_default() < generation {
        return assessment; // What the status says is of an older generation.
    }
    let rollout = Rollout::of(target, deployment, seen, now);
    rollout.count(&mut assessment);
    assessment.verdict = rollout.judge(&mut assessment);
    assessment
}

impl Assessment {
    fn warn(&mut self, key: impl Into<String>, text: String) {
        self.warnings.push(Warning { key: key.into(), text });
    }

    /// Notes that time alone may change the judgement at `at`.
    fn look_again(&mut self, at: Timestamp) {
        self.recheck = Some(self.recheck.map_or(at, |earlier| earlier.min(at)));
    }
}

/// One generation of a Deployment that its controller has seen, with the pods sorted into new and old.
struct Rollout<'a> {
    target: &'a Target,
    deployment: &'a Deployment,
    replica_set: Option<&'a ReplicaSet>,
    new: Vec<&'a Arc<Pod>>,
    old: Vec<&'a Arc<Pod>>,
    events: Option<&'a (String, Vec<Arc<Event>>)>,
    now: Timestamp,
}

impl<'a> Rollout<'a> {
    fn of(target: &'a Target, deployment: &'a Deployment, seen: &'a Snapshot, now: Timestamp) -> Self {
        let replica_set = revision::current(deployment, &seen.replica_sets);
        let uid = replica_set.and_then(|set| set.metadata.uid.as_deref());
        let (mut new, old): (Vec<_>, Vec<_>) = seen
            .pods
            .iter()
            .filter(|pod| !is_over(pod) && revision::owner(&pod.metadata).is_some())
            .partition(|pod| uid.is_some() && revision::owner(&pod.metadata) == uid);
        new.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        new.sort_by_key(|pod| (pod.metadata.creation_timestamp.clone(), pod.name_any()));
        Self { target, deployment, replica_set, new, old, events: seen.events.as_ref(), now }
    }

    /// Fills in the numbers.
    fn count(&self, assessment: &mut Assessment) {
        let min_ready = self.deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default();
        for pod in &self.new {
            let Some(since) = ready_since(pod) else { continue };
            assessment.ready.push(Arc::clone(pod));
            let available = since + SignedDuration::from_secs(min_ready.into());
            if available <= self.now {
                assessment.available.push(Arc::clone(pod));
            } else {
                assessment.look_again(available);
            }
        }
        for pod in &self.old {
            if self.is_gone(pod, assessment) {
                continue;
            }
            assessment.old += 1;
        }
    }

    /// Whether an old pod need not be waited for although it is still listed.
    fn is_gone(&self, pod: &Pod, assessment: &mut Assessment) -> bool {
        if ready_since(pod).is_some() {
            return false;
        }
        if self.target.undoing {
            return true;
        }
        let Some(deletion) = &pod.metadata.deletion_timestamp else {
            return false;
        };
        // The time of deletion has the grace period in it already.
        let overstays = deletion.0 + OVERSTAY;
        if self.now < overstays {
            assessment.look_again(overstays);
            return false;
        }
        let name = pod.name_any();
        let text = format!(
            "old pod {name}{} should be gone since {}; it is not ready and serves nobody: is the node lost, or is a finalizer in the way?",
            on_node(pod),
            deletion.0.strftime("%H:%M:%SZ")
        );
        assessment.warn(format!("overstays {name}"), text);
        true
    }

    fn judge(&self, assessment: &mut Assessment) -> Verdict {
        for pod in &self.new {
            if let Some(cause) = self.doom(pod, assessment) {
                return Verdict::Failed(Box::new(cause));
            }
        }
        if let Some(cause) = self.creation_failure(assessment) {
            return Verdict::Failed(Box::new(cause));
        }
        let available = self
            .replica_set
            .and_then(|set| set.status.as_ref())
            .map_or(0, |status| status.available_replicas.unwrap_or_default());
        // The ReplicaSet's own word: it has counted minReadySeconds by the clock of the cluster.
        let updated = self.deployment.status.as_ref().and_then(|status| status.updated_replicas).unwrap_or_default();
        if self.replica_set.is_some() && available >= assessment.wanted && updated >= assessment.wanted {
            return if assessment.old == 0 { Verdict::Done } else { Verdict::Serving };
        }
        if self.is_given_up() {
            return Verdict::Failed(Box::new(self.stuck()));
        }
        Verdict::Wait
    }

    /// What makes it certain that `pod` will never be ready.
    fn doom(&self, pod: &Arc<Pod>, assessment: &mut Assessment) -> Option<Cause> {
        for status in container_statuses(pod) {
            match examine(pod, status, self.is_young(pod)) {
                Finding::Fine => {}
                Finding::Doubt(text) => {
                    let key = format!("{} {}", pod.name_any(), status.name);
                    assessment.warn(key, format!("{text}, pod {}{}", pod.name_any(), on_node(pod)));
                }
                Finding::DoomedFrom(at, cause) if self.now < at => {
                    assessment.warn(format!("{} {}", pod.name_any(), status.name), cause.summary);
                    assessment.look_again(at);
                }
                Finding::DoomedFrom(_, cause) => return Some(cause),
            }
        }
        if let Some((since, message)) = unschedulable(pod) {
            return self.unschedulable(pod, since, message, assessment);
        }
        self.sandbox(pod, assessment)
    }

    /// Whether the pod was made by this rollout: a revision that is gone back to may have older ones.
    fn is_young(&self, pod: &Pod) -> bool {
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0 + SignedDuration::from_secs(1));
        self.target.applied.is_some_and(|applied| created.is_some_and(|created| created >= applied))
    }

    fn unschedulable(
        &self,
        pod: &Arc<Pod>,
        since: Timestamp,
        message: &str,
        assessment: &mut Assessment,
    ) -> Option<Cause> {
        let name = pod.name_any();
        assessment.warn("unscheduled", format!("no node takes pod {name} yet: {message}"));
        self.suspect(pod, since, assessment);
        let nominated = pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
        if nominated.is_some_and(|node| !node.is_empty()) || self.room_may_come(assessment) {
            return None;
        }
        let events = self.events_of(pod)?;
        let node_comes =
            |event: &&Arc<Event>| matches!(event.reason.as_deref(), Some("TriggeredScaleUp" | "Nominated"));
        if let Some(event) = events.iter().find(node_comes) {
            let text = event.message.as_deref().unwrap_or("a node is being added");
            assessment.warn(format!("{name} scale-up"), format!("waiting for a node for pod {name}: {text}"));
            return None;
        }
        // A pod of a revision that is gone back to may have waited in vain before.
        let certain = self.target.applied.map_or(since, |applied| since.max(applied)) + SCHEDULING_GRACE;
        if self.now < certain {
            assessment.look_again(certain);
            return None;
        }
        Some(Cause {
            summary: format!("no node takes pod {name}: {message}"),
            pod: Some(Arc::clone(pod)),
            detail: Some(message.to_owned()),
            ..Cause::default()
        })
    }

    /// A pod with a node and without a sandbox says nothing of why; its events do.
    fn sandbox(&self, pod: &Arc<Pod>, assessment: &mut Assessment) -> Option<Cause> {
        let scheduled = condition(pod, "PodScheduled").filter(|scheduled| scheduled.status == "True")?;
        let created = condition(pod, "PodReadyToStartContainers").is_some_and(|created| created.status == "True");
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
        let creating = statuses.iter().all(|status| {
            let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
            matches!(
                waiting.and_then(|waiting| waiting.reason.as_deref()),
                Some("ContainerCreating" | "PodInitializing")
            )
        });
        if created || !creating {
            return None;
        }
        self.suspect(pod, transition(scheduled), assessment);
        let failures = || {
            self.events_of(pod)
                .into_iter()
                .flatten()
                .filter(|event| event.reason.as_deref() == Some("FailedCreatePodSandBox"))
        };
        let message = failures().next_back()?.message.as_deref().unwrap_or("no reason given");
        let summary = format!(
            "pod {}{} gets no sandbox{}: {}",
            pod.name_any(),
            on_node(pod),
            pod.spec
                .as_ref()
                .and_then(|spec| spec.runtime_class_name.as_ref())
                .map_or_else(String::new, |class| format!(" of RuntimeClass {class}")),
            last_words(message)
        );
        // A node that has just joined may still be waiting for its network.
        let passes = ["network", "cni", "CNI"].iter().any(|word| message.contains(word));
        if passes || failures().map(|event| occurrences(event)).sum::<i32>() < SANDBOX_ATTEMPTS {
            assessment.warn(format!("{} sandbox", pod.name_any()), summary);
            return None;
        }
        Some(Cause { summary, pod: Some(Arc::clone(pod)), detail: Some(message.to_owned()), ..Cause::default() })
    }

    /// Quota, admission and limit ranges refuse a pod before there is one.
    fn creation_failure(&self, assessment: &mut Assessment) -> Option<Cause> {
        let (message, since) = self.refusal()?;
        let since = self.target.applied.map_or(since, |applied| since.max(applied));
        if self.new.iter().any(|pod| pod.metadata.creation_timestamp.as_ref().is_some_and(|created| created.0 > since))
        {
            return None;
        }
        let summary = format!("no pod can be created: {message}");
        let quota_may_clear = message.contains("exceeded quota") && self.room_may_come(assessment);
        let certain = if message.contains("RuntimeClass") { since } else { since + CREATION_GRACE };
        if quota_may_clear || self.now < certain {
            assessment.warn("creation", summary);
            if !quota_may_clear {
                assessment.look_again(certain);
            }
            return None;
        }
        Some(Cause { summary, detail: Some(message), ..Cause::default() })
    }

    /// Why pods, or the `ReplicaSet` itself, cannot be created, and since when.
    fn refusal(&self) -> Option<(String, Timestamp)> {
        if let Some(set) = self.replica_set {
            let conditions = set.status.as_ref()?.conditions.as_deref().unwrap_or_default();
            let failure = conditions.iter().find(|c| c.type_ == "ReplicaFailure" && c.status == "True")?;
            let since = failure.last_transition_time.as_ref().map_or(self.now, |time| time.0);
            return Some((failure.message.clone().unwrap_or_default(), since));
        }
        let progressing = deployment_condition(self.deployment, "Progressing")?;
        let refused = progressing.reason.as_deref() == Some("ReplicaSetCreateError");
        let since = progressing.last_update_time.as_ref().map_or(self.now, |time| time.0);
        refused.then(|| (progressing.message.clone().unwrap_or_default(), since))
    }

    /// Whether old pods are on their way out, and leave room on nodes and in quotas.
    fn room_may_come(&self, assessment: &mut Assessment) -> bool {
        let leaves = self
            .old
            .iter()
            .filter_map(|pod| pod.metadata.deletion_timestamp.as_ref())
            .map(|deletion| deletion.0 + OVERSTAY)
            .filter(|&at| at > self.now)
            .max();
        if let Some(at) = leaves {
            assessment.look_again(at);
        }
        leaves.is_some()
    }

    /// Asks for the events of the oldest pod that is in trouble for a while.
    fn suspect(&self, pod: &Pod, since: Timestamp, assessment: &mut Assessment) {
        if assessment.suspect.is_some() {
            return;
        }
        if self.now < since + PATIENCE {
            assessment.look_again(since + PATIENCE);
        } else {
            assessment.suspect.clone_from(&pod.metadata.uid);
        }
    }

    fn events_of(&self, pod: &Pod) -> Option<&[Arc<Event>]> {
        let (uid, events) = self.events?;
        (Some(uid) == pod.metadata.uid.as_ref()).then_some(events.as_slice())
    }

    /// Whether the cluster says that the progress deadline of this generation has passed.
    fn is_given_up(&self) -> bool {
        let Some(progressing) = deployment_condition(self.deployment, "Progressing") else {
            return false;
        };
        if progressing.status != "False" || progressing.reason.as_deref() != Some("ProgressDeadlineExceeded") {
            return false;
        }
        // Going back to a ReplicaSet that exists leaves the condition of the failed rollout in place until the first
        // progress. One of this rollout cannot be younger than the deadline is long; half of it bears crooked clocks.
        let earliest = self.target.applied.map(|applied| applied + SignedDuration::from_secs(self.deadline() / 2));
        let written = progressing.last_update_time.as_ref().map(|time| time.0);
        earliest.is_none_or(|earliest| written.is_some_and(|written| written >= earliest))
    }

    fn deadline(&self) -> i64 {
        self.deployment.spec.as_ref().and_then(|spec| spec.progress_deadline_seconds).unwrap_or(600).into()
    }

    /// The best explanation of a progress deadline that has passed.
    fn stuck(&self) -> Cause {
        let mut cause = self
            .new
            .iter()
            .find(|pod| ready_since(pod).is_none())
            .map(|pod| self.stuck_pod(pod))
            .or_else(|| {
                self.refusal().map(|(message, _)| Cause {
                    summary: format!("no pod can be created: {message}"),
                    detail: Some(message),
                    ..Cause::default()
                })
            })
            .unwrap_or_else(|| Cause { summary: "no pod that is missing was created".to_owned(), ..Cause::default() });
        cause.summary = format!("{} (no progress for {} s)", cause.summary, self.deadline());
        cause
    }

    fn stuck_pod(&self, pod: &Arc<Pod>) -> Cause {
        let name = pod.name_any();
        let mut cause = Cause { pod: Some(Arc::clone(pod)), ..Cause::default() };
        for status in container_statuses(pod) {
            match examine(pod, status, self.is_young(pod)) {
                Finding::Fine => {}
                Finding::Doubt(summary) => {
                    cause.detail = status
                        .state
                        .as_ref()
                        .and_then(|state| state.waiting.as_ref())
                        .and_then(|waiting| waiting.message.clone());
                    return Cause { summary, container: Some(status.name.clone()), ..cause };
                }
                Finding::DoomedFrom(_, cause) => return cause,
            }
        }
        if let Some((_, message)) = unschedulable(pod) {
            return Cause {
                summary: format!("no node takes pod {name}: {message}"),
                detail: Some(message.to_owned()),
                ..cause
            };
        }
        let warnings =
            self.events_of(pod).into_iter().flatten().filter(|event| event.type_.as_deref() == Some("Warning"));
        let mut start = warnings.filter(|event| {
            matches!(event.reason.as_deref(), Some("FailedCreatePodSandBox" | "FailedMount" | "FailedAttachVolume"))
        });
        if let Some(event) = start.next_back() {
            let message = event.message.as_deref().unwrap_or_default();
            return Cause {
                summary: format!("pod {name}{} cannot start: {message}", on_node(pod)),
                detail: Some(message.to_owned()),
                ..cause
            };
        }
        let unready = container_statuses(pod)
            .find(|status| !status.ready && status.state.as_ref().is_some_and(|state| state.running.is_some()));
        if let Some(status) = unready {
            return Cause {
                summary: format!(
                    "pod {name}{} runs and never gets ready{}",
                    on_node(pod),
                    readiness_path(pod, &status.name).map_or_else(String::new, |path| format!(" (GET {path})"))
                ),
                container: Some(status.name.clone()),
                ..cause
            };
        }
        let runs = container_statuses(pod).all(|status| status.ready) && container_statuses(pod).next().is_some();
        let what = if runs { "runs and is not ready: is its node?" } else { "does not start" };
        Cause { summary: format!("pod {name}{} {what}", on_node(pod)), ..cause }
    }
}

fn failed(summary: &str) -> Verdict {
    Verdict::Failed(Box::new(Cause { summary: summary.to_owned(), ..Cause::default() }))
}

fn deployment_condition<'a>(
    deployment: &'a Deployment,
    kind: &str,
) -> Option<&'a k8s_openapi::api::apps::v1::DeploymentCondition> {
    deployment.status.as_ref()?.conditions.as_deref()?.iter().find(|condition| condition.type_ == kind)
}

/// How often it happened: old and new ways to count.
pub(crate) fn occurrences(event: &Event) -> i32 {
    let series = event.series.as_ref().and_then(|series| series.count);
    event.count.or(series).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests;
