//! How a run ends: a sentence for people, a stable word for programs, an exit code for the shell.

use std::fmt;

/// Why a run did not end with what was asked for. The names are the words of the document's `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is explained by the sentence of its cause")]
pub(crate) enum Reason {
    // The rollout failed.
    ImageMissing,
    ImageNameInvalid,
    ImageNeverPulled,
    PullRefused,
    PullFailed,
    ConfigMissing,
    RunsAsRoot,
    CannotStart,
    CrashLoop,
    OutOfMemory,
    StartFailedOrOutOfMemory,
    LivenessProbeFailed,
    StartupProbeFailed,
    PostStartHookFailed,
    VolumeNotMounted,
    RuntimeClassMissing,
    HandlerMissing,
    SandboxFailed,
    PodRejected,
    QuotaExceeded,
    PodForbidden,
    WebhookUnreachable,
    Unschedulable,
    NeverReady,
    ReadinessGate,
    ProgressDeadlineExceeded,
    DeploymentDeleted,
    ImageChanged,
    // Nothing was sent.
    InvalidInput,
    Paused,
    // Nothing was changed.
    ApiServerUnreachable,
    Unauthorized,
    Forbidden,
    DocumentRefused,
    DeploymentMissing,
    KubeconfigInvalid,
    CredentialPluginFailed,
    NoEarlierRevision,
    // Another commit has precedence.
    NotNewer,
    Superseded,
    Contested,
    // Look at once.
    RollbackFailed,
    WrongCommit,
    WrongDigest,
    // The rollout continues.
    TimedOut,
    AccessLost,
    Interrupted,
    Terminated,
}

#[cfg(test)]
impl Reason {
    pub(crate) const ALL: [Self; 48] = [
        Self::ImageMissing,
        Self::ImageNameInvalid,
        Self::ImageNeverPulled,
        Self::PullRefused,
        Self::PullFailed,
        Self::ConfigMissing,
        Self::RunsAsRoot,
        Self::CannotStart,
        Self::CrashLoop,
        Self::OutOfMemory,
        Self::StartFailedOrOutOfMemory,
        Self::LivenessProbeFailed,
        Self::StartupProbeFailed,
        Self::PostStartHookFailed,
        Self::VolumeNotMounted,
        Self::RuntimeClassMissing,
        Self::HandlerMissing,
        Self::SandboxFailed,
        Self::PodRejected,
        Self::QuotaExceeded,
        Self::PodForbidden,
        Self::WebhookUnreachable,
        Self::Unschedulable,
        Self::NeverReady,
        Self::ReadinessGate,
        Self::ProgressDeadlineExceeded,
        Self::DeploymentDeleted,
        Self::ImageChanged,
        Self::InvalidInput,
        Self::Paused,
        Self::ApiServerUnreachable,
        Self::Unauthorized,
        Self::Forbidden,
        Self::DocumentRefused,
        Self::DeploymentMissing,
        Self::KubeconfigInvalid,
        Self::CredentialPluginFailed,
        Self::NoEarlierRevision,
        Self::NotNewer,
        Self::Superseded,
        Self::Contested,
        Self::RollbackFailed,
        Self::WrongCommit,
        Self::WrongDigest,
        Self::TimedOut,
        Self::AccessLost,
        Self::Interrupted,
        Self::Terminated,
    ];
}

impl Reason {
    /// The exit code, and the word that the verdict begins with. As documented in `--help`.
    fn class(self) -> (u8, &'static str) {
        match self {
            Self::InvalidInput | Self::Paused => (2, "invalid"),
            Self::ApiServerUnreachable
            | Self::Unauthorized
            | Self::Forbidden
            | Self::DocumentRefused
            | Self::DeploymentMissing
            | Self::KubeconfigInvalid
            | Self::CredentialPluginFailed
            | Self::NoEarlierRevision => (3, "rejected"),
            Self::NotNewer => (4, "refused"),
            Self::Superseded | Self::Contested => (4, "superseded"),
            Self::RollbackFailed | Self::WrongCommit | Self::WrongDigest => (5, "broken"),
            Self::TimedOut | Self::AccessLost => (70, "unfinished"),
            Self::Interrupted => (130, "interrupted"),
            Self::Terminated => (143, "interrupted"),
            _ => (1, "failed"), // every cause for which a rollout fails
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The end of a run with the sentence that explains it.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    /// None where what was asked for is so.
    pub(crate) reason: Option<Reason>,
    /// One line, the cause first.
    pub(crate) cause: String,
}

impl Ending {
    /// What was asked for is so.
    pub(crate) fn done(cause: impl Into<String>) -> Self {
        Self { reason: None, cause: cause.into() }
    }

    /// An end that `cause` explains.
    pub(crate) fn new(reason: Reason, cause: impl Into<String>) -> Self {
        Self { reason: Some(reason), cause: cause.into() }
    }

    /// Bad input, told with everything that `error` has around it.
    pub(crate) fn invalid(error: &anyhow::Error) -> Self {
        Self::new(Reason::InvalidInput, format!("{error:#}"))
    }

    /// For the shell.
    pub(crate) fn exit_code(&self) -> u8 {
        self.reason.map_or(0, |reason| reason.class().0)
    }

    /// The word that the verdict begins with.
    pub(crate) fn outcome(&self) -> &'static str {
        self.reason.map_or("done", |reason| reason.class().1)
    }
}
