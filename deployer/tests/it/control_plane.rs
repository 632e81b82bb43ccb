//! A real control plane: etcd, API server, controllers and scheduler, as any user, on loopback and free ports.

use std::collections::HashSet;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;

use crate::network::{Network, Tls};

/// Starts each line `NAME COMMAND` that it reads. When our end of its standard input is closed, which the operating
/// system does however we end, it ends them all and removes their directory.
const SUPERVISOR: &str = r#"
while read -r name command; do
    eval "exec $command" >>"$0/$name.log" 2>&1 &
    echo $! >"$0/$name.pid"
    pids="$pids $!"
done
kill -KILL $pids 2>&1
wait
rm -rf "$0"
"#;

/// Those that rollouts need. Not among them is the one that declares silent nodes lost: nodes are silent here.
const CONTROLLERS: &str = "deployment-controller,replicaset-controller,serviceaccount-controller,\
    resourcequota-controller,garbage-collector-controller,disruption-controller";

/// Every request by whom and with which answer, watches when they begin and when they end.
const AUDIT_POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}]}"#;

const ADMIN: &str = "admin";

pub(crate) struct ControlPlane {
    directory: PathBuf,
    /// Where the programs are, kubectl among them.
    pub(crate) binaries: PathBuf,
    etcd_port: u16,
    /// The API server's.
    pub(crate) port: u16,
    supervisor: Mutex<Option<Child>>,
    pub(crate) network: Network,
    pub(crate) tls: Tls,
    pub(crate) client: Client,
}

impl ControlPlane {
    /// Where the process of this id keeps its control plane of this number.
    pub(crate) fn directory_of(process: u32, number: u32) -> PathBuf {
        std::env::temp_dir().join(format!("control-plane-{process}-{number}"))
    }

    /// Returns when rollouts can begin. To be called within a tokio runtime.
    pub(crate) async fn start() -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let binaries = binaries()?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = Self::directory_of(std::process::id(), number);
        fs::create_dir(&directory).unwrap_or_else(|error| panic!("cannot create {}: {error}", directory.display()));
        let supervisor = Command::new("sh")
            .args(["-c", SUPERVISOR])
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // A Ctrl-C is ours; what it leaves to do is the supervisor's.
            .spawn()
            .expect("sh runs");

        let identity = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("the name is one");
        let tls = Tls::of(&identity);
        let network = Network::start(&tls, &directory.join("egress"));
        write_settings(&directory, &identity);
        let (port, etcd_port) = (free_port(), free_port());
        for user in [ADMIN, "controllers", "scheduler"] {
            fs::write(directory.join(user), kubeconfig(port, user, "default", &directory).to_string()).expect("it can");
        }
        let client = client(&directory.join(ADMIN)).await;
        let supervisor = Some(supervisor).into();
        let plane = Self { directory, binaries, etcd_port, port, supervisor, network, tls, client };

