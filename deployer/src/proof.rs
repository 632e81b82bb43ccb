//! The proof: asks each pod, through the API server, which commit it runs, and compares the digest of its image.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use crate::cluster::{Cluster, POD_PATIENCE, answer_of};
use crate::commit::short;
use crate::image::{Image, digest_of};
use crate::outcome::{Ending, Reason};
use crate::output::Output;
use crate::pod;
use crate::report::Run;

/// How many pods are asked at the same time.
const AT_ONCE: usize = 16;
/// How long a proof may take before a line reports its progress.
const QUIET: Duration = Duration::from_secs(5);

/// The part of the answer to GET /version that is needed here.
#[derive(Deserialize)]
struct Version {
    commit: String,
}

/// What each pod must run.
pub(crate) struct Claim<'a> {
    /// The commit that each pod must name.
    pub(crate) commit: &'a str,
    /// The image that each pod must run.
    pub(crate) image: &'a str,
    /// When the proof must end.
    pub(crate) until: Instant,
}

/// Compares the answer and the image's digest of each of `pods` with the claim. If a pod cannot be asked, that is only a
/// warning, because the pod is ready, and a network may block the API server.
///
/// # Errors
/// If a pod runs another commit, or an image with another digest.
pub(crate) async fn prove(
    cluster: &Cluster,
    pods: &[Arc<Pod>],
    claim: &Claim<'_>,
    run: &mut Run,
) -> Result<(), Ending> {
    let answers = ask_all(cluster, pods, claim.until, &run.output).await;
    let (mut agreed, mut others, mut silent) = (0, Vec::new(), Vec::new());
    let unasked = pods.len() - answers.len();
    let sight = run.sight.get_or_insert_default();
    for (pod, answer) in answers {
        let name = pod.name_any();
        match answer {
            Ok(found) => {
                if found == claim.commit {
                    agreed += 1;
                } else {
                    others.push(format!("pod {} answers with {}", pod::located(pod), short(&found)));
                }
                sight.proved.insert(name, found);
            }
            Err(why) => silent.push(format!("pod {name}: {why}")),
        }
    }
    let (all, commit) = (pods.len(), short(claim.commit));
    if let Some(first) = others.first() {
        let cause = format!("{} of {all} pods run another commit than {commit}: {first}", others.len());
        run.evidence.clone_from(&others);
        return Err(Ending::new(Reason::WrongCommit, cause));
    }
    compare_digests(pods, claim.image, run)?;
    if let Some(one) = silent.first() {
        run.output.warn(&format!("{} of {all} pods do not say which commit they run; {one}", silent.len()));
    }
    if unasked > 0 {
        let why = if agreed == 0 { "none of the first ones answers" } else { "the time is up" };
        run.output.warn(&format!("{unasked} of {all} pods were not asked which commit they run: {why}"));
    }
    if agreed > 0 {
        run.output.say(&format!("proved: {agreed} of {all} pods answer with {commit}"));
    }
    Ok(())
}

/// The answers of the pods, in their order. The last pods are not asked after the time limit, or if the first ones show that
/// no pod can be asked.
async fn ask_all<'p>(
    cluster: &Cluster,
    pods: &'p [Arc<Pod>],
    until: Instant,
    output: &Output,
) -> Vec<(&'p Arc<Pod>, Result<String, String>)> {
    // Even after the time limit, a few pods get time to answer.
    let until = until.max(Instant::now() + POD_PATIENCE);
    let mut asked = stream::iter(pods).map(|pod| async move { (pod, ask(cluster, pod).await) }).buffered(AT_ONCE);
    let (mut answers, mut told) = (Vec::new(), Instant::now());
    while let Ok(Some(answer)) = timeout_at(until, asked.next()).await {
        answers.push(answer);
        if answers.len() == AT_ONCE && answers.iter().all(|(_, answer)| answer.is_err()) {
            break;
        }
        let progress = || format!("{} of {} pods have been asked which commit they run", answers.len(), pods.len());
        output.show(progress);
        if told.elapsed() >= QUIET {
            output.say(&progress());
            told = Instant::now();
        }
    }
    answers
}

async fn ask(cluster: &Cluster, pod: &Pod) -> Result<String, String> {
    let answer = cluster.get_from_pod(&pod.name_any(), "/version").await;
    let answer = answer.map_err(|error| format!("GET /version: {}", answer_of(&error)))?;
    let version: Version = serde_json::from_str(&answer)
        .map_err(|error| format!("GET /version does not answer with a commit: {error}"))?;
    Ok(version.commit)
}

/// containerd reports the requested digest, even if it is that of an index. Another digest is another image:
/// <https://github.com/containerd/containerd/blob/v2.1.0/internal/cri/server/container_status.go>
fn compare_digests(pods: &[Arc<Pod>], image: &str, run: &mut Run) -> Result<(), Ending> {
    let asked = image.parse::<Image>().ok().and_then(|image| image.digest().map(str::to_owned));
    let found: BTreeSet<&str> = pods.iter().filter_map(|pod| digest_of(image_id(pod, image)?)).collect();
    let is_one = found.len() <= 1 && asked.as_deref().is_none_or(|asked| found.iter().all(|found| *found == asked));
    if is_one {
        return Ok(());
    }
    let of_pod = |pod: &Arc<Pod>| Some(format!("pod {} runs {}", pod::located(pod), digest_of(image_id(pod, image)?)?));
    run.evidence = pods.iter().filter_map(of_pod).collect();
    let found: Vec<&str> = found.into_iter().collect();
    let cause = match asked {
        Some(asked) => format!("the pods run {}, but {asked} was requested", found.join(", ")),
        None => format!("the pods run {} different images under one tag: {}", found.len(), found.join(", ")),
    };
    Err(Ending::new(Reason::WrongDigest, cause))
}

/// The status of the container that runs `image`.
fn image_id<'a>(pod: &'a Pod, image: &str) -> Option<&'a str> {
    let containers = pod.spec.as_ref()?.containers.as_slice();
    let container = containers.iter().find(|container| container.image.as_deref() == Some(image));
    let name = &container.or(containers.first())?.name;
    pod::container_statuses(pod).find(|status| &status.name == name).map(|status| status.image_id.as_str())
}
