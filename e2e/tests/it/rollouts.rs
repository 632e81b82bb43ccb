//! Rolling updates that succeed.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::bed::Namespace;
use crate::manifest::Manifest;
use crate::road::{image, road};

/// Identifies a pod among all others, earlier and later ones.
fn uids(pods: &[Value]) -> BTreeSet<String> {
    pods.iter().map(|pod| pod["metadata"]["uid"].to_string()).collect()
}

pub(crate) fn the_first_deploy_is_proved_and_a_second_one_changes_nothing() {
    let road = road();
    let namespace = Namespace::create("first");
    let first = namespace.deploy(road, &Manifest::quick(), &road.commits[0], &[]).expect(0);
    let pods = first.report["pods"].as_array().expect("a list of pods");
    assert_eq!(pods.len(), 3);
    assert!(pods.iter().all(|pod| pod["commit"] == *road.commits[0]), "{:#}", first.report);

    let before = uids(&namespace.pods());
    namespace.deploy(road, &Manifest::quick(), &road.commits[0], &[]).expect(0);
    assert_eq!(uids(&namespace.pods()), before);
}

pub(crate) fn a_commit_replaces_another_and_the_old_pods_are_gone() {
    let road = road();
    let namespace = Namespace::create("replaces");
    namespace.deploy(road, &Manifest::quick(), &road.commits[0], &[]).expect(0);
    let outcome = namespace.deploy(road, &Manifest::quick(), &road.commits[1], &[]).expect(0);
    // No old pod still runs, not even one that is being deleted. The object of a pod that has ended may stay for a moment.
    let pods = namespace.get(&["pods", "--field-selector=status.phase!=Succeeded,status.phase!=Failed"]);
    let pods = pods["items"].as_array().expect("a list of pods");
    let images: Vec<_> = pods.iter().map(|pod| &pod["spec"]["containers"][0]["image"]).collect();
    assert_eq!(images, vec![&json!(image(&road.commits[1])); 3], "{}", outcome.log);
    assert_eq!(outcome.report["previous_commit"], *road.commits[0], "{:#}", outcome.report);
}

pub(crate) fn a_rollout_waits_for_pods_that_are_slow_to_become_ready() {
    let road = road();
    let namespace = Namespace::create("slow");
    let slow = Manifest::quick().with_container("/readinessProbe/initialDelaySeconds", json!(8));
    let outcome = namespace.deploy(road, &slow, &road.commits[0], &[]).expect(0);
    assert!(outcome.report["serving_after_s"].as_f64() > Some(8.0), "{:#}", outcome.report);
}

pub(crate) fn a_rollout_waits_for_old_pods_that_terminate_slowly() {
    let road = road();
    let namespace = Namespace::create("slow-to-go");
    let slow_to_go =
        Manifest::quick().with("/spec/template/spec/terminationGracePeriodSeconds", json!(15)).pre_stop(10);
    namespace.deploy(road, &slow_to_go, &road.commits[0], &[]).expect(0);
    let outcome = namespace.deploy(road, &Manifest::quick(), &road.commits[1], &[]).expect(0);
    let serving = outcome.report["serving_after_s"].as_f64().expect("the report has serving_after_s");
    let replaced = outcome.report["replaced_after_s"].as_f64().expect("the report has replaced_after_s");
    // The last old pod is deleted when the last new one is available, and then takes its 10 s.
    assert!(replaced - serving > 8.0, "{:#}", outcome.report);
}
