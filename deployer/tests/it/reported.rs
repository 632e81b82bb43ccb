//! Situations in which other deployers were reported to be wrong: what is in the cluster beside the rollout, what was
//! there before it, and what became of it since.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::Bed;
use crate::control_plane::ControlPlane;
use crate::failures::{TOO_MANY, failed, pull};
use crate::node::{
    BAD_COMMAND, CRASH, HEALTHY, Life, NO_CONFIG_MAP, NOT_FOUND, NOT_READY, Observation, Observed, REGISTRY_DOWN, ROOT,
};
use crate::proxy::Fate;
use crate::scene::{NAME, STRATEGY, Scene, image};
use crate::situations::done;

type Plane = &'static ControlPlane;

/// Of the image that `HEALTHY` pods run.
const DIGEST: &str = "sha256:4ed1425f2a296c1731dce3667907b372bd17b1df7e191c5a8cd309a6f195d9cc";
const OTHER_DIGEST: &str = "sha256:0000425f2a296c1731dce3667907b372bd17b1df7e191c5a8cd309a6f195d9cc";

pub(crate) fn trials(bed: &'static Bed) -> Vec<Trial> {
    let mut trials = vec![
        bed.trial("58 an admission webhook that is away for a moment is waited for", webhook_returns),
        bed.trial(
            "58 an admission webhook that stays away is the cause when the progress deadline has passed",
            webhook_away,
        ),
        bed.trial("44 a quota that is full until the old pods are gone is waited for", quota_and_surge),
        bed.trial("38 a digest that is asked for is held against every pod", digest_proved),
        bed.trial(
            "38 pods that run another digest than was asked for are a failure to look at at once",
            digest_refused,
        ),
        bed.trial(
            "39 a first deploy that states no replicas has the one that the API server gives it",
            first_without_replicas,
        ),
        bed.trial("39 a rollout that lowered the replicas is not said to have seen no fewer pods", fewer),
        bed.trial("42 pods that are evicted again and again are no failure of the rollout", evicted_again),
        bed.trial("43 a failure from before this run that lasts is a failure again", lasts),
        bed.trial("50 a registry that limits pulls for a moment is waited for", pull_limit_passes),
        bed.trial("51 with no revision that was ever available a rollback says so", never_available),
        bed.trial("52 the plural of a custom resource is asked for, not guessed", odd_plural),
        bed.trial(
            "53 a strategy that was left out and then is Recreate works, or the remedy is named",
            strategy_appears,
        ),
        bed.trial("54 an image set by hand in mid-rollout supersedes it", image_set_meanwhile),
    ];
    let names =
        OTHERS.iter().map(|others| (format!("37 {} with the same labels is nobody's business", others.what), others));
    trials.extend(names.map(|(name, others)| bed.trial(name, async |plane| others.is_ignored(plane).await)));
    trials.extend(["registry.example/other", "docker-pullable://registry.example/request-info"].map(|name| {
        bed.trial(format!("38 one digest, also under the name {name}, is one image"), async move |plane| {
            names_differ(plane, name).await;
        })
    }));
    trials.extend(REPLICAS.iter().map(|case| bed.trial(case.name, async |plane| case.stay(plane).await)));
    trials.extend(READ_BY_PODS.iter().map(|(kind, more)| {
        bed.trial(format!("41 a {kind} that the pods read is written before them"), async move |plane| {
            before_pods(plane, kind, more).await;
        })
    }));
    trials.extend(REJECTIONS.iter().map(|(reason, message)| {
        bed.trial(
            format!("42 pods that their kubelet rejects again and again ({reason}) are the cause"),
            async |plane| rejected(plane, reason, message).await,
        )
    }));
    trials.extend(BEFORE.iter().map(|(what, said)| {
        bed.trial(
            format!("43 {what} from before this run is a warning until the kubelet has tried again"),
            async |plane| repaired(plane, said).await,
        )
    }));
    trials.extend(UNIONS.iter().flat_map(|union| {
        [("kubectl apply", true), ("our own rollback", false)].map(|(owner, is_kubectl)| {
            let name = format!("45 {} may change although {owner} owns what was there", union.what);
            bed.trial(name, async move |plane| union.changes(plane, is_kubectl).await)
        })
    }));
    trials.extend(
        HISTORIES.iter().map(|history| bed.trial(history.name, async |plane| history.is_gone_back(plane).await)),
    );
    trials.extend(
        ["registry.example/other:1", "registry.example/request-info:latest", "registry.example/request-info:{side}"]
            .map(|by_hand| {
                bed.trial(
                    format!("54 an image set by hand ({by_hand}) is told apart from the commit's"),
                    async move |plane| image_set(plane, by_hand).await,
                )
            }),
    );
    trials
}

