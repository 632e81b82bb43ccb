//! Situations in which other deployers were reported to be wrong: other objects in the cluster, and unusual templates.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::ListParams;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::Bed;
use crate::control_plane::ControlPlane;
use crate::failures::failed;
use crate::node::{CRASH, HEALTHY, Life, NOT_FOUND, NOT_READY};
use crate::proxy::Fate;
use crate::scene::{NAME, STRATEGY, Scene, image};
use crate::situations::done;

type Plane = &'static ControlPlane;

/// The digest of the image that `HEALTHY` pods run.
const DIGEST: &str = "sha256:4ed1425f2a296c1731dce3667907b372bd17b1df7e191c5a8cd309a6f195d9cc";
const OTHER_DIGEST: &str = "sha256:0000425f2a296c1731dce3667907b372bd17b1df7e191c5a8cd309a6f195d9cc";

pub(crate) fn trials(bed: &'static Bed) -> Vec<Trial> {
    let mut trials = vec![
        bed.trial("58 a rollout waits for an admission webhook that is away for a moment", webhook_returns),
        bed.trial(
            "58 an admission webhook that stays away is the cause once the progress deadline has passed",
            webhook_away,
        ),
        bed.trial("44 a rollout waits for a quota that is full until the old pods are gone", quota_and_surge),
        bed.trial("38 a requested digest is compared with that of every pod", digest_proved),
        bed.trial("38 pods that run another digest than the requested one end with exit code 5", digest_refused),
        bed.trial(
            "39 a first deploy that states no replicas gets the API server's default of one",
            first_without_replicas,
        ),
        bed.trial("39 a rollout that lowers the replicas is not reported as never having had fewer", fewer),
        bed.trial("52 the API server is asked for the plural of a custom resource", odd_plural),
        bed.trial("53 a change from no strategy to Recreate works, or the remedy is named", strategy_appears),
    ];
    trials.extend(bed.rows(
        OTHERS,
        |others| format!("37 {} with the same labels is ignored", others.what),
        async |plane, others| others.is_ignored(plane).await,
    ));
    trials.extend(bed.rows(
        NAMES,
        |name| format!("38 a digest under the name {name} is the same image"),
        async |plane, name| names_differ(plane, name).await,
    ));
    trials.extend(bed.rows(REPLICAS, |case| case.name.to_owned(), async |plane, case| case.stay(plane).await));
    trials.extend(bed.rows(
        READ_BY_PODS,
        |(kind, _)| format!("41 a {kind} that the pods read is written before the Deployment"),
        async |plane, (kind, container)| before_pods(plane, kind, container).await,
    ));
    trials
}

/// Other names under which a node may hold the image.
const NAMES: &[&str] = &["registry.example/other", "docker-pullable://registry.example/request-info"];

/// Pods that the Deployment's selector matches but that belong to somebody else.
struct Others {
    what: &'static str,
    owner: Owner,
}

enum Owner {
    Job,
    Deployment,
    None,
}

const OTHERS: &[Others] = &[
    Others { what: "a Job's pod", owner: Owner::Job },
    Others { what: "another Deployment's pod", owner: Owner::Deployment },
    Others { what: "a pod without an owner", owner: Owner::None },
];

impl Others {
    async fn is_ignored(&self, plane: Plane) {
        let scene = Scene::with_old(plane).await;
        let (new, newer) = (&scene.commits.new, &scene.commits.newer);
        let spec = json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 0, "containers": [{"name": "other", "image": "registry.example/other:1"}]});
        let labels = json!({"app": NAME, "tier": "other"});
        let pod = |owners: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "other", "labels": labels, "ownerReferences": owners}, "spec": spec});
        match self.owner {
            Owner::None => scene.apply(pod(json!([]))).await,
            Owner::Job => {
                let mut spec = spec.clone();
                spec["restartPolicy"] = json!("Never");
                scene.apply(json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "other"}, "spec": {"template": {"spec": spec}}})).await;
                let uid = scene.api::<Job>().get("other").await.expect("the Job was created").uid();
                let owner =
                    json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "other", "uid": uid, "controller": true}]);
                scene.apply(pod(owner)).await;
            }
            Owner::Deployment => {
                scene
                    .apply(
                        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "other"}, "spec": {
                            "replicas": 1, "selector": {"matchLabels": labels},
                            "template": {"metadata": {"labels": labels}, "spec": spec},
                        }}),
                    )
                    .await;
            }
        }
        let others = async || {
            let pods = scene
                .api::<Pod>()
                .list(&ListParams::default().labels("tier=other"))
                .await
                .expect("the pods can be listed");
            pods.items
                .into_iter()
                .filter(|pod| pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some()))
                .collect::<Vec<_>>()
        };
        scene.until("the other pod runs", async || others().await.len() == 1).await;
        done(&scene, &scene.deploy(new).await, new, 2).await;

        // Its crash does not fail the rollout, and after a failed rollout it does not count as serving.
        scene.kubelet.let_pods_of("", Life::of(&CRASH)).await;
        done(&scene, &scene.deploy(newer).await, newer, 2).await;
        scene.kubelet.let_pods_of("", Life::of(&HEALTHY)).await;
        let last = &scene.commits.line[0];
        scene.kubelet.let_pods_of(last, Life::of(&NOT_FOUND)).await;
        let run = scene.deploy(last).await;
        failed(&run, "ImageMissing", &[]);
        assert!(run.stderr.contains(&format!("{} on 2 of 2", &newer[..12])), "{run}");
        assert!(!run.stderr.contains("unknown"), "what serves is known: {run}");
        let names = run.json["pods"].to_string();
        assert!(others().await.iter().all(|other| !names.contains(&format!("\"{}\"", other.name_any()))), "{run}");
        let status = scene.run(&["status"]).await;
        failed(&status, "ImageMissing", &[]);
        assert!(status.stderr.contains(&format!("{} on 2 of 2", &newer[..12])), "{status}");
    }
}

