//! The situations that a rollout can be in, numbered for reference.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::Bed;
use crate::control_plane::ControlPlane;
use crate::failures::{AT_ONCE, failed};
use crate::node::{self, CRASH, CRASH_LATER, HEALTHY, Life, NOT_FOUND, NOT_READY, REGISTRY_DOWN};
use crate::scene::{NAME, Run, Scene, image};

type Plane = &'static ControlPlane;

pub(crate) fn trials(bed: &'static Bed) -> Vec<Trial> {
    vec![
        // The longest first.
        bed.trial("19 a pod that cannot be scheduled for a minute has failed", unschedulable),
        bed.trial("23 a node lost in mid-rollout delays the rollout and causes a warning", node_lost),
        bed.trial("23 a new pod on a lost node is replaced", new_pod_lost),
        bed.trial(
            "24 an old pod held by a finalizer causes a warning, and the rollout does not wait for it",
            finalizer,
        ),
        bed.trial("01 a successful rollout is done when the last old pod is gone", all_goes_well),
        bed.trial("01 the shipped template rolls out with the shipped Role", shipped),
        bed.trial("02 another deploy of the same commit changes nothing and is done at once", same_commit),
        bed.trial("03 the very first deploy is done when its pods are available", first_deploy),
        bed.trial("07 a registry that is away for a moment causes a warning", registry_recovers),
        bed.trial("09 a pod that crashes during the rollout, after it was ready, fails the rollout", crashes_later),
        bed.trial("13 a missing RuntimeClass is named", no_runtime_class),
        bed.trial(
            "14 for a pod that never becomes ready, the evidence has the answer of /healthz and the log",
            never_ready,
        ),
        bed.trial("15 a rollout waits for a pod that is slow to become ready", slow),
        bed.trial("16 an exceeded quota is the cause", quota),
        bed.trial("17 pods that admission refuses are the cause", admission),
        bed.trial("18 a LimitRange that refuses pods is the cause", limit_range),
        bed.trial("20 a rollout waits for a pod that cannot be scheduled until a node is added", node_added),
        bed.trial("21 a progress deadline that passed for an earlier commit does not fail this one", earlier_deadline),
        bed.trial("22 a pod that is evicted and replaced does not fail the rollout", evicted),
        bed.trial("25 the deletion of the Deployment in mid-rollout fails the rollout at once", deleted),
        bed.trial("26 another commit that is applied in mid-rollout supersedes this one", superseded),
        bed.trial("27 a paused Deployment is refused", paused),
        bed.trial(
            "27 a Deployment paused during the rollout is warned of, with the command that resumes it",
            paused_later,
        ),
        bed.trial("28 an autoscaler decides the replicas, even if it changes them in mid-rollout", autoscaler),
        bed.trial("29 a rollout of 0 replicas is done, and the verdict says 0 pods", no_replicas),
        bed.trial("30 a rollout waits for old pods that terminate slowly", slow_to_go),
        bed.trial("33 an invalid token is named as the cause", bad_token),
        bed.trial("34 after a failure with --rollback, the old commit serves", rolled_back),
        bed.trial(
            "34 a first deploy that fails has no earlier revision, and is not rolled back",
            nothing_to_go_back_to,
        ),
        bed.trial("35 a failure whose rollback also fails has its own verdict", rollback_fails),
        bed.trial("pods that do not say their commit cause a warning", no_proof),
        bed.trial("pods that answer with another commit end with exit code 5", other_commit_proved),
        bed.trial("pods whose images differ under one tag end with exit code 5", other_image_proved),
    ]
}

