//! What a rollout is to come to, as the answer to the apply stated it.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{pod, revision};

/// What is waited for.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The Deployment's.
    pub(crate) name: String,
    /// The Deployment's; another one under the same name is another Deployment.
    pub(crate) uid: String,
    /// The Deployment's after the apply.
    pub(crate) generation: i64,
    /// What the pod template's annotation says; none on a revision made without this program.
    pub(crate) commit: Option<String>,
    /// The images of the pod template, in order.
    pub(crate) images: Vec<String>,
    /// When the run began, by the cluster's clock; `None` for one that only looks, to which nothing is old.
    pub(crate) begun: Option<Timestamp>,
    /// When it was applied, by the cluster's clock; `None` if the apply changed nothing that pods are made from.
    pub(crate) applied: Option<Timestamp>,
    /// The Deployment's pods, as they were when the run began, by uid.
    pub(crate) before: HashMap<String, Arc<Pod>>,
    /// A failed rollout is undone: its pods that are not ready need not be waited for, they serve nobody.
    pub(crate) undoing: bool,
}

impl Target {
    /// What `deployment` states.
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

    /// None of a Deployment that is not there yet.
    pub(crate) fn none(name: &str) -> Self {
        Self::of(&Deployment {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            ..Deployment::default()
        })
    }

    /// The same, written at `now` over an object of the generation `before`, 0 where there was none.
    pub(crate) fn written(self, before: i64, now: Timestamp) -> Self {
        let applied = (before != self.generation).then_some(now);
        Self { begun: Some(now), applied, ..self }
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

    /// Whether the pod was made by this rollout: a revision that is rolled back to may have older ones.
    pub(crate) fn made(&self, pod: &Pod) -> bool {
        // Timestamps have whole seconds.
        self.applied.is_some_and(|applied| pod::created(pod) + SignedDuration::from_secs(1) >= applied)
    }

    /// Whether the pod's status says something of the time since this run began, and not of what was repaired since.
    pub(crate) fn is_news(&self, pod: &Pod) -> bool {
        let Some(begun) = self.begun else { return true };
        if let Some(was) = self.was(pod) {
            // Timestamps have whole seconds, so that the second of the beginning is before and after it.
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
