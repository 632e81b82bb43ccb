//! Rolling updates that fail on real kubelets: the deployer names the cause and rolls back, and no visitor notices.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::bed::{Namespace, Outcome, await_some, process_of, root, run};
use crate::manifest::Manifest;
use crate::road::{Flaw, Road, flawed_image, image, repository, road};
use crate::runtime::Runtime;
use crate::visitors::Visitors;

/// Deploys the first commit, then lets `attempt` deploy the second. The second must fail for this reason and with these
/// words, and the first must serve again.
fn fails(name: &str, reason: &str, words: &[&str], attempt: impl FnOnce(&Namespace, &Road) -> Outcome) {
    let road = road();
    let namespace = Namespace::create(name);
    namespace.deploy(road, &Manifest::quick(), &road.commits[0], &[]).expect(0);
    attempt(&namespace, road).expect(1).because(reason).says(words);
    let image = json!(image(&road.commits[0]));
    for pod in namespace.pods() {
        assert_eq!(pod["spec"]["containers"][0]["image"], image);
    }
}

/// Deploys with another manifest while visitors send requests.
fn fails_with(name: &str, reason: &str, words: &[&str], manifest: &Manifest) {
    fails_as((name, reason), words, manifest, image);
}

/// Deploys another image while visitors send requests.
fn fails_as((name, reason): (&str, &str), words: &[&str], manifest: &Manifest, image: impl FnOnce(&str) -> String) {
    fails(name, reason, words, |namespace, road| {
        let commit = &road.commits[1];
        let visitors = Visitors::few(namespace.node_port("node-a"));
        let outcome = namespace.deploy_image(road, manifest, commit, &image(commit), &["--rollback"]);
        let tally = visitors.leave();
        tally.expect_no_failure();
        assert_eq!(tally.answers.keys().collect::<Vec<_>>(), [&road.commits[0]]);
        outcome
    });
}

pub(crate) fn absent(commit: &str) -> String {
    format!("{}:{}", repository("absent"), &commit[..12])
}

pub(crate) fn an_image_that_does_not_exist() {
    fails_as(("absent", "ImageMissing"), &["absent:", "not found"], &Manifest::quick(), absent);
}

pub(crate) fn an_image_that_is_never_pulled() {
    let manifest = Manifest::quick().with_container("/imagePullPolicy", json!("Never"));
    fails_as(("never-pulled", "ImageNeverPulled"), &["absent:", "ErrImageNeverPull"], &manifest, absent);
}

pub(crate) fn a_component_that_ends_at_start() {
    let image = |commit: &str| flawed_image(commit, Flaw::EndsAtStart);
    // The last line of the host, from the log of the container that ended.
    fails_as(("ends-at-start", "CrashLoop"), &["request_info.wasm"], &Manifest::quick(), image);
}

pub(crate) fn a_component_that_never_becomes_ready() {
    let image = |commit: &str| flawed_image(commit, Flaw::NeverReady);
    fails_as(("never-ready", "NeverReady"), &["404"], &Manifest::quick().impatient(), image);
}

pub(crate) fn a_misconfigured_variable() {
    let variable = json!({"name": "SPIN_VARIABLE_TRUSTED_PROXIES", "value": "nonsense"});
    let words = ["trusted_proxies has \"nonsense\", which is neither an IP address nor a CIDR block"];
    fails_with("misconfigured", "NeverReady", &words, &Manifest::quick().impatient().with_environment(variable));
}

pub(crate) fn a_missing_config_map() {
    let source = json!({"configMapKeyRef": {"name": "absent", "key": "proxies"}});
    let variable = json!({"name": "SPIN_VARIABLE_TRUSTED_PROXIES", "valueFrom": source});
    let words = ["CreateContainerConfigError", "configmap \"absent\" not found"];
    fails_with("no-config-map", "ConfigMissing", &words, &Manifest::quick().with_environment(variable));
}

pub(crate) fn a_missing_secret() {
    let manifest = Manifest::quick()
        .impatient()
        .with("/spec/template/spec/volumes", json!([{"name": "secret", "secret": {"secretName": "absent"}}]))
        .with_container("/volumeMounts", json!([{"name": "secret", "mountPath": "/secret"}]));
    fails_with("no-secret", "VolumeNotMounted", &["secret \"absent\" not found"], &manifest);
}

pub(crate) fn a_missing_runtime_class() {
    let manifest = Manifest::quick().with("/spec/template/spec/runtimeClassName", json!("absent"));
    fails_with("no-runtime-class", "RuntimeClassMissing", &["RuntimeClass", "\"absent\""], &manifest);
}

