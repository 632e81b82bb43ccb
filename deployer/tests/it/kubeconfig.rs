//! The way to the cluster: kubeconfig files, proxies, credential plugins.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::Bed;
use crate::connection::LIMIT;
use crate::control_plane::ControlPlane;
use crate::proxy::HttpProxy;
use crate::scene::{Running, Scene};

type Plane = &'static ControlPlane;

pub(crate) fn trials(bed: &'static Bed) -> Vec<Trial> {
    let mut trials = vec![
        bed.trial("46 HTTPS_PROXY is not used for loopback addresses and those in NO_PROXY", past_the_proxy),
        bed.trial("55 a credential plugin that works is used", plugin_works),
        bed.trial("55 a credential plugin that hangs is ended after a time limit, and named", plugin_hangs),
        bed.trial("55 a signal ends the wait for a credential plugin", plugin_and_signal),
        bed.trial("57 a server without a scheme is reached or is an error, and never causes a panic", no_scheme),
    ];
    trials.extend(bed.rows(
        PROXIED,
        |proxied| proxied.name.to_owned(),
        async |plane, proxied| proxied.is_used(plane).await,
    ));
    trials.extend(bed.rows(
        PLUGINS,
        |plugin| plugin.name.to_owned(),
        async |plane, plugin| plugin.is_named(plane).await,
    ));
    trials.extend(bed.rows(FILES, |files| files.name.to_owned(), async |plane, files| files.are_read(plane).await));
    trials
}

/// A way to name an HTTP proxy, and a server that only the proxy can find.
struct Proxied {
    name: &'static str,
    variable: &'static str,
    in_kubeconfig: bool,
    no_proxy: &'static str,
}

#[rustfmt::skip]
const PROXIED: &[Proxied] = &[
    Proxied { name: "46 the proxy-url of the kubeconfig is used", variable: "", in_kubeconfig: true, no_proxy: "" },
    Proxied { name: "46 the proxy-url of the kubeconfig is used even if NO_PROXY names the server", variable: "", in_kubeconfig: true, no_proxy: "api.example" },
    Proxied { name: "46 HTTPS_PROXY is used", variable: "HTTPS_PROXY", in_kubeconfig: false, no_proxy: "" },
    Proxied { name: "46 https_proxy is used", variable: "https_proxy", in_kubeconfig: false, no_proxy: "" },
    Proxied { name: "46 HTTPS_PROXY is used for a server that NO_PROXY does not name", variable: "HTTPS_PROXY", in_kubeconfig: false, no_proxy: "10.0.0.0/8,other.example,.pi.example" },
];

impl Proxied {
    async fn is_used(&self, plane: Plane) {
        let scene = Scene::with_old(plane).await;
        let proxy = HttpProxy::start(plane.port).await;
        let url = format!("http://127.0.0.1:{}", proxy.port);
        scene.change_kubeconfig(|kubeconfig| {
            let cluster = &mut kubeconfig["clusters"][0]["cluster"];
            cluster["server"] = json!("https://api.example:6443");
            cluster["tls-server-name"] = json!("127.0.0.1");
            if self.in_kubeconfig {
                cluster["proxy-url"] = json!(url);
            }
        });
        let mut command = scene.deploy_command(&scene.commits.new, &["--dry-run"]);
        if !self.variable.is_empty() {
            command.env_remove(self.variable.to_lowercase()).env_remove(self.variable.to_uppercase());
            command.env(self.variable, url);
        }
        command.env("NO_PROXY", self.no_proxy).env_remove("no_proxy");
        let run = Running::of(command).end().await;
        run.ends_with(0, &["done"]);
        assert!(proxy.targets().iter().any(|target| target == "api.example:6443"), "{run}");
    }
}

/// Go's `golang.org/x/net/http/httpproxy`, which kubectl uses, never sends requests for loopback addresses to a proxy.
async fn past_the_proxy(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    for no_proxy in ["", "127.0.0.1", "127.0.0.0/8", "other.example, 127.0.0.1", "*"] {
        let mut command = scene.deploy_command(&scene.commits.new, &["--dry-run"]);
        command.env("HTTPS_PROXY", "http://127.0.0.1:1").env("NO_PROXY", no_proxy);
        command.env_remove("https_proxy").env_remove("no_proxy");
        let run = Running::of(command).end().await;
        assert_eq!(run.code, 0, "NO_PROXY={no_proxy}: {run}");
    }
}