/// Every pod runs this commit, the document says so, too, and the verdict is `done`.
pub(crate) async fn done(scene: &Scene, run: &Run, commit: &str, replicas: usize) {
    run.ends_with(0, &["done", &commit[..12]]);
    assert_eq!(run.json["outcome"], "done", "{run}");
    assert_eq!(run.json["commit"], commit, "{run}");
    // The image has a digest if one was given.
    assert!(run.json["image"].as_str().is_some_and(|found| found.starts_with(&image(commit))), "{run}");
    assert_eq!(run.json["namespace"], *scene.namespace, "{run}");
    assert_eq!(run.json["deployment"], NAME, "{run}");
    let pods = run.json["pods"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert_eq!(pods.len(), replicas, "{run}");
    assert!(pods.iter().all(|pod| pod["commit"] == commit && pod["ready"] == true && pod["node"].is_string()), "{run}");
    assert_eq!(scene.ready(commit).await, replicas, "{run}");
}

async fn all_goes_well(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let (old, new) = (&scene.commits.old, &scene.commits.new);
    scene.kubelet.let_pods_of(old, Life::of(&HEALTHY).ends_after(2)).await;
    let run = scene.deploy(new).await;
    done(&scene, &run, new, 2).await;
    assert_eq!(scene.pods().await.len(), 2, "{run}");
    assert!(run.stderr.contains("proved: 2 of 2 pods"), "{run}");
    assert_eq!(run.json["previous_commit"], **old, "{run}");
    let moment = |name: &str| run.json[name].as_f64().unwrap_or_else(|| panic!("{name} is not a number: {run}"));
    assert!(moment("serving_after_s") + 1.0 < moment("replaced_after_s"), "{run}");
    assert_eq!(run.json["warnings"], json!([]), "{run}");
    let deployment = scene.deployment().await;
    assert_eq!(deployment.annotations()["request-info.dev/commit"], **new);
    assert!(deployment.annotations()["kubernetes.io/change-cause"].contains(&new[..12]));
    assert!(deployment.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some("deployer")));
}

async fn shipped(plane: Plane) {
    let scene = Scene::set(plane).await;
    scene.use_shipped_template();
    scene.deploy_old().await;
    let new = &scene.commits.new;
    done(&scene, &scene.deploy(new).await, new, 3).await;
}

async fn same_commit(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    // The first deploy after the creation also migrates the managed fields.
    scene.deploy(&scene.commits.old).await.ends_with(0, &["done"]);
    let (before, pods) = (scene.versions().await, scene.names().await);
    let run = scene.deploy(&scene.commits.old).await;
    done(&scene, &run, &scene.commits.old, 2).await;
    assert_eq!(scene.versions().await, before, "{run}");
    assert_eq!(scene.names().await, pods, "{run}");
    assert!(run.stderr.contains("proved: 2 of 2 pods"), "{run}");
    assert!(run.took < Duration::from_secs(30), "{run}");
}

async fn first_deploy(plane: Plane) {
    let scene = Scene::set(plane).await;
    let run = scene.deploy(&scene.commits.new).await;
    done(&scene, &run, &scene.commits.new, 2).await;
    assert_eq!(run.json["previous_commit"], json!(null), "{run}");
}

async fn registry_recovers(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    scene.kubelet.let_pods_of(new, Life::of(&REGISTRY_DOWN).then(3, &HEALTHY)).await;
    let run = scene.deploy(new).await;
    done(&scene, &run, new, 2).await;
    assert!(run.json["warnings"].to_string().contains("connection refused"), "{run}");
}

async fn crashes_later(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let (old, new) = (&scene.commits.old, &scene.commits.new);
    scene.kubelet.let_pods_of(old, Life::of(&HEALTHY).ends_after(30)).await;
    scene.kubelet.let_pods_of(new, Life::of(&HEALTHY).then(3, &CRASH_LATER)).await;
    let run = scene.deploy(new).await;
    failed(&run, "CrashLoop", &["code 4", "2 restarts"]);
}

async fn no_runtime_class(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    scene.edit("    spec:\n", "    spec:\n      runtimeClassName: missing\n");
    let run = scene.deploy(&scene.commits.new).await;
    failed(&run, "RuntimeClassMissing", &["RuntimeClass", "missing", "not found"]);
    assert_eq!(scene.ready(&scene.commits.old).await, 2);
}

