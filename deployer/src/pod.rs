//! What a Pod's status says, read.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodCondition};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use crate::template::COMMIT;

/// Whether a pod's readiness gates and probes say that it may be sent requests.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    ready_since(pod).is_some()
}

/// Whether a pod has ended for good and only its record is left, as an evicted one's.
pub(crate) fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_deref()?.iter().find(|condition| condition.type_ == kind)
}

pub(crate) fn transition(condition: &PodCondition) -> Timestamp {
    condition.last_transition_time.as_ref().map_or(Timestamp::MIN, |time| time.0)
}

/// Since when the pod is sent requests; None while it is not.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    condition(pod, "Ready").filter(|ready| ready.status == "True").map(transition)
}

/// Since when the scheduler finds no node for the pod, and its reason.
pub(crate) fn unschedulable(pod: &Pod) -> Option<(Timestamp, &str)> {
    let scheduled = condition(pod, "PodScheduled")?;
    let refused = scheduled.status == "False" && scheduled.reason.as_deref() == Some("Unschedulable");
    refused.then(|| (transition(scheduled), scheduled.message.as_deref().unwrap_or_default()))
}

/// Since when the pod's status is what it is: kubelets write it when it changes.
pub(crate) fn status_since(pod: &Pod) -> Timestamp {
    let written = pod.managed_fields().iter().filter(|entry| entry.subresource.as_deref() == Some("status"));
    let written = written.filter_map(|entry| entry.time.as_ref()).max();
    written.or(pod.metadata.creation_timestamp.as_ref()).map_or(Timestamp::MIN, |time| time.0)
}

/// Of all containers, those of initialisation first.
pub(crate) fn container_statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let init = status.and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default();
    let main = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    init.iter().chain(main)
}

pub(crate) fn is_init(pod: &Pod, container: &str) -> bool {
    let init = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    init.iter().any(|init| init.name == container)
}

/// How the container ended, the latest end first.
pub(crate) fn ends(status: &ContainerStatus) -> impl Iterator<Item = &ContainerStateTerminated> {
    [&status.state, &status.last_state].into_iter().filter_map(|state| state.as_ref()?.terminated.as_ref())
}

/// `, limit BYTES`, if the container has one.
pub(crate) fn memory_limit(pod: &Pod, container: &str) -> String {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    containers
        .iter()
        .find(|found| found.name == container)
        .and_then(|found| found.resources.as_ref()?.limits.as_ref()?.get("memory"))
        .map_or_else(String::new, |limit| format!(", limit {}", limit.0))
}

/// The path that the readiness probe of a container asks for.
pub(crate) fn readiness_path<'a>(pod: &'a Pod, container: &str) -> Option<&'a str> {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let found = containers.iter().find(|found| found.name == container)?;
    found.readiness_probe.as_ref()?.http_get.as_ref()?.path.as_deref()
}

/// ` on NODE`, once the pod has one.
pub(crate) fn on_node(pod: &Pod) -> String {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    node.map_or_else(String::new, |node| format!(" on {node}"))
}

/// What serves now: each commit with how many of its pods are ready, the most first.
pub(crate) fn serving(pods: &[Arc<Pod>]) -> Vec<(String, usize)> {
    let mut commits: Vec<(String, usize)> = Vec::new();
    for pod in pods.iter().filter(|pod| !is_over(pod) && ready_since(pod).is_some()) {
        let commit = pod.annotations().get(COMMIT).map_or("an unknown commit", String::as_str);
        match commits.iter_mut().find(|(found, _)| found == commit) {
            Some((_, count)) => *count += 1,
            None => commits.push((commit.to_owned(), 1)),
        }
    }
    commits.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    commits
}
