//! Follows a rollout: judges each change, and prints what a person wants to know about it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::watcher;
use tokio::time::{Instant, sleep_until};

use crate::cluster::Cluster;
use crate::commit::short;
use crate::outcome::{Ending, Reason};
use crate::output::{Output, seconds};
use crate::pod;
use crate::report::{Run, Sight};
use crate::rollout::{Assessment, Snapshot, Trouble, Verdict, assess};
use crate::target::Target;
use crate::watch::{Watch, of_server};

/// The time between two lines about an API server that cannot be reached.
const QUIET: Duration = Duration::from_secs(30);
/// How long after an error a watch may lag behind. Longer than the time between two attempts to start it again.
const BLINDNESS: Duration = Duration::from_millis(800);
/// How long the API server must refuse us before we give up. An API server that has just started does not know the roles.
const REFUSAL: Duration = Duration::from_secs(10);
/// Changes within this time are judged together.
const TOGETHER: Duration = Duration::from_millis(200);
/// A line names at most this many pods.
const HANDFUL: usize = 5;
/// After each judgement, at least this many times its duration passes before the next.
const LEISURE: u32 = 9;

/// How a rollout ended, and its state at that time.
pub(crate) struct Followed {
    pub(crate) end: End,
    /// The content of the stores.
    pub(crate) seen: Snapshot,
    /// The judgement on it.
    pub(crate) assessment: Assessment,
}

/// How a rollout ended.
pub(crate) enum End {
    /// Every desired pod runs the new revision, and none is left of an older one.
    Done,
    /// It will not succeed.
    Failed(Box<Trouble>),
    /// Something else was applied. Holds a description of it.
    Superseded(String),
    /// The time limit has passed.
    TimedOut,
}

/// What is followed, since when, and the time limit.
pub(crate) struct Task<'a> {
    pub(crate) target: &'a Target,
    pub(crate) since: Instant,
    pub(crate) limit: Duration,
}

/// Follows a rollout until it is decided.
///
/// # Errors
/// When the API server keeps refusing our requests. If it cannot be reached, the function waits for it.
pub(crate) async fn follow(
    cluster: &Cluster,
    watch: &mut Watch,
    task: &Task<'_>,
    run: &mut Run,
) -> Result<Followed, Ending> {
    let deadline = task.since + task.limit;
    let mut progress = Progress::begin(task);
    let mut judged: Option<(Snapshot, Assessment)> = None;
    loop {
        let mut recheck = deadline;
        let mut leisure = Duration::ZERO;
        if let Some(sight) = progress.blind_until() {
            // The stores may be out of date, so elapsed time must not make anything certain.
            recheck = sight;
        } else if watch.is_complete() {
            let (began, now) = (Instant::now(), cluster.now());
            let seen = watch.snapshot(now);
            let assessment = assess(task.target, &seen, now);
            progress.tell(&assessment, run);
            if assessment.paused && !std::mem::replace(&mut progress.has_said_paused, true) {
                let resume = cluster.place.kubectl(&format!("rollout resume deployment/{}", task.target.name));
                run.output.warn(&format!("the Deployment is paused, so the rollout does not progress: {resume}"));
            }
            if let Some(end) = end_of(&assessment.verdict) {
                return Ok(Followed { end, seen, assessment });
            }
            if let Some(later) = assessment.suspect.as_ref().and_then(|suspect| watch.look_into(suspect)) {
                recheck = recheck.min(later);
            }
            if let Some(at) = assessment.recheck {
                let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                recheck = recheck.min(Instant::now() + wait + Duration::from_millis(10));
            }
            judged = Some((seen, assessment));
            leisure = TOGETHER.min(LEISURE * began.elapsed());
        }
        tokio::select! {
            change = watch.next() => {
                progress.note_trouble(cluster, change, run)?;
                let together = Instant::now() + leisure;
                while let Ok(change) = tokio::time::timeout_at(together, watch.next()).await {
                    progress.note_trouble(cluster, change, run)?;
                }
            }
            () = sleep_until(recheck.min(deadline)) => {}
        }
        while let Some(change) = watch.take() {
            progress.note_trouble(cluster, change, run)?;
        }
        if Instant::now() >= deadline {
            let (seen, assessment) = judged.unwrap_or_default();
            return Ok(Followed { end: End::TimedOut, seen, assessment });
        }
    }
}

fn end_of(verdict: &Verdict) -> Option<End> {
    match verdict {
        Verdict::Wait | Verdict::Serving => None,
        Verdict::Done => Some(End::Done),
        Verdict::Failed(trouble) => Some(End::Failed(trouble.clone())),
        Verdict::Superseded(by) => Some(End::Superseded(by.clone())),
    }
}

