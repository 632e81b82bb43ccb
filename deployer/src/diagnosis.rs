//! The evidence of a failed rollout: the pod's state and events, its log, and the commands to look further.

use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::ResourceExt as _;

use crate::cause::Cause;
use crate::cluster::{Cluster, answer_of};
use crate::pod;
use crate::report::Run;
use crate::rollout::{Snapshot, Trouble};

/// How many lines of a log are shown.
const LOG_LINES: i64 = 10;
/// How many different events are shown.
const EVENTS: usize = 4;

/// Gathers the evidence for `trouble`. It leaves out what cannot be read, because a diagnosis must not fail. If a rollback
/// follows, it deletes the pod, so the suggested commands are about what remains.
pub(crate) async fn diagnose(
    cluster: &Cluster,
    trouble: &Trouble,
    (seen, is_undone): (&Snapshot, bool),
    run: &mut Run,
) {
    let Trouble { cause, .. } = trouble;
    let place = &cluster.place;
    let deployment = run.deployment.clone().unwrap_or_default();
    let Some(pod) = trouble.pod.as_deref() else {
        let detail = cause.said().filter(|said| !cause.to_string().contains(said));
        run.evidence.extend(detail.map(|detail| format!("deployment {deployment}: {detail}")));
        if !matches!(cause, Cause::Deleted) {
            run.commands.push(("look", place.kubectl(&format!("describe deployment {deployment}"))));
        }
        run.commands.push(("look", place.kubectl("get events --sort-by=.lastTimestamp")));
        return;
    };
    let name = pod.name_any();
    run.evidence.push(headline(pod, cause));
    let events = events(cluster, pod, seen).await;
    let is_news = |event: &&Event| event.message.is_none() || event.message.as_deref() != cause.said();
    run.evidence.extend(events.iter().rev().filter(is_news).take(EVENTS).map(sentence));
    let mut commands = vec![format!("describe pod {name}")];
    if let Some(status) = container(pod, cause) {
        let is_running = status.state.as_ref().is_some_and(|state| state.running.is_some());
        if is_running && !status.ready {
            run.evidence.extend(health(cluster, pod, &status.name).await);
        }
        if let Cause::ShimEnded { at, .. } = cause {
            // The shim has written nothing to the container's log by then.
            run.evidence.push(format!(
                "node {}: after a failed start, containerd's log has a line with run_wasi ERROR; after an OOM kill, the kernel's log names it",
                at.node.as_deref().unwrap_or_default()
            ));
        } else if is_running || status.restart_count > 0 || pod::ends(status).next().is_some() {
            let previous = !is_running && status.restart_count > 0;
            let (lines, flag) = log(cluster, &name, &status.name, previous).await;
            run.evidence.extend(lines);
            commands.extend(flag.map(|flag| format!("logs {name} -c {}{flag}", status.name)));
        }
    }
    if is_undone {
        commands = vec![format!("get events --field-selector involvedObject.name={name}")];
    }
    run.commands.extend(commands.iter().map(|command| ("look", place.kubectl(command))));
}

/// The pod's own state, in one line.
pub(crate) fn headline(pod: &Pod, cause: &Cause) -> String {
    let mut text = format!("pod {}", pod::located(pod));
    let status = container(pod, cause).or_else(|| {
        pod::container_statuses(pod).find(|status| !matches!(pod::waiting(status).0, "" | "PodInitializing"))
    });
    let state = status.and_then(|status| status.state.as_ref());
    let reason = state.and_then(|state| {
        let waiting = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
        let ended = state.terminated.as_ref().and_then(|ended| ended.reason.clone());
        waiting.or(ended).or_else(|| state.running.as_ref().map(|_| "running, not ready".to_owned()))
    });
    let is_new = |said: &&str| matches!(cause, Cause::Gate { .. }) || !cause.to_string().contains(said);
    for part in reason.as_deref().into_iter().chain(cause.said().filter(is_new)) {
        text = format!("{text}: {part}");
    }
    text
}

fn container<'a>(pod: &'a Pod, cause: &Cause) -> Option<&'a ContainerStatus> {
    let name = cause.container()?;
    pod::container_statuses(pod).find(|status| status.name == name)
}

/// The warnings about a pod, the oldest first.
async fn events(cluster: &Cluster, pod: &Pod, seen: &Snapshot) -> Vec<Event> {
    let Some(uid) = &pod.metadata.uid else { return Vec::new() };
    let mut events: Vec<Event> = match &seen.events {
        Some((of, events)) if of == uid => events.iter().map(|event| event.as_ref().clone()).collect(),
        _ => cluster.events(uid).await.unwrap_or_default(),
    };
    events.retain(|event| event.type_.as_deref() == Some("Warning"));
    events
}

fn sentence(event: &Event) -> String {
    let count = pod::occurrences(event);
    let times = if count > 1 { format!(" ({count} times)") } else { String::new() };
    let reason = event.reason.as_deref().unwrap_or("event");
    format!("event {reason}{times}: {}", event.message.as_deref().unwrap_or_default())
}

/// The end of a log, and the option that shows it again. None if it cannot be read.
async fn log(cluster: &Cluster, pod: &str, container: &str, previous: bool) -> (Vec<String>, Option<&'static str>) {
    let mut last = None;
    // The log of the previous container may be gone already.
    for (is_worth_reading, previous, whose, flag) in
        [(previous, true, "log of the previous container", " --previous"), (true, false, "log", "")]
    {
        if is_worth_reading {
            match cluster.log_tail(pod, container, previous, LOG_LINES).await {
                Ok(text) => return (text.lines().map(|line| format!("{whose}: {line}")).collect(), Some(flag)),
                Err(error) => last = Some(format!("{whose}: cannot be read: {}", answer_of(&error))),
            }
        }
    }
    (last.into_iter().collect(), None)
}

/// The answer that the readiness probe gets, requested again through the API server.
async fn health(cluster: &Cluster, pod: &Pod, container: &str) -> Option<String> {
    let path = pod::readiness_path(pod, container)?;
    Some(match cluster.get_from_pod(&pod.name_any(), path).await {
        Ok(answer) => format!("GET {path}: 200 {answer}"),
        Err(error) => format!("GET {path}: {}", answer_of(&error)),
    })
}
