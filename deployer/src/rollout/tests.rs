//! The judgement as tables: on what real kubelets and controllers wrote, and on what they might write.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::*;
use crate::commit::COMMIT;
use crate::diagnosis::headline;
use crate::outcome::Ending;
use crate::pod::{ready_since, serving};
use crate::report::{Run, Sight};
use crate::revision::{AVAILABLE, HASH, REVISION, previous};

const COMMIT_NEW: &str = "3f9c2ab17d043f9c2ab17d043f9c2ab17d043f9c";
const COMMIT_OLD: &str = "81be09aa43f181be09aa43f181be09aa43f181be";
/// When the Deployment was applied; the observed statuses begin a second later.
const APPLIED: &str = "2026-11-23T08:36:58Z";

/// A Deployment of one replica, its `ReplicaSet`, its pod, and the pod's events, as JSON to be changed at will.
struct Scene {
    target: Target,
    deployment: Value,
    sets: Vec<Value>,
    pods: Vec<Value>,
    events: Option<Vec<Value>>,
    room_since: Option<&'static str>,
}

impl Scene {
    /// What was observed, put where the API server has it.
    fn observed(text: &str) -> Self {
        let observed: Value = serde_json::from_str(text).unwrap();
        let image = observed["pods"][0]["containerStatuses"][0]["image"].as_str().unwrap_or("app:v1").to_owned();
        let statuses = observed["pods"].as_array().unwrap();
        let pods = statuses.iter().enumerate().map(|(number, status)| pod(&format!("new-{number}"), "new", status));
        let template = json!({
            "metadata": {"annotations": {COMMIT: COMMIT_NEW}, "labels": {"app": "app"}},
            "spec": {"containers": [{"name": "app", "image": image}]},
        });
        let mut new = set("new", "2", &observed["replica_sets"][0]);
        new["spec"]["selector"] = json!({});
        new["spec"]["template"] = template.clone();
        new["spec"]["template"]["metadata"]["labels"][HASH] = "new".into();
        Self {
            target: Target {
                name: "app".to_owned(),
                begun: Some(time(APPLIED)),
                uid: "deployment".to_owned(),
                generation: 1,
                commit: Some(COMMIT_NEW.to_owned()),
                images: vec![image.clone()],
                applied: Some(time(APPLIED)),
                before: HashMap::new(),
                undoing: false,
            },
            deployment: json!({
                "metadata": {"name": "app", "uid": "deployment", "generation": 1, "annotations": {REVISION: "2"}},
                "spec": {
                    "replicas": 1,
                    "progressDeadlineSeconds": 30,
                    "selector": {},
                    "template": template,
                },
                "status": observed["deployment"],
            }),
            sets: vec![new, set("old", "1", &json!({"replicas": 0}))],
            pods: pods.collect(),
            events: Some(observed["warnings"].as_array().unwrap().iter().map(event).collect()),
            room_since: None,
        }
    }

    fn healthy() -> Self {
        Self::observed(include_str!("../../tests/observed/healthy.json"))
    }

    /// As `observed`, before the cluster has given the rollout up.
    fn in_time(mut self) -> Self {
        let conditions = self.deployment["status"]["conditions"].as_array_mut().unwrap();
        conditions.retain(|condition| condition["type"] != "Progressing");
        self
    }

    fn status(&mut self, number: usize) -> &mut Value {
        &mut self.pods[number]["status"]
    }

    fn waiting(&mut self, reason: &str, message: &str) {
        let container = &mut self.status(0)["containerStatuses"][0];
        container["state"] = json!({"waiting": {"reason": reason, "message": message}});
        self.not_ready(0);
    }

    fn not_ready(&mut self, number: usize) {
        for condition in self.status(number)["conditions"].as_array_mut().unwrap() {
            if condition["type"] == "Ready" {
                condition["status"] = "False".into();
            }
        }
        self.sets[0]["status"]["availableReplicas"] = 0.into();
    }

    fn refused(&mut self, message: &str) {
        self.pods.clear();
        self.sets[0]["status"] = json!({"replicas": 0, "conditions": [{"type": "ReplicaFailure", "status": "True",
            "reason": "FailedCreate", "message": message, "lastTransitionTime": APPLIED}]});
    }

