//! What a kubelet says about a new pod, and the verdict that must follow.

use std::ops::Range;

use libtest_mimic::Trial;
use serde_json::json;

use crate::Bed;
use crate::control_plane::ControlPlane;
use crate::node::{
    BAD_COMMAND, BAD_NAME, CRASH, HEALTHY, LIVENESS_KILL, Life, NEVER_PULLED, NO_CONFIG_MAP, NO_HANDLER,
    NO_NAME_SERVER, NO_REPOSITORY, NO_SECRET, NOT_FOUND, OUT_OF_MEMORY, Observation, Observed, REGISTRY_DOWN, ROOT,
};
use crate::scene::{Run, Scene};

struct Failure {
    name: &'static str,
    says: Observed,
    /// Texts in the template and their replacements, made before the new commit is deployed.
    template: &'static [(&'static str, &'static str)],
    reason: &'static str,
    /// Words in the verdict's first line.
    cause: &'static [&'static str],
    /// Words in the evidence.
    evidence: &'static str,
    /// Words somewhere on standard error.
    said: &'static [&'static str],
    /// Words that must not be on standard error.
    unsaid: &'static [&'static str],
    /// Seconds from the start of the deployer to its end. The upper limit is for a very busy machine, and below the far
    /// deadline.
    within: Range<u64>,
    deadline: &'static str,
}

/// The upper limit is for a very busy machine.
pub(crate) const AT_ONCE: Range<u64> = 0..45;
const AFTER_TEN_SECONDS: Range<u64> = 9..60;
/// Seconds: a progress deadline that does not pass while the test runs, and one that does.
const FAR: &str = "90";
const NEAR: &str = "8";

const CERTAIN: Failure = Failure {
    name: "",
    says: || HEALTHY.clone(),
    template: &[],
    reason: "",
    cause: &[],
    evidence: "pod request-info-",
    said: &[],
    unsaid: &[],
    within: AT_ONCE,
    deadline: FAR,
};
const DOUBTFUL: Failure = Failure { within: 7..60, deadline: NEAR, ..CERTAIN };
const PULL: Failure = Failure { evidence: "ImagePullBackOff", ..CERTAIN };
/// These become certain only at the progress deadline.
const PULL_IN_DOUBT: Failure = Failure { reason: "PullFailed", evidence: "ImagePullBackOff", ..DOUBTFUL };

const GATE: (&str, &str) =
    ("      containers:\n", "      readinessGates: [{conditionType: example.com/gate}]\n      containers:\n");
const SHIM: (&str, &str) = ("      containers:\n", "      runtimeClassName: wasmtime-spin-v2\n      containers:\n");
const LIMIT: (&str, &str) =
    ("          image: <IMAGE>\n", "          image: <IMAGE>\n          resources: {limits: {memory: 96Mi}}\n");

