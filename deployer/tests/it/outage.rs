//! A control plane that fails. These tests run one after the other, on a control plane of their own.

use std::process::Stdio;
use std::time::Duration;

use libtest_mimic::Trial;
use tokio::process::Command;

use crate::Bed;
use crate::control_plane::ControlPlane;
use crate::node::{HEALTHY, Life, NOT_READY};
use crate::scene::Scene;

/// A test that is slow enough to be killed while it runs.
const SLOW: &str = "19 a pod that cannot be scheduled for a minute has failed";

const AWAY: Duration = Duration::from_secs(10);

pub(crate) fn trials(bed: &'static Bed) -> Vec<Trial> {
    vec![
        bed.trial("tests that are killed leave nothing behind", killed),
        bed.trial_alone("04 a status of an older generation is not judged", older_generation),
        bed.trial_alone("31 an API server that hangs for 10 s only delays the rollout", hangs),
        bed.trial_alone("31 an API server that goes away just after the apply only delays the rollout", goes_early),
        bed.trial_alone(
            "31, 32 an API server that is away for 10 s gets a line, and expired watches are listed again",
            gone,
        ),
    ]
}

async fn older_generation(plane: &'static ControlPlane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    plane.freeze("manager");
    let running = scene.start(new, &[]);
    running.said("applied").await;
    let deployment = scene.deployment().await;
    let observed = deployment.status.and_then(|status| status.observed_generation);
    assert!(observed < deployment.metadata.generation, "the controllers are not frozen");
    // The test waits for something that must not happen, so there is no event to await.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let judged = running.has_said("done") || running.has_said("serving") || running.has_said("failed");
    plane.thaw("manager");
    let run = running.end().await;
    assert!(!judged, "judged by a status of an older generation: {run}");
    run.ends_with(0, &["done", &new[..12]]);
}

/// Kills a run of these tests while its control plane runs.
async fn killed(plane: &'static ControlPlane) {
    let mut tests = Command::new(std::env::current_exe().expect("the path of this program is known"));
    let mut tests = tests
        .args(["--exact", SLOW])
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("this program can be started again");
    let directory = ControlPlane::directory_of(tests.id().expect("the started tests have a process ID"), 0);
    let scene = Scene::set(plane).await;
    scene.until("the control plane runs", async || directory.join("scheduler.pid").exists()).await;
    tests.start_kill().expect("the started tests can be killed");
    // The directory is removed last, after its processes have ended.
    scene.until("nothing is left", async || !directory.exists()).await;
}

async fn hangs(plane: &'static ControlPlane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    scene.kubelet.let_pods_of(new, Life::of(&NOT_READY)).await;
    let running = scene.start(new, &[]);
    scene.first_pod_of(new).await;
    plane.freeze("apiserver");
    tokio::time::sleep(AWAY).await;
    plane.thaw("apiserver");
    scene.kubelet.let_pods_of(new, Life::of(&HEALTHY)).await;
    let run = running.end().await;
    run.ends_with(0, &["done", &new[..12]]);
    assert_eq!(scene.ready(new).await, 2);
}

async fn goes_early(plane: &'static ControlPlane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    let generation = scene.deployment().await.metadata.generation;
    let running = scene.start(new, &[]);
    scene.until("the Deployment is applied", async || scene.deployment().await.metadata.generation > generation).await;
    plane.restart_api_server(AWAY / 2).await;
    let run = running.end().await;
    run.ends_with(0, &["done", &new[..12]]);
    assert_eq!(scene.carried().await, [&**new; 4], "{run}");
}

async fn gone(plane: &'static ControlPlane) {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    let before = lists_of_pods(&scene);
    scene.kubelet.let_pods_of(new, Life::of(&NOT_READY).then(3, &HEALTHY)).await;
    let running = scene.start(new, &[]);
    running.said("available (1 of 2)").await;
    plane.restart_api_server(AWAY).await;
    let run = running.end().await;
    run.ends_with(0, &["done", &new[..12]]);
    assert_eq!(scene.ready(new).await, 2);
    let lines: Vec<_> = run.stderr.lines().filter(|line| line.contains("API server")).collect();
    assert!((1..=2).contains(&lines.len()), "at most one line each for going away and coming back: {run}");
    // The error comes inside a watch whose status is 200, so it shows only by the list that follows.
    assert!(lists_of_pods(&scene) > before + 1, "no watch has expired, so the test proves nothing: {run}");
}

fn lists_of_pods(scene: &Scene) -> usize {
    let requests = scene.plane.requests_of(&scene.user());
    requests.iter().filter(|request| request.verb == "list" && request.resource == "pods").count()
}
