//! What stands between the deployer and the API server: networks, proxies, credentials, kubeconfig files.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::Bed;
use crate::control_plane::ControlPlane;
use crate::node::{HEALTHY, Life, NOT_READY};
use crate::proxy::{Asked, Fate, HttpProxy};
use crate::scene::{Run, Running, Scene};
use crate::situations::done;

type Plane = &'static ControlPlane;

/// How long a deployer may hang on an API server or a plugin that does.
const LIMIT: Duration = Duration::from_secs(100);

pub(crate) fn trials(bed: &'static Bed) -> Vec<Trial> {
    let mut trials = vec![
        bed.trial("33 a token that expires after the apply leaves the rollout undecided", token_expires),
        bed.trial("33 a permission that is taken away after the apply leaves the rollout undecided", permission_goes),
        bed.trial("a document refused after the apply is not said to have changed nothing", refused_after_apply),
        bed.trial(
            "a document refused after the apply is gone back from where that is asked for",
            refused_and_gone_back,
        ),
        bed.trial("46 NO_PROXY and loopback addresses keep a client from HTTPS_PROXY", past_the_proxy),
        bed.trial("55 a credential plugin that works is used", plugin_works),
        bed.trial("55 a credential plugin that never ends is ended after a time, and named", plugin_hangs),
        bed.trial("55 a signal ends the wait for a credential plugin", plugin_and_signal),
        bed.trial("57 a server without a scheme is an error or spoken to, never a panic", no_scheme),
        bed.trial("56 an API server that is too busy for good is given up before anything was changed", always_busy),
    ];
    for plural in ["pods", "replicasets", "deployments"] {
        for case in ["first deploy", "rolling update", "Recreate"] {
            let name = format!("36 a watch of {plural} that is 3 s behind falsifies no verdict on a {case}");
            trials.push(bed.trial(name, async move |plane| lagging(plane, plural, case).await));
        }
    }
    trials.extend(HANGS.iter().map(|hang| {
        let name = format!("an API server that hangs at {} does not hang {} for ever", hang.at, hang.command);
        bed.trial(name, async |plane| hang.is_ended(plane).await)
    }));
    trials.extend(LOSSES.iter().map(|loss| bed.trial(loss.name, async |plane| loss.is_overcome(plane).await)));
    trials.extend(HICCUPS.iter().flat_map(|hiccup| {
        [429, 503].map(|status| {
            let name = format!("56 one {status} at {} is waited for, as Retry-After says", hiccup.at);
            bed.trial(name, async move |plane| hiccup.is_waited_for(plane, status).await)
        })
    }));
    trials.extend(PROXIED.iter().map(|proxied| bed.trial(proxied.name, async |plane| proxied.is_used(plane).await)));
    trials.extend(PLUGINS.iter().map(|plugin| bed.trial(plugin.name, async |plane| plugin.is_named(plane).await)));
    trials.extend(FILES.iter().map(|files| bed.trial(files.name, async |plane| files.are_read(plane).await)));
    trials
}

async fn lagging(plane: Plane, plural: &'static str, case: &str) {
    let scene = Scene::set(plane).await;
    let new = &scene.commits.new;
    if case == "Recreate" {
        scene.recreate();
    }
    if case != "first deploy" {
        scene.deploy_old().await;
    }
    // Not yet ready when they are listed.
    scene.kubelet.let_pods_of(new, Life::of(&NOT_READY).then(2, &HEALTHY)).await;
    let late = Fate::Late(Duration::from_secs(3));
    let _proxy = scene.through(move |asked| if asked.watches(plural) { late } else { Fate::Answered }).await;
    done(&scene, &scene.deploy(new).await, new, 2).await;
}

/// Where the API server hangs, and in which command.
struct Hang {
    at: &'static str,
    command: &'static str,
    when: fn(&Asked) -> bool,
}

#[rustfmt::skip]
const HANGS: &[Hang] = &[
    Hang { at: "its version", command: "deploy", when: |asked| asked.target.starts_with("/version") },
    Hang { at: "the question what is allowed", command: "deploy", when: |asked| asked.target.contains("selfsubject") },
    Hang { at: "the live Deployment", command: "deploy", when: |asked| asked.is("GET", "/deployments/") },
    Hang { at: "the autoscalers", command: "deploy", when: |asked| asked.target.contains("/horizontalpodautoscalers") },
    Hang { at: "the dry run", command: "deploy", when: |asked| asked.target.contains("dryRun") },
    Hang { at: "the first list of pods", command: "deploy", when: |asked| asked.is("GET", "/pods?") },
    Hang { at: "the question what is allowed", command: "rollback", when: |asked| asked.target.contains("selfsubject") },
    Hang { at: "the live Deployment", command: "rollback", when: |asked| asked.is("GET", "/deployments") },
    Hang { at: "the ReplicaSets", command: "rollback", when: |asked| asked.is("GET", "/replicasets") },
    Hang { at: "the ReplicaSets", command: "status", when: |asked| asked.is("GET", "/replicasets") },
];

