//! The cluster that e2e/cluster.sh sets up. The tests use it as people do: with kubectl, docker and the deployer.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::manifest::Manifest;
use crate::road::{Road, image};

/// The name of the shipped Deployment and Service.
pub(crate) const NAME: &str = "request-info";

/// An environment variable that e2e/cluster.sh sets.
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: these tests run inside `e2e/cluster.sh run`"))
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e/ is in the repository")
}

/// Runs a command to its end, and panics with its output unless it succeeds.
pub(crate) fn run(command: &mut Command) -> String {
    let output = output(command);
    let Output { status, stdout, stderr } = &output;
    assert!(
        status.success(),
        "{command:?}: {status}\n{}{}",
        String::from_utf8_lossy(stdout),
        String::from_utf8_lossy(stderr)
    );
    String::from_utf8_lossy(stdout).into_owned()
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Asks until there is an answer, and panics if it does not come in time.
pub(crate) fn await_some<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {within:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub(crate) fn await_true(what: &str, within: Duration, mut ask: impl FnMut() -> bool) {
    await_some(what, within, || ask().then_some(()));
}

/// The namespace of one test. It enforces Pod Security `restricted`, and the deployer runs in it as the shipped service
/// account, with the shipped Role.
pub(crate) struct Namespace {
    pub(crate) name: String,
    kubeconfig: PathBuf,
}

impl Namespace {
    pub(crate) fn create(name: &str) -> Self {
        let namespace =
            Self { name: name.to_owned(), kubeconfig: format!("{}/{name}.kubeconfig", variable("RUN")).into() };
        // A namespace of this name may still be terminating, because its pods end slowly.
        run(Command::new("kubectl").args(["delete", "namespace", name, "--ignore-not-found", "--timeout=120s"]));
        run(Command::new("kubectl").args(["create", "namespace", name]));
        let level = "pod-security.kubernetes.io/enforce=restricted";
        run(Command::new("kubectl").args(["label", "namespace", name, level]));
        namespace.kubectl(&[
            "apply",
            "-f",
            root().join("kubernetes/deployer-rbac.yaml").to_str().expect("the path is UTF-8"),
        ]);
        namespace.write_kubeconfig();
        namespace
    }

    /// Writes the administrator's kubeconfig with the token of the service account.
    fn write_kubeconfig(&self) {
        let token = self.kubectl(&["create", "token", "deployer", "--duration=2h"]);
        std::fs::copy(variable("KUBECONFIG"), &self.kubeconfig).expect("the administrator's kubeconfig can be copied");
        let kubeconfig = format!("--kubeconfig={}", self.kubeconfig.display());
        let token = format!("--token={}", token.trim());
        run(Command::new("kubectl").args([&kubeconfig, "config", "set-credentials", "deployer", &token]));
        run(Command::new("kubectl").args([&kubeconfig, "config", "set-context", "--current", "--user=deployer"]));
    }

    /// As the administrator.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        run(Command::new("kubectl").args(["--namespace", &self.name]).args(arguments))
    }

    /// As the administrator. The command must fail, and its error output is returned.
    pub(crate) fn kubectl_refused(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("kubectl");
        let output = output(command.args(["--namespace", &self.name]).args(arguments));
        assert!(!output.status.success(), "{command:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// As the administrator: creates or replaces an object of this namespace.
    pub(crate) fn apply(&self, document: &Value) {
        let file = self.kubeconfig.with_extension("json");
        std::fs::write(&file, document.to_string()).expect("the file can be written");
        self.kubectl(&["apply", "-f", file.to_str().expect("the path is UTF-8")]);
    }

    pub(crate) fn get(&self, arguments: &[&str]) -> Value {
        let text = self.kubectl(&[&["get", "--output=json"], arguments].concat());
        serde_json::from_str(&text).expect("kubectl prints JSON")
    }

    /// Admits pods that `restricted` does not.
    pub(crate) fn allow_everything(&self) {
        let level = "pod-security.kubernetes.io/enforce=privileged";
        run(Command::new("kubectl").args(["label", "--overwrite", "namespace", &self.name, level]));
    }

    /// The pods of the Deployment that are not being deleted and have not ended.
    pub(crate) fn pods(&self) -> Vec<Value> {
        let mut list = self.get(&["pods", &format!("--selector=app.kubernetes.io/name={NAME}")]);
        let Value::Array(mut pods) = list["items"].take() else { panic!("no list of pods: {list}") };
        pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["phase"] != "Failed");
        pods
    }

    /// `deployer ARGUMENTS`, as Jenkins calls it: under the shipped Role, in the clone that it builds.
    pub(crate) fn deployer(&self, road: &Road, arguments: &[&str]) -> Command {
        let mut command = Command::new(variable("DEPLOYER"));
        command.current_dir(road.clone.path()).env("KUBECONFIG", &self.kubeconfig);
        command.args(arguments).args(["--namespace", &self.name, "--output", "json"]);
        command
    }

    pub(crate) fn deploy(&self, road: &Road, manifest: &Manifest, commit: &str, flags: &[&str]) -> Outcome {
        self.deploy_image(road, manifest, commit, &image(commit), flags)
    }

    pub(crate) fn deploy_image(
        &self,
        road: &Road,
        manifest: &Manifest,
        commit: &str,
        image: &str,
        flags: &[&str],
    ) -> Outcome {
        let template = self.kubeconfig.with_extension("yaml.tmp");
        manifest.write(&template);
        let template = template.to_str().expect("the path is UTF-8");
        let arguments = ["deploy", "--image", image, "--commit", commit, "--template", template];
        Outcome::of(&mut self.deployer(road, &[&arguments, flags].concat()))
    }

    /// The address of the Service on a node.
    pub(crate) fn node_port(&self, node: &str) -> SocketAddr {
        let nodes = self.get(&["node", node]);
        let addresses = nodes["status"]["addresses"].as_array().expect("a node has addresses");
        let address =
            addresses.iter().find(|address| address["type"] == "InternalIP").expect("a node has an InternalIP");
        let port = &self.get(&["service", NAME])["spec"]["ports"][0]["nodePort"];
        let door = format!("{}:{port}", address["address"].as_str().expect("an address is text"));
        let door = door.parse().expect("a node's address and port are a socket address");
        // A pod is ready before every node's kube-proxy knows it.
        await_true("the node passes visitors on", Duration::from_mins(1), || {
            crate::visitors::get(door, "/?format=json").is_ok()
        });
        door
    }

    /// Puts the balancer in front of this namespace's Service, asking each node every `interval`, and waits until it
    /// passes visitors on.
    pub(crate) fn balance(&self, interval: &str) -> LoadBalancer {
        let service = self.get(&["service", NAME]);
        let port = service["spec"]["ports"][0]["nodePort"].to_string();
        let health = service["spec"]["healthCheckNodePort"].to_string();
        run(Command::new(root().join("e2e/cluster.sh"))
            .args(["load-balancer", &port, &health])
            .env("INTERVAL", interval));
        let balancer =
            LoadBalancer { address: format!("{}:80", variable("EDGE")).parse().expect("EDGE is an address") };
        // It uses the nodes in turn, and assumes that each is healthy until it has checked, so one answer is not a proof.
        await_true("the load balancer passes visitors on", Duration::from_mins(1), || {
            (0..10).all(|_| crate::visitors::get(balancer.address, "/?format=json").is_ok())
        });
        balancer
    }
}

impl Drop for Namespace {
    /// Makes room for the pods of the next test.
    fn drop(&mut self) {
        let _ = Command::new("kubectl").args(["delete", "namespace", &self.name, "--wait=false"]).output();
    }
}

pub(crate) struct LoadBalancer {
    pub(crate) address: SocketAddr,
}

impl Drop for LoadBalancer {
    fn drop(&mut self) {
        stop("haproxy");
    }
}

/// Kills a component of the cluster with SIGKILL.
pub(crate) fn stop(component: &str) {
    let pid =
        std::fs::read_to_string(format!("{}/{component}.pid", variable("RUN"))).expect("the bed wrote a pid file");
    run(Command::new("kill").args(["-KILL", pid.trim()]));
}

/// Starts a component of the cluster again, with the same command.
pub(crate) fn restart(component: &str) {
    run(Command::new(root().join("e2e/cluster.sh")).args(["restart", component]));
}

/// The id of the process that a pod runs, in the cluster's process namespace.
pub(crate) fn process_of(pod_uid: &str) -> u32 {
    let processes = std::fs::read_dir("/proc").expect("proc is mounted").filter_map(|entry| {
        let id = entry.ok()?.file_name().to_str()?.parse::<u32>().ok()?;
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{id}/{file}")).ok();
        (read("cgroup")?.contains(pod_uid) && read("comm")?.trim() != "pause").then_some(id)
    });
    let processes: Vec<_> = processes.collect();
    assert_eq!(processes.len(), 1, "pod {pod_uid} runs processes {processes:?}");
    processes[0]
}

/// The result of a call of the deployer.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) exit_code: i32,
    /// The document on stdout.
    pub(crate) report: Value,
    /// The text on stderr.
    pub(crate) log: String,
}

impl Outcome {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = output(command);
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        let exit_code = output.status.code().unwrap_or_else(|| panic!("{command:?} ended by a signal\n{log}"));
        let report = serde_json::from_slice(&output.stdout);
        let report = report.unwrap_or_else(|error| panic!("{command:?}: no JSON on stdout: {error}\n{log}"));
        Self { exit_code, report, log }
    }

    /// Panics with everything the deployer printed, unless it ended with this exit code.
    pub(crate) fn expect(self, exit_code: i32) -> Self {
        assert_eq!(self.exit_code, exit_code, "{}\n{:#}", self.log, self.report);
        assert_eq!(self.report["exit_code"], json!(exit_code), "{:#}", self.report);
        self
    }

    /// Panics unless this is the report's `reason`.
    pub(crate) fn because(self, reason: &str) -> Self {
        assert_eq!(self.report["reason"], json!(reason), "{}\n{:#}", self.log, self.report);
        self
    }

    /// Panics unless stderr contains all of these texts.
    pub(crate) fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.log.contains(word), "nothing about {word:?} in:\n{}", self.log);
        }
        self
    }
}
