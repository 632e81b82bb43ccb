//! The causes of a failed rollout, and the sentences that describe them.

use std::fmt;

use crate::outcome::Reason;

/// A container, with where to find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) container: String,
    pub(crate) pod: String,
    pub(crate) node: Option<String>,
}

/// How often a container was restarted, and whether that is enough to fail the rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Restarts {
    pub(crate) count: i32,
    pub(crate) settled: bool,
}

/// The meaning of a failed pull's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pull {
    /// The registry does not have it.
    Missing,
    /// The registry has it for other processors.
    OtherPlatform,
    /// The registry asks for a login, or forbids it.
    Refused,
    /// The registry limits the rate of requests.
    TooOften,
    /// The name is malformed.
    InvalidName,
    /// It is not on the node, and `imagePullPolicy` is Never.
    NeverPulled,
    /// Anything else, a registry that is away for example.
    Failed,
}

/// Why the kubelet kills a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    Liveness,
    Startup,
}

/// Why no pod can be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    RuntimeClassMissing,
    Quota,
    WebhookAway,
    Other,
}

/// Why a rollout fails, or may fail. `said` is the cluster's own message, unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// `ErrImagePull`, `ImagePullBackOff`, `InvalidImageName`, `ErrImageNeverPull`:
    /// <https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/kubelet/images/types.go>
    Image { image: String, pull: Pull, said: String },
    /// `CreateContainerConfigError`; `root`: the image would run as root and must not:
    /// <https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/kubelet/kuberuntime/kuberuntime_container.go>
    Config { at: At, root: bool, said: String },
    /// `CreateContainerError`, `RunContainerError`, `StartError`; not `settled` if the kubelet ran out of time:
    /// <https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/kubelet/container/sync_result.go>
    CannotStart { at: At, settled: bool, said: String },
    /// `CrashLoopBackOff`, or two restarts. `code` is None if no exit code of a failure is known:
    /// <https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/kubelet/kuberuntime/kuberuntime_manager.go>
    Crash { at: At, code: Option<i32>, restarts: Restarts, said: String },
    /// `OOMKilled`, which containerd reports from the cgroup's events:
    /// <https://github.com/containerd/containerd/blob/v2.1.0/internal/cri/server/events.go>
    OutOfMemory { at: At, limit: Option<String>, restarts: Restarts },
    /// Exit code 137 of Spin's shim, after a failed start or an OOM kill. The shim exits with it on any start error, and
    /// containerd gets no OOM event:
    /// <https://github.com/spinframework/containerd-shim-spin/blob/v0.24.0/containerd-shim-spin/src/engine.rs>
    ShimEnded { at: At, limit: Option<String>, restarts: Restarts },
    /// The event `Killing` after `Unhealthy`:
    /// <https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/kubelet/prober/prober.go>
    Killed { at: At, probe: Probe, restarts: Restarts, said: String },
    /// `PostStartHookError`, and the event `FailedPostStartHook`:
    /// <https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/kubelet/kuberuntime/kuberuntime_container.go>
    PostStartHook { at: At, restarts: Restarts, said: String },
    /// The events `FailedMount` and `FailedAttachVolume`:
    /// <https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/kubelet/volumemanager/volume_manager.go>
    Mount { pod: String, said: String },
    /// The event `FailedCreatePodSandBox`; `handler`: the node has no such runtime:
    /// <https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/kubelet/kuberuntime/kuberuntime_sandbox.go>
    Sandbox { pod: String, class: Option<String>, handler: bool, said: String },
    /// The kubelet refused the pod, which is Failed from the start:
    /// <https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/kubelet/kubelet.go> (`rejectPod`)
    Rejected { pod: String, why: String, count: usize, said: String },
    /// `ReplicaFailure` of the `ReplicaSet`, or `ReplicaSetCreateError` of the Deployment:
    /// <https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/controller/replicaset/replica_set_utils.go>
    NoPod { refusal: Refusal, said: String },
    /// `PodScheduled` is False for the reason `Unschedulable`. `node_comes` is the autoscaler's message:
    /// <https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/scheduler/schedule_one.go>
    Unschedulable { pod: String, node_comes: Option<String>, said: String },
    /// It runs, but its readiness probe does not succeed:
    /// <https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/kubelet/status/generate.go>
    NeverReady { at: At, path: Option<String> },
    /// The containers are ready but the pod is not, because its node is not ready.
    NodeNotReady { pod: String, node: Option<String> },
    /// A condition named in `readinessGates` is not True (`ReadinessGatesNotReady`):
    /// <https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/kubelet/status/generate.go>
    Gate { pod: String, gate: String, said: String },
    /// Nothing explains why a pod does not start, or (None) why no pod was created.
    NotStarted { pod: Option<String> },
    /// Somebody deleted the Deployment.
    Deleted,
    /// The pod template names a commit, but its image was not built from it.
    ImageChanged { image: String, commit: String },
}

