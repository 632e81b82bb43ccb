//! The shipped Role is sufficient, and has no permission that is not needed.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::Bed;
use crate::control_plane::{ControlPlane, Request};
use crate::failures::failed;
use crate::node::{CRASH, HEALTHY, Life, NO_SECRET, NOT_READY};
use crate::scene::{Scene, shipped_role};
use crate::situations::done;

pub(crate) fn trials(bed: &'static Bed) -> Vec<Trial> {
    vec![
        bed.trial("a missing permission is named, and nothing is changed", missing_permission),
        bed.trial(
            "a rollout succeeds, with a warning, without the permissions that only proof and diagnosis need",
            missing_for_proof,
        ),
        bed.trial("the deployer uses every permission of the Role", all_are_used),
    ]
}

/// A rollout is possible without reading logs and events, and without asking pods.
const DISPENSABLE: [&str; 3] = ["events", "pods/log", "pods/proxy"];

/// One verb on one resource.
#[derive(PartialEq, Eq)]
struct Permission {
    verb: String,
    resource: String,
}

impl Permission {
    fn is_dispensable(&self) -> bool {
        DISPENSABLE.contains(&&*self.resource)
    }

    fn allows(&self, request: &Request) -> bool {
        self.verb == request.verb && self.resource == request.resource
    }
}

fn permissions(documents: &[Value]) -> Vec<Permission> {
    let mut permissions = Vec::new();
    for rule in documents.iter().flat_map(rules) {
        for verb in texts(&rule["verbs"]) {
            for resource in texts(&rule["resources"]) {
                let permission = Permission { verb: verb.clone(), resource };
                if !permissions.contains(&permission) {
                    permissions.push(permission);
                }
            }
        }
    }
    permissions
}

fn rules(document: &Value) -> &[Value] {
    document["rules"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn texts(values: &Value) -> Vec<String> {
    values.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The Role without this permission. Rules with several resources and verbs are split.
fn reduced(mut documents: Vec<Value>, missing: &Permission) -> Vec<Value> {
    for document in &mut documents {
        let mut left = Vec::new();
        for rule in rules(document) {
            for resource in texts(&rule["resources"]) {
                let verbs = texts(&rule["verbs"]);
                let verbs: Vec<_> =
                    verbs.into_iter().filter(|verb| (verb, &resource) != (&missing.verb, &missing.resource)).collect();
                let mut rule = rule.clone();
                rule["resources"] = json!([resource]);
                rule["verbs"] = json!(verbs);
                if !verbs.is_empty() {
                    left.push(rule);
                }
            }
        }
        if document["kind"] == "Role" {
            document["rules"] = json!(left);
        }
    }
    documents
}

async fn missing_permission(plane: &'static ControlPlane) {
    // The deployer creates only objects that do not exist yet.
    let (existing, empty) = (Scene::with_old(plane).await, Scene::set(plane).await);
    let before = existing.versions().await;
    let permissions = permissions(&shipped_role());
    assert!(permissions.len() > 10, "the test has not found the permissions in the Role");
    for missing in permissions.iter().filter(|permission| !permission.is_dispensable()) {
        let Permission { verb, resource } = missing;
        let scene = if verb == "create" { &empty } else { &existing };
        let new = &scene.commits.new;
        scene.grant(reduced(shipped_role(), missing)).await;
        // The API server applies a changed Role a moment later, so the deployer only does dry runs until then.
        scene
            .until(&format!("{verb} {resource} is reported as missing"), async || {
                let run = scene.deploy_with(new, &["--rollback", "--dry-run"]).await;
                let says = |words: &str| run.verdict().contains(words) && run.json["cause"].to_string().contains(words);
                run.code == 3 && run.json["reason"] == "Forbidden" && says(verb) && says(resource)
            })
            .await;
    }
    existing.grant(shipped_role()).await;
    assert_eq!(existing.versions().await, before);
    assert_eq!(empty.versions().await, []);
}

async fn missing_for_proof(plane: &'static ControlPlane) {
    let scene = Scene::with_old(plane).await;
    let missing: Vec<_> = permissions(&shipped_role()).into_iter().filter(Permission::is_dispensable).collect();
    assert!(missing.len() >= DISPENSABLE.len(), "the test has not found the permissions in the Role");
    for (missing, pair) in missing.iter().zip(scene.commits.line.chunks(2)) {
        let Permission { verb, resource } = missing;
        scene.grant(reduced(shipped_role(), missing)).await;
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let user = format!("--as={}", scene.user());
        let question = ["auth", "can-i", verb, resource, "--subresource", subresource, &user];
        scene.until("the permission is gone", async || scene.ask_kubectl("", &question).await.is_err()).await;
        let run = scene.deploy(&pair[0]).await;
        done(&scene, &run, &pair[0], 2).await;
        let has_warning = run.json["warnings"].to_string().contains("pods/proxy");
        assert_eq!(has_warning, subresource == "proxy", "{run}");
        scene.kubelet.let_pods_of(&pair[1], Life::of(&CRASH)).await;
        failed(&scene.deploy_with(&pair[1], &["--rollback"]).await, "CrashLoop", &["code 3"]);
    }
}

/// A first deploy, an update, a failure that only events explain, and one with a diagnosis and a rollback.
async fn all_are_used(plane: &'static ControlPlane) {
    let scene = Scene::set(plane).await;
    let commits = scene.commits;
    scene.edit("progressDeadlineSeconds: 90", "progressDeadlineSeconds: 10");
    for (commit, life, code) in [
        (&commits.old, &HEALTHY, 0),
        (&commits.new, &HEALTHY, 0),
        (&commits.newer, &NO_SECRET, 1),
        (&commits.line[0], &NOT_READY, 1),
    ] {
        scene.kubelet.let_pods_of(commit, Life::of(life)).await;
        let run = scene.deploy_with(commit, &["--rollback"]).await;
        assert_eq!(run.code, code, "{run}");
    }
    let requests = plane.requests_of(&scene.user());
    let unused: Vec<_> = permissions(&shipped_role())
        .into_iter()
        .filter(|permission| !requests.iter().any(|request| permission.allows(request)))
        .map(|Permission { verb, resource }| format!("{verb} {resource}"))
        .collect();
    assert!(unused.is_empty(), "never used: {}", unused.join(", "));
}
