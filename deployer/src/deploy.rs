//! The order of work of a rollout: refuse, check, judge, apply, watch, prove; and on failure say why, and go back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use tokio::time::Instant;

use crate::cluster::{Cluster, Unwritten, persistently, typed};
use crate::order::Order;
use crate::outcome::{Ending, Outcome};
use crate::output::{Output, seconds};
use crate::revision;
use crate::rollback::go_back;
use crate::rollout::Target;
use crate::template::{self, Commit, Documents, Image, short};
use crate::verdict::{done, superseded, timed_out};
use crate::watch::{End, Followed, follow};
use crate::{diagnosis, permissions, proof};

/// How often another deployer may write in between before that is no coincidence.
const ATTEMPTS: usize = 20;

/// What is asked for.
pub(crate) struct Request {
    /// The image, its tag the beginning of the commit.
    pub(crate) image: Image,
    /// The commit.
    pub(crate) commit: Commit,
    /// The file with `<IMAGE>` in it.
    pub(crate) template: PathBuf,
    /// How long the rollout may take.
    pub(crate) timeout: Duration,
    /// Whether to go back where it fails.
    pub(crate) rollback: bool,
    /// Whether to stop before anything is changed.
    pub(crate) dry_run: bool,
    /// Whether an older commit is as welcome as a newer one.
    pub(crate) ignore_order: bool,
}

/// Reads the template and refuses whatever can be refused without asking anybody.
pub(crate) fn read(request: &Request, namespace: Option<&str>) -> anyhow::Result<Documents> {
    request.image.check_tag(&request.commit)?;
    let documents =
        template::fill_in(&request.template, &request.image, &request.commit, &change_cause(&request.commit))?;
    documents.check_deadline(request.timeout)?;
    if let (Some(asked), Some(stated)) = (namespace, documents.namespace()) {
        anyhow::ensure!(asked == stated, "the template belongs to namespace {stated} and --namespace is {asked}");
    }
    Ok(documents)
}

/// What `kubectl rollout history` shows: the commit, and the build that deployed it where Jenkins says so.
pub(crate) fn change_cause(commit: &Commit) -> String {
    match std::env::var("BUILD_URL") {
        Ok(url) if !url.is_empty() => format!("commit {}, {url}", commit.as_str()),
        _ => format!("commit {}", commit.as_str()),
    }
}

/// Rolls `documents` out.
pub(crate) async fn deploy(
    cluster: &Cluster,
    request: &Request,
    mut documents: Documents,
    output: &Output,
) -> Result<Ending, Ending> {
    let mut needs = permissions::to_deploy(&documents);
    if request.rollback {
        needs.extend(permissions::to_go_back(documents.deployment.name()));
    }
    permissions::check(cluster, needs).await?;
    let Some(applied) = apply(cluster, request, &mut documents, output).await? else {
        return Ok(Ending::new(Outcome::Done, "the dry run was accepted, and nothing was changed"));
    };
    let name = documents.deployment.name();
    let followed =
        follow(cluster, &applied.deployment, &applied.target, applied.since, request.timeout, output).await?;
    match &followed.end {
        End::Done => {
            proof::prove(cluster, &followed.assessment.ready, request.commit.as_str(), output).await?;
            Ok(done(name, request.commit.as_str(), &followed, output))
        }
        End::Failed(cause) => {
            diagnosis::diagnose(cluster, name, cause, &followed.seen, output).await;
            let after = seconds(applied.since.elapsed());
            let summary = cause.summary.trim_end_matches('.');
            let ending = Ending::new(Outcome::Failed, format!("{summary}, {after:.1} s after the apply"));
            if request.rollback {
                return go_back(cluster, name, &applied.target, ending, request.timeout, output).await;
            }
            if rollout_has_previous(&followed) {
                output.record(|report| report.commands.push(("undo", cluster.deployer("rollback", name))));
            }
            Err(ending)
        }
        End::Superseded(by) => Err(superseded(cluster, name, by, output)),
        End::TimedOut => Err(timed_out(cluster, name, request.timeout, &followed, output)),
    }
}

