//! The other commands and options, and fields that somebody else has set.

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams, PostParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::Bed;
use crate::control_plane::ControlPlane;
use crate::failures::failed;
use crate::node::{HEALTHY, Life, NOT_FOUND, NOT_READY};
use crate::proxy::{Asked, Fate};
use crate::scene::{NAME, Run, Running, Scene, image};

type Plane = &'static ControlPlane;

pub(crate) fn trials(bed: &'static Bed) -> Vec<Trial> {
    vec![
        bed.trial("every command's help has an example and the exit codes", help),
        bed.trial("render prints the documents without contacting a cluster", render),
        bed.trial("a dry run changes nothing", dry_run),
        bed.trial("status says what serves, and exits with 0 if done, 70 if under way, 1 if failed", status),
        bed.trial("a rollback restores the previous revision, or says that there is none", rollback),
        bed.trial("a rollout that does not end in time continues without the deployer", timeout),
        bed.trial("a write that always comes too late has the same exit code in every command", contested),
        bed.trial(
            "a field that somebody else has set is taken over, and the field and its manager are named",
            taken_over,
        ),
        bed.trial("a field that kubectl apply has set is removed when the template no longer states it", migrated),
    ]
}

async fn run(scene: &Scene, arguments: &[&str]) -> Run {
    Running::of(scene.deployer(arguments)).end().await
}

async fn help(plane: Plane) {
    let scene = Scene::set(plane).await;
    for command in
        [&["--help"][..], &["deploy", "--help"], &["render", "--help"], &["status", "--help"], &["rollback", "--help"]]
    {
        let run = run(&scene, command).await;
        assert_eq!(run.code, 0, "{run}");
        for words in ["Example:", "Exit codes:", "143"] {
            assert!(run.stdout.contains(words), "{command:?} does not say {words:?}: {run}");
        }
    }
}

async fn render(plane: Plane) {
    let scene = Scene::set(plane).await;
    scene.write_kubeconfig_for(1, "nobody");
    let (new, template) = (&*scene.commits.new, scene.template().display().to_string());
    let run = run(&scene, &["render", "--image", &image(new), "--commit", new, "--template", &template]).await;
    assert_eq!(run.code, 0, "{run}");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&run.stdout).expect("render prints YAML");
    let kinds: Vec<_> = documents.iter().map(|document| &document["kind"]).collect();
    assert_eq!(kinds, ["Deployment", "Service", "PodDisruptionBudget"]);
    assert_eq!(documents[0]["spec"]["template"]["spec"]["containers"][0]["image"], image(new));
    for document in &documents {
        assert_eq!(document["metadata"]["annotations"]["request-info.dev/commit"], new, "{run}");
    }
}

async fn dry_run(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let before = scene.versions().await;
    let run = scene.deploy_with(&scene.commits.new, &["--dry-run"]).await;
    run.ends_with(0, &["done", "dry run"]);
    assert_eq!(scene.versions().await, before, "{run}");
}

async fn status(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let (old, new) = (&scene.commits.old, &scene.commits.new);
    let status = ["status", "-n", &scene.namespace, "-o", "json"];
    let of_old = run(&scene, &status).await;
    of_old.ends_with(0, &["done", &old[..12]]);
    assert_eq!(of_old.json["commit"], **old, "{of_old}");

    scene.kubelet.let_pods_of(new, Life::of(&NOT_READY)).await;
    let running = scene.start(new, &[]);
    scene.first_pod_of(new).await;
    let going_on = run(&scene, &status).await;
    going_on.ends_with(70, &[&new[..12]]);
    assert!(going_on.stderr.contains(&format!("{} on 2 of 2 pods", &old[..12])), "{going_on}");

    scene.kubelet.let_pods_of(new, Life::of(&NOT_FOUND)).await;
    failed(&running.end().await, "ImageMissing", &["not found"]);
    failed(&run(&scene, &status).await, "ImageMissing", &["not found"]);
}

