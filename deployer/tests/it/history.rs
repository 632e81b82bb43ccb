//! Failures, revisions and fields from before a rollout.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::DeleteParams;
use libtest_mimic::Trial;
use serde_json::json;

use crate::Bed;
use crate::control_plane::ControlPlane;
use crate::failures::{TOO_MANY, failed, pull};
use crate::node::{
    BAD_COMMAND, CRASH, HEALTHY, Life, NO_CONFIG_MAP, NOT_FOUND, NOT_READY, Observation, Observed, REGISTRY_DOWN, ROOT,
};
use crate::scene::{NAME, STRATEGY, Scene};
use crate::situations::done;

type Plane = &'static ControlPlane;

pub(crate) fn trials(bed: &'static Bed) -> Vec<Trial> {
    let mut trials = vec![
        bed.trial("42 pods that are evicted again and again do not fail the rollout", evicted_again),
        bed.trial("43 a failure from before this run that persists fails the rollout again", lasts),
        bed.trial("43 a kubelet that only begins to wait has not tried again", only_waits),
        bed.trial("50 a rollout waits for a registry that limits pulls for a moment", pull_limit_passes),
        bed.trial("51 a rollback says that no revision was ever available", never_available),
        bed.trial("54 an image set by hand in mid-rollout supersedes the rollout", image_set_meanwhile),
    ];
    trials.extend(bed.rows(
        REJECTIONS,
        |(reason, _)| format!("42 pods that the kubelet rejects again and again ({reason}) are the cause"),
        async |plane, (reason, message)| rejected(plane, reason, message).await,
    ));
    trials.extend(bed.rows(
        BEFORE,
        |(what, _)| format!("43 {what} from before this run is a warning until the kubelet has tried again"),
        async |plane, (_, said)| repaired(plane, *said).await,
    ));
    trials.extend(bed.rows(
        UNIONS,
        |union| format!("45 {} may change although kubectl apply owns the old field", union.what),
        async |plane, union| union.follows_kubectl(plane).await,
    ));
    trials.extend(bed.rows(
        UNIONS,
        |union| format!("45 {} may change although our own rollback owns the old field", union.what),
        async |plane, union| union.follows_rollback(plane).await,
    ));
    trials.extend(bed.rows(
        HISTORIES,
        |history| history.name.to_owned(),
        async |plane, history| history.is_gone_back(plane).await,
    ));
    trials.extend(bed.rows(
        BY_HAND,
        |image| format!("54 an image set by hand ({image}) is not taken for the commit's"),
        async |plane, image| image_set(plane, image).await,
    ));
    trials
}

/// Reason and message, as kubelets of Kubernetes 1.34 write them: `pkg/kubelet/sysctl/allowlist.go`,
/// `pkg/kubelet/lifecycle/predicate.go`.
#[rustfmt::skip]
const REJECTIONS: &[(&str, &str)] = &[
    ("SysctlForbidden", "forbidden sysctl: \"kernel.msgmax\" not allowlisted"),
    ("NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"),
    ("UnexpectedAdmissionError", "Allocate failed due to no healthy devices present, which is unexpected"),
];

