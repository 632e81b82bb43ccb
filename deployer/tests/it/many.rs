//! Many pods: the log stays readable, and the number of requests stays bounded.

use k8s_openapi::api::core::v1::Pod;
use libtest_mimic::Trial;
use serde_json::json;

use crate::Bed;
use crate::control_plane::ControlPlane;
use crate::node::{self, HEALTHY, Life};
use crate::scene::{Run, Scene};
use crate::situations::{done, not_ready};

type Plane = &'static ControlPlane;

pub(crate) fn trials(bed: &'static Bed) -> Vec<Trial> {
    vec![
        bed.trial("23 a lost node gets one line, however many old pods are on it", node_lost),
        bed.trial("each of the first ten available pods gets a line, then each tenth of all pods", thinned),
        bed.trial("if the first pods do not say their commit, the others are not asked", none_can_be_asked),
        bed.trial("a rollout that cannot end within --timeout causes a warning before anything is changed", too_slow),
    ]
}

async fn scene(plane: Plane, replicas: usize) -> Scene {
    let scene = Scene::set(plane).await;
    scene.edit("replicas: 2", &format!("replicas: {replicas}"));
    scene.edit("maxSurge: 1", "maxSurge: 100%");
    scene
}

fn lines<'a>(run: &'a Run, with: &str) -> Vec<&'a str> {
    run.stderr.lines().filter(|line| line.contains(with)).collect()
}

async fn node_lost(plane: Plane) {
    let scene = scene(plane, 8).await;
    node::add(&plane.client, &format!("node-for-{}", scene.namespace), json!({"for": scene.namespace})).await;
    scene.edit("    spec:\n", &format!("    spec:\n      nodeSelector: {{for: {}}}\n", scene.namespace));
    scene.deploy_old().await;
    let (old, new) = (&scene.commits.old, &scene.commits.new);
    scene.kubelet.let_pods_of(old, Life::of(&HEALTHY).never_ends()).await;
    let running = scene.start(new, &[]);
    let is_deleted = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
    scene.until("all old pods are deleted", async || scene.pods_of(old).await.iter().all(is_deleted)).await;
    for pod in scene.pods_of(old).await {
        not_ready(&scene, &pod).await;
    }
    let run = running.end().await;
    run.ends_with(0, &["done", &new[..12]]);
    assert_eq!(lines(&run, "should be gone since").len(), 1, "{run}");
    let warnings = run.json["warnings"].as_array().map_or(0, Vec::len);
    assert_eq!(warnings, 8, "the document should name every pod: {run}");
    assert!(
        run.stderr.contains("replaced: no old pod serves any more; 8 old pods that should be gone remain"),
        "{run}"
    );
}

async fn thinned(plane: Plane) {
    let scene = scene(plane, 40).await;
    let run = scene.deploy(&scene.commits.new).await;
    done(&scene, &run, &scene.commits.new, 40).await;
    // The first ten, then 12, 16, … 40.
    let told = lines(&run, "available (");
    assert_eq!(told.len(), 18, "{run}");
    assert!(told[17].contains("and 3 others are available (40 of 40)"), "{run}");
    assert!(run.stderr.contains("proved: 40 of 40 pods"), "{run}");
}

async fn none_can_be_asked(plane: Plane) {
    let scene = scene(plane, 60).await;
    let new = &scene.commits.new;
    scene.kubelet.let_pods_of(new, Life::of(&HEALTHY).knows_no_version()).await;
    let run = scene.deploy(new).await;
    done(&scene, &run, new, 60).await;
    assert!(run.json["warnings"].to_string().contains("44 of 60 pods were not asked which commit they run"), "{run}");
    let asked = scene.plane.requests_of(&scene.user());
    let asked = asked.iter().filter(|request| request.uri.ends_with("/proxy/version")).count();
    // Requests to some more pods are already under way when the first answers come.
    assert!((16..32).contains(&asked), "{asked} pods were asked: {run}");
}

async fn too_slow(plane: Plane) {
    let scene = Scene::set(plane).await;
    scene.edit("replicas: 2", "replicas: 100\n  minReadySeconds: 5");
    let run = scene.deploy_with(&scene.commits.new, &["--dry-run"]).await;
    assert_eq!(run.json["warnings"].to_string(), "[]", "the pods of a first deploy start at once: {run}");
    scene.deploy_old().await;
    let run = scene.deploy_with(&scene.commits.new, &["--dry-run"]).await;
    run.ends_with(0, &["nothing was changed"]);
    let warnings = run.json["warnings"].to_string();
    assert!(warnings.contains("100 pods are replaced 1 at a time"), "{run}");
    assert!(warnings.contains("about 1000 s in all"), "{run}");
}