#[rustfmt::skip]
const FAILURES: &[Failure] = &[
    Failure { name: "05 an image that does not exist is the cause at once", says: || NOT_FOUND.clone(),
        reason: "ImageMissing", cause: &["registry.example/request-info:", "not found"], ..PULL },
    Failure { name: "05 a repository that does not exist is the cause at once", says: || NO_REPOSITORY.clone(),
        reason: "ImageMissing", cause: &["registry.example/request-info:", "not found"], ..PULL },
    Failure { name: "05 an image name that is invalid is the cause at once", says: || BAD_NAME.clone(),
        reason: "ImageNameInvalid", evidence: "InvalidImageName", ..CERTAIN },
    Failure { name: "05 an image that is never pulled is the cause at once", says: || NEVER_PULLED.clone(),
        reason: "ImageNeverPulled", cause: &["imagePullPolicy"], evidence: "ErrImageNeverPull", ..CERTAIN },
    Failure { name: "06 a registry that asks for a login is the cause at once", says: || pull("401 Unauthorized"),
        reason: "PullRefused", cause: &["registry.example/request-info:", "401 Unauthorized"], ..PULL },
    Failure { name: "06 a registry that forbids the pull is the cause at once", says: || pull("403 Forbidden"),
        reason: "PullRefused", cause: &["registry.example/request-info:", "403 Forbidden"], ..PULL },
    Failure { name: "07 a registry that does not answer is the cause once the progress deadline has passed", says: || REGISTRY_DOWN.clone(),
        cause: &["connection refused"], ..PULL_IN_DOUBT },
    Failure { name: "07 a registry without an address is the cause once the progress deadline has passed", says: || NO_NAME_SERVER.clone(),
        cause: &["i/o timeout"], evidence: "ErrImagePull", ..PULL_IN_DOUBT },
    Failure { name: "08 a container that crashes at start is the cause at once", says: || CRASH.clone(),
        reason: "CrashLoop", cause: &["code 3", "2 restarts"], evidence: "the last thing it wrote", ..CERTAIN },
    Failure { name: "10 a container that runs out of memory twice is the cause", says: || OUT_OF_MEMORY.clone(),
        reason: "OutOfMemory", cause: &["OOMKilled"], evidence: "the last thing it wrote", ..CERTAIN },
    Failure { name: "11 a command that does not exist is the cause at once", says: || BAD_COMMAND.clone(),
        reason: "CannotStart", cause: &["/nothere"], evidence: "no such file or directory", ..CERTAIN },
    Failure { name: "12 a ConfigMap that stays missing is the cause after 10 s", says: || NO_CONFIG_MAP.clone(),
        reason: "ConfigMissing", cause: &["configmap", "missing", "not found"], evidence: "CreateContainerConfigError", within: AFTER_TEN_SECONDS, ..CERTAIN },
    Failure { name: "12 an image that would run as root is the cause after 10 s", says: || ROOT.clone(),
        reason: "RunsAsRoot", cause: &["root"], evidence: "CreateContainerConfigError", within: AFTER_TEN_SECONDS, ..CERTAIN },
    Failure { name: "12 a container whose runAsUser is root is the cause after 10 s", says: || ROOT.replace("container has runAsNonRoot and image will run as root", "container's runAsUser breaks non-root policy"),
        reason: "RunsAsRoot", cause: &["non-root policy"], evidence: "CreateContainerConfigError", within: AFTER_TEN_SECONDS, ..CERTAIN },
    Failure { name: "12 a missing Secret that is mounted is the cause once the progress deadline has passed", says: || NO_SECRET.clone(),
        reason: "VolumeNotMounted", cause: &["secret", "missing", "not found"], ..DOUBTFUL },
    Failure { name: "13 a runtime handler that the node does not have is the cause after three attempts", says: || NO_HANDLER.clone(),
        reason: "HandlerMissing", cause: &["nothere"], evidence: "failed to get sandbox runtime", ..CERTAIN },

    Failure { name: "48 a readiness gate that is never set is the cause once the progress deadline has passed", says: || gated(None),
        template: &[GATE], reason: "ReadinessGate", cause: &["example.com/gate"], evidence: "does not exist", ..DOUBTFUL },
    Failure { name: "48 a readiness gate that is not true is the cause, with the words of its condition", says: || gated(Some("target not registered")),
        template: &[GATE], reason: "ReadinessGate", cause: &["example.com/gate"], evidence: "target not registered", ..DOUBTFUL },

    Failure { name: "49 a container killed by its startup probe is the cause, in the probe's words", says: startup_kill,
        reason: "StartupProbeFailed", cause: &["startup", "HTTP probe failed with statuscode: 404"], ..CERTAIN },
    Failure { name: "49 a container killed by its liveness probe is the cause, in the probe's words", says: || LIVENESS_KILL.clone(),
        reason: "LivenessProbeFailed", cause: &["liveness", "HTTP probe failed with statuscode: 404"], ..CERTAIN },
    Failure { name: "49 a postStart hook that fails is the cause, in the hook's words", says: || post_start("PostStartHookError", HOOK),
        reason: "PostStartHookFailed", cause: &["postStart", "exited with 7"], ..CERTAIN },
    Failure { name: "49 a failed postStart hook is the cause while its container waits for the next start", says: || post_start("CrashLoopBackOff", "back-off 10s restarting failed container=app"),
        reason: "PostStartHookFailed", cause: &["postStart"], ..CERTAIN },

    Failure { name: "50 a registry that limits pulls is a doubt, and is quoted whole", says: || pull(TOO_MANY),
        cause: &["toomanyrequests: You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit"], ..PULL_IN_DOUBT },
    Failure { name: "50 a registry whose certificate has expired is quoted whole", says: || pull(EXPIRED),
        cause: &["certificate has expired or is not yet valid: current time 2026-11-25T03:00:00Z is after 2026-11-01T00:00:00Z"], ..PULL_IN_DOUBT },
    Failure { name: "50 a registry whose certificate has an unknown authority is quoted whole", says: || pull("tls: failed to verify certificate: x509: certificate signed by unknown authority"),
        cause: &["x509: certificate signed by unknown authority"], ..PULL_IN_DOUBT },
    Failure { name: "50 a proxy that answers with a page is quoted whole", says: || pull("failed to decode manifest: invalid character '<' looking for beginning of value"),
        cause: &["invalid character '<' looking for beginning of value"], ..PULL_IN_DOUBT },
    Failure { name: "50 a registry that is overloaded is a doubt", says: || pull("unexpected status from HEAD request to https://10.89.0.1:5000/v2/app/manifests/nope: 503 Service Unavailable"),
        cause: &["503 Service Unavailable"], ..PULL_IN_DOUBT },

    Failure { name: "60 a container of Spin's shim that ends with 137 could not start, or was out of memory", says: || CRASH.replace("\"exitCode\":3", "\"exitCode\":137"),
        template: &[SHIM, LIMIT], reason: "StartFailedOrOutOfMemory", cause: &["memory"], said: &["run_wasi ERROR", "96Mi"], unsaid: &["--previous", "OOMKilled"], ..CERTAIN },
    Failure { name: "60 a container of another runtime that ends with 137 crashes", says: || CRASH.replace("\"exitCode\":3", "\"exitCode\":137"),
        reason: "CrashLoop", cause: &["code 137", "2 restarts"], evidence: "the last thing it wrote", ..CERTAIN },
    Failure { name: "60 a container of Spin's shim that ends with another code crashes", says: || CRASH.clone(),
        template: &[SHIM], reason: "CrashLoop", cause: &["code 3"], evidence: "the last thing it wrote", ..CERTAIN },
];