/// Ends the rollout, because the `ReplicaSet` would create pods without end.
async fn end_it(scene: &Scene) {
    scene.api::<Deployment>().delete(NAME, &DeleteParams::background()).await.expect("the Deployment can be deleted");
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

async fn repaired(plane: Plane, said: Observed) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    scene.kubelet.let_pods_of(new, Life::of(&said())).await;
    assert_eq!(scene.deploy(new).await.code, 1);
    let running = scene.start(new, &[]);
    running.said("applied").await;
    // The test waits for something that must not happen, so there is no event to await. With a new pod, each of these
    // failures would be certain after 10 s at the latest.
    tokio::time::sleep(Duration::from_secs(12)).await;
    scene.kubelet.let_pods_of(new, Life::of(&HEALTHY)).await;
    let run = running.end().await;
    done(&scene, &run, new, 2).await;
    assert_ne!(run.json["warnings"], json!([]), "it should warn of what the pod said: {run}");
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

/// From `ErrImagePull` to `ImagePullBackOff`, seconds after a pull that failed before this run.
async fn only_waits(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    scene.kubelet.let_pods_of(new, Life::of(&NOT_FOUND.replace("ImagePullBackOff", "ErrImagePull"))).await;
    failed(&scene.deploy(new).await, "ImageMissing", &[]);
    let running = scene.start(new, &[]);
    running.said("applied").await;
    scene.kubelet.let_pods_of(new, Life::of(&NOT_FOUND).then(10, &HEALTHY)).await;
    // What a pod of this run says is new.
    scene.kubelet.let_later_pods_of(new, Life::of(&HEALTHY));
    done(&scene, &running.end().await, new, 2).await;
}

async fn pull_limit_passes(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    scene.kubelet.let_pods_of(new, Life::of(&pull(TOO_MANY)).then(3, &HEALTHY)).await;
    let run = scene.deploy(new).await;
    done(&scene, &run, new, 2).await;
    assert!(run.json["warnings"].to_string().contains("toomanyrequests"), "{run}");
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
    async fn follows_kubectl(&self, plane: Plane) {
        let scene = Scene::set(plane).await;
        scene.edit(self.template, self.from);
        for document in scene.render(&scene.commits.old).await {
            scene.apply_as_kubectl(&document).await;
        }
        scene.settled("NewReplicaSetAvailable").await;
        scene.edit(self.from, self.to);
        self.changes(&scene).await;
    }

    async fn follows_rollback(&self, plane: Plane) {
        let scene = Scene::set(plane).await;
        let new = &scene.commits.new;
        scene.edit(self.template, self.from);
        scene.deploy_old().await;
        scene.edit(self.from, self.to);
        scene.kubelet.let_pods_of(new, Life::of(&NOT_FOUND)).await;
        let run = scene.deploy_with(new, &["--rollback"]).await;
        failed(&run, "ImageMissing", &[]);
        assert_eq!(run.json["rollback"]["outcome"], "done", "{run}");
        self.changes(&scene).await;
    }

    /// Makes the change, and reverts it.
    async fn changes(&self, scene: &Scene) {
        let (newer, last) = (&scene.commits.newer, &scene.commits.line[0]);
        done(scene, &scene.deploy(newer).await, newer, 2).await;
        scene.edit(self.to, self.from);
        done(scene, &scene.deploy(last).await, last, 2).await;
    }
}

/// Two commits that fail after the good commit `old`; the last one is deployed with --rollback.
struct History {
    name: &'static str,
    recreate: bool,
    /// The failures of `new` and of `newer`.
    fates: [Observed; 2],
    by_command: bool,
}

#[rustfmt::skip]
const HISTORIES: &[History] = &[
    History { name: "51 a rollback after a failure skips a revision that never became available", recreate: true, fates: [|| NOT_FOUND.clone(), || CRASH.clone()], by_command: false },
    History { name: "51 a rollback skips a revision that never became available while another one serves", recreate: false, fates: [|| NOT_FOUND.clone(), || CRASH.clone()], by_command: false },
    History { name: "51 the command rollback skips a revision that never became available", recreate: true, fates: [|| NOT_FOUND.clone(), || CRASH.clone()], by_command: true },
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

const BY_HAND: &[&str] =
    &["registry.example/other:1", "registry.example/request-info:latest", "registry.example/request-info:{side}"];

async fn image_set(plane: Plane, by_hand: &str) {
    let scene = Scene::with_old(plane).await;
    let old = &scene.commits.old;
    let by_hand = by_hand.replace("{side}", &scene.commits.side[..12]);
    scene.kubectl(&["set", "image", &format!("deployment/{NAME}"), &format!("{NAME}={by_hand}")]).await;
    scene.settled("NewReplicaSetAvailable").await;
    let run = scene.run(&["status"]).await;
    failed(&run, "ImageChanged", &[&by_hand]);
    assert!(run.stderr.contains(&old[..12]), "{run}");
    // Another deploy brings the commit's image back.
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