impl Followed {
    /// How far it is.
    pub(crate) fn how_far(&self) -> String {
        match self.seen.deployment {
            Some(_) => how_far(&self.assessment),
            None => "the API server did not say how far it is".to_owned(),
        }
    }
}

/// How far a rollout is.
pub(crate) fn how_far(assessment: &Assessment) -> String {
    let Assessment { available, desired, old, .. } = assessment;
    format!("{} of {desired} new pods available, {old} old pods to go", available.len())
}

/// The pods before a rollout begins.
pub(crate) fn before(watch: &mut Watch, cluster: &Cluster, target: &Target) -> Sight {
    let now = cluster.now();
    let assessment = assess(target, &watch.snapshot(now), now);
    let ready = assessment.own.iter().filter(|pod| pod::is_ready(pod)).count();
    Sight {
        pods: assessment.own,
        desired: assessment.desired,
        fewest: Some(ready),
        at_first: ready,
        ..Sight::default()
    }
}

/// What was already printed.
struct Progress<'a> {
    task: &'a Task<'a>,
    /// The uids of pods that were available, and how many of them were not printed.
    announced: HashSet<String>,
    untold: i32,
    /// The kinds of doubts, and the containers that they concern.
    doubted: Vec<(Reason, String)>,
    /// The uids of old pods that should be gone, and the nodes they are on.
    overdue: HashSet<String>,
    overdue_on: HashSet<String>,
    has_said_paused: bool,
    had_old: bool,
    is_serving: bool,
    last_trouble: Option<Instant>,
    /// When the API server refused us first and last.
    refused: Option<(Instant, Instant)>,
}

impl<'a> Progress<'a> {
    fn begin(task: &'a Task<'a>) -> Self {
        Self {
            task,
            announced: HashSet::new(),
            untold: 0,
            doubted: Vec::new(),
            overdue: HashSet::new(),
            overdue_on: HashSet::new(),
            has_said_paused: false,
            had_old: false,
            is_serving: false,
            last_trouble: None,
            refused: None,
        }
    }

    fn tell(&mut self, assessment: &Assessment, run: &mut Run) {
        let Run { sight, output, .. } = run;
        let sight = sight.get_or_insert_default();
        let ready = assessment.own.iter().filter(|pod| pod::is_ready(pod)).count();
        sight.fewest = sight.fewest.map(|fewest| fewest.min(ready));
        sight.pods.clone_from(&assessment.own);
        sight.desired = assessment.desired;
        self.warn_of_doubts(&assessment.doubts, output);
        self.warn_of_overdue(&assessment.overdue, output);
        self.announce(assessment, output);
        self.had_old |= assessment.old > 0;
        let is_serving = matches!(assessment.verdict, Verdict::Serving | Verdict::Done);
        if is_serving && !std::mem::replace(&mut self.is_serving, is_serving) {
            sight.serving_after = self.after();
            let revision = self.task.target.commit.as_deref().map_or("the new revision", short);
            output.say(&match assessment.desired {
                0 => format!("no pod is desired for {revision}: replicas is 0"),
                desired => format!("serving: {desired} of {desired} pods run {revision}"),
            });
        }
        if matches!(assessment.verdict, Verdict::Done) {
            sight.replaced_after = self.after();
            match assessment.overdue.len() {
                _ if !self.had_old => {}
                0 => output.say("replaced: the last old pod is gone"),
                1 => output.say("replaced: no old pod serves any more; 1 old pod that should be gone remains"),
                left => {
                    output.say(&format!(
                        "replaced: no old pod serves any more; {left} old pods that should be gone remain"
                    ));
                }
            }
        }
        let (available, desired) = (assessment.available.len(), assessment.desired);
        output.show(|| format!("{available} of {desired} available, {} old to go", assessment.old));
    }

    /// Seconds since the apply, which in a rollback is not the deploy's.
    fn after(&self) -> Option<f64> {
        (!self.task.target.undoing).then(|| seconds(self.task.since.elapsed()))
    }

    /// Prints each kind once, for however many pods.
    fn warn_of_doubts(&mut self, doubts: &[Trouble], output: &Output) {
        for doubt in doubts {
            let kind = |doubt: &Trouble| (doubt.cause.reason(), doubt.cause.container().unwrap_or_default().to_owned());
            let of = kind(doubt);
            if self.doubted.contains(&of) {
                continue;
            }
            let mut text = doubt.to_string();
            if let Some(pod) = doubt.pod.as_ref().filter(|pod| !text.contains(&pod.name_any())) {
                text = format!("{text}, pod {}", pod::located(pod));
            }
            let others = doubts.iter().filter(|other| kind(other) == of).count() - 1;
            output.warn(&if others < HANDFUL { text } else { format!("{text}; the same with {others} other pods") });
            self.doubted.push(of);
        }
    }