pub(crate) fn a_handler_that_the_nodes_do_not_have() {
    let class =
        fs::canonicalize(root().join("e2e/tests/no-handler.yaml")).expect("no-handler.yaml is beside the tests");
    run(Command::new("kubectl").arg("apply").arg("--filename").arg(class));
    let manifest = Manifest::quick().with("/spec/template/spec/runtimeClassName", json!("no-handler"));
    fails_with("no-handler", "HandlerMissing", &["no runtime for \"absent\" is configured"], &manifest);
}

pub(crate) fn a_container_that_would_run_as_root() {
    let manifest = Manifest::quick().with("/spec/template/spec/securityContext/runAsUser", json!(0));
    fails("as-root", "RunsAsRoot", &["CreateContainerConfigError", "non-root policy"], |namespace, road| {
        namespace.allow_everything(); // `restricted` refuses it before a kubelet does
        namespace.deploy(road, &manifest, &road.commits[1], &["--rollback"])
    });
}

pub(crate) fn a_readiness_gate_that_is_never_set() {
    let gates = json!([{"conditionType": "example.com/gate"}]);
    let manifest = Manifest::quick().impatient().with("/spec/template/spec/readinessGates", gates);
    fails_with("gated", "ReadinessGate", &["example.com/gate"], &manifest);
}

pub(crate) fn a_startup_probe_that_never_succeeds() {
    let probe = json!({"httpGet": {"path": "/absent", "port": "http"}, "periodSeconds": 1, "failureThreshold": 2});
    let manifest = Manifest::quick().with_container("/startupProbe", probe);
    fails_with("no-startup", "StartupProbeFailed", &["HTTP probe failed with statuscode: 404"], &manifest);
}

pub(crate) fn a_liveness_probe_that_never_succeeds() {
    let probe = json!({"httpGet": {"path": "/absent", "port": "http"}, "periodSeconds": 1, "failureThreshold": 1});
    // A new pod ends after it is ready but before it is available, so a visitor may be connected to it.
    let manifest = Manifest::quick().with("/spec/minReadySeconds", json!(15)).with_container("/livenessProbe", probe);
    fails("no-liveness", "LivenessProbeFailed", &["HTTP probe failed with statuscode: 404"], |namespace, road| {
        namespace.deploy(road, &manifest, &road.commits[1], &["--rollback"])
    });
}

pub(crate) fn a_hook_that_fails_after_the_start() {
    let hook = json!({"exec": {"command": ["/absent"]}});
    let manifest = Manifest::quick().with_container("/lifecycle/postStart", hook);
    fails_with("no-hook", "PostStartHookFailed", &["postStart"], &manifest);
}

pub(crate) fn pods_that_the_kubelet_rejects() {
    fails("rejected", "PodRejected", &["SysctlForbidden", "kernel.msgmax"], |namespace, road| {
        namespace.allow_everything();
        let sysctls = json!([{"name": "kernel.msgmax", "value": "65536"}]);
        let manifest = Manifest::quick().impatient().with("/spec/template/spec/securityContext/sysctls", sysctls);
        namespace.deploy(road, &manifest, &road.commits[1], &["--rollback", "--timeout", "60s"])
    });
}

pub(crate) fn pods_that_fit_on_no_node() {
    let manifest =
        Manifest::quick().with("/spec/template/spec/nodeSelector", json!({"kubernetes.io/hostname": "node-c"}));
    fails_with("no-room", "Unschedulable", &["didn't match Pod's node affinity/selector"], &manifest);
}

pub(crate) fn a_component_that_crashes_after_it_was_ready() {
    // Spin's shim reports less about the end of a container than runc does.
    let reason = match Runtime::of_this_run() {
        Runtime::Shim => "StartFailedOrOutOfMemory",
        Runtime::Standalone => "CrashLoop",
    };
    fails("crashes-later", reason, &["restart"], |namespace, road| {
        let manifest = Manifest::quick().with("/spec/minReadySeconds", json!(15));
        let image = json!(image(&road.commits[1]));
        std::thread::scope(|scope| {
            let deploy = scope.spawn(|| namespace.deploy(road, &manifest, &road.commits[1], &["--rollback"]));
            for restarts in 0..2 {
                let uid = await_some("the new pod is ready", Duration::from_secs(30), || {
                    let mut pods = namespace.pods();
                    pods.retain(|pod| {
                        let status = &pod["status"]["containerStatuses"][0];
                        pod["spec"]["containers"][0]["image"] == image
                            && status["ready"] == true
                            && status["restartCount"] == restarts
                    });
                    pods.first().and_then(|pod| Some(pod["metadata"]["uid"].as_str()?.to_owned()))
                });
                crash(&uid);
            }
            deploy.join().expect("the deployer ran")
        })
    });
}

/// Kills the process of a pod's container from outside, as the kernel does when memory runs out.
fn crash(uid: &str) {
    let process = process_of(uid);
    run(Command::new("kill").args(["-KILL", &process.to_string()]));
}