/// Docker Hub's own message, as containerd 1.7 passes it on (`core/remotes/docker`, `ErrUnexpectedStatus`).
pub(crate) const TOO_MANY: &str = "failed to copy: httpReadSeeker: failed open: unexpected status code \
    https://10.89.0.1:5000/v2/app/manifests/sha256:4ed1: 429 Too Many Requests - Server message: toomanyrequests: \
    You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit";
/// Go's `crypto/x509`, `CertificateInvalidError`.
const EXPIRED: &str = "failed to do request: Head \"https://10.89.0.1:5000/v2/app/manifests/nope\": tls: failed to verify \
    certificate: x509: certificate has expired or is not yet valid: current time 2026-11-25T03:00:00Z is after \
    2026-11-01T00:00:00Z";
/// `pkg/kubelet/lifecycle/handlers.go` of Kubernetes 1.34, `Run`.
const HOOK: &str = "Exec lifecycle hook ([/register]) for Container \"app\" in Pod \"web_default(1)\" failed - error: \
    command '/register' exited with 7: , message: \"\"";

pub(crate) fn trials(bed: &'static Bed) -> Vec<Trial> {
    bed.rows(FAILURES, |failure| failure.name.to_owned(), async |plane, failure| failure.is_one(plane).await)
}

/// A pull that fails with these words, inside the message that containerd 1.6 makes of them.
pub(crate) fn pull(words: &str) -> Observation {
    let words = if words.ends_with(|c: char| c.is_ascii_alphabetic()) && words.len() < 20 {
        format!("pulling from host 10.89.0.1:5000 failed with status code [manifests nope]: {words}")
    } else {
        words.replace('"', "\\\"")
    };
    NOT_FOUND.replace("rpc error: code = NotFound desc = ", "").replace("10.89.0.1:5000/app:nope: not found", &words)
}