    /// Records of pods that never ran.
    fn rejected(&mut self, count: usize, reason: &str) {
        let mut pod = self.pods.remove(0);
        pod["status"] = json!({"phase": "Failed", "reason": reason, "message": "forbidden sysctl"});
        self.pods.extend(vec![pod; count]);
        self.sets[0]["status"]["availableReplicas"] = 0.into();
    }

    /// The same commit is deployed once more.
    fn run_again(&mut self, begun: &str) {
        (self.target.begun, self.target.applied) = (Some(time(begun)), None);
    }

    fn old_pod(&mut self, deleted: Option<&str>) {
        let mut pod = self.pods[0].clone();
        pod["metadata"]["name"] = "old-0".into();
        pod["metadata"]["uid"] = "old-0".into();
        pod["metadata"]["annotations"] = json!({COMMIT: COMMIT_OLD});
        pod["metadata"]["ownerReferences"][0]["uid"] = "old".into();
        if let Some(deleted) = deleted {
            pod["metadata"]["deletionTimestamp"] = deleted.into();
        }
        self.pods.push(pod);
    }

    fn assess(&self, now: &str) -> Assessment {
        assess(&self.target, &self.snapshot(), time(now))
    }

    fn snapshot(&self) -> Snapshot {
        let uid = self.pods.first().map_or("none", |pod| pod["metadata"]["uid"].as_str().unwrap());
        Snapshot {
            deployment: (!self.deployment.is_null()).then(|| Arc::new(typed(&self.deployment))),
            replica_sets: self.sets.iter().map(|set| Arc::new(typed(set))).collect(),
            pods: self.pods.iter().map(|pod| Arc::new(typed(pod))).collect(),
            events: self
                .events
                .as_ref()
                .map(|events| (uid.to_owned(), events.iter().map(|event| Arc::new(typed(event))).collect())),
            known: vec!["deployment".to_owned()],
            room_since: self.room_since.map(time),
        }
    }
}

fn pod(name: &str, owner: &str, status: &Value) -> Value {
    json!({
        "metadata": {
            "name": name,
            "uid": name,
            "creationTimestamp": "2026-11-23T08:36:58Z",
            "annotations": {COMMIT: COMMIT_NEW},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner, "controller": true}],
        },
        "spec": {"nodeName": "node-a", "containers": [{"name": "app", "resources": {"limits": {"memory": "16Mi"}}}]},
        "status": status,
    })
}

fn set(name: &str, revision: &str, status: &Value) -> Value {
    json!({
        "metadata": {
            "name": name,
            "uid": name,
            "annotations": {REVISION: revision},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "app", "uid": "deployment", "controller": true}],
        },
        "spec": {"selector": {}},
        "status": status,
    })
}

fn event(observed: &Value) -> Value {
    json!({"metadata": {}, "involvedObject": {}, "type": "Warning", "reason": observed["reason"],
        "count": observed["count"], "message": observed["message"]})
}

fn typed<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Wait => "wait".to_owned(),
        Verdict::Serving => "serving".to_owned(),
        Verdict::Done => "done".to_owned(),
        Verdict::Failed(cause) => format!("failed: {cause}"),
        Verdict::Superseded(by) => format!("superseded: {by}"),
    }
}

macro_rules! observed {
    ($($name:literal),*) => {
        &[$(($name, include_str!(concat!("../../tests/observed/", $name, ".json")))),*]
    };
}

const OBSERVED: &[(&str, &str)] = observed!(
    "badcmd",
    "badname",
    "crash",
    "crashlater",
    "down",
    "healthy",
    "livenesskill",
    "neverpull2",
    "noclass",
    "nocm",
    "nodns",
    "nohandler",
    "nonroot",
    "norepo",
    "nosecret2",
    "notfound",
    "notready",
    "oom",
    "unsched"
);

fn observed(name: &str) -> Scene {
    let (_, text) = OBSERVED.iter().find(|(found, _)| found == &name).unwrap();
    Scene::observed(text)
}

