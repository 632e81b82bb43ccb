//! What to show of a failed rollout: what the cluster says of the pod, what the pod wrote, and where to look further.

use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::ResourceExt as _;

use crate::cluster::{Cluster, answer_of};
use crate::output::Output;
use crate::pod;
use crate::rollout::{self, Cause, Snapshot};

/// Lines of a log that are shown.
const LOG_LINES: i64 = 10;
/// Different events that are shown.
const EVENTS: usize = 4;

/// Gathers the evidence for `cause`. What cannot be had is left out: a diagnosis must not fail.
pub(crate) async fn diagnose(cluster: &Cluster, deployment: &str, cause: &Cause, seen: &Snapshot, output: &Output) {
    let Some(pod) = cause.pod.as_deref() else {
        let detail = cause.detail.as_ref().filter(|detail| !cause.summary.contains(*detail));
        output.record(|report| {
            report.evidence.extend(detail.map(|detail| format!("deployment {deployment}: {detail}")));
            report.commands.push(("look", cluster.kubectl(&format!("describe deployment {deployment}"))));
            report.commands.push(("look", cluster.kubectl("get events --sort-by=.lastTimestamp")));
        });
        return;
    };
    let name = pod.name_any();
    let mut evidence = vec![headline(pod, cause)];
    let events = events(cluster, pod, seen).await;
    let is_news = |event: &&Event| event.message.is_none() || event.message != cause.detail;
    evidence.extend(events.iter().rev().filter(is_news).take(EVENTS).map(sentence));
    let mut commands = vec![cluster.kubectl(&format!("describe pod {name}"))];
    if let Some(status) = container(pod, cause) {
        let is_running = status.state.as_ref().is_some_and(|state| state.running.is_some());
        if is_running && !status.ready {
            evidence.extend(health(cluster, pod, &status.name).await);
        }
        let has_run = is_running || status.restart_count > 0 || pod::ends(status).next().is_some();
        if has_run {
            let previous = !is_running && status.restart_count > 0;
            evidence.extend(log(cluster, &name, &status.name, previous).await);
            let flag = if status.restart_count > 0 { " --previous" } else { "" };
            commands.push(cluster.kubectl(&format!("logs {name} -c {}{flag}", status.name)));
        }
    }
    output.record(|report| {
        report.evidence.extend(evidence);
        report.commands.extend(commands.into_iter().map(|command| ("look", command)));
    });
}

fn headline(pod: &Pod, cause: &Cause) -> String {
    let mut text = format!("pod {}{}", pod.name_any(), pod::on_node(pod));
    let state = container(pod, cause).and_then(|status| status.state.as_ref());
    let reason = state.and_then(|state| {
        let waiting = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
        let ended = state.terminated.as_ref().and_then(|ended| ended.reason.clone());
        waiting.or(ended).or_else(|| state.running.as_ref().map(|_| "running, not ready".to_owned()))
    });
    let detail = cause.detail.clone().filter(|detail| !cause.summary.contains(detail.as_str()));
    for part in reason.into_iter().chain(detail) {
        text = format!("{text}: {part}");
    }
    text
}

fn container<'a>(pod: &'a Pod, cause: &Cause) -> Option<&'a ContainerStatus> {
    let name = cause.container.as_ref()?;
    pod::container_statuses(pod).find(|status| &status.name == name)
}

/// The warnings about a pod, the oldest first.
async fn events(cluster: &Cluster, pod: &Pod, seen: &Snapshot) -> Vec<Event> {
    let Some(uid) = &pod.metadata.uid else { return Vec::new() };
    let mut events = match &seen.events {
        Some((of, events)) if of == uid => events.iter().map(|event| (**event).clone()).collect(),
        _ => cluster.events(uid).await.unwrap_or_default(),
    };
    events.retain(|event| event.type_.as_deref() == Some("Warning"));
    events
}

fn sentence(event: &Event) -> String {
    let count = rollout::occurrences(event);
    let times = if count > 1 { format!(" ({count} times)") } else { String::new() };
    let reason = event.reason.as_deref().unwrap_or("event");
    format!("event {reason}{times}: {}", event.message.as_deref().unwrap_or_default())
}

async fn log(cluster: &Cluster, pod: &str, container: &str, previous: bool) -> Vec<String> {
    let whose = if previous { "log of the container before" } else { "log" };
    let mut text = cluster.log_tail(pod, container, previous, LOG_LINES).await;
    if previous && text.is_err() {
        // The record of the life before may be gone already.
        text = cluster.log_tail(pod, container, false, LOG_LINES).await;
    }
    match text {
        Ok(text) => text.lines().map(|line| format!("{whose}: {line}")).collect(),
        Err(error) => vec![format!("{whose}: cannot be read: {}", answer_of(&error))],
    }
}

/// What the readiness probe is told, asked once more by way of the API server.
async fn health(cluster: &Cluster, pod: &Pod, container: &str) -> Option<String> {
    let path = pod::readiness_path(pod, container)?;
    Some(match cluster.get_from_pod(&pod.name_any(), path).await {
        Ok(answer) => format!("GET {path}: 200 {answer}"),
        Err(error) => format!("GET {path}: {}", answer_of(&error)),
    })
}
