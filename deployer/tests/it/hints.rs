//! Commands that are printed for copying, and statements that must be true of what was seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use libtest_mimic::Trial;
use serde_json::json;

use crate::Bed;
use crate::control_plane::ControlPlane;
use crate::failures::failed;
use crate::node::{CRASH, Life, NO_CONFIG_MAP, NOT_FOUND, NOT_READY, Observed, REGISTRY_DOWN};
use crate::proxy::{Asked, Fate};
use crate::scene::{NAME, Run, Scene};

type Plane = &'static ControlPlane;

pub(crate) fn trials(bed: &'static Bed) -> Vec<Trial> {
    let mut trials = vec![
        bed.trial("59 the commands printed after a signal run as printed", after_a_signal),
        bed.trial("59 the commands printed after a timeout run as printed", after_a_timeout),
        bed.trial("a missing Deployment has the same exit code in every command", of_nothing),
        bed.trial("59 the commands printed by status run as printed", by_status),
        bed.trial("59 a hint names the shipped Role only for permissions that it has", role_named),
        bed.trial("without an earlier revision, no rollback is suggested", no_earlier_revision),
        bed.trial("status makes no claim about a time that it did not watch", status_watches_nothing),
        bed.trial("no claim is made about the time in which the API server was away", blind),
    ];
    trials.extend(bed.rows(
        FAILURES,
        |(what, _)| format!("59 the commands printed after {what} run as printed"),
        async |plane, (_, says)| after_a_failure(plane, *says, &CONTEXT).await,
    ));
    trials.extend(bed.rows(
        FAILURES,
        |(what, _)| format!("59 the commands printed after {what} and the rollback run as printed"),
        async |plane, (_, says)| after_a_failure(plane, *says, &["--context", "test", "--rollback"]).await,
    ));
    trials
}

const FAILURES: &[(&str, Observed)] = &[
    ("a missing image", || NOT_FOUND.clone()),
    ("a crash", || CRASH.clone()),
    ("a missing ConfigMap", || NO_CONFIG_MAP.clone()),
];

/// The context `test` leads to the cluster, and the current context does not.
fn with_contexts(scene: &Scene) {
    scene.change_kubeconfig(|kubeconfig| {
        let elsewhere = json!({"name": "elsewhere", "cluster": {"server": "https://127.0.0.1:1"}});
        kubeconfig["clusters"].as_array_mut().expect("clusters is a list").push(elsewhere);
        let context = json!({"name": "elsewhere", "context": {"cluster": "elsewhere", "user": "test"}});
        kubeconfig["contexts"].as_array_mut().expect("contexts is a list").push(context);
        kubeconfig["current-context"] = json!("elsewhere");
    });
}

const CONTEXT: [&str; 2] = ["--context", "test"];

/// Every command in the verdict, to the end of its line.
fn commands(run: &Run) -> Vec<String> {
    let lines = run.stderr.lines().skip_while(|line| *line != run.verdict());
    let command = |line: &str| {
        let starts = ["kubectl ", "deployer status", "deployer rollback", "deployer deploy"];
        let start = starts.iter().filter_map(|start| line.find(start)).min()?;
        Some(line[start..].to_owned())
    };
    lines.filter_map(command).collect()
}

/// Every printed command works for a person who copies it and may do everything.
async fn all_run(scene: &Scene, run: &Run) {
    let commands = commands(run);
    assert!(!commands.is_empty(), "nothing is printed for copying: {run}");
    scene.change_kubeconfig(|kubeconfig| kubeconfig["users"][0]["user"] = json!({"token": "admin"}));
    for command in commands {
        assert!(command.contains("--context test"), "{command:?} may ask another cluster: {run}");
        let mut shell = scene.shell(&command);
        let Ok(output) = tokio::time::timeout(Duration::from_secs(20), shell.output()).await else {
            assert!(command.contains("rollout status"), "{command:?} does not end");
            continue;
        };
        let output = output.expect("the shell can be run");
        let fine: &[i32] = if command.starts_with("deployer") { &[0, 1, 70] } else { &[0] };
        let code = output.status.code().unwrap_or(-1);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(fine.contains(&code), "{command:?} ends with {code}: {said}\nIt was printed here: {run}");
        let shows_something = !output.stdout.is_empty() || !said.is_empty();
        assert!(shows_something && !said.contains("No resources found"), "{command:?} shows nothing: {said}");
    }
}

async fn after_a_failure(plane: Plane, says: Observed, options: &[&str]) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    with_contexts(&scene);
    scene.kubelet.let_pods_of(new, Life::of(&says()).log("the last thing it wrote\n")).await;
    let run = scene.deploy_with(new, options).await;
    assert_eq!(run.code, 1, "{run}");
    if run.json["rollback"].is_object() {
        scene.until("the pod that failed is gone", async || scene.pods_of(new).await.is_empty()).await;
    }
    all_run(&scene, &run).await;
}

