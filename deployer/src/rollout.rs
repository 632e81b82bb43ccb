//! Judges a rollout from the objects of the API server. Pure: it uses no clock and no network.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::cause::Cause;
use crate::checks::{self, Checks, Finding};
use crate::pod;
use crate::revision::{self, Ownership};
use crate::target::Target;

/// How much longer than its grace period an old pod that is not ready may stay.
const OVERSTAY: SignedDuration = SignedDuration::from_secs(30);

/// The objects that the reflectors hold at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// None if it does not exist.
    pub(crate) deployment: Option<Arc<Deployment>>,
    /// The uids of all Deployments of this name that were seen, because a watch may lag behind the apply that created one.
    pub(crate) known: Vec<String>,
    /// Those that the Deployment's selector finds.
    pub(crate) replica_sets: Vec<Arc<ReplicaSet>>,
    /// Those that the Deployment's selector finds.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// The events of one pod, by its uid, once they were asked for.
    pub(crate) events: Option<(String, Vec<Arc<Event>>)>,
    /// When the last terminating pod was gone.
    pub(crate) room_since: Option<Timestamp>,
}

/// What is known about the rollout, and which events would tell more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Assessment {
    pub(crate) verdict: Verdict,
    /// The desired number of pods.
    pub(crate) desired: i32,
    /// The Deployment's pods, of every revision.
    pub(crate) own: Vec<Arc<Pod>>,
    /// Those of the new revision that are available: ready for long enough.
    pub(crate) available: Vec<Arc<Pod>>,
    /// How many pods of other revisions are left.
    pub(crate) old: usize,
    /// Old pods that should be gone and are not ready.
    pub(crate) overdue: Vec<Arc<Pod>>,
    /// Problems that may still resolve themselves.
    pub(crate) doubts: Vec<Trouble>,
    /// Whether somebody has paused the Deployment.
    pub(crate) paused: bool,
    /// A pod whose events would tell more.
    pub(crate) suspect: Option<Suspicion>,
    /// When the judgement may change without any event.
    pub(crate) recheck: Option<Timestamp>,
}

/// A pod whose events would tell more.
#[derive(Clone, Debug)]
pub(crate) struct Suspicion {
    pub(crate) uid: String,
    /// Whether something is known to be wrong with it. Otherwise it may only be slow.
    pub(crate) is_urgent: bool,
}

/// The judgement on a rollout.
#[derive(Clone, Debug, Default)]
pub(crate) enum Verdict {
    /// Not decided.
    #[default]
    Wait,
    /// As many pods as desired run the new revision and are available, but pods of older revisions are left.
    Serving,
    /// The same, and no pod of an older revision is left.
    Done,
    /// It will not succeed, or the cluster's progress deadline has passed.
    Failed(Box<Trouble>),
    /// Somebody applied something else. Holds a description of it.
    Superseded(String),
}

/// A cause, and what shows it.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) cause: Cause,
    /// The pod that shows it.
    pub(crate) pod: Option<Arc<Pod>>,
    /// The seconds of the progress deadline, if that has decided.
    pub(crate) deadline: Option<i64>,
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.cause.to_string().trim_end_matches('.'))?;
        self.deadline.map_or(Ok(()), |seconds| write!(f, " (no progress for {seconds} s)"))
    }
}

impl From<Cause> for Trouble {
    fn from(cause: Cause) -> Self {
        Self { cause, pod: None, deadline: None }
    }
}

/// Judges the rollout of `target` from what was `seen`, at the time `now` of the cluster's clock.
pub(crate) fn assess(target: &Target, seen: &Snapshot, now: Timestamp) -> Assessment {
    let current = seen.deployment.as_deref().and_then(|found| revision::current(found, &seen.replica_sets));
    let pods = Pods::sorted(target, seen, current);
    let own = pods.own.iter().copied().map(Arc::clone).collect();
    let is_ours = |found: &&Deployment| {
        found.metadata.uid.as_ref() == Some(&target.uid) && found.metadata.deletion_timestamp.is_none()
    };
    let Some(deployment) = seen.deployment.as_deref().filter(is_ours) else {
        let was_there = seen.known.contains(&target.uid);
        let verdict = if was_there { Verdict::Failed(Box::new(Cause::Deleted.into())) } else { Verdict::Wait };
        return Assessment { verdict, own, ..Assessment::default() };
    };
    let generation = deployment.metadata.generation.unwrap_or_default();
    let paused = deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true);
    let begun = Assessment { own, desired: revision::replicas(deployment), paused, ..Assessment::default() };
    if generation < target.generation {
        return begun; // The watch has not caught up with the apply.
    }
    if let Some(by) = target.superseded_by(deployment) {
        return Assessment { verdict: Verdict::Superseded(by), ..begun };
    }
    let observed = deployment.status.as_ref().and_then(|status| status.observed_generation);
    if observed.unwrap_or_default() < generation {
        return begun; // What the status says is of an older generation.
    }
    Rollout { target, deployment, current, pods, seen, now }.judge(begun)
}

