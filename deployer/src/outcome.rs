//! How a run ends: a sentence for people, a stable word for programs, an exit code for the shell.

use std::fmt;

/// Exit code and first word of the verdict, and the causes that end so.
macro_rules! reasons {
    ($($code:literal $word:literal { $($reason:ident)+ })+) => {
        /// Why a run did not succeed. The names are the words of the document's `reason`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Reason {
            $($(
                #[allow(missing_docs, reason = "explained by the sentence of its cause")]
                $reason,
            )+)+
        }

        impl Reason {
            /// All of them.
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$($(Self::$reason,)+)+];

            /// The exit code, and the word that the verdict begins with. As documented in `--help`.
            fn class(self) -> (u8, &'static str) {
                match self {
                    $($(Self::$reason)|+ => ($code, $word),)+
                }
            }
        }
    };
}

reasons! {
    // The rollout failed.
    1 "failed" {
        ImageMissing ImageNameInvalid ImageNeverPulled PullRefused PullFailed ConfigMissing RunsAsRoot CannotStart
        CrashLoop OutOfMemory StartFailedOrOutOfMemory LivenessProbeFailed StartupProbeFailed PostStartHookFailed
        VolumeNotMounted RuntimeClassMissing HandlerMissing SandboxFailed PodRejected QuotaExceeded PodForbidden
        WebhookUnreachable Unschedulable NeverReady ReadinessGate ProgressDeadlineExceeded DeploymentDeleted ImageChanged
    }
    // Nothing was sent.
    2 "invalid" { InvalidInput Paused }
    // Nothing was changed.
    3 "rejected" {
        ApiServerUnreachable Unauthorized Forbidden DocumentRefused DeploymentMissing KubeconfigInvalid
        CredentialPluginFailed NoEarlierRevision
    }
    // Another commit has precedence.
    4 "refused" { NotNewer }
    4 "superseded" { Superseded Contested }
    // Look at once.
    5 "broken" { RollbackFailed WrongCommit WrongDigest }
    // The rollout continues.
    70 "unfinished" { TimedOut AccessLost }
    130 "interrupted" { Interrupted }
    143 "interrupted" { Terminated }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The end of a run with the sentence that explains it.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    /// None if the run succeeded.
    pub(crate) reason: Option<Reason>,
    /// One line, the cause first.
    pub(crate) cause: String,
}

impl Ending {
    /// The run succeeded.
    pub(crate) fn done(cause: impl Into<String>) -> Self {
        Self { reason: None, cause: cause.into() }
    }

    /// An end that `cause` explains.
    pub(crate) fn new(reason: Reason, cause: impl Into<String>) -> Self {
        Self { reason: Some(reason), cause: cause.into() }
    }

    /// Bad input, with the whole chain of `error`.
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
