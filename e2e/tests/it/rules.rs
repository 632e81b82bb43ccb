//! What the cluster forbids and what the deployer refuses.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::bed::{Namespace, process_of, run};
use crate::manifest::Manifest;
use crate::road::{image, road};
use crate::runtime::Runtime;

pub(crate) fn the_image_is_small() {
    let road = road();
    let manifest = run(Command::new("docker").args(["manifest", "inspect", "--insecure", &image(&road.commits[0])]));
    let manifest: Value = serde_json::from_str(&manifest).expect("docker prints JSON");
    let layers = manifest["layers"].as_array().expect("a list of layers").iter();
    let pulled: u64 = layers.chain([&manifest["config"]]).map(|part| part["size"].as_u64().expect("a size")).sum();
    let most = match Runtime::of_this_run() {
        Runtime::Shim => 200_000,
        Runtime::Standalone => 10_000_000,
    };
    assert!(pulled <= most, "a node pulls {pulled} bytes");
}

pub(crate) fn pods_run_without_root_and_cannot_write() {
    let road = road();
    let namespace = Namespace::create("without-root");
    namespace.deploy(road, &Manifest::quick(), &road.commits[0], &[]).expect(0);
    for pod in namespace.pods() {
        let process = process_of(pod["metadata"]["uid"].as_str().expect("a pod has a uid"));
        let of_process = |file: &str| fs::read_to_string(format!("/proc/{process}/{file}")).expect("the process lives");
        let status = of_process("status");
        assert!(status.contains("\nUid:\t65532\t65532\t65532\t65532\n"), "{status}");
        // The manifest asks for this capability only. Whether a process that is not root gets it depends on the runtime:
        // Spin's shim grants it, runc does not.
        let (bounding, effective): (_, &[_]) = match Runtime::of_this_run() {
            Runtime::Shim => ("0400", &["0000", "0400"]),
            Runtime::Standalone => ("0000", &["0000"]),
        };
        assert!(status.contains(&format!("\nCapBnd:\t000000000000{bounding}\n")), "{status}");
        assert!(effective.iter().any(|it| status.contains(&format!("\nCapEff:\t000000000000{it}\n"))), "{status}");
        assert!(status.contains("\nSeccomp:\t2\n"), "{status}");
        let mounts = of_process("mounts");
        let root = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/")).expect("a root is mounted");
        assert!(root.split(' ').nth(3).is_some_and(|options| options.starts_with("ro")), "{root}");
    }
}

pub(crate) fn the_namespace_refuses_what_is_not_restricted() {
    let namespace = Namespace::create("restricted");
    let refusal = namespace.kubectl_refused(&["run", "root", "--image=absent"]);
    assert!(refusal.contains("violates PodSecurity \"restricted"), "{refusal}");
}

pub(crate) fn the_shipped_role_allows_a_deploy_and_little_else() {
    let road = road();
    let namespace = Namespace::create("role");
    namespace.deploy(road, &Manifest::quick(), &road.commits[0], &[]).expect(0);
    let may = |verb: &str, resource: &str| {
        let account = format!("--as=system:serviceaccount:{}:deployer", namespace.name);
        let answer = Command::new("kubectl")
            .args(["auth", "can-i", verb, resource, "--namespace", &namespace.name, &account])
            .output()
            .expect("kubectl is on PATH");
        answer.status.success()
    };
    assert!(may("patch", "deployments.apps/request-info"));
    for (verb, resource) in [
        ("patch", "deployments.apps/other"),
        ("delete", "deployments.apps/request-info"),
        ("create", "pods"),
        ("create", "pods/exec"),
        ("get", "secrets"),
        ("create", "rolebindings"),
    ] {
        assert!(!may(verb, resource), "{verb} {resource}");
    }
}

pub(crate) fn an_older_commit_is_refused() {
    let road = road();
    let namespace = Namespace::create("older");
    namespace.deploy(road, &Manifest::quick(), &road.commits[1], &[]).expect(0);
    let generation = |namespace: &Namespace| -> Value {
        namespace.get(&["deployment", "request-info"])["metadata"]["generation"].clone()
    };
    let before = generation(&namespace);
    namespace
        .deploy(road, &Manifest::quick(), &road.commits[0], &[])
        .expect(4)
        .says(&["--ignore-order", &road.commits[1][..12]]);
    assert_eq!(generation(&namespace), before);
    namespace.deploy(road, &Manifest::quick(), &road.commits[0], &["--ignore-order"]).expect(0);
}