impl Hang {
    async fn is_ended(&self, plane: Plane) {
        let scene = Scene::with_old(plane).await;
        let new = &scene.commits.new;
        let hung = Arc::<AtomicBool>::default();
        let (here, noted) = (self.when, Arc::clone(&hung));
        let before = scene.versions().await;
        let _proxy = scene
            .through(move |asked| {
                if here(asked) {
                    noted.store(true, Ordering::Relaxed);
                    return Fate::Unanswered;
                }
                Fate::Answered
            })
            .await;
        let running = match self.command {
            "deploy" => scene.start(new, &["--dry-run"]),
            command => Running::of(scene.deployer([command, "-n", &scene.namespace, "-o", "json"])),
        };
        let ended = tokio::time::timeout(LIMIT, running.end()).await;
        let run = ended.unwrap_or_else(|_| panic!("it hangs for more than {LIMIT:?}"));
        // What is not asked for any more cannot hang.
        if hung.load(Ordering::Relaxed) {
            run.ends_for(3, "ApiServerUnreachable", &[]);
            assert_eq!(scene.versions().await, before, "{run}");
        }
    }
}

/// A request whose answer does not arrive, or which does not arrive itself.
struct Loss {
    name: &'static str,
    of: fn(&Asked) -> bool,
    fate: Fate,
    /// From nothing, or from the old commit.
    is_first: bool,
}

#[rustfmt::skip]
const LOSSES: &[Loss] = &[
    Loss { name: "47 an apply whose answer was lost is read again and followed", of: |asked| asked.changes("deployments"), fate: Fate::AnswerLost, is_first: false },
    Loss { name: "47 a creation whose answer was lost is read again and followed", of: |asked| asked.changes("deployments"), fate: Fate::AnswerLost, is_first: true },
    Loss { name: "47 a Service's apply whose answer was lost is read again", of: |asked| asked.changes("services"), fate: Fate::AnswerLost, is_first: false },
    Loss { name: "47 a Service's creation whose answer was lost is read again", of: |asked| asked.changes("services"), fate: Fate::AnswerLost, is_first: true },
    Loss { name: "47 an apply that was lost itself is sent again", of: |asked| asked.changes("deployments"), fate: Fate::Lost, is_first: false },
    Loss { name: "47 a creation that was lost itself is sent again", of: |asked| asked.changes("deployments"), fate: Fate::Lost, is_first: true },
    Loss { name: "47 a Service's apply that was lost itself is sent again", of: |asked| asked.changes("services"), fate: Fate::Lost, is_first: false },
];

/// This fate for the first request that is `of` that kind.
fn once(of: fn(&Asked) -> bool, fate: Fate) -> impl Fn(&Asked) -> Fate {
    let count = AtomicUsize::new(0);
    move |asked| if of(asked) && count.fetch_add(1, Ordering::Relaxed) == 0 { fate } else { Fate::Answered }
}

impl Loss {
    async fn is_overcome(&self, plane: Plane) {
        let scene = if self.is_first { Scene::set(plane).await } else { Scene::with_old(plane).await };
        let new = &scene.commits.new;
        let proxy = scene.through(once(self.of, self.fate)).await;
        let run = scene.deploy(new).await;
        assert!(proxy.asked().iter().any(self.of), "nothing was lost: {run}");
        done(&scene, &run, new, 2).await;
        assert_eq!(scene.carried().await, [&**new; 4], "{run}");
    }
}

/// The API server is too busy once.
struct Hiccup {
    at: &'static str,
    of: fn(&Asked) -> bool,
}

#[rustfmt::skip]
const HICCUPS: &[Hiccup] = &[
    Hiccup { at: "the first request", of: |_| true },
    Hiccup { at: "the live Deployment", of: |asked| asked.is("GET", "/deployments/") || asked.is("GET", "/deployments?") },
    Hiccup { at: "a dry run", of: |asked| asked.target.contains("dryRun") },
    Hiccup { at: "the apply", of: |asked| asked.changes("deployments") },
    Hiccup { at: "the Service's apply", of: |asked| asked.changes("services") },
    Hiccup { at: "the list of pods", of: |asked| asked.is("GET", "/pods?") && !asked.target.contains("watch") },
    Hiccup { at: "the watch of pods", of: |asked| asked.watches("pods") },
    Hiccup { at: "the proof", of: |asked| asked.is("GET", "/proxy/version") },
];

/// What the API server asks for; more than a deployer would wait by itself.
const RETRY_AFTER: u64 = 3;