impl Cause {
    /// Whether events say more about it than the pod's status.
    pub(crate) fn is_told_by_events(&self) -> bool {
        matches!(
            self,
            Self::Unschedulable { .. }
                | Self::Crash { .. }
                | Self::ShimEnded { .. }
                | Self::Sandbox { .. }
                | Self::Mount { .. }
        )
    }

    /// The word in the JSON document.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Image { pull, .. } => match pull {
                Pull::Missing | Pull::OtherPlatform => Reason::ImageMissing,
                Pull::Refused => Reason::PullRefused,
                Pull::InvalidName => Reason::ImageNameInvalid,
                Pull::NeverPulled => Reason::ImageNeverPulled,
                Pull::TooOften | Pull::Failed => Reason::PullFailed,
            },
            Self::Config { root: true, .. } => Reason::RunsAsRoot,
            Self::Config { .. } => Reason::ConfigMissing,
            Self::CannotStart { .. } => Reason::CannotStart,
            Self::Crash { .. } => Reason::CrashLoop,
            Self::OutOfMemory { .. } => Reason::OutOfMemory,
            Self::ShimEnded { .. } => Reason::StartFailedOrOutOfMemory,
            Self::Killed { probe: Probe::Liveness, .. } => Reason::LivenessProbeFailed,
            Self::Killed { probe: Probe::Startup, .. } => Reason::StartupProbeFailed,
            Self::PostStartHook { .. } => Reason::PostStartHookFailed,
            Self::Mount { .. } => Reason::VolumeNotMounted,
            Self::Sandbox { handler: true, .. } => Reason::HandlerMissing,
            Self::Sandbox { .. } => Reason::SandboxFailed,
            Self::Rejected { .. } => Reason::PodRejected,
            Self::NoPod { refusal, .. } => match refusal {
                Refusal::RuntimeClassMissing => Reason::RuntimeClassMissing,
                Refusal::Quota => Reason::QuotaExceeded,
                Refusal::WebhookAway => Reason::WebhookUnreachable,
                Refusal::Other => Reason::PodForbidden,
            },
            Self::Unschedulable { .. } => Reason::Unschedulable,
            Self::NeverReady { .. } | Self::NodeNotReady { .. } => Reason::NeverReady,
            Self::Gate { .. } => Reason::ReadinessGate,
            Self::NotStarted { .. } => Reason::ProgressDeadlineExceeded,
            Self::Deleted => Reason::DeploymentDeleted,
            Self::ImageChanged { .. } => Reason::ImageChanged,
        }
    }

    /// The container that shows it.
    pub(crate) fn container(&self) -> Option<&str> {
        match self {
            Self::Config { at, .. }
            | Self::CannotStart { at, .. }
            | Self::Crash { at, .. }
            | Self::OutOfMemory { at, .. }
            | Self::ShimEnded { at, .. }
            | Self::Killed { at, .. }
            | Self::PostStartHook { at, .. }
            | Self::NeverReady { at, .. } => Some(&at.container),
            _ => None,
        }
    }

    /// The cluster's own message.
    pub(crate) fn said(&self) -> Option<&str> {
        let said = match self {
            Self::Image { said, .. }
            | Self::Config { said, .. }
            | Self::CannotStart { said, .. }
            | Self::Crash { said, .. }
            | Self::Killed { said, .. }
            | Self::PostStartHook { said, .. }
            | Self::Mount { said, .. }
            | Self::Sandbox { said, .. }
            | Self::Rejected { said, .. }
            | Self::NoPod { said, .. }
            | Self::Unschedulable { said, .. }
            | Self::Gate { said, .. } => said.as_str(),
            _ => "",
        };
        Some(said).filter(|said| !said.is_empty())
    }

    /// How well it explains a failure, compared with other causes.
    pub(crate) fn strength(&self) -> u8 {
        match self {
            Self::NotStarted { .. } => 0,
            Self::NeverReady { .. } | Self::NodeNotReady { .. } | Self::Gate { .. } => 1,
            Self::Unschedulable { .. } => 2,
            Self::Crash { restarts: Restarts { settled: false, .. }, .. } => 3,
            _ => 4,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image { image, pull, said } => image_sentence(f, image, *pull, last_sentence(said)),
            Self::Config { at, said, .. } => write!(f, "{at} cannot be configured: {said}"),
            Self::CannotStart { at, settled: true, said } => write!(f, "{at} cannot be started: {}", start_error(said)),
            Self::CannotStart { at, said, .. } => write!(f, "{at} cannot be created yet: {said}"),
            Self::Crash { at, code: Some(code), restarts, .. } => write!(f, "{at} exits with code {code}{restarts}"),
            Self::Crash { at, code: None, restarts, .. } => write!(f, "{at} ends{restarts}"),
            Self::OutOfMemory { at, limit, restarts } => {
                write!(f, "{at} runs out of memory (OOMKilled{}){restarts}", named_limit(limit.as_deref()))
            }
            Self::ShimEnded { at, limit, restarts } => write!(
                f,
                "{at} could not start, or was out of memory (exit code 137{}){restarts}: Spin's shim exits with this code in both cases",
                named_limit(limit.as_deref())
            ),
            Self::Killed { at, probe, restarts, said } => {
                let probe = if *probe == Probe::Liveness { "liveness" } else { "startup" };
                write!(f, "{at} is killed by its {probe} probe{restarts}: {said}")
            }
            Self::PostStartHook { at, restarts, said } => {
                write!(f, "the postStart hook of {at} fails{restarts}: {said}")
            }
            Self::Mount { pod, said } => write!(f, "a volume of pod {pod} cannot be mounted: {said}"),
            Self::Sandbox { pod, class, said, .. } => {
                let class = class.as_ref().map_or_else(String::new, |class| format!(" of RuntimeClass {class}"));
                write!(f, "the sandbox{class} of pod {pod} cannot be created: {}", last_sentence(said))
            }
            Self::Rejected { pod, why, count, said } => {
                write!(f, "the kubelet rejects pod {pod} ({why}, {count} pods so far): {said}")
            }
            Self::NoPod { refusal: Refusal::WebhookAway, said } => {
                write!(f, "no pod can be created while an admission webhook is away: {said}")
            }
            Self::NoPod { said, .. } => write!(f, "no pod can be created: {said}"),
            Self::Unschedulable { pod, node_comes: Some(how), .. } => {
                write!(f, "pod {pod} cannot be scheduled yet, waiting for a node: {how}")
            }
            Self::Unschedulable { pod, said, .. } => write!(f, "pod {pod} cannot be scheduled: {said}"),
            Self::NeverReady { at, path } => {
                write!(f, "{at}{} runs but never becomes ready", on_node(at.node.as_deref()))?;
                path.as_ref().map_or(Ok(()), |path| write!(f, " (GET {path})"))
            }
            Self::NodeNotReady { pod, node } => {
                write!(f, "pod {pod}{} runs but is not ready: is its node ready?", on_node(node.as_deref()))
            }
            Self::Gate { pod, gate, said } => write!(f, "the readiness gate {gate} of pod {pod} is not True: {said}"),
            Self::NotStarted { pod: Some(pod) } => write!(f, "pod {pod} does not start"),
            Self::NotStarted { pod: None } => f.write_str("the missing pods were not created"),
            Self::Deleted => f.write_str("the Deployment was deleted during its rollout"),
            Self::ImageChanged { image, commit } => {
                write!(
                    f,
                    "the Deployment's image is {image}, which was not built from commit {commit}: was it changed by hand?"
                )
            }
        }
    }
}