#[test]
fn what_is_certain_fails_long_before_the_deadline_and_what_is_not_waits() {
    for (name, verdict) in [
        ("badcmd", r#"failed: container app of pod new-0 cannot be started: exec: "/nothere""#),
        (
            "badname",
            "failed: image 10.89.0.1:5000/App:v1 is not a valid name (repository name (App) must be lowercase)",
        ),
        ("crash", "failed: container app of pod new-0 exits with code 3 again and again (2 restarts)"),
        ("crashlater", "failed: container app of pod new-0 exits with code 4 again and again (2 restarts)"),
        ("down", "wait"),
        ("healthy", "done"),
        (
            "livenesskill",
            "failed: container app of pod new-0 is killed by its liveness probe again and again (4 restarts): Liveness probe failed: HTTP",
        ),
        ("neverpull2", "failed: image 10.89.0.1:5000/app:zzz is not on the node and is never pulled"),
        (
            "noclass",
            r#"failed: no pod can be created: pods "noclass-6b6fbf547b-" is forbidden: pod rejected: RuntimeClass "missing" not found"#,
        ),
        ("nocm", r#"failed: container app of pod new-0 cannot be configured: configmap "missing" not found"#),
        ("nodns", "wait"),
        (
            "nohandler",
            r#"failed: the sandbox of pod new-0 on node-a cannot be created: no runtime for "nothere" is configured"#,
        ),
        (
            "nonroot",
            "failed: container app of pod new-0 cannot be configured: container has runAsNonRoot and image will run as root",
        ),
        ("norepo", "failed: image 10.89.0.1:5000/nothing:v1 does not exist (the registry: not found)"),
        ("nosecret2", "wait"),
        ("notfound", "failed: image 10.89.0.1:5000/app:nope does not exist (the registry: not found)"),
        ("notready", "wait"),
        (
            "oom",
            "failed: container app of pod new-0 runs out of memory (OOMKilled, memory limit 16Mi) again and again (3 restarts)",
        ),
        ("unsched", "failed: pod new-0 cannot be scheduled: 0/2 nodes are available: 2 Insufficient cpu."),
    ] {
        let found = words(&observed(name).in_time().assess("2026-11-23T08:38:00Z").verdict);
        assert!(found.starts_with(verdict), "{name}: {found}");
    }
}

#[test]
fn at_the_progress_deadline_the_best_explanation_is_the_cause() {
    for (name, says) in [
        (
            "down",
            "image 10.89.0.1:5999/app:v1 cannot be pulled: is the registry available? (connect: connection refused)",
        ),
        ("nodns", "image registry.invalid/app:v1 cannot be pulled: is the registry available? (i/o timeout)"),
        (
            "nosecret2",
            r#"a volume of pod new-0 on node-a cannot be mounted: MountVolume.SetUp failed for volume "v" : secret "missing" not found"#,
        ),
        ("notready", "container app of pod new-0 on node-a runs but never becomes ready"),
    ] {
        let found = words(&observed(name).assess("2026-11-23T08:37:45Z").verdict);
        assert_eq!(found, format!("failed: {says} (no progress for 30 s)"), "{name}");
    }
}

#[test]
fn what_may_still_turn_out_well_is_warned_of() {
    for (name, says) in [("down", "connection refused"), ("nodns", "i/o timeout")] {
        let doubts = observed(name).in_time().assess("2026-11-23T08:37:10Z").doubts;
        assert!(doubts.iter().any(|doubt| doubt.to_string().contains(says)), "{name}: {doubts:?}");
    }
}

/// A change to a scene in which all is well, and the resulting verdict.
struct Case {
    what: &'static str,
    change: fn(&mut Scene),
    now: &'static str,
    verdict: &'static str,
    /// Words of a warning.
    warns: &'static str,
}

const SOON: &str = "2026-11-23T08:37:05Z";
const LATER: &str = "2026-11-23T08:38:10Z";

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { what: "status of an older generation", now: LATER, verdict: "wait", warns: "",
        change: |scene| { scene.deployment["metadata"]["generation"] = 2.into(); scene.waiting("ErrImagePull", "x: not found"); } },
    Case { what: "watch behind the apply", now: LATER, verdict: "wait", warns: "",
        change: |scene| scene.target.generation = 2 },
    Case { what: "deleted", now: SOON, verdict: "failed: the Deployment was deleted", warns: "",
        change: |scene| scene.deployment = Value::Null },
    Case { what: "a watch behind the creation", now: SOON, verdict: "wait", warns: "",
        change: |scene| { scene.deployment = Value::Null; scene.target.uid = "new".into(); } },
    Case { what: "deleted and made again by somebody", now: SOON, verdict: "failed: the Deployment was deleted", warns: "",
        change: |scene| scene.deployment["metadata"]["uid"] = "other".into() },
    Case { what: "another commit", now: SOON, verdict: "superseded: commit 81be09aa43f1", warns: "",
        change: |scene| scene.deployment["spec"]["template"]["metadata"]["annotations"][COMMIT] = COMMIT_OLD.into() },
    Case { what: "another image by hand", now: SOON, verdict: "superseded: image other:v1", warns: "",
        change: |scene| scene.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = "other:v1".into() },
    Case { what: "paused in mid-rollout", now: SOON, verdict: "done", warns: "",
        change: |scene| scene.deployment["spec"]["paused"] = true.into() },
    Case { what: "an old pod that still serves", now: SOON, verdict: "serving", warns: "",
        change: |scene| scene.old_pod(None) },
    Case { what: "an old pod within its grace period", now: SOON, verdict: "serving", warns: "",
        change: |scene| { scene.old_pod(Some("2026-11-23T08:37:20Z")); scene.not_ready(1); scene.sets[0]["status"]["availableReplicas"] = 1.into(); } },
    Case { what: "an old pod just past its grace period", now: "2026-11-23T08:37:49Z", verdict: "serving", warns: "",
        change: |scene| { scene.old_pod(Some("2026-11-23T08:37:20Z")); scene.not_ready(1); scene.sets[0]["status"]["availableReplicas"] = 1.into(); } },
    Case { what: "an old pod past its grace period that is not ready", now: LATER, verdict: "done", warns: "",
        change: |scene| { scene.old_pod(Some("2026-11-23T08:37:20Z")); scene.not_ready(1); scene.sets[0]["status"]["availableReplicas"] = 1.into(); } },
    Case { what: "an old pod past its grace period that serves", now: LATER, verdict: "serving", warns: "",
        change: |scene| scene.old_pod(Some("2026-11-23T08:37:20Z")) },
    Case { what: "an old pod that was evicted", now: SOON, verdict: "done", warns: "",
        change: |scene| { scene.old_pod(None); scene.status(1)["phase"] = "Failed".into(); } },
    Case { what: "the pod of a Job with the same labels", now: SOON, verdict: "done", warns: "",
        change: |scene| { scene.old_pod(None); scene.pods[1]["metadata"]["ownerReferences"] = json!([]); } },
    Case { what: "rollback: a pod of the failed revision that is not ready", now: SOON, verdict: "done", warns: "",
        change: |scene| { scene.target.undoing = true; scene.old_pod(None); scene.not_ready(1); scene.sets[0]["status"]["availableReplicas"] = 1.into(); } },
    Case { what: "no replicas", now: SOON, verdict: "done", warns: "",
        change: |scene| { scene.deployment["spec"]["replicas"] = 0.into(); scene.pods.clear(); scene.sets[0]["status"] = json!({"replicas": 0}); scene.deployment["status"] = json!({"observedGeneration": 1}); } },
    Case { what: "an autoscaler wants one more", now: SOON, verdict: "wait", warns: "",
        change: |scene| scene.deployment["spec"]["replicas"] = 2.into() },
    Case { what: "one crash of a young pod", now: SOON, verdict: "wait", warns: "exits with code 1; the kubelet restarts it",
        change: |scene| { scene.not_ready(0); scene.status(0)["containerStatuses"][0]["lastState"] = json!({"terminated": {"exitCode": 1}}); } },
    Case { what: "crashes from before this rollout", now: SOON, verdict: "done", warns: "",
        change: |scene| { scene.target.applied = None; scene.status(0)["containerStatuses"][0]["restartCount"] = 7.into(); scene.status(0)["containerStatuses"][0]["lastState"] = json!({"terminated": {"exitCode": 1}}); } },
    Case { what: "out of memory once", now: SOON, verdict: "wait", warns: "runs out of memory (OOMKilled, memory limit 16Mi)",
        change: |scene| { scene.not_ready(0); scene.status(0)["containerStatuses"][0]["state"] = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}); } },
    Case { what: "a ConfigMap that may be on its way", now: SOON, verdict: "wait", warns: "cannot be configured: configmap",
        change: |scene| { scene.waiting("CreateContainerConfigError", "configmap \"a\" not found"); scene.pods[0]["metadata"]["creationTimestamp"] = SOON.into(); } },
    Case { what: "a registry that asks for a login", now: SOON, verdict: "failed: the registry refuses image 10.89.0.1:5000/app:v1 (401 Unauthorized)", warns: "",
        change: |scene| scene.waiting("ErrImagePull", "failed to resolve reference: status code [manifests v1]: 401 Unauthorized") },
    Case { what: "an image for other processors", now: SOON, verdict: "failed: image 10.89.0.1:5000/app:v1 is not built for this node's platform", warns: "",
        change: |scene| scene.waiting("ErrImagePull", "failed to pull and unpack image: no match for platform in manifest: not found") },
    Case { what: "a kubelet that ran out of time", now: SOON, verdict: "wait", warns: "cannot be created yet",
        change: |scene| scene.waiting("CreateContainerError", "context deadline exceeded") },
    Case { what: "a runtime that cannot run it", now: SOON, verdict: "failed: container app of pod new-0 cannot be started: no such thing", warns: "",
        change: |scene| scene.waiting("RunContainerError", "failed to create shim task: unable to start container process: no such thing: unknown") },
    Case { what: "a quota, at first", now: SOON, verdict: "wait", warns: "exceeded quota: two",
        change: |scene| scene.refused("exceeded quota: two") },
    Case { what: "a quota, for long", now: LATER, verdict: "failed: no pod can be created: exceeded quota: two", warns: "",
        change: |scene| scene.refused("exceeded quota: two") },
    Case { what: "a quota that an old pod is about to leave", now: LATER, verdict: "wait", warns: "exceeded quota: two",
        change: |scene| { scene.old_pod(Some("2026-11-23T08:38:00Z")); let old = scene.pods.pop().unwrap(); scene.refused("exceeded quota: two"); scene.pods.push(old); } },
    Case { what: "a quota, and a pod was created since", now: LATER, verdict: "wait", warns: "",
        change: |scene| { let pod = scene.pods[0].clone(); scene.refused("exceeded quota: two"); scene.pods.push(pod); scene.pods[0]["metadata"]["creationTimestamp"] = SOON.into(); } },
    Case { what: "36 the list of pods lags behind the ReplicaSet's status", now: SOON, verdict: "wait", warns: "",
        change: |scene| { scene.not_ready(0); scene.sets[0]["status"]["availableReplicas"] = 1.into(); } },
    Case { what: "37 a pod of another Deployment's ReplicaSet", now: SOON, verdict: "done", warns: "",
        change: |scene| { scene.old_pod(None); let mut set = set("other", "1", &json!({})); set["metadata"]["ownerReferences"][0]["uid"] = "other".into();
            scene.sets.push(set); scene.pods[1]["metadata"]["ownerReferences"][0]["uid"] = "other".into(); } },
    Case { what: "37 a pod of a ReplicaSet that is already deleted", now: SOON, verdict: "serving", warns: "",
        change: |scene| { scene.old_pod(None); scene.sets.truncate(1); scene.pods[1]["metadata"]["labels"] = json!({HASH: "1"});
            scene.pods[1]["metadata"]["ownerReferences"][0]["name"] = "app-1".into(); } },
    Case { what: "42 two pods that the kubelet has rejected", now: SOON, verdict: "wait", warns: "rejects pod",
        change: |scene| scene.rejected(2, "SysctlForbidden") },
    Case { what: "42 three pods that the kubelet has rejected", now: SOON, verdict: "failed: the kubelet rejects pod new-0 on node-a (SysctlForbidden, 3 pods so far): forbidden sysctl", warns: "",
        change: |scene| scene.rejected(3, "SysctlForbidden") },
    Case { what: "42 pods that were evicted", now: SOON, verdict: "wait", warns: "",
        change: |scene| scene.rejected(9, "Evicted") },
    Case { what: "43 what a pod said before this run", now: SOON, verdict: "wait", warns: "does not exist",
        change: |scene| { scene.waiting("ErrImagePull", "a: not found"); scene.run_again("2026-11-23T08:37:00Z"); } },
    Case { what: "43 what it says again during this run", now: SOON, verdict: "failed: image", warns: "",
        change: |scene| { scene.waiting("ErrImagePull", "a: not found"); scene.run_again("2026-11-23T08:37:00Z");
            scene.pods[0]["metadata"]["managedFields"] = json!([{"subresource": "status", "time": SOON}]); } },
    Case { what: "44 a quota, after the last old pod has left", now: "2026-11-23T08:37:28Z", verdict: "wait", warns: "exceeded quota: two",
        change: |scene| { scene.refused("exceeded quota: two"); scene.room_since = Some("2026-11-23T08:37:20Z"); } },
    Case { what: "44 a quota, long after the last old pod has left", now: LATER, verdict: "failed: no pod can be created: exceeded quota: two", warns: "",
        change: |scene| { scene.refused("exceeded quota: two"); scene.room_since = Some("2026-11-23T08:37:20Z"); } },
    Case { what: "49 a postStart hook that fails a second time", now: SOON, verdict: "failed: the postStart hook of container app of pod new-0 fails again (1 restart): Exec lifecycle hook", warns: "",
        change: |scene| { scene.waiting("PostStartHookError", "Exec lifecycle hook failed"); scene.status(0)["containerStatuses"][0]["restartCount"] = 1.into(); } },
    Case { what: "49 a postStart hook that fails a third time", now: SOON, verdict: "failed: the postStart hook of container app of pod new-0 fails again and again (2 restarts): Exec lifecycle hook", warns: "",
        change: |scene| { scene.waiting("PostStartHookError", "Exec lifecycle hook failed"); scene.status(0)["containerStatuses"][0]["restartCount"] = 2.into(); } },
    Case { what: "50 a registry that is asked too often", now: SOON, verdict: "wait", warns: "(toomanyrequests: You have reached your limit. https://a.example)",
        change: |scene| scene.waiting("ErrImagePull", "unexpected status: 429 Too Many Requests - Server message: toomanyrequests: You have reached your limit. https://a.example") },
    Case { what: "50 the page of a proxy in the registry's place", now: SOON, verdict: "wait", warns: "is the registry available?",
        change: |scene| scene.waiting("ErrImagePull", "unexpected media type text/html for sha256:01: not found") },
    Case { what: "58 an admission webhook that is away", now: LATER, verdict: "wait", warns: "failed calling webhook",
        change: |scene| scene.refused("Internal error occurred: failed calling webhook \"a.example\": connection refused") },
    Case { what: "60 a container of Spin's shim that ends with 137", now: SOON, verdict: "failed: container app of pod new-0 could not start, or was out of memory (exit code 137, memory limit 16Mi) again and again (2 restarts): Spin's shim", warns: "",
        change: |scene| { scene.pods[0]["spec"]["runtimeClassName"] = "wasmtime-spin-v2".into(); scene.waiting("CrashLoopBackOff", "back-off");
            let status = &mut scene.status(0)["containerStatuses"][0]; status["restartCount"] = 2.into(); status["lastState"] = json!({"terminated": {"exitCode": 137, "reason": "Error"}}); } },
    Case { what: "a deadline that passed for the previous commit", now: SOON, verdict: "wait", warns: "",
        change: |scene| { scene.not_ready(0); scene.deployment["status"]["conditions"] = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "lastUpdateTime": APPLIED}]); } },
];

