//! Counts what following thousands of pods costs, so that a cost that grows with the square of their number shows.

use allocation_counter::measure;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use serde_json::{Value, json};

use super::*;
use crate::commit::COMMIT;
use crate::revision::{HASH, REVISION};

const COMMIT_NEW: &str = "3f9c2ab17d043f9c2ab17d043f9c2ab17d043f9c";
const NOW: &str = "2026-11-23T08:37:12Z";

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A pod as the API server sends it: of the shipped manifest, with the status that a kubelet wrote.
fn pod(number: usize, set: &str, spec: &Value) -> Value {
    let observed: Value = serde_json::from_str(include_str!("../../tests/observed/healthy.json")).unwrap();
    let fields = json!({"f:metadata": {"f:annotations": {}, "f:labels": {}}, "f:spec": spec});
    json!({
        "metadata": {
            "name": format!("web-{set}-{number}"), "namespace": "web", "uid": format!("{set}-{number}"),
            "resourceVersion": "4711", "creationTimestamp": "2026-11-23T08:36:58Z",
            "annotations": {COMMIT: COMMIT_NEW, "kubernetes.io/change-cause": "a commit, and the build that deployed it"},
            "labels": {HASH: set, "app.kubernetes.io/name": "web"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("web-{set}"), "uid": set, "controller": true}],
            "managedFields": [
                {"manager": "kube-controller-manager", "operation": "Update", "fieldsV1": fields, "time": "2026-11-23T08:36:58Z"},
                {"manager": "kubelet", "operation": "Update", "subresource": "status", "fieldsV1": fields, "time": "2026-11-23T08:37:02Z"},
            ],
        },
        "spec": spec,
        "status": observed["pods"][0],
    })
}

fn shipped_spec() -> Value {
    let template = concat!(env!("CARGO_MANIFEST_DIR"), "/../kubernetes/deployment.yaml.tmp");
    let (image, commit) = (format!("localhost:5000/web:{}", &COMMIT_NEW[..12]), COMMIT_NEW);
    let filled =
        crate::template::fill_in(template.as_ref(), &image.parse().unwrap(), &commit.parse().unwrap(), "a commit");
    let mut spec = filled.unwrap().deployment.object(None)["spec"]["template"]["spec"].take();
    spec["nodeName"] = "node-a".into();
    spec
}

/// A rollout halfway through: half of the new pods are available, the others are created, and the old ones remain.
fn half_done(pods: usize) -> (Target, Snapshot) {
    let template = json!({"metadata": {"annotations": {COMMIT: COMMIT_NEW}}, "spec": {"containers": []}});
    let set = |name: &str, revision: &str| -> ReplicaSet {
        typed(json!({
            "metadata": {"name": format!("web-{name}"), "uid": name, "annotations": {REVISION: revision},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "web", "controller": true}]},
            "spec": {"selector": {}, "template": template},
            "status": {"replicas": pods, "availableReplicas": pods / 2},
        }))
    };
    let deployment: Deployment = typed(json!({
        "metadata": {"name": "web", "uid": "web", "generation": 2, "annotations": {REVISION: "2"}},
        "spec": {"replicas": pods, "selector": {}, "template": template},
        "status": {"observedGeneration": 2, "updatedReplicas": pods},
    }));
    // After the pods became ready, so that no line is printed for them.
    let target = Target::of(&deployment).written(1, "2026-11-23T08:37:05Z".parse().unwrap());
    let spec = shipped_spec();
    let one = |number: usize| -> Arc<Pod> {
        let mut value = pod(number, if number.is_multiple_of(3) { "old" } else { "new" }, &spec);
        if number.is_multiple_of(2) {
            value["status"] = json!({"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-23T08:36:59Z"}]});
        }
        let mut pod: Pod = typed(value);
        pod::trim(&mut pod);
        Arc::new(pod)
    };
    let seen = Snapshot {
        deployment: Some(Arc::new(deployment)),
        known: vec!["web".to_owned()],
        replica_sets: vec![Arc::new(set("new", "2")), Arc::new(set("old", "1"))],
        pods: (0..pods).map(one).collect(),
        ..Snapshot::default()
    };
    (target, seen)
}

#[test]
fn a_judgement_of_ten_times_as_many_pods_makes_no_more_allocations() {
    let allocations = |pods: usize| {
        let (target, seen) = half_done(pods);
        let task = Task { target: &target, since: Instant::now(), limit: Duration::from_mins(5) };
        let (mut progress, mut run) = (Progress::begin(&task), Run::start());
        let mut judge = || progress.tell(&assess(&target, &seen, NOW.parse().unwrap()), &mut run);
        judge(); // prints the lines that are printed only once
        measure(judge).count_total
    };
    let (few, many) = (allocations(300), allocations(3_000));
    // A growing vector is allocated again each time that it doubles.
    assert!(many <= few + 50, "{few} allocations for 300 pods, {many} for 3,000");
}

#[test]
fn of_each_pod_no_more_is_kept_than_is_judged() {
    let spec = shipped_spec();
    let text = pod(0, "new", &spec).to_string();
    let mut kept = Pod::default();
    let info = measure(|| {
        kept = serde_json::from_str(&text).unwrap();
        pod::trim(&mut kept);
    });
    let bytes = info.bytes_current + i64::try_from(size_of::<Pod>()).unwrap();
    assert!(bytes < 12_000, "{bytes} bytes are kept of a pod, whose JSON has {}", text.len());
}
