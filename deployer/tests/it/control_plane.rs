//! A real control plane. `e2e/control-plane.sh` starts it, as any user, on loopback and free ports.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::Value;

use crate::network::{Network, Tls};

const LAUNCHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../e2e/control-plane.sh");

/// The time limit of a command. The launcher's own limit for the API server is 90 s.
const PATIENCE: Duration = Duration::from_mins(2);

/// The administrator's kubeconfig.
const ADMIN: &str = "admin.kubeconfig";

pub(crate) struct ControlPlane {
    directory: PathBuf,
    /// The directory of the programs, which has kubectl, too.
    pub(crate) binaries: PathBuf,
    /// The port of the API server.
    pub(crate) port: u16,
    launcher: Mutex<Launcher>,
    pub(crate) network: Network,
    pub(crate) tls: Tls,
    pub(crate) client: Client,
}

impl ControlPlane {
    /// The directory of a process's control plane, by process ID and number.
    pub(crate) fn directory_of(process: u32, number: u32) -> PathBuf {
        std::env::temp_dir().join(format!("control-plane-{process}-{number}"))
    }

    /// Returns when rollouts can begin. Call it within a tokio runtime.
    pub(crate) async fn start() -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let directory = Self::directory_of(std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let launcher = Launcher::start(&directory)?;
        let tls = Tls::of(&directory.join("certs"));
        let network = Network::start(&tls, &directory.join("egress"));
        let kubeconfig = Kubeconfig::read_from(directory.join(ADMIN)).expect("the launcher has written the kubeconfig");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let config = config.expect("the kubeconfig is complete");
        let port = config.cluster_url.port_u16().expect("the server's address has a port");
        let client = Client::try_from(config).expect("a client can be made without a server");
        Ok(Self { binaries: directory.join("bin"), directory, port, launcher: launcher.into(), network, tls, client })
    }

    fn ask(&self, command: &str) {
        let answer = self.launcher.lock().expect("the lock is not poisoned").ask(command);
        answer.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Stops the program with this name. Its connections stay open.
    pub(crate) fn freeze(&self, name: &str) {
        self.ask(&format!("signal STOP {name}"));
    }

    pub(crate) fn thaw(&self, name: &str) {
        self.ask(&format!("signal CONT {name}"));
    }

    /// Ends the API server and starts it again after `duration`. Its clients cannot continue their watches: etcd has
    /// forgotten the revisions that they ask for.
    pub(crate) async fn restart_api_server(&self, duration: Duration) {
        self.ask("end apiserver");
        tokio::time::timeout(PATIENCE, self.forget_the_past()).await.expect("etcd answers within two minutes");
        tokio::time::sleep(duration).await;
        self.ask("resume");
    }

    /// Compacts etcd up to a new revision. The API server does so every five minutes.
    async fn forget_the_past(&self) {
        let url = fs::read_to_string(self.directory.join("etcd.url")).expect("the launcher has written etcd.url");
        let etcd = Client::try_from(Config::new(url.trim().parse().expect("etcd.url has a URL")));
        let etcd = etcd.expect("a client can be made without a server");
        let ask = async |path: &str, body: Value| {
            let request = http::Request::post(path).body(body.to_string().into_bytes()).expect("the request is valid");
            etcd.request::<Value>(request).await.expect("etcd answers")
        };
        let written = ask("/v3/kv/put", serde_json::json!({"key": "YQ==", "value": "YQ=="})).await;
        ask("/v3/kv/compaction", serde_json::json!({"revision": written["header"]["revision"], "physical": true}))
            .await;
    }

    /// A directory that is removed with the control plane.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let directory = self.directory.join(name);
        fs::create_dir_all(&directory).expect("a directory can be made in the control plane's");
        directory
    }

    /// A program with the administrator's kubeconfig.
    pub(crate) fn kubectl(&self) -> tokio::process::Command {
        let mut command = self.running_kubectl(self.binaries.join("kubectl"));
        command.env("KUBECONFIG", self.directory.join(ADMIN));
        command
    }

