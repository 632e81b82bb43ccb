//! What the API server reports about a Deployment, kept in stores.

use std::time::Duration;

use futures_util::stream::{BoxStream, SelectAll, select_all};
use futures_util::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::Api;
use kube::runtime::reflector::{self, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use crate::cluster::Cluster;
use crate::outcome::{Ending, Reason};
use crate::pod;
use crate::rollout::{Snapshot, Suspicion};

/// How long the first lists may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many objects a page of a list has. Until the pods of a page are trimmed, they take several times their final space.
const PAGE: u32 = 100;
/// How long the events of one pod are followed before another pod takes its place, unless the other is known to be in trouble.
const ATTENTION: Duration = Duration::from_secs(5);

/// The stores that follow the cluster, and the streams that fill them.
pub(crate) struct Watch {
    name: String,
    api: Api<Event>,
    known: Vec<String>,
    deployments: Store<Deployment>,
    replica_sets: Store<ReplicaSet>,
    pods: Store<Pod>,
    /// Which of the three stores hold a complete list.
    complete: [bool; 3],
    changes: SelectAll<BoxStream<'static, Change>>,
    suspect: Option<Suspect>,
    /// Whether pods were terminating, and when the last of them was gone.
    leaving: bool,
    room_since: Option<Timestamp>,
}

/// A change from a stream: the stream's index, and whether its store now holds a complete list, if that changed.
type Change = (usize, watcher::Result<Option<bool>>);

/// A pod whose events are followed, too.
struct Suspect {
    uid: String,
    is_urgent: bool,
    since: Instant,
    events: Store<Event>,
    complete: bool,
    changes: BoxStream<'static, Change>,
}

impl Watch {
    /// Watches a Deployment, which need not exist, and what `labels` select. Waits for the first lists, which show the state
    /// before the rollout, and checks that watching is allowed, too.
    pub(crate) async fn begin(cluster: &Cluster, name: &str, labels: &str) -> Result<Self, Ending> {
        let of_labels = watcher::Config::default().labels(labels).page_size(PAGE);
        let by_name = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let (deployments, first) = store(0, cluster.api(), by_name, |_| {});
        let (replica_sets, second) =
            store(1, cluster.api(), of_labels.clone(), |set: &mut ReplicaSet| set.metadata.managed_fields = None);
        let (pods, third) = store(2, cluster.api(), of_labels, pod::trim);
        let mut watch = Self {
            name: name.to_owned(),
            api: cluster.api(),
            known: Vec::new(),
            deployments,
            replica_sets,
            pods,
            complete: [false; 3],
            changes: select_all([first, second, third]),
            suspect: None,
            leaving: false,
            room_since: None,
        };
        watch.first_lists(cluster).await?;
        let forbidden = |error: kube::Error| cluster.ending("watch the Deployment and its pods", &error);
        cluster.may_watch::<Deployment>(&format!("metadata.name={name}"), "").await.map_err(forbidden)?;
        cluster.may_watch::<ReplicaSet>("", labels).await.map_err(forbidden)?;
        cluster.may_watch::<Pod>("", labels).await.map_err(forbidden)?;
        Ok(watch)
    }

    async fn first_lists(&mut self, cluster: &Cluster) -> Result<(), Ending> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = None;
        while !self.is_complete() {
            match timeout_at(deadline, self.next()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => match of_server(error) {
                    Some(error @ kube::Error::Api(_)) if !is_busy(&error) => {
                        return Err(cluster.ending("list the Deployment and its pods", &error));
                    }
                    // Before anything is changed, the run does not wait for an API server that cannot be reached.
                    Some(error) if last.is_some() => {
                        return Err(cluster.ending("list the Deployment and its pods", &error));
                    }
                    error => last = error,
                },
                Err(_) => {
                    let limit = PATIENCE.as_secs();
                    let why = last.map_or_else(String::new, |error| format!(" ({})", cluster.explain(&error)));
                    let cause =
                        format!("the API server did not list the Deployment and its pods within {limit} s{why}");
                    return Err(Ending::new(Reason::ApiServerUnreachable, cause));
                }
            }
        }
        Ok(())
    }

    /// Whether every store holds a complete list.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete.iter().all(|&complete| complete)
    }

    /// What the stores hold at `now`.
    pub(crate) fn snapshot(&mut self, now: Timestamp) -> Snapshot {
        let pods = self.pods.state();
        let leaving = pods.iter().any(|pod| pod.metadata.deletion_timestamp.is_some());
        if std::mem::replace(&mut self.leaving, leaving) && !leaving {
            self.room_since = Some(now);
        }
        let events = self.suspect.as_ref().filter(|suspect| suspect.complete);
        let deployment = self.deployments.find(|deployment| deployment.name_any() == self.name);
        let uid = deployment.as_ref().and_then(|deployment| deployment.metadata.uid.clone());
        self.known.extend(uid.filter(|uid| !self.known.contains(uid)));
        Snapshot {
            deployment,
            known: self.known.clone(),
            replica_sets: self.replica_sets.state(),
            pods,
            events: events.map(|suspect| {
                let mut events = suspect.events.state();
                events.sort_by_key(|event| pod::last_seen(event));
                (suspect.uid.clone(), events)
            }),
            room_since: self.room_since,
        }
    }

    /// Follows the events of this pod from now on. That takes a list and a watch for each pod, and most pods that are slow
    /// to start are well a moment later. So unless the suspicion `is_urgent`, the last suspect is followed for a while
    /// first, and the end of that time is returned.
    pub(crate) fn look_into(&mut self, Suspicion { uid, is_urgent }: &Suspicion) -> Option<Instant> {
        if let Some(suspect) = &self.suspect {
            let until = suspect.since + ATTENTION;
            // A suspect gives way once its events are known, because they have told what they can.
            let gives_way = *is_urgent && (suspect.complete || !suspect.is_urgent);
            if &suspect.uid == uid {
                return None;
            }
            if !gives_way && Instant::now() < until {
                return Some(until);
            }
        }
        let of_pod = watcher::Config::default().fields(&format!("involvedObject.uid={uid}"));
        let (events, changes) = store(self.complete.len(), self.api.clone(), of_pod, |_| {});
        let (uid, is_urgent, since) = (uid.clone(), *is_urgent, Instant::now());
        self.suspect = Some(Suspect { uid, is_urgent, since, events, complete: false, changes });
        None
    }

    /// A change that has already arrived.
    pub(crate) fn take(&mut self) -> Option<watcher::Result<()>> {
        self.next().now_or_never()
    }

    /// The next change from any of the streams, which never end.
    pub(crate) async fn next(&mut self) -> watcher::Result<()> {
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
        match (self.complete.get_mut(source), &mut self.suspect) {
            (Some(complete), _) => *complete = what?.unwrap_or(*complete),
            // If events may not be read, the rollout is judged without them.
            (None, Some(suspect)) => {
                suspect.complete |= what.map_or_else(|error| is_refusal(&error), |is| is == Some(true));
            }
            (None, None) => {}
        }
        Ok(())
    }
}

