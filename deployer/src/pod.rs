//! Reads the status and the specification of a Pod.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Container, ContainerStateTerminated, ContainerStatus, Event, HTTPGetAction, Pod, PodCondition, PodSpec, PodStatus,
    Probe, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use crate::cause::on_node;
use crate::commit::COMMIT;
use crate::revision::HASH;

/// Drops the parts of a pod that are never read, which are most of its bytes. There may be thousands of pods.
pub(crate) fn trim(pod: &mut Pod) {
    let status_written = ManagedFieldsEntry {
        subresource: Some("status".to_owned()),
        time: Some(Time(status_since(pod))),
        ..ManagedFieldsEntry::default()
    };
    let metadata = std::mem::take(&mut pod.metadata);
    let only =
        |key: &str, of: Option<BTreeMap<String, String>>| of?.remove_entry(key).map(|entry| BTreeMap::from([entry]));
    pod.metadata = ObjectMeta {
        annotations: only(COMMIT, metadata.annotations),
        labels: only(HASH, metadata.labels),
        managed_fields: Some(vec![status_written]),
        creation_timestamp: metadata.creation_timestamp,
        deletion_timestamp: metadata.deletion_timestamp,
        name: metadata.name,
        namespace: metadata.namespace,
        owner_references: metadata.owner_references,
        resource_version: metadata.resource_version,
        uid: metadata.uid,
        ..ObjectMeta::default()
    };
    if let Some(spec) = pod.spec.take() {
        let trimmed = |containers: Vec<Container>| containers.into_iter().map(trimmed_container).collect();
        pod.spec = Some(PodSpec {
            containers: trimmed(spec.containers),
            init_containers: spec.init_containers.map(trimmed),
            node_name: spec.node_name,
            readiness_gates: spec.readiness_gates,
            runtime_class_name: spec.runtime_class_name,
            ..PodSpec::default()
        });
    }
    if let Some(status) = pod.status.take() {
        let trimmed = |statuses: Vec<ContainerStatus>| statuses.into_iter().map(trimmed_status).collect();
        pod.status = Some(PodStatus {
            conditions: status.conditions,
            container_statuses: status.container_statuses.map(trimmed),
            init_container_statuses: status.init_container_statuses.map(trimmed),
            message: status.message,
            nominated_node_name: status.nominated_node_name,
            phase: status.phase,
            reason: status.reason,
            ..PodStatus::default()
        });
    }
}

fn trimmed_container(container: Container) -> Container {
    let probe = container.readiness_probe.and_then(|probe| probe.http_get).map(|http_get| Probe {
        http_get: Some(HTTPGetAction { path: http_get.path, ..HTTPGetAction::default() }),
        ..Probe::default()
    });
    Container {
        name: container.name,
        image: container.image,
        readiness_probe: probe,
        resources: container
            .resources
            .map(|resources| ResourceRequirements { limits: resources.limits, ..ResourceRequirements::default() }),
        ..Container::default()
    }
}

fn trimmed_status(status: ContainerStatus) -> ContainerStatus {
    ContainerStatus {
        image: status.image,
        image_id: status.image_id,
        last_state: status.last_state,
        name: status.name,
        ready: status.ready,
        restart_count: status.restart_count,
        state: status.state,
        ..ContainerStatus::default()
    }
}

/// Whether a pod has ended for good and only its object is left, for example after an eviction.
pub(crate) fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_deref()?.iter().find(|condition| condition.type_ == kind)
}

fn transition(condition: &PodCondition) -> Timestamp {
    condition.last_transition_time.as_ref().map_or(Timestamp::MIN, |time| time.0)
}

/// Whether the pod's readiness gates and probes allow requests to it.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    ready_since(pod).is_some()
}

/// Since when the pod is ready. None if it is not.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    condition(pod, "Ready").filter(|ready| ready.status == "True").map(transition)
}