/// A credential plugin that gives no credentials.
struct Plugin {
    name: &'static str,
    script: &'static str,
    says: &'static [&'static str],
}

#[rustfmt::skip]
const PLUGINS: &[Plugin] = &[
    Plugin { name: "55 a credential plugin that is missing is named", script: "", says: &["no-such-plugin"] },
    Plugin { name: "55 a credential plugin that fails is named, and its output is quoted on one line", script: "echo 'the session has' >&2; echo 'expired, log in again' >&2; exit 255",
        says: &["plugin", "255", "the session has expired, log in again"] },
    Plugin { name: "55 a credential plugin that prints something else is named", script: "echo hello", says: &["plugin"] },
    Plugin { name: "55 a credential plugin that prints nothing is named", script: "true", says: &["plugin"] },
];

/// Makes `script` the plugin, in the directory of the kubeconfig.
fn use_plugin(scene: &Scene, script: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let plugin = scene.kubeconfig.with_file_name("plugin");
    std::fs::write(&plugin, format!("#!/bin/sh\n{script}\n")).expect("the plugin can be written");
    std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755))
        .expect("the plugin can be made executable");
    let command = if script.is_empty() { json!("no-such-plugin") } else { json!(plugin) };
    scene.change_kubeconfig(|kubeconfig| {
        let exec =
            json!({"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never", "command": command});
        kubeconfig["users"][0]["user"] = json!({"exec": exec});
    });
}

impl Plugin {
    async fn is_named(&self, plane: Plane) {
        let scene = Scene::with_old(plane).await;
        let before = scene.versions().await;
        use_plugin(&scene, self.script);
        let run = scene.deploy(&scene.commits.new).await;
        run.ends_for(3, "CredentialPluginFailed", self.says);
        assert_eq!(scene.versions().await, before);
    }
}

async fn plugin_works(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let token = scene.token().await;
    let credential =
        json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token}});
    use_plugin(&scene, &format!("echo '{credential}'"));
    let run = scene.deploy_with(&scene.commits.new, &["--dry-run"]).await;
    run.ends_with(0, &["done"]);
}

/// A plugin that sleeps without end, and writes its process ID to the file whose path is returned.
fn use_sleeper(scene: &Scene) -> std::path::PathBuf {
    let pid = scene.kubeconfig.with_file_name("plugin.pid");
    use_plugin(scene, &format!("echo $$ >'{}'; exec sleep 1000", pid.display()));
    pid
}

/// Waits until the plugin's process is gone.
async fn is_gone(scene: &Scene, pid: &std::path::Path) {
    let pid = std::fs::read_to_string(pid).expect("the plugin has written its process ID");
    let process = std::path::Path::new("/proc").join(pid.trim());
    scene.until("the plugin is gone", async || !process.join("exe").exists()).await;
}

async fn plugin_hangs(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let pid = use_sleeper(&scene);
    let ended = tokio::time::timeout(LIMIT, scene.deploy(&scene.commits.new)).await;
    let run = ended.unwrap_or_else(|_| panic!("it did not end within {LIMIT:?}"));
    run.ends_for(3, "CredentialPluginFailed", &["plugin"]);
    is_gone(&scene, &pid).await;
}

