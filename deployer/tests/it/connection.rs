//! An API server that lags, hangs, is too busy, or stops answering.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use libtest_mimic::Trial;

use crate::Bed;
use crate::control_plane::ControlPlane;
use crate::node::{HEALTHY, Life, NOT_READY};
use crate::proxy::{Asked, Fate};
use crate::scene::{Run, Running, Scene};
use crate::situations::done;

type Plane = &'static ControlPlane;

/// How long the deployer may take to give up on somebody who hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(100);

pub(crate) fn trials(bed: &'static Bed) -> Vec<Trial> {
    let mut trials = vec![
        bed.trial("33 a token that expires after the apply leaves the rollout undecided", token_expires),
        bed.trial("33 a permission that is revoked after the apply leaves the rollout undecided", permission_goes),
        bed.trial(
            "after a document is refused after the apply, the verdict does not say that nothing was changed",
            refused_after_apply,
        ),
        bed.trial("a document refused after the apply is rolled back with --rollback", refused_and_gone_back),
        bed.trial("56 an API server that stays too busy is given up before anything is changed", always_busy),
    ];
    for plural in ["pods", "replicasets", "deployments"] {
        for case in ["first deploy", "rolling update", "Recreate"] {
            let name = format!("36 a watch of {plural} that lags by 3 s does not falsify the verdict on a {case}");
            trials.push(bed.trial(name, async move |plane| lagging(plane, plural, case).await));
        }
    }
    trials.extend(bed.rows(
        HANGS,
        |hang| format!("if the API server hangs on {}, {} still ends", hang.at, hang.command),
        async |plane, hang| hang.is_ended(plane).await,
    ));
    trials.extend(bed.rows(LOSSES, |loss| loss.name.to_owned(), async |plane, loss| loss.is_overcome(plane).await));
    for status in [429, 503] {
        trials.extend(bed.rows(
            HICCUPS,
            move |hiccup| format!("56 after one {status} for {}, the deployer waits as Retry-After says", hiccup.at),
            async move |plane, hiccup| hiccup.is_waited_for(plane, status).await,
        ));
    }
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

/// The request on which the API server hangs, and the command that sends it.
struct Hang {
    at: &'static str,
    command: &'static str,
    when: fn(&Asked) -> bool,
}

#[rustfmt::skip]
const HANGS: &[Hang] = &[
    Hang { at: "its version", command: "deploy", when: |asked| asked.target.starts_with("/version") },
    Hang { at: "the question of what is allowed", command: "deploy", when: |asked| asked.target.contains("selfsubject") },
    Hang { at: "the live Deployment", command: "deploy", when: |asked| asked.is("GET", "/deployments/") },
    Hang { at: "the autoscalers", command: "deploy", when: |asked| asked.target.contains("/horizontalpodautoscalers") },
    Hang { at: "the dry run", command: "deploy", when: |asked| asked.target.contains("dryRun") },
    Hang { at: "the first list of pods", command: "deploy", when: |asked| asked.is("GET", "/pods?") },
    Hang { at: "the question of what is allowed", command: "rollback", when: |asked| asked.target.contains("selfsubject") },
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
        let run = ended.unwrap_or_else(|_| panic!("it did not end within {LIMIT:?}"));
        // If the request is no longer sent, nothing can hang on it.
        if hung.load(Ordering::Relaxed) {
            run.ends_for(3, "ApiServerUnreachable", &[]);
            assert_eq!(scene.versions().await, before, "{run}");
        }
    }
}

/// A request that is lost, or whose answer is lost.
struct Loss {
    name: &'static str,
    of: fn(&Asked) -> bool,
    fate: Fate,
    /// Whether it is a first deploy; otherwise the old commit runs.
    is_first: bool,
}

#[rustfmt::skip]
const LOSSES: &[Loss] = &[
    Loss { name: "47 an apply whose answer was lost is read again and followed", of: |asked| asked.changes("deployments"), fate: Fate::AnswerLost, is_first: false },
    Loss { name: "47 a creation whose answer was lost is read again and followed", of: |asked| asked.changes("deployments"), fate: Fate::AnswerLost, is_first: true },
    Loss { name: "47 a Service's apply whose answer was lost is read again", of: |asked| asked.changes("services"), fate: Fate::AnswerLost, is_first: false },
    Loss { name: "47 a Service's creation whose answer was lost is read again", of: |asked| asked.changes("services"), fate: Fate::AnswerLost, is_first: true },
    Loss { name: "47 an apply that never arrived is sent again", of: |asked| asked.changes("deployments"), fate: Fate::Lost, is_first: false },
    Loss { name: "47 a creation that never arrived is sent again", of: |asked| asked.changes("deployments"), fate: Fate::Lost, is_first: true },
    Loss { name: "47 a Service's apply that never arrived is sent again", of: |asked| asked.changes("services"), fate: Fate::Lost, is_first: false },
];

/// Gives this fate to the first request of the kind.
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

/// The request for which the API server is too busy once.
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

/// Seconds. More than the deployer would wait by itself.
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
        let again = asked.find(same).unwrap_or_else(|| panic!("{} was not sent again: {run}", first.target));
        let after = again.at - first.at;
        assert!(after.as_secs() >= RETRY_AFTER, "{} was sent again after only {after:.1?}: {run}", first.target);
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

/// A rollout during which every request begins to get this status.
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
    assert!(run.stderr.contains("deployer status"), "it should print the status command: {run}");
    run
}

async fn token_expires(plane: Plane) {
    lose_access(plane, 401).await.ends_for(70, "AccessLost", &["continues"]);
}

async fn permission_goes(plane: Plane) {
    lose_access(plane, 403).await.ends_for(70, "AccessLost", &["continues"]);
}

/// The dry run is accepted, but the Service is refused from the apply of the Deployment on.
async fn refuse_service(scene: &Scene, more: &[&str]) -> Run {
    let refuse = |asked: &Asked| if asked.changes("services") { Fate::Status(403, None) } else { Fate::Answered };
    let _proxy = scene.through(refuse).await;
    scene.deploy_with(&scene.commits.new, more).await
}

async fn refused_after_apply(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let run = refuse_service(&scene, &[]).await;
    assert!([1, 70].contains(&run.code), "exit code 3 means that nothing was changed: {run}");
    assert_eq!(run.json["exit_code"], run.code, "{run}");
    assert!(run.json["reason"].is_string() && run.verdict().contains("Service"), "{run}");
    assert!(!run.stderr.contains("nothing was changed"), "{run}");
}

async fn refused_and_gone_back(plane: Plane) {
    let scene = Scene::with_old(plane).await;
    let run = refuse_service(&scene, &["--rollback"]).await;
    assert_ne!(run.code, 3, "exit code 3 means that nothing was changed: {run}");
    assert_eq!(run.json["rollback"]["outcome"], "done", "{run}");
    assert_eq!(scene.carried().await[..2], [&*scene.commits.old; 2], "{run}");
}