/// The pods that the selector matches, by revision. Pods of other owners are ignored.
struct Pods<'a> {
    own: Vec<&'a Arc<Pod>>,
    new: Vec<&'a Arc<Pod>>,
    old: Vec<&'a Arc<Pod>>,
    /// Pods of the new revision that have ended for good.
    failed: Vec<&'a Arc<Pod>>,
}

impl<'a> Pods<'a> {
    fn sorted(target: &Target, seen: &'a Snapshot, current: Option<&ReplicaSet>) -> Self {
        let ownership = Ownership::of(&target.uid, &target.name, &seen.replica_sets);
        let current = current.and_then(|set| set.metadata.uid.as_deref());
        let mut pods = Self { own: Vec::new(), new: Vec::new(), old: Vec::new(), failed: Vec::new() };
        for pod in &seen.pods {
            let Some(set) = ownership.set_of(pod) else { continue };
            let is_new = current == Some(set);
            if pod::is_over(pod) {
                if is_new {
                    pods.failed.push(pod);
                }
                continue;
            }
            pods.own.push(pod);
            if !is_new {
                pods.old.push(pod);
            } else if pod.metadata.deletion_timestamp.is_none() {
                pods.new.push(pod);
            }
        }
        pods
    }
}

/// One generation of a Deployment that its controller has seen.
struct Rollout<'a> {
    target: &'a Target,
    deployment: &'a Deployment,
    current: Option<&'a ReplicaSet>,
    pods: Pods<'a>,
    seen: &'a Snapshot,
    now: Timestamp,
}

/// When the wait for an old pod ends.
enum Leave {
    Serves,
    Until(Timestamp),
    Gone,
    Overdue,
}