impl Hiccup {
    async fn is_waited_for(&self, plane: Plane, status: u16) {
        let scene = Scene::with_old(plane).await;
        let new = &scene.commits.new;
        let proxy = scene.through(once(self.of, Fate::Status(status, Some(RETRY_AFTER)))).await;
        let run = scene.deploy(new).await;
        let asked = proxy.asked();
        let mut asked = asked.iter().filter(|asked| (self.of)(asked));
        let first = asked.next().unwrap_or_else(|| panic!("there was no such request: {run}"));
        let same = |again: &&Asked| again.method == first.method && again.target == first.target;
        let again = asked.find(same).unwrap_or_else(|| panic!("{} is not asked again: {run}", first.target));
        let after = again.at - first.at;
        assert!(after.as_secs() >= RETRY_AFTER, "{} is asked again after {after:.1?}: {run}", first.target);
        done(&scene, &run, new, 2).await;
        assert!(run.stderr.contains("2 of 2"), "{run}");
    }
}

async fn always_busy(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let before = scene.versions().await;
    let _proxy = scene.through(|_| Fate::Status(429, Some(1))).await;
    let run = scene.deploy(&scene.commits.new).await;
    run.ends_for(3, "ApiServerUnreachable", &["TooManyRequests"]);
    assert!(run.took < LIMIT, "{run}");
    assert_eq!(scene.versions().await, before);
}

/// A rollout that is under way when this happens to everything that is asked.
async fn lose_access(plane: Plane, status: u16) -> Run {
    let scene = Scene::with_old(plane).await;
    let new = &scene.commits.new;
    scene.kubelet.let_pods_of(new, Life::of(&NOT_READY)).await;
    let lost = Arc::<AtomicBool>::default();
    let flag = Arc::clone(&lost);
    let decide =
        move |_: &Asked| if flag.load(Ordering::Relaxed) { Fate::Status(status, None) } else { Fate::Answered };
    let proxy = scene.through(decide).await;
    let running = scene.start(new, &["--rollback"]);
    scene.first_started_pod_of(new).await;
    running.said("applied").await;
    lost.store(true, Ordering::Relaxed);
    proxy.cut();
    let run = running.end().await;
    assert_eq!(scene.carried().await, [&**new; 4], "{run}");
    assert!(run.stderr.contains("deployer status"), "it should say how to look: {run}");
    run
}

async fn token_expires(plane: Plane) {
    lose_access(plane, 401).await.ends_for(70, "AccessLost", &["continues"]);
}

async fn permission_goes(plane: Plane) {
    lose_access(plane, 403).await.ends_for(70, "AccessLost", &["continues"]);
}

/// The dry run was accepted, and the Service is refused for good once the Deployment is applied.
async fn refuse_service(scene: &Scene, more: &[&str]) -> Run {
    let refuse = |asked: &Asked| if asked.changes("services") { Fate::Status(403, None) } else { Fate::Answered };
    let _proxy = scene.through(refuse).await;
    scene.deploy_with(&scene.commits.new, more).await
}

async fn refused_after_apply(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let run = refuse_service(&scene, &[]).await;
    assert!([1, 70].contains(&run.code), "3 says that nothing was changed: {run}");
    assert_eq!(run.json["exit_code"], run.code, "{run}");
    assert!(run.json["reason"].is_string() && run.verdict().contains("Service"), "{run}");
    assert!(!run.stderr.contains("nothing was changed"), "{run}");
}

async fn refused_and_gone_back(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let run = refuse_service(&scene, &["--rollback"]).await;
    assert_ne!(run.code, 3, "3 says that nothing was changed: {run}");
    assert_eq!(run.json["rollback"]["outcome"], "done", "{run}");
    assert_eq!(scene.carried().await[..2], [&*scene.commits.old; 2], "{run}");
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
    Proxied { name: "46 the proxy-url of the kubeconfig is the way to the API server", variable: "", in_kubeconfig: true, no_proxy: "" },
    Proxied { name: "46 the proxy-url of the kubeconfig holds whatever NO_PROXY says", variable: "", in_kubeconfig: true, no_proxy: "api.example" },
    Proxied { name: "46 HTTPS_PROXY is the way to the API server", variable: "HTTPS_PROXY", in_kubeconfig: false, no_proxy: "" },
    Proxied { name: "46 https_proxy is the way to the API server", variable: "https_proxy", in_kubeconfig: false, no_proxy: "" },
    Proxied { name: "46 HTTPS_PROXY is the way to what NO_PROXY does not name", variable: "HTTPS_PROXY", in_kubeconfig: false, no_proxy: "10.0.0.0/8,other.example,.pi.example" },
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

/// As Go's `golang.org/x/net/http/httpproxy`, which kubectl uses: loopback addresses are never asked of a proxy.
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

/// A credential plugin that gives no credential.
struct Plugin {
    name: &'static str,
    script: &'static str,
    says: &'static [&'static str],
}

