//! Which of the two images pods run.

/// Each is named after its target in the Dockerfile.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// Spin's shim, or the bed's handler in its place, runs the component.
    Shim,
    /// The image holds the project's host.
    Standalone,
}

impl Runtime {
    /// The image that the tests deploy: make's `RUNTIME`.
    pub(crate) fn of_this_run() -> Self {
        match std::env::var("RUNTIME").as_deref() {
            Err(_) | Ok("shim") => Self::Shim,
            Ok("standalone") => Self::Standalone,
            Ok(other) => panic!("RUNTIME is {other:?}, which is neither shim nor standalone"),
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Shim => Self::Standalone,
            Self::Standalone => Self::Shim,
        }
    }
}