async fn never_ready(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let (old, new) = (&scene.commits.old, &scene.commits.new);
    scene.edit("progressDeadlineSeconds: 90", "progressDeadlineSeconds: 8");
    let life = Life::of(&NOT_READY).health(503, "trusted_hops is not a number\n").log("listening on port 8080\n");
    scene.kubelet.let_pods_of(new, life).await;
    let run = scene.deploy(new).await;
    failed(&run, "NeverReady", &["8 s"]);
    assert!(run.stderr.contains("trusted_hops is not a number"), "{run}");
    assert!(run.stderr.contains("listening on port 8080"), "{run}");
    assert!(run.json["evidence"].to_string().contains("trusted_hops is not a number"), "{run}");
    assert_eq!(scene.ready(old).await, 2);
}

async fn slow(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    scene.kubelet.let_pods_of(new, Life::of(&NOT_READY).then(5, &HEALTHY)).await;
    let run = scene.deploy(new).await;
    done(&scene, &run, new, 2).await;
    assert!(run.json["serving_after_s"].as_f64().is_some_and(|after| after > 10.0), "{run}");
}

async fn quota(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    scene.limit_pods(2).await;
    let run = scene.deploy(&scene.commits.new).await;
    failed(&run, "QuotaExceeded", &["exceeded quota: pods"]);
    assert_eq!(scene.ready(&scene.commits.old).await, 2);
}

async fn admission(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let namespaces = kube::Api::<k8s_openapi::api::core::v1::Namespace>::all(plane.client.clone());
    namespaces
        .patch(&scene.namespace, &PatchParams::default(), &Patch::Merge(labels))
        .await
        .expect("the namespace can be labelled");
    let run = scene.deploy(&scene.commits.new).await;
    failed(&run, "PodForbidden", &["violates PodSecurity \"restricted"]);
    assert_eq!(scene.ready(&scene.commits.old).await, 2);
}

async fn limit_range(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"},
        "spec": {"limits": [{"type": "Container", "max": {"memory": "64Mi"}}]}});
    scene.apply(range).await;
    scene.edit(
        "          image: <IMAGE>\n",
        "          image: <IMAGE>\n          resources: {limits: {memory: 128Mi}}\n",
    );
    let run = scene.deploy(&scene.commits.new).await;
    failed(&run, "PodForbidden", &["maximum memory usage per Container is 64Mi"]);
    assert_eq!(scene.ready(&scene.commits.old).await, 2);
}

async fn unschedulable(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    scene.edit("    spec:\n", "    spec:\n      nodeSelector: {disk: fast}\n");
    let run = scene.deploy(&scene.commits.new).await;
    failed(&run, "Unschedulable", &["didn't match Pod's node affinity/selector"]);
    // A minute, minus the error of timestamps with whole seconds.
    assert!((58..88).contains(&run.took.as_secs()), "{run}");
    assert_eq!(scene.ready(&scene.commits.old).await, 2);
}

async fn node_added(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    scene.edit("    spec:\n", &format!("    spec:\n      nodeSelector: {{for: {}}}\n", scene.namespace));
    let running = scene.start(new, &[]);
    running.said("didn't match Pod's node affinity/selector").await;
    node::add(&plane.client, &format!("node-for-{}", scene.namespace), json!({"for": scene.namespace})).await;
    done(&scene, &running.end().await, new, 2).await;
}

async fn earlier_deadline(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let (new, newer) = (&scene.commits.new, &scene.commits.newer);
    scene.edit("progressDeadlineSeconds: 90", "progressDeadlineSeconds: 10");
    scene.kubelet.let_pods_of(new, Life::of(&NOT_READY)).await;
    failed(&scene.deploy(new).await, "NeverReady", &["10 s"]);
    // When the same commit is deployed again, the condition still stands. As nothing has changed, the rollout fails again.
    failed(&scene.deploy(new).await, "NeverReady", &["10 s"]);
    done(&scene, &scene.deploy(newer).await, newer, 2).await;
}

