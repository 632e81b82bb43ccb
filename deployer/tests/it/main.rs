//! Rollouts on a real control plane. The API server, its controllers and its scheduler are real. The tests play the
//! kubelets, and write what real kubelets wrote (tests/observed).

mod commands;
mod connection;
mod contention;
mod control_plane;
mod cost;
mod failures;
mod hints;
mod history;
mod input;
mod kubeconfig;
#[path = "../../../e2e/tests/it/limit.rs"]
mod limit;
mod many;
mod network;
mod node;
mod outage;
mod proxy;
mod reported;
mod role;
mod scene;
mod situations;
mod yaml;

use std::process::ExitCode;
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Api;
use kube::api::PostParams;
use libtest_mimic::{Arguments, Trial};
use tokio::runtime::Runtime;

use crate::control_plane::ControlPlane;
use crate::limit::within;

/// How many tests run at once. They wait more than they compute.
const THREADS: usize = 10;
/// Of each test. The longest takes a minute on two cores that do nothing else.
const LIMIT: Duration = Duration::from_mins(5);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("threads can be started"));

/// Where the tests run: each control plane is started for the first test that needs it, and stopped after the last.
#[derive(Default)]
pub(crate) struct Bed {
    shared: OnceLock<ControlPlane>,
    /// For the tests that disturb their control plane.
    lone: OnceLock<ControlPlane>,
    turn: Mutex<()>,
}

impl Bed {
    /// A test that runs beside others, in a namespace of its own.
    pub(crate) fn trial<F>(&'static self, name: impl Into<String>, test: F) -> Trial
    where
        F: AsyncFnOnce(&'static ControlPlane) + Send + 'static,
    {
        let name = name.into();
        Trial::test(name.clone(), move || {
            let plane = self.shared.get_or_init(start);
            within(LIMIT, &name, move || RUNTIME.block_on(test(plane)))
        })
    }

    /// A test for each row of a table. They run beside others.
    pub(crate) fn rows<R, F>(&'static self, rows: &'static [R], name: impl Fn(&R) -> String, test: F) -> Vec<Trial>
    where
        R: Sync,
        F: AsyncFn(&'static ControlPlane, &'static R) + Copy + Send + 'static,
    {
        let trial = |row| self.trial(name(row), async move |plane| test(plane, row).await);
        rows.iter().map(trial).collect()
    }

    /// A test that has a control plane for itself.
    pub(crate) fn trial_alone<F>(&'static self, name: impl Into<String>, test: F) -> Trial
    where
        F: AsyncFnOnce(&'static ControlPlane) + Send + 'static,
    {
        let name = name.into();
        Trial::test(name.clone(), move || {
            // A failed test poisons the lock, but its control plane may still work.
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let plane = self.lone.get_or_init(start);
            within(LIMIT, &name, move || RUNTIME.block_on(test(plane)))
        })
    }
}

fn start() -> ControlPlane {
    RUNTIME.block_on(async {
        let plane = ControlPlane::start().await.unwrap_or_else(|error| {
            // Every test needs it, so each of them would fail with the same message.
            eprintln!("{error}");
            std::process::exit(1)
        });
        for name in ["node-a", "node-b"] {
            node::add(&plane.client, name, serde_json::json!({})).await;
        }
        let class = serde_json::json!({"metadata": {"name": "wasmtime-spin-v2"}, "handler": "spin-v2"});
        let class = serde_json::from_value(class).expect("this JSON is a RuntimeClass");
        Api::<RuntimeClass>::all(plane.client.clone())
            .create(&PostParams::default(), &class)
            .await
            .expect("the RuntimeClass can be created");
        plane
    })
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    let bed: &'static Bed = Box::leak(Box::default());
    let trials = [
        outage::trials(bed),
        failures::trials(bed),
        situations::trials(bed),
        reported::trials(bed),
        history::trials(bed),
        contention::trials(bed),
        many::trials(bed),
        role::trials(bed),
        input::trials(bed),
        connection::trials(bed),
        kubeconfig::trials(bed),
        hints::trials(bed),
        yaml::trials(bed),
        commands::trials(bed),
        cost::trials(bed),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials.into_iter().flatten().collect());
    for plane in [&bed.shared, &bed.lone].into_iter().filter_map(OnceLock::get) {
        plane.stop();
    }
    conclusion.exit_code()
}
