//! The rollback, which restores the pod template of the previous revision and nothing else.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::ResourceExt as _;
use kube::api::{ApiResource, DynamicObject};
use tokio::time::{Instant, sleep};

use crate::apply::{superseded, typed};
use crate::cluster::{Cluster, Unwritten};
use crate::commit::{COMMIT, short};
use crate::contest::Contest;
use crate::diagnosis::diagnose;
use crate::follow::{self, End, Followed, Task, follow};
use crate::outcome::{Ending, Reason};
use crate::output::seconds;
use crate::proof::{Claim, prove};
use crate::report::{Rollback, Run};
use crate::revision::{self, HASH};
use crate::target::Target;
use crate::template::CHANGE_CAUSE;
use crate::watch::Watch;

/// What is missing if a rollback is impossible.
const NONE: &str = "no earlier revision that was ever available";
/// How long to wait after the answer to a write was lost, before reading whether the write succeeded.
const PAUSE: Duration = Duration::from_millis(500);

/// Restores the previous revision on request.
pub(crate) async fn roll_back(
    cluster: &Cluster,
    name: &str,
    timeout: Duration,
    run: &mut Run,
) -> Result<Ending, Ending> {
    let live = cluster.deployment(name).await?;
    let deployment = typed(&live)?;
    let mut watch = Watch::begin(cluster, name, &revision::selector(&deployment)).await?;
    run.sight = Some(follow::before(&mut watch, cluster, &Target::of(&deployment)));
    let since = Instant::now();
    let Some(target) = undo(cluster, name, None, run).await? else {
        let cause = format!("Deployment {name} has {NONE}: nothing was changed");
        return Err(Ending::new(Reason::NoEarlierRevision, cause));
    };
    run.commit.clone_from(&target.commit);
    run.image = target.images.first().cloned();
    let cluster = cluster.after_change();
    let followed = follow_back((&cluster, &mut watch), &target, timeout, run).await?;
    match &followed.end {
        End::Done => {
            if let Some(commit) = &target.commit {
                let image = target.images.first().map_or("", String::as_str);
                let claim = Claim { commit, image, until: since + timeout };
                prove(&cluster, &followed.assessment.available, &claim, run).await?;
            }
            let (now, after) = (named(&target), seconds(since.elapsed()));
            Ok(Ending::done(format!("{name} is rolled back to {now} ({after:.1} s)")))
        }
        End::Failed(trouble) => {
            diagnose(&cluster, trouble, (&followed.seen, false), run).await;
            Err(Ending::new(trouble.cause.reason(), format!("the rollback failed: {trouble}")))
        }
        End::Superseded(by) => Err(superseded(by)),
        End::TimedOut => Err(timed_out(&followed, timeout)),
    }
}

/// Time is up.
pub(crate) fn timed_out(followed: &Followed, timeout: Duration) -> Ending {
    let (limit, how_far) = (timeout.as_secs(), followed.how_far());
    Ending::new(Reason::TimedOut, format!("not ended within {limit} s: {how_far}; the rollout continues"))
}