async fn evicted(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    scene.kubelet.let_pods_of(new, Life::of(&NOT_READY)).await;
    let running = scene.start(new, &[]);
    let pod = scene.first_started_pod_of(new).await;
    let status = json!({"status": {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory. "}});
    let pods = scene.api::<Pod>();
    pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status))
        .await
        .expect("the pod's status can be written");
    scene.kubelet.let_pods_of(new, Life::of(&HEALTHY)).await;
    run_is_done_beside(&scene, running.end().await, new, &pod).await;
}

/// The run is `done`, although the object of this pod of the same commit still exists.
async fn run_is_done_beside(scene: &Scene, run: Run, commit: &str, pod: &Pod) {
    run.ends_with(0, &["done", &commit[..12]]);
    let pods = run.json["pods"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ready: Vec<_> = pods.iter().filter(|found| found["ready"] == true).collect();
    assert_eq!(ready.len(), 2, "{run}");
    assert!(ready.iter().all(|found| found["name"] != pod.name_any()), "{run}");
    assert_eq!(scene.pods_of(&scene.commits.old).await.len(), 0);
}

async fn node_lost(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let (old, new) = (&scene.commits.old, &scene.commits.new);
    scene.kubelet.let_pods_of(old, Life::of(&HEALTHY).never_ends()).await;
    let running = scene.start(new, &[]);
    let is_deleted = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
    scene.until("both old pods are deleted", async || scene.pods_of(old).await.iter().all(is_deleted)).await;
    let [lost, other] = scene.pods_of(old).await.try_into().expect("both old pods are left");
    not_ready(&scene, &lost).await;
    scene
        .api::<Pod>()
        .delete(&other.name_any(), &DeleteParams::default().grace_period(0))
        .await
        .expect("the pod can be deleted");
    let run = running.end().await;
    run.ends_with(0, &["done", &new[..12]]);
    assert!(run.json["warnings"].to_string().contains(&lost.name_any()), "{run}");
    // Half a minute, minus the error of timestamps with whole seconds.
    assert!((28..120).contains(&run.took.as_secs()), "{run}");
}

async fn new_pod_lost(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let (old, new) = (&scene.commits.old, &scene.commits.new);
    scene.kubelet.let_pods_of(new, Life::of(&NOT_READY).never_ends()).await;
    let running = scene.start(new, &[]);
    let lost = scene.first_started_pod_of(new).await;
    scene.kubelet.let_later_pods_of(new, Life::of(&HEALTHY).never_ends());
    scene.api::<Pod>().delete(&lost.name_any(), &DeleteParams::default()).await.expect("the pod can be deleted");
    run_is_done_beside(&scene, running.end().await, new, &lost).await;
    assert_eq!(scene.ready(old).await, 0);
    assert_eq!(scene.pods_of(new).await.len(), 3);
}

/// Marks a pod as the node controller does if its node is silent.
pub(crate) async fn not_ready(scene: &Scene, pod: &Pod) {
    let mut conditions =
        serde_json::to_value(pod).expect("a pod can be written as JSON")["status"]["conditions"].take();
    for condition in conditions.as_array_mut().into_iter().flatten().filter(|condition| condition["type"] == "Ready") {
        condition["status"] = json!("False");
    }
    let patch = Patch::Merge(json!({"status": {"conditions": conditions}}));
    scene
        .api::<Pod>()
        .patch_status(&pod.name_any(), &PatchParams::default(), &patch)
        .await
        .expect("the pod's status can be written");
}

async fn finalizer(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let (old, new) = (&scene.commits.old, &scene.commits.new);
    let held = scene.first_pod_of(old).await;
    let patch = Patch::Merge(json!({"metadata": {"finalizers": ["example.com/held"]}}));
    scene
        .api::<Pod>()
        .patch(&held.name_any(), &PatchParams::default(), &patch)
        .await
        .expect("the finalizer can be added");
    let running = scene.start(new, &[]);
    scene
        .until("the pod is deleted", async || {
            scene
                .api::<Pod>()
                .get(&held.name_any())
                .await
                .expect("the finalizer keeps the pod")
                .metadata
                .deletion_timestamp
                .is_some()
        })
        .await;
    not_ready(&scene, &held).await;
    let run = running.end().await;
    run.ends_with(0, &["done", &new[..12]]);
    assert!(run.json["warnings"].to_string().contains(&held.name_any()), "{run}");
    assert!((28..120).contains(&run.took.as_secs()), "{run}");
}

async fn deleted(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    scene.kubelet.let_pods_of(new, Life::of(&NOT_READY)).await;
    let running = scene.start(new, &[]);
    scene.first_pod_of(new).await;
    scene.api::<Deployment>().delete(NAME, &DeleteParams::default()).await.expect("the Deployment can be deleted");
    let run = running.end().await;
    failed(&run, "DeploymentDeleted", &[]);
    assert!(AT_ONCE.contains(&run.took.as_secs()), "{run}");
}

async fn superseded(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let (new, newer) = (&scene.commits.new, &scene.commits.newer);
    scene.kubelet.let_pods_of(new, Life::of(&NOT_READY)).await;
    let running = scene.start(new, &[]);
    scene.first_pod_of(new).await;
    let later = scene.deploy(newer).await;
    let run = running.end().await;
    run.ends_for(4, "Superseded", &[newer]);
    done(&scene, &later, newer, 2).await;
}

async fn paused(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    scene.change(json!({"spec": {"paused": true}})).await;
    scene.settled("DeploymentPaused").await;
    let before = scene.versions().await;
    let run = scene.deploy(&scene.commits.new).await;
    run.ends_for(2, "Paused", &["paused", "kubectl"]);
    assert_eq!(scene.versions().await, before, "{run}");
}

async fn paused_later(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    scene.kubelet.let_pods_of(new, Life::of(&NOT_READY)).await;
    let running = scene.start(new, &[]);
    scene.first_pod_of(new).await;
    scene.change(json!({"spec": {"paused": true}})).await;
    running.said(&format!("-n {} rollout resume deployment/{NAME}", scene.namespace)).await;
    running.signal("-TERM");
    assert_eq!(running.end().await.code, 143);
}

async fn autoscaler(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    let autoscaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": NAME},
        "spec": {"minReplicas": 1, "maxReplicas": 9, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME}}});
    scene.apply(autoscaler).await;
    scene.change(json!({"spec": {"replicas": 3}})).await;
    scene.until("three pods are ready", async || scene.ready(&scene.commits.old).await == 3).await;
    scene.kubelet.let_pods_of(new, Life::of(&NOT_READY).then(5, &HEALTHY)).await;
    let running = scene.start(new, &[]);
    scene.first_pod_of(new).await;
    assert_eq!(scene.deployment().await.spec.and_then(|spec| spec.replicas), Some(3));
    scene.change(json!({"spec": {"replicas": 4}})).await;
    done(&scene, &running.end().await, new, 4).await;
    assert_eq!(scene.deployment().await.spec.and_then(|spec| spec.replicas), Some(4));
}

