//! The rollout as it goes on: each change is judged, and what a person wants to know of it is told.

use std::collections::HashSet;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::watcher;
use tokio::time::{Instant, sleep_until};

use crate::cluster::Cluster;
use crate::commit::short;
use crate::outcome::{Ending, Reason};
use crate::output::seconds;
use crate::pod;
use crate::report::{Run, Sight};
use crate::rollout::{Assessment, Snapshot, Trouble, Verdict, assess};
use crate::target::Target;
use crate::watch::{Watch, of_server};

/// One line about an API server that is away does for so long.
const QUIET: Duration = Duration::from_secs(30);
/// How long after an error of a watch it may still lag behind: longer than between two attempts to begin it again.
const BLINDNESS: Duration = Duration::from_secs(3);
/// How long we must be refused before that is believed: an API server that has just started knows no role yet.
const REFUSAL: Duration = Duration::from_secs(10);
/// Changes that come within so long are judged together.
const TOGETHER: Duration = Duration::from_millis(200);
/// So many times as long as a judgement takes is at least left to what is judged.
const LEISURE: u32 = 9;

/// How a rollout ended, and what was to be seen then.
pub(crate) struct Followed {
    /// How.
    pub(crate) end: End,
    /// What the stores held.
    pub(crate) seen: Snapshot,
    /// What was made of it.
    pub(crate) assessment: Assessment,
}

/// How a rollout ended.
pub(crate) enum End {
    /// Every desired pod runs the new revision, and none is left of an older one.
    Done,
    /// It will not succeed.
    Failed(Box<Trouble>),
    /// Something else was applied: what.
    Superseded(String),
    /// Time is up.
    TimedOut,
}

/// What is followed, since when, for how long at most.
pub(crate) struct Task<'a> {
    pub(crate) target: &'a Target,
    pub(crate) since: Instant,
    pub(crate) limit: Duration,
}