    /// A program that may run kubectl, whose cache is removed with the control plane.
    pub(crate) fn running_kubectl(&self, program: impl AsRef<std::ffi::OsStr>) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(program);
        command.env("KUBECACHEDIR", self.directory.join("kubectl"));
        command
    }

    /// A kubeconfig with this port of 127.0.0.1, token and namespace.
    pub(crate) fn kubeconfig(&self, port: u16, token: &str, namespace: &str) -> Value {
        let text = fs::read_to_string(self.directory.join(ADMIN)).expect("the launcher has written the kubeconfig");
        let mut kubeconfig: Value = serde_json::from_str(&text).expect("the kubeconfig is JSON");
        kubeconfig["clusters"][0]["cluster"]["server"] = format!("https://127.0.0.1:{port}").into();
        kubeconfig["users"][0]["user"]["token"] = token.into();
        kubeconfig["contexts"][0]["context"]["namespace"] = namespace.into();
        kubeconfig
    }

    /// The requests of `user` to the API server so far, in order.
    pub(crate) fn requests_of(&self, user: &str) -> Vec<Request> {
        let log = fs::read_to_string(self.directory.join("audit.log")).expect("the audit log can be read");
        let (mut seen, mut requests) = (HashSet::new(), Vec::new());
        // The last line may be incomplete, and a watch has two entries with the same ID.
        for event in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            if event["user"]["username"] == user && seen.insert(text(&event["auditID"])) {
                requests.push(Request {
                    verb: text(&event["verb"]),
                    resource: resource(&event["objectRef"]),
                    uri: text(&event["requestURI"]),
                    is_conflict: event["responseStatus"]["code"] == 409,
                });
            }
        }
        requests
    }

    /// Ends all programs and removes the directory.
    pub(crate) fn stop(&self) {
        let ended = self.launcher.lock().expect("the lock is not poisoned").end();
        ended.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// The script. It ends the control plane when its standard input is closed. The operating system closes that in any case when
/// this process ends.
struct Launcher {
    process: Child,
    input: Option<ChildStdin>,
    output: Receiver<String>,
}

impl Launcher {
    fn start(directory: &Path) -> Result<Self, String> {
        let mut process = Command::new(LAUNCHER)
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0) // Ctrl-C must not end the launcher: it cleans up.
            .spawn()
            .map_err(|error| format!("{LAUNCHER}: {error}"))?;
        let lines = BufReader::new(process.stdout.take().expect("standard output is a pipe")).lines();
        let (sender, output) = mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let launcher = Self { input: process.stdin.take(), process, output };
        launcher.answer("start")?;
        Ok(launcher)
    }

    fn ask(&mut self, command: &str) -> Result<(), String> {
        let input = self.input.as_mut().ok_or("the control plane was stopped")?;
        // This fails if the launcher has ended. Its last output says why.
        let _ = writeln!(input, "{command}");
        self.answer(command)
    }

    fn answer(&self, command: &str) -> Result<(), String> {
        let (deadline, mut said) = (Instant::now() + PATIENCE, String::new());
        loop {
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line == "done" => return Ok(()),
                Ok(line) => said = said + "\n" + &line,
                Err(RecvTimeoutError::Timeout) => return Err(format!("`{command}` is not done in {PATIENCE:?}{said}")),
                Err(RecvTimeoutError::Disconnected) => return Err(format!("{LAUNCHER} ended at `{command}`{said}")),
            }
        }
    }

    fn end(&mut self) -> Result<(), String> {
        self.input = None;
        self.answer("end")?;
        self.process.wait().map(drop).map_err(|error| format!("{LAUNCHER}: {error}"))
    }
}

/// One request in the API server's audit log.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) verb: String,
    /// The resource, followed by a slash and its subresource, if it has one.
    pub(crate) resource: String,
    pub(crate) uri: String,
    /// Whether the request failed because somebody else had written the object.
    pub(crate) is_conflict: bool,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn resource(object: &Value) -> String {
    let subresource = object["subresource"].as_str().map(|subresource| format!("/{subresource}"));
    text(&object["resource"]) + &subresource.unwrap_or_default()
}
