//! Going back: the pod template of the revision before, and nothing else of it.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::ResourceExt as _;
use kube::api::{ApiResource, DynamicObject, ListParams};

use crate::cluster::{Cluster, Unwritten, persistently};
use crate::outcome::{Ending, Outcome};
use crate::revision::{self, HASH};
use crate::rollout::Target;
use crate::template::{CHANGE_CAUSE, COMMIT};
use crate::watch::selector;

/// How often somebody may write in between.
const ATTEMPTS: usize = 10;

/// What was gone back to.
pub(crate) struct Undone {
    /// The Deployment as it is now.
    pub(crate) deployment: Deployment,
    /// What is to be waited for.
    pub(crate) target: Target,
    /// The commit that was gone back to, if that revision has one.
    pub(crate) commit: Option<String>,
}

/// Puts the revision before back. None if there is none, and nothing is changed then. Where a rollout `failed`, it is
/// only that one which is undone, not what somebody has applied since.
///
/// It is written whole, not applied: an apply would leave in place what others have added to the template since.
pub(crate) async fn undo(cluster: &Cluster, name: &str, failed: Option<&Target>) -> Result<Option<Undone>, Ending> {
    let resource = ApiResource::erase::<Deployment>(&());
    for _ in 0..ATTEMPTS {
        let live = persistently(async || cluster.live(&resource, name).await).await;
        let Some(mut live) = live.map_err(|error| cluster.ending(&format!("read Deployment {name}"), &error))? else {
            return Err(Ending::new(Outcome::Rejected, no_deployment(cluster, name)));
        };
        let deployment: Deployment = typed(&live)?;
        if let Some(by) = failed.and_then(|target| target.superseded_by(&deployment)) {
            return Err(Ending::new(
                Outcome::Superseded,
                format!("{by} was applied meanwhile: nothing was rolled back"),
            ));
        }
        let Some(revision) = previous(cluster, &deployment).await? else { return Ok(None) };
        let commit = revision.data["spec"]["template"]["metadata"]["annotations"][COMMIT].as_str().map(str::to_owned);
        restore(&mut live, &revision, commit.as_deref());
        let before = deployment.metadata.generation;
        match cluster.replace(&resource, &live).await {
            Ok(written) => {
                let deployment = typed(&written)?;
                let target = Target { undoing: true, ..Target::of(&deployment, before, cluster.now()) };
                return Ok(Some(Undone { deployment, target, commit }));
            }
            Err(Unwritten::Stale) => {}
            Err(Unwritten::Refused(error)) => {
                return Err(cluster.ending(&format!("put the revision before back into Deployment {name}"), &error));
            }
        }
    }
    let cause = format!("cannot go back: somebody else keeps writing to Deployment {name}");
    Err(Ending::new(Outcome::Rejected, cause))
}

/// No such Deployment, and how to see which there are.
pub(crate) fn no_deployment(cluster: &Cluster, name: &str) -> String {
    format!(
        "there is no Deployment {name} in namespace {}: {}",
        cluster.namespace(),
        cluster.kubectl("get deployments")
    )
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

/// The `ReplicaSet` of the revision to go back to.
async fn previous(cluster: &Cluster, deployment: &Deployment) -> Result<Option<DynamicObject>, Ending> {
    let resource = ApiResource::erase::<ReplicaSet>(&());
    let of_deployment = ListParams::default().labels(&selector(deployment));
    let sets = persistently(async || cluster.dynamic(&resource).list(&of_deployment).await).await;
    let sets = sets.map_err(|error| cluster.ending("list the ReplicaSets", &error))?.items;
    let known: Vec<Arc<ReplicaSet>> =
        sets.iter().filter_map(|set| set.clone().try_parse().ok()).map(Arc::new).collect();
    let Some(chosen) = revision::previous(deployment, &known) else { return Ok(None) };
    Ok(sets.iter().find(|set| set.metadata.uid == chosen.metadata.uid).cloned())
}

fn restore(live: &mut DynamicObject, revision: &DynamicObject, commit: Option<&str>) {
    let mut template = revision.data["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove(HASH);
    }
    live.data["spec"]["template"] = template;
    if let Some(data) = live.data.as_object_mut() {
        data.remove("status");
    }
    let cause = revision.annotations().get(CHANGE_CAUSE).cloned();
    let annotations = live.annotations_mut();
    for (key, value) in [(COMMIT, commit.map(str::to_owned)), (CHANGE_CAUSE, cause)] {
        match value {
            Some(value) => annotations.insert(key.to_owned(), value),
            None => annotations.remove(key),
        };
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn going_back_restores_template_and_commit_and_leaves_the_rest() {
        let mut live = object(json!({
            "metadata": {"name": "a", "resourceVersion": "7", "annotations": {COMMIT: "new", CHANGE_CAUSE: "new", "other": "kept"}},
            "spec": {"replicas": 5, "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"added": true}}},
            "status": {"replicas": 5},
        }));
        let revision = object(json!({
            "metadata": {"name": "a-1", "annotations": {CHANGE_CAUSE: "old"}},
            "spec": {"replicas": 0, "template": {"metadata": {"labels": {"app": "a", HASH: "1"}}, "spec": {"future": "field"}}},
        }));
        restore(&mut live, &revision, Some("old"));
        assert_eq!(
            serde_json::to_value(&live).unwrap(),
            json!({
                "metadata": {"name": "a", "resourceVersion": "7", "annotations": {COMMIT: "old", CHANGE_CAUSE: "old", "other": "kept"}},
                "spec": {"replicas": 5, "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"future": "field"}}},
            })
        );
    }
}
