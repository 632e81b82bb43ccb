//! Revisions: the past and present pod templates of a Deployment, each in a `ReplicaSet` with its pods.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};

use crate::commit::COMMIT;

/// Where the Deployment controller writes the number of a revision, on the Deployment and on its `ReplicaSets`.
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";

/// The label that the controller adds to the pod template of each `ReplicaSet`.
pub(crate) const HASH: &str = "pod-template-hash";

/// On a Deployment, the name of the last `ReplicaSet` that was available before the present one. The controller copies it to
/// the present `ReplicaSet`, where it stays, so that it is known later which revisions were ever available.
/// <https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/controller/deployment/util/deployment_util.go>
pub(crate) const AVAILABLE: &str = "request-info.dev/last-available";

/// The commit that the Deployment's pod template names.
pub(crate) fn commit(deployment: &Deployment) -> Option<&str> {
    annotation(deployment.spec.as_ref()?.template.metadata.as_ref()?, COMMIT)
}

/// The images of the pod template, in order.
pub(crate) fn images(deployment: &Deployment) -> Vec<String> {
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    pod.into_iter().flat_map(|pod| &pod.containers).filter_map(|container| container.image.clone()).collect()
}

/// The desired number of pods.
pub(crate) fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// The labels by which the Deployment finds its pods.
pub(crate) fn selector(deployment: &Deployment) -> String {
    labels(deployment.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default())
}

/// A label selector as a request contains it.
pub(crate) fn labels(selector: LabelSelector) -> String {
    kube::core::Selector::try_from(selector).map_or_else(|_| String::new(), |selector| selector.to_string())
}

/// The `ReplicaSet` that the Deployment's controller made for the current pod template.
pub(crate) fn current<'a>(deployment: &Deployment, replica_sets: &'a [Arc<ReplicaSet>]) -> Option<&'a ReplicaSet> {
    // The controller writes the revision to both before it writes the generation that it has observed, unless the
    // number of replicas has changed, too. It then scales first, and the revision is still the previous one.
    let current = number(&deployment.metadata)?;
    own(deployment, replica_sets).find(|set| number(&set.metadata) == Some(current) && is_of_template(set, deployment))
}

fn own<'a>(deployment: &Deployment, replica_sets: &'a [Arc<ReplicaSet>]) -> impl Iterator<Item = &'a ReplicaSet> {
    let uid = deployment.metadata.uid.clone();
    replica_sets
        .iter()
        .map(AsRef::as_ref)
        .filter(move |set| uid.is_some() && owner(&set.metadata).map(|owner| &owner.uid) == uid.as_ref())
}

/// Whether a `ReplicaSet` has the Deployment's present pod template, compared as the controller does it.
fn is_of_template(set: &ReplicaSet, deployment: &Deployment) -> bool {
    let mut template = set.spec.as_ref().and_then(|spec| spec.template.clone());
    if let Some(labels) = template.as_mut().and_then(|template| template.metadata.as_mut()?.labels.as_mut()) {
        labels.remove(HASH);
    }
    template.as_ref() == deployment.spec.as_ref().map(|spec| &spec.template)
}

fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

fn number(metadata: &ObjectMeta) -> Option<u64> {
    annotation(metadata, REVISION)?.parse().ok()
}

/// The name of the last revision that was available, the present one included. The condition of a complete rollout names
/// its `ReplicaSet`, and may stand for a while when the next one has begun:
/// <https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/controller/deployment/progress.go>
pub(crate) fn last_available(deployment: &Deployment, replica_sets: &[Arc<ReplicaSet>]) -> Option<String> {
    let conditions = deployment.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let was_complete = |set: &str| {
        conditions.iter().any(|condition| {
            condition.reason.as_deref() == Some("NewReplicaSetAvailable")
                && condition.message.as_deref().is_some_and(|message| message.contains(&format!("{set:?}")))
        })
    };
    let current = current(deployment, replica_sets).and_then(|set| {
        let is_available = available(set) > 0 && available(set) >= replicas(deployment);
        set.metadata.name.clone().filter(|name| is_available || was_complete(name))
    });
    current.or_else(|| annotation(&deployment.metadata, AVAILABLE).map(str::to_owned))
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or_default()
}

/// The revision to roll back to. Of the other revisions, this is one with available pods, else the newest that was ever
/// available.
pub(crate) fn previous<'a>(deployment: &Deployment, replica_sets: &'a [Arc<ReplicaSet>]) -> Option<&'a ReplicaSet> {
    let current = self::current(deployment, replica_sets).and_then(|set| set.metadata.uid.as_ref());
    let noted = own(deployment, replica_sets).map(|set| &set.metadata).chain([&deployment.metadata]);
    let noted: HashSet<&str> = noted.filter_map(|metadata| annotation(metadata, AVAILABLE)).collect();
    let was_available = |set: &ReplicaSet| set.metadata.name.as_deref().is_some_and(|name| noted.contains(name));
    own(deployment, replica_sets)
        .filter(|set| set.metadata.uid.as_ref() != current && (available(set) > 0 || was_available(set)))
        .max_by_key(|set| (available(set) > 0, number(&set.metadata)))
}

/// The controller that owns an object.
fn owner(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true))
}

/// Finds a Deployment's pods. Its selector alone also matches pods of other owners with the same labels.
pub(crate) struct Ownership<'a> {
    deployment: &'a str,
    is_own: HashMap<&'a str, bool>,
}

impl<'a> Ownership<'a> {
    /// From the Deployment's uid and name, and the `ReplicaSets` that its selector matches.
    pub(crate) fn of(uid: &str, deployment: &'a str, replica_sets: &'a [Arc<ReplicaSet>]) -> Self {
        let is_own = replica_sets.iter().filter_map(|set| {
            Some((set.metadata.uid.as_deref()?, owner(&set.metadata).is_some_and(|owner| owner.uid == uid)))
        });
        Self { deployment, is_own: is_own.collect() }
    }

    /// The uid of the `ReplicaSet` that owns `pod`, if the Deployment owns that `ReplicaSet`.
    pub(crate) fn set_of<'p>(&self, pod: &'p Pod) -> Option<&'p str> {
        let owner = owner(&pod.metadata)?;
        // A ReplicaSet beyond the revisionHistoryLimit is deleted while its last pods are still terminating.
        let is_own = self.is_own.get(owner.uid.as_str()).copied().unwrap_or_else(|| {
            let hash = pod.metadata.labels.as_ref().and_then(|labels| labels.get(HASH));
            owner.kind == "ReplicaSet" && hash.is_some_and(|hash| owner.name == format!("{}-{hash}", self.deployment))
        });
        is_own.then_some(owner.uid.as_str())
    }
}
