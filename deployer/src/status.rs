//! `deployer status`: what serves now, and the state of its rollout.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ApiResource;
use serde::de::DeserializeOwned;

use crate::apply::typed;
use crate::cause::Cause;
use crate::cluster::Cluster;
use crate::commit::{Commit, short};
use crate::diagnosis::diagnose;
use crate::follow::how_far;
use crate::image::Image;
use crate::outcome::{Ending, Reason};
use crate::report::{Run, Sight};
use crate::revision;
use crate::rollout::{Snapshot, Suspicion, Trouble, Verdict, assess};
use crate::target::Target;

/// Reads the objects once, and judges the rollout.
pub(crate) async fn status(cluster: &Cluster, name: &str, run: &mut Run) -> Result<Ending, Ending> {
    let deployment = typed(&cluster.deployment(name).await?)?;
    let target = Target::of(&deployment);
    run.commit.clone_from(&target.commit);
    run.image = target.images.first().cloned();
    let mut seen = look(cluster, deployment).await?;
    let mut assessment = assess(&target, &seen, cluster.now());
    if let Some(Suspicion { uid, .. }) = assessment.suspect.take() {
        let events = match cluster.events(&uid).await {
            Err(error) => {
                run.output.warn(&format!("judged without events: {}", cluster.explain(&error)));
                Vec::new()
            }
            Ok(events) => events.into_iter().map(Arc::new).collect(),
        };
        seen.events = Some((uid, events));
        assessment = assess(&target, &seen, cluster.now());
    }
    for doubt in &assessment.doubts {
        run.output.warn(&doubt.to_string());
    }
    let trouble = match &assessment.verdict {
        _ if let Some(cause) = changed_by_hand(&target) => Some(Trouble::from(cause)),
        Verdict::Failed(trouble) => Some((**trouble).clone()),
        _ => None,
    };
    run.sight = Some(Sight { pods: assessment.own.clone(), desired: assessment.desired, ..Sight::default() });
    let revision = target.commit.as_deref().map_or("a revision without a commit", short);
    if let Some(trouble) = trouble {
        diagnose(cluster, &trouble, (&seen, false), run).await;
        if seen.deployment.as_deref().is_some_and(|live| revision::previous(live, &seen.replica_sets).is_some()) {
            run.commands.push(("undo", cluster.place.deployer("rollback", name)));
        }
        return Err(Ending::new(trouble.cause.reason(), format!("the rollout of {revision} fails: {trouble}")));
    }
    if matches!(assessment.verdict, Verdict::Done) {
        return Ok(Ending::done(format!("{name} {revision} is rolled out")));
    }
    Err(Ending::new(Reason::TimedOut, format!("the rollout of {revision} is under way: {}", how_far(&assessment))))
}

/// The Deployment, its `ReplicaSets` and its pods at this moment.
async fn look(cluster: &Cluster, deployment: Deployment) -> Result<Snapshot, Ending> {
    let labels = revision::selector(&deployment);
    Ok(Snapshot {
        replica_sets: list::<ReplicaSet>(cluster, &labels).await?,
        pods: list::<Pod>(cluster, &labels).await?,
        deployment: Some(Arc::new(deployment)),
        ..Snapshot::default()
    })
}

async fn list<K>(cluster: &Cluster, labels: &str) -> Result<Vec<Arc<K>>, Ending>
where
    K: kube::Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let resource = ApiResource::erase::<K>(&());
    let what = format!("list {}", resource.plural);
    let found = cluster.list(&resource, labels).await.map_err(|error| cluster.ending(&what, &error))?;
    Ok(found.into_iter().filter_map(|object| object.try_parse().ok()).map(Arc::new).collect())
}

/// An image that was not built from the commit that the pod template names, set with kubectl for example.
fn changed_by_hand(target: &Target) -> Option<Cause> {
    let commit: Commit = target.commit.as_deref()?.parse().ok()?;
    let is_of_commit = |image: &String| image.parse::<Image>().is_ok_and(|image| image.check_tag(&commit).is_ok());
    if target.images.iter().any(is_of_commit) {
        return None;
    }
    Some(Cause::ImageChanged { image: target.images.join(", "), commit: commit.as_str().to_owned() })
}
