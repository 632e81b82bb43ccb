//! Rolling updates while a part of the cluster is away.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::bed::{Namespace, Outcome, await_true, restart, run, stop};
use crate::manifest::Manifest;
use crate::road::{Road, image, road};

/// Deploys the second commit over the first, and calls `meanwhile` when the first new pod is ready.
fn in_mid_rollout(namespace: &Namespace, road: &Road, manifest: &Manifest, meanwhile: impl FnOnce()) -> Outcome {
    let image = json!(image(&road.commits[1]));
    thread::scope(|scope| {
        let deploy = scope.spawn(|| namespace.deploy(road, manifest, &road.commits[1], &[]));
        await_true("a new pod is ready", Duration::from_mins(1), || {
            let ready = |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["ready"] == true;
            namespace.pods().iter().any(|pod| pod["spec"]["containers"][0]["image"] == image && ready(pod))
        });
        meanwhile();
        deploy.join().expect("the deployer ran")
    })
}

/// A rollout that takes long enough for something to happen during it.
fn slow() -> Manifest {
    Manifest::quick().with("/spec/minReadySeconds", json!(3))
}

pub(crate) fn a_rollout_continues_after_the_api_server_was_away() {
    let road = road();
    let namespace = Namespace::create("no-api-server");
    namespace.deploy(road, &slow(), &road.commits[0], &[]).expect(0);
    let began = Instant::now();
    let outcome = in_mid_rollout(&namespace, road, &slow(), || {
        stop("apiserver");
        thread::sleep(Duration::from_secs(10));
        restart("apiserver");
    });
    outcome.expect(0);
    assert!(began.elapsed() > Duration::from_secs(10));
}

/// Always asks the registry, also for an image that the node has.
fn always_pulled(manifest: Manifest) -> Manifest {
    manifest.with_container("/imagePullPolicy", json!("Always"))
}

pub(crate) fn a_rollout_continues_when_the_registry_is_back() {
    let road = road();
    let namespace = Namespace::create("registry-back");
    namespace.deploy(road, &slow(), &road.commits[0], &[]).expect(0);
    stop("registry");
    let outcome = thread::scope(|scope| {
        let deploy = scope.spawn(|| namespace.deploy(road, &always_pulled(slow()), &road.commits[1], &[]));
        await_true("a pull fails", Duration::from_mins(1), || {
            let pods = namespace.pods();
            let mut reasons =
                pods.iter().map(|pod| &pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]);
            reasons.any(|reason| reason == "ImagePullBackOff")
        });
        restart("registry");
        deploy.join().expect("the deployer ran")
    });
    outcome.expect(0).says(&["connection refused"]);
}

pub(crate) fn a_registry_that_stays_away_fails_the_rollout() {
    let road = road();
    let namespace = Namespace::create("registry-away");
    namespace.deploy(road, &Manifest::quick(), &road.commits[0], &[]).expect(0);
    stop("registry");
    let outcome =
        namespace.deploy(road, &always_pulled(Manifest::quick().impatient()), &road.commits[1], &["--rollback"]);
    restart("registry");
    outcome.expect(1).says(&["connection refused"]);
}

pub(crate) fn a_lost_node_does_not_stop_a_rollout() {
    let road = road();
    let namespace = Namespace::create("lost-node");
    namespace.deploy(road, &slow(), &road.commits[0], &[]).expect(0);
    let cable = |state: &str| run(Command::new("ip").args(["link", "set", "rq-node-b", state]));
    let outcome = in_mid_rollout(&namespace, road, &slow(), || drop(cable("down")));
    let on_node_a = namespace.pods();
    cable("up");
    run(Command::new("kubectl").args(["wait", "--for=condition=Ready", "node/node-b", "--timeout=60s"]));
    outcome.expect(0).says(&["node-b"]);
    assert_eq!(on_node_a.iter().filter(|pod| pod["spec"]["nodeName"] == "node-a").count(), 3);
}
