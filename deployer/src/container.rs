//! What a container's status means for the rollout that it is part of.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use crate::pod;
use crate::rollout::Cause;

/// How long a kubelet may say that a `ConfigMap` or Secret is missing: its caches lag behind the API server.
const CONFIGURATION_GRACE: SignedDuration = SignedDuration::from_secs(10);

/// What a container's status comes to.
pub(crate) enum Finding {
    /// Nothing is wrong, as far as it goes.
    Fine,
    /// May still turn out well.
    Doubt(String),
    /// Certain from this time on.
    DoomedFrom(Timestamp, Cause),
}

/// Judges a container. Restarts count against one whose pod is young, made by this rollout; what is older may have
/// restarts behind it that are no news.
pub(crate) fn examine(pod: &Arc<Pod>, status: &ContainerStatus, is_young: bool) -> Finding {
    let name = &status.name;
    let cause = |summary: String, detail: Option<&str>| Cause {
        summary,
        pod: Some(Arc::clone(pod)),
        container: Some(name.clone()),
        detail: detail.map(str::to_owned),
    };
    let certain = |cause| Finding::DoomedFrom(Timestamp::MIN, cause);
    let at = format!("container {name} of pod {}", pod.name_any());
    let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
    let reason = waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or_default();
    let message = waiting.and_then(|waiting| waiting.message.as_deref()).unwrap_or_default();
    let ends: Vec<&ContainerStateTerminated> = pod::ends(status).collect();

    match reason {
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
            return match PullFailure::of(reason, message, &status.image) {
                failure if failure.is_certain() => {
                    certain(cause(failure.summary(&status.image, message), Some(message)))
                }
                failure => Finding::Doubt(failure.summary(&status.image, message)),
            };
        }
        "CreateContainerConfigError" => {
            let from = pod::status_since(pod) + CONFIGURATION_GRACE;
            return Finding::DoomedFrom(from, cause(format!("{at} cannot be configured: {message}"), Some(message)));
        }
        // A kubelet that is short of time says so in these words, and tries again.
        "CreateContainerError"
            if ["deadline exceeded", "is reserved for", "timed out"].iter().any(|w| message.contains(w)) =>
        {
            return Finding::Doubt(format!("{at} cannot be created yet: {message}"));
        }
        "CreateContainerError" | "RunContainerError" => {
            return certain(cause(format!("{at} cannot be started: {}", start_error(message)), Some(message)));
        }
        _ => {}
    }
    if let Some(end) =
        ends.iter().find(|end| matches!(end.reason.as_deref(), Some("StartError" | "ContainerCannotRun")))
    {
        let message = end.message.as_deref().unwrap_or("no reason given");
        return certain(cause(format!("{at} cannot be started: {}", start_error(message)), Some(message)));
    }

    let out_of_memory = ends.iter().filter(|end| end.reason.as_deref() == Some("OOMKilled")).count();
    let again_and_again = reason == "CrashLoopBackOff" || (is_young && status.restart_count >= 2) || out_of_memory >= 2;
    let Some(end) = ends.first().filter(|end| end.exit_code != 0 || !pod::is_init(pod, name)) else {
        return if again_and_again {
            certain(cause(format!("{at} ends again and again"), Some(message)))
        } else {
            Finding::Fine
        };
    };
    let how = if out_of_memory > 0 {
        format!("is killed for memory (OOMKilled{})", pod::memory_limit(pod, name))
    } else {
        format!("exits with code {}", end.exit_code)
    };
    if again_and_again {
        let restarts = match status.restart_count {
            1 => "1 restart".to_owned(),
            restarts => format!("{restarts} restarts"),
        };
        return certain(cause(format!("{at} {how} again and again ({restarts})"), end.message.as_deref()));
    }
    // A restart of long ago, as a pod that is deployed anew may have behind it, is no news.
    if is_young { Finding::Doubt(format!("{at} {how}; the kubelet starts it anew")) } else { Finding::Fine }
}

/// What the words of a failed pull mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PullFailure {
    Missing,
    WrongPlatform,
    Refused,
    Invalid,
    NeverPulled,
    Unknown,
}

impl PullFailure {
    fn of(reason: &str, message: &str, image: &str) -> Self {
        // The image's own name may have any of these words in it.
        let words = message.replace(image, "").to_lowercase();
        let has = |marks: &[&str]| marks.iter().any(|mark| words.contains(mark));
        match reason {
            "InvalidImageName" => Self::Invalid,
            "ErrImageNeverPull" => Self::NeverPulled,
            _ if has(&["dial tcp", "i/o timeout"]) => Self::Unknown,
            _ if has(&["no match for platform"]) => Self::WrongPlatform,
            _ if has(&["unauthorized", "forbidden", "denied", "authentication required", "no basic auth"]) => {
                Self::Refused
            }
            _ if has(&["not found", "manifest unknown", "name unknown", "does not exist"]) => Self::Missing,
            _ => Self::Unknown,
        }
    }

    fn is_certain(self) -> bool {
        self != Self::Unknown
    }

    fn summary(self, image: &str, message: &str) -> String {
        let said = last_words(message);
        match self {
            Self::Missing => format!("image {image} does not exist (the registry: {said})"),
            Self::WrongPlatform => format!("image {image} is not made for the platform of this node ({said})"),
            Self::Refused => format!("the registry refuses image {image} ({said})"),
            Self::Invalid => format!("image {image} is no valid name ({said})"),
            Self::NeverPulled => {
                format!("image {image} is not on the node and is never pulled (imagePullPolicy: Never)")
            }
            Self::Unknown => format!("image {image} cannot be pulled, is the registry away? ({said})"),
        }
    }
}

/// What stands after the last colon: errors are wrapped from the outside, and the reason is innermost.
pub(crate) fn last_words(message: &str) -> &str {
    message.rsplit(": ").next().unwrap_or(message).trim()
}

/// runc and the shims end every message with `: unknown`.
fn start_error(message: &str) -> &str {
    let message = message.strip_suffix(": unknown").unwrap_or(message);
    message.rsplit_once("unable to start container process: ").map_or(message, |(_, reason)| reason)
}