#[test]
fn each_situation_is_judged_as_it_deserves() {
    for case in CASES {
        let mut scene = Scene::healthy();
        (case.change)(&mut scene);
        let assessment = scene.assess(case.now);
        let found = words(&assessment.verdict);
        assert!(found.starts_with(case.verdict), "{}: {found}, expected {}", case.what, case.verdict);
        let warnings: Vec<String> = assessment.doubts.iter().map(ToString::to_string).collect();
        match case.warns {
            "" => assert!(warnings.is_empty() || case.verdict.starts_with("failed"), "{}: {warnings:?}", case.what),
            words => assert!(warnings.iter().any(|text| text.contains(words)), "{}: {warnings:?}", case.what),
        }
    }
}

#[test]
fn a_pod_that_no_node_takes_has_a_minute_and_longer_where_a_node_is_being_added() {
    let mut scene = observed("unsched").in_time();
    for (now, verdict) in [("2026-11-23T08:37:58Z", "wait"), ("2026-11-23T08:37:59Z", "failed")] {
        let assessment = scene.assess(now);
        assert!(words(&assessment.verdict).starts_with(verdict), "{now}");
        assert_eq!(assessment.suspect.map(|suspect| suspect.uid).as_deref(), Some("new-0"));
        if verdict == "wait" {
            assert_eq!(assessment.recheck, Some(time("2026-11-23T08:37:59Z")));
        }
    }
    // Nobody has asked for the events yet: a scale-up may be under way.
    let events = scene.events.take();
    assert_eq!(words(&scene.assess(LATER).verdict), "wait");
    scene.events = events;
    scene
        .events
        .as_mut()
        .unwrap()
        .push(event(&json!({"reason": "TriggeredScaleUp", "message": "pod triggered scale-up"})));
    let assessment = scene.assess(LATER);
    assert_eq!(words(&assessment.verdict), "wait");
    assert!(assessment.doubts.iter().any(|doubt| doubt.to_string().contains("waiting for a node")));
}

