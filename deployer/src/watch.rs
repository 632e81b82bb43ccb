//! The rollout as it goes on: what the API server sends is kept in stores, each change is judged, and what a person
//! wants to know of it is told.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::stream::{BoxStream, SelectAll, select_all};
use futures_util::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use kube::api::Api;
use kube::runtime::reflector::{self, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until};

use crate::cluster::Cluster;
use crate::outcome::{Ending, Outcome};
use crate::output::{Output, PodReport, seconds};
use crate::pod;
use crate::rollout::{Assessment, Cause, Snapshot, Target, Verdict, assess};
use crate::template::{COMMIT, short};

/// One line about an API server that is away does for so long.
const QUIET: Duration = Duration::from_secs(30);
/// How long after an error of a watch it may still lag behind: longer than between two attempts to begin it again.
const BLINDNESS: Duration = Duration::from_secs(3);
/// How long we must be refused before that is believed.
const REFUSAL: Duration = Duration::from_secs(10);

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
    /// Every wanted pod runs the new revision, and none is left of an older one.
    Done,
    /// It will not succeed.
    Failed(Box<Cause>),
    /// Something else was applied: what.
    Superseded(String),
    /// Time is up.
    TimedOut,
}

/// Follows the rollout of `target`, applied at `since`, until it is decided, for `limit` at most.
///
/// # Errors
/// Only where the API server does not let us look any longer; one that is away is waited for.
pub(crate) async fn follow(
    cluster: &Cluster,
    deployment: &Deployment,
    target: &Target,
    since: Instant,
    limit: Duration,
    output: &Output,
) -> Result<Followed, Ending> {
    let mut watch = Watch::of(cluster, deployment);
    let mut progress = Progress::begin(output, target, since, cluster.now());
    let deadline = since + limit;
    let mut judged = None;
    loop {
        let mut recheck = deadline;
        if let Some(sight) = progress.blind_until() {
            // What is known may be out of date, and time alone must make nothing certain of it.
            recheck = sight;
        } else if watch.is_complete() {
            let seen = watch.snapshot();
            let now = cluster.now();
            let assessment = assess(target, &seen, now);
            progress.tell(&assessment, &seen);
            if let Some(end) = end_of(&assessment.verdict) {
                return Ok(Followed { end, seen, assessment });
            }
            watch.look_into(assessment.suspect.as_deref());
            if let Some(at) = assessment.recheck {
                let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                recheck = Instant::now() + wait + Duration::from_millis(10);
            }
            judged = Some((seen, assessment));
        }
        tokio::select! {
            change = watch.next() => progress.note_trouble(cluster, change)?,
            () = sleep_until(recheck.min(deadline)) => {}
        }
        // What came together is judged together.
        while let Some(change) = watch.next().now_or_never() {
            progress.note_trouble(cluster, change)?;
        }
        if Instant::now() >= deadline {
            let (seen, assessment) = judged.unwrap_or_else(|| {
                let nothing = Snapshot::default();
                let assessment = assess(target, &nothing, cluster.now());
                (nothing, assessment)
            });
            return Ok(Followed { end: End::TimedOut, seen, assessment });
        }
    }
}

fn end_of(verdict: &Verdict) -> Option<End> {
    match verdict {
        Verdict::Wait | Verdict::Serving => None,
        Verdict::Done => Some(End::Done),
        Verdict::Failed(cause) => Some(End::Failed(cause.clone())),
        Verdict::Superseded(by) => Some(End::Superseded(by.clone())),
    }
}

/// The stores that follow the cluster, and the streams that fill them.
struct Watch<'a> {
    cluster: &'a Cluster,
    name: String,
    deployments: Store<Deployment>,
    replica_sets: Store<ReplicaSet>,
    pods: Store<Pod>,
    /// Which of the three stores hold a whole list.
    complete: [bool; 3],
    changes: SelectAll<BoxStream<'static, Change>>,
    suspect: Option<Suspect>,
}

/// What a stream says: its place, and whether its store holds a whole list now.
type Change = (usize, watcher::Result<bool>);

/// A pod whose events are followed, too.
struct Suspect {
    uid: String,
    events: Store<Event>,
    complete: bool,
    changes: BoxStream<'static, Change>,
}