/// `pkg/kubelet/status/generate.go` of Kubernetes 1.34, `GeneratePodReadyCondition`.
fn gated(message: Option<&str>) -> Observation {
    let gate = "example.com/gate";
    let why = match message {
        None => format!("corresponding condition of pod readiness gate \"{gate}\" does not exist."),
        Some(_) => format!("the status of pod readiness gate \"{gate}\" is not \"True\", but False"),
    };
    let ready = json!({"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady", "message": why});
    let gate = message.map(|message| json!({"type": gate, "status": "False", "reason": "Waiting", "message": message}));
    [Some(ready), gate].into_iter().flatten().fold(HEALTHY.clone(), Observation::with_condition)
}

/// Like the liveness probe's kill, but the container obeys SIGTERM: `pkg/kubelet/kuberuntime/kuberuntime_manager.go` of
/// Kubernetes 1.34, `computePodActions`.
fn startup_kill() -> Observation {
    LIVENESS_KILL
        .replace("Liveness probe", "Startup probe")
        .replace("\"exitCode\":137", "\"exitCode\":0")
        .replace("\"reason\":\"Error\"", "\"reason\":\"Completed\"")
        .with_event("Normal", "Killing", "Container app failed startup probe, will be restarted")
}

/// `pkg/kubelet/kuberuntime/kuberuntime_container.go` of Kubernetes 1.34, `startContainer`: the status has the
/// hook's own words until the container waits for its next start.
fn post_start(reason: &str, message: &str) -> Observation {
    CRASH
        .replace("\"exitCode\":3", "\"exitCode\":0")
        .replace("\"reason\":\"Error\"", "\"reason\":\"Completed\"")
        .with_waiting(reason, message)
        .with_event("Warning", "FailedPostStartHook", "PostStartHook failed")
        .with_event("Normal", "Killing", "FailedPostStartHook")
}

impl Failure {
    async fn is_one(&self, plane: &'static ControlPlane) {
        let scene = Scene::with_old(plane).await;
        let (old, new) = (&scene.commits.old, &scene.commits.new);
        scene.edit("progressDeadlineSeconds: 90", &format!("progressDeadlineSeconds: {}", self.deadline));
        for (from, to) in self.template {
            scene.edit(from, to);
        }
        scene.kubelet.let_pods_of(new, Life::of(&(self.says)()).log("the last thing it wrote\n")).await;
        let run = scene.deploy(new).await;
        failed(&run, self.reason, self.cause);
        assert!(self.within.contains(&run.took.as_secs()), "{run}");
        assert!(run.stderr.contains(self.evidence), "{:?} is not on standard error: {run}", self.evidence);
        assert!(run.json["evidence"].to_string().contains(self.evidence), "{:?} is missing: {run}", self.evidence);
        for words in self.said {
            assert!(run.stderr.contains(words), "{words:?} is not on standard error: {run}");
        }
        for words in self.unsaid {
            assert!(!run.stderr.contains(words), "{words:?} should not be on standard error: {run}");
        }
        assert_eq!(run.json["previous_commit"], **old, "{run}");
        assert!(run.stderr.contains(&old[..12]), "it should say what serves now: {run}");
        // The old pods were not touched, and the cluster keeps trying the new commit.
        assert_eq!(scene.ready(old).await, 2);
        assert_eq!(scene.ready(new).await, 0);
    }
}

/// The rollout failed for this reason, and the cause has these words.
#[track_caller]
pub(crate) fn failed(run: &Run, reason: &str, words: &[&str]) {
    run.ends_for(1, reason, &[&["failed"], words].concat());
    assert_eq!(run.json["outcome"], "failed", "{run}");
}