#[test]
fn a_pod_in_trouble_is_looked_into_before_one_that_is_only_slow() {
    let mut scene = Scene::healthy();
    let crash: Value = serde_json::from_str(include_str!("../../tests/observed/crash.json")).unwrap();
    let slow = json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": APPLIED}]});
    scene.pods = vec![pod("new-0", "new", &slow), pod("new-1", "new", &crash["pods"][0])];
    // The events of the first one are followed already, or of none.
    for events in [Some(Vec::new()), None] {
        scene.events = events;
        let suspect = scene.assess(LATER).suspect.unwrap();
        assert_eq!((suspect.uid.as_str(), suspect.is_urgent), ("new-1", true));
    }
    scene.pods.pop();
    let suspect = scene.assess(LATER).suspect.unwrap();
    assert_eq!((suspect.uid.as_str(), suspect.is_urgent), ("new-0", false));
}

#[test]
fn three_failed_sandboxes_are_certain_unless_the_network_of_the_node_is_to_blame() {
    for (count, message, verdict) in [
        (2, "no runtime for \"nothere\" is configured", "wait"),
        (3, "no runtime for \"nothere\" is configured", "failed"),
        (9, "cni plugin not initialized", "wait"),
    ] {
        let mut scene = observed("nohandler").in_time();
        scene.events.as_mut().unwrap()[0]["count"] = count.into();
        scene.events.as_mut().unwrap()[0]["message"] = message.into();
        assert!(words(&scene.assess(LATER).verdict).starts_with(verdict), "{count} {message}");
    }
}