#[rustfmt::skip]
const PLUGINS: &[Plugin] = &[
    Plugin { name: "55 a credential plugin that is missing is named", script: "", says: &["no-such-plugin"] },
    Plugin { name: "55 a credential plugin that fails is named, and its words are one line", script: "echo 'the session has' >&2; echo 'expired, log in again' >&2; exit 255",
        says: &["plugin", "255", "the session has expired, log in again"] },
    Plugin { name: "55 a credential plugin that prints no credential is named", script: "echo hello", says: &["plugin"] },
    Plugin { name: "55 a credential plugin that prints nothing is named", script: "true", says: &["plugin"] },
];

/// The plugin is a script in the directory of the kubeconfig; what it is to have is in its environment.
fn use_plugin(scene: &Scene, script: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let plugin = scene.kubeconfig.with_file_name("plugin");
    std::fs::write(&plugin, format!("#!/bin/sh\n{script}\n")).expect("the directory is ours");
    std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755)).expect("the file is ours");
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

/// One that sleeps for ever, with its process id in a file.
fn use_sleeper(scene: &Scene) -> std::path::PathBuf {
    let pid = scene.kubeconfig.with_file_name("plugin.pid");
    use_plugin(scene, &format!("echo $$ >'{}'; exec sleep 1000", pid.display()));
    pid
}

/// Of what the plugin was, nothing is left.
async fn is_gone(scene: &Scene, pid: &std::path::Path) {
    let pid = std::fs::read_to_string(pid).expect("it was written");
    let process = std::path::Path::new("/proc").join(pid.trim());
    scene.until("the plugin is gone", async || !process.join("exe").exists()).await;
}

async fn plugin_hangs(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let pid = use_sleeper(&scene);
    let ended = tokio::time::timeout(LIMIT, scene.deploy(&scene.commits.new)).await;
    let run = ended.unwrap_or_else(|_| panic!("it hangs for more than {LIMIT:?}"));
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

/// What KUBECONFIG names, and what is in the file that is there.
struct Files {
    name: &'static str,
    /// `FILE` stands for the good one, `DIR` for its directory.
    variable: &'static str,
    change: fn(&mut Value),
    /// `Err` has the reason and what it says.
    ends: Result<(), (&'static str, &'static str)>,
}

const AS_IT_IS: fn(&mut Value) = |_| {};

#[rustfmt::skip]
const FILES: &[Files] = &[
    Files { name: "57 a file of KUBECONFIG that is missing is skipped", variable: "DIR/missing:FILE", change: AS_IT_IS, ends: Ok(()) },
    Files { name: "57 a file of KUBECONFIG that is missing is skipped, also as the last one", variable: "FILE:DIR/missing", change: AS_IT_IS, ends: Ok(()) },
    Files { name: "57 an empty element of KUBECONFIG is skipped", variable: "::FILE:", change: AS_IT_IS, ends: Ok(()) },
    Files { name: "57 a file of KUBECONFIG that is empty says nothing", variable: "/dev/null:FILE", change: AS_IT_IS, ends: Ok(()) },
    Files { name: "57 a KUBECONFIG whose only file is missing is an error that names it", variable: "DIR/missing", change: AS_IT_IS, ends: Err(("KubeconfigInvalid", "DIR/missing")) },
    Files { name: "57 a file of KUBECONFIG that is not YAML is an error that names it", variable: "DIR/broken:FILE", change: AS_IT_IS, ends: Err(("KubeconfigInvalid", "DIR/broken")) },
    Files { name: "57 a context of no cluster is an error that names it", variable: "FILE", change: |config| config["contexts"][0]["context"]["cluster"] = json!("elsewhere"), ends: Err(("KubeconfigInvalid", "elsewhere")) },
    Files { name: "57 a context of no user is an error that names it", variable: "FILE", change: |config| config["contexts"][0]["context"]["user"] = json!("nobody-known"), ends: Err(("KubeconfigInvalid", "nobody-known")) },
    Files { name: "57 a certificate authority that is missing is an error that names its file", variable: "FILE", change: |config| config["clusters"][0]["cluster"]["certificate-authority"] = json!("/no/such/ca.crt"), ends: Err(("KubeconfigInvalid", "/no/such/ca.crt")) },
    Files { name: "57 a server that is no URL is an error that quotes it", variable: "FILE", change: |config| config["clusters"][0]["cluster"]["server"] = json!("http://[::1"), ends: Err(("KubeconfigInvalid", "http://[::1")) },
];

impl Files {
    async fn are_read(&self, plane: Plane) {
        let scene = Scene::with_old(plane).await;
        scene.change_kubeconfig(self.change);
        std::fs::write(scene.kubeconfig.with_file_name("broken"), "clusters: [").expect("the directory is ours");
        let directory = scene.kubeconfig.parent().expect("it is in one").display().to_string();
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
