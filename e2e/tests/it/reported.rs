//! Situations in which other deployers were reported to be wrong, on real kubelets.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bed::{NAME, Namespace, Outcome, await_true, run};
use crate::failures::absent;
use crate::manifest::Manifest;
use crate::road::{Flaw, Road, flawed_image, image, repository, road};
use crate::verdicts::audited;

/// A pod like those of the Deployment, with another owner or without one.
fn other_pod(manifest: &Manifest, labels: &Value, image: &str) -> Value {
    let mut spec = manifest.deployment()["spec"]["template"]["spec"].clone();
    spec["containers"][0]["image"] = json!(image);
    spec["restartPolicy"] = json!("Never");
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "other", "labels": labels}, "spec": spec})
}

pub(crate) fn pods_of_another_owner_are_ignored() {
    let road = road();
    let (namespace, manifest) = (Namespace::create("others"), Manifest::quick().impatient());
    namespace.deploy(road, &manifest, &road.commits[0], &[]).expect(0);
    let labels = &manifest.deployment()["spec"]["selector"]["matchLabels"];
    let mut template = other_pod(&manifest, labels, &image(&road.commits[0]));
    template.as_object_mut().expect("the template is an object").retain(|key, _| key == "spec" || key == "metadata");
    let job =
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "other"}, "spec": {"template": template}});
    namespace.apply(&job);
    await_true("the Job's pod is ready", Duration::from_mins(1), || {
        namespace.get(&["job", "other"])["status"]["ready"] == 1
    });
    let outcome = namespace.deploy(road, &manifest, &road.commits[1], &["--timeout", "60s"]).expect(0);
    assert_eq!(outcome.report["pods"].as_array().map(Vec::len), Some(3), "{:#}", outcome.report);
}

pub(crate) fn one_digest_under_two_names_is_one_image() {
    let road = road();
    let (namespace, manifest) = (Namespace::create("two-names"), Manifest::quick());
    let commit = &road.commits[3]; // no other test pulls it, or the nodes would know it under both names
    let alias = format!("{}:x", repository("aaa"));
    run(Command::new("docker").args(["tag", &image(commit), &alias]));
    run(Command::new("docker").args(["push", "--quiet", &alias]));
    let mut pod = other_pod(&manifest, &json!({"app": "other"}), &alias);
    pod["spec"]["nodeName"] = json!("node-a");
    namespace.apply(&pod);
    namespace.kubectl(&["wait", "--for=condition=Ready", "pod/other", "--timeout=60s"]);
    namespace.deploy(road, &manifest, commit, &[]).expect(0);
    let pods = namespace.pods();
    let mut nodes: Vec<_> = pods.iter().map(|pod| pod["spec"]["nodeName"].to_string()).collect();
    nodes.sort();
    nodes.dedup();
    assert_eq!(nodes.len(), 2, "all pods are on one node, so nothing was shown");
}

pub(crate) fn replicas_that_are_not_stated_stay_as_they_are() {
    let road = road();
    let namespace = Namespace::create("replicas");
    namespace.deploy(road, &Manifest::quick(), &road.commits[0], &[]).expect(0);
    namespace.kubectl(&["scale", "deployment", NAME, "--replicas=4"]);
    namespace.kubectl(&["rollout", "status", "deployment", NAME]);
    let unstated = Manifest::quick().without("/spec/replicas");
    let outcome = namespace.deploy(road, &unstated, &road.commits[1], &[]).expect(0);
    assert_eq!(outcome.report["pods"].as_array().map(Vec::len), Some(4), "{:#}", outcome.report);
    assert_eq!(namespace.pods().len(), 4);
}

/// The deployer may write these, too.
fn grant_config_maps(namespace: &Namespace) {
    let verbs = "--verb=get,create,patch";
    namespace.kubectl(&["create", "role", "config-maps", verbs, "--resource=configmaps"]);
    let account = format!("--serviceaccount={}:deployer", namespace.name);
    namespace.kubectl(&["create", "rolebinding", "config-maps", "--role=config-maps", &account]);
}