#[test]
fn a_pod_counts_as_available_when_it_was_ready_for_long_enough() {
    let mut scene = Scene::healthy();
    scene.deployment["spec"]["minReadySeconds"] = 5.into();
    scene.sets[0]["status"]["availableReplicas"] = 0.into();
    let ready = scene.snapshot().pods.iter().find_map(|pod| ready_since(pod)).unwrap();
    let early = assess(&scene.target, &scene.snapshot(), ready + SignedDuration::from_secs(4));
    assert_eq!(early.available.len(), 0);
    assert_eq!(early.recheck, Some(ready + SignedDuration::from_secs(5)));
    let late = assess(&scene.target, &scene.snapshot(), ready + SignedDuration::from_secs(5));
    assert_eq!(late.available.len(), 1);
    // The ReplicaSet's controller decides.
    assert_eq!(words(&late.verdict), "wait");
}

#[test]
fn what_serves_is_counted_by_commit() {
    let mut scene = Scene::healthy();
    scene.old_pod(None);
    scene.old_pod(None);
    scene.old_pod(None);
    scene.not_ready(3);
    let expected = vec![(COMMIT_OLD, 2), (COMMIT_NEW, 1)];
    assert_eq!(serving(&scene.snapshot().pods), expected);
}

#[test]
fn the_revision_to_roll_back_to_is_one_that_serves_else_the_newest_that_was_ever_available() {
    // `after` names the revision that was available when this one began.
    let other = |name: &str, revision: &str, available: i32, after: &str| {
        let mut set = set(name, revision, &json!({"replicas": available, "availableReplicas": available}));
        set["metadata"]["annotations"][AVAILABLE] = after.into();
        set
    };
    for (what, others, last, chosen) in [
        ("none", vec![], "", None),
        ("one that never was", vec![other("a", "1", 0, "")], "", None),
        ("one that was", vec![other("a", "1", 0, "")], "a", Some("a")),
        ("one that was, and one that was not", vec![other("a", "1", 0, ""), other("b", "2", 0, "a")], "a", Some("a")),
        (
            "the newest that was",
            vec![other("a", "9", 0, ""), other("b", "10", 0, "a"), other("c", "12", 0, "b")],
            "b",
            Some("b"),
        ),
        ("one that serves", vec![other("a", "1", 3, ""), other("b", "9", 0, "")], "b", Some("a")),
    ] {
        let mut scene = Scene::healthy();
        scene.deployment["metadata"]["annotations"] = json!({REVISION: "11", AVAILABLE: last});
        scene.sets.truncate(1);
        scene.sets[0]["metadata"]["annotations"][REVISION] = "11".into();
        scene.sets.extend(others);
        let mut seen = scene.snapshot();
        let mut foreign: ReplicaSet = typed(&other("foreign", "12", 3, "foreign"));
        foreign.metadata.owner_references = None;
        seen.replica_sets.push(Arc::new(foreign));
        let found = previous(seen.deployment.as_deref().unwrap(), &seen.replica_sets);
        assert_eq!(found.and_then(|set| set.metadata.name.as_deref()), chosen, "{what}");
    }
}