/// The API server's error, or what kept it from answering. None if the watcher recovers by itself.
pub(crate) fn of_server(error: watcher::Error) -> Option<kube::Error> {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    match error {
        NoResourceVersion => None,
        WatchError(status) => Some(kube::Error::Api(status)),
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => Some(error),
    }
}

fn is_busy(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 429 || status.code >= 500)
}

fn is_refusal(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchStartFailed};
    matches!(error, InitialListFailed(kube::Error::Api(status)) | WatchStartFailed(kube::Error::Api(status)) if status.code == 403)
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
        .map(move |event| (source, event.map(|event| is_whole(&event))));
    (store, changes.boxed())
}

/// Whether a list is complete. One that was restarted delivers what it missed late, and is complete only at its end.
fn is_whole<K>(event: &watcher::Event<K>) -> Option<bool> {
    match event {
        watcher::Event::Init => Some(false),
        watcher::Event::InitDone => Some(true),
        watcher::Event::InitApply(_) | watcher::Event::Apply(_) | watcher::Event::Delete(_) => None,
    }
}

/// The wait between attempts to reach the API server again. It is short, because a person is waiting.
#[derive(Default)]
struct Doubling(u32);

impl Iterator for Doubling {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = Duration::from_millis(100 << self.0.min(2));
        self.0 += 1;
        Some(wait)
    }
}

impl Backoff for Doubling {
    fn reset(&mut self) {
        self.0 = 0;
    }
}