/// Pods that the Deployment's selector finds and that are none of its own.
struct Others {
    what: &'static str,
    owner: Owner,
}

enum Owner {
    Job,
    Deployment,
    Nobody,
}

const OTHERS: &[Others] = &[
    Others { what: "a Job's pod", owner: Owner::Job },
    Others { what: "another Deployment's pod", owner: Owner::Deployment },
    Others { what: "a pod without an owner", owner: Owner::Nobody },
];

impl Others {
    async fn is_ignored(&self, plane: Plane) {
        let scene = Scene::with_old(plane).await;
        let (new, newer) = (&scene.commits.new, &scene.commits.newer);
        let spec = json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 0, "containers": [{"name": "other", "image": "registry.example/other:1"}]});
        let labels = json!({"app": NAME, "tier": "other"});
        let pod = |owners: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "other", "labels": labels, "ownerReferences": owners}, "spec": spec});
        match self.owner {
            Owner::Nobody => scene.apply(pod(json!([]))).await,
            Owner::Job => {
                let mut spec = spec.clone();
                spec["restartPolicy"] = json!("Never");
                scene.apply(json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "other"}, "spec": {"template": {"spec": spec}}})).await;
                let uid = scene.api::<Job>().get("other").await.expect("it exists").uid();
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
            let pods =
                scene.api::<Pod>().list(&ListParams::default().labels("tier=other")).await.expect("they can be listed");
            pods.items
                .into_iter()
                .filter(|pod| pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some()))
                .collect::<Vec<_>>()
        };
        scene.until("the other pod runs", async || others().await.len() == 1).await;
        done(&scene, &scene.deploy(new).await, new, 2).await;

        // Neither does it fail the rollout when it crashes, nor does it serve when the rollout fails.
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
    let spec = scene.deployment().await.spec.and_then(|spec| spec.template.spec).expect("it has one");
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

/// Three pods run, and the next template does not say how many there should be.
struct Replicas {
    name: &'static str,
    /// Whether the deployer stated the three, or somebody else did since.
    stated: bool,
    autoscaler: bool,
}

#[rustfmt::skip]
const REPLICAS: &[Replicas] = &[
    Replicas { name: "39 replicas that the template states no more stay as many as they were", stated: true, autoscaler: false },
    Replicas { name: "39 replicas that the template states no more stay as many as somebody has set", stated: false, autoscaler: false },
    Replicas { name: "39 replicas that the template leaves to its own autoscaler stay as many as they were", stated: true, autoscaler: true },
];