async fn names_differ(plane: Plane, name: &'static str) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    scene.kubelet.let_pods_of(new, Life::of(&NOT_READY).then(2, &HEALTHY).pulled_as(name)).await;
    let running = scene.start(new, &[]);
    scene.first_started_pod_of(new).await;
    scene.kubelet.let_later_pods_of(new, Life::of(&HEALTHY));
    done(&scene, &running.end().await, new, 2).await;
}

/// The image of this commit, by digest.
fn by_digest(commit: &str, digest: &str) -> String {
    format!("{}@{digest}", image(commit))
}

async fn digest_proved(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    let run = scene.deploy_with(new, &["--image", &by_digest(new, DIGEST)]).await;
    done(&scene, &run, new, 2).await;
    let spec =
        scene.deployment().await.spec.and_then(|spec| spec.template.spec).expect("the Deployment has a pod template");
    assert_eq!(spec.containers[0].image, Some(by_digest(new, DIGEST)), "{run}");
}

async fn digest_refused(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    let run = scene.deploy_with(new, &["--image", &by_digest(new, OTHER_DIGEST)]).await;
    run.ends_for(5, "WrongDigest", &[]);
    for digest in [DIGEST, OTHER_DIGEST] {
        assert!(run.stderr.contains(&digest[..19]), "{run}");
    }
}

/// Three pods run, and the next template does not state the number of replicas.
struct Replicas {
    name: &'static str,
    /// Whether a template stated the three; otherwise somebody scaled to three.
    stated: bool,
    autoscaler: bool,
}

#[rustfmt::skip]
const REPLICAS: &[Replicas] = &[
    Replicas { name: "39 if the template no longer states the replicas, their number stays", stated: true, autoscaler: false },
    Replicas { name: "39 if the template no longer states the replicas, a number that somebody has set stays", stated: false, autoscaler: false },
    Replicas { name: "39 if the template leaves the replicas to its own autoscaler, their number stays", stated: true, autoscaler: true },
];

impl Replicas {
    async fn stay(&self, plane: Plane) {
        let scene = Scene::set(plane).await;
        scene.write_kubeconfig("admin"); // the Role does not allow autoscalers
        let (old, new) = (&scene.commits.old, &scene.commits.new);
        let stated = if self.stated { "  replicas: 3\n" } else { "  replicas: 2\n" };
        scene.edit("  replicas: 2\n", stated);
        scene.deploy_old().await;
        // After a creation, the managed fields are not yet migrated.
        scene.deploy(old).await.ends_with(0, &["done"]);
        scene.change(json!({"spec": {"replicas": 3}})).await;
        scene.until("three pods are ready", async || scene.ready(old).await == 3).await;
        scene.edit(stated, "");
        if self.autoscaler {
            scene.append(&json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": NAME},
                "spec": {"minReplicas": 1, "maxReplicas": 9, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME}}}));
        }
        scene.kubelet.let_pods_of(new, Life::of(&NOT_READY).then(1, &HEALTHY)).await;
        let running = scene.start(new, &[]);
        scene.first_pod_of(new).await;
        assert_eq!(scene.deployment().await.spec.and_then(|spec| spec.replicas), Some(3));
        done(&scene, &running.end().await, new, 3).await;
        // Once more, because a field that lost its manager must not be removed later.
        done(&scene, &scene.deploy(&scene.commits.newer).await, &scene.commits.newer, 3).await;
    }
}

async fn first_without_replicas(plane: Plane) {
    let scene = Scene::set(plane).await;
    scene.edit("  replicas: 2\n", "");
    let new = &scene.commits.new;
    done(&scene, &scene.deploy(new).await, new, 1).await;
}

async fn fewer(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    scene.edit("replicas: 2", "replicas: 1");
    scene.kubelet.let_pods_of(new, Life::of(&NOT_READY).then(5, &NOT_FOUND)).await;
    let run = scene.deploy(new).await;
    failed(&run, "ImageMissing", &[]);
    assert!(run.stderr.contains("1 of 1"), "{run}");
    assert!(
        !run.stderr.contains("never") && !run.stderr.contains("no fewer"),
        "there were two pods and now there is one: {run}"
    );
}