        let (urls, peers) = (format!("http://127.0.0.1:{etcd_port}"), format!("http://127.0.0.1:{}", free_port()));
        plane.run(
            "etcd",
            &format!(
                "--data-dir DIR/etcd --unsafe-no-fsync --log-level error --listen-client-urls {urls} \
                 --advertise-client-urls {urls} --listen-peer-urls {peers} --initial-advertise-peer-urls {peers} \
                 --initial-cluster default={peers}"
            ),
        );
        plane.start_api_server().await?;
        plane.start_controllers();
        Ok(plane)
    }

    fn start_controllers(&self) {
        self.run(
            "kube-controller-manager",
            &format!(
                "--kubeconfig DIR/controllers --leader-elect=false --secure-port 0 --controllers {CONTROLLERS} \
                 --kube-api-qps 500 --kube-api-burst 1000 --concurrent-deployment-syncs 10 --concurrent-replicaset-syncs 10"
            ),
        );
        self.run("kube-scheduler", "--config DIR/scheduler.json --secure-port 0");
    }

    /// `Err` is what to tell people.
    async fn start_api_server(&self) -> Result<(), String> {
        let Self { etcd_port, port, .. } = self;
        self.run(
            "kube-apiserver",
            &format!(
                "--etcd-servers http://127.0.0.1:{etcd_port} --bind-address 127.0.0.1 --secure-port {port} \
                 --advertise-address 127.0.0.1 --endpoint-reconciler-type none --service-cluster-ip-range 10.96.0.0/16 \
                 --tls-cert-file DIR/certificate.pem --tls-private-key-file DIR/key.pem \
                 --service-account-issuer https://kubernetes.default.svc \
                 --service-account-key-file DIR/public.pem --service-account-signing-key-file DIR/key.pem \
                 --authorization-mode RBAC --token-auth-file DIR/tokens.csv \
                 --audit-policy-file DIR/audit-policy.json --audit-log-path DIR/audit.log \
                 --egress-selector-config-file DIR/egress.json --kubelet-preferred-address-types InternalIP \
                 --profiling=false"
            ),
        );
        let deadline = Instant::now() + Duration::from_secs(90);
        let ready = || http::Request::get("/readyz").body(Vec::new()).expect("it is a request");
        while self.client.request_text(ready()).await.is_err() {
            let log = || fs::read_to_string(self.directory.join("kube-apiserver.log")).unwrap_or_default();
            let failed = log().lines().any(|line| line.starts_with("Error:") || line.starts_with("panic:"));
            if failed || Instant::now() > deadline {
                return Err(format!("the API server does not start, it wrote:\n{}", log()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// `DIR` stands for the directory of this control plane.
    fn run(&self, name: &str, arguments: &str) {
        let quoted = format!("'{}'", self.directory.display());
        let arguments = arguments.replace("DIR", &quoted);
        let mut supervisor = self.supervisor.lock().expect("no panic holds it");
        let stdin = supervisor.as_mut().and_then(|child| child.stdin.as_mut()).expect("it is piped");
        writeln!(stdin, "{name} '{}' {arguments}", self.binaries.join(name).display()).expect("the supervisor reads");
    }

    fn signal(&self, name: &str, signal: &str) {
        let pid = fs::read_to_string(self.directory.join(format!("{name}.pid"))).expect("it runs");
        let status = Command::new("kill").args([signal, pid.trim()]).status();
        assert!(status.is_ok_and(|status| status.success()), "{name} cannot be sent {signal}");
    }

    /// It does nothing from now on, its connections stay.
    pub(crate) fn freeze(&self, name: &str) {
        self.signal(name, "-STOP");
    }

    pub(crate) fn thaw(&self, name: &str) {
        self.signal(name, "-CONT");
    }

    /// The API server is gone for a while. Whoever watched before is too far behind for the one that comes after it.
    pub(crate) async fn restart_api_server(&self, duration: Duration) {
        self.signal("kube-apiserver", "-KILL");
        self.forget_the_past().await;
        tokio::time::sleep(duration).await;
        self.start_api_server().await.unwrap_or_else(|error| panic!("{error}"));
        // These would ask again after half a minute.
        self.signal("kube-controller-manager", "-KILL");
        self.signal("kube-scheduler", "-KILL");
        self.start_controllers();
    }

    /// Lets etcd forget every revision but a new one, which takes it five minutes otherwise.
    async fn forget_the_past(&self) {
        let url = format!("http://127.0.0.1:{}", self.etcd_port).parse().expect("it is a URL");
        let etcd = Client::try_from(kube::Config::new(url)).expect("a client needs no server");
        let ask = async |path: &str, body: Value| {
            let request = http::Request::post(path).body(body.to_string().into_bytes()).expect("it is a request");
            etcd.request::<Value>(request).await.expect("etcd answers")
        };
        let written = ask("/v3/kv/put", serde_json::json!({"key": "YQ==", "value": "YQ=="})).await;
        ask("/v3/kv/compaction", serde_json::json!({"revision": written["header"]["revision"], "physical": true}))
            .await;
    }

    /// A directory that is removed with the control plane.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let directory = self.directory.join(name);
        fs::create_dir_all(&directory).expect("the control plane's directory can be written to");
        directory
    }

    /// The program, as somebody who may do everything.
    pub(crate) fn kubectl(&self) -> tokio::process::Command {
        let mut command = self.running_kubectl(self.binaries.join("kubectl"));
        command.env("KUBECONFIG", self.directory.join(ADMIN));
        command
    }

    /// A program that may run kubectl, which then leaves nothing behind.
    pub(crate) fn running_kubectl(&self, program: impl AsRef<std::ffi::OsStr>) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(program);
        command.env("KUBECACHEDIR", self.directory.join("kubectl"));
        command
    }

    /// What a client needs to be `token`'s owner at this port.
    pub(crate) fn kubeconfig(&self, port: u16, token: &str, namespace: &str) -> Value {
        kubeconfig(port, token, namespace, &self.directory)
    }

    /// What `user` has asked of the API server so far, in order.
    pub(crate) fn requests_of(&self, user: &str) -> Vec<Request> {
        let log = fs::read_to_string(self.directory.join("audit.log")).expect("the API server writes it");
        let (mut seen, mut requests) = (HashSet::new(), Vec::new());
        // The last line may not be whole yet; a watch has two entries under one id.
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

    /// Ends all of it, and returns when nothing is left.
    pub(crate) fn stop(&self) {
        if let Some(mut supervisor) = self.supervisor.lock().expect("no panic holds it").take() {
            drop(supervisor.stdin.take());
            supervisor.wait().expect("it is our child");
        }
    }
}

/// One request in the API server's audit log.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) verb: String,
    /// With its subresource, if any, after a slash.
    pub(crate) resource: String,
    pub(crate) uri: String,
    /// Whether somebody else had written the object in between.
    pub(crate) is_conflict: bool,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn resource(object: &Value) -> String {
    let subresource = object["subresource"].as_str().map(|subresource| format!("/{subresource}"));
    text(&object["resource"]) + &subresource.unwrap_or_default()
}

/// Where the control plane's programs are: `e2e/cluster.sh` knows where it builds them.
pub(crate) fn binaries() -> Result<PathBuf, String> {
    let names = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"];
    let holds_them = |directory: &PathBuf| names.iter().all(|name| directory.join(name).is_file());
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../e2e/cluster.sh");
    let answer = Command::new(script).arg("assets").output().map_err(|error| format!("{script} assets: {error}"))?;
    let built = PathBuf::from(String::from_utf8_lossy(&answer.stdout).trim_end());
    let candidates = [variable("KUBEBUILDER_ASSETS"), Some(built.clone())];
    candidates.into_iter().flatten().find(holds_them).ok_or_else(|| {
        format!(
            "no control plane to test on: {} are neither in {} nor in the directory that KUBEBUILDER_ASSETS names; \
             `make test` builds them first, and so does `e2e/cluster.sh binaries` (about 6 minutes, once)",
            names.join(", "),
            built.display()
        )
    })
}

fn write_settings(directory: &Path, identity: &rcgen::CertifiedKey<rcgen::KeyPair>) {
    let file = |name: &str, text: String| fs::write(directory.join(name), text).expect("the directory is ours");
    file("certificate.pem", identity.cert.pem());
    file("key.pem", identity.signing_key.serialize_pem());
    file("public.pem", identity.signing_key.public_key_pem());
    file(
        "tokens.csv",
        ["admin", "controllers", "scheduler"].map(|user| format!("{user},{user},{user},system:masters\n")).concat(),
    );
    file("audit-policy.json", AUDIT_POLICY.to_owned());
    let egress = serde_json::json!({
        "apiVersion": "apiserver.k8s.io/v1beta1",
        "kind": "EgressSelectorConfiguration",
        "egressSelections": [{"name": "cluster", "connection": {
            "proxyProtocol": "HTTPConnect",
            "transport": {"uds": {"udsName": directory.join("egress")}},
        }}],
    });
    file("egress.json", egress.to_string());
    let scheduler = serde_json::json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": false},
        "clientConnection": {"kubeconfig": directory.join("scheduler"), "qps": 500, "burst": 1000},
    });
    file("scheduler.json", scheduler.to_string());
}

fn kubeconfig(port: u16, token: &str, namespace: &str, directory: &Path) -> Value {
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority": directory.join("certificate.pem"),
        }}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
        "current-context": "test",
    })
}

async fn client(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("it was just written");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Client::try_from(config.expect("it is whole")).expect("a client needs no server")
}

/// A port below those that the kernel gives to connections (`ip_local_port_range`): one of these is free here, and taken
/// by a connection before the program listens on it. Where to begin differs from process to process.
fn free_port() -> u16 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(61);
    let ports = || 20_000 + begin.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed)) % 12_000;
    let mut candidates = std::iter::repeat_with(ports).filter_map(|port| u16::try_from(port).ok());
    candidates.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).expect("loopback has a free port")
}