/// What an apply left behind.
struct Applied {
    deployment: Deployment,
    target: Target,
    since: Instant,
}

/// Dry run, guard, apply. None if it is to stop before the apply.
async fn apply(
    cluster: &Cluster,
    request: &Request,
    documents: &mut Documents,
    output: &Output,
) -> Result<Option<Applied>, Ending> {
    let resource = documents.deployment.resource();
    let name = documents.deployment.name().to_owned();
    let autoscaler = cluster.autoscaler(&name).await;
    let autoscaler = autoscaler.map_err(|error| cluster.ending("list the autoscalers", &error))?;
    if let Some(autoscaler) = &autoscaler {
        output.say(&format!("autoscaler {autoscaler} owns the replicas: they stay as they are"));
    }
    let mut told = String::new();
    for attempt in 0..ATTEMPTS {
        let live = read_live(cluster, documents).await?;
        let before: Option<Deployment> = live[0].as_ref().map(typed).transpose()?;
        let (standing, warning) = judge(cluster, request, before.as_ref(), output)?;
        if standing != told {
            if let Some(warning) = warning {
                output.warn(&warning);
            }
            let (commit, namespace) = (short(request.commit.as_str()), cluster.namespace());
            output.say(&format!("deploy {name} {commit} to namespace {namespace}; {standing}"));
            told = standing;
        }
        if let (Some(_), Some(replicas)) = (&autoscaler, before.as_ref().and_then(replicas)) {
            documents.deployment.leave_replicas_at(replicas);
        }
        if attempt == 0 {
            dry_run(cluster, documents, &live, output).await?;
        }
        if request.dry_run {
            return Ok(None);
        }
        let since = Instant::now();
        output.record(|report| report.changed = true);
        let written = match cluster.put(&documents.deployment, live[0].as_ref().map(|live| &live.metadata)).await {
            Ok(written) => written,
            Err(Unwritten::Stale) => continue, // somebody was faster, or the controller wrote a status
            Err(Unwritten::Refused(error)) => {
                return Err(cluster.ending(&format!("apply Deployment {name}"), &error));
            }
        };
        let deployment = typed(&written)?;
        let generation = before.as_ref().and_then(|before| before.metadata.generation);
        let target = Target::of(&deployment, generation, cluster.now());
        for (document, live) in documents.others.iter().zip(&live[1..]) {
            put_other(cluster, document, live.clone(), &target, &name, output).await?;
        }
        let to_replace = before.and_then(|before| before.status).and_then(|status| status.replicas).unwrap_or_default();
        output.say(&match (target.applied.is_some(), to_replace) {
            (false, _) => "applied; the Deployment is as it was".to_owned(),
            (true, 0) => format!("applied; {} pods to start", replicas(&deployment).unwrap_or(1)),
            (true, 1) => "applied; 1 pod to replace".to_owned(),
            (true, pods) => format!("applied; {pods} pods to replace"),
        });
        return Ok(Some(Applied { deployment, target, since }));
    }
    let cause = format!("somebody else keeps writing to {} {name}: {ATTEMPTS} attempts", resource.kind);
    Err(Ending::new(Outcome::Superseded, cause))
}

/// What runs now, of every document, the Deployment first.
async fn read_live(cluster: &Cluster, documents: &Documents) -> Result<Vec<Option<DynamicObject>>, Ending> {
    let mut live = Vec::new();
    for document in documents.all() {
        let found = cluster.live(&document.resource(), document.name()).await;
        live.push(
            found.map_err(|error| cluster.ending(&format!("read {} {}", document.kind(), document.name()), &error))?,
        );
    }
    Ok(live)
}