/// A kind that a pod reads, and the part of the container that names it.
#[rustfmt::skip]
const READ_BY_PODS: &[(&str, &str)] = &[
    ("ConfigMap", "          envFrom: [{configMapRef: {name: settings}}]\n"),
    ("Secret", "          env: [{name: KEY, valueFrom: {secretKeyRef: {name: settings, key: key}}}]\n"),
    ("ServiceAccount", ""),
];

async fn before_pods(plane: Plane, kind: &str, container: &str) {
    let scene = Scene::with_old(plane).await;
    let (new, newer) = (&scene.commits.new, &scene.commits.newer);
    scene.write_kubeconfig("admin"); // the Role allows none of these kinds
    scene.edit("          image: <IMAGE>\n", &format!("          image: <IMAGE>\n{container}"));
    if kind == "ServiceAccount" {
        scene.edit("    spec:\n", "    spec:\n      serviceAccountName: settings\n");
    }
    let mut document = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "settings"}});
    if kind != "ServiceAccount" {
        document[if kind == "Secret" { "stringData" } else { "data" }] = json!({"key": "value"});
    }
    scene.append(&document);
    let proxy = scene.through(|_| Fate::Answered).await;
    let plural = format!("{}s", kind.to_lowercase());
    for commit in [new, newer] {
        let before = proxy.asked().len();
        done(&scene, &scene.deploy(commit).await, commit, 2).await;
        let asked = proxy.asked().split_off(before);
        let first =
            |plural: &str| asked.iter().position(|asked| asked.changes(plural)).expect("the object was written");
        assert!(first(&plural) < first("deployments"), "{asked:#?}");
    }
}

async fn quota_and_surge(plane: Plane) {
    let scene = Scene::set(plane).await;
    scene.edit("maxUnavailable: 0", "maxUnavailable: 1");
    scene.deploy_old().await;
    scene.limit_pods(2).await;
    let (old, new) = (&scene.commits.old, &scene.commits.new);
    scene.kubelet.let_pods_of(old, Life::of(&HEALTHY).ends_after(14)).await;
    done(&scene, &scene.deploy(new).await, new, 2).await;
}

async fn odd_plural(plane: Plane) {
    let scene = Scene::set(plane).await;
    scene.write_kubeconfig("admin"); // the Role does not allow custom resources
    let names = json!({"kind": "Cactus", "plural": "cacti"});
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
    scene.apply_as_kubectl(&json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "cacti.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}})).await;
    scene.kubectl(&["wait", "--for=condition=Established", "crd/cacti.example.com"]).await;
    scene.append(&json!({"apiVersion": "example.com/v1", "kind": "Cactus", "metadata": {"name": "saguaro"}, "spec": {"arms": 2}}));
    for commit in [&scene.commits.old, &scene.commits.new] {
        done(&scene, &scene.deploy(commit).await, commit, 2).await;
    }
    let found = scene.kubectl(&["get", "cacti.example.com", "saguaro", "-o", "jsonpath={.metadata.annotations}"]).await;
    assert!(found.contains(&scene.commits.new), "{found}");
}

async fn strategy_appears(plane: Plane) {
    let scene = Scene::set(plane).await;
    scene.edit(&format!("  strategy:\n{STRATEGY}"), "");
    scene.deploy_old().await;
    scene.edit("  replicas: 2\n", "  replicas: 2\n  strategy: {type: Recreate}\n");
    let new = &scene.commits.new;
    let run = scene.deploy(new).await;
    match run.code {
        3 => run.ends_for(3, "DocumentRefused", &["rollingUpdate: null"]),
        _ => done(&scene, &run, new, 2).await,
    }
}

/// A webhook for every pod of the namespace, at an address where nothing listens.
fn webhook(scene: &Scene) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": scene.namespace},
        "webhooks": [{"name": "pods.example.com", "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 2,
            "clientConfig": {"url": "https://127.0.0.1:1/"},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": scene.namespace}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}]}]})
}

async fn webhook_returns(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    scene.apply_as_kubectl(&webhook(&scene)).await;
    let running = scene.start(new, &[]);
    running.said("failed calling webhook").await;
    tokio::time::sleep(Duration::from_secs(14)).await;
    scene.kubectl(&["delete", "validatingwebhookconfiguration", &scene.namespace]).await;
    done(&scene, &running.end().await, new, 2).await;
}

async fn webhook_away(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    scene.edit("progressDeadlineSeconds: 90", "progressDeadlineSeconds: 15");
    scene.apply_as_kubectl(&webhook(&scene)).await;
    let run = scene.deploy(&scene.commits.new).await;
    failed(&run, "WebhookUnreachable", &["pods.example.com"]);
    assert!(run.took > Duration::from_secs(13), "{run}");
}
