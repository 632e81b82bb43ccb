//! Several deployers of one Deployment, and deployers that are ended early.

use std::net::Ipv4Addr;
use std::time::Duration;

use libtest_mimic::Trial;
use tokio::net::TcpListener;

use crate::Bed;
use crate::control_plane::ControlPlane;
use crate::node::{Life, REGISTRY_DOWN};
use crate::scene::Scene;

pub(crate) fn trials(bed: &'static Bed) -> Vec<Trial> {
    let mut trials = vec![
        bed.trial("a deployer killed at any moment can run again and finish", killed),
        bed.trial("a deployer interrupted before the apply says that nothing was changed", interrupted_early),
        bed.trial(
            "an interrupted deployer says that the rollout continues, and prints the status command",
            interrupted,
        ),
    ];
    // Twenty runs in all, some of them side by side.
    let part = |part| {
        bed.trial(
            format!("if two deployers run at once, one of them wins for all documents ({part} of 4)"),
            two_at_once,
        )
    };
    trials.extend((1..=4).map(part));
    trials
}

async fn two_at_once(plane: &'static ControlPlane) {
    let scene = Scene::set(plane).await;
    scene.edit("replicas: 2", "replicas: 1");
    for pair in scene.commits.line[..10].chunks(2) {
        let (earlier, later) = (&pair[0], &pair[1]);
        let (one, other) = (scene.start(earlier, &[]), scene.start(later, &[]));
        let (one, other) = tokio::join!(one.end(), other.end());
        // The later commit may replace the earlier one, but not the other way round.
        other.ends_with(0, &["done", &later[..12]]);
        assert!(matches!(one.code, 0 | 4), "{one}");
        assert_eq!(one.json["exit_code"], one.code, "{one}");
        assert_eq!(scene.carried().await, [&**later; 4], "a mixture:\n{one}\n{other}");
        assert_eq!(scene.ready(later).await, 1);
    }
}

async fn killed(plane: &'static ControlPlane) {
    let scene = Scene::with_old(plane).await;
    for (moment, commit) in (0..10).zip(&scene.commits.line) {
        let running = scene.start(commit, &[]);
        tokio::time::sleep(Duration::from_millis(25 + 75 * moment)).await;
        running.signal("-KILL");
        let killed = running.end().await;
        let again = scene.deploy(commit).await;
        assert_eq!(again.code, 0, "killed: {killed}\nrun again: {again}");
        assert_eq!(scene.carried().await, [&**commit; 4], "killed: {killed}\nrun again: {again}");
        assert_eq!(scene.ready(commit).await, 2);
    }
}

async fn interrupted(plane: &'static ControlPlane) {
    let scene = Scene::with_old(plane).await;
    let (new, newer) = (&scene.commits.new, &scene.commits.newer);
    for (signal, code, reason, commit) in [("-INT", 130, "Interrupted", new), ("-TERM", 143, "Terminated", newer)] {
        scene.kubelet.let_pods_of(commit, Life::of(&REGISTRY_DOWN)).await;
        let running = scene.start(commit, &[]);
        running.said("connection refused").await;
        running.signal(signal);
        let run = running.end().await;
        run.ends_for(code, reason, &["continues"]);
        assert!(run.stderr.contains("deployer status"), "it should print the status command: {run}");
        assert!(run.stderr.contains(&scene.commits.old[..12]), "it should say what serves now: {run}");
    }
}

async fn interrupted_early(plane: &'static ControlPlane) {
    let scene = Scene::set(plane).await;
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has a free port");
    scene.write_kubeconfig_for(silent.local_addr().expect("a bound listener has an address").port(), "nobody");
    let running = scene.start(&scene.commits.new, &[]);
    let _connection = silent.accept().await.expect("the deployer connects");
    running.signal("-INT");
    running.end().await.ends_for(130, "Interrupted", &["nothing was changed"]);
}
