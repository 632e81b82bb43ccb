//! Going back: the pod template of the revision before, and nothing else of it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::ResourceExt as _;
use kube::api::{ApiResource, DynamicObject, ListParams};
use tokio::time::Instant;

use crate::cluster::{Cluster, Unwritten, persistently, typed};
use crate::outcome::{Ending, Outcome};
use crate::output::{Output, RollbackReport, seconds};
use crate::revision::{self, HASH};
use crate::rollout::Target;
use crate::template::{CHANGE_CAUSE, COMMIT, short};
use crate::verdict::{superseded, timed_out};
use crate::watch::{End, Followed, follow, selector};
use crate::{diagnosis, permissions, proof};

/// How often somebody may write in between.
const ATTEMPTS: usize = 10;

/// Puts the revision before back because a person says so.
pub(crate) async fn roll_back(
    cluster: &Cluster,
    name: &str,
    timeout: Duration,
    output: &Output,
) -> Result<Ending, Ending> {
    permissions::check(cluster, permissions::to_go_back(name)).await?;
    let since = Instant::now();
    let Some(undone) = undo(cluster, name, None).await? else {
        let cause = format!("Deployment {name} has no earlier revision to go back to: nothing was changed");
        return Err(Ending::new(Outcome::Failed, cause));
    };
    let commit = undone.commit.clone();
    output.record(|report| {
        report.changed = true;
        report.commit.clone_from(&commit);
        report.image = undone.target.images.first().cloned();
    });
    let followed = follow_back(cluster, &undone, timeout, output).await?;
    match &followed.end {
        End::Done => {
            if let Some(commit) = &commit {
                proof::prove(cluster, &followed.assessment.ready, commit, output).await?;
            }
            let now = commit.as_deref().map_or("the revision before", short);
            let after = seconds(since.elapsed());
            Ok(Ending::new(Outcome::Done, format!("{name} went back to {now} ({after:.1} s)")))
        }
        End::Failed(cause) => {
            diagnosis::diagnose(cluster, name, cause, &followed.seen, output).await;
            Err(Ending::new(Outcome::Failed, format!("going back failed: {}", cause.summary)))
        }
        End::Superseded(by) => Err(superseded(cluster, name, by, output)),
        End::TimedOut => Err(timed_out(cluster, name, timeout, &followed, output)),
    }
}

/// Puts the revision before back after a failure. The failure stays one.
pub(crate) async fn go_back(
    cluster: &Cluster,
    name: &str,
    failed: &Target,
    failure: Ending,
    timeout: Duration,
    output: &Output,
) -> Result<Ending, Ending> {
    let note = |outcome, commit: Option<&str>, cause: Option<String>| {
        let commit = commit.map(str::to_owned);
        output.record(|report| report.rollback = Some(RollbackReport { outcome, commit, cause }));
    };
    let broken =
        |why: &str| Ending::new(Outcome::Broken, format!("{}; and the rollback failed, too: {why}", failure.cause));
    output.say(&format!("failed: {}", failure.cause));
    let undone = match undo(cluster, name, Some(failed)).await {
        Ok(Some(undone)) => undone,
        Ok(None) => {
            note("none", None, Some("there is no earlier revision to go back to: nothing was changed".to_owned()));
            return Err(failure);
        }
        Err(ending) if ending.outcome == Outcome::Superseded => {
            note("none", None, Some(ending.cause.clone()));
            return Err(Ending::new(Outcome::Superseded, format!("{}; {}", failure.cause, ending.cause)));
        }
        Err(ending) => {
            note("failed", None, Some(ending.cause.clone()));
            return Err(broken(&ending.cause));
        }
    };
    let commit = undone.commit.as_deref();
    match follow_back(cluster, &undone, timeout, output).await {
        Ok(followed) => {
            let why = match &followed.end {
                End::Done => {
                    note("done", commit, None);
                    return Err(failure);
                }
                End::Superseded(by) => {
                    note("none", commit, Some(format!("{by} was applied meanwhile")));
                    return Err(superseded(cluster, name, by, output));
                }
                End::Failed(cause) => cause.summary.clone(),
                End::TimedOut => format!("not ended within {} s", timeout.as_secs()),
            };
            note("failed", commit, Some(why.clone()));
            Err(broken(&why))
        }
        Err(ending) => {
            note("failed", commit, Some(ending.cause.clone()));
            Err(broken(&ending.cause))
        }
    }
}

async fn follow_back(
    cluster: &Cluster,
    undone: &Undone,
    timeout: Duration,
    output: &Output,
) -> Result<Followed, Ending> {
    let commit = undone.commit.as_deref().map_or("the revision before, which says no commit", short);
    output.say(&format!("going back to {commit}"));
    follow(cluster, &undone.deployment, &undone.target, Instant::now(), timeout, output).await
}

/// What was gone back to.
struct Undone {
    /// The Deployment as it is now.
    deployment: Deployment,
    /// What is to be waited for.
    target: Target,
    /// The commit that was gone back to, if that revision has one.
    commit: Option<String>,
}

/// Puts the revision before back. None if there is none, and nothing is changed then. Where a rollout `failed`, it is
/// only that one which is undone, not what somebody has applied since.
///
/// It is written whole, not applied: an apply would leave in place what others have added to the template since.
async fn undo(cluster: &Cluster, name: &str, failed: Option<&Target>) -> Result<Option<Undone>, Ending> {
    let resource = ApiResource::erase::<Deployment>(&());
    for _ in 0..ATTEMPTS {
        let live = persistently(async || cluster.live(&resource, name).await).await;
        let Some(mut live) = live.map_err(|error| cluster.ending(&format!("read Deployment {name}"), &error))? else {
            return Err(Ending::new(Outcome::Rejected, cluster.no_deployment(name)));
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