impl<'a> Watch<'a> {
    fn of(cluster: &'a Cluster, deployment: &Deployment) -> Self {
        let name = deployment.name_any();
        let labels = watcher::Config::default().labels(&selector(deployment));
        let by_name = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let (deployments, first) = store(0, cluster.api(), by_name, |_| {});
        // Their managed fields are most of their bytes; those of pods say when a status was written.
        let (replica_sets, second) =
            store(1, cluster.api(), labels.clone(), |set: &mut ReplicaSet| set.metadata.managed_fields = None);
        let (pods, third) = store(2, cluster.api(), labels, |_| {});
        let changes = select_all([first, second, third]);
        Self { cluster, name, deployments, replica_sets, pods, complete: [false; 3], changes, suspect: None }
    }

    fn is_complete(&self) -> bool {
        self.complete.iter().all(|&complete| complete)
    }

    fn snapshot(&self) -> Snapshot {
        let events = self.suspect.as_ref().filter(|suspect| suspect.complete);
        Snapshot {
            deployment: self.deployments.find(|deployment| deployment.name_any() == self.name),
            replica_sets: self.replica_sets.state(),
            pods: self.pods.state(),
            events: events.map(|suspect| (suspect.uid.clone(), suspect.events.state())),
        }
    }

    /// Follows the events of this pod from now on.
    fn look_into(&mut self, uid: Option<&str>) {
        let Some(uid) = uid.filter(|uid| self.suspect.as_ref().is_none_or(|suspect| &suspect.uid != uid)) else {
            return;
        };
        let of_pod = watcher::Config::default().fields(&format!("involvedObject.uid={uid}"));
        let (events, changes) = store(self.complete.len(), self.cluster.api(), of_pod, |_| {});
        self.suspect = Some(Suspect { uid: uid.to_owned(), events, complete: false, changes });
    }

    /// The next thing that any of the streams has to say; they go on for ever.
    async fn next(&mut self) -> watcher::Result<()> {
        let suspected = async {
            match &mut self.suspect {
                Some(suspect) => suspect.changes.next().await,
                None => std::future::pending().await,
            }
        };
        let change = tokio::select! {
            change = self.changes.next() => change,
            change = suspected => change,
        };
        let Some((source, what)) = change else { return std::future::pending().await };
        if what? {
            match self.complete.get_mut(source) {
                Some(complete) => *complete = true,
                None => self.suspect.iter_mut().for_each(|suspect| suspect.complete = true),
            }
        }
        Ok(())
    }
}

/// A store of what `config` selects, and the stream that must be polled to fill it.
fn store<K>(
    source: usize,
    api: Api<K>,
    config: watcher::Config,
    trim: fn(&mut K),
) -> (Store<K>, BoxStream<'static, Change>)
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let changes = watcher(api, config)
        .modify(trim)
        .reflect(writer)
        .backoff(Doubling::default())
        .map(move |event| (source, event.map(|event| matches!(event, watcher::Event::InitDone))));
    (store, changes.boxed())
}

/// The labels by which the Deployment finds its pods.
pub(crate) fn selector(deployment: &Deployment) -> String {
    let selector = deployment.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default();
    kube::core::Selector::try_from(selector).map_or_else(|_| String::new(), |selector| selector.to_string())
}

/// Notes which pods there are, and what serves.
pub(crate) fn show_pods(seen: &Snapshot, wanted: i32, output: &Output) {
    let mut pods: Vec<PodReport> = seen
        .pods
        .iter()
        .filter(|pod| !pod::is_over(pod))
        .map(|pod| PodReport {
            name: pod.name_any(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            ready: pod::is_ready(pod),
            commit: pod.annotations().get(COMMIT).cloned(),
        })
        .collect();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    let serving = pod::serving(&seen.pods);
    let parts = serving.iter().map(|(commit, count)| format!("{} on {count} of {wanted} pods", short(commit)));
    let parts: Vec<String> = parts.collect();
    let serves = if parts.is_empty() { "nothing: no pod is ready".to_owned() } else { parts.join(", ") };
    output.record(|report| {
        report.pods = pods;
        report.serves_now = Some(serves);
    });
}

/// Between attempts to reach the API server again. A person waits, so it is not left alone for long.
#[derive(Default)]
struct Doubling(u32);

impl Iterator for Doubling {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = Duration::from_millis(100 << self.0.min(4));
        self.0 += 1;
        Some(wait)
    }
}

impl Backoff for Doubling {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

/// What was told already.
struct Progress<'a> {
    output: &'a Output,
    target: &'a Target,
    since: Instant,
    since_then: Timestamp,
    announced: HashSet<String>,
    warned: HashSet<String>,
    fewest_ready: usize,
    had_old: bool,
    is_serving: bool,
    last_trouble: Option<Instant>,
    /// When the API server first refused us, and when last.
    refused: Option<(Instant, Instant)>,
}

