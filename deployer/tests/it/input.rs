//! Mistakes of a person: each gets one message and the documented exit code, and changes nothing.

use libtest_mimic::Trial;

use crate::Bed;
use crate::control_plane::ControlPlane;
use crate::scene::{Commits, Run, Running, Scene, image};

pub(crate) fn trials(bed: &'static Bed) -> Vec<Trial> {
    vec![
        bed.trial("bad input gets one message and changes nothing", bad_input),
        bed.trial("a commit that is not newer is refused with the remedy, unless --ignore-order is given", order),
        bed.trial("an API server that cannot be reached is named", unreachable),
        bed.trial("a namespace that does not exist is named", no_namespace),
        bed.trial("a live Deployment that does not name its commit is replaced with a warning", no_annotation),
    ]
}

struct Bad {
    what: &'static str,
    /// Texts in the template and their replacements.
    template: &'static [(&'static str, &'static str)],
    /// Options that are added, or replace the good ones. `{new}` and `{side}` stand for commits.
    options: &'static [(&'static str, &'static str)],
    code: i32,
    reason: &'static str,
    says: &'static [&'static str],
}

#[rustfmt::skip]
const TABLE: &[Bad] = &[
    // The template.
    Bad { what: "no such file", template: &[], options: &[("--template", "no/such/file")], code: 2, reason: "InvalidInput", says: &["no/such/file"] },
    Bad { what: "no place for the image", template: &[("<IMAGE>", "nginx")], options: &[], code: 2, reason: "InvalidInput", says: &["<IMAGE>"] },
    Bad { what: "no Deployment", template: &[("kind: Deployment", "kind: StatefulSet")], options: &[], code: 2, reason: "InvalidInput", says: &["Deployment"] },
    Bad { what: "two Deployments", template: &[("apiVersion: v1\nkind: Service", "apiVersion: apps/v1\nkind: Deployment")], options: &[], code: 2, reason: "InvalidInput", says: &["Deployments"] },
    Bad { what: "not YAML", template: &[("replicas: 2", "replicas: [2")], options: &[], code: 2, reason: "InvalidInput", says: &["line", "column"] },
    Bad { what: "a document without a name", template: &[("kind: Service\nmetadata:\n  name: request-info", "kind: Service\nmetadata: {}")], options: &[], code: 2, reason: "InvalidInput", says: &["document 2", "metadata.name"] },
    Bad { what: "a Deployment that is paused", template: &[("replicas: 2", "paused: true")], options: &[], code: 2, reason: "InvalidInput", says: &["paused"] },
    Bad { what: "a deadline beyond the timeout", template: &[], options: &[("--timeout", "90s")], code: 2, reason: "InvalidInput", says: &["progressDeadlineSeconds", "--timeout"] },
    // The options.
    Bad { what: "an image without a tag", template: &[], options: &[("--image", "registry.example/request-info")], code: 2, reason: "InvalidInput", says: &["tag"] },
    Bad { what: "an image that is not valid", template: &[], options: &[("--image", "registry.example/Web:{new}")], code: 2, reason: "InvalidInput", says: &["Web"] },
    Bad { what: "a digest without a tag", template: &[], options: &[("--image", "registry.example/request-info@sha256:4ed1425f2a296c1731dce3667907b372bd17b1df7e191c5a8cd309a6f195d9cc")], code: 2, reason: "InvalidInput", says: &["tag"] },
    Bad { what: "a digest that is too short", template: &[], options: &[("--image", "registry.example/request-info:{new}@sha256:00")], code: 2, reason: "InvalidInput", says: &["sha256:00"] },
    Bad { what: "a timeout of zero", template: &[], options: &[("--timeout", "0s")], code: 2, reason: "InvalidInput", says: &["--timeout", "greater than zero"] },
    Bad { what: "a tag of another commit", template: &[], options: &[("--image", "registry.example/request-info:{side}")], code: 2, reason: "InvalidInput", says: &["{side}", "{new}"] },
    Bad { what: "a commit that is not hexadecimal", template: &[], options: &[("--commit", "refs/heads/main")], code: 2, reason: "InvalidInput", says: &["hexadecimal", "git rev-parse"] },
    Bad { what: "a commit that is short", template: &[], options: &[("--commit", "abcdef0")], code: 2, reason: "InvalidInput", says: &["40", "git rev-parse"] },
    Bad { what: "a timeout that is not valid", template: &[], options: &[("--timeout", "soon")], code: 2, reason: "InvalidInput", says: &["--timeout", "soon"] },
    Bad { what: "an unknown option", template: &[], options: &[("--no-such-option", "")], code: 2, reason: "InvalidInput", says: &["--no-such-option"] },
    Bad { what: "an unknown context", template: &[], options: &[("--context", "nowhere")], code: 3, reason: "KubeconfigInvalid", says: &["nowhere"] },
    // Mistakes that only the API server can see.
    Bad { what: "a namespace of somebody else", template: &[], options: &[("-n", "default")], code: 3, reason: "Forbidden", says: &["forbidden", "default"] },
    Bad { what: "an unknown field", template: &[("replicas: 2", "replicas: 2\n  replica: 2")], options: &[], code: 3, reason: "DocumentRefused", says: &["spec.replica"] },
    Bad { what: "a field of another type", template: &[("replicas: 2", "replicas: two")], options: &[], code: 3, reason: "DocumentRefused", says: &["replicas"] },
    Bad { what: "a selector that does not match", template: &[("labels: {app: request-info}", "labels: {app: other}")], options: &[], code: 3, reason: "DocumentRefused", says: &["selector"] },
    Bad { what: "another selector than the live one", template: &[("{app: request-info}", "{app: other}")], options: &[], code: 3, reason: "DocumentRefused", says: &["selector", "immutable"] },
    Bad { what: "a bad document after good ones", template: &[("minAvailable: 1", "minAvailable: many")], options: &[], code: 3, reason: "DocumentRefused", says: &["PodDisruptionBudget", "minAvailable"] },
    Bad { what: "a kind that the server does not know", template: &[("policy/v1", "policy/v9")], options: &[], code: 3, reason: "DocumentRefused", says: &["PodDisruptionBudget", "policy/v9"] },
];