fn image_sentence(f: &mut fmt::Formatter<'_>, image: &str, pull: Pull, said: &str) -> fmt::Result {
    match pull {
        Pull::Missing => write!(f, "image {image} does not exist (the registry: {said})"),
        Pull::OtherPlatform => write!(f, "image {image} is not built for this node's platform ({said})"),
        Pull::Refused => write!(f, "the registry refuses image {image} ({said})"),
        Pull::TooOften => write!(f, "the registry limits how often image {image} is pulled ({said})"),
        Pull::InvalidName => write!(f, "image {image} is not a valid name ({said})"),
        Pull::NeverPulled => write!(f, "image {image} is not on the node and is never pulled (imagePullPolicy: Never)"),
        Pull::Failed => write!(f, "image {image} cannot be pulled: is the registry available? ({said})"),
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "container {} of pod {}", self.container, self.pod)
    }
}

impl fmt::Display for Restarts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { settled: false, .. } => f.write_str("; the kubelet restarts it"),
            Self { count: 1, .. } => f.write_str(" again (1 restart)"),
            Self { count, .. } => write!(f, " again and again ({count} restarts)"),
        }
    }
}

fn named_limit(limit: Option<&str>) -> String {
    limit.map_or_else(String::new, |limit| format!(", memory limit {limit}"))
}