async fn rollback(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let (old, new) = (&scene.commits.old, &scene.commits.new);
    let rollback = ["rollback", "-n", &scene.namespace, "-o", "json"];
    let before = scene.versions().await;
    run(&scene, &rollback).await.ends_for(3, "NoEarlierRevision", &["no earlier revision", "nothing was changed"]);
    assert_eq!(scene.versions().await, before);

    scene.deploy(new).await.ends_with(0, &["done"]);
    let back = run(&scene, &rollback).await;
    back.ends_with(0, &["done", &old[..12]]);
    assert_eq!(scene.ready(old).await, 2, "{back}");
    assert_eq!(scene.deployment().await.annotations()["request-info.dev/commit"], **old, "{back}");
    // The same commit may be deployed again, because the old commit runs now.
    scene.deploy(new).await.ends_with(0, &["done", &new[..12]]);
}

async fn timeout(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let (old, new) = (&scene.commits.old, &scene.commits.new);
    scene.edit("progressDeadlineSeconds: 90", "progressDeadlineSeconds: 5");
    scene.kubelet.let_pods_of(old, Life::of(&HEALTHY).never_ends()).await;
    let run = scene.deploy_with(new, &["--timeout", "20s"]).await;
    run.ends_for(70, "TimedOut", &["continues"]);
    assert!(run.stderr.contains("deployer status"), "it should print the status command: {run}");
    assert!(run.json["serving_after_s"].is_number(), "{run}");
    assert!(run.json["replaced_after_s"].is_null(), "{run}");
}

async fn contested(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    scene.deploy(&scene.commits.new).await.ends_with(0, &["done"]);
    scene.settled("NewReplicaSetAvailable").await;
    let before = scene.versions().await;
    let conflict = |asked: &Asked| if asked.changes("deployments") { Fate::Status(409, None) } else { Fate::Answered };
    let _proxy = scene.through(conflict).await;
    let deploy = scene.deploy(&scene.commits.newer).await;
    for run in [deploy, scene.run(&["rollback"]).await] {
        run.ends_for(4, "Contested", &[]);
    }
    assert_eq!(scene.versions().await, before);
}

async fn taken_over(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    scene.edit("replicas: 2", "replicas: 1");
    let edit = Patch::Merge(json!({"spec": {"replicas": 3}}));
    let parameters = PatchParams { field_manager: Some("kubectl-edit".to_owned()), ..PatchParams::default() };
    scene.api::<Deployment>().patch(NAME, &parameters, &edit).await.expect("the Deployment can be edited");
    let run = scene.deploy(&scene.commits.new).await;
    run.ends_with(0, &["done"]);
    let line = run.stderr.lines().find(|line| line.contains("spec.replicas"));
    assert!(line.is_some_and(|line| line.contains("kubectl-edit")), "{run}");
    assert_eq!(scene.deployment().await.spec.and_then(|spec| spec.replicas), Some(1));
}

async fn migrated(plane: Plane) {
    let scene = Scene::set(plane).await;
    let (old, template) = (&*scene.commits.old, scene.template().display().to_string());
    let rendered = run(&scene, &["render", "--image", &image(old), "--commit", old, "--template", &template]).await;
    let mut documents: Vec<Value> = serde_saphyr::from_multiple(&rendered.stdout).expect("render prints YAML");
    let container = &mut documents[0]["spec"]["template"]["spec"]["containers"][0];
    container["env"] = json!([{"name": "LEFT", "value": "over"}]);
    let parameters =
        PostParams { field_manager: Some("kubectl-client-side-apply".to_owned()), ..PostParams::default() };
    let deployment = serde_json::from_value(documents[0].take()).expect("the first document is a Deployment");
    scene.api::<Deployment>().create(&parameters, &deployment).await.expect("the Deployment can be created");
    let run = scene.deploy(&scene.commits.new).await;
    run.ends_with(0, &["done"]);
    let deployment = scene.deployment().await;
    let managers: Vec<_> = deployment.managed_fields().iter().filter_map(|entry| entry.manager.as_deref()).collect();
    assert!(!managers.contains(&"kubectl-client-side-apply"), "{managers:?}");
    let pod = deployment.spec.and_then(|spec| spec.template.spec).expect("the Deployment has a pod template");
    assert_eq!(pod.containers[0].env.as_deref().unwrap_or_default(), [], "{run}");
}
