//! Starts a rollout: refuses bad input, checks the documents, compares the commits, and applies.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use tokio::time::{Instant, sleep};

use crate::ancestry::Order;
use crate::cluster::{Cluster, Unwritten};
use crate::commit::{Commit, short};
use crate::contest::Contest;
use crate::follow;
use crate::outcome::{Ending, Reason};
use crate::pace;
use crate::report::Run;
use crate::revision::{self, AVAILABLE};
use crate::target::Target;
use crate::template::{Document, Documents};
use crate::watch::Watch;

/// How long to wait after the answer to a write was lost, before reading whether the write succeeded.
const PAUSE: Duration = Duration::from_millis(500);

/// How to roll out.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    /// How long the rollout may take.
    pub(crate) timeout: Duration,
    /// Whether to roll back after a failure.
    pub(crate) rollback: bool,
    /// Whether to stop before anything is changed.
    pub(crate) dry_run: bool,
    /// Whether an older commit may be deployed as well as a newer one.
    pub(crate) ignore_order: bool,
}

/// A rollout that was started.
pub(crate) struct Applied {
    /// What is waited for.
    pub(crate) target: Target,
    /// When it was sent.
    pub(crate) since: Instant,
    /// Why one of the other documents could not be written.
    pub(crate) incomplete: Option<Ending>,
}

/// The state of an apply that has not finished.
struct Apply<'a> {
    cluster: Cluster,
    commit: &'a Commit,
    manner: Manner,
    /// The sentence about the order of the commits that was printed.
    told: String,
    /// Whether anything was written.
    wrote: bool,
    /// The generation before a write whose answer was lost; 0 if the object did not exist.
    lost: Option<i64>,
}

/// Why an attempt to write did not succeed.
enum Unfinished {
    /// Somebody else changed the object after it was read, so it must be read and judged again.
    Again,
    Ended(Ending),
}

impl From<Ending> for Unfinished {
    fn from(ending: Ending) -> Self {
        Self::Ended(ending)
    }
}

/// Checks the order of the commits, does the dry run, and applies. None if only a dry run was asked for.
pub(crate) async fn apply(
    (cluster, watch): (&Cluster, &mut Watch),
    documents: &mut Documents,
    (commit, manner): (&Commit, Manner),
    run: &mut Run,
) -> Result<Option<Applied>, Ending> {
    let name = documents.deployment.name().to_owned();
    let autoscaler = cluster.autoscaler(&name).await.map_err(|error| cluster.ending("list the autoscalers", &error))?;
    let autoscaler = autoscaler.or_else(|| documents.autoscaler().map(str::to_owned));
    let mut apply = Apply { cluster: cluster.clone(), commit, manner, told: String::new(), wrote: false, lost: None };
    let mut contest = Contest::of(format!("Deployment {name} or what goes with it"));
    let mut is_first = true;
    loop {
        let live = apply.read_live(documents).await?;
        contest.attempt(live.iter().map(Option::as_ref))?;
        let before: Option<Deployment> = live[0].as_ref().map(typed).transpose()?;
        apply.judge(before.as_ref(), run)?;
        if let Some(before) = &before {
            leave_replicas(documents, before, autoscaler.as_deref(), is_first.then_some(&*run));
            documents.deployment.note(AVAILABLE, note(before, watch, (cluster, commit)));
        }
        if std::mem::take(&mut is_first) {
            // A first deploy starts all pods at once, and a deploy of the same commit starts none.
            let replaced = before.as_ref().filter(|before| revision::commit(before) != Some(commit.as_str()));
            let stated = replaced.and_then(|_| documents.deployment.typed());
            if let Some(warning) = stated.and_then(|stated| pace::too_slow(&stated, manner.timeout)) {
                run.output.warn(&warning);
            }
            apply.dry_run(documents, &live, run).await?;
            let target = before.as_ref().map_or_else(|| Target::none(&name), Target::of);
            run.sight = Some(follow::before(watch, cluster, &target));
        }
        if manner.dry_run {
            return Ok(None);
        }
        run.changed = true;
        match apply.write(documents, &live, before.as_ref(), run).await {
            Ok(applied) => return Ok(Some(applied)),
            Err(Unfinished::Again) => {}
            Err(Unfinished::Ended(ending)) => return Err(ending),
        }
    }
}