impl Replicas {
    async fn stay(&self, plane: Plane) {
        let scene = Scene::set(plane).await;
        scene.write_kubeconfig("admin"); // the Role is not for autoscalers
        let (old, new) = (&scene.commits.old, &scene.commits.new);
        let stated = if self.stated { "  replicas: 3\n" } else { "  replicas: 2\n" };
        scene.edit("  replicas: 2\n", stated);
        scene.deploy_old().await;
        // After a creation the fields are not yet entered as applied.
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
        // Once more: what is nobody's now must not be dropped later.
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
    assert!(!run.stderr.contains("never") && !run.stderr.contains("no fewer"), "one pod is fewer than two: {run}");
}

/// What a pod reads: the kind, and where the pod says so.
#[rustfmt::skip]
const READ_BY_PODS: &[(&str, &str)] = &[
    ("ConfigMap", "          envFrom: [{configMapRef: {name: settings}}]\n"),
    ("Secret", "          env: [{name: KEY, valueFrom: {secretKeyRef: {name: settings, key: key}}}]\n"),
    ("ServiceAccount", ""),
];

async fn before_pods(plane: Plane, kind: &str, container: &str) {
    let scene = Scene::with_old(plane).await;
    let (new, newer) = (&scene.commits.new, &scene.commits.newer);
    scene.write_kubeconfig("admin"); // the Role is for none of these kinds
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
        let first = |plural: &str| asked.iter().position(|asked| asked.changes(plural)).expect("it is written");
        assert!(first(&plural) < first("deployments"), "{asked:#?}");
    }
}

/// Reason and message, as kubelets of Kubernetes 1.34 give them: `pkg/kubelet/sysctl/allowlist.go`,
/// `pkg/kubelet/lifecycle/predicate.go`.
#[rustfmt::skip]
const REJECTIONS: &[(&str, &str)] = &[
    ("SysctlForbidden", "forbidden sysctl: \"kernel.msgmax\" not allowlisted"),
    ("NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"),
    ("UnexpectedAdmissionError", "Allocate failed due to no healthy devices present, which is unexpected"),
];

/// The `ReplicaSet` makes new ones without end: the test has to.
async fn end_it(scene: &Scene) {
    scene.api::<Deployment>().delete(NAME, &DeleteParams::background()).await.expect("it can be");
}

async fn rejected(plane: Plane, reason: &str, message: &str) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    scene.kubelet.let_pods_of(new, Life::of(&NOT_READY).then(1, &Observation::rejected(reason, message))).await;
    let run = scene.deploy_with(new, &["--timeout", "100s"]).await;
    let pods = scene.pods_of(new).await.len();
    end_it(&scene).await;
    failed(&run, "PodRejected", &[reason, message]);
    assert!((3..10).contains(&pods), "{pods} pods: {run}");
}

async fn evicted_again(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    let status = |reason| Observation::rejected(reason, "the node was low on resource: memory");
    scene.kubelet.let_pods_of(new, Life::of(&NOT_READY).then(1, &status("Evicted"))).await;
    let running = scene.start(new, &[]);
    scene.until("four pods are evicted", async || scene.pods_of(new).await.len() > 4).await;
    scene.kubelet.let_later_pods_of(new, Life::of(&NOT_READY).then(1, &status("Preempting")));
    scene.until("four pods are preempted", async || scene.pods_of(new).await.len() > 9).await;
    scene.kubelet.let_later_pods_of(new, Life::of(&HEALTHY));
    running.end().await.ends_with(0, &["done", &new[..12]]);
}

/// What the pods of the same commit said when the deployer began.
const BEFORE: &[(&str, Observed)] = &[
    ("an image that was missing", || NOT_FOUND.clone()),
    ("a registry that refused", || pull("401 Unauthorized")),
    ("a crash", || CRASH.clone()),
    ("a command that was missing", || BAD_COMMAND.clone()),
    ("a ConfigMap that was missing", || NO_CONFIG_MAP.clone()),
    ("an image that would have run as root", || ROOT.clone()),
];

async fn repaired(plane: Plane, said: &Observed) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    scene.kubelet.let_pods_of(new, Life::of(&said())).await;
    assert_eq!(scene.deploy(new).await.code, 1);
    let running = scene.start(new, &[]);
    running.said("applied").await;
    // No event can be awaited for what must not happen; longer than any of these is waited for in a new pod.
    tokio::time::sleep(Duration::from_secs(12)).await;
    scene.kubelet.let_pods_of(new, Life::of(&HEALTHY)).await;
    let run = running.end().await;
    done(&scene, &run, new, 2).await;
    assert_ne!(run.json["warnings"], json!([]), "what the pod said is not told: {run}");
}

