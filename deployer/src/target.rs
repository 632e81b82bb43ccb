//! The desired state of a rollout, from the answer to the apply.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{pod, revision};

/// The state that a rollout waits for.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    /// A Deployment of the same name with another uid is another Deployment.
    pub(crate) uid: String,
    /// The generation of the Deployment after the apply.
    pub(crate) generation: i64,
    /// From the pod template's annotation, which is missing on a revision made without this program.
    pub(crate) commit: Option<String>,
    /// The images of the pod template, in order.
    pub(crate) images: Vec<String>,
    /// When the run began, by the cluster's clock. `None` for `status`, which considers nothing old.
    pub(crate) begun: Option<Timestamp>,
    /// When it was applied, by the cluster's clock. `None` if the apply did not change the pod template.
    pub(crate) applied: Option<Timestamp>,
    /// The Deployment's pods, as they were when the run began, by uid.
    pub(crate) before: HashMap<String, Arc<Pod>>,
    /// Whether this is a rollback of a failed rollout, whose pods that are not ready need not be waited for.
    pub(crate) undoing: bool,
}

impl Target {
    /// The desired state of `deployment`.
    pub(crate) fn of(deployment: &Deployment) -> Self {
        let metadata = &deployment.metadata;
        Self {
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            commit: revision::commit(deployment).map(str::to_owned),
            images: revision::images(deployment),
            begun: None,
            applied: None,
            before: HashMap::new(),
            undoing: false,
        }
    }

    /// The state before a Deployment exists.
    pub(crate) fn none(name: &str) -> Self {
        Self::of(&Deployment {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            ..Deployment::default()
        })
    }

    /// The same, written at `now` over an object of the generation `before`, which is 0 if the object did not exist.
    pub(crate) fn written(self, before: i64, now: Timestamp) -> Self {
        let applied = (before != self.generation).then_some(now);
        Self { begun: Some(now), applied, ..self }
    }

    /// A description of what replaced this, if `deployment` shows that something did.
    pub(crate) fn superseded_by(&self, deployment: &Deployment) -> Option<String> {
        let commit = revision::commit(deployment);
        if commit != self.commit.as_deref() {
            let by = commit.map(|commit| format!("commit {commit}"));
            return by.or_else(|| Some("a revision without a commit".to_owned()));
        }
        let images = revision::images(deployment);
        (images != self.images).then(|| format!("image {}", images.join(", ")))
    }

    /// Whether this rollout created the pod. After a rollback, pods may be older.
    pub(crate) fn made(&self, pod: &Pod) -> bool {
        // Timestamps have whole seconds.
        self.applied.is_some_and(|applied| pod::created(pod) + SignedDuration::from_secs(1) >= applied)
    }

    /// Whether the pod's status was written since this run began, and not before a repair.
    pub(crate) fn is_news(&self, pod: &Pod) -> bool {
        let Some(begun) = self.begun else { return true };
        if let Some(was) = self.was(pod) {
            // Timestamps have whole seconds, so the second in which the run began counts as both before and after it.
            return pod.metadata.resource_version != was.metadata.resource_version
                && pod::status_since(pod).as_second() >= begun.as_second();
        }
        self.made(pod) || pod::created(pod) >= begun || pod::status_since(pod) >= begun
    }

    /// The pod as it was when the run began.
    pub(crate) fn was(&self, pod: &Pod) -> Option<&Pod> {
        self.before.get(pod.metadata.uid.as_ref()?).map(AsRef::as_ref)
    }

    /// The later of this moment and the beginning of this run.
    pub(crate) fn since(&self, moment: Timestamp) -> Timestamp {
        self.begun.map_or(moment, |begun| begun.max(moment))
    }
}