impl Apply<'_> {
    /// The live object of every document, the Deployment first.
    async fn read_live(&self, documents: &Documents) -> Result<Vec<Option<DynamicObject>>, Ending> {
        let mut live = Vec::new();
        for document in documents.all() {
            let (kind, name) = (document.kind(), document.name());
            let found = self.cluster.live(&document.resource(), name).await;
            live.push(found.map_err(|error| self.cluster.ending(&format!("read {kind} {name}"), &error))?);
        }
        Ok(live)
    }

    /// Whether `before` may be replaced by the commit.
    fn judge(&mut self, before: Option<&Deployment>, run: &mut Run) -> Result<(), Ending> {
        let place = &self.cluster.place;
        let name = run.deployment.clone().unwrap_or_default();
        let live = before.and_then(revision::commit);
        let order = match before {
            None => Order::First,
            Some(before) if before.spec.as_ref().and_then(|spec| spec.paused) == Some(true) => {
                let resume = place.kubectl(&format!("rollout resume deployment/{name}"));
                let cause = format!("Deployment {name} is paused, so nothing would be rolled out: {resume}");
                return Err(Ending::new(Reason::Paused, cause));
            }
            Some(_) => Order::of(live, self.commit.as_str(), Path::new(".")),
        };
        if self.told.is_empty() {
            run.previous_commit = live.map(str::to_owned);
        }
        let warning = match &order {
            Order::Refused(reason) if self.manner.ignore_order => Some(format!("the order is ignored: {reason}")),
            Order::Refused(reason) => return Err(Ending::new(Reason::NotNewer, reason.clone())),
            Order::Unlabelled => Some(order.to_string()),
            Order::First | Order::Same | Order::Newer(_) => None,
        };
        let standing = match (&order, live) {
            (Order::Newer(_), Some(live)) => format!("{} runs there, {order}", short(live)),
            (Order::Refused(_), Some(live)) => format!("{} runs there", short(live)),
            _ => order.to_string(),
        };
        if standing != self.told && self.lost.is_none() {
            if let Some(warning) = warning {
                run.output.warn(&warning);
            }
            let commit = short(self.commit.as_str());
            run.output.say(&format!("deploy {name} {commit} to namespace {}; {standing}", place.namespace));
            self.told = standing;
        }
        Ok(())
    }

    async fn dry_run(
        &self,
        documents: &Documents,
        live: &[Option<DynamicObject>],
        run: &mut Run,
    ) -> Result<(), Ending> {
        let mut accepted = Vec::new();
        for (document, live) in documents.all().zip(live) {
            let (kind, name) = (document.kind(), document.name());
            let taken = self.cluster.dry_run(document, live.as_ref().map(|live| &live.metadata)).await;
            for taken in taken.map_err(|error| self.cluster.refusal(document, &error))? {
                run.output.say(&format!("{kind} {name}: {} is taken over from {}", taken.field, taken.manager));
            }
            accepted.push(format!("{kind} {name}"));
        }
        if let Some(live) = live[0].as_ref().filter(|_| self.manner.rollback) {
            // A rollback replaces the whole Deployment.
            let allowed = self.cluster.dry_replace(live).await;
            if let Err(error @ kube::Error::Api(_)) = &allowed
                && !matches!(error, kube::Error::Api(status) if status.code == 409)
            {
                return Err(self.cluster.ending("check a rollback in a dry run", error));
            }
        }
        run.output.say(&format!("dry run accepted: {}", accepted.join(", ")));
        Ok(())
    }

    /// Writes the documents that pods read, then the Deployment, then the others.
    async fn write(
        &mut self,
        documents: &Documents,
        live: &[Option<DynamicObject>],
        before: Option<&Deployment>,
        run: &mut Run,
    ) -> Result<Applied, Unfinished> {
        let others = || documents.others.iter().zip(&live[1..]);
        for (document, live) in others().filter(|(document, _)| document.is_read_by_pods()) {
            self.put(document, live.as_ref(), None).await?;
        }
        let (since, now) = (Instant::now(), self.cluster.now());
        let generation = before.and_then(|before| before.metadata.generation).unwrap_or_default();
        let written = self.put(&documents.deployment, live[0].as_ref(), Some(generation)).await?;
        let deployment = typed(&written)?;
        let target = Target::of(&deployment).written(self.lost.unwrap_or(generation), now);
        let before_pods = run.sight.iter().flat_map(|sight| &sight.pods);
        let by_uid = before_pods.filter_map(|pod| Some((pod.metadata.uid.clone()?, Arc::clone(pod))));
        let target = Target { before: by_uid.collect(), ..target };
        let mut incomplete = None;
        for (document, live) in others().filter(|(document, _)| !document.is_read_by_pods()) {
            match self.put_other(document, live.clone(), &target).await {
                Ok(()) => {}
                Err(ending) if ending.reason == Some(Reason::AccessLost) => incomplete = Some(ending),
                Err(ending) => return Err(ending.into()),
            }
        }
        let to_replace = before.and_then(|before| before.status.as_ref()?.replicas).unwrap_or_default();
        run.output.say(&match (target.applied.is_some(), to_replace) {
            (false, _) => "applied; the Deployment did not change".to_owned(),
            (true, 0) => format!("applied; {} pods to start", revision::replicas(&deployment)),
            (true, 1) => "applied; 1 pod to replace".to_owned(),
            (true, pods) => format!("applied; {pods} pods to replace"),
        });
        Ok(Applied { target, since, incomplete })
    }

    async fn put(
        &mut self,
        document: &Document,
        live: Option<&DynamicObject>,
        generation: Option<i64>,
    ) -> Result<DynamicObject, Unfinished> {
        let written = self.cluster.put(document, live.map(|live| &live.metadata)).await;
        match written {
            Err(Unwritten::Stale) => return Err(Unfinished::Again), // somebody else or the controller wrote first
            Err(Unwritten::Refused(error)) => {
                let what = format!("apply {} {}", document.kind(), document.name());
                return Err(self.cluster.ending(&what, &error).into());
            }
            Ok(_) | Err(Unwritten::Lost) if !self.wrote => {
                self.wrote = true;
                self.cluster = self.cluster.after_change();
            }
            Ok(_) | Err(Unwritten::Lost) => {}
        }
        if let Ok(object) = written {
            return Ok(object);
        }
        // Reading it again shows whether it was written.
        self.lost = self.lost.or(generation);
        sleep(PAUSE).await;
        Err(Unfinished::Again)
    }

    /// Writes a document beside the Deployment, if the Deployment is still the one that was applied. If two deployers run at
    /// once, the one whose Deployment was replaced writes no more documents.
    async fn put_other(
        &self,
        document: &Document,
        mut live: Option<DynamicObject>,
        target: &Target,
    ) -> Result<(), Ending> {
        let (cluster, kind, name) = (&self.cluster, document.kind(), document.name());
        let what = format!("apply {kind} {name} after the Deployment");
        let mut contest = Contest::of(format!("{kind} {name}"));
        loop {
            contest.attempt([live.as_ref()])?;
            match cluster.put(document, live.as_ref().map(|live| &live.metadata)).await {
                Ok(_) => return Ok(()),
                Err(Unwritten::Stale) => {}
                Err(Unwritten::Lost) => sleep(PAUSE).await,
                Err(Unwritten::Refused(error)) => return Err(cluster.ending(&what, &error)),
            }
            let now = match cluster.deployment(&target.name).await {
                Err(ending) if ending.reason == Some(Reason::DeploymentMissing) => None,
                now => Some(typed(&now?)?),
            };
            let Some(now) = now.filter(|now| now.metadata.uid.as_ref() == Some(&target.uid)) else {
                return Err(Ending::new(Reason::DeploymentDeleted, "the Deployment was deleted during its rollout"));
            };
            if let Some(by) = target.superseded_by(&now) {
                return Err(superseded(&by));
            }
            live = cluster
                .live(&document.resource(), name)
                .await
                .map_err(|error| cluster.ending(&format!("read {kind} {name}"), &error))?;
        }
    }
}

