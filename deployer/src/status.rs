//! `deployer status`: what serves now, and how its rollout goes.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::ApiResource;

use crate::cluster::{Cluster, typed};
use crate::diagnosis;
use crate::outcome::{Ending, Outcome};
use crate::output::Output;
use crate::rollout::{Target, Verdict, assess};
use crate::template::short;
use crate::verdict::how_it_goes;
use crate::watch::show_pods;

/// Looks once, and judges what is there.
pub(crate) async fn status(cluster: &Cluster, name: &str, output: &Output) -> Result<Ending, Ending> {
    let resource = ApiResource::erase::<Deployment>(&());
    let live = cluster.live(&resource, name).await;
    let live = live.map_err(|error| cluster.ending(&format!("read Deployment {name}"), &error))?;
    let Some(deployment) = live.as_ref().map(typed).transpose()? else {
        return Err(Ending::new(Outcome::Failed, cluster.no_deployment(name)));
    };
    let target = Target::of(&deployment, deployment.metadata.generation, cluster.now());
    let cannot_list = |error: kube::Error| cluster.ending("list ReplicaSets, pods and events", &error);
    let mut seen = cluster.snapshot(deployment).await.map_err(cannot_list)?;
    let mut assessment = assess(&target, &seen, cluster.now());
    if let Some(uid) = assessment.suspect {
        let events = cluster.events(&uid).await.map_err(cannot_list)?;
        seen.events = Some((uid, events.into_iter().map(Arc::new).collect()));
        assessment = assess(&target, &seen, cluster.now());
    }
    let commit = target.commit.as_deref();
    output.record(|report| {
        report.commit.clone_from(&target.commit);
        report.image = target.images.first().cloned();
    });
    show_pods(&seen, assessment.wanted, output);
    let revision = commit.map_or("a revision without a commit", short);
    for warning in &assessment.warnings {
        output.warn(&warning.text);
    }
    match &assessment.verdict {
        Verdict::Done => Ok(Ending::new(Outcome::Done, format!("{name} {revision} is rolled out"))),
        Verdict::Failed(cause) => {
            diagnosis::diagnose(cluster, name, cause, &seen, output).await;
            output.record(|report| report.commands.push(("undo", cluster.deployer("rollback", name))));
            Err(Ending::new(Outcome::Failed, format!("the rollout of {revision} fails: {}", cause.summary)))
        }
        _ => Err(Ending::new(
            Outcome::Unfinished,
            format!("the rollout of {revision} is going on: {}", how_it_goes(&assessment)),
        )),
    }
}