/// Whether `before` may be replaced by the commit of the request: how the two stand to each other, and what to warn of.
fn judge(
    cluster: &Cluster,
    request: &Request,
    before: Option<&Deployment>,
    output: &Output,
) -> Result<(String, Option<String>), Ending> {
    let Some(before) = before else { return Ok((Order::First.to_string(), None)) };
    let name = before.name_any();
    if before.spec.as_ref().and_then(|spec| spec.paused) == Some(true) {
        let resume = cluster.kubectl(&format!("rollout resume deployment/{name}"));
        return Err(Ending::new(
            Outcome::Invalid,
            format!("Deployment {name} is paused, nothing would be rolled out: {resume}"),
        ));
    }
    let live = revision::commit(before);
    output.record(|report| report.previous_commit = live.map(str::to_owned));
    let order = Order::of(live, request.commit.as_str(), Path::new("."));
    let warning = match &order {
        Order::Refused(reason) if request.ignore_order => Some(format!("the order is ignored: {reason}")),
        Order::Refused(reason) => return Err(Ending::new(Outcome::NotNewer, reason.clone())),
        Order::Unlabelled => Some(order.to_string()),
        Order::First | Order::Same | Order::Newer(_) => None,
    };
    let standing = match (&order, live) {
        (Order::Newer(_), Some(live)) => format!("{} runs there, {order}", short(live)),
        (Order::Refused(_), Some(live)) => format!("{} runs there", short(live)),
        _ => order.to_string(),
    };
    Ok((standing, warning))
}

fn replicas(deployment: &Deployment) -> Option<i32> {
    deployment.spec.as_ref()?.replicas
}

async fn dry_run(
    cluster: &Cluster,
    documents: &Documents,
    live: &[Option<DynamicObject>],
    output: &Output,
) -> Result<(), Ending> {
    let mut accepted = Vec::new();
    for (document, live) in documents.all().zip(live) {
        let (kind, name) = (document.kind(), document.name());
        let taken = cluster.dry_run(document, live.as_ref().map(|live| &live.metadata)).await;
        for taken in taken.map_err(|error| cluster.refusal(document, &error))? {
            output.say(&format!("{kind} {name}: {} is taken over from {}", taken.field, taken.manager));
        }
        accepted.push(format!("{kind} {name}"));
    }
    output.say(&format!("dry run accepted: {}", accepted.join(", ")));
    Ok(())
}

/// Writes a document that goes with the Deployment, for as long as the Deployment is the one that was applied: of two
/// deployers at once, the one that lost it leaves the rest to the other.
async fn put_other(
    cluster: &Cluster,
    document: &template::Document,
    mut live: Option<DynamicObject>,
    target: &Target,
    deployment: &str,
    output: &Output,
) -> Result<(), Ending> {
    let (kind, name) = (document.kind(), document.name());
    let trouble = |error: &kube::Error| {
        let mut ending = cluster.ending(&format!("apply {kind} {name}, the Deployment is applied"), error);
        ending.cause = format!("{}; run the same again", ending.cause);
        ending
    };
    for _ in 0..ATTEMPTS {
        let put = async || match cluster.put(document, live.as_ref().map(|live| &live.metadata)).await {
            Ok(_) => Ok(true),
            Err(Unwritten::Stale) => Ok(false),
            Err(Unwritten::Refused(error)) => Err(error),
        };
        if persistently(put).await.map_err(|error| trouble(&error))? {
            return Ok(());
        }
        let resource = kube::api::ApiResource::erase::<Deployment>(&());
        let now = persistently(async || cluster.live(&resource, deployment).await).await;
        let now = now.map_err(|error| trouble(&error))?;
        let now = now.as_ref().map(typed).transpose()?;
        let Some(now) = now.filter(|now| now.metadata.uid.as_ref() == Some(&target.uid)) else {
            let cause = "the Deployment was deleted while its rollout was going on";
            return Err(Ending::new(Outcome::Failed, cause));
        };
        if let Some(by) = target.superseded_by(&now) {
            return Err(superseded(cluster, deployment, &by, output));
        }
        let read = persistently(async || cluster.live(&document.resource(), name).await).await;
        live = read.map_err(|error| trouble(&error))?;
    }
    let cause = format!("somebody else keeps writing to {kind} {name}: {ATTEMPTS} attempts");
    Err(Ending::new(Outcome::Superseded, cause))
}

fn rollout_has_previous(followed: &Followed) -> bool {
    let deployment = followed.seen.deployment.as_deref();
    deployment.is_some_and(|deployment| revision::previous(deployment, &followed.seen.replica_sets).is_some())
}
