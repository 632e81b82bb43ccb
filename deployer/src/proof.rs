//! The proof: each pod is asked, through the API server, which commit it runs.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde::Deserialize;

use crate::cluster::{Cluster, answer_of};
use crate::outcome::{Ending, Outcome};
use crate::output::Output;
use crate::template::short;

/// Pods asked at the same time.
const AT_ONCE: usize = 16;

/// What GET /version answers, as far as it matters here.
#[derive(Deserialize)]
struct Version {
    commit: String,
}

/// Asks every one of `pods` for its commit, which must be `commit`. One that cannot be asked is a warning: it is ready,
/// and networks may keep the API server from it.
///
/// # Errors
/// Where a pod runs another commit, or the pods run images of different content.
pub(crate) async fn prove(cluster: &Cluster, pods: &[Arc<Pod>], commit: &str, output: &Output) -> Result<(), Ending> {
    let answers = stream::iter(pods).map(|pod| async move { (pod, ask(cluster, pod).await) }).buffered(AT_ONCE);
    let answers: Vec<_> = answers.collect().await;

    let mut agreed = 0;
    let mut others = Vec::new();
    let mut silent = Vec::new();
    for (pod, answer) in answers {
        let name = pod.name_any();
        match answer {
            Ok(found) => {
                output.record(|report| {
                    if let Some(reported) = report.pods.iter_mut().find(|reported| reported.name == name) {
                        reported.commit = Some(found.clone());
                    }
                });
                if found == commit {
                    agreed += 1;
                } else {
                    others.push(format!("pod {name} answers with {}", short(&found)));
                }
            }
            Err(why) => silent.push(format!("pod {name}: {why}")),
        }
    }
    let images: BTreeSet<String> = pods.iter().filter_map(|pod| image_of(pod)).collect();
    if !others.is_empty() {
        output.record(|report| report.evidence.clone_from(&others));
        let cause =
            format!("{} of {} pods run another commit than {}: {}", others.len(), pods.len(), short(commit), others[0]);
        return Err(Ending::new(Outcome::Broken, cause));
    }
    if images.len() > 1 {
        output.record(|report| report.evidence = images.iter().map(|image| format!("image {image}")).collect());
        let cause = format!("the pods run {} different images under one tag", images.len());
        return Err(Ending::new(Outcome::Broken, cause));
    }
    if let Some(one) = silent.first() {
        output.warn(&format!("{} of {} pods do not say which commit they run; {one}", silent.len(), pods.len()));
    }
    if agreed > 0 {
        output.say(&format!("proved: {agreed} of {} pods answer with {}", pods.len(), short(commit)));
    }
    Ok(())
}

async fn ask(cluster: &Cluster, pod: &Pod) -> Result<String, String> {
    let answer = cluster.get_from_pod(&pod.name_any(), "/version").await;
    let answer = answer.map_err(|error| format!("GET /version: {}", answer_of(&error)))?;
    let version: Version = serde_json::from_str(&answer)
        .map_err(|error| format!("GET /version does not answer with a commit: {error}"))?;
    Ok(version.commit)
}

/// What the first container's image is made of, by its digest.
fn image_of(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_deref()?;
    statuses.first().map(|status| status.image_id.clone()).filter(|image| !image.is_empty())
}