/// ` on NODE`, or nothing if the pod has no node.
pub(crate) fn on_node(node: Option<&str>) -> String {
    node.map_or_else(String::new, |node| format!(" on {node}"))
}

/// The innermost of several wrapped errors, with as much context as it needs to be understood.
pub(crate) fn last_sentence(message: &str) -> &str {
    let message = message.trim();
    let mut start = message.len();
    while let Some(at) = message[..start].rfind(": ") {
        let rest = &message[at + 2..];
        let before = message[..at].rsplit(": ").next().unwrap_or_default();
        start = at;
        // A single word, an address or a time needs the part in front of it to be understood. A single word in front of a
        // part names its subject.
        let is_whole = rest.contains(' ') && !rest.starts_with("http") && !rest.starts_with("current time");
        if is_whole && !before.chars().all(|c| c.is_ascii_alphanumeric()) {
            return rest;
        }
    }
    message
}

/// runc and the shims end every message with `: unknown`.
fn start_error(message: &str) -> &str {
    let message = message.strip_suffix(": unknown").unwrap_or(message);
    message.rsplit_once("unable to start container process: ").map_or(message, |(_, reason)| reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_last_sentence_of_a_wrapped_error_is_shown() {
        for (message, shown) in [
            ("failed to resolve reference \"a:b\": a:b: not found", "not found"),
            ("failed to do request: dial tcp 10.0.0.1:443: connect: connection refused", "connect: connection refused"),
            (
                "unexpected status: 429 Too Many Requests - Server message: toomanyrequests: You have reached your pull rate limit. You may increase the limit by authenticating and upgrading: https://www.docker.com/increase-rate-limit",
                "toomanyrequests: You have reached your pull rate limit. You may increase the limit by authenticating and upgrading: https://www.docker.com/increase-rate-limit",
            ),
            (
                "Head \"https://a/v2/\": tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time 2026-11-25T04:00:00Z is after 2026-01-01T00:00:00Z",
                "x509: certificate has expired or is not yet valid: current time 2026-11-25T04:00:00Z is after 2026-01-01T00:00:00Z",
            ),
            ("failed to copy: read tcp: EOF", "read tcp: EOF"),
            ("one", "one"),
            ("", ""),
        ] {
            assert_eq!(last_sentence(message), shown);
        }
    }
}