async fn lasts(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    scene.kubelet.let_pods_of(new, Life::of(&NOT_FOUND)).await;
    failed(&scene.deploy(new).await, "ImageMissing", &[]);
    let running = scene.start(new, &[]);
    running.said("applied").await;
    // The kubelet tries again, and says so before it waits again.
    let tries = NOT_FOUND.replace("ImagePullBackOff", "ErrImagePull");
    scene.kubelet.let_pods_of(new, Life::of(&tries).then(1, &NOT_FOUND)).await;
    let run = running.end().await;
    failed(&run, "ImageMissing", &["not found"]);
    assert!(run.took < Duration::from_secs(45), "{run}");
}

async fn pull_limit_passes(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    scene.kubelet.let_pods_of(new, Life::of(&pull(TOO_MANY)).then(3, &HEALTHY)).await;
    let run = scene.deploy(new).await;
    done(&scene, &run, new, 2).await;
    assert!(run.json["warnings"].to_string().contains("toomanyrequests"), "{run}");
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

/// Fields of which only one of several may be set.
struct Union {
    what: &'static str,
    template: &'static str,
    from: &'static str,
    to: &'static str,
}

#[rustfmt::skip]
const UNIONS: &[Union] = &[
    Union { what: "a probe from httpGet to tcpSocket", template: "httpGet: {path: /healthz, port: 8080}", from: "httpGet: {path: /healthz, port: 8080}", to: "tcpSocket: {port: 8080}" },
    Union { what: "a variable from value to valueFrom", template: "          image: <IMAGE>\n", from: "          image: <IMAGE>\n          env: [{name: A, value: b}]\n", to: "          image: <IMAGE>\n          env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]\n" },
    Union { what: "a volume from emptyDir to configMap", template: "      containers:\n", from: "      volumes: [{name: v, emptyDir: {}}]\n      containers:\n", to: "      volumes: [{name: v, configMap: {name: kube-root-ca.crt}}]\n      containers:\n" },
    Union { what: "a strategy from RollingUpdate to Recreate", template: STRATEGY, from: STRATEGY, to: "    type: Recreate\n" },
];

impl Union {
    async fn changes(&self, plane: Plane, is_kubectl: bool) {
        let scene = Scene::set(plane).await;
        let (old, new, newer) = (&scene.commits.old, &scene.commits.new, &scene.commits.newer);
        scene.edit(self.template, self.from);
        if is_kubectl {
            for document in scene.render(old).await {
                scene.apply_as_kubectl(&document).await;
            }
            scene.settled("NewReplicaSetAvailable").await;
            scene.edit(self.from, self.to);
        } else {
            scene.deploy_old().await;
            scene.edit(self.from, self.to);
            scene.kubelet.let_pods_of(new, Life::of(&NOT_FOUND)).await;
            let run = scene.deploy_with(new, &["--rollback"]).await;
            failed(&run, "ImageMissing", &[]);
            assert_eq!(run.json["rollback"]["outcome"], "done", "{run}");
        }
        done(&scene, &scene.deploy(newer).await, newer, 2).await;
        // And the way back from there is open, too.
        scene.edit(self.to, self.from);
        let last = &scene.commits.line[0];
        done(&scene, &scene.deploy(last).await, last, 2).await;
    }
}

/// What became of each commit, the last one deployed with --rollback; `old` is good.
struct History {
    name: &'static str,
    recreate: bool,
    /// Of `new`, and of `newer`.
    fates: [Observed; 2],
    by_command: bool,
}

#[rustfmt::skip]
const HISTORIES: &[History] = &[
    History { name: "51 a rollback passes over a revision that never became available", recreate: true, fates: [|| NOT_FOUND.clone(), || CRASH.clone()], by_command: false },
    History { name: "51 a rollback passes over a revision that never became available beside one that serves", recreate: false, fates: [|| NOT_FOUND.clone(), || CRASH.clone()], by_command: false },
    History { name: "51 a rollback asked for passes over a revision that never became available", recreate: true, fates: [|| NOT_FOUND.clone(), || CRASH.clone()], by_command: true },
];

impl History {
    async fn is_gone_back(&self, plane: Plane) {
        let scene = Scene::set(plane).await;
        let (old, new, newer) = (&scene.commits.old, &scene.commits.new, &scene.commits.newer);
        if self.recreate {
            scene.recreate();
        }
        scene.deploy_old().await;
        for (commit, fate) in [new, newer].into_iter().zip(self.fates) {
            scene.kubelet.let_pods_of(commit, Life::of(&fate())).await;
        }
        assert_eq!(scene.deploy(new).await.code, 1);
        let run = if self.by_command {
            assert_eq!(scene.deploy(newer).await.code, 1);
            let run = scene.run(&["rollback"]).await;
            run.ends_with(0, &["done", &old[..12]]);
            run
        } else {
            let run = scene.deploy_with(newer, &["--rollback"]).await;
            failed(&run, "CrashLoop", &["code 3"]);
            assert_eq!(run.json["rollback"]["outcome"], "done", "{run}");
            assert_eq!(run.json["rollback"]["commit"], **old, "{run}");
            run
        };
        assert_eq!(scene.ready(old).await, 2, "{run}");
        assert_eq!(scene.carried().await[..2], [&**old; 2], "{run}");
    }
}

async fn never_available(plane: Plane) {
    let scene = Scene::set(plane).await;
    let (new, newer) = (&scene.commits.new, &scene.commits.newer);
    for commit in [new, newer] {
        scene.kubelet.let_pods_of(commit, Life::of(&NOT_FOUND)).await;
    }
    failed(&scene.deploy(new).await, "ImageMissing", &[]);
    let run = scene.deploy_with(newer, &["--rollback"]).await;
    failed(&run, "ImageMissing", &[]);
    assert_eq!(run.json["rollback"]["outcome"], "none", "{run}");
    assert_eq!(scene.carried().await[..2], [&**newer; 2], "{run}");
}

async fn odd_plural(plane: Plane) {
    let scene = Scene::set(plane).await;
    scene.write_kubeconfig("admin"); // the Role is for no custom resources
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

async fn image_set(plane: Plane, by_hand: &str) {
    let scene = Scene::with_old(plane).await;
    let old = &scene.commits.old;
    let by_hand = by_hand.replace("{side}", &scene.commits.side[..12]);
    scene.kubectl(&["set", "image", &format!("deployment/{NAME}"), &format!("{NAME}={by_hand}")]).await;
    scene.settled("NewReplicaSetAvailable").await;
    let run = scene.run(&["status"]).await;
    failed(&run, "ImageChanged", &[&by_hand]);
    assert!(run.stderr.contains(&old[..12]), "{run}");
    // Deployed once more, it is the commit's image again.
    done(&scene, &scene.deploy(old).await, old, 2).await;
    scene.settled("NewReplicaSetAvailable").await;
    scene.run(&["status"]).await.ends_with(0, &["done", &old[..12]]);
}

async fn image_set_meanwhile(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    scene.kubelet.let_pods_of(new, Life::of(&REGISTRY_DOWN)).await;
    let running = scene.start(new, &[]);
    scene.first_pod_of(new).await;
    scene.kubectl(&["set", "image", &format!("deployment/{NAME}"), &format!("{NAME}=registry.example/other:1")]).await;
    running.end().await.ends_for(4, "Superseded", &["registry.example/other:1"]);
}

/// A webhook that is asked about every pod of the namespace, at an address where nobody listens.
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
