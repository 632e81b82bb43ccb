//! The order of work of a rollout: refuse bad input, check, compare, apply, watch, prove. On failure, report why and roll back.

use std::path::PathBuf;

use crate::apply::{Applied, Manner, apply, superseded};
use crate::cluster::Cluster;
use crate::commit::{Commit, short};
use crate::diagnosis::diagnose;
use crate::follow::{End, Followed, Task, follow};
use crate::image::Image;
use crate::outcome::{Ending, Reason};
use crate::output::seconds;
use crate::proof::{Claim, prove};
use crate::report::Run;
use crate::revision;
use crate::rollback::{timed_out, undo_failure};
use crate::rollout::Trouble;
use crate::template::{self, Documents};
use crate::watch::Watch;

/// What the command line asks for.
pub(crate) struct Request {
    /// Its tag is a prefix of the commit.
    pub(crate) image: Image,
    /// The commit that the image was built from.
    pub(crate) commit: Commit,
    /// The file with `<IMAGE>` in it.
    pub(crate) template: PathBuf,
    /// How to roll it out.
    pub(crate) manner: Manner,
}

/// Reads the template, and refuses what can be refused without a request.
pub(crate) fn read(request: &Request, namespace: Option<&str>) -> anyhow::Result<Documents> {
    let documents = render(&request.image, &request.commit, &request.template)?;
    documents.check_deadline(request.manner.timeout)?;
    if let (Some(asked), Some(stated)) = (namespace, documents.namespace()) {
        anyhow::ensure!(asked == stated, "the template belongs to namespace {stated} and --namespace is {asked}");
    }
    Ok(documents)
}

/// Fills in the template for a commit.
pub(crate) fn render(image: &Image, commit: &Commit, template: &std::path::Path) -> anyhow::Result<Documents> {
    image.check_tag(commit)?;
    // What `kubectl rollout history` shows: the commit, and the build that deployed it where Jenkins names it.
    let build = std::env::var("BUILD_URL").ok().filter(|url| !url.is_empty());
    let build = build.map_or_else(String::new, |url| format!(", {url}"));
    template::fill_in(template, image, commit, &format!("commit {}{build}", commit.as_str()))
}

/// Rolls out `documents`.
pub(crate) async fn deploy(
    cluster: &Cluster,
    request: &Request,
    mut documents: Documents,
    run: &mut Run,
) -> Result<Ending, Ending> {
    for document in documents.all_mut() {
        let resource = cluster.resource_of(document).await;
        let what = format!("ask for the kind {}", document.kind());
        document.call(resource.map_err(|error| cluster.ending(&what, &error))?.plural);
    }
    let name = documents.deployment.name().to_owned();
    let mut watch = Watch::begin(cluster, &name, &documents.selector()).await?;
    let applied = apply((cluster, &mut watch), &mut documents, (&request.commit, request.manner), run).await?;
    let Some(Applied { target, since, incomplete }) = applied else {
        return Ok(Ending::done("the dry run was accepted, and nothing was changed"));
    };
    let cluster = &cluster.after_change();
    if let Some(ending) = incomplete {
        let ending = Ending { cause: format!("{}; run the same command again", ending.cause), ..ending };
        if request.manner.rollback {
            return Err(undo_failure((cluster, &mut watch), (&target, ending), request.manner.timeout, run).await);
        }
        return Err(ending);
    }
    let task = Task { target: &target, since, limit: request.manner.timeout };
    let followed = follow(cluster, &mut watch, &task, run).await?;
    match &followed.end {
        End::Done => done(cluster, request, (&followed, &task), run).await,
        End::Failed(trouble) => {
            let ending = failed(cluster, request, (trouble, &followed, task), run).await;
            if request.manner.rollback {
                let ending = undo_failure((cluster, &mut watch), (&target, ending), request.manner.timeout, run).await;
                return Err(ending);
            }
            Err(ending)
        }
        End::Superseded(by) => Err(superseded(by)),
        End::TimedOut => Err(timed_out(&followed, request.manner.timeout)),
    }
}

/// Proves the commit, and reports the result.
async fn done(
    cluster: &Cluster,
    request: &Request,
    (followed, task): (&Followed, &Task<'_>),
    run: &mut Run,
) -> Result<Ending, Ending> {
    let commit = request.commit.as_str();
    let claim = Claim { commit, image: request.image.as_str(), until: task.since + task.limit };
    prove(cluster, &followed.assessment.available, &claim, run).await?;
    let name = run.deployment.clone().unwrap_or_default();
    let sight = run.sight.clone().unwrap_or_default();
    let (serving, replaced) = (sight.serving_after.unwrap_or_default(), sight.replaced_after.unwrap_or_default());
    let times = format!("serving after {serving:.1} s, replaced after {replaced:.1} s");
    let commit = short(commit);
    Ok(Ending::done(match followed.assessment.desired {
        0 => format!("{name} {commit} runs on 0 pods: replicas is 0"),
        1 => format!("{name} {commit} serves on 1 pod ({times})"),
        pods => format!("{name} {commit} serves on {pods} pods ({times})"),
    }))
}

async fn failed(
    cluster: &Cluster,
    request: &Request,
    (trouble, followed, task): (&Trouble, &Followed, Task<'_>),
    run: &mut Run,
) -> Ending {
    let after = seconds(task.since.elapsed());
    let is_undone = request.manner.rollback;
    diagnose(cluster, trouble, (&followed.seen, is_undone), run).await;
    let deployment = followed.seen.deployment.as_deref();
    let has_previous = |deployment| revision::previous(deployment, &followed.seen.replica_sets).is_some();
    if !is_undone && deployment.is_some_and(has_previous) {
        let name = run.deployment.clone().unwrap_or_default();
        run.commands.push(("undo", cluster.place.deployer("rollback", &name)));
    }
    Ending::new(trouble.cause.reason(), format!("{trouble}, {after:.1} s after the apply"))
}

/// The commands that help after any failure, if the verdict has no better ones.
pub(crate) fn look_further(ending: &Ending, run: &mut Run) {
    let (Some(place), Some(name)) = (&run.place, &run.deployment) else { return };
    let continues = match ending.reason {
        Some(Reason::TimedOut | Reason::AccessLost | Reason::Superseded) => true,
        Some(Reason::Interrupted | Reason::Terminated) => run.changed,
        _ => false,
    };
    if continues {
        let commands = [place.deployer("status", name), place.kubectl(&format!("describe deployment {name}"))];
        run.commands.extend(commands.map(|command| ("look", command)));
    }
}