/// Follows a rollout until it is decided.
///
/// # Errors
/// Only where the API server does not let us look any longer; one that is away is waited for.
pub(crate) async fn follow(
    cluster: &Cluster,
    watch: &mut Watch,
    task: &Task<'_>,
    run: &mut Run,
) -> Result<Followed, Ending> {
    let deadline = task.since + task.limit;
    let mut progress = Progress::begin(task, run.sight.take());
    let mut judged: Option<(Snapshot, Assessment)> = None;
    loop {
        let mut recheck = deadline;
        let mut leisure = Duration::ZERO;
        if let Some(sight) = progress.blind_until() {
            // What is known may be out of date, and time alone must make nothing certain of it.
            recheck = sight;
        } else if watch.is_complete() {
            let (began, now) = (Instant::now(), cluster.now());
            let seen = watch.snapshot(now);
            let assessment = assess(task.target, &seen, now);
            progress.tell(&assessment, run);
            if let Some(end) = end_of(&assessment.verdict) {
                return Ok(Followed { end, seen, assessment });
            }
            watch.look_into(assessment.suspect.as_deref());
            if let Some(at) = assessment.recheck {
                let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                recheck = Instant::now() + wait + Duration::from_millis(10);
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

/// What was there before a rollout begins.
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

/// What was told already.
struct Progress<'a> {
    task: &'a Task<'a>,
    sight: Sight,
    announced: HashSet<String>,
    warned: HashSet<(Reason, String)>,
    had_old: bool,
    is_serving: bool,
    last_trouble: Option<Instant>,
    /// When the API server first refused us, and when last.
    refused: Option<(Instant, Instant)>,
}

impl<'a> Progress<'a> {
    fn begin(task: &'a Task<'a>, before: Option<Sight>) -> Self {
        Self {
            task,
            sight: before.unwrap_or_default(),
            announced: HashSet::new(),
            warned: HashSet::new(),
            had_old: false,
            is_serving: false,
            last_trouble: None,
            refused: None,
        }
    }

    fn tell(&mut self, assessment: &Assessment, run: &mut Run) {
        let ready = assessment.own.iter().filter(|pod| pod::is_ready(pod)).count();
        self.sight.fewest = self.sight.fewest.map(|fewest| fewest.min(ready));
        self.sight.pods.clone_from(&assessment.own);
        self.sight.desired = assessment.desired;
        self.warn(assessment, run);
        self.announce(assessment, run);
        self.had_old |= assessment.old > 0;
        let is_serving = matches!(assessment.verdict, Verdict::Serving | Verdict::Done);
        if is_serving && !std::mem::replace(&mut self.is_serving, is_serving) {
            self.sight.serving_after = self.after();
            let revision = self.task.target.commit.as_deref().map_or("the new revision", short);
            run.output.say(&match assessment.desired {
                0 => format!("no pod is desired: replicas is 0, and {revision} serves nobody"),
                desired => format!("serving: {desired} of {desired} pods run {revision}"),
            });
        }
        if matches!(assessment.verdict, Verdict::Done) {
            self.sight.replaced_after = self.after();
            if self.had_old {
                let is_gone = assessment.overdue.is_empty();
                let what = if is_gone { "the last old pod is gone" } else { "no old pod serves any more" };
                run.output.say(&format!("replaced: {what}"));
            }
        }
        let (available, desired) = (assessment.available.len(), assessment.desired);
        run.output.show(&format!("{available} of {desired} available, {} old to go", assessment.old));
        run.sight = Some(self.sight.clone());
    }

    /// Seconds since the apply; of a rollback they are not those that were asked for.
    fn after(&self) -> Option<f64> {
        (!self.task.target.undoing).then(|| seconds(self.task.since.elapsed()))
    }

    fn warn(&mut self, assessment: &Assessment, run: &Run) {
        for doubt in &assessment.doubts {
            let container = doubt.cause.container().unwrap_or_default();
            if self.warned.insert((doubt.cause.reason(), container.to_owned())) {
                let whose = doubt.pod.as_ref().map(|pod| pod::located(pod)).unwrap_or_default();
                let text = doubt.to_string();
                let is_named = doubt.pod.as_ref().is_none_or(|pod| text.contains(&pod.name_any()));
                run.output.warn(&if is_named { text } else { format!("{text}, pod {whose}") });
            }
        }
        for pod in &assessment.overdue {
            if self.warned.insert((Reason::TimedOut, pod.name_any())) {
                let since = pod.metadata.deletion_timestamp.as_ref();
                let since = since.map_or_else(String::new, |time| time.0.strftime("%H:%M:%SZ").to_string());
                run.output.warn(&format!(
                    "old pod {} should be gone since {since}; it is not ready and serves nobody: is its node lost, or does a finalizer hold it?",
                    pod::located(pod)
                ));
            }
        }
        if assessment.paused && self.warned.insert((Reason::Paused, String::new())) {
            run.output.warn("the Deployment is paused, so that nothing moves: kubectl rollout resume");
        }
    }

    fn announce(&mut self, assessment: &Assessment, run: &Run) {
        let begun = self.task.target.begun.map(Timestamp::as_second);
        for pod in &assessment.available {
            let Some(uid) = pod.metadata.uid.as_ref().filter(|uid| !self.announced.contains(*uid)) else { continue };
            self.announced.insert(uid.clone());
            // Pods that were available before it all began are no progress. Timestamps have whole seconds.
            let is_new =
                pod::ready_since(pod).is_some_and(|since| begun.is_none_or(|begun| since.as_second() >= begun));
            if is_new {
                let (count, desired) = (self.announced.len(), assessment.desired);
                run.output.say(&format!("{} is available ({count} of {desired})", pod::located(pod)));
            }
        }
    }

    /// When the watches will have caught up, if one of them was in trouble just now.
    fn blind_until(&self) -> Option<Instant> {
        self.last_trouble.map(|last| last + BLINDNESS).filter(|&sight| sight > Instant::now())
    }

    /// Whether we were refused for so long that it is meant.
    fn is_shut_out(&mut self) -> bool {
        let now = Instant::now();
        let began = match self.refused {
            Some((began, last)) if now - last < REFUSAL => began,
            _ => now,
        };
        self.refused = Some((began, now));
        now - began >= REFUSAL
    }

    /// An API server that is away is worth a line and no more; one that goes on shutting us out ends the watch.
    fn note_trouble(&mut self, cluster: &Cluster, change: watcher::Result<()>, run: &mut Run) -> Result<(), Ending> {
        let Some(error) = change.err().and_then(of_server) else { return Ok(()) };
        // What happens until the lists are whole again is not seen.
        self.sight.fewest = None;
        run.sight = Some(self.sight.clone());
        if let kube::Error::Api(status) = &error {
            match status.code {
                410 => return Ok(()), // too far behind: the watcher lists anew
                401 | 403 if self.is_shut_out() => return Err(cluster.ending("watch the rollout any longer", &error)),
                _ => {}
            }
        }
        if self.last_trouble.is_none_or(|last| last.elapsed() > QUIET) {
            run.output.warn(&format!("{}; asking again", cluster.explain(&error)));
        }
        self.last_trouble = Some(Instant::now());
        Ok(())
    }
}