/// Restores the previous revision after a failure. The run still counts as failed.
pub(crate) async fn undo_failure(
    (cluster, watch): (&Cluster, &mut Watch),
    (failed, failure): (&Target, Ending),
    timeout: Duration,
    run: &mut Run,
) -> Ending {
    run.output.say(&format!("failed: {}", failure.cause));
    let undone = undo(cluster, &failed.name, Some(failed), run).await;
    let commit = undone.as_ref().ok().and_then(|target| target.as_ref()?.commit.clone());
    let ended = match &undone {
        Ok(Some(target)) => follow_back((cluster, watch), target, timeout, run).await.map(Some),
        Ok(None) => Ok(None),
        Err(ending) => Err(ending.clone()),
    };
    let by_another = |by: &str| Ending::new(Reason::Superseded, format!("{}; {}", failure.cause, superseded(by).cause));
    let (outcome, cause, ending) = match ended {
        Ok(None) => ("none", Some(format!("there is {NONE}: nothing was rolled back")), failure),
        Ok(Some(Followed { end: End::Done, .. })) => ("done", None, failure),
        Ok(Some(Followed { end: End::Superseded(by), .. })) => ("none", Some(superseded(&by).cause), by_another(&by)),
        Err(ending) if ending.reason == Some(Reason::Superseded) => ("none", Some(ending.cause.clone()), ending),
        // Only a rollout that is known to have failed is undone.
        Err(ending) if failure.reason == Some(Reason::AccessLost) => ("failed", Some(ending.cause), failure),
        ended => {
            let why = match ended {
                Ok(Some(Followed { end: End::Failed(trouble), .. })) => trouble.to_string(),
                Err(ending) => ending.cause,
                _ => format!("not ended within {} s", timeout.as_secs()),
            };
            let cause = format!("{}; and the rollback failed, too: {why}", failure.cause);
            ("failed", Some(why), Ending::new(Reason::RollbackFailed, cause))
        }
    };
    run.rollback = Some(Rollback { outcome, commit, cause });
    ending
}

fn named(target: &Target) -> &str {
    target.commit.as_deref().map_or("the previous revision, which names no commit", short)
}

async fn follow_back(
    (cluster, watch): (&Cluster, &mut Watch),
    target: &Target,
    limit: Duration,
    run: &mut Run,
) -> Result<Followed, Ending> {
    run.output.say(&format!("rolling back to {}", named(target)));
    follow(cluster, watch, &Task { target, since: Instant::now(), limit }, run).await
}

/// Restores the previous revision. If there is none, returns None and changes nothing. If a rollout `failed`, only that
/// rollout is undone, not what somebody has applied since.
///
/// The Deployment is replaced, because an apply would keep what others have added to the template since.
async fn undo(cluster: &Cluster, name: &str, failed: Option<&Target>, run: &mut Run) -> Result<Option<Target>, Ending> {
    let refused = |cluster: &Cluster, error| {
        cluster.ending(&format!("restore the previous revision of Deployment {name}"), error)
    };
    let mut contest = Contest::of(format!("Deployment {name}"));
    loop {
        let mut live = cluster.deployment(name).await?;
        contest.attempt([Some(&live)])?;
        let deployment = typed(&live)?;
        if let Some(by) = failed.and_then(|target| target.superseded_by(&deployment)) {
            let cause = format!("{by} was applied meanwhile: nothing was rolled back");
            return Err(Ending::new(Reason::Superseded, cause));
        }
        let Some(revision) = previous(cluster, &deployment).await? else { return Ok(None) };
        let commit = revision.data["spec"]["template"]["metadata"]["annotations"][COMMIT].as_str().map(str::to_owned);
        restore(&mut live, &revision, commit.as_deref());
        let now = cluster.now();
        let written = cluster.replace(&live).await;
        run.changed |= matches!(written, Ok(_) | Err(Unwritten::Lost));
        let written = match written {
            Ok(written) => typed(&written)?,
            Err(Unwritten::Stale) => continue,
            Err(Unwritten::Refused(error)) => return Err(refused(cluster, &error)),
            Err(Unwritten::Lost) => {
                sleep(PAUSE).await;
                let written = typed(&cluster.after_change().deployment(name).await?)?;
                if written.metadata.generation == deployment.metadata.generation {
                    continue; // the request itself was lost
                }
                written
            }
        };
        let target = Target::of(&written).written(deployment.metadata.generation.unwrap_or_default(), now);
        return Ok(Some(Target { undoing: true, ..target }));
    }
}

/// The `ReplicaSet` of the revision to roll back to.
async fn previous(cluster: &Cluster, deployment: &Deployment) -> Result<Option<DynamicObject>, Ending> {
    let sets = cluster.list(&ApiResource::erase::<ReplicaSet>(&()), &revision::selector(deployment)).await;
    let sets = sets.map_err(|error| cluster.ending("list the ReplicaSets", &error))?;
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
    fn a_rollback_restores_template_and_commit_and_nothing_else() {
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