async fn plugin_and_signal(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let pid = use_sleeper(&scene);
    let running = scene.start(&scene.commits.new, &[]);
    scene.until("the plugin runs", async || std::fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n'))).await;
    running.signal("-TERM");
    let ended = tokio::time::timeout(Duration::from_secs(20), running.end()).await;
    let run = ended.unwrap_or_else(|_| panic!("it does not end on SIGTERM"));
    run.ends_for(143, "Terminated", &["nothing was changed"]);
    is_gone(&scene, &pid).await;
}

/// The value of KUBECONFIG, and a change to the good file.
struct Files {
    name: &'static str,
    /// `FILE` stands for the good file, `DIR` for its directory.
    variable: &'static str,
    change: fn(&mut Value),
    /// `Err` has the reason, and words of the message.
    ends: Result<(), (&'static str, &'static str)>,
}

const AS_IT_IS: fn(&mut Value) = |_| {};

#[rustfmt::skip]
const FILES: &[Files] = &[
    Files { name: "57 a missing file in KUBECONFIG is skipped", variable: "DIR/missing:FILE", change: AS_IT_IS, ends: Ok(()) },
    Files { name: "57 a missing file in KUBECONFIG is skipped, also as the last one", variable: "FILE:DIR/missing", change: AS_IT_IS, ends: Ok(()) },
    Files { name: "57 an empty element of KUBECONFIG is skipped", variable: "::FILE:", change: AS_IT_IS, ends: Ok(()) },
    Files { name: "57 an empty file in KUBECONFIG has no effect", variable: "/dev/null:FILE", change: AS_IT_IS, ends: Ok(()) },
    Files { name: "57 a KUBECONFIG whose only file is missing is an error that names it", variable: "DIR/missing", change: AS_IT_IS, ends: Err(("KubeconfigInvalid", "DIR/missing")) },
    Files { name: "57 a file in KUBECONFIG that is not YAML is an error that names it", variable: "DIR/broken:FILE", change: AS_IT_IS, ends: Err(("KubeconfigInvalid", "DIR/broken")) },
    Files { name: "57 a context whose cluster is not defined is an error that names the cluster", variable: "FILE", change: |config| config["contexts"][0]["context"]["cluster"] = json!("elsewhere"), ends: Err(("KubeconfigInvalid", "elsewhere")) },
    Files { name: "57 a context whose user is not defined is an error that names the user", variable: "FILE", change: |config| config["contexts"][0]["context"]["user"] = json!("unknown-user"), ends: Err(("KubeconfigInvalid", "unknown-user")) },
    Files { name: "57 a missing certificate authority is an error that names its file", variable: "FILE", change: |config| config["clusters"][0]["cluster"]["certificate-authority"] = json!("/no/such/ca.crt"), ends: Err(("KubeconfigInvalid", "/no/such/ca.crt")) },
    Files { name: "57 a server that is not a URL is an error that quotes it", variable: "FILE", change: |config| config["clusters"][0]["cluster"]["server"] = json!("http://[::1"), ends: Err(("KubeconfigInvalid", "http://[::1")) },
];

impl Files {
    async fn are_read(&self, plane: Plane) {
        let scene = Scene::with_old(plane).await;
        scene.change_kubeconfig(self.change);
        std::fs::write(scene.kubeconfig.with_file_name("broken"), "clusters: [")
            .expect("the broken file can be written");
        let directory = scene.kubeconfig.parent().expect("the kubeconfig is in a directory").display().to_string();
        let file = scene.kubeconfig.display().to_string();
        let named = |text: &str| text.replace("FILE", &file).replace("DIR", &directory);
        let mut command = scene.deploy_command(&scene.commits.new, &["--dry-run"]);
        command.env("KUBECONFIG", named(self.variable));
        let run = Running::of(command).end().await;
        match self.ends {
            Ok(()) => run.ends_with(0, &["done"]),
            Err((reason, says)) => run.ends_for(3, reason, &[&named(says)]),
        }
    }
}

async fn no_scheme(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    for server in ["127.0.0.1", "localhost", ""] {
        let server = if server.is_empty() { String::new() } else { format!("{server}:{}", plane.port) };
        scene.change_kubeconfig(|kubeconfig| kubeconfig["clusters"][0]["cluster"]["server"] = json!(server));
        let run = scene.deploy_with(&scene.commits.new, &["--dry-run"]).await;
        assert!([0, 3].contains(&run.code), "{server:?}: {run}");
        assert_eq!(run.json["exit_code"], run.code, "{server:?}: {run}");
        assert!(!run.stderr.contains("panicked"), "{server:?}: {run}");
    }
}