async fn bad_input(plane: &'static ControlPlane) {
    let scene = Scene::with_old(plane).await;
    let before = scene.versions().await;
    let mut wrong = Vec::new();
    let good = std::fs::read_to_string(scene.template()).expect("the template can be read");
    for bad in TABLE {
        let text = bad.template.iter().fold(good.clone(), |text, (from, to)| {
            assert!(text.contains(from), "{}: the template does not contain {from:?}", bad.what);
            text.replace(from, to)
        });
        std::fs::write(scene.template(), text).expect("the template can be written");
        let run = bad.run(&scene).await;
        if let Some(complaint) = bad.complaint(&run, scene.commits) {
            wrong.push(format!("{}: {complaint}: {run}", bad.what));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert_eq!(scene.versions().await, before);
}

impl Bad {
    async fn run(&self, scene: &Scene) -> Run {
        let commits = scene.commits;
        let (image, template) = (image(&commits.new), scene.template().display().to_string());
        let mut options = vec![
            ("--image", image),
            ("--commit", commits.new.clone()),
            ("--template", template),
            ("-n", scene.namespace.clone()),
            ("--timeout", "3m".to_owned()),
            ("-o", "json".to_owned()),
        ];
        for (name, value) in self.options {
            let value = filled_in(value, commits);
            match options.iter_mut().find(|(option, _)| option == name) {
                Some((_, good)) => *good = value,
                None => options.push((name, value)),
            }
        }
        let options = options.iter().flat_map(|(name, value)| [*name, value]).filter(|word| !word.is_empty());
        Running::of(scene.deployer(["deploy"].into_iter().chain(options))).end().await
    }

    /// What is wrong with the answer, if anything.
    fn complaint(&self, run: &Run, commits: &Commits) -> Option<String> {
        if run.code != self.code || run.json["exit_code"] != self.code {
            return Some(format!("the exit code should be {}", self.code));
        }
        let cause = run.json["cause"].as_str().unwrap_or_default();
        if run.json["reason"] != self.reason {
            return Some(format!("the reason should be {}", self.reason));
        }
        let says = self.says.iter().map(|words| filled_in(words, commits));
        let unsaid = says.into_iter().find(|words| !run.stderr.contains(words) || !cause.contains(words));
        unsaid.map(|words| format!("it should say {words:?} on standard error and in the document's cause"))
    }
}

fn filled_in(text: &str, commits: &Commits) -> String {
    text.replace("{new}", &commits.new[..12]).replace("{side}", &commits.side[..12])
}

async fn order(plane: &'static ControlPlane) {
    let scene = Scene::set(plane).await;
    let commits = scene.commits;
    let unknown = "0123456789012345678901234567890123456789";
    assert_eq!(scene.deploy(&commits.new).await.code, 0);
    scene.settled("NewReplicaSetAvailable").await;
    let before = scene.versions().await;
    for (commit, says) in [
        (&*commits.old, &["older", "--ignore-order"][..]),
        (&*commits.side, &["diverged", "--ignore-order"]),
        (unknown, &["unknown", "git fetch", "--ignore-order"]),
    ] {
        let run = scene.deploy(commit).await;
        run.ends_for(4, "NotNewer", &[]);
        for words in says {
            assert!(run.stderr.contains(words), "it should say {words:?}: {run}");
        }
        assert_eq!(scene.versions().await, before, "{run}");
    }
    let run = scene.deploy_with(&commits.old, &["--ignore-order"]).await;
    run.ends_with(0, &["done", &commits.old[..12]]);
}

async fn no_annotation(plane: &'static ControlPlane) {
    let scene = Scene::with_old(plane).await;
    let none = serde_json::json!({"annotations": {"request-info.dev/commit": null}});
    scene.change(serde_json::json!({"metadata": none, "spec": {"template": {"metadata": none}}})).await;
    let run = scene.deploy(&scene.commits.new).await;
    run.ends_with(0, &["done", &scene.commits.new[..12]]);
    assert_eq!(run.json["warnings"].as_array().map(Vec::len), Some(1), "{run}");
}

async fn unreachable(plane: &'static ControlPlane) {
    let scene = Scene::set(plane).await;
    scene.write_kubeconfig_for(1, "nobody");
    let run = scene.deploy(&scene.commits.new).await;
    run.ends_for(3, "ApiServerUnreachable", &["https://127.0.0.1:1/", "refused"]);
}

async fn no_namespace(plane: &'static ControlPlane) {
    let scene = Scene::set(plane).await;
    scene.write_kubeconfig("admin"); // with the Role alone, one may not know which namespaces exist
    let (new, template) = (&*scene.commits.new, scene.template().display().to_string());
    let arguments = ["deploy", "--image", &image(new), "--commit", new, "--template", &template, "-n", "nowhere"];
    let run = Running::of(scene.deployer(arguments.into_iter().chain(["-o", "json"]))).end().await;
    run.ends_with(3, &["nowhere", "kubectl create namespace nowhere"]);
}