async fn no_replicas(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    scene.edit("replicas: 2", "replicas: 0");
    let run = scene.deploy(&scene.commits.new).await;
    run.ends_with(0, &["done", "0 pods"]);
    assert_eq!(scene.pods().await.len(), 0, "{run}");
}

async fn slow_to_go(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let (old, new) = (&scene.commits.old, &scene.commits.new);
    scene.kubelet.let_pods_of(old, Life::of(&HEALTHY).ends_after(8)).await;
    let run = scene.deploy(new).await;
    done(&scene, &run, new, 2).await;
    let moment = |name: &str| run.json[name].as_f64().unwrap_or_else(|| panic!("{name} is not a number: {run}"));
    assert!(moment("replaced_after_s") > 8.0, "{run}");
    assert!(moment("replaced_after_s") - moment("serving_after_s") > 4.0, "{run}");
    assert_eq!(scene.pods().await.len(), 2, "{run}");
}

async fn bad_token(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let before = scene.versions().await;
    scene.write_kubeconfig("expired");
    let run = scene.deploy(&scene.commits.new).await;
    run.ends_for(3, "Unauthorized", &["Unauthorized"]);
    assert_eq!(scene.versions().await, before, "{run}");
}

async fn rolled_back(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let (old, new) = (&scene.commits.old, &scene.commits.new);
    scene.kubelet.let_pods_of(new, Life::of(&NOT_FOUND)).await;
    let run = scene.deploy_with(new, &["--rollback"]).await;
    failed(&run, "ImageMissing", &["not found"]);
    assert_eq!(run.json["rollback"]["outcome"], "done", "{run}");
    let deployment = scene.deployment().await;
    assert_eq!(deployment.annotations()["request-info.dev/commit"], **old, "{run}");
    let found = deployment.spec.and_then(|spec| spec.template.spec?.containers[0].image.clone());
    assert_eq!(found, Some(image(old)));
    assert_eq!(scene.ready(old).await, 2);
    scene.until("the pod that failed is gone", async || scene.pods_of(new).await.is_empty()).await;
}

