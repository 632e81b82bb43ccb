//! Revisions: what a Deployment's pod template was and is, each kept in a `ReplicaSet`.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::template::COMMIT;

/// Where the Deployment controller writes the number of a revision, on the Deployment and on its `ReplicaSets`.
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";

/// The label that the controller adds to the pod template of each `ReplicaSet`.
pub(crate) const HASH: &str = "pod-template-hash";

/// What the Deployment's pod template says of its commit.
pub(crate) fn commit(deployment: &Deployment) -> Option<&str> {
    let metadata = deployment.spec.as_ref()?.template.metadata.as_ref()?;
    metadata.annotations.as_ref()?.get(COMMIT).map(String::as_str)
}

/// The images of the pod template, in order.
pub(crate) fn images(deployment: &Deployment) -> Vec<String> {
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    pod.into_iter().flat_map(|pod| &pod.containers).filter_map(|container| container.image.clone()).collect()
}

/// The `ReplicaSet` that the Deployment's controller made for the current pod template.
pub(crate) fn current<'a>(deployment: &Deployment, replica_sets: &'a [Arc<ReplicaSet>]) -> Option<&'a ReplicaSet> {
    // The controller writes the revision to both before it writes the generation that it has observed, unless the
    // number of replicas has changed, too: then it scales first, and the revision is still the one before.
    let wanted = number(&deployment.metadata)?;
    replica_sets
        .iter()
        .map(AsRef::as_ref)
        .filter(|set: &&ReplicaSet| owner(&set.metadata) == deployment.metadata.uid.as_deref())
        .find(|set| number(&set.metadata) == Some(wanted) && is_of_template(set, deployment))
}

/// Whether the pods of a `ReplicaSet` are what the Deployment states now; its controller compares the same.
fn is_of_template(set: &ReplicaSet, deployment: &Deployment) -> bool {
    let mut template = set.spec.as_ref().and_then(|spec| spec.template.clone());
    if let Some(labels) = template.as_mut().and_then(|template| template.metadata.as_mut()?.labels.as_mut()) {
        labels.remove(HASH);
    }
    template.as_ref() == deployment.spec.as_ref().map(|spec| &spec.template)
}

fn number(metadata: &ObjectMeta) -> Option<u64> {
    metadata.annotations.as_ref()?.get(REVISION)?.parse().ok()
}

/// The revision to go back to: of the others one that still has available pods, else the youngest.
pub(crate) fn previous<'a>(deployment: &Deployment, replica_sets: &'a [Arc<ReplicaSet>]) -> Option<&'a ReplicaSet> {
    let current = self::current(deployment, replica_sets).and_then(|set| set.metadata.uid.as_ref());
    replica_sets
        .iter()
        .map(AsRef::as_ref)
        .filter(|set: &&ReplicaSet| owner(&set.metadata) == deployment.metadata.uid.as_deref())
        .filter(|set| set.metadata.uid.as_ref() != current)
        .max_by_key(|set| {
            let available = set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or_default();
            (available > 0, number(&set.metadata))
        })
}

/// The uid of the controller that an object belongs to.
pub(crate) fn owner(metadata: &ObjectMeta) -> Option<&str> {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}
