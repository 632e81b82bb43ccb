//! How a run ends: one word for people and programs, one exit code for the shell.

use std::fmt;

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// What was asked for is so.
    Done,
    /// The rollout failed.
    Failed,
    /// Usage, template, image or commit: nothing was sent.
    Invalid,
    /// The API server is away, does not let us, or refuses a document.
    Rejected,
    /// The commit is not newer than the one that runs.
    NotNewer,
    /// Somebody applied another commit meanwhile.
    Superseded,
    /// The rollout failed and so did going back, or pods prove another commit.
    Broken,
    /// Time is up; the rollout goes on.
    Unfinished,
    /// SIGINT.
    Interrupted,
    /// SIGTERM.
    Terminated,
}

impl Outcome {
    /// As documented in `--help`.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Invalid => 2,
            Self::Rejected => 3,
            Self::NotNewer | Self::Superseded => 4,
            Self::Broken => 5,
            Self::Unfinished => 70,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Invalid => "invalid",
            Self::Rejected => "rejected",
            Self::NotNewer => "refused",
            Self::Superseded => "superseded",
            Self::Broken => "broken",
            Self::Unfinished => "unfinished",
            Self::Interrupted | Self::Terminated => "interrupted",
        })
    }
}

/// The end of a run with the sentence that explains it.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    /// What it came to.
    pub(crate) outcome: Outcome,
    /// One line, the cause first.
    pub(crate) cause: String,
}

impl Ending {
    /// An end that `cause` explains.
    pub(crate) fn new(outcome: Outcome, cause: impl Into<String>) -> Self {
        Self { outcome, cause: cause.into() }
    }

    /// Bad input, told with everything that `error` has around it.
    pub(crate) fn invalid(error: &anyhow::Error) -> Self {
        Self::new(Outcome::Invalid, format!("{error:#}"))
    }
}
