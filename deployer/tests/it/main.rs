//! Rollouts on a real control plane. The API server, its controllers and its scheduler are real, the kubelets are the
//! tests, which write what real kubelets wrote (tests/observed).

mod control_plane;
mod network;
mod node;
mod scene;
mod situations;

use std::process::ExitCode;
use std::sync::OnceLock;

use libtest_mimic::{Arguments, Trial};
use tokio::runtime::Runtime;

use crate::control_plane::ControlPlane;

/// The tests wait more than they compute.
const THREADS: usize = 10;

/// Where the tests run: started with the first, stopped after the last.
pub(crate) struct Bed {
    runtime: Runtime,
    plane: OnceLock<ControlPlane>,
}

impl Bed {
    fn plane(&'static self) -> &'static ControlPlane {
        self.plane.get_or_init(|| {
            self.runtime.block_on(async {
                let plane = ControlPlane::start().await;
                for name in ["node-a", "node-b"] {
                    node::add(&plane.client, name, serde_json::json!({})).await;
                }
                plane
            })
        })
    }

    pub(crate) fn trial<F>(&'static self, name: impl Into<String>, test: F) -> Trial
    where
        F: AsyncFnOnce(&'static ControlPlane) + Send + 'static,
    {
        Trial::test(name, move || {
            let plane = self.plane();
            self.runtime.block_on(test(plane));
            Ok(())
        })
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    if !arguments.list && let Err(error) = control_plane::binaries() {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    let runtime = Runtime::new().expect("threads can be started");
    let bed: &'static Bed = Box::leak(Box::new(Bed { runtime, plane: OnceLock::new() }));
    let conclusion = libtest_mimic::run(&arguments, situations::trials(bed));
    if let Some(plane) = bed.plane.get() {
        plane.stop();
    }
    conclusion.exit_code()
}