#[test]
fn the_last_available_revision_is_the_present_one_once_its_rollout_is_complete() {
    let complete = |set: &str| {
        let message = format!("ReplicaSet \"{set}\" has successfully progressed.");
        json!({"conditions": [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable", "message": message}]})
    };
    for (what, status, available, last) in [
        ("complete", complete("new"), 0, Some("new")),
        ("the previous one was complete", complete("old"), 0, Some("earlier")),
        ("available", json!({}), 1, Some("new")),
        ("neither", json!({}), 0, Some("earlier")),
    ] {
        let mut scene = Scene::healthy();
        scene.deployment["status"] = status.clone();
        scene.deployment["metadata"]["annotations"][AVAILABLE] = "earlier".into();
        scene.sets[0]["status"]["availableReplicas"] = available.into();
        let seen = scene.snapshot();
        let found = crate::revision::last_available(seen.deployment.as_deref().unwrap(), &seen.replica_sets);
        assert_eq!(found.as_deref(), last, "{what}");
    }
}

#[test]
fn the_revision_before_is_not_taken_for_this_one_while_the_controller_has_only_scaled() {
    let mut scene = Scene::healthy();
    scene.old_pod(None);
    scene.pods.swap_remove(0);
    scene.deployment["spec"]["replicas"] = 0.into();
    scene.deployment["metadata"]["annotations"][REVISION] = "1".into();
    scene.sets.remove(0);
    let assessment = scene.assess(SOON);
    assert!(matches!(assessment.verdict, Verdict::Wait), "{:?}", assessment.verdict);
    assert_eq!(assessment.old, 1);
}

/// What a person reads about a rollout in this state.
fn verdict(scene: &Scene, now: &str) -> String {
    let assessment = scene.assess(now);
    let (own, desired) = (assessment.own, assessment.desired);
    let sight = Sight { pods: own, desired, fewest: Some(1), ..Sight::default() };
    let mut run = Run { sight: Some(sight), ..Run::start() };
    let ending = match &assessment.verdict {
        Verdict::Failed(trouble) => {
            run.evidence.extend(trouble.pod.as_deref().map(|pod| headline(pod, &trouble.cause)));
            Ending::new(trouble.cause.reason(), trouble.to_string())
        }
        verdict => Ending::done(format!("{verdict:?}, {} doubts", assessment.doubts.len())),
    };
    let reason = ending.reason.map_or_else(|| "-".to_owned(), |reason| reason.to_string());
    format!("[{reason}]\n{}\n", run.verdict(&ending).join("\n"))
}

#[test]
fn the_verdict_of_each_cause_is_pinned() {
    let observed = OBSERVED.iter().map(|(name, text)| (*name, verdict(&Scene::observed(text), "2026-11-23T08:38:00Z")));
    let constructed = CASES.iter().map(|case| {
        let mut scene = Scene::healthy();
        (case.change)(&mut scene);
        (case.what, verdict(&scene, case.now))
    });
    let blocks = observed.chain(constructed).filter(|(_, text)| !text.starts_with("[-]"));
    let blocks: Vec<String> = blocks.map(|(name, text)| format!("# {name}\n{text}")).collect();
    insta::assert_snapshot!("verdicts", blocks.join("\n"));
}