    /// Prints one line for each node, because all pods of a lost node stay. The JSON document names every pod.
    fn warn_of_overdue(&mut self, overdue: &[Arc<Pod>], output: &Output) {
        let mut by_node: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
        for pod in overdue {
            if self.overdue.insert(pod.metadata.uid.clone().unwrap_or_default()) {
                by_node.entry(pod::node(pod).unwrap_or_default()).or_default().push(pod);
            }
        }
        for (node, pods) in by_node {
            if self.overdue_on.insert(node.to_owned()) {
                output.say(&format!("warning: {}", should_be_gone(&pods)));
            }
            for pod in pods {
                output.note(&should_be_gone(&[pod]));
            }
        }
    }

    /// Prints a line for each of the first ten pods, then one for each tenth of all.
    fn announce(&mut self, assessment: &Assessment, output: &Output) {
        let begun = self.task.target.begun.map(Timestamp::as_second);
        let desired = assessment.desired.max(1);
        for pod in &assessment.available {
            let Some(uid) = pod.metadata.uid.as_ref().filter(|uid| !self.announced.contains(*uid)) else { continue };
            self.announced.insert(uid.clone());
            // Pods that were available before the rollout began are not progress. Timestamps have whole seconds.
            if pod::ready_since(pod).is_some_and(|since| begun.is_some_and(|begun| since.as_second() < begun)) {
                continue;
            }
            let count = i32::try_from(self.announced.len()).unwrap_or(i32::MAX);
            let tenths = |count: i32| i64::from(count) * 10 / i64::from(desired);
            if count > 10 && tenths(count) == tenths(count - 1) {
                self.untold += 1;
                continue;
            }
            let (whose, of) = (pod::located(pod), assessment.desired);
            output.say(&match std::mem::take(&mut self.untold) {
                0 => format!("{whose} is available ({count} of {of})"),
                others => format!("{whose} and {others} others are available ({count} of {of})"),
            });
        }
    }

    /// When the watches will have caught up, if one of them had an error recently.
    fn blind_until(&self) -> Option<Instant> {
        self.last_trouble.map(|last| last + BLINDNESS).filter(|&sight| sight > Instant::now())
    }

    /// Whether we were refused for long enough to give up.
    fn is_shut_out(&mut self) -> bool {
        let now = Instant::now();
        let began = match self.refused {
            Some((began, last)) if now - last < REFUSAL => began,
            _ => now,
        };
        self.refused = Some((began, now));
        now - began >= REFUSAL
    }

    /// Prints a line if the API server cannot be reached. If it keeps refusing us, the watch ends.
    fn note_trouble(&mut self, cluster: &Cluster, change: watcher::Result<()>, run: &mut Run) -> Result<(), Ending> {
        let Some(error) = change.err().and_then(of_server) else { return Ok(()) };
        // Changes are missed until the lists are complete again.
        run.sight.get_or_insert_default().fewest = None;
        if let kube::Error::Api(status) = &error {
            match status.code {
                410 => return Ok(()), // too far behind; the watcher lists again
                401 | 403 if self.is_shut_out() => return Err(cluster.ending("watch the rollout any longer", &error)),
                _ => {}
            }
        }
        if self.last_trouble.is_none_or(|last| last.elapsed() > QUIET) {
            run.output.warn(&format!("{}; trying again", cluster.explain(&error)));
        }
        self.last_trouble = Some(Instant::now());
        Ok(())
    }
}

fn should_be_gone(pods: &[&Pod]) -> String {
    let since = pods.iter().filter_map(|pod| pod.metadata.deletion_timestamp.as_ref()).map(|time| time.0).min();
    let since = since.map_or_else(String::new, |since| format!(" since {}", since.strftime("%H:%M:%SZ")));
    let names: Vec<String> = pods.iter().take(HANDFUL).map(|pod| pod::located(pod)).collect();
    match pods {
        [_] => format!(
            "old pod {} should be gone{since}; it is not ready and gets no requests: is its node lost, or does a finalizer hold it?",
            names[0]
        ),
        pods => format!(
            "{} old pods should be gone{since}; they are not ready and get no requests: is their node lost, or do finalizers hold them? {}{}",
            pods.len(),
            names.join(", "),
            if pods.len() > HANDFUL { ", …" } else { "" }
        ),
    }
}

#[cfg(test)]
mod tests;