async fn nothing_to_go_back_to(plane: Plane) {
    let scene = Scene::set(plane).await;
    let new = &scene.commits.new;
    scene.kubelet.let_pods_of(new, Life::of(&NOT_FOUND)).await;
    let run = scene.deploy_with(new, &["--rollback"]).await;
    failed(&run, "ImageMissing", &["not found"]);
    assert!(run.stderr.contains("no earlier revision"), "{run}");
    assert_eq!(run.json["rollback"]["outcome"], "none", "{run}");
    assert_eq!(scene.carried().await, [&**new; 4]);
}

async fn rollback_fails(plane: Plane) {
    let scene = Scene::set(plane).await;
    let (old, new) = (&scene.commits.old, &scene.commits.new);
    // With Recreate, the old pods are gone before the new ones start, and they cannot be created again.
    scene.recreate();
    scene.deploy_old().await;
    scene.kubelet.let_pods_of(new, Life::of(&CRASH)).await;
    scene.kubelet.let_later_pods_of(old, Life::of(&NOT_FOUND));
    let run = scene.deploy_with(new, &["--rollback"]).await;
    run.ends_for(5, "RollbackFailed", &["rollback"]);
    assert!(run.stderr.contains("code 3"), "{run}");
    assert!(run.stderr.contains("not found"), "{run}");
    assert_eq!(scene.ready(old).await + scene.ready(new).await, 0);
}

async fn no_proof(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    scene.kubelet.let_pods_of(new, Life::of(&HEALTHY).knows_no_version()).await;
    let run = scene.deploy(new).await;
    done(&scene, &run, new, 2).await;
    assert!(run.json["warnings"].to_string().contains("GET /version: 404"), "{run}");
    assert!(!run.stderr.contains("proved"), "{run}");
}

async fn other_commit_proved(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let (side, new) = (&scene.commits.side, &scene.commits.new);
    scene.kubelet.let_pods_of(new, Life::of(&HEALTHY).serves(side)).await;
    let run = scene.deploy(new).await;
    run.ends_for(5, "WrongCommit", &[&side[..12]]);
}

async fn other_image_proved(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    scene.kubelet.let_pods_of(new, Life::of(&NOT_READY).then(2, &HEALTHY)).await;
    let running = scene.start(new, &[]);
    scene.first_started_pod_of(new).await;
    scene.kubelet.let_later_pods_of(new, Life::of(&HEALTHY.replace("sha256:4ed1", "sha256:0000")));
    let run = running.end().await;
    run.ends_for(5, "WrongDigest", &[]);
    assert!(run.stderr.contains("sha256:4ed1") && run.stderr.contains("sha256:0000"), "{run}");
}