impl Rollout<'_> {
    fn judge(&self, begun: Assessment) -> Assessment {
        let mut so_far = begun;
        self.count(&mut so_far);
        let is_complete = self.is_complete(&so_far);
        let (doomed, doubts) = self.check(&mut so_far, is_complete);
        so_far.verdict = match doomed {
            Some(trouble) => Verdict::Failed(Box::new(trouble)),
            None if is_complete && so_far.old == 0 => Verdict::Done,
            None if is_complete => Verdict::Serving,
            None => self.given_up(&mut so_far.recheck, &doubts),
        };
        Assessment { doubts, ..so_far }
    }

    /// Adds which pods are ready, which must still end, and when that may change without any event.
    fn count(&self, so_far: &mut Assessment) {
        let min_ready = self.deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default();
        for pod in &self.pods.new {
            let Some(since) = pod::ready_since(pod) else { continue };
            let available = since + SignedDuration::from_secs(min_ready.into());
            if available <= self.now {
                so_far.available.push(Arc::clone(pod));
            } else {
                soonest(&mut so_far.recheck, Some(available));
            }
        }
        for pod in &self.pods.old {
            match self.leave(pod) {
                Leave::Gone => continue,
                Leave::Overdue => {
                    so_far.overdue.push(Arc::clone(pod));
                    continue;
                }
                Leave::Serves => {}
                Leave::Until(at) => soonest(&mut so_far.recheck, Some(at)),
            }
            so_far.old += 1;
        }
    }

    fn leave(&self, pod: &Pod) -> Leave {
        let deletion = pod.metadata.deletion_timestamp.as_ref();
        match deletion {
            _ if pod::is_ready(pod) => Leave::Serves,
            _ if self.target.undoing => Leave::Gone,
            None => Leave::Serves,
            // deletionTimestamp already includes the grace period.
            Some(deletion) if self.now < deletion.0 + OVERSTAY => Leave::Until(deletion.0 + OVERSTAY),
            Some(_) => Leave::Overdue,
        }
    }

    /// Whether as many pods as desired are available, according to both the list of pods, which may lag behind the
    /// `ReplicaSet`'s status, and that status, which uses the cluster's clock.
    fn is_complete(&self, so_far: &Assessment) -> bool {
        let available = self.current.and_then(|set| set.status.as_ref()?.available_replicas).unwrap_or_default();
        let updated = self.deployment.status.as_ref().and_then(|status| status.updated_replicas).unwrap_or_default();
        let listed = i32::try_from(so_far.available.len()).unwrap_or(i32::MAX);
        self.current.is_some() && [listed, available, updated].iter().all(|&count| count >= so_far.desired)
    }

    /// The first pod that is certain to fail, and all doubts.
    fn check(&self, so_far: &mut Assessment, is_complete: bool) -> (Option<Trouble>, Vec<Trouble>) {
        let leaving = self.pods.old.iter().filter_map(|pod| pod.metadata.deletion_timestamp.as_ref());
        let checks = Checks {
            target: self.target,
            now: self.now,
            events: self.seen.events.as_ref(),
            room_until: leaving.map(|deletion| deletion.0 + OVERSTAY).filter(|&at| at > self.now).max(),
            room_since: self.seen.room_since,
        };
        let mut findings: Vec<(Finding, Option<&Arc<Pod>>)> = Vec::new();
        for &pod in &self.pods.new {
            match checks.pod(pod) {
                Finding::Fine => {}
                finding => findings.push((finding, Some(pod))),
            }
        }
        // The oldest first, then by name, so that every judgement names the same pod.
        findings.sort_by_key(|(_, pod)| pod.map(|pod| (pod::created(pod), pod.metadata.uid.as_deref())));
        so_far.suspect = self.suspect(&findings);
        if !is_complete {
            findings.push(checks.rejected(&self.pods.failed));
            findings.push((checks.creation(self.deployment, self.current, &self.pods.new), None));
        }
        let (mut doomed, mut doubts) = (None, Vec::new());
        for (finding, pod) in findings {
            let trouble = |cause| Trouble { cause, pod: pod.cloned(), deadline: None };
            match finding {
                Finding::Fine => {}
                Finding::Unclear(at) => soonest(&mut so_far.recheck, Some(at).filter(|&at| at > self.now)),
                Finding::Doubt(cause, at) => {
                    soonest(&mut so_far.recheck, at);
                    doubts.push(trouble(cause));
                }
                Finding::Doomed(cause) => doomed = doomed.or_else(|| Some(trouble(cause))),
            }
        }
        (doomed, doubts)
    }

    /// The pod whose events to follow: one that is in trouble before one that may only be slow, then the one that is
    /// followed already, then the oldest.
    fn suspect(&self, findings: &[(Finding, Option<&Arc<Pod>>)]) -> Option<Suspicion> {
        let is_urgent = |finding: &Finding| match finding {
            Finding::Unclear(at) => (*at <= self.now).then_some(false),
            Finding::Doubt(cause, _) | Finding::Doomed(cause) => cause.is_told_by_events().then_some(true),
            Finding::Fine => None,
        };
        let followed = self.seen.events.as_ref().map(|(uid, _)| uid.as_str());
        let suspects = findings
            .iter()
            .filter_map(|(finding, pod)| Some((pod.as_ref()?.metadata.uid.as_deref()?, is_urgent(finding)?)));
        // Of equally urgent ones, the first.
        let strongest = suspects.rev().max_by_key(|(uid, is_urgent)| (*is_urgent, Some(*uid) == followed));
        strongest.map(|(uid, is_urgent)| Suspicion { uid: uid.to_owned(), is_urgent })
    }

    /// Failed, if the cluster says that the progress deadline of this generation has passed.
    fn given_up(&self, recheck: &mut Option<Timestamp>, doubts: &[Trouble]) -> Verdict {
        let Some(progressing) = checks::condition(self.deployment, "Progressing").filter(|condition| {
            condition.reason.as_deref() == Some("ProgressDeadlineExceeded") && condition.status == "False"
        }) else {
            return Verdict::Wait;
        };
        let seconds = self.deployment.spec.as_ref().and_then(|spec| spec.progress_deadline_seconds).unwrap_or(600);
        let deadline = SignedDuration::from_secs(seconds.into());
        let written = progressing.last_update_time.as_ref().map_or(Timestamp::MIN, |time| time.0);
        // A condition from before this run says nothing about what was repaired since, so the run waits for one more
        // deadline. A rollback to a ReplicaSet that exists leaves the condition of the failed rollout in place until the
        // first progress. The condition of this rollout is written a whole deadline after the apply; half of that is
        // required, because clocks differ.
        let is_new = match (self.target.begun, self.target.applied) {
            (_, Some(applied)) => written >= applied + deadline / 2,
            (Some(begun), None) => written >= begun,
            (None, None) => true,
        };
        let again = self.target.begun.map(|begun| begun + deadline).filter(|_| self.target.applied.is_none());
        if !is_new && again.is_none_or(|again| self.now < again) {
            soonest(recheck, again);
            return Verdict::Wait;
        }
        Verdict::Failed(Box::new(Trouble { deadline: Some(seconds.into()), ..self.strongest(doubts) }))
    }

    fn strongest(&self, doubts: &[Trouble]) -> Trouble {
        let strength = |trouble: &&Trouble| trouble.cause.strength();
        // Of equally strong ones the first, where `max_by_key` would take the last.
        if let Some(trouble) = doubts.iter().rev().max_by_key(strength) {
            return trouble.clone();
        }
        let unready = self.pods.new.iter().filter(|pod| !pod::is_ready(pod));
        match unready.min_by_key(|pod| (pod::created(pod), pod.metadata.uid.as_deref())) {
            Some(pod) => Trouble { pod: Some(Arc::clone(pod)), ..checks::never_ready(pod).into() },
            None => Cause::NotStarted { pod: None }.into(),
        }
    }
}

fn soonest(recheck: &mut Option<Timestamp>, at: Option<Timestamp>) {
    *recheck = [*recheck, at].into_iter().flatten().min();
}

#[cfg(test)]
mod tests;