pub(crate) fn a_config_map_is_written_before_the_pods_that_read_it() {
    let road = road();
    let namespace = Namespace::create("config-map");
    grant_config_maps(&namespace);
    let source = json!({"configMapKeyRef": {"name": "settings", "key": "proxies"}});
    let variable = json!({"name": "SPIN_VARIABLE_TRUSTED_PROXIES", "valueFrom": source});
    for (commit, proxies) in road.commits.iter().zip(["10.0.0.0/8", "192.168.0.0/16"]) {
        let settings = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"proxies": proxies}});
        let manifest = Manifest::quick().with_environment(variable.clone()).and(settings);
        namespace.deploy(road, &manifest, commit, &[]).expect(0);
    }
    let writes = audited(&namespace.name);
    let of = |resource: &str| -> Vec<usize> {
        let is_ours = |(_, event): &(usize, &Value)| {
            event["objectRef"]["resource"] == resource
                && event["user"]["username"].as_str().is_some_and(|user| user.ends_with(":deployer"))
                && event["requestURI"].as_str().is_some_and(|uri| !uri.contains("dryRun"))
        };
        writes.iter().enumerate().filter(is_ours).map(|(index, _)| index).collect()
    };
    let (settings, deployments) = (of("configmaps"), of("deployments"));
    assert!(settings.len() >= 2 && settings.len() <= deployments.len(), "{settings:?} {deployments:?}");
    assert!(settings[0] < deployments[0], "{settings:?} {deployments:?}");
    assert!(settings[settings.len() - 1] < deployments[deployments.len() - 1], "{settings:?} {deployments:?}");
}

pub(crate) fn a_rollout_waits_after_its_cause_of_failure_was_repaired() {
    let road = road();
    let namespace = Namespace::create("repaired");
    namespace.deploy(road, &Manifest::quick(), &road.commits[0], &[]).expect(0);
    let commit = &road.commits[1];
    let late = format!("{}:{}", repository("pushed-late"), &commit[..12]);
    let deploy = || namespace.deploy_image(road, &Manifest::quick(), commit, &late, &[]);
    deploy().expect(1).because("ImageMissing");
    run(Command::new("docker").args(["tag", &image(commit), &late]));
    run(Command::new("docker").args(["push", "--quiet", &late]));
    deploy().expect(0);
}

/// The second commit is good, except for `manifest`.
fn fails_and_goes_back(namespace: &Namespace, road: &Road, manifest: &Manifest) -> Outcome {
    let broken = flawed_image(&road.commits[1], Flaw::EndsAtStart);
    namespace.deploy_image(road, manifest, &road.commits[1], &broken, &["--rollback"]).expect(1)
}

pub(crate) fn one_kind_of_probe_may_follow_another_after_a_rollback() {
    let road = road();
    let namespace = Namespace::create("unions");
    namespace.deploy(road, &Manifest::quick(), &road.commits[0], &[]).expect(0);
    let probe = json!({"tcpSocket": {"port": "http"}, "periodSeconds": 1});
    let manifest = Manifest::quick().with_container("/readinessProbe", probe);
    fails_and_goes_back(&namespace, road, &manifest);
    namespace.deploy(road, &manifest, &road.commits[2], &[]).expect(0);
}

pub(crate) fn a_rollback_skips_a_revision_that_was_never_available() {
    let road = road();
    let namespace = Namespace::create("two-failures");
    let recreate = Manifest::quick().with("/spec/strategy", json!({"type": "Recreate"}));
    let [first, second, third, ..] = &road.commits[..] else { panic!("the road is short") };
    namespace.deploy(road, &recreate, first, &[]).expect(0);
    namespace.deploy_image(road, &recreate, second, &absent(second), &[]).expect(1);
    let outcome = namespace.deploy_image(road, &recreate, third, &absent(third), &["--rollback"]).expect(1);
    assert_eq!(outcome.report["rollback"]["outcome"], "done", "{:#}", outcome.report);
    let pods = namespace.pods();
    assert!(pods.iter().all(|pod| pod["spec"]["containers"][0]["image"] == image(first)), "{}", outcome.log);
    assert_eq!(pods.len(), 3);
}

pub(crate) fn an_image_set_by_hand_is_not_taken_for_the_commits() {
    let road = road();
    let namespace = Namespace::create("by-hand");
    namespace.deploy(road, &Manifest::quick(), &road.commits[0], &[]).expect(0);
    let by_hand = image(&road.commits[1]);
    namespace.kubectl(&["set", "image", &format!("deployment/{NAME}"), &format!("{NAME}={by_hand}")]);
    await_true("the pods of the commit are gone", Duration::from_mins(1), || {
        let pods = namespace.get(&["pods"]);
        pods["items"]
            .as_array()
            .is_some_and(|pods| pods.iter().all(|pod| pod["spec"]["containers"][0]["image"] == by_hand))
    });
    namespace.kubectl(&["rollout", "status", "deployment", NAME]);
    let status = Outcome::of(&mut namespace.deployer(road, &["status"]));
    status.expect(1).because("ImageChanged").says(&[&by_hand, &road.commits[0][..12]]);
}