impl<'a> Progress<'a> {
    fn begin(output: &'a Output, target: &'a Target, since: Instant, now: Timestamp) -> Self {
        // Timestamps of the cluster have whole seconds, and are therefore up to one too early.
        let ago = SignedDuration::try_from(since.elapsed()).unwrap_or_default() + SignedDuration::from_secs(1);
        Self {
            output,
            target,
            since,
            since_then: now.saturating_sub(ago).unwrap_or(Timestamp::MIN),
            announced: HashSet::new(),
            warned: HashSet::new(),
            fewest_ready: usize::MAX,
            had_old: false,
            is_serving: false,
            last_trouble: None,
            refused: None,
        }
    }

    fn tell(&mut self, assessment: &Assessment, seen: &Snapshot) {
        let output = self.output;
        show_pods(seen, assessment.wanted, output);
        self.fewest_ready = self.fewest_ready.min(seen.pods.iter().filter(|pod| pod::is_ready(pod)).count());
        if usize::try_from(assessment.wanted).is_ok_and(|wanted| wanted > 0 && self.fewest_ready >= wanted) {
            output
                .record(|report| report.serves_now.iter_mut().for_each(|now| now.push_str("; there were never fewer")));
        }
        for warning in &assessment.warnings {
            if self.warned.insert(warning.key.clone()) {
                output.warn(&warning.text);
            }
        }
        self.announce(assessment);
        self.had_old |= assessment.old > 0;
        let serves = matches!(assessment.verdict, Verdict::Serving | Verdict::Done);
        if serves && !self.is_serving {
            self.is_serving = true;
            if !self.target.undoing {
                output.record(|report| report.serving_after_s = Some(seconds(self.since.elapsed())));
            }
            let (wanted, revision) = (assessment.wanted, self.revision());
            match wanted {
                0 => output.say(&format!("no pod is wanted: replicas is 0, and {revision} serves nobody")),
                _ => output.say(&format!("serving: {wanted} of {wanted} pods run {revision}")),
            }
        }
        if matches!(assessment.verdict, Verdict::Done) {
            if !self.target.undoing {
                output.record(|report| report.replaced_after_s = Some(seconds(self.since.elapsed())));
            }
            if self.had_old {
                let overstay = seen.pods.iter().any(|pod| pod.metadata.deletion_timestamp.is_some());
                let what = if overstay { "no old pod serves any more" } else { "the last old pod is gone" };
                output.say(&format!("replaced: {what}"));
            }
        }
        output.show(&format!(
            "{} of {} available, {} old to go",
            assessment.available.len(),
            assessment.wanted,
            assessment.old
        ));
    }

    fn announce(&mut self, assessment: &Assessment) {
        for pod in &assessment.available {
            let is_news = pod.metadata.uid.as_ref().is_some_and(|uid| self.announced.insert(uid.clone()));
            // Pods that were available before it all began are no progress.
            if is_news && pod::ready_since(pod).is_some_and(|since| since >= self.since_then) {
                let node = pod::on_node(pod);
                let (count, wanted) = (self.announced.len(), assessment.wanted);
                self.output.say(&format!("{}{node} is available ({count} of {wanted})", pod.name_any()));
            }
        }
    }

    fn revision(&self) -> &str {
        self.target.commit.as_deref().map_or("the new revision", short)
    }

    /// When the watches will have caught up, if one of them was in trouble just now.
    fn blind_until(&self) -> Option<Instant> {
        self.last_trouble.map(|last| last + BLINDNESS).filter(|&sight| sight > Instant::now())
    }

    /// Whether we were refused for so long that it is meant: an API server that has just started knows no role yet.
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
    fn note_trouble(&mut self, cluster: &Cluster, change: watcher::Result<()>) -> Result<(), Ending> {
        use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
        let error = match change {
            Ok(()) | Err(NoResourceVersion) => return Ok(()),
            Err(WatchError(status)) => kube::Error::Api(status),
            Err(InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error)) => error,
        };
        if let kube::Error::Api(status) = &error {
            match status.code {
                410 => return Ok(()), // too far behind: the watcher lists anew
                401 | 403 if self.is_shut_out() => {
                    let cause = format!("cannot look any longer, the rollout goes on: {}", cluster.explain(&error));
                    return Err(Ending::new(Outcome::Rejected, cause));
                }
                _ => {}
            }
        }
        if self.last_trouble.is_none_or(|last| last.elapsed() > QUIET) {
            self.output.warn(&format!("{}; asking again", cluster.explain(&error)));
        }
        self.last_trouble = Some(Instant::now());
        Ok(())
    }
}
