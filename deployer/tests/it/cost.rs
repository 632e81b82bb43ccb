//! What a rollout costs the API server, by its own audit log.

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use libtest_mimic::Trial;
use serde_json::json;

use crate::Bed;
use crate::control_plane::ControlPlane;
use crate::node::{HEALTHY, Life, NOT_READY};
use crate::scene::Scene;

/// Requests of one rollout, beyond one for each pod.
const REQUESTS: usize = 25;
/// Requests of a write that came too late, and of the reads before the next attempt.
const CONFLICT: usize = 3;

pub(crate) fn trials(bed: &'static Bed) -> Vec<Trial> {
    vec![
        bed.trial("a rollout sends at most 25 requests and one for each pod, however long it lasts", however_long),
        bed.trial("a rollout sends no more requests in a namespace with 200 other pods", beside_others),
    ]
}

async fn however_long(plane: &'static ControlPlane) {
    let scene = Scene::with_old(plane).await;
    scene.kubelet.let_pods_of(&scene.commits.newer, Life::of(&NOT_READY).then(10, &HEALTHY)).await;
    costs(&scene).await;
}

async fn beside_others(plane: &'static ControlPlane) {
    let scene = Scene::with_old(plane).await;
    let pods = scene.api::<Pod>();
    let create = |number: usize| {
        let pod = json!({
            "metadata": {"name": format!("other-{number}"), "labels": {"app": "other"}},
            "spec": {"schedulerName": "none", "containers": [{"name": "other", "image": "other"}]},
        });
        let (pods, pod) = (&pods, serde_json::from_value(pod).expect("this JSON is a pod"));
        async move { pods.create(&PostParams::default(), &pod).await.expect("the pod can be created") }
    };
    for tens in 0..20 {
        join_all((tens * 10..tens * 10 + 10).map(create)).await;
    }
    costs(&scene).await;
}

async fn costs(scene: &Scene) {
    // The first update after the creation also migrates the managed fields.
    scene.deploy(&scene.commits.new).await.ends_with(0, &["done"]);
    scene.settled("NewReplicaSetAvailable").await;
    let before = scene.plane.requests_of(&scene.user()).len();
    let run = scene.deploy(&scene.commits.newer).await;
    run.ends_with(0, &["done"]);
    let requests = scene.plane.requests_of(&scene.user()).split_off(before);
    let (count, pods) = (requests.len(), scene.pods().await.len());
    assert!(count > 0, "the audit log has no request of the deployer");
    let list: Vec<_> = requests.iter().map(|request| format!("{} {}", request.verb, request.uri)).collect();
    let conflicts = requests.iter().filter(|request| request.is_conflict).count();
    assert!(
        count <= REQUESTS + pods + conflicts * CONFLICT,
        "{count} requests for {pods} pods:\n{}\n{run}",
        list.join("\n")
    );
}