async fn after_a_signal(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    with_contexts(&scene);
    scene.kubelet.let_pods_of(new, Life::of(&REGISTRY_DOWN)).await;
    let running = scene.start(new, &CONTEXT);
    running.said("connection refused").await;
    running.signal("-TERM");
    let run = running.end().await;
    run.ends_for(143, "Terminated", &[]);
    all_run(&scene, &run).await;
}

async fn after_a_timeout(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let (old, new) = (&scene.commits.old, &scene.commits.new);
    with_contexts(&scene);
    scene.edit("progressDeadlineSeconds: 90", "progressDeadlineSeconds: 5");
    scene.kubelet.let_pods_of(old, Life::of(&crate::node::HEALTHY).never_ends()).await;
    let run = scene.deploy_with(new, &["--context", "test", "--timeout", "10s"]).await;
    run.ends_for(70, "TimedOut", &[]);
    all_run(&scene, &run).await;
}

async fn of_nothing(plane: Plane) {
    let scene = Scene::set(plane).await;
    with_contexts(&scene);
    for command in ["status", "rollback"] {
        let run = scene.run(&[command, NAME, "--context", "test"]).await;
        run.ends_for(3, "DeploymentMissing", &[NAME]);
        let get = format!("kubectl --context test -n {} get deployments", scene.namespace);
        assert!(commands(&run).contains(&get), "{run}");
    }
}

async fn by_status(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    with_contexts(&scene);
    scene.kubelet.let_pods_of(new, Life::of(&CRASH).log("the last thing it wrote\n")).await;
    assert_eq!(scene.deploy_with(new, &CONTEXT).await.code, 1);
    let run = scene.run(&["status", "--context", "test"]).await;
    assert_eq!(run.code, 1, "{run}");
    all_run(&scene, &run).await;
}

async fn role_named(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let before = scene.versions().await;
    scene.append(
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"key": "value"}}),
    );
    let run = scene.deploy(&scene.commits.new).await;
    run.ends_for(3, "Forbidden", &["configmaps", "settings"]);
    assert!(!run.stderr.contains("deployer-rbac.yaml"), "the shipped Role allows no ConfigMaps: {run}");
    assert_eq!(scene.versions().await, before);
}

async fn no_earlier_revision(plane: Plane) {
    let scene = Scene::set(plane).await;
    let new = &scene.commits.new;
    scene.kubelet.let_pods_of(new, Life::of(&NOT_FOUND)).await;
    for run in [scene.deploy(new).await, scene.run(&["status"]).await] {
        failed(&run, "ImageMissing", &[]);
        assert!(!run.stderr.contains("rollback"), "{run}");
    }
}

async fn status_watches_nothing(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    scene.kubelet.let_pods_of(new, Life::of(&NOT_FOUND)).await;
    failed(&scene.deploy(new).await, "ImageMissing", &[]);
    let run = scene.run(&["status"]).await;
    failed(&run, "ImageMissing", &[]);
    assert!(!vouches(&run), "{run}");
}

/// Whether the verdict says that there were never fewer pods.
fn vouches(run: &Run) -> bool {
    run.stderr.lines().any(|line| line.contains("never") || line.contains("no fewer"))
}

async fn blind(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let (old, new) = (&scene.commits.old, &scene.commits.new);
    scene.kubelet.let_pods_of(new, Life::of(&REGISTRY_DOWN)).await;
    let (blind, expired) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let flags = (Arc::clone(&blind), Arc::clone(&expired));
    let proxy = scene
        .through(move |asked: &Asked| {
            if flags.0.load(Ordering::Relaxed) {
                return Fate::Lost;
            }
            // What happened meanwhile is lost, so the deployer has to list the pods again.
            let is_late = asked.watches("pods") && flags.1.swap(false, Ordering::Relaxed);
            if is_late { Fate::Status(410, None) } else { Fate::Answered }
        })
        .await;
    let running = scene.start(new, &[]);
    running.said("connection refused").await;
    blind.store(true, Ordering::Relaxed);
    expired.store(true, Ordering::Relaxed);
    proxy.cut();
    let gone = scene.first_pod_of(old).await;
    scene
        .api::<Pod>()
        .delete(&gone.name_any(), &DeleteParams::default().grace_period(0))
        .await
        .expect("the pod can be deleted");
    scene
        .until("the pod is replaced", async || {
            !scene.names().await.contains(&gone.name_any()) && scene.ready(old).await == 2
        })
        .await;
    blind.store(false, Ordering::Relaxed);
    scene.until("the pods are listed again", async || !expired.load(Ordering::Relaxed)).await;
    scene.kubelet.let_pods_of(new, Life::of(&NOT_READY).then(1, &NOT_FOUND)).await;
    let run = running.end().await;
    failed(&run, "ImageMissing", &[]);
    assert!(run.stderr.contains(&format!("{} on 2 of 2", &old[..12])), "{run}");
    assert!(!vouches(&run), "for a moment there was only one pod: {run}");
}