/// Keeps the live number of replicas if an autoscaler owns it, or if the template does not state one.
fn leave_replicas(documents: &mut Documents, before: &Deployment, autoscaler: Option<&str>, run: Option<&Run>) {
    let replicas = revision::replicas(before);
    let why = match autoscaler {
        Some(autoscaler) => format!("autoscaler {autoscaler} owns the replicas"),
        None if !documents.deployment.states_replicas() => "the template states no replicas".to_owned(),
        None => return,
    };
    if let Some(run) = run {
        run.output.say(&format!("{why}: they stay at {replicas}"));
    }
    documents.deployment.leave_replicas_at(replicas);
}

/// The revision to which a rollback may return. A deploy of the same commit replaces no revision.
fn note(before: &Deployment, watch: &mut Watch, (cluster, commit): (&Cluster, &Commit)) -> Option<String> {
    while watch.take().is_some() {}
    let replica_sets = watch.snapshot(cluster.now()).replica_sets;
    if revision::commit(before) == Some(commit.as_str()) {
        return before.annotations().get(AVAILABLE).cloned();
    }
    revision::last_available(before, &replica_sets)
}

/// The end of a run in which somebody applied something else.
pub(crate) fn superseded(by: &str) -> Ending {
    Ending::new(Reason::Superseded, format!("{by} was applied meanwhile, and its rollout continues"))
}

/// An object with every field that the server sent, as the type that is known here.
pub(crate) fn typed(object: &DynamicObject) -> Result<Deployment, Ending> {
    object.clone().try_parse().map_err(|error| {
        let cause = format!("the API server's Deployment {} cannot be read: {error}", object.name_any());
        Ending::new(Reason::DocumentRefused, cause)
    })
}