/// Since when the pod has a node. None if it has none.
pub(crate) fn scheduled_since(pod: &Pod) -> Option<Timestamp> {
    condition(pod, "PodScheduled").filter(|scheduled| scheduled.status == "True").map(transition)
}

/// Since when the scheduler finds no node for the pod, and its reason.
pub(crate) fn unschedulable(pod: &Pod) -> Option<(Timestamp, &str)> {
    let scheduled = condition(pod, "PodScheduled")?;
    let refused = scheduled.status == "False" && scheduled.reason.as_deref() == Some("Unschedulable");
    refused.then(|| (transition(scheduled), scheduled.message.as_deref().unwrap_or_default()))
}

/// When the pod was created, in whole seconds.
pub(crate) fn created(pod: &Pod) -> Timestamp {
    pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0)
}

/// When the pod's status last changed. The kubelet writes it only then.
pub(crate) fn status_since(pod: &Pod) -> Timestamp {
    let written = pod.managed_fields().iter().filter(|entry| entry.subresource.as_deref() == Some("status"));
    let written = written.filter_map(|entry| entry.time.as_ref()).max();
    written.map_or_else(|| created(pod), |time| time.0)
}

/// The statuses of all containers, init containers first.
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

/// The specification of a container.
pub(crate) fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let PodSpec { init_containers, containers, .. } = pod.spec.as_ref()?;
    init_containers.iter().flatten().chain(containers).find(|container| container.name == name)
}

/// How the container ended, the latest end first.
pub(crate) fn ends(status: &ContainerStatus) -> impl Iterator<Item = &ContainerStateTerminated> {
    [&status.state, &status.last_state].into_iter().filter_map(|state| state.as_ref()?.terminated.as_ref())
}

/// The reason that a container waits for, with the message.
pub(crate) fn waiting(status: &ContainerStatus) -> (&str, &str) {
    let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
    waiting.map_or_else(Default::default, |waiting| {
        (waiting.reason.as_deref().unwrap_or_default(), waiting.message.as_deref().unwrap_or_default())
    })
}

/// The container's memory limit, if it has one.
pub(crate) fn memory_limit(pod: &Pod, name: &str) -> Option<String> {
    let limit = container(pod, name)?.resources.as_ref()?.limits.as_ref()?.get("memory")?;
    Some(limit.0.clone())
}

/// The path that the readiness probe of a container asks for.
pub(crate) fn readiness_path<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    container(pod, name)?.readiness_probe.as_ref()?.http_get.as_ref()?.path.as_deref()
}

/// Whether Spin's shim runs the pod. The shim reports less about the end of a container than runc does.
pub(crate) fn is_of_spin(pod: &Pod) -> bool {
    let class = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_deref());
    class.is_some_and(|class| class.contains("spin"))
}

pub(crate) fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref())
}

/// `NAME on NODE`, or `NAME` if the pod has no node.
pub(crate) fn located(pod: &Pod) -> String {
    format!("{}{}", pod.name_any(), on_node(node(pod)))
}

/// How often an event happened, in the old or the new format.
pub(crate) fn occurrences(event: &Event) -> i32 {
    let series = event.series.as_ref().and_then(|series| series.count);
    event.count.or(series).unwrap_or(1).max(1)
}

/// When an event happened last, in the old or the new format.
pub(crate) fn last_seen(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let time = event.last_timestamp.as_ref().map(|time| time.0);
    series.or(time).or(event.event_time.as_ref().map(|time| time.0))
}

/// What serves now: each commit with the number of its ready pods, the greatest number first.
pub(crate) fn serving(pods: &[Arc<Pod>]) -> Vec<(&str, usize)> {
    let mut commits: Vec<(&str, usize)> = Vec::new();
    for pod in pods.iter().filter(|pod| is_ready(pod)) {
        let commit = pod.annotations().get(COMMIT).map_or("an unknown commit", String::as_str);
        match commits.iter_mut().find(|(found, _)| *found == commit) {
            Some((_, count)) => *count += 1,
            None => commits.push((commit, 1)),
        }
    }
    commits.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    commits
}
